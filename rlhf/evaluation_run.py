"""A run of kind evaluation, whole: one reward model, or two of them side by side, on rankings that neither
has learnt from.

What a model was trained on is known where the very file is at hand: it is the dataset itself, or lies in
inputs/learnt. Which of its prompts were held out then follows from the seed and the share in the model's
lineage. How models are judged is the matter of `rlhf.evaluate`.
"""

import gc
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf import checkpoint, claims, data, evaluate, judgement, probes, reward_run
from rlhf.config import EvaluationConfig, RewardConfig
from rlhf.data import Ranking
from rlhf.reward_model import RewardModel
from rlhf.run import Failed, Outcome, RunDirectory

LEARNT = "inputs/learnt"  # the datasets that the models were trained on, where whoever asks has them
NONE_LEFT = (
    "Nothing is left to measure on: every prompt in this dataset taught a reward model that is measured.",
    "Take a dataset with newer rankings, or a model that held something out.",
)


def measure(run: RunDirectory, config: EvaluationConfig) -> Outcome:
    """Measure, and leave evaluation.json."""
    device = checkpoint.choose_device(config.device)
    run.tell("measuring", device=checkpoint.describe(device))
    dataset = run.input(config.dataset)
    rankings = data.rankings(dataset)
    if all(each.harvested for each in rankings):
        raise Failed("There are no rankings to measure on.", "Add some to the dataset.", "dataset")
    paths = [run.input(each) for each in (config.reward, config.against) if each]
    about: dict[str, Any] = {}
    splits = [split(path, [dataset, *(run.path / LEARNT).glob("*.jsonl")]) for path in paths]
    if config.unseen:
        rankings, about["unseen"] = unseen(rankings, splits)
        if all(each.harvested for each in rankings):
            raise Failed(*NONE_LEFT, "dataset")
    bank = probes.bank(rankings, run.path / probes.FILE)
    rankings = [each for each in rankings if not each.harvested]
    here = {data.prompt_digest(each.prompt) for each in rankings}
    told = []
    for path, own in zip(paths, splits, strict=True):
        model = RewardModel.load(path, device, config.max_tokens)
        seen = not (config.unseen and own) and evaluate.trained_on(path, dataset)
        fitted = bool(own and here & own.held)
        about |= {"trained_on": seen, "chosen_here": bool(own and fitted and own.by_patience)}
        told.append(evaluate.evaluate(model, rankings, bank, fitted_here=fitted, **about))
        del model
        gc.collect()  # two need not be in memory together
    found = told[0]
    if len(told) > 1:
        found["against"] = against(*told)
        run.log(" ".join(found["against"]["claims"]))
    run.leave(evaluate.FILE, found)
    return Outcome(metrics=evaluate.numbers(found) | _difference(found))


@dataclass(frozen=True)
class Split:
    """The digests of the prompts that a model was trained on, and of those that it held out: τ was fitted on
    these, and by patience its checkpoint was chosen by them."""

    taught: set[str]
    held: set[str]
    by_patience: bool


def split(model: Path, files: Iterable[Path]) -> Split | None:
    """A model's own split, where one of the files is what it learnt from; None where that cannot be told."""
    by_hash = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in files}
    lineage = checkpoint.lineage(model)
    file = by_hash.get(lineage.get("sha256", {}).get("dataset"))
    settings = lineage.get("config", {})
    if file is None or not {"held_out", "seed"} <= set(settings):
        return None
    parts = reward_run.parts(
        data.rankings(file), RewardConfig(held_out=settings["held_out"], seed=settings["seed"])
    )
    taught, held = ({data.prompt_digest(each.prompt) for each in part} for part in parts)
    return Split(taught, held, by_patience=bool(settings.get("early_stop")))


def unseen(
    rankings: Sequence[Ranking], splits: Sequence[Split | None]
) -> tuple[list[Ranking], dict[str, Any]]:
    """The rankings of prompts that none of the models was trained on, as far as that is known; how many were
    left out, and of which models it is `known`."""
    taught = set().union(*(each.taught for each in splits if each))
    kept = [each for each in rankings if data.prompt_digest(each.prompt) not in taught]
    return kept, {
        "left_out": len(rankings) - len(kept),
        "known": [each is not None for each in splits],
    }


def against(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two evaluations of the same rankings side by side: the paired test in numbers and in words, where the
    two differ most, and as `other` all of the second one but its quintets."""
    told = judgement.compare(first["quintets"], second["quintets"])
    return told | {
        "claims": claims.compared(told),
        "differing": judgement.differing(first["quintets"], second["quintets"]),
        "other": {name: value for name, value in second.items() if name != "quintets"},
    }


def _difference(found: dict[str, Any]) -> dict[str, Any]:
    told = found.get("against")
    if told is None:
        return {}
    return {"other_accuracy": told["second"]["value"]} | {name: told[name] for name in ("difference", "p")}
