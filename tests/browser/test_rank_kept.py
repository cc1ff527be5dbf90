"""Nothing that a labeler did is lost, and nothing is done twice: drafts, a lost connection, a crash, two
tabs, the back button, a double click; and what can be taken back."""

import re

from playwright.sync_api import Page, expect

from labeler.models import Place, Ranking, Skip
from tests.browser.desk import look, press, ranks, shown, submits
from tests.labeler.fixtures import PASSWORD


def second_prompt(page: Page) -> None:
    expect(page.locator(".asked .say")).to_have_text("Joke number 2, please.")


def tab(page: Page, project) -> Page:
    """Another tab of the same browser."""
    return look(page.context.new_page(), project)


# ---- drafts


def test_a_reload_keeps_what_was_done(desk, project, compose):
    project.acceptable = True
    project.save()
    compose(1)
    look(desk, project)
    press(desk, "31nu")
    desk.get_by_role("radio", name="2", exact=True).last.check()
    desk.reload()
    assert ranks(desk) == "31···"
    expect(desk.locator(".card[data-letter=C]").get_by_label("Nonsense")).to_be_checked()
    expect(desk.locator(".card[data-letter=C]").get_by_label("Unsafe")).to_be_checked()
    expect(desk.locator("[name=acceptable]:checked")).to_have_value("2")
    expect(desk.locator(".card[data-letter=C]")).to_be_focused()
    expect(desk.get_by_role("button", name="3 more to rank")).to_be_disabled()


def test_after_a_crash_another_browser_goes_on_with_the_draft(
    desk, new_page, sign_in, labeler, project, compose
):
    compose(1)
    look(desk, project)
    with desk.expect_response(re.compile("/draft/$")) as answer:
        press(desk, "42")
    assert answer.value.status == 204
    desk.context.close()
    other = new_page()
    sign_in(other, labeler)
    assert ranks(look(other, project)) == "42···"
    press(other, "⏎")
    expect(other.locator("#trouble")).to_have_text("3 rollouts have no rank yet.")


def test_a_newer_draft_of_this_browser_wins_over_the_server(desk, project, compose):
    compose(1)
    look(desk, project)
    with desk.expect_response(re.compile("/draft/$")):
        press(desk, "42")
    desk.context.set_offline(True)
    press(desk, "1")
    desk.context.set_offline(False)
    desk.reload()
    assert ranks(desk) == "421··"


