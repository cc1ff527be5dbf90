"""How long a run will take: by how long earlier ones took here, or by a dry pass on the worker.

An earlier run serves where it was of the same kind, on the same kind of device, and began from a model of
about the same size; what it did in a step is scaled to what this one does. Nothing is claimed without
either."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from labeler import footprint
from labeler.models import Project, Request, Run
from labeler.templatetags.words import count, duration
from rlhf import config

LOOKED_AT = 20  # the newest runs of a kind
ALIKE = 1.15  # models whose sizes differ by no more than this
AT_THE_END = 20  # steps whose lengths are taken
OF_A_RUN = (
    "project", "kind", "config", "step", "started_at", "finished_at", "start",
    "reward_model", "dataset",
)  # fmt: skip
BESIDE = ("start__location", "reward_model__location", "dataset__lines")

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What a run does: so many steps, each so much (rollouts or examples, in tokens where that is known)."""

    steps: int
    rows: float  # of a step
    longest: float  # tokens of a rollout that is written, 0 where none is


@dataclass(frozen=True)
class Time:
    seconds: float
    how: str


def work(made: config.Config, lines: int, prompts: int) -> Work:
    if isinstance(made, config.PolicyConfig):
        return Work(made.steps, made.written, made.max_new_tokens)
    if isinstance(made, config.RolloutsConfig):
        return Work(-(-prompts // made.batch), min(made.batch, prompts) * made.count, made.max_new_tokens)
    if isinstance(made, config.RewardConfig | config.SftConfig):
        return Work(max(1, round(lines * (1 - made.held_out) * made.epochs / made.batch)), made.batch, 0)
    return Work(1, lines, 0)


class Earlier:
    """What runs are estimated by: earlier ones and tries, asked for once, however many are looked at."""

    def __init__(self) -> None:
        self._known: dict[tuple, Any] = {}

    def once(self, what: tuple, ask: Callable[[], T]) -> T:
        if what not in self._known:
            self._known[what] = ask()
        return self._known[what]

    def of(self, kind: str) -> list[Run]:
        """The newest finished runs of a kind."""
        done = Run.objects.filter(kind=kind, state=Run.State.FINISHED, started_at__isnull=False)
        done = done.select_related("start", "reward_model", "dataset").only(*OF_A_RUN, *BESIDE)
        return self.once(("runs", kind), lambda: list(done.order_by("-pk")[:LOOKED_AT]))

    def told(self, run: Run) -> "Told":
        return self.once(("steps", run.pk), lambda: Told.of(run))


@dataclass(frozen=True)
class Told:
    """What the steps of a run tell of its pace."""

    steps: int
    ends: list[tuple[int, float | None, float | None]]  # the first step and the last: number and seconds
    lengths: list[float]  # in tokens, of rollouts towards the end

    @classmethod
    def of(cls, run: Run) -> "Told":
        timed = run.steps.values_list("step", "metrics__seconds", "metrics__length")
        last, first = list(timed.order_by("-step")[:AT_THE_END]), list(timed.order_by("step")[:1])
        lengths = [length for _, _, length in last if length is not None]
        return cls(run.steps.count(), [*first, *last[:1]], lengths)


def by_an_earlier_run(
    project: Project, made: config.Config, size: int | None, wanted: Work, earlier: Earlier | None = None
) -> Time | None:
    """By the newest run that is like this one; `size` is the start's parameters."""
    earlier = earlier or Earlier()
    for run in earlier.of(made.kind):
        if not _alike(run, made, size):
            continue
        if (found := _scaled(run, made, wanted, earlier)) is not None:
            whose = f"run {run.pk}" if run.project_id == project.pk else "a run of another project"
            took = duration(run.finished_at - run.started_at) if run.finished_at and run.started_at else ""
            return Time(found, f"going by {whose}, which took {took}")
    return None


def _alike(run: Run, made: config.Config, size: int | None) -> bool:
    if run.config.get("stage", config.ANSWERS) != getattr(made, "stage", config.ANSWERS):
        return False
    for name in ("device", "lora_rank", "updates_per_batch", "gradient_checkpointing"):
        now = getattr(made, name, None)
        if now is not None and bool(run.config.get(name, now)) != bool(now):
            return False
    start = run.reward_model if made.kind == "evaluation" else run.start
    known = footprint.model(start.folder) if start else None
    return bool(known and size and max(known.parameters, size) <= ALIKE * min(known.parameters, size))


def _scaled(run: Run, made: config.Config, wanted: Work, earlier: Earlier) -> float | None:
    """Seconds; None where the run tells too little."""
    if run.finished_at is None or run.started_at is None:
        return None
    whole = (run.finished_at - run.started_at).total_seconds()
    try:
        before = config.make(run.kind, run.config)
    except config.Refused:  # of a version with other settings
        return None
    if made.kind == "evaluation":
        lines = run.dataset.lines if run.dataset else 0
        return whole * wanted.rows / lines if lines else None
    told = earlier.told(run)
    if told.steps < 2:
        return None
    (began, first, _), (ended, last, _) = told.ends
    a_step = ((last or 0) - (first or 0)) / (ended - began)
    if a_step <= 0:
        return None
    did = work(before, run.dataset.lines if run.dataset else 0, run.step * getattr(before, "batch", 1))
    share = wanted.rows / did.rows
    if wanted.longest:
        length = sum(told.lengths) / len(told.lengths) if told.lengths else did.longest
        share *= min(length, wanted.longest) / length
    beside = max(0.0, whole - a_step * told.steps)  # loading, measuring, saving
    return beside + wanted.steps * a_step * share


def by_a_try(asked: Request, made: config.Config, wanted: Work, tokens: tuple[int, int]) -> Time | None:
    """By a dry pass; `tokens` of a prompt and of a rollout."""
    said: Mapping[str, Any] = asked.answer or {}
    (prompt, rollout), speed, learning = tokens, said.get("sampled"), said.get("trained")
    if not speed:
        return None
    rows, how = wanted.rows, f"by a try with {count(said['rows'], 'row')} on {said['device']}"
    if isinstance(made, config.RolloutsConfig):
        a_step = rows * made.max_new_tokens / speed
    elif not learning:
        return None
    elif isinstance(made, config.PolicyConfig):
        # The start and the reward model read every rollout once, which is a third of learning from it.
        passes = made.updates_per_batch / made.candidates + 2 / 3
        a_step = rows * (made.max_new_tokens / speed + passes * (prompt + made.max_new_tokens) / learning)
    elif isinstance(made, config.RewardConfig):
        a_step = rows * (prompt + 5 * rollout) / learning
    elif isinstance(made, config.SftConfig) and made.stage == config.READING:
        a_step, how = rows * made.max_tokens / learning, f"{how}, if every text is as long as it may be"
    else:
        a_step = rows * (prompt + rollout) / learning
    if wanted.longest:
        how += ", if every rollout runs to its full length"
    return Time(said.get("loading", 0) + wanted.steps * a_step, how)
