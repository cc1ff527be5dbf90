"""Practice before the work: worked examples with an answer after each, and its end in words. And the words
for whom work is paused, or who is warned."""

import pytest
from playwright.sync_api import expect

from labeler.models import Quintet, Ranking
from tests.browser import axe
from tests.browser.desk import look, press, shown
from tests.labeler.fixtures import JOKES


@pytest.fixture
def practice(project, compose):
    """Two examples, of which the jokes stand best first as they are listed, and one quintet of work."""
    project.practice = True
    project.save()
    for quintet in compose(2, places=0):
        quintet.purpose, quintet.known_ranks = "practice", [1, 2, 3, 4, 5]
        quintet.explanation = "The first joke is the funniest: everybody says so."
        quintet.save()
    return compose(1)[0]


def rank_as(page, wanted: list[str]) -> None:
    """Best first: the digits by which the cards come to stand in this order."""
    expect(page.locator(".card").first).to_be_focused()
    press(page, "".join(str(wanted.index(text) + 1) for text in shown(page))[:4] + "⏎")


def test_the_practice_is_answered_and_leads_to_the_work(desk, project, practice):
    look(desk, project)
    expect(desk.locator(".tally")).to_contain_text("0 of 2 examples done")
    expect(desk.get_by_role("button", name="Skip")).to_have_count(0)
    rank_as(desk, JOKES)
    expect(desk.get_by_role("heading", name="All 10 pairs right")).to_be_focused()
    expect(desk.get_by_text("everybody says so")).to_be_visible()
    assert desk.locator(".taught td:last-child").all_inner_texts() == JOKES
    expect(desk.locator(".tally")).to_contain_text("100 % of the pairs right, 70 % needed")
    axe.check(desk)
    press(desk, "⏎")  # the next example
    rank_as(desk, [JOKES[1], JOKES[0], *JOKES[2:]])
    expect(desk.get_by_role("heading", name="9 of 10 pairs right")).to_be_focused()
    expect(desk.get_by_text("You have passed the practice")).to_be_visible()
    assert desk.locator(".taught tr.same").count() == 3
    press(desk, "⏎")
    expect(desk.locator(".asked .say")).to_have_text(practice.prompt.content)
    expect(desk.locator(".tally")).to_contain_text("0 today")
    rank_as(desk, JOKES)
    # Work is never answered.
    expect(desk.get_by_role("heading", name="You have ranked everything")).to_be_focused()
    assert desk.locator(".lesson").count() == 0
    assert list(Ranking.objects.work()) == [Ranking.objects.latest("pk")]


def test_who_fails_is_told_so_kindly_and_may_practise_again(desk, project, practice):
    look(desk, project)
    for _ in range(2):
        rank_as(desk, JOKES[::-1])
        expect(desk.get_by_role("heading", name="0 of 10 pairs right")).to_be_focused()
        desk.locator("[data-next]").click()
    expect(desk.get_by_role("heading", name="Not passed yet")).to_be_visible()
    expect(desk.get_by_text("nothing of the practice counts against you")).to_be_visible()
    axe.check(desk)
    desk.get_by_role("button", name="Practise again").click()
    expect(desk.locator(".tally")).to_contain_text("0 of 2 examples done")
    rank_as(desk, JOKES)
    expect(desk.get_by_role("heading", name="All 10 pairs right")).to_be_focused()


def test_without_javascript_the_practice_answers_too(new_page, sign_in, labeler, project, practice):
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    look(page, project)
    for text, letter in zip(shown(page), "abcde", strict=True):
        page.locator(f"[name=rank-{letter}][value='{JOKES.index(text) + 1}']").check()
    page.get_by_role("button", name="See how that was").click()
    expect(page.get_by_role("heading", name="All 10 pairs right")).to_be_visible()
    page.get_by_role("link", name="Next example").click()
    expect(page.locator(".tally")).to_contain_text("1 of 2 examples done")


def test_who_is_paused_reads_why_and_is_served_nothing(desk, project, labeler, compose):
    compose(1)
    project.memberships.get(user=labeler).pause("Too quick to have been read.")
    look(desk, project)
    expect(desk.get_by_role("heading", name="Ranking is paused for you")).to_be_visible()
    expect(desk.get_by_text("Too quick to have been read.")).to_be_visible()
    assert desk.locator(".card").count() == 0
    axe.check(desk)


def test_who_is_warned_reads_one_kind_sentence_that_names_no_check(desk, project, labeler, compose):
    compose(1)
    project.checks = "warn"
    project.save()
    words = "Of the pairs whose order is known, 40% were right."
    project.memberships.filter(user=labeler).update(warned_because=words)
    look(desk, project)
    expect(desk.locator(".note.kind")).to_contain_text("Take all the time you need")
    assert "40" not in desk.locator(".tally").inner_text()
    axe.check(desk)


def test_hidden_checks_look_like_work_and_count_like_it(desk, project, labeler, compose):
    project.gold_rate, project.repeat_rate = 1, 0
    project.save()
    gold = compose(1, places=0)[0]
    Quintet.objects.filter(pk=gold.pk).update(purpose="gold", known_ranks=[1, 2, 3, 4, 5])
    compose(1)
    look(desk, project)
    before = desk.locator("#quintet").get_attribute("class"), desk.locator(".go").first.inner_text()
    press(desk, "1234⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert Ranking.objects.get().purpose == "gold"
    expect(desk.locator(".tally")).to_contain_text("1 today")
    assert (desk.locator("#quintet").get_attribute("class"), desk.locator(".go").first.inner_text()) == before
    expect(desk.get_by_role("button", name="Undo")).to_be_visible()
