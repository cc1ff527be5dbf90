"""The demo's loop with a clock beside it: start from an empty home, train a reward model on the 150 rankings
that are shipped, 90 policy steps against it, and the comparison of before and after.

Everything goes through the web pages and the real worker, with the demo's own defaults.
"""

import json
import re
import time
from collections.abc import Callable

from benchmarks.installation import Page, Unexpected, Visitor, installation
from benchmarks.report import Figures, Rows, main

PROJECT = "pelican-jokes"
A_LOOK = 0.5  # seconds
AT_MOST = 900.0  # seconds for a stage


def measure() -> tuple[Figures, Rows]:
    with installation() as quintet:
        admin = Visitor(quintet.url).sign_in()
        seconds = {"start": quintet.seconds}
        began = time.perf_counter()
        _, seconds["reward"] = carried_out(admin, "reward", simulated="on")
        policy, seconds["policy"] = carried_out(admin, "policy")
        seconds["compare"], answers = _compare(admin, policy)
        seconds["loop"] = time.perf_counter() - began
        steps = len(json.loads(admin.get(f"{policy}steps/").body)["steps"])
    figures: Figures = {f"{name}_seconds": round(value, 1) for name, value in seconds.items()}
    figures |= {"policy_steps": steps, "answers": answers}
    names = {
        "start": "bin/up from an empty home to a page",
        "reward": "reward model on 150 rankings",
        "policy": f"policy, {steps} steps",
        "compare": "before and after",
        "loop": "reward model, policy and comparison",
    }
    return figures, [(words, f"{seconds[name]:.1f} s") for name, words in names.items()]


def carried_out(admin: Visitor, kind: str, **values: str) -> tuple[str, float]:
    """Launch from the page, with what it is filled in with; wait for its end. Address and seconds."""
    address = f"/runs/new/{PROJECT}/{kind}/"
    began = time.perf_counter()
    launched = admin.post(address, admin.get(address).form("start") | values)
    if launched.status != 302:
        raise Unexpected(f"The {kind} run was refused, with status {launched.status}.")
    page = waited(admin, launched.location, lambda page: "<progress" not in _head(page))
    if "chip done" not in _head(page):
        raise Unexpected(f"The {kind} run did not finish: {_words(page)}")
    return launched.location, time.perf_counter() - began


def _compare(admin: Visitor, run: str) -> tuple[float, int]:
    address = f"{run}compare/"
    began = time.perf_counter()
    admin.post(address, admin.get(address).form("after"))
    page = waited(admin, address, lambda page: "every 1s" not in page.body)
    answers = page.body.count('class="pair"')
    if not answers:
        raise Unexpected("The comparison was not answered.")
    return time.perf_counter() - began, answers


def waited(admin: Visitor, address: str, over: Callable[[Page], bool]) -> Page:
    until = time.monotonic() + AT_MOST
    while not over(page := admin.get(address)):
        if time.monotonic() > until:
            raise Unexpected(f"{address} was not done within {AT_MOST:.0f} s.")
        time.sleep(A_LOOK)
    return page


def _head(page: Page) -> str:
    """The part of a run's page that tells its state."""
    return page.body.partition('id="live"')[2].partition("</section>")[0]


def _words(page: Page) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", _head(page)).split())


if __name__ == "__main__":
    main("demo_loop", "Seconds of each stage of the demo's loop.", measure)
