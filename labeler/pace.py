"""How long a run will take: by how long earlier ones took here, or by a dry pass on the worker.

An earlier run serves where it was of the same kind, on the same kind of device, and began from a model of
about the same size; what it did in a step is scaled to what this one does. Nothing is claimed without
either."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labeler import footprint
from labeler.models import Project, Request, Run
from labeler.templatetags.words import count, duration
from rlhf import config

LOOKED_AT = 20  # the newest runs of a kind
ALIKE = 1.15  # models whose sizes differ by no more than this
AT_THE_END = 20  # steps whose lengths are taken


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
        return Work(made.steps, made.prompts_per_step * made.rollouts_per_prompt, made.max_new_tokens)
    if isinstance(made, config.RolloutsConfig):
        return Work(-(-prompts // made.batch), min(made.batch, prompts) * made.count, made.max_new_tokens)
    if isinstance(made, config.RewardConfig | config.SftConfig):
        return Work(max(1, round(lines * (1 - made.held_out) * made.epochs / made.batch)), made.batch, 0)
    return Work(1, lines, 0)


def by_an_earlier_run(project: Project, made: config.Config, size: int | None, wanted: Work) -> Time | None:
    """By the newest run that is like this one; `size` is the start's parameters."""
    runs = Run.objects.filter(kind=made.kind, state=Run.State.FINISHED, started_at__isnull=False)
    for run in (
        runs.defer("log_tail", "cursors")
        .select_related("start", "reward_model", "dataset")
        .order_by("-pk")[:LOOKED_AT]
    ):
        if not _alike(run, made, size):
            continue
        if (found := _scaled(run, made, wanted)) is not None:
            whose = f"run {run.pk}" if run.project_id == project.pk else "a run of another project"
            took = duration(run.finished_at - run.started_at) if run.finished_at and run.started_at else ""
            return Time(found, f"going by {whose}, which took {took}")
    return None


def _alike(run: Run, made: config.Config, size: int | None) -> bool:
    for name in ("device", "lora_rank", "updates_per_batch", "gradient_checkpointing"):
        now = getattr(made, name, None)
        if now is not None and bool(run.config.get(name, now)) != bool(now):
            return False
    start = run.reward_model if made.kind == "evaluation" else run.start
    known = footprint.model(start.folder) if start else None
    return bool(known and size and max(known.parameters, size) <= ALIKE * min(known.parameters, size))


def _scaled(run: Run, made: config.Config, wanted: Work) -> float | None:
    """Seconds; None where the run tells too little."""
    if run.finished_at is None or run.started_at is None:
        return None
    whole = (run.finished_at - run.started_at).total_seconds()
    try:
        before = config.make(run.kind, run.config)
    except config.Refused:  # of a version with other settings
        return None
    timed = list(run.steps.order_by("step").values_list("step", "metrics"))
    if made.kind == "evaluation":
        lines = run.dataset.lines if run.dataset else 0
        return whole * wanted.rows / lines if lines else None
    if len(timed) < 2:
        return None
    seconds = timed[-1][1].get("seconds", 0) - timed[0][1].get("seconds", 0)
    a_step = seconds / (timed[-1][0] - timed[0][0])
    if a_step <= 0:
        return None
    did = work(before, run.dataset.lines if run.dataset else 0, run.step * getattr(before, "batch", 1))
    share = wanted.rows / did.rows
    if wanted.longest:
        lengths = [metrics["length"] for _, metrics in timed[-AT_THE_END:] if "length" in metrics]
        length = sum(lengths) / len(lengths) if lengths else did.longest
        share *= min(length, wanted.longest) / length
    beside = max(0.0, whole - a_step * len(timed))  # loading, measuring, saving
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
        passes = made.updates_per_batch + 2 / 3
        a_step = rows * (made.max_new_tokens / speed + passes * (prompt + made.max_new_tokens) / learning)
    elif isinstance(made, config.RewardConfig):
        a_step = rows * (prompt + 5 * rollout) / learning
    else:
        a_step = rows * (prompt + rollout) / learning
    if wanted.longest:
        how += ", if every rollout runs to its full length"
    return Time(said.get("loading", 0) + wanted.steps * a_step, how)
