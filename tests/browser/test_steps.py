"""A step opened from the curve, its tokens read one by one, some of it sent to the labelers; and the samples
scrubbed beside what was said before. By keyboard, by mouse, and without JavaScript."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from labeler.models import Quintet, Run, Sample
from tests.browser import axe
from tests.labeler.test_steps import run  # noqa: F401 - a run with a real file of rollouts

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def opened(page, sign_in, admin, run: Run):  # noqa: F811
    for number, text in ((0, "Why the pelican?"), (3, "Why the honk?"), (5, "Why the honk, honk?")):
        line = {"prompt": "Joke?", "rollout": text, "score": 0.2 * number, "kl": number, "finished": True}
        Sample.objects.create(run=run, step=number, index=0, line=line)
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    page.wait_for_selector(".plot polyline", state="attached")  # it may be level
    return page


def test_a_step_is_opened_from_the_curve_by_the_keyboard(opened, run):  # noqa: F811
    opened.locator(".chart.large .plot").focus()
    opened.keyboard.press("Home")
    opened.keyboard.press("ArrowRight")
    expect(opened.locator(".open-step")).to_have_text("Read the rollouts of step 2")
    opened.keyboard.press("Enter")
    opened.wait_for_url(f"**{reverse('step', args=[run.pk, 2])}")
    expect(opened.locator(".written")).to_have_count(6)


def test_a_step_is_opened_from_the_curve_by_a_mouse(opened, run):  # noqa: F811
    box = opened.locator(".chart.large .plot").bounding_box()
    opened.mouse.click(box["x"] + box["width"] - 45, box["y"] + 150)
    opened.wait_for_url(f"**{reverse('step', args=[run.pk, 5])}")


def test_tokens_say_what_they_paid_and_rollouts_are_sorted_and_sent(opened, run):  # noqa: F811
    opened.goto(reverse("step", args=[run.pk, 4]))
    text = opened.locator("#r-0-1 [data-says]")
    text.focus()
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
    expect(opened.locator("#r-0-1 .says")).to_have_text("“ the” 0.16 nats · token 3 of 7, number 102")
    opened.locator("#r-0-2 [data-says] span").nth(4).hover()
    expect(opened.locator("#r-0-2 .says")).to_contain_text("“ honk” 0.48 nats")
    opened.get_by_role("link", name="Its tokens in a table").first.click()
    expect(opened.locator("#r-0-0 tbody tr")).to_have_count(7)
    opened.get_by_label("Sort by").select_option("kl")
    expect(opened.locator(".written").first).to_have_id("r-0-2")
    assert "by=kl" in opened.url
    for name in ("0-0", "0-2"):
        opened.locator(f"#r-{name} input[type=checkbox]").check()
    opened.get_by_role("button", name="Send the chosen to the labelers").first.click()
    expect(opened.locator(".message")).to_contain_text("They wait for the labelers now")
    opened.get_by_role("button", name=f"Take quintet {Quintet.objects.get().pk} back").click()
    expect(opened.locator(".message")).to_contain_text("is taken back")


def test_the_samples_are_scrubbed_beside_what_was_said_before(opened):
    slider = opened.locator("#look")
    expect(opened.locator("#said ins").nth(1)).to_have_text("honk,")
    slider.focus()
    opened.keyboard.press("ArrowLeft")
    expect(opened.locator(".steps b")).to_have_text("Step 3")
    assert slider.get_attribute("aria-valuetext") == "step 3"
    expect(opened.locator("#said .then del")).to_have_text("pelican?")
    opened.keyboard.press("End")
    opened.get_by_label("Held against").select_option("start")
    expect(opened.locator("#said .then del")).to_have_text("pelican?")
    expect(opened.locator(".sample .marks")).to_contain_text("0.00 → 1.00")


def test_without_javascript_all_of_it_is_reached_by_links(plain, opened, run):  # noqa: F811
    page = plain(reverse("run", args=[run.pk]))
    page.get_by_role("link", name="← step 3").click()
    expect(page.locator(".steps b")).to_have_text("Step 3")
    page.get_by_label("Held against").select_option("start")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".steps b")).to_have_text("Step 3")
    page.get_by_role("link", name="step", exact=True).click()
    expect(page).to_have_title("Step 5 of policy run " + f"{run.pk} · Pelican jokes")
    page.get_by_role("link", name="← step 4").click()
    page.get_by_role("link", name="Its tokens in a table").nth(1).click()
    expect(page.locator("tbody tr")).to_have_count(7)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(new_page, sign_in, admin, run, scheme):  # noqa: F811
    page = new_page(color_scheme=scheme, **PHONE)
    sign_in(page, admin)
    page.goto(reverse("step", args=[run.pk, 5]))
    axe.check(page, "main")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.locator("[data-says] span").nth(2).tap()
    expect(page.locator(".says").first).to_contain_text("token 3 of 7")
