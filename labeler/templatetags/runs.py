"""How far a run has come and what came of it, in sentences. Reads rows, changes none."""

import json
from datetime import timedelta
from typing import Any

from django import template
from django.utils import timezone

from labeler import charts
from labeler.arithmetic import Arithmetic
from labeler.models import Dataset, Run
from labeler.models.demonstrations import told
from labeler.templatetags.evaluations import spaced
from labeler.templatetags.words import about, count, duration

register = template.Library()

TITLES = {
    "rollouts": "Rollouts run",
    "sft": "Supervised run",
    "reward": "Reward model run",
    "policy": "Policy run",
    "evaluation": "Evaluation run",
}
SIGNS = {
    "kl": "the KL to the start",
    "distinct_2": "the variety of token pairs",
    "entropy": "the entropy",
}
# What a step of such a run is called, where it is no update of a model.
STEPS = {"rollouts": "portion"}
# What a run says it is at before its first step, and how a page calls it.
START_UP = (
    ((), "in the queue"),
    (("", "starting"), "taken by the worker"),
    (("downloading",), "downloading the model"),
    (("loading",), "loading"),
    (("sampling", "measuring", "training"), "first step"),
)
# A running run's lease is renewed by its worker; what has run out for this long is nobody's at the moment.
PATIENCE = timedelta(seconds=5)


@register.filter
def title(run: Run) -> str:
    return f"{TITLES[run.kind]} {run.pk}"


@register.filter
def is_lost(run: Run) -> bool:
    """It says "running", but its worker has not been heard of: a page must not pretend otherwise."""
    return run.state == Run.State.RUNNING and timezone.now() > (run.leased_until or timezone.now()) + PATIENCE


@register.filter
def elapsed(run: Run) -> float | None:
    """Seconds since it was started, or that it took."""
    if not run.started_at:
        return None
    return max(0.0, ((run.finished_at or timezone.now()) - run.started_at).total_seconds())


@register.filter
def remaining(run: Run) -> float | None:
    """Seconds, going by the newest thirty steps; None before there are two."""
    if run.state != Run.State.RUNNING or not run.total:
        return None
    newest = list(run.steps.order_by("-step").values_list("step", "metrics__seconds")[:30])
    timed = [(step, seconds) for step, seconds in newest if seconds is not None]
    if len(timed) < 2 or timed[0][1] <= timed[-1][1]:
        return None
    pace = (timed[0][1] - timed[-1][1]) / (timed[0][0] - timed[-1][0])
    return max(0, run.total - run.step) * pace


@register.filter
def sentence(run: Run, turns: dict[int, int] | None = None) -> str:
    """Where the run stands: `step 27 of 90 · 46 s gone, about 1 min left`. `turns`: where many are told at
    once, how many runs are before each (`RunQuerySet.turns`)."""
    if run.state == Run.State.QUEUED:
        ahead = (Run.objects.turns() if turns is None else turns).get(run.pk, 0)
        return f"waiting behind {count(ahead, 'run')}" if ahead else "waiting for the worker to take it"
    gone = elapsed(run)
    noun = STEPS.get(run.kind, "step")
    steps = f"{noun} {run.step:,} of {run.total:,}" if run.total else f"not a {noun} yet"
    if run.state == Run.State.RUNNING:
        if is_lost(run) and run.leased_until:
            since = duration(timezone.now() - run.leased_until)
            return f"{steps} · its worker has not been heard of for {since}; it is picked up again soon"
        if run.cancel_requested:
            return f"{steps} · stopping after this step"
        left = remaining(run)
        time = f"{duration(gone)} gone" + (f", {about(left)} left" if left is not None else "")
        return " · ".join([steps if run.step else run.phase or "starting", time, *_busy_with(run)])
    if run.state == Run.State.FINISHED:
        made = run.step if run.result.get("stopped") else run.total or run.step
        return f"{count(made, noun)} in {duration(gone)}" if made else f"took {duration(gone)}"
    if not run.started_at:
        return run.reason or "ended before it was started"
    ended = "stopped" if run.state == Run.State.CANCELLED else "failed"
    return f"{ended} {f'at {steps}' if run.total else 'while it was starting'}, after {duration(gone)}"


