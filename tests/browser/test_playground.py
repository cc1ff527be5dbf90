"""A question asked, read along while it is written, stopped, read token by token, sent on and kept: by mouse,
by keyboard, on a phone, and without JavaScript. The test tells the parts as the worker would."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from labeler.models import Demonstration, Quintet, Request
from tests.browser import axe
from tests.labeler import played

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_bell")]
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def start(project):
    project.start = played.policy(project)
    project.save()
    return project.start


@pytest.fixture
def answered(project, admin, start) -> Request:
    return played.answer(played.asked(project, admin, start))


def more(number: int, text: str) -> dict:
    return {"rollouts": [{"number": number, "more": text, "tokens": []}], "so_far": 1}


def test_words_appear_as_they_are_written_and_stop_stops(page, sign_in, admin, project, start):
    sign_in(page, admin)
    page.goto(reverse("project", args=[project.slug]))
    page.get_by_role("link", name="Try it in the playground").click()
    page.get_by_label("Prompt").fill("Joke, please.")
    page.get_by_label("Samples").fill("2")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#waits")).to_have_text("Waiting for the worker.")
    request = Request.objects.claim(Request.objects.get().pk)
    request.tell("Start answers")
    played.tell(request, {"prompt": {"length": 3, "cut": 0}}, more(0, "Why did"))
    expect(page.locator("#said-0-0")).to_have_text("Why did")
    expect(page.locator("#waits")).to_have_text("Start answers.")
    first = page.locator("#r-0-0").element_handle()
    played.tell(request, more(0, " the <pelican>"), more(1, "Honk"))
    expect(page.locator("#said-0-0")).to_have_text("Why did the <pelican>")
    expect(page.locator("#said-0-1")).to_have_text("Honk")
    assert first.evaluate("card => card.isConnected")  # what is read is not pulled from under the eye
    page.get_by_role("button", name="Stop").click()
    page.wait_for_url(re.compile(r"/playground/\d+/$"))
    assert request.is_to_stop()
    cut = played.whole(0, "Why did the", finished=False, stopped=True)
    played.tell(request, {"rollouts": [cut, played.whole(1, "Honk.")]})
    request.answer_with({"stopped": True})
    expect(page.locator("#r-0-0 .chip.warn")).to_have_text("stopped")
    expect(page.locator("#poll")).not_to_have_attribute("hx-get", re.compile("."))
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_tokens_are_read_by_the_keyboard_and_by_the_mouse(page, sign_in, admin, answered):
    sign_in(page, admin)
    page.goto(reverse("play", args=[answered.pk]))
    page.locator("#r-0-1").get_by_role("link", name="Token by token").click()
    chips = page.locator("#r-0-1 .chips")
    expect(chips.locator("span")).to_have_text(
        ["Why", "·did", "·the", "·pelican", "⏎", "honk", "?", "<|end|>"]
    )
    chips.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    told = "“·did” probability 50 %, entropy 1.25 nats; instead “·other0” 20 %, “·other1” 10 %"
    expect(page.locator("#r-0-1 .says")).to_have_text(f"{told} · token 2 of 8, number 101")
    page.keyboard.press("End")
    expect(page.locator("#r-0-1 .says")).to_contain_text("“<|end|>”")
    chips.locator("span").nth(3).hover()
    expect(page.locator("#r-0-1 .says")).to_contain_text("“·pelican” probability 25 %")
    page.locator("#r-0-1").get_by_role("link", name="As text").click()
    expect(page.locator("#said-0-1")).to_contain_text("honk? (1)")


def test_answers_are_sent_to_the_labelers_and_kept_as_a_demonstration(page, sign_in, admin, answered):
    sign_in(page, admin)
    page.goto(reverse("play", args=[answered.pk]))
    for name in ("0-0", "0-1", "0-2"):
        page.locator(f"#r-{name} input[type=checkbox]").check()
    page.get_by_role("button", name="Send the chosen to the labelers").click()
    expect(page.locator(".message")).to_contain_text("They wait for the labelers now")
    quintet = Quintet.objects.get()
    expect(page.locator("#r-0-1 .chip.done")).to_have_text(f"in quintet {quintet.pk}")
    page.get_by_role("button", name=f"Take quintet {quintet.pk} back").click()
    expect(page.locator(".message")).to_contain_text("is taken back")
    page.locator("#r-0-2").get_by_role("button", name="Save as demonstration").click()
    expect(page.locator(".message")).to_contain_text("It is kept as demonstration")
    assert Demonstration.objects.get().completion.endswith("(2)")
    page.locator("#r-0-2").get_by_role("button", name="Withdraw it").click()
    expect(page.locator(".message")).to_contain_text("is withdrawn")


def test_the_same_is_asked_again_with_another_seed(page, sign_in, admin, answered):
    sign_in(page, admin)
    page.goto(reverse("play", args=[answered.pk]))
    page.get_by_role("button", name="Ask again with another seed").click()
    expect(page.get_by_label("Seed")).to_have_value("5")
    expect(page.locator(".lately li")).to_have_count(2)
    page.locator(".lately a").nth(1).click()
    expect(page.get_by_label("Seed")).to_have_value("4")


def test_without_javascript_a_load_shows_what_is_there(new_page, admin, project, start):
    page = new_page(java_script_enabled=False)
    page.goto(reverse("playground"))
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill("quite a long password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("Turn 1", exact=True).fill("Joke?")
    page.get_by_label("Turn 2", exact=True).fill("About what?")
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("Turn 3", exact=True).fill("Pelicans.")
    page.get_by_role("button", name="Ask", exact=True).click()
    request = Request.objects.get()
    assert [each["role"] for each in request.question["prompts"][0]] == ["user", "assistant", "user"]
    played.tell(request, {"prompt": {"length": 3, "cut": 0}}, more(0, "Why did"))
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("#said-0-0")).to_have_text("Why did")
    request.parts.all().delete()
    played.answer(request, [None] * 5)
    page.reload()
    page.locator("#r-0-1").get_by_role("link", name="Token by token").click()
    expect(page.locator("#r-0-1 .chips span")).to_have_count(8)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(new_page, sign_in, admin, project, start, scheme):
    both = played.asked(project, admin, start, played.policy(project, "Step 9"))
    played.answer(both, ["<think>It honks.</think>Why?", "x" * 400, "Short."])
    page = new_page(color_scheme=scheme, **PHONE)
    sign_in(page, admin)
    page.goto(f"{reverse('play', args=[both.pk])}?tokens=all")
    axe.check(page, "main")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.locator("#r-1-0 .chips span").nth(2).tap()
    expect(page.locator("#r-1-0 .says")).to_contain_text("token 3 of 8")
