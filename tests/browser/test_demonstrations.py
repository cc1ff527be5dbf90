"""Writing an ideal answer: by keys alone, across a lost connection with the draft kept, from a rollout, on a
phone, and without JavaScript."""

import pytest
from playwright.sync_api import Page, expect

from labeler.models import Demonstration, Place, Sheet
from tests.browser.desk import PHONE
from tests.labeler.fixtures import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "/demonstrations/pelican-jokes/"


@pytest.fixture
def prompts(project):
    project.revise_guidelines("Be kind.")
    return [project.prompts.create(content=f"Joke number {n}, please.") for n in (1, 2, 3)]


def look(page: Page) -> Page:
    page.goto(HERE)
    expect(page.locator("#completion")).to_be_visible()
    return page


def kept() -> list[str]:
    return [each.completion for each in Demonstration.objects.filter(withdrawn_at=None)]


def asked(page: Page):
    return page.locator(".asked")


def test_by_keys_alone_answers_are_written_sent_skipped_and_taken_back(desk, prompts):
    look(desk)
    expect(desk.locator("#completion")).to_be_focused()
    desk.keyboard.type("A pelican walks\ninto a bar.")
    expect(desk.locator("#counts")).to_have_text("6 words · 27 characters")
    desk.keyboard.press("Control+Enter")
    expect(asked(desk)).to_contain_text("number 2")
    assert kept() == ["A pelican walks\ninto a bar."]
    expect(desk.locator("#completion")).to_be_focused()
    expect(desk.locator("#completion")).to_have_value("")
    desk.keyboard.press("Control+Enter")
    expect(desk.locator("#trouble")).to_contain_text("Write an answer first")
    desk.keyboard.press("Alt+s")
    desk.get_by_label("I cannot answer this").check()
    desk.keyboard.press("Enter")
    expect(asked(desk)).to_contain_text("number 3")
    desk.keyboard.press("Alt+z")
    expect(asked(desk)).to_contain_text("number 2")
    desk.keyboard.type("Second.")
    desk.keyboard.press("Control+Enter")
    expect(asked(desk)).to_contain_text("number 3")
    desk.keyboard.press("Alt+z")
    expect(desk.locator("#completion")).to_have_value("Second.")
    assert kept() == ["A pelican walks\ninto a bar."]
    desk.keyboard.press("Alt+g")
    expect(desk.locator(".guide")).not_to_have_attribute("open", "")


def test_time_is_counted_while_the_page_is_in_use(desk, prompts):
    look(desk)
    desk.keyboard.type("Quick.")
    desk.wait_for_timeout(1200)
    desk.keyboard.press("Control+Enter")
    expect(asked(desk)).to_contain_text("number 2")
    assert 1 <= Demonstration.objects.get().focus_seconds <= 30


def test_a_lost_connection_loses_nothing_and_the_answer_goes_out_once_by_itself(desk, prompts):
    look(desk)
    desk.keyboard.type("Written in a tunnel.")
    desk.context.set_offline(True)
    desk.keyboard.press("Control+Enter")
    expect(desk.locator("#trouble")).to_contain_text(
        "The server cannot be reached. Your answer is kept in this browser"
    )
    expect(desk.locator(".go span")).to_have_text("Waiting to send")
    assert not kept()
    desk.context.set_offline(False)
    expect(asked(desk)).to_contain_text("number 2", timeout=15_000)
    assert kept() == ["Written in a tunnel."]


def test_who_writes_on_without_a_connection_sends_the_newer_text(desk, prompts):
    look(desk)
    desk.keyboard.type("First thought.")
    desk.context.set_offline(True)
    desk.keyboard.press("Control+Enter")
    expect(desk.locator(".go span")).to_have_text("Waiting to send")
    desk.keyboard.type(" And a second.")
    expect(desk.locator(".go span")).to_have_text("Send, and the next")
    desk.context.set_offline(False)
    desk.keyboard.press("Control+Enter")
    expect(asked(desk)).to_contain_text("number 2")
    assert kept() == ["First thought. And a second."]


def test_a_draft_is_there_after_a_reload_and_on_the_server_for_another_browser(desk, prompts):
    look(desk)
    desk.keyboard.type("Half a joke")
    desk.context.set_offline(True)
    desk.keyboard.type(" and a bit")
    desk.context.set_offline(False)
    desk.reload()
    expect(desk.locator("#completion")).to_have_value("Half a joke and a bit")
    expect(desk.locator("#counts")).to_contain_text("6 words")
    with desk.expect_response(lambda answer: answer.url.endswith("/draft/")):
        desk.keyboard.type("x")
    assert Sheet.objects.get(done=False).draft["completion"].startswith(("x", "Half"))


def test_a_rollout_is_a_beginning_and_what_one_had_comes_back(desk, compose):
    compose(2)
    Place.objects.close()  # nobody is to rank them
    look(desk)
    desk.keyboard.type("What I had.")
    desk.get_by_text("Start from a rollout").click()
    desk.get_by_role("button", name="Start from this").first.click()
    value = desk.locator("#completion").input_value()
    assert value.startswith("the ") and value.endswith(" joke")
    expect(desk.get_by_text("Began as a rollout.")).to_be_visible()
    desk.get_by_role("button", name="Back to what I had").click()
    expect(desk.locator("#completion")).to_have_value("What I had.")
    expect(desk.get_by_text("Began as a rollout.")).to_be_hidden()
    desk.get_by_role("button", name="Start from this").first.click()
    desk.keyboard.type("Better: ")
    desk.keyboard.press("Control+Enter")
    expect(asked(desk)).to_contain_text("number 2")
    made = Demonstration.objects.get()
    assert (made.origin, made.completion, made.source) == ("edited", f"Better: {value}", value)


def test_the_field_grows_with_what_is_written(desk, prompts):
    look(desk)
    before = desk.locator("#completion").bounding_box()["height"]
    desk.locator("#completion").fill("A line.\n" * 18)
    assert desk.locator("#completion").bounding_box()["height"] > before + 100


def test_on_a_phone_by_thumb_the_prompt_is_read_first_and_the_button_stays_in_reach(
    new_page, sign_in, labeler, prompts
):
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page)
    expect(page.locator("#completion")).not_to_be_focused()
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    button = page.locator(".rail .go")
    box = button.bounding_box()
    assert box["y"] + box["height"] <= 844 and box["height"] >= 44
    page.locator("#completion").tap()
    page.locator("#completion").fill("By thumb.")
    button.tap()
    expect(asked(page)).to_contain_text("number 2")
    assert kept() == ["By thumb."]
    page.get_by_role("button", name="Skip").tap()
    page.get_by_label("Something is broken").check()
    page.get_by_role("button", name="Skip it").tap()
    expect(asked(page)).to_contain_text("number 3")


def test_without_javascript_an_answer_is_sent_a_rollout_taken_and_a_prompt_skipped(
    new_page, labeler, compose
):
    compose(2)
    Place.objects.close()
    page = new_page(java_script_enabled=False)
    page.goto(HERE)
    page.get_by_label("Username").fill(labeler.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("Start from a rollout").click()
    page.get_by_role("button", name="Start from this").first.click()
    assert page.locator("#completion").input_value().endswith(" joke")
    page.locator("#completion").fill("By hand.")
    page.get_by_role("button", name="Send, and the next").click()
    expect(page.get_by_text("Kept. It is in")).to_be_visible()
    assert (Demonstration.objects.get().completion, Demonstration.objects.get().origin) == (
        "By hand.",
        "edited",
    )
    page.get_by_label("Something is broken").check()
    page.get_by_role("button", name="Skip it").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
