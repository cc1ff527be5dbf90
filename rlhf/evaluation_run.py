"""A run of kind evaluation, whole: one reward model, or two of them side by side, on rankings that neither
has learnt from.

What a model was trained on is known where the very file is at hand: it is the dataset itself, or lies in
inputs/learnt. Which of its prompts were held out then follows from the seed and the share in the model's
lineage. How models are judged is the matter of `rlhf.evaluate`.
"""

import gc
import hashlib
from collections.abc import Iterable, Sequence
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
    known = [False] * len(paths)
    if config.unseen:
        rankings, about["unseen"] = unseen(rankings, paths, [dataset, *(run.path / LEARNT).glob("*.jsonl")])
        known = about["unseen"]["known"]
        if all(each.harvested for each in rankings):
            raise Failed(*NONE_LEFT, "dataset")
    bank = probes.bank(rankings, run.path / probes.FILE)
    rankings = [each for each in rankings if not each.harvested]
    told = []
    for path, apart in zip(paths, known, strict=True):
        model = RewardModel.load(path, device, config.max_tokens)
        seen = not apart and evaluate.trained_on(path, dataset)
        told.append(evaluate.evaluate(model, rankings, bank, trained_on=seen, **about))
        del model
        gc.collect()  # two need not be in memory together
    found = told[0]
    if len(told) > 1:
        found["against"] = against(*told)
        run.log(" ".join(found["against"]["claims"]))
    run.leave(evaluate.FILE, found)
    return Outcome(metrics=evaluate.numbers(found) | _difference(found))


def unseen(
    rankings: Sequence[Ranking], models: Iterable[Path], files: Sequence[Path]
) -> tuple[list[Ranking], dict[str, Any]]:
    """The rankings of prompts that none of the models was trained on, as far as one of the files is what it
    learnt from; how many were left out, and of which models it is `known`."""
    by_hash = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in files}
    found = [_taught(checkpoint.lineage(model), by_hash) for model in models]
    taught = set().union(*(each for each in found if each is not None))
    kept = [each for each in rankings if data.prompt_digest(each.prompt) not in taught]
    return kept, {
        "left_out": len(rankings) - len(kept),
        "known": [each is not None for each in found],
    }


def _taught(lineage: dict[str, Any], files: dict[str, Path]) -> set[str] | None:
    """The digests of the prompts that a model was trained on; None where that cannot be told."""
    file = files.get(lineage.get("sha256", {}).get("dataset"))
    settings = lineage.get("config", {})
    if file is None or not {"held_out", "seed"} <= set(settings):
        return None
    split = RewardConfig(held_out=settings["held_out"], seed=settings["seed"])
    taught, _ = reward_run.parts(data.rankings(file), split)
    return {data.prompt_digest(each.prompt) for each in taught}


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
