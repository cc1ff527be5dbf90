"""Ranking as a person does it: with keys, with buttons, by dragging, on a phone, without JavaScript."""

from urllib.parse import urlsplit

from playwright.sync_api import expect

from labeler.models import Place, Ranking, Run
from tests.browser.desk import PHONE, boxes, drag, focus, kept, look, order, ranks, shown, submits


def test_three_by_keyboard_and_two_by_pointer(desk, project, compose):
    compose(5)
    look(desk, project)
    asked = desk.locator(".asked .say")
    for number, keys in enumerate(["1234", "5432", "2143"], start=1):
        expect(asked).to_have_text(f"Joke number {number}, please.")
        texts = shown(desk)
        expect(desk.locator(".card").first).to_be_focused()
        for key in keys:
            desk.keyboard.press(key)
        best_first = [texts[ranks(desk).index(rank)] for rank in "12345"]
        desk.keyboard.press("Enter")  # the fifth key press: the last place filled itself
        expect(asked).to_have_text(f"Joke number {number + 1}, please.")
        assert kept(Ranking.objects.last()) == best_first

    texts = shown(desk)
    for letter, rank in zip("bdac", "1234", strict=True):
        desk.locator(f"[name=rank-{letter}][value='{rank}']").click()
    assert order(desk) == "BDACE"
    desk.get_by_role("button", name="Submit and go on").click()
    expect(asked).to_have_text("Joke number 5, please.")
    assert kept(Ranking.objects.last()) == [texts["abcde".index(letter)] for letter in "bdace"]

    texts = shown(desk)
    for letter, rank in zip("ECAB", "1234", strict=True):
        drag(desk, f".tray [data-letter={letter}]", f".slots [data-rank='{rank}']")
    assert order(desk) == "ECABD"
    drag(desk, ".slots [data-letter=D]", ".slots [data-rank='1']")
    assert order(desk) == "DECAB"
    desk.get_by_role("button", name="Submit and go on").click()
    expect(desk.get_by_role("heading", name="You have ranked everything")).to_be_focused()
    assert kept(Ranking.objects.last()) == [texts["abcde".index(letter)] for letter in "decab"]
    assert Ranking.objects.count() == 5


def test_whoever_presses_a_digit_for_the_last_card_as_well_moves_nothing(desk, project, compose):
    compose(3)
    look(desk, project)
    for turn, keys in enumerate(("13254", "12345"), start=1):
        for number, key in enumerate(keys, start=1):
            desk.keyboard.press(key)
            expect(desk.locator(".card").nth(min(number, 4))).to_be_focused()
        assert ranks(desk) == keys
        texts = shown(desk)
        desk.keyboard.press("Enter")
        expect(desk.locator(".asked .say")).to_have_text(f"Joke number {turn + 1}, please.")
        assert kept(Ranking.objects.last()) == [texts[keys.index(rank)] for rank in "12345"]


def test_the_cards_never_move_while_one_ranks(desk, project, compose):
    compose(1)
    look(desk, project)
    everything = ".card, .card .say, .asked, .slots li, .go, .guide, .top"
    before = boxes(desk, everything)
    for key in ["3", "ArrowDown", "1", "Backspace", "2", "5", "1"]:
        desk.keyboard.press(key)
        assert boxes(desk, everything) == before
    drag(desk, ".slots [data-rank='1']", ".slots [data-rank='4']")
    assert boxes(desk, everything) == before


def test_a_swap_keeps_the_layout_and_moves_focus_to_the_new_first_card(desk, project, compose):
    compose(2)
    look(desk, project)
    frame = ".card, .asked, .slots li, .go, .top, .tally p"
    before = boxes(desk, frame)
    for key in "1234":
        desk.keyboard.press(key)
    desk.keyboard.press("Enter")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    expect(desk.locator(".card").first).to_be_focused()
    expect(desk.locator("#said")).to_have_text("Next prompt: Joke number 2, please.")
    assert ranks(desk) == "·····" and order(desk) == "-----"
    assert boxes(desk, frame) == before
    expect(desk.locator(".tally")).to_contain_text("1 today")
    expect(desk.locator(".tally")).to_contain_text("about 50 % ranked")


