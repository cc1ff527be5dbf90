"""Would more labels help? The accuracy of reward models that learnt from a quarter, half and three quarters
of the prompts, beside that of the run itself, all on the same held-out rankings.

The parts are nested, and each is a run of its own in the run's folder, with the run's settings and a fresh
head; of a part that is done only its number is kept, so that a curve that was interrupted goes on. A part
holds nothing out for itself: it is measured on what the run held out. How training goes is not known here.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf import batch, checkpoint, data, judgement, processes
from rlhf.config import RewardConfig
from rlhf.data import Ranking
from rlhf.reward_model import RewardModel
from rlhf.run import Cancelled, Failed, Outcome, RunDirectory

SHARES = (0.25, 0.5, 0.75)
FOLDER = "curve"
SELDOM = 100_000  # steps: a part is measured and saved at its end
PHASE = "learning curve"

Train = Callable[[RunDirectory, RewardConfig], Outcome]


class Part(RunDirectory):
    """The run of a part: its own rankings, everything else the whole run's, whose progress it tells."""

    def __init__(self, path: Path, whole: RunDirectory, before: int, of: int):
        super().__init__(path)
        self.whole, self.before, self.of = whole, before, of

    def input(self, given: str) -> Path:
        own = self.path / given
        if own.exists():
            return own
        return self.whole.path / ("inputs/policy" if given.startswith("hub:") else given)

    def tell(self, phase: str, step: int | None = None, total: int | None = None, device: str = "") -> None:
        super().tell(phase, step, total, device)
        self.whole.tell(PHASE, step=self.before + self.step_now, total=self.of)

    def _heed_cancel(self) -> None:
        if self.ending is None and (self.whole.path / "cancel").exists():
            self.ending = Cancelled


def nested(rankings: Sequence[Ranking], seed: int) -> list[list[Ranking]]:
    """The rankings of growing shares of the prompts, each part within the next. A part that would be empty,
    or no smaller than the next, is left out."""
    digests = [data.prompt_digest(ranking.prompt) for ranking in rankings]
    order = sorted(set(digests), key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
    sizes = sorted({round(share * len(order)) for share in SHARES} - {0, len(order)})
    parts = [set(order[:size]) for size in sizes]
    return [
        [ranking for ranking, digest in zip(rankings, digests, strict=True) if digest in part]
        for part in parts
    ]


def points(
    run: RunDirectory, config: RewardConfig, train: Train, taught: Sequence[Ranking], held: Sequence[Ranking]
) -> list[dict[str, Any]]:
    """Train on every part; how many rankings it had, its accuracy, and the held-out `quintets` as it rewards
    them. A part that could not be trained tells why. What is left of them on the disk is for `forget`."""
    parts = nested(taught, config.seed)
    lengths = [batch.steps_of(len(part), config.batch, config.epochs) for part in parts]
    at = run.step_now, run.total
    try:
        return [
            _point(_part(run, number, lengths), config, train, part, held)
            for number, part in enumerate(parts)
        ]
    finally:  # however this ends, the run is where it was
        run.tell("measuring", step=at[0], total=at[1])


def forget(run: RunDirectory) -> None:
    """Remove what the parts left behind."""
    shutil.rmtree(run.path / FOLDER, ignore_errors=True)


def _part(run: RunDirectory, number: int, lengths: Sequence[int]) -> RunDirectory:
    path = run.path / FOLDER / str(number)
    return processes.directory(path, Part, run, sum(lengths[:number]), sum(lengths))


def _point(
    part: RunDirectory,
    config: RewardConfig,
    train: Train,
    rankings: Sequence[Ranking],
    held: Sequence[Ranking],
) -> dict[str, Any]:
    """All processes train, the first one measures and keeps what it found."""
    known, first = part.path.with_suffix(".json"), processes.rank() == 0
    done = first and known.is_file()
    found: dict[str, Any] = {"rankings": len(rankings)}
    if processes.agree(done):
        return json.loads(known.read_text(encoding="utf-8")) if first else found
    if first:
        part.path.mkdir(parents=True, exist_ok=True)
        data.write_lines(part.path / config.dataset, map(data.as_line, rankings))
    settings = dataclasses.replace(
        config, held_out=0.0, learning_curve=False, evaluate_every=SELDOM, checkpoint_every=SELDOM
    )
    try:
        trained = train(part, settings)
    except Failed as failed:
        found |= {"accuracy": judgement.right([]), "quintets": [], "failed": failed.reason}
    else:
        if first:
            found |= _measured(part.path / str(trained.checkpoint), config, held)
    if first:
        part.leave(f"../{known.name}", found)
        shutil.rmtree(part.path)
    return found


def together(points: Sequence[dict[str, Any]], whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The curve as it is kept, with the end that is the run's own evaluation. Each point tells how far that
    end is `ahead` of it, on the same pairs: what both have right, or both wrong, tells nothing of that."""
    curve = []
    for point in points:
        told = judgement.compare(whole["quintets"], point["quintets"])
        ahead = {name: told[name] for name in ("difference", "low", "high", "p")}
        curve.append({name: value for name, value in point.items() if name != "quintets"} | {"ahead": ahead})
    return [*curve, {"rankings": whole["dataset"]["trained_on"], "accuracy": whole["accuracy"]}]


def _measured(path: Path, config: RewardConfig, held: Sequence[Ranking]) -> dict[str, Any]:
    model = RewardModel.load(path, checkpoint.choose_device(config.device), config.max_tokens)
    examples = [model.encode(each.prompt, each.rollouts, each.finished) for each in held]
    rewards = model.rewards_of(examples, config.micro_batch)
    found = judgement.judge(rewards, held, model.score)
    return {name: found[name] for name in ("accuracy", "quintets")}
