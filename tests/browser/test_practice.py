"""The practice grid in a browser: read by mouse, by keyboard and without JavaScript, on a phone too."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from labeler.models import Checkpoint, Request, Run
from tests.browser import axe
from tests.labeler import drilled as drills
from tests.labeler.drilled import drilled  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
UNCOVERED = """() => document.querySelector(".tile[aria-current]").getBoundingClientRect().bottom
  < document.querySelector("#reading").getBoundingClientRect().top"""


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


def test_a_press_on_a_curve_opens_the_grid_of_that_step(opened, drilled):  # noqa: F811
    opened.goto(reverse("run", args=[drilled.pk]))
    opened.wait_for_selector(".chart.large .plot polyline", state="attached")
    expect(opened.locator(".open-step")).to_have_text("See the practice grid of step 2")
    box = opened.locator(".chart.large .plot").first.bounding_box()
    opened.mouse.click(box["x"] + 60, box["y"] + 150)
    opened.wait_for_url(f"**{reverse('practice_step', args=[drilled.pk, 1])}")
    expect(opened.locator(".tile")).to_have_count(45)


def test_of_a_run_without_a_step_no_grid_is_offered(opened, drilled):  # noqa: F811
    drilled.steps.all().delete()
    Run.objects.update(state="queued", step=0, finished_at=None)
    opened.goto(reverse("run", args=[drilled.pk]))
    expect(opened.locator(".open-step")).to_be_hidden()
    expect(opened.get_by_text("or press on the curve")).to_be_hidden()


def test_a_click_reads_a_tile_and_a_reload_keeps_it(opened, drilled):  # noqa: F811
    opened.locator('[data-name="0-0"]').click()
    expect(opened.locator("#reading")).to_contain_text("slightly more likely")
    opened.reload()
    expect(opened.locator("#reading")).to_contain_text("✓ correct")
    opened.locator("#reading").get_by_role("link", name="Its tokens").click()
    expect(opened.locator(".written")).to_have_count(1)
    opened.get_by_role("link", name="As a grid of right and wrong").click()
    expect(opened.locator("#reading")).to_contain_text("✓ correct")


def test_on_a_phone_what_is_read_leaves_the_tiles_in_sight(new_page, sign_in, admin, drilled):  # noqa: F811
    page = new_page(**PHONE)
    sign_in(page, admin)
    page.goto(reverse("practice_step", args=[drilled.pk, 2]))
    page.locator('[data-name="0-3"]').tap()
    expect(page.locator("#reading")).to_contain_text("8 is 8.")
    expect(page.locator("#reading")).to_be_in_viewport()
    expect(page.locator('[data-name="0-3"]')).to_be_in_viewport()
    page.wait_for_function(UNCOVERED)
    low = page.locator(".tiles").nth(1).locator(".tile").last
    low.tap()
    expect(page.locator("#reading")).to_contain_text("rollout 15 of 15")
    page.wait_for_function(UNCOVERED)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    box = page.locator('[data-name="0-3"]').bounding_box()
    assert box["width"] >= 44 and box["height"] >= 44
    page.emulate_media(color_scheme="dark")
    assert not axe.faults(page, only=["color-contrast"])


def test_without_javascript_a_tile_is_a_link(plain, opened, drilled):  # noqa: F811
    page = plain(reverse("practice_step", args=[drilled.pk, 2]))
    page.locator('[data-name="1-4"]').click()
    expect(page.locator("#reading")).to_contain_text("✓ correct")
    assert not axe.faults(opened)


def test_words_beside_a_dashed_line_hide_no_curve(opened, drilled):  # noqa: F811
    """The last that was measured stands near the line that imitation reaches, and is what one looks for."""
    drilled.steps.all().delete()
    for step in range(11):
        greedy = {"held_out_accuracy": 0.5 + 0.047 * step, "held_out_sampled": 0.4 + 0.04 * step}
        first = {"imitation_accuracy": 1.0} if step == 0 else {"accuracy": 0.4 + 0.04 * step}
        drilled.steps.create(step=step, metrics=greedy | first | {"rechecking": 0.0})
    opened.goto(reverse("run", args=[drilled.pk]))
    words = opened.locator("svg text.said").filter(has_text="all solutions imitated")
    box = words.bounding_box()
    dots = [each.bounding_box() for each in opened.locator("svg circle.dot").all()]
    assert len(dots) >= 22, "both measured curves are drawn"
    for dot in dots:
        beside = dot["x"] + dot["width"] < box["x"] or dot["x"] > box["x"] + box["width"]
        assert beside or dot["y"] + dot["height"] < box["y"] or dot["y"] > box["y"] + box["height"]
    flat = opened.locator("svg").filter(has=opened.locator("text=0.5 %"))
    assert flat.count() == 1, "a curve that stays at nothing has an axis whose numbers differ"


@pytest.fixture
def sampling(drilled) -> Request:  # noqa: F811
    """Two rollouts of a prompt have come, and more are on their way."""
    project = drilled.project
    start = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/Start")
    return drills.sampled(project.prompts.first(), start, (True, False), state="working")


def test_tiles_stream_into_the_grid_while_one_is_read(opened, sampling):
    opened.goto(reverse("practice_sampled", args=[sampling.pk]))
    grid = opened.locator("#tiles .tile")
    expect(grid).to_have_count(2)
    grid.nth(1).click()
    expect(opened.locator("#reading")).to_contain_text("1 was read.")
    for number in range(2, 6):
        drills.add(sampling, number, number % 2 == 0)
    expect(grid).to_have_count(6)
    expect(opened.locator("#sum")).to_contain_text("3 of 6 correct")
    expect(opened.locator("#reading")).to_contain_text("1 was read.")
    assert opened.locator('#tiles .tile[tabindex="0"]').count() == 1
    opened.get_by_role("button", name="Stop").click()
    opened.wait_for_load_state()
    sampling.refresh_from_db()
    assert sampling.stopping
    Request.objects.filter(pk=sampling.pk).update(state="answered", answer={"stopped": True})
    expect(opened.locator("#whole")).to_contain_text("Stopped after 6 of 15")
    expect(opened.locator("#tiles .picked")).to_have_attribute("data-name", "0")
    assert not axe.faults(opened)


def test_what_is_read_stays_when_all_are_there(opened, sampling):
    opened.goto(reverse("practice_sampled", args=[sampling.pk]))
    tile = opened.locator("#tiles .tile").nth(1)
    tile.click()
    expect(opened.locator("#reading")).to_contain_text("1 was read.")
    Request.objects.filter(pk=sampling.pk).update(state="answered", answer={"stopped": False})
    expect(opened.locator(".passes")).to_be_visible()
    expect(opened.locator("#reading")).to_contain_text("1 was read.")
    expect(tile).to_be_focused()
    expect(opened.locator("#today")).not_to_contain_text("being sampled")


def test_on_a_phone_a_thousand_tiles_can_be_touched_and_what_is_read_put_away(
    new_page, sign_in, admin, sampling
):
    Request.objects.filter(pk=sampling.pk).update(question=sampling.question | {"count": 1000})
    page = new_page(**PHONE)
    sign_in(page, admin)
    page.goto(reverse("practice_sampled", args=[sampling.pk]))
    tile = page.locator("#tiles.many .tile").first
    box = tile.bounding_box()
    assert box["width"] >= 44 and box["height"] >= 44
    tile.tap()
    expect(page.locator("#reading")).to_contain_text("0 was read.")
    page.get_by_role("link", name="Close").tap()
    expect(page.locator("#reading")).to_be_hidden()
    tile.tap()
    expect(page.locator("#reading")).to_contain_text("0 was read.")


def test_a_prompt_is_set_aside_and_taken_back_on_a_phone(new_page, sign_in, admin, drilled):  # noqa: F811
    page = new_page(**PHONE)
    sign_in(page, admin)
    page.goto(reverse("practice_difficulty", args=[drilled.project.slug]))
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not axe.faults(page)
    page.get_by_label("Search").fill("9 * 9")
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Set aside What is 9 * 9?").press("Enter")
    expect(page.locator(".message")).to_contain_text("1 prompt set aside")
    page.get_by_label("Search").fill("")
    page.get_by_label("Show").select_option("aside")
    page.get_by_role("button", name="Take it back What is 9 * 9?").press("Enter")
    expect(page.locator(".message")).to_contain_text("practised again")
