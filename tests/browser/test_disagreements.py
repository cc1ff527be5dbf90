"""The disagreement table in a real browser: scrubbed by the keyboard, without a jump, under a thumb, and
without JavaScript."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from labeler.models import Flag, Place, Run, Sample
from tests.browser import axe

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
LONG = "A pelican walks into a bar.\n" * 40
TURNED, CLOSE, ALIKE = [0.1, 0.3, 0.5, 0.7, 0.9], [0.8, 0.1, 0.7, 0.4, 0.6], [0.9, 0.7, 0.5, 0.3, 0.1]


@pytest.fixture
def run(project, compose, labeler) -> Run:
    """Three held-out rankings over three measurements; one has long texts, one a simulated labeler."""
    run = project.runs.create(kind="reward", state="finished")
    texts = [LONG, "Short.", "x" * 300, "Why?", "Because."]
    quintets = [*compose(2), *compose(1, texts)]
    for index, scores in enumerate(([TURNED, CLOSE, ALIKE], [ALIKE] * 3, [CLOSE, CLOSE, TURNED])):
        quintet = quintets[index]
        ranking = quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
        said = {"ranks": ranking.ranks, "labeler": "lena", "quintet": str(quintet.pk)}
        said["simulated"] = index == 1
        written = {
            "prompt": quintet.prompt.content,
            "rollouts": [each.text for each in quintet.rollouts.all()],
        }
        for number, row in enumerate(scores):
            line = said | (written if number == 0 else {}) | {"scores": row}
            Sample.objects.create(run=run, step=10 * number or 1, index=index, line=line)
    return run


def first_card(page) -> str:
    return page.locator(".held").first.get_attribute("id")


def test_the_slider_is_moved_by_the_keyboard_and_nothing_jumps(page, sign_in, admin, run):
    sign_in(page, admin)
    page.goto(reverse("disagreements", args=[run.pk]))
    expect(page.locator(".steps b")).to_have_text("Step 20")
    assert first_card(page) == "held-2"
    slider = page.locator("#look")
    above = slider.bounding_box()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".steps b")).to_have_text("Step 10")
    expect(page.locator("#held-0 .numbers").first).to_contain_text("0.10")
    expect(page.locator("#held-0 .numbers").first).to_contain_text("0.80")
    expect(page.locator("#held-0 .up .visually-hidden").first).to_have_text("up")
    assert slider.get_attribute("aria-valuetext") == "step 10"
    assert "look=1" in page.url
    page.keyboard.press("Home")
    expect(page.locator(".steps b")).to_have_text("Step 1")
    assert first_card(page) == "held-0"
    assert page.evaluate("document.activeElement.id") == "look"
    assert slider.bounding_box() == above


def test_in_the_order_of_the_last_step_every_card_stays_where_it_is(page, sign_in, admin, run):
    sign_in(page, admin)
    page.goto(reverse("disagreements", args=[run.pk]))
    page.get_by_label("Worst first").select_option("last")
    places = "[...document.querySelectorAll('.held')].map(each => [each.id, each.getBoundingClientRect().y])"
    expect(page.locator("#said")).to_be_visible()
    before = page.evaluate(places)
    page.locator("#look").focus()
    for step in (10, 1):
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".steps b")).to_have_text(f"Step {step}")
        assert page.evaluate(places) == before


def test_one_press_marks_a_ranking_and_another_asks_one_more_labeler(page, sign_in, admin, run):
    sign_in(page, admin)
    page.goto(reverse("disagreements", args=[run.pk]))
    card = page.locator("#held-2")
    card.get_by_role("button", name="Mark for review").press("Enter")
    expect(card.get_by_role("status")).to_contain_text("stands on the review list now")
    expect(card.get_by_role("button", name="Take the mark back")).to_be_focused()
    card.get_by_role("button", name="Ask another labeler").press("Enter")
    expect(card.get_by_role("status")).to_contain_text("One more labeler is asked")
    assert (Flag.objects.count(), Place.objects.asked_for().count()) == (1, 1)
    expect(card.get_by_role("button", name="Ask nobody more")).to_be_focused()
    card.get_by_role("button", name="Ask nobody more").press("Enter")
    expect(card.get_by_role("status")).to_contain_text("Nobody more is asked")
    card.get_by_role("link", name="its review").click()
    expect(page.get_by_text("The reward model disagrees")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_long_texts_scroll_in_their_cards(new_page, sign_in, admin, run, scheme):
    page = new_page(color_scheme=scheme, **PHONE)
    sign_in(page, admin)
    page.goto(reverse("disagreements", args=[run.pk]))
    axe.check(page, "main")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('.orders p.say')].every(each => each.clientHeight < 280)"
    )
    page.locator("#held-1").scroll_into_view_if_needed()
    page.mouse.wheel(0, 400)
    assert page.locator("#look").bounding_box()["y"] < 200, "the slider stays within reach"


def test_without_javascript_every_step_and_both_buttons_can_be_reached(plain, run):
    page = plain(reverse("disagreements", args=[run.pk]))
    page.get_by_role("link", name="← step 10").click()
    expect(page.locator(".steps b")).to_have_text("Step 10")
    page.get_by_label("Worst first").select_option("last")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".steps b")).to_have_text("Step 10")
    assert first_card(page) == "held-2"
    page.get_by_role("button", name="Mark for review").first.click()
    expect(page.locator(".message")).to_contain_text("stands on the review list now")
    expect(page.locator(".steps b")).to_have_text("Step 10")
    page.get_by_role("button", name="Take the mark back").click()
    expect(page.locator(".message")).to_contain_text("is not marked")
    assert not Flag.objects.exists()
