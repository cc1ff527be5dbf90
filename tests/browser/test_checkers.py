"""A checker tried on answers, and its verdicts confirmed, overruled and taken back: by mouse, by keyboard and
without JavaScript."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from labeler import answers, checking
from labeler.models import Request, Verdict
from tests.browser import axe
from tests.labeler.checked import practised, sums  # noqa: F401 - fixtures

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def opened(page, sign_in, admin, practised):  # noqa: F811
    sign_in(page, admin)
    page.goto(reverse("checkers", args=[practised.project.slug]))
    return page


def test_answers_are_tried_line_by_line_and_judged_in_place(opened):
    opened.get_by_label("Right answer").fill("1,234")
    opened.get_by_label("Answer", exact=True).fill("It comes to 1234.\nno idea\n$1,234.00")
    opened.get_by_label("Each line is an answer of its own").check()
    opened.get_by_role("button", name="Check", exact=True).click()
    told = opened.locator("#told .verdict-of")
    expect(told).to_have_count(3)
    expect(told.nth(0)).to_contain_text("✓ correct")
    expect(told.nth(1)).to_contain_text("✗ incorrect")
    expect(opened.get_by_label("Right answer")).to_have_value("1,234")


def test_what_the_worker_is_asked_comes_into_its_place(opened, monkeypatch):
    monkeypatch.setattr(checking, "QUICK", ())
    opened.get_by_label("Right answer").fill("5")
    opened.get_by_label("Answer", exact=True).fill("It is 5.")
    opened.get_by_role("button", name="Check", exact=True).click()
    expect(opened.locator("#told")).to_contain_text("Waiting for the worker")
    asked = Request.objects.claim(Request.objects.get(kind="check").pk)
    asked.answer_with(answers.answer(asked))
    expect(opened.locator("#told")).to_contain_text("✓ correct")
    expect(opened.get_by_label("Right answer")).to_have_value("5")


def test_a_verdict_is_overruled_and_taken_back_by_a_click(opened):
    row = opened.locator("#r-0-1")
    row.get_by_role("button", name="No: it is correct").click()
    expect(row).to_contain_text("ada says correct: overruled")
    expect(opened.locator("#measure")).to_contain_text("0 % of 1 answer")
    assert Verdict.objects.get().right is True
    row.get_by_role("button", name="Take it back").click()
    expect(row.get_by_role("button", name="It is incorrect", exact=True)).to_be_visible()
    expect(opened.locator("#measure")).to_contain_text("Nobody has judged an answer")
    assert not Verdict.objects.exists()


def test_the_keyboard_goes_through_them_and_stays_where_it_is(opened):
    opened.locator("main").focus()
    for key in "jc":
        opened.keyboard.press(key)
    first = opened.locator("#r-0-0")
    expect(first).to_contain_text("ada says correct")
    expect(first).to_have_class("verdict-of correct on")
    expect(first.get_by_role("button", name="Take it back")).to_be_focused()
    for key in "jo":
        opened.keyboard.press(key)
    expect(opened.locator("#r-0-1")).to_contain_text("overruled")
    for key in "ku":
        opened.keyboard.press(key)
    expect(first.get_by_role("button", name="It is correct", exact=True)).to_be_visible()
    assert [each.name for each in Verdict.objects.all()] == ["0-1"]


def test_verdicts_are_filtered_and_searched_in_place(opened):
    opened.get_by_label("Show", exact=True).select_option("incorrect")
    expect(opened.locator("[data-verdict]")).to_have_count(2)
    assert "show=incorrect" in opened.url
    opened.get_by_label("Search").fill("no number")
    expect(opened.locator("[data-verdict]")).to_have_count(1)


def test_what_is_typed_while_an_answer_is_on_its_way_is_searched_and_kept(opened, hold):
    search, let_go = opened.get_by_label("Search"), hold("**/checkers/**words=no*")
    with opened.expect_request("**/checkers/**words=no*"):
        search.press_sequentially("no ")
    search.press_sequentially("number")
    let_go()
    expect(opened.locator("[data-verdict]")).to_have_count(1)
    expect(search).to_have_value("no number")


def test_without_javascript_all_of_it_works(new_page, admin, practised, sign_in):  # noqa: F811
    page = new_page(java_script_enabled=False)
    sign_in(page, admin)
    page.goto(reverse("checkers", args=[practised.project.slug]))
    page.locator("#r-0-1").get_by_role("button", name="No: it is correct").click()
    expect(page.locator("#r-0-1")).to_contain_text("overruled")
    page.get_by_label("Prompt").select_option(label="What is 4 * 6? (24)")
    page.get_by_label("Answer", exact=True).fill("It is 24.")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#told")).to_contain_text("✓ correct")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_read_by_everybody(new_page, sign_in, admin, practised, scheme):  # noqa: F811
    page = new_page(color_scheme=scheme, **PHONE)
    sign_in(page, admin)
    for name in ("checkers", "checkers_settings", "prompts_add", "prompts"):
        page.goto(reverse(name, args=[practised.project.slug]))
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        axe.check(page, "main")
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), name
