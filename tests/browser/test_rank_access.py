"""For those who cannot see the page, or see it otherwise: axe-core on it in its states and both themes, what
a screen reader hears, motion, targets that a finger finds, and texts of every kind."""

import pytest
from playwright.sync_api import expect

from labeler.models import Prompt, Quintet, Ranking, Round
from tests.browser import axe
from tests.browser.desk import PHONE, look, press

LONG = "\n\n".join(f"Paragraph {n}. " + "A pelican says nothing for a while. " * 40 for n in range(8))
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What do pelicans eat?"},
    {"role": "assistant", "content": "Fish."},
    {"role": "user", "content": "And what else?"},
]
CODE = "# Title\n\n```python\nif a < b:\n\treturn '<b>'\n```\n\nIt is $O(n_1 * n_2)$, **not** [a link](https://example.org)."


@pytest.fixture
def ask(project):
    """`ask(prompt, texts)`: one quintet of these rollouts."""

    def quintet(content, texts) -> Quintet:
        prompt = Prompt.objects.create(project=project, content=content)
        return Quintet.objects.compose(project, Round.objects.current(project), prompt, texts)

    return quintet


@pytest.fixture
def rich(project):
    project.ties = project.acceptable = True
    project.save()
    project.revise_guidelines("Funniest **first**.")
    return project


# ---- axe-core


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_on_the_ranking_page_in_any_state(
    new_page, sign_in, labeler, admin, rich, compose, scheme, screen
):
    compose(3)
    page = new_page(color_scheme=scheme, **screen)
    sign_in(page, labeler)
    look(page, rich)
    axe.check(page)
    press(page, "11n3u4")
    axe.check(page)
    press(page, "⏎")
    expect(page.locator("#trouble")).to_have_text("One rollout has no rank yet.")
    axe.check(page)
    press(page, "?")
    axe.check(page)
    page.keyboard.press("Escape")
    press(page, "s")
    axe.check(page)
    page.keyboard.press("Escape")
    press(page, "4")
    page.locator(".card").last.locator("[value='4']").first.check()
    press(page, "⏎")
    expect(page.locator(".asked .say")).to_have_text("Joke number 2, please.")
    axe.check(page)
    Ranking.objects.get().send_back(admin, "Please read C again.")
    page.goto(f"/rank/{rich.slug}/mine/")
    axe.check(page)
    page.get_by_role("link", name="Do it again").click()
    axe.check(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_texts_of_every_kind(new_page, sign_in, labeler, project, ask, scheme):
    ask(CHAT, [LONG, "اكتب نكتة عن البجع.", CODE, " ", "A short one."])
    page = new_page(color_scheme=scheme)
    sign_in(page, labeler)
    look(page, project)
    axe.check(page)
    project.rendered = True
    project.save()
    page.reload()
    axe.check(page)


def test_axe_finds_nothing_where_nothing_waits(desk, project):
    look(desk, project)
    axe.check(desk)


def test_axe_finds_what_is_wrong(desk, project, compose):
    compose(1)
    look(desk, project)
    desk.locator(".desk .go").evaluate("button => { button.disabled = false; button.textContent = '' }")
    assert [fault.split(" ")[0] for fault in axe.faults(desk)] == ["button-name"]


# ---- a screen reader


def test_a_screen_reader_hears_every_position_and_move(desk, rich, compose):
    compose(2)
    look(desk, rich)
    heard = desk.locator("#said")
    expect(desk.get_by_role("group", name="Rollout A, open")).to_be_focused()
    press(desk, "1")
    expect(heard).to_have_text("A is 1. 4 to go.")
    expect(desk.get_by_role("group", name="Rollout A, rank 1")).to_be_visible()
    press(desk, "1")
    expect(heard).to_have_text("B is 1, tied with A. 3 to go.")
    expect(desk.get_by_role("group", name="Rollout B, rank 1, tied with A")).to_be_visible()
    press(desk, "234")
    expect(heard).to_have_text("E is 4. Enter submits.")
    desk.keyboard.press("Shift+ArrowUp")
    expect(heard).to_have_text("E is 3, tied with D. Enter submits.")
    desk.keyboard.press("Backspace")
    expect(heard).to_have_text("E is open.")
    press(desk, "1⏎")
    expect(heard).to_have_text("Next prompt: Joke number 2, please.")
    description = desk.locator(".card").first.evaluate("card => card.getAttribute('aria-describedby')")
    assert description == "text-A"


def test_single_keys_can_be_turned_off(desk, project, compose):
    compose(1)
    look(desk, project)
    press(desk, "?")
    desk.get_by_label("Letters and digits work as keys").uncheck()
    desk.keyboard.press("Escape")
    press(desk, "1nsz?")
    assert desk.locator("dialog[open], .card[data-rank], .flags :checked").count() == 0
    desk.reload()
    press(desk, "1")
    assert desk.locator(".card[data-rank]").count() == 0
    desk.get_by_role("button", name="All keys").click()
    desk.get_by_label("Letters and digits work as keys").check()
    desk.keyboard.press("Escape")
    desk.locator(".card").first.focus()
    press(desk, "1")
    assert desk.locator(".card[data-rank]").count() == 1


def test_whoever_wants_no_motion_sees_none(new_page, sign_in, labeler, project, compose):
    compose(1)
    page = new_page(reduced_motion="reduce")
    sign_in(page, labeler)
    look(page, project)
    moving = """all => all.map(each => getComputedStyle(each))
      .filter(style => style.transitionDuration !== '0s' || style.animationName !== 'none').length"""
    assert page.locator("body *").evaluate_all(moving) == 0


# ---- a finger


def test_everything_that_a_finger_presses_is_large_enough(new_page, sign_in, labeler, rich, compose):
    compose(2)
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page, rich)
    small = """all => all.map(e => [e.closest('label') || e]).flat()
      .map(e => [e.textContent.trim() || e.className, e.getBoundingClientRect()])
      .filter(([, box]) => box.width && (box.width < 44 || box.height < 44))
      .map(([name, box]) => `${name}: ${Math.round(box.width)} × ${Math.round(box.height)}`)"""
    targets = page.locator("main :is(button, a, summary, input:not([type=hidden]))")
    assert targets.evaluate_all(small) == []
    page.get_by_role("button", name="Skip").tap()
    assert page.locator("#skip :is(button, input)").evaluate_all(small) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="All keys").tap()
    assert page.locator("#keys :is(button, input)").evaluate_all(small) == []


