"""Ranks that are shared, marks on a rollout, and the line under what is acceptable: by key, by pointer, and
without JavaScript."""

import pytest
from playwright.sync_api import expect

from labeler.models import Ranking
from tests.browser.desk import PHONE, boxes, drag, focus, look, order, press, ranks


@pytest.fixture
def tying(project):
    project.ties = project.acceptable = True
    project.save()
    return project


def given(page) -> list[int]:
    """The stored ranks of the only ranking, from card A to card E."""
    ranking = Ranking.objects.get()
    return [ranking.ranks[slot] for slot in ranking.shown]


def test_the_same_digit_ties_and_six_keys_do_for_a_quintet(desk, tying, compose):
    compose(2)
    look(desk, tying)
    press(desk, "1133")
    assert (ranks(desk), focus(desk)) == ("1133·", "E")
    press(desk, "5")
    assert ranks(desk) == "11223"  # all are ranked: the ranks close up
    assert desk.locator(".slots b").all_inner_texts() == ["1", "=", "2", "=", "3"]
    press(desk, "⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert given(desk) == [1, 1, 2, 2, 3]


def test_the_equals_key_ties_with_the_one_above(desk, tying, compose):
    compose(1)
    look(desk, tying)
    press(desk, "2=")  # B is open: tied with A, which was ranked last
    expect(desk.locator("#said")).to_have_text("B is 2, tied with A. 3 to go.")
    press(desk, "134")
    assert ranks(desk) == "22134" and order(desk) == "CABDE"
    desk.keyboard.press("=")  # E is in focus, ranked below D: it joins D
    assert ranks(desk) == "22133"
    desk.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown',"
        "{key: 'Process', code: 'Equal', bubbles: true}))"
    )  # an input method is on; E is tied already
    assert ranks(desk) == "22133"
    desk.keyboard.press("ArrowUp")
    desk.keyboard.press("=")  # D stands below A and B: it joins them, and E stays
    assert ranks(desk) == "22123"


def test_shift_and_arrows_move_a_card_by_half_steps(desk, tying, compose):
    compose(1)
    look(desk, tying)
    press(desk, "12345")
    seen = []
    for _ in range(4):
        desk.keyboard.press("Shift+ArrowUp")
        seen.append(order(desk) + " " + ranks(desk))
    assert seen == ["ABCDE 12344", "ABCED 12354", "ABCED 12343", "ABECD 12453"]
    expect(desk.locator("#said")).to_have_text("E is 3, C is 4, D is 5. Enter submits.")
    desk.keyboard.press("Shift+ArrowDown")
    assert ranks(desk) == "12343"


def test_without_ties_shift_and_arrows_swap_and_the_equals_key_does_nothing(desk, project, compose):
    compose(1)
    look(desk, project)
    press(desk, "1234")
    desk.keyboard.press("Shift+ArrowUp")
    assert ranks(desk) == "12354" and focus(desk) == "E"
    desk.keyboard.press("=")
    assert ranks(desk) == "12354"


def test_a_drop_on_a_row_ties_and_between_two_rows_parts(desk, tying, compose):
    compose(1)
    look(desk, tying)
    everything = ".card, .card .say, .slots li, .go, .good"
    before = boxes(desk, everything)
    press(desk, "12345")
    drag(desk, ".slots [data-letter=E]", ".slots [data-letter=A]")
    assert ranks(desk) == "12341" and order(desk) == "AEBCD"
    drag(desk, ".slots [data-letter=E]", ".slots [data-letter=C]", part=0.9)
    assert ranks(desk) == "12354" and order(desk) == "ABCED"
    drag(desk, ".slots [data-letter=D]", ".slots [data-letter=A]", part=0.1)
    assert ranks(desk) == "23415" and order(desk) == "DABCE"
    assert boxes(desk, everything) == before


def test_each_mark_has_a_key_and_a_button(desk, project, compose):
    compose(2)
    look(desk, project)
    press(desk, "n")
    expect(desk.locator("#said")).to_have_text("A is marked as nonsense.")
    press(desk, "nn12uu3u4")
    desk.locator(".card[data-letter=E]").get_by_label("Nonsense").check()
    press(desk, "⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    ranking = Ranking.objects.get()
    a, _, _, d, e = ranking.shown
    assert ranking.nonsense == sorted([a, e]) and ranking.unsafe == [d]
    assert desk.locator(".flags input:checked").count() == 0


def test_the_line_under_what_is_acceptable_moves_by_key_and_by_pointer(desk, tying, compose):
    compose(2)
    look(desk, tying)
    chosen = desk.locator("[name=acceptable]:checked")
    assert chosen.get_attribute("value") == ""
    press(desk, "12345")
    desk.keyboard.press("ArrowUp")
    press(desk, "a")
    expect(desk.locator("#said")).to_have_text("Acceptable down to rank 4.")
    press(desk, "a")
    expect(chosen).to_have_value("3")
    drag(desk, ".line small", ".slots [data-rank='1']", part=0.9)
    expect(chosen).to_have_value("1")
    desk.get_by_role("radio", name="none").check()
    expect(desk.locator("#said")).to_have_text("None is acceptable.")
    desk.get_by_role("radio", name="2", exact=True).last.check()
    press(desk, "⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert Ranking.objects.get().acceptable == 2


def test_what_is_not_said_about_acceptance_is_not_kept(desk, tying, compose):
    compose(2)
    look(desk, tying)
    press(desk, "12345⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert Ranking.objects.get().acceptable is None


def test_rollouts_that_read_the_same_are_one_card_and_a_tie(desk, project, compose):
    compose(2, texts=["the same", "another", "the same ", "a third", "the same"])
    look(desk, project)
    assert desk.locator(".card").count() == 3
    expect(desk.get_by_text("3 rollouts say exactly this")).to_be_visible()
    same = desk.locator(".card", has_text="the same").get_attribute("data-letter")
    for letter in "ABC":
        rank = "1" if letter == same else "2"
        desk.locator(f"[name=rank-{letter.lower()}][value='{rank}']").check()
    press(desk, "⏎")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    stored = Ranking.objects.get().ranks
    assert stored[0] == stored[2] == stored[4] == 1 and sorted([stored[1], stored[3]]) == [2, 3]


def test_a_finger_ties_in_the_bar_of_a_phone(new_page, sign_in, labeler, tying, compose):
    compose(1)
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page, tying)
    for letter, rank in zip("abcde", "12345", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").tap()
    start, end = (page.locator(f".slots [data-letter={letter}]").bounding_box() for letter in "DB")
    finger = page.context.new_cdp_session(page)
    y, x, over = start["y"] + 20, start["x"] + 20, end["x"] + end["width"] / 2
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for part in range(1, 9):
        at = {"x": x + (over - x) * part / 8, "y": y}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert (order(page), ranks(page)) == ("ABDCE", "12324")


def test_without_javascript_ties_marks_and_acceptance_are_in_the_form(
    new_page, sign_in, labeler, tying, compose
):
    compose(2)
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    look(page, tying)
    for letter, rank in zip("abcde", "11355", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").check()
    page.locator("[name=nonsense][value=e]").check()
    page.locator("[name=unsafe][value=b]").check()
    page.locator("[name=acceptable][value='3']").check()
    page.get_by_role("button", name="Submit and go on").click()
    expect(page.locator(".asked .say")).to_have_text("Joke number 2, please.")
    ranking = Ranking.objects.get()
    assert given(page) == [1, 1, 2, 3, 3] and ranking.acceptable == 2
    assert (ranking.nonsense, ranking.unsafe) == ([ranking.shown[4]], [ranking.shown[1]])