def test_a_reload_and_a_new_sign_in_show_the_same_order(desk, new_page, sign_in, labeler, project, compose):
    compose(1)
    texts = shown(look(desk, project))
    desk.reload()
    assert shown(desk) == texts
    Place.objects.release(labeler)
    elsewhere = new_page()
    sign_in(elsewhere, labeler)
    assert shown(look(elsewhere, project)) == texts


def test_an_untouched_order_cannot_be_submitted(desk, project, compose):
    compose(1)
    look(desk, project)
    sent = submits(desk)
    expect(desk.get_by_role("button", name="Rank all 5 to go on")).to_be_disabled()
    desk.keyboard.press("Enter")
    expect(desk.locator("#trouble")).to_have_text("5 rollouts have no rank yet.")
    for key in "123":
        desk.keyboard.press(key)
    expect(desk.get_by_role("button", name="2 more to rank")).to_be_disabled()
    desk.keyboard.press("Enter")
    expect(desk.locator("#trouble")).to_have_text("2 rollouts have no rank yet.")
    assert not sent and not Ranking.objects.exists()


def test_a_digit_that_is_taken_moves_the_others_along(desk, project, compose):
    compose(1)
    look(desk, project)
    desk.keyboard.press("1")
    desk.keyboard.press("1")  # B is better still: A moves down
    assert (ranks(desk), focus(desk)) == ("21···", "C")
    desk.keyboard.press("1")
    assert ranks(desk) == "321··"
    desk.keyboard.press("5")
    assert ranks(desk) == "32154" and focus(desk) == "E"  # the last place filled itself with it
    for _ in "DC":
        desk.keyboard.press("ArrowUp")
    desk.keyboard.press("3")  # C from first to third: the two between move up, nobody else
    assert ranks(desk) == "21354"
    desk.keyboard.press("Backspace")
    assert ranks(desk) == "21·54"
    desk.keyboard.press("0")
    desk.keyboard.press("3")
    assert ranks(desk) == "21354"
    expect(desk.locator("#said")).to_have_text("C is 3. Enter submits.")


def test_arrows_move_focus_and_stop_at_the_ends(desk, project, compose):
    compose(1)
    look(desk, project)
    seen = []
    for key in ["ArrowUp", "ArrowDown", "ArrowRight", "ArrowLeft", *["ArrowDown"] * 5]:
        desk.keyboard.press(key)
        seen.append(focus(desk))
    assert "".join(seen) == "ABCBCDEEE"
    desk.keyboard.press("Shift+Tab")
    desk.keyboard.press("2")  # wherever in the card the focus is
    assert ranks(desk) == "···2·"


def test_digits_count_by_their_place_on_the_board(desk, project, compose):
    """An input method says "Process", a French keyboard "&": the key is the same."""
    compose(1)
    look(desk, project)
    press = "init => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', init))"
    for key, code in [("Process", "Digit2"), ("&", "Digit1"), ("4", "Numpad4"), ("5", "")]:
        desk.evaluate(press, {"key": key, "code": code, "bubbles": True})
    assert ranks(desk) == "21453"


def test_the_sheet_of_keys_opens_and_gives_the_focus_back(desk, project, compose):
    compose(1)
    look(desk, project)
    desk.keyboard.press("ArrowDown")
    desk.keyboard.press("?")
    sheet = desk.get_by_role("dialog", name="Keys")
    expect(sheet).to_be_visible()
    desk.keyboard.press("1")
    assert ranks(desk) == "·····"
    desk.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    assert focus(desk) == "B"


def test_a_second_enter_sends_nothing_more(desk, project, compose):
    compose(2)
    look(desk, project)
    sent = submits(desk)
    for key in "1234":
        desk.keyboard.press(key)
    desk.evaluate(
        "() => { for (let i = 0; i < 3; i++) document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', code: 'Enter', bubbles: true})) }"
    )
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert len(sent) == 1 and Ranking.objects.count() == 1


def test_a_lost_connection_keeps_the_order_for_another_try(desk, project, compose):
    compose(2)
    look(desk, project)
    for key in "5432":
        desk.keyboard.press(key)
    desk.context.set_offline(True)
    desk.keyboard.press("Enter")
    expect(desk.locator("#trouble")).to_contain_text("cannot be reached")
    assert ranks(desk) == "54321"
    desk.context.set_offline(False)
    desk.keyboard.press("Enter")
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert Ranking.objects.count() == 1