# ---- what is read


def test_long_texts_scroll_in_their_own_cards_with_the_rank_in_view(desk, project, ask):
    quintet = ask("Summarise this: " + LONG, [LONG + str(n) for n in range(5)])
    look(desk, project)
    assert desk.evaluate("document.documentElement.scrollHeight") < 4 * 800
    for letter in "ABCDE":
        text = desk.locator(f"#text-{letter}")
        assert text.inner_text().startswith(quintet.rollouts.first().text[:200])
        assert text.evaluate("text => text.scrollHeight > text.clientHeight && text.tabIndex === 0")
    press(desk, "1")
    second = desk.locator(".card[data-letter=B]")
    expect(second).to_be_focused()
    asked = desk.locator(".asked").bounding_box()
    assert second.bounding_box()["y"] >= asked["y"] + asked["height"]
    expect(second.locator(".mark b")).to_be_in_viewport(ratio=1)
    top = desk.evaluate("scrollY")
    for _ in range(30):
        desk.keyboard.press("Space")
    last = desk.locator("#text-B").evaluate(
        "text => text.scrollTop + text.clientHeight >= text.scrollHeight - 1"
    )
    assert last and desk.evaluate("scrollY") == top
    expect(desk.locator(".asked")).to_be_in_viewport()


def test_blanks_and_line_breaks_stay_and_each_text_runs_its_own_way(desk, project, ask):
    odd = "one\n\n    two\ttabbed   blanks"
    ask("اكتب نكتة عن البجع.", [odd, "למה השקנאי חצה את הכביש?", "<b>bold</b> & $x$", CODE, " "])
    look(desk, project)
    texts = {text.inner_text(): text for text in desk.locator(".card .say").all()}
    assert odd in texts and CODE in texts and "<b>bold</b> & $x$" in texts
    assert texts[odd].evaluate("text => getComputedStyle(text).whiteSpace") == "pre-wrap"
    ways = {text: each.evaluate("text => getComputedStyle(text).direction") for text, each in texts.items()}
    assert ways["למה השקנאי חצה את הכביש?"] == "rtl" and ways[odd] == "ltr"
    assert desk.locator(".asked .say").evaluate("text => getComputedStyle(text).direction") == "rtl"
    expect(desk.get_by_text("Nothing: this rollout is empty.")).to_be_visible()


