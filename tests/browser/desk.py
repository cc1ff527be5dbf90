"""What a person sees of the ranking page, read off it: the cards, their ranks, the order in the rail."""

from playwright.sync_api import Page

from labeler.models import Ranking

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
BOXES = (
    "selector => [...document.querySelectorAll(selector)].map(e => JSON.stringify(e.getBoundingClientRect()))"
)


def look(page: Page, project) -> Page:
    page.goto(f"/rank/{project.slug}/")
    return page


def shown(page: Page) -> list[str]:
    return page.locator(".card .say").all_inner_texts()


def ranks(page: Page) -> str:
    """The ranks on the cards from top to bottom: `2·1··`."""
    return "".join(page.locator(".card .mark b").all_inner_texts())


def order(page: Page) -> str:
    """The letters in the rail, best to worst."""
    return "".join(page.locator(".slots em").evaluate_all("all => all.map(each => each.textContent || '-')"))


def focus(page: Page) -> str | None:
    return page.evaluate("document.activeElement.closest('.card')?.dataset.letter")


def boxes(page: Page, selector: str) -> list[str]:
    return page.evaluate(BOXES, selector)


def kept(ranking: Ranking) -> list[str]:
    """The texts of a stored ranking, best to worst."""
    by_rank = zip(ranking.ranks, ranking.quintet.rollouts.all(), strict=True)
    return [rollout.text for _, rollout in sorted(by_rank, key=lambda pair: pair[0])]


def press(page: Page, keys: str) -> None:
    """A string of keys; `⏎` is Enter."""
    for key in keys:
        page.keyboard.press("Enter" if key == "⏎" else key)


def submits(page: Page) -> list[str]:
    """The submits that the page sends from now on."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/submit/" in request.url else None)
    return sent


def drag(page: Page, source: str, target: str, part: float = 0.5) -> None:
    """From one element to another, to this part of its height."""
    start, end = (page.locator(selector).bounding_box() for selector in (source, target))
    page.mouse.move(start["x"] + 20, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + 30, end["y"] + end["height"] * part, steps=6)
    page.mouse.up()
