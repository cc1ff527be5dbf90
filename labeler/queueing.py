"""The queue of runs as a page shows it: what runs, what waits, in the order in which a worker takes it, and
about when each will begin.

The order is `RunQuerySet.in_turn`, by which runs are claimed as well. A start is estimated from what is
before it: what runs by its pace, what waits by earlier runs; where one of those is not known, nor is what
follows, nor what is further behind than one page. The page asks again every few seconds, so that of each run
only what it shows is read, and earlier runs are read once for all that wait."""

from dataclasses import dataclass

from django.core.paginator import Page, Paginator
from django.db.models.functions import Now

from labeler.models import Run
from labeler.models.launching import lines_of
from labeler.models.runs import RunQuerySet
from labeler.pace import Earlier
from labeler.preview import Look
from labeler.templatetags.runs import elapsed, is_lost, remaining
from rlhf import config

A_PAGE = 40  # and so far ahead it is estimated when one begins
OF_A_RUN = (
    "project", "kind", "state", "config", "step", "total", "phase",
    "leased_until", "started_at", "finished_at", "created_at", "cancel_requested", "ahead", "reason",
    "start", "reward_model", "dataset", "created_by",
)  # fmt: skip
BESIDE = (
    "project__name", "project__judge", "project__checker", "project__judge_model", "dataset__lines",
    "created_by__username", "start__location", "reward_model__location",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    run: Run
    place: int  # among those that wait; 0 while it runs
    mine: bool  # whether whoever looks may know what it is
    starts_in: float | None = None  # seconds
    takes: float | None = None  # seconds, of what is left

    @property
    def is_far(self) -> bool:
        """So far behind that nothing is estimated."""
        return self.place > A_PAGE


@dataclass(frozen=True)
class Lines:
    """A page of the queue; what runs is on the first one."""

    lines: list[Line]
    page: Page


def lines(live: RunQuerySet, mine: set[int], number: str | None = None) -> Lines:
    """`mine`: the projects that whoever looks runs."""
    live = live.select_related("project", "start", "reward_model", "dataset", "created_by")
    live = live.only(*OF_A_RUN, *BESIDE).prefetch_related("contenders")
    page = Paginator(live.claimable().in_turn(), A_PAGE).get_page(number)
    waiting = list(page)
    if page.number > 1:
        places = enumerate(waiting, start=page.start_index())
        return Lines([Line(run, place, run.project_id in mine) for place, run in places], page)
    taken = {run.pk for run in waiting}
    running = live.filter(state=Run.State.RUNNING, leased_until__gte=Now()).order_by("pk")
    found: list[Line] = []
    known: float | None = 0.0
    earlier = Earlier()
    for run in (each for each in running if each.pk not in taken):
        left = remaining(run)
        if left is None and (whole := expected(run, earlier)) is not None:  # it is starting
            left = max(0.0, whole - (elapsed(run) or 0))
        found.append(Line(run, 0, run.project_id in mine, None, left))
        known = None if known is None or left is None else max(known, left)
    for place, run in enumerate(waiting, start=1):
        takes = remaining(run) if is_lost(run) else expected(run, earlier)
        found.append(Line(run, place, run.project_id in mine, known, takes))
        known = None if known is None or takes is None else known + takes
    return Lines(found, page)


def expected(run: Run, earlier: Earlier) -> float | None:
    """Seconds that a run which waits will take, by earlier ones like it. How many prompts a face-off's run
    asks, or one that keeps the queue filled, its row does not tell."""
    if run.kind == Run.Kind.ROLLOUTS and (run.created_by_id is None or run.contenders.all()):
        return None
    try:
        made = config.make(run.kind, run.config)
    except config.Refused:
        return None
    held = lines_of(run.project, made, run.dataset, False) if run.dataset else 0
    time = Look(run.project, made, run.start, run.reward_model, held, earlier=earlier).time()
    return time.seconds if time else None
