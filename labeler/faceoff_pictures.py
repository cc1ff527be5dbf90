"""Where the points, whiskers and lines of a face-off's picture stand: numbers for SVG, drawn by the template.
Human strength against step, over the reward at the same steps. Left out: colours and words."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from labeler.models import Run
from labeler.preferences import Row

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 460, 270, 14, 44, 46, 14
POINTS = 160  # of a reward curve
SMOOTH = 2  # steps to either side


def strengths(rows: Sequence[Row]) -> dict[str, Any]:
    """A line of points for each policy run, beginning at the starting model; and its reward curve."""
    runs: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        run = row.checkpoint.run
        if run and run.kind == Run.Kind.POLICY and not row.is_start:
            runs[run.pk].append(row)
    last = max((row.checkpoint.step or 0 for some in runs.values() for row in some), default=0)
    drawn = [_run(some[0].checkpoint.run, rows[0], some) for some in runs.values()]
    last = max([last, *(each["steps"][-1][0] for each in drawn if each["steps"])], default=1) or 1

    def across(step: float) -> float:
        return round(LEFT + (WIDTH - RIGHT - LEFT) * step / last, 1)

    lines = []
    for number, each in enumerate(drawn):
        points = [_point(row, across) for row in each["rows"]]
        reward = [f"{across(step)},{_up(value)}" for step, value in each["steps"]]
        lines.append(
            {
                "run": each["run"],
                "number": number,
                "points": points,
                "line": " ".join(f"{point['x']},{point['y']}" for point in points),
                "reward": " ".join(reward),
            }
        )
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "end": WIDTH - RIGHT, "floor": HEIGHT - BOTTOM,
        "names": HEIGHT - BOTTOM + 18, "title": HEIGHT - 6, "middle": (LEFT + WIDTH - RIGHT) / 2,
        "even": _up(0.5), "lines": lines,
        "grid": [{"y": _up(tenth / 10), "share": tenth / 10} for tenth in range(0, 11, 2)],
        "ticks": [{"x": across(step), "step": step} for step in _ticks(last)],
    }  # fmt: skip


def _run(run: Run | None, start: Row, rows: list[Row]) -> dict[str, Any]:
    assert run
    said = run.steps.order_by("step").values_list("step", "metrics__reward")
    steps = [(step, value) for step, value in said if value is not None]
    return {"run": run, "rows": [start, *rows], "steps": _thinned(_smoothed(steps))}


def _smoothed(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    found = []
    for number, (step, _) in enumerate(steps):
        near = [value for _, value in steps[max(0, number - SMOOTH) : number + SMOOTH + 1]]
        found.append((step, sum(near) / len(near)))
    return found


def _thinned(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """As many as can be told apart on a screen, the last one among them."""
    apart = -(-len(steps) // POINTS) or 1
    return steps[::-1][::apart][::-1]


def _point(row: Row, across) -> dict[str, Any]:
    return {
        "row": row,
        "x": across(0 if row.is_start else row.checkpoint.step or 0),
        "y": _up(row.share),
        "whisker": None if row.is_start else [_up(row.low), _up(row.high)],
    }


def _up(share: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(max(share, 0.0), 1.0), 1)


def _ticks(last: int) -> list[int]:
    """From 0 to the last step, some six of them, at round numbers."""
    apart = next(size for power in range(6) for size in (10**power, 2 * 10**power, 5 * 10**power)
                 if last / size <= 7)  # fmt: skip
    return list(range(0, last + 1, apart))