def _busy_with(run: Run) -> list[str]:
    """The phase once steps are being made is worth a word only where it is not training itself, nor that all
    is done: what it wrote is being brought in then."""
    return [run.phase] if run.step and run.phase and run.phase not in ("training", "finished") else []


@register.filter
def phases(run: Run) -> list[dict[str, str]]:
    """The way to the first step, while a run is on it: what is past, what is now, what comes."""
    if run.state == Run.State.QUEUED:
        now = 0
    elif run.state != Run.State.RUNNING or run.step:
        return []
    else:
        now = next((place for place, (known, _) in enumerate(START_UP) if run.phase in known), 1)
    shown = [
        (place, words)
        for place, (known, words) in enumerate(START_UP)
        if "downloading" not in known or place == now or (run.start and run.start.is_hub)
    ]
    states = {True: "past", False: "next"}
    return [
        {"words": words, "state": "now" if place == now else states[place < now]} for place, words in shown
    ]


@register.filter
def outcome(run: Run) -> str:
    """One line for a list: what came of it."""
    if run.state == Run.State.FAILED:
        return run.reason
    said, turned = charts.outcome(run), crop(run)
    return f"{said} · crop suggested at step {turned['step']}" if turned else said


@register.filter
def unlike(run: Run) -> str:
    """In a list: in what it is not as the project does it now."""
    start = f"from {run.start}" if run.start and run.start_id != run.project.start_id else ""
    return " · ".join(filter(None, [start, charts.unusual(run)]))


@register.filter
def is_share(run: Run) -> int:
    """Progress in percent."""
    return round(100 * min(run.step, run.total) / run.total) if run.total else 0


@register.filter
def crop(run: Run) -> dict[str, Any] | None:
    """The suggested crop: its `step` and the rules that fired as `words`; None where none is suggested."""
    if found := run.result.get("crop"):
        return {"step": found["step"], "words": spaced(" ".join(found.get("rules", [])))}
    if run.kind != Run.Kind.POLICY or run.result or not run.step:
        return None
    # The result comes at the end; the step at which signs first agreed names them already.
    step = run.steps.filter(metrics__has_key="crop").first()
    if not step:
        return None
    named = " and ".join(SIGNS.get(sign, sign) for sign in step.metrics["crop"])
    return {"step": step.step, "words": f"{named} went past their limits.".capitalize().replace("kl", "KL")}


@register.filter
def why_suggested(run: Run) -> str:
    """Why the checkpoint that a run suggests is that one, which need not be the last."""
    if said := run.result.get("why"):
        return said
    if crop(run):
        return "A crop is suggested, and it is the last one with a KL of at most half the limit."
    if run.kind in (Run.Kind.REWARD, Run.Kind.SFT) and run.result:
        return "It is the last one: only with the setting “Patience” does a run look for the best one."
    return "It is the last one." if run.result else ""


@register.filter
def arithmetic(run: Run) -> Arithmetic | None:
    """How often the simulator was asked, what people read for it, and what asking people would have cost."""
    return Arithmetic.of(run)


@register.filter
def supply(dataset: Dataset) -> str:
    """What a frozen dataset holds: people and programs are never counted together."""
    if dataset.kind == Dataset.Kind.DOCUMENTS:
        return count(dataset.lines, dataset.noun)
    if dataset.origins:
        simulated = f", {dataset.simulated:,} by simulated rankings" if dataset.simulated else ""
        return f"{count(dataset.lines, dataset.noun)}: {told(dataset.origins)}{simulated}"
    people = f"{count(dataset.by_people, dataset.noun)} by people"
    if dataset.harvested:
        people += f", {dataset.harvested:,} confirmed of a harvest"
    return f"{people}, {dataset.simulated:,} simulated" if dataset.simulated else people


@register.filter
def prompt(content: str | list[dict[str, str]]) -> str:
    """The last thing that is said to the model."""
    return content if isinstance(content, str) else content[-1]["content"]


@register.filter
def pretty(value: Any) -> str:
    """JSON as a person reads it."""
    return json.dumps(value, indent=2, ensure_ascii=False)