def test_markdown_is_rendered_only_where_the_project_says_so(desk, project, ask):
    ask("Say `why`.", [CODE, "<script>document.title = 'broken'</script>", "plain", "1. one\n2. two", "- x"])
    look(desk, project)
    assert desk.locator(".say :is(code, strong, ol)").count() == 0
    project.rendered = True
    project.save()
    desk.reload()
    assert desk.locator(".asked code").inner_text() == "why"
    assert desk.locator(".card pre code").inner_text() == "if a < b:\n\treturn '<b>'\n"
    assert desk.locator(".card code.maths").inner_text() == "$O(n_1 * n_2)$"
    expect(desk.get_by_text("[a link](https://example.org)")).to_be_visible()
    assert desk.locator(".card a").count() == 0 and desk.title() != "broken"
    assert desk.locator(".card :is(h1, h2, h3, h4)").count() == 0
    press(desk, "1")  # the rail shows its words
    assert desk.locator(".slots span").first.inner_text()


def test_a_chat_shows_its_turns(desk, project, ask):
    ask(CHAT, ["one", "two", "three", "four", "five"])
    look(desk, project)
    turns = desk.locator(".asked .turn").all_inner_texts()
    assert [turn.split("\n")[0] for turn in turns] == ["System", "User", "Assistant", "User"]
    expect(desk.get_by_text("And what else?")).to_be_in_viewport()


# ---- beside the work


def test_the_goal_comes_nearer_and_is_said_when_it_is_reached(desk, project, compose):
    project.session_goal = 2
    project.save()
    compose(3)
    look(desk, project)
    for said in ("1 today, 1 to the goal", "2 today: goal reached", "3 today: goal reached"):
        expect(desk.locator(".card").first).to_be_focused()
        press(desk, "1234⏎")
        expect(desk.locator(".tally")).to_contain_text(said)


def test_time_counts_while_somebody_is_at_it(desk, project, compose):
    compose(2)
    desk.clock.install()
    look(desk, project)
    press(desk, "1")
    desk.clock.run_for(30_000)
    press(desk, "2")
    desk.clock.run_for(10 * 60_000)  # away: one minute of it counts
    press(desk, "34⏎")
    desk.clock.run_for(1_000)
    expect(desk.locator(".asked .say")).to_have_text("Joke number 2, please.")
    assert 85 <= Ranking.objects.get().focus_seconds <= 95


def test_new_guidelines_open_once_with_their_version(new_page, sign_in, labeler, project, compose):
    compose(1)
    project.revise_guidelines("Funniest first.")
    page = new_page(**PHONE)
    sign_in(page, labeler)
    look(page, project)
    expect(page.get_by_text("Guidelines version 1")).to_be_visible()
    expect(page.get_by_text("Funniest first.")).to_be_hidden()
    project.revise_guidelines("Kindest first.")
    page.reload()
    expect(page.get_by_text("Guidelines version 2")).to_be_visible()
    expect(page.locator(".guide .new")).to_be_visible()
    expect(page.get_by_text("Kindest first.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Kindest first.")).to_be_hidden()


def test_the_page_is_light(desk, project, compose):
    compose(2)
    project.revise_guidelines("Funniest **first**.")
    sizes: list[int] = []
    desk.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    look(desk, project)
    desk.wait_for_load_state("networkidle")
    assert len(sizes) <= 12 and sum(sizes) <= 150_000  # not compressed here; compressed it is a third of that
