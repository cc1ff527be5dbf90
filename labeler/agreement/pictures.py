"""Where the bars, dots and whiskers of the pages of agreement stand: numbers for SVG, drawn by the templates.

Left out: colours and words."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

# The same as in layout.py, which loads numpy: a test holds them together.
SHORTEST, PER_OCTAVE = 0.5, 8
A_BAR = 4  # bins: half an octave
TICKS = {
    1: "1 s",
    2: "2 s",
    5: "5 s",
    10: "10 s",
    20: "20 s",
    60: "1 min",
    120: "2 min",
    300: "5 min",
    900: "15 min",
    3600: "1 h",
}

WIDTH, HEIGHT, TOP, BOTTOM, LEFT = 420, 190, 14, 24, 42
LAST = WIDTH - 14  # the end of the last tick that has room for its name
STRIP = 100  # width of an interval in a table


def strip(value: float | None, interval: Sequence[float] | None, low: float, high: float) -> dict[str, Any]:
    """A dot and its whisker between `low` and `high`, and where the middle lies."""

    def at(number: float) -> float:
        return round(STRIP * (min(max(number, low), high) - low) / (high - low), 1)

    ends = [at(end) for end in interval] if interval else None
    return {"width": STRIP, "dot": None if value is None else at(value), "ends": ends}


def positions(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A bar for each place on the page, its whisker, and the height that chance would have."""
    tops = [max(place["best"], *(place["best_interval"] or [0]), place["chance"]) for place in places]
    most = max(0.1, -(-max(tops, default=0) * 10 // 1) / 10)  # the next tenth above all of it
    wide = (WIDTH - LEFT) / max(len(places), 1)

    def at(share: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share / most), 1)

    return {
        **_frame(),
        "grid": [
            {"y": at(tenth / 10), "share": tenth / 10}
            for tenth in range(0, round(most * 10) + 1, 1 + (most > 0.5))
        ],
        "bars": [
            {
                "number": number,
                "middle": round(LEFT + wide * (number - 0.5), 1),
                "x": round(LEFT + wide * (number - 0.5) - wide * 0.28, 1),
                "end": round(LEFT + wide * (number - 0.5) + wide * 0.28, 1),
                "width": round(wide * 0.56, 1),
                "y": at(place["best"]),
                "height": round(at(0) - at(place["best"]), 1),
                "whisker": [at(end) for end in place["best_interval"]] if place["best_interval"] else None,
                "chance": at(place["chance"]),
            }
            for number, place in enumerate(places, start=1)
        ],
    }


def histogram(times: Mapping[str, Any]) -> dict[str, Any]:
    """How many rankings took how long, in half octaves, with the median on it."""
    first, counts = times["from_bin"], times["bins"]
    begin = first // A_BAR
    sums = [0] * (-(-(first + len(counts)) // A_BAR) - begin)
    for number, count in enumerate(counts, start=first):
        sums[number // A_BAR - begin] += count
    wide = (WIDTH - LEFT) / max(len(sums), 1)

    def at(seconds: float) -> float:
        return round(LEFT + wide * (log2(seconds / SHORTEST) * PER_OCTAVE / A_BAR - begin), 1)

    def height(count: float) -> float:
        return round((HEIGHT - TOP - BOTTOM) * count / max(sums), 1)

    ticks = [{"x": x, "name": name} for seconds, name in TICKS.items() if LEFT <= (x := at(seconds)) <= LAST]
    return {
        **_frame(),
        "bars": [
            {
                "x": round(LEFT + wide * number + 1, 1),
                "width": round(max(wide - 2, 1), 1),
                "y": round(HEIGHT - BOTTOM - height(count), 1),
                "height": height(count),
                "count": count,
                "from": SHORTEST * 2 ** ((begin + number) * A_BAR / PER_OCTAVE),
                "to": SHORTEST * 2 ** ((begin + number + 1) * A_BAR / PER_OCTAVE),
            }
            for number, count in enumerate(sums)
        ],
        "ticks": _apart(ticks),
        "median": at(times["median"]),
    }


def _frame() -> dict[str, int]:
    return {"width": WIDTH, "height": HEIGHT, "left": LEFT, "floor": HEIGHT - BOTTOM, "name": HEIGHT - 7}


def _apart(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that leave room for their names."""
    kept: list[dict[str, Any]] = []
    for tick in ticks:
        if not kept or tick["x"] - kept[-1]["x"] >= 44:
            kept.append(tick)
    return kept
