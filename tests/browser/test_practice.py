"""The practice grid in a browser: read by mouse, by keyboard and without JavaScript, on a phone too."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser import axe
from tests.labeler.drilled import drilled  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def opened(page, sign_in, admin, drilled):  # noqa: F811
    sign_in(page, admin)
    page.goto(reverse("practice_step", args=[drilled.pk, 2]))
    return page


def test_the_keyboard_goes_from_tile_to_tile_and_reads(opened):
    grid = opened.locator(".tiles").first
    grid.locator(".tile").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "End"):
        opened.keyboard.press(key)
    expect(grid.locator(".tile").nth(14)).to_be_focused()
    assert grid.locator('.tile[tabindex="0"]').count() == 1
    opened.keyboard.press("Enter")
    reading = opened.locator("#reading")
    expect(reading).to_contain_text("114 is not 8.")
    expect(grid.locator(".tile").nth(14)).to_have_attribute("aria-current", "true")
    expect(grid.locator(".tile").nth(14)).to_be_focused()
    opened.keyboard.press("Tab")
    expect(opened.locator(".tiles").nth(1).locator(".tile").first).to_be_focused()
    reading.get_by_role("link", name="Its tokens").focus()
    opened.keyboard.press("Escape")
    expect(grid.locator(".tile").nth(14)).to_be_focused()


def test_a_click_reads_a_tile_and_a_reload_keeps_it(opened, drilled):  # noqa: F811
    opened.locator('[data-name="0-0"]').click()
    expect(opened.locator("#reading")).to_contain_text("slightly more likely")
    opened.reload()
    expect(opened.locator("#reading")).to_contain_text("✓ Correct")
    opened.locator("#reading").get_by_role("link", name="Its tokens").click()
    expect(opened.locator(".written")).to_have_count(1)
    opened.get_by_role("link", name="As a grid of right and wrong").click()
    expect(opened.locator("#reading")).to_contain_text("✓ Correct")


def test_on_a_phone_what_is_read_leaves_the_tiles_in_sight(new_page, sign_in, admin, drilled):  # noqa: F811
    page = new_page(**PHONE)
    sign_in(page, admin)
    page.goto(reverse("practice_step", args=[drilled.pk, 2]))
    page.locator('[data-name="0-3"]').tap()
    expect(page.locator("#reading")).to_contain_text("8 is 8.")
    expect(page.locator("#reading")).to_be_in_viewport()
    expect(page.locator('[data-name="0-3"]')).to_be_in_viewport()
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    box = page.locator('[data-name="0-3"]').bounding_box()
    assert box["width"] >= 44 and box["height"] >= 44
    page.emulate_media(color_scheme="dark")
    assert not axe.faults(page, only=["color-contrast"])


def test_without_javascript_a_tile_is_a_link(plain, opened, drilled):  # noqa: F811
    page = plain(reverse("practice_step", args=[drilled.pk, 2]))
    page.locator('[data-name="1-4"]').click()
    expect(page.locator("#reading")).to_contain_text("✓ Correct")
    assert not axe.faults(opened)
