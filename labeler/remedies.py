"""What may be tried after a run has failed: the same run again, with the one setting or start changed that is
known to help. Read from how the run ended (its reason, the setting it blamed) and from what it was given.

Where nothing is known there is no remedy: a page then offers the run as it was."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from labeler.models import Checkpoint, Run
from labeler.templatetags.words import plain
from labeler.trainer import MEMORY
from rlhf import config

DISK_FULL = os.strerror(errno.ENOSPC)
FEWER_AT_ONCE = ("micro_batch", "batch", "tokens_per_row")  # the first that a kind has and that can be less
ADAPTERS = 16  # the rank of a LoRA that is proposed


@dataclass(frozen=True)
class Remedy:
    words: str  # after "Try again with"
    url: str


def of(run: Run) -> Remedy | None:
    """The likeliest one; None where none is known."""
    if run.state != Run.State.FAILED:
        return None
    for is_it, remedy in KNOWN:
        if is_it(run) and (found := remedy(run)):
            words, changes = found
            url = reverse("run_new", args=[run.project.slug, run.kind])
            return Remedy(words, f"{url}?{urlencode({'from': run.pk, **changes})}")
    return None


Changes = tuple[str, dict[str, Any]]


def _ran_out(run: Run) -> bool:
    return run.remedy == MEMORY or "memory" in run.reason.lower() or run.field == "micro_batch"


def _fewer_at_once(run: Run) -> Changes | None:
    """Half as much at once; where it was one already, adapters instead of all weights."""
    for name in FEWER_AT_ONCE:
        now = run.config.get(name)
        if name == "batch" and run.kind != "rollouts":
            continue  # of a training run the batch is what is learnt from, not what is held
        if isinstance(now, int) and (less := _portion(run, name, now)):
            return f"{_label(run, name)} {less} instead of {now}", {name: less}
    if run.config.get("lora_rank") == 0:
        return f"adapters (LoRA rank {ADAPTERS}) instead of all weights", {"lora_rank": ADAPTERS}
    return None


def _portion(run: Run, name: str, now: int) -> int:
    """At most half, into which a step divides; 0 where there is nothing less."""
    low = next(each.minimum for each in config.settings(run.kind) if each.name == name) or 1
    whole = run.config.get("batch", 0)
    if run.kind == "policy":
        whole = run.config.get("prompts_per_step", 0) * run.config.get("rollouts_per_prompt", 0)
    if name != "micro_batch" or not whole:
        return now // 2 if now // 2 >= low else 0
    return next((each for each in range(min(now, whole) // 2, 0, -1) if not whole % each), 0)


def _learnt_too_fast(run: Run) -> bool:
    return run.field == "learning_rate"


def _slower(run: Run) -> Changes | None:
    now = run.config.get("learning_rate")
    if not isinstance(now, int | float) or now <= 0:
        return None
    less = float(f"{now / 3:.1g}")
    return f"a learning rate of {plain(less)} instead of {plain(float(now))}", {"learning_rate": plain(less)}


def _disk_was_full(run: Run) -> bool:
    return DISK_FULL in run.reason or "disk is full" in run.reason


def _fewer_checkpoints(run: Run) -> Changes | None:
    now, total = run.config.get("checkpoint_every"), run.total or run.config.get("steps") or 0
    if not isinstance(now, int) or now >= total:
        return None
    more = min(total, 5 * now)
    return f"a checkpoint every {more} steps instead of {now}, after making room", {"checkpoint_every": more}


def _too_long(run: Run) -> bool:
    return run.field == "max_new_tokens"


def _shorter(run: Run) -> Changes | None:
    now = run.config.get("max_new_tokens")
    if not isinstance(now, int) or now < 2:
        return None
    return f"rollouts of at most {now // 2} tokens instead of {now}", {"max_new_tokens": now // 2}


def _device_is_missing(run: Run) -> bool:
    return run.field == "device"


def _any_device(run: Run) -> Changes | None:
    return ("whatever device there is", {"device": "auto"}) if run.config.get("device") != "auto" else None


def _start_is_bad(run: Run) -> bool:
    return run.field in ("policy", "start") or bool(run.start and _is_gone(run.start))


def _another_start(run: Run) -> Changes | None:
    """The project's own, or another that is there."""
    others = Checkpoint.objects.filter(project=run.project, kind=Checkpoint.Kind.POLICY).exclude(
        pk=run.start_id or 0
    )
    own = [run.project.start] if run.project.start and run.project.start_id != run.start_id else []
    found = next((each for each in [*own, *others.order_by("-suggested", "-pk")] if not _is_gone(each)), None)
    return (f"another start, “{found}”", {"start": found.pk}) if found else None


def _judge_is_bad(run: Run) -> bool:
    return run.field in ("reward", "reward_model") or bool(run.reward_model and _is_gone(run.reward_model))


def _another_judge(run: Run) -> Changes | None:
    others = Checkpoint.objects.filter(project=run.project, kind=Checkpoint.Kind.REWARD)
    others = others.exclude(pk=run.reward_model_id or 0).order_by("-run_id", "-suggested", "-pk")
    found = next((each for each in others if not _is_gone(each)), None)
    return (f"another reward model, “{found}”", {"reward_model": found.pk}) if found else None


def _is_gone(checkpoint: Checkpoint) -> bool:
    return checkpoint.folder is not None and not (checkpoint.folder / "config.json").is_file()


def _label(run: Run, name: str) -> str:
    return next(each.label for each in config.settings(run.kind) if each.name == name)


KNOWN: list[tuple[Callable[[Run], bool], Callable[[Run], Changes | None]]] = [
    (_disk_was_full, _fewer_checkpoints),
    (_learnt_too_fast, _slower),
    (_too_long, _shorter),
    (_device_is_missing, _any_device),
    (_ran_out, _fewer_at_once),
    (_start_is_bad, _another_start),
    (_judge_is_bad, _another_judge),
]
