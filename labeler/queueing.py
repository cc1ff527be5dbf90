"""The queue of runs as a page shows it: what runs, what waits, in the order in which a worker takes it, and
about when each will begin.

The order is `RunQuerySet.in_turn`, by which runs are claimed as well. A start is estimated from what is
before it: what runs by its pace, what waits by earlier runs; where one of those is not known, nor is what
follows."""

from dataclasses import dataclass

from labeler.models import Run
from labeler.models.launching import lines_of
from labeler.models.runs import RunQuerySet
from labeler.preview import Look
from labeler.templatetags.runs import elapsed, is_lost, remaining
from rlhf import config


@dataclass(frozen=True)
class Line:
    run: Run
    place: int  # among those that wait; 0 while it runs
    mine: bool  # whether whoever looks may know what it is
    starts_in: float | None  # seconds
    takes: float | None  # seconds, of what is left

    @property
    def is_first(self) -> bool:
        return self.place == 1


def lines(live: RunQuerySet, mine: set[int]) -> list[Line]:
    """`mine`: the projects that whoever looks runs."""
    waiting = list(live.claimable().in_turn())
    taken = {run.pk for run in waiting}
    running = [run for run in live.order_by("pk") if run.pk not in taken]
    found: list[Line] = []
    known: float | None = 0.0
    for run in running:
        left = remaining(run)
        if left is None and (whole := expected(run)) is not None:  # it is starting
            left = max(0.0, whole - (elapsed(run) or 0))
        found.append(Line(run, 0, run.project_id in mine, None, left))
        known = None if known is None or left is None else max(known, left)
    for place, run in enumerate(waiting, start=1):
        takes = remaining(run) if is_lost(run) else expected(run)
        found.append(Line(run, place, run.project_id in mine, known, takes))
        known = None if known is None or takes is None else known + takes
    return found


def expected(run: Run) -> float | None:
    """Seconds that a run which waits will take, by earlier ones like it. How many prompts a face-off's run
    asks, or one that keeps the queue filled, its row does not tell."""
    if run.kind == Run.Kind.ROLLOUTS and (run.created_by_id is None or run.contenders.exists()):
        return None
    try:
        made = config.make(run.kind, run.config)
    except config.Refused:
        return None
    held = lines_of(run.project, run.kind, run.dataset, False) if run.dataset else 0
    look = Look(run.project, made, run.start, run.reward_model, held)
    time = look.time()
    return time.seconds if time else None