def test_the_draft_ends_with_its_ranking(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234⏎")
    second_prompt(desk)
    desk.reload()
    second_prompt(desk)
    assert ranks(desk) == "·····"
    kept = "Object.keys(localStorage).filter(key => /draft|unsent/.test(key)).map(key => localStorage[key])"
    assert desk.evaluate(kept) == ["{}", "{}"]
    assert not Place.objects.filter(draft__isnull=False).exists()


# ---- a lost connection


def test_a_lost_connection_sends_the_ranking_by_itself_and_once(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "5432")
    desk.context.set_offline(True)
    press(desk, "⏎")
    expect(desk.locator("#trouble")).to_contain_text("goes out by itself, once")
    expect(desk.locator("#said")).to_contain_text("The server cannot be reached.")
    expect(desk.get_by_role("button", name="Waiting to send")).to_be_visible()
    assert ranks(desk) == "54321"
    desk.context.set_offline(False)
    second_prompt(desk)
    assert Ranking.objects.count() == 1


def test_an_answer_that_was_lost_on_its_way_makes_no_second_ranking(desk, project, compose):
    compose(2)
    look(desk, project)

    def lose(route):
        route.fetch()  # the server has it
        route.abort()

    desk.route("**/submit/", lose, times=1)
    press(desk, "1234⏎")
    expect(desk.locator("#trouble")).to_contain_text("cannot be reached")
    assert Ranking.objects.count() == 1
    second_prompt(desk)  # it tries again by itself
    assert Ranking.objects.count() == 1
    expect(desk.locator(".tally .note")).to_have_count(0)


def test_a_page_that_died_while_it_waited_sends_when_it_comes_back(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "2134")
    first = shown(desk)
    desk.context.set_offline(True)
    press(desk, "⏎")
    expect(desk.locator("#trouble")).to_contain_text("cannot be reached")
    desk.close()
    desk = desk.context.new_page()
    desk.context.set_offline(False)
    look(desk, project)
    second_prompt(desk)
    ranking = Ranking.objects.get()
    texts = [ranking.quintet.rollouts.get(slot=slot).text for slot in ranking.shown]
    assert texts == first and [ranking.ranks[slot] for slot in ranking.shown] == [2, 1, 3, 4, 5]


def test_what_waited_is_sent_though_its_place_was_given_away(desk, labeler, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234")
    desk.context.set_offline(True)
    press(desk, "⏎")
    expect(desk.locator("#trouble")).to_contain_text("cannot be reached")
    desk.close()
    first = Place.objects.get(labeler=labeler)
    Place.objects.release(labeler)
    Place.objects.filter(pk=first.pk).update(done=True)
    desk = desk.context.new_page()
    desk.context.set_offline(False)
    look(desk, project)
    second_prompt(desk)
    expect(desk.locator("#trouble")).to_have_text("The ranking that waited in this browser is sent now.")
    assert Ranking.objects.get().quintet == first.quintet and Ranking.objects.get().surplus


def test_a_ranking_that_waits_is_not_forgotten_for_the_next_one(desk, labeler, project, compose):
    compose(2)
    look(desk, project)
    desk.route("**/submit/", lambda route: route.fulfill(status=503, body="busy"))
    press(desk, "1234⏎")
    expect(desk.locator("#trouble")).to_contain_text("(503)")
    desk.close()
    first = Place.objects.get(labeler=labeler)
    Place.objects.filter(pk=first.pk).update(labeler=None, done=True)
    desk = desk.context.new_page()
    desk.route("**/submit/", lambda route: route.fulfill(status=503, body="busy"), times=1)
    with desk.expect_response("**/submit/"):
        look(desk, project)
    second_prompt(desk)
    press(desk, "1234⏎")
    expect(desk.get_by_role("heading", name="You have ranked everything")).to_be_focused()
    assert Ranking.objects.count() == 1
    desk.reload()
    expect(desk.locator(".tally")).to_contain_text("2 today")
    assert set(Ranking.objects.values_list("quintet", "surplus")) == {
        (first.quintet_id, True),
        (first.quintet_id + 1, False),
    }


def test_a_change_while_it_waits_stops_the_sending(desk, project, compose):
    compose(2)
    look(desk, project)
    sent = submits(desk)
    press(desk, "1234")
    desk.context.set_offline(True)
    press(desk, "⏎")
    expect(desk.locator("#trouble")).to_contain_text("cannot be reached")
    press(desk, "1")
    desk.context.set_offline(False)
    desk.wait_for_timeout(500)
    expect(desk.get_by_role("button", name="Submit and go on")).to_be_enabled()
    assert len(sent) == 1 and not Ranking.objects.exists()
    press(desk, "⏎")
    second_prompt(desk)


def test_a_server_that_fails_for_a_moment_is_tried_again(desk, project, compose):
    compose(2)
    look(desk, project)
    desk.route("**/submit/", lambda route: route.fulfill(status=503, body="busy"), times=1)
    press(desk, "1234⏎")
    expect(desk.locator("#trouble")).to_contain_text("The server answered with an error (503).")
    second_prompt(desk)
    assert Ranking.objects.count() == 1


def test_who_signs_in_again_in_another_tab_sends_what_they_had(desk, labeler, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234")
    desk.context.clear_cookies(name="sessionid")
    press(desk, "⏎")
    expect(desk.locator("#trouble")).to_contain_text("You are signed out. Your order is kept")
    assert ranks(desk) == "12345" and not Ranking.objects.exists()
    other = tab(desk, project)
    other.get_by_label("Name").fill(labeler.username)
    other.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other.locator(".card").first).to_be_focused()
    press(desk, "⏎")
    second_prompt(desk)
    assert Ranking.objects.count() == 1


# ---- twice


def test_a_double_click_is_one_ranking(desk, project, compose):
    compose(3)
    look(desk, project)
    sent = submits(desk)
    press(desk, "1234")
    desk.locator(".desk .go").dblclick()
    second_prompt(desk)
    assert len(sent) == 1 and Ranking.objects.count() == 1


def test_two_tabs_make_one_ranking_and_the_second_goes_on(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234")
    other = tab(desk, project)
    assert ranks(other) == "12345"  # the draft
    press(desk, "⏎")
    second_prompt(desk)
    press(other, "⏎")
    second_prompt(other)
    assert Ranking.objects.count() == 1


def test_another_order_from_a_second_tab_is_refused_in_words(desk, project, compose):
    compose(2)
    look(desk, project)
    other = tab(desk, project)
    press(desk, "1234⏎")
    second_prompt(desk)
    press(other, "5432⏎")
    second_prompt(other)
    expect(other.locator(".tally .note")).to_contain_text("The first ones stand.")
    assert Ranking.objects.count() == 1


def test_the_back_button_shows_what_is_next_and_not_what_was(desk, project, compose):
    compose(3)
    desk.goto("/projects/")
    desk.get_by_role("link", name=re.compile("^Rank · 3")).click()
    expect(desk.locator(".card").first).to_be_focused()
    press(desk, "1234⏎")
    second_prompt(desk)
    desk.go_back()
    desk.go_forward()
    second_prompt(desk)
    assert ranks(desk) == "·····" and Ranking.objects.count() == 1


# ---- taking back


def test_undo_shows_the_quintet_again_as_it_was_ranked(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "n2134⏎")
    second_prompt(desk)
    expect(desk.get_by_role("button", name="Undo")).to_be_visible()
    press(desk, "z")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 1, please.")
    assert ranks(desk) == "21345"
    expect(desk.locator(".card[data-letter=A]").get_by_label("Nonsense")).to_be_checked()
    assert not Ranking.objects.filter(current=True).exists()
    desk.locator("[name=rank-a][value='1']").check()
    press(desk, "⏎")
    second_prompt(desk)
    newest = Ranking.objects.get(current=True)
    assert [newest.ranks[slot] for slot in newest.shown] == [1, 2, 3, 4, 5] and newest.version == 2
    assert Ranking.objects.count() == 2


def test_a_skip_takes_three_keys_and_can_be_taken_back(desk, labeler, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "s")
    dialog = desk.get_by_role("dialog", name="Skip this quintet")
    expect(dialog).to_be_visible()
    press(desk, "2⏎")
    second_prompt(desk)
    expect(dialog).to_be_hidden()
    assert Skip.objects.get().reason == "cannot"
    expect(desk.locator(".card").first).to_be_focused()
    press(desk, "z")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 1, please.")
    assert not Skip.objects.exists()


def test_a_skip_wants_a_reason_and_can_be_left(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "s⏎")
    expect(desk.get_by_role("dialog", name="Skip this quintet")).to_be_visible()
    desk.get_by_label("In your words").fill("5 of these are jokes")
    assert desk.locator("#skip input:checked").count() == 0
    desk.keyboard.press("Escape")
    press(desk, "1")
    assert ranks(desk) == "1····" and not Skip.objects.exists()


def test_a_recent_ranking_is_changed_and_the_old_one_kept(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234⏎")
    second_prompt(desk)
    desk.get_by_role("link", name="Your rankings").click()
    desk.get_by_role("link", name="Change: Joke number 1").click()
    assert ranks(desk) == "12345"
    press(desk, "0")
    desk.locator("[name=rank-e][value='1']").check()
    press(desk, "⏎")
    expect(desk.get_by_text("Kept as version 2.")).to_be_visible()
    old, new = Ranking.objects.order_by("version")
    assert (old.current, new.current) == (False, True)
    assert [new.ranks[slot] for slot in new.shown] == [5, 2, 3, 4, 1]  # A was left: the last place is its own
    assert new.purpose == "work"


def test_what_was_sent_back_comes_first_with_the_reason(desk, admin, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "1234⏎")
    second_prompt(desk)
    Ranking.objects.get().send_back(admin, "Please read C again.")
    desk.get_by_role("link", name="Your rankings").click()
    expect(desk.get_by_role("heading", level=2).first).to_have_text("Sent back to you")
    desk.get_by_role("link", name="Do it again").click()
    expect(desk.get_by_text("Please read C again.")).to_be_visible()
    press(desk, "⏎")
    expect(desk.get_by_text("Kept as version 2.")).to_be_visible()
    assert Ranking.objects.get(current=True).returned_at is None


def test_without_javascript_a_skip_and_a_change_go_through_forms(
    new_page, sign_in, labeler, project, compose
):
    compose(2)
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    look(page, project)
    page.get_by_label("All are equally good or bad").check()
    page.get_by_role("button", name="Skip it").click()
    second_prompt(page)
    for letter, rank in zip("abcde", "12345", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").check()
    page.get_by_role("button", name="Submit and go on").click()
    page.goto(f"/rank/{project.slug}/mine/")
    page.get_by_role("link", name="Change").click()
    page.locator("[name=rank-a][value='2']").check()
    page.locator("[name=rank-b][value='1']").check()
    page.get_by_role("button", name="Keep this order").click()
    expect(page.get_by_text("Kept as version 2.")).to_be_visible()
    page.get_by_role("button", name="Take back").click()
    expect(page.locator(".asked .say")).to_have_text("Joke number 1, please.")
