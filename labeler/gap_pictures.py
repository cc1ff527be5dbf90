"""Where the dots, whiskers and ticks of the gap's picture stand: numbers for SVG, drawn by the template. Left
out: colours and words."""

from collections.abc import Sequence
from math import log2
from typing import Any

from labeler.agreement.pictures import TICKS
from labeler.gap import Figure, Gap

WIDTH, LEFT, RIGHT = 420, 12, 12
ROW, TOP = 52, 22  # a row is its name and, below, its line
APART = 40  # between the names of two ticks


def times(gap: Gap) -> dict[str, Any] | None:
    """Both times on one axis, in octaves; None while neither is known."""
    known = [each for each in (gap.writing, gap.ranking) if each.value]
    if not known:
        return None
    seen = [number for each in known for number in (*each.each, *(each.interval or ()), each.value) if number]
    low, high = log2(max(0.5, min(seen))), log2(max(seen))
    low, high = low - 0.2, max(high, low + 1) + 0.2

    def across(seconds: float) -> float:
        share = (log2(max(seconds, 0.5)) - low) / (high - low)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(max(share, 0.0), 1.0), 1)

    rows = [_row(number, name, each, across) for number, (name, each) in enumerate(
        (("writing one answer", gap.writing), ("ranking five rollouts", gap.ranking)))]  # fmt: skip
    ticks = [{"x": across(seconds), "name": name} for seconds, name in TICKS.items()
             if low <= log2(seconds) <= high]  # fmt: skip
    return _frame(rows) | {"ticks": _apart(ticks)}


def shares(gap: Gap) -> dict[str, Any] | None:
    """How often written answers win, and how far labelers agree on that, from never to always."""
    if gap.won.value is None and gap.agreed.value is None:
        return None

    def across(share: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)

    named = (("a written answer above a rollout", gap.won), ("two labelers of one mind", gap.agreed))
    rows = [_row(number, name, each, across) for number, (name, each) in enumerate(named)]
    ticks = [{"x": across(tenth / 10), "name": f"{tenth * 10} %"} for tenth in (0, 2, 5, 8, 10)]
    return _frame(rows) | {"ticks": ticks, "even": across(0.5)}


def _row(number: int, name: str, figure: Figure, across) -> dict[str, Any]:
    y = TOP + ROW * number
    return {
        "name": name,
        "figure": figure,
        "text": y,
        "y": y + 16,
        "dot": None if figure.value is None else across(figure.value),
        "whisker": [across(end) for end in figure.interval] if figure.interval else None,
        "each": sorted({across(value) for value in figure.each}),
    }


def _frame(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    floor = TOP + ROW * len(rows) - 18
    return {
        "width": WIDTH, "height": floor + 24, "left": LEFT, "end": WIDTH - RIGHT, "top": TOP - 12,
        "floor": floor, "names": floor + 18, "rows": rows,
    }  # fmt: skip


def _apart(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for tick in ticks:
        if not kept or tick["x"] - kept[-1]["x"] >= APART:
            kept.append(tick)
    return kept