def test_who_was_signed_out_meanwhile_is_told_and_keeps_the_order(desk, project, compose):
    compose(2)
    look(desk, project)
    for key in "1234":
        desk.keyboard.press(key)
    desk.context.clear_cookies(name="sessionid")
    desk.keyboard.press("Enter")
    expect(desk.locator("#trouble")).to_contain_text("You are signed out")
    assert ranks(desk) == "12345" and not Ranking.objects.exists()


def test_what_is_being_written_appears_by_itself(desk, project, compose):
    Run.objects.create(project=project, kind="rollouts", state="running", leased_until="2100-01-01T00:00Z")
    look(desk, project)
    expect(desk.get_by_role("heading", name="More are being written")).to_be_visible()
    compose(1)
    expect(desk.locator(".card").first).to_be_focused(timeout=8_000)
    expect(desk.locator("#said")).to_have_text("Next prompt: Joke number 1, please.")


def test_the_guidelines_stand_beside_and_stay_as_they_were(desk, project, compose):
    project.revise_guidelines("Funniest **first**.")
    compose(2)
    look(desk, project)
    expect(desk.get_by_text("Funniest first.")).to_be_visible()
    desk.get_by_text("Guidelines version 1").click()
    for key in "1234":
        desk.keyboard.press(key)
    desk.keyboard.press("Escape")
    desk.locator(".desk .go").click()
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    expect(desk.get_by_text("Funniest first.")).to_be_hidden()


def test_on_a_phone_the_button_is_in_reach_and_everything_fits(new_page, sign_in, labeler, project, compose):
    project.revise_guidelines("Funniest **first**.")
    compose(2)
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page, project)
    expect(page.get_by_text("Funniest first.")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    sizes = page.locator(".pick label").evaluate_all("all => all.map(e => [e.offsetWidth, e.offsetHeight])")
    assert len(sizes) == 25 and all(wide >= 44 and high >= 44 for wide, high in sizes)
    for letter, rank in zip("abcd", "2143", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").tap()
    button = page.get_by_role("button", name="Submit and go on")
    expect(button).to_be_in_viewport(ratio=1)
    assert button.bounding_box()["y"] > 844 / 2
    button.tap()
    expect(page.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert page.evaluate("scrollY") == 0
    assert Ranking.objects.count() == 1


def test_a_finger_drags_in_the_bar(new_page, sign_in, labeler, project, compose):
    compose(1)
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page, project)
    for letter, rank in zip("abcd", "1234", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").tap()
    assert order(page) == "ABCDE"
    start, end = (page.locator(f".slots [data-rank='{rank}']").bounding_box() for rank in (5, 2))
    finger = page.context.new_cdp_session(page)
    y, x = start["y"] + 20, start["x"] + 20
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for part in range(1, 9):
        at = {"x": x + (end["x"] - start["x"]) * part / 8, "y": y}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
    assert order(page) == "AEBCD"  # as it would be
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert (order(page), ranks(page)) == ("AEBCD", "13452")


def test_a_drag_that_ends_elsewhere_changes_nothing(desk, project, compose):
    compose(1)
    look(desk, project)
    desk.keyboard.press("2")
    drag(desk, ".slots [data-letter=A]", ".top")
    assert order(desk) == "-A---"
    drag(desk, ".tray [data-letter=C]", ".asked")
    assert order(desk) == "-A---" and ranks(desk) == "2····"


def test_without_javascript_the_form_does_it_all(new_page, sign_in, labeler, project, compose):
    compose(2)
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    look(page, project)
    texts = shown(page)
    for letter, rank in zip("abcde", "21343", strict=True):
        page.locator(f"[name=rank-{letter}][value='{rank}']").check()
    page.get_by_role("button", name="Submit and go on").click()
    expect(page.get_by_role("alert")).to_have_text(
        "Rank 3 is given more than once. Each rank goes to one rollout."
    )
    expect(page.locator("[name=rank-a][value='2']")).to_be_checked()
    page.locator("[name=rank-e][value='5']").check()
    page.get_by_role("button", name="Submit and go on").click()
    expect(page.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert urlsplit(page.url).path == f"/rank/{project.slug}/"
    assert kept(Ranking.objects.get()) == [texts["abcde".index(letter)] for letter in "bacde"]
