"""Where the points, lines and whiskers of an evaluation's two pictures stand: numbers for SVG, drawn by the
templates. Left out: colours and words."""

from collections.abc import Mapping, Sequence
from math import floor, sqrt
from typing import Any

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 420, 260, 14, 44, 48, 24
LOWEST = 0.4  # where the upright axis begins, unless something lies below
SMALL, LARGE = 3.0, 9.0  # radius of a point of the fewest and of the most pairs


def reliability(found: Mapping[str, Any]) -> dict[str, Any]:
    """How often right against how sure, with τ and without; the line on which the two would be equal."""
    scaled, raw = found["reliability"], found.get("reliability_raw", [])
    frame = _frame([each["right"] for each in (*scaled, *raw)], 0.5, 1)
    most = max((each["pairs"] for each in scaled), default=1)

    def points(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "x": _across(frame, each["sure"]),
                "y": _up(frame, each["right"]),
                "radius": round(SMALL + (LARGE - SMALL) * sqrt(min(1, each["pairs"] / most)), 1),
                **each,
            }
            for each in told
        ]

    return frame | {
        "points": points(scaled),
        "raw": points(raw),
        "ticks": [{"x": _across(frame, tenth / 10), "share": tenth / 10} for tenth in range(5, 11)],
        "equal": {
            "x1": _across(frame, 0.5),
            "y1": _up(frame, 0.5),
            "x2": _across(frame, 1),
            "y2": _up(frame, 1),
        },
    }


def curve(found: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy against the number of rankings, with what a coin and what people reach."""
    told = [each for each in found["learning_curve"] if each["accuracy"]["value"] is not None]
    shares = [each["accuracy"] for each in told]
    ends = [
        end for share in shares for end in (share["low"], share["high"], share["value"]) if end is not None
    ]
    frame = _frame(ends, 0, max((each["rankings"] for each in told), default=1))
    ceiling = found["people"]["ceiling"]
    points = [
        {
            "x": _across(frame, each["rankings"]),
            "y": _up(frame, each["accuracy"]["value"]),
            "rankings": each["rankings"],
            "whisker": None
            if each["accuracy"]["low"] is None
            else [_up(frame, each["accuracy"]["low"]), _up(frame, each["accuracy"]["high"])],
        }
        for each in told
    ]
    return frame | {
        "points": points,
        "line": " ".join(f"{each['x']},{each['y']}" for each in points),
        "coin": _up(frame, 0.5),
        "ceiling": None if ceiling is None else _up(frame, ceiling),
    }


def _frame(shares: Sequence[float], first: float, last: float) -> dict[str, Any]:
    """The axes: shares from a tenth below all that is drawn up to 1, the other from `first` to `last`."""
    low = min([LOWEST, *(floor(10 * share) / 10 for share in shares)])
    frame: dict[str, Any] = {"low": low, "first": first, "last": last}
    frame |= {"width": WIDTH, "height": HEIGHT, "left": LEFT, "end": WIDTH - RIGHT, "floor": HEIGHT - BOTTOM}
    frame |= {"names": HEIGHT - BOTTOM + 18, "title": HEIGHT - 6, "middle": (LEFT + WIDTH - RIGHT) / 2}
    tenths = range(round(10 * low), 11, 1 + (low < 0.35))
    return frame | {"grid": [{"y": _up(frame, tenth / 10), "share": tenth / 10} for tenth in tenths]}


def _up(frame: Mapping[str, Any], share: float) -> float:
    part = (share - frame["low"]) / (1 - frame["low"])
    return round(frame["floor"] - (frame["floor"] - TOP) * part, 1)


def _across(frame: Mapping[str, Any], value: float) -> float:
    part = (value - frame["first"]) / (frame["last"] - frame["first"])
    return round(LEFT + (frame["end"] - LEFT) * part, 1)
