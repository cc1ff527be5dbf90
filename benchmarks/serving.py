"""Rank → next quintet over HTTP: one labeler, one connection, the production server that bin/up starts.

Measured from the request to the last byte of the answer, so that the client's own time is in it. 200 further
quintets are put into the queue first, and sampling by itself is off: otherwise the worker would write
rollouts beside the measurement.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.installation import Page, Unexpected, Visitor, installation
from benchmarks.report import Figures, Rows, main

ADDRESS = "/rank/pelican-jokes/"
HTMX = {"HX-Request": "true"}
WARMING, MEASURED = 20, 200
MORE = """
from labeler.models import Project, Quintet, Round
project = Project.objects.get(slug="pelican-jokes")
project.keep_waiting = 0
project.save()
round, start = Round.objects.current(project), project.start
waiting = list(project.quintets.waiting().prefetch_related("rollouts"))
for each in waiting * 5:
    texts = [rollout.text for rollout in each.rollouts.all()]
    Quintet.objects.compose(project, round, each.prompt, texts, checkpoints=start)
"""


def measure() -> tuple[Figures, Rows]:
    with installation() as quintet:
        quintet.manage("shell", "-c", MORE)
        labeler = Visitor(quintet.url).sign_in()
        page = labeler.get(ADDRESS)
        looks, submits = [], []
        for number in range(WARMING + MEASURED):
            sent = page.form("ticket") | {
                f"rank-{letter}": str(rank) for rank, letter in enumerate("badce", start=1)
            }
            seconds, page = _timed(partial(labeler.post, f"{ADDRESS}submit/", sent, **HTMX))
            if page.status != 200:
                raise Unexpected(f"A ranking was answered with status {page.status}.")
            looked, _ = _timed(lambda: labeler.get(ADDRESS))
            if number >= WARMING:
                submits.append(seconds)
                looks.append(looked)
    submit, next_one = _percentiles(submits), _percentiles(looks)
    figures: Figures = {"rankings": MEASURED, "submit": submit, "next": next_one}
    return figures, [
        ("submit, with the next quintet in the answer", _in_words(submit)),
        ("next, the whole page", _in_words(next_one)),
        ("rankings", str(MEASURED)),
    ]


def _timed(ask: Callable[[], Page]) -> tuple[float, Page]:
    began = time.perf_counter()
    page = ask()
    return time.perf_counter() - began, page


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    found = {"p50": cuts[49], "p95": cuts[94], "max": max(seconds)}
    return {f"{name}_ms": round(1000 * value, 1) for name, value in found.items()}


def _in_words(found: dict[str, float]) -> str:
    return f"p50 {found['p50_ms']:.1f} ms, p95 {found['p95_ms']:.1f} ms, longest {found['max_ms']:.1f} ms"


if __name__ == "__main__":
    main("serving", "Latency of ranking: submit and next.", measure)
