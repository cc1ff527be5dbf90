"""A run of kind reward, whole: train a reward model, then leave what it is worth in evaluation.json.

What is judged is the checkpoint that the run proposes, read from the disk as anyone else would, on what was
held out. How it is trained is the matter of `rlhf.train_reward`, how judged that of `rlhf.evaluate`.
"""

import dataclasses
import gc
import random
from collections.abc import Sequence
from typing import Any

from rlhf import checkpoint, claims, data, evaluate, learning_curve, probes, processes, train_reward
from rlhf.config import RewardConfig
from rlhf.data import Ranking
from rlhf.reward_model import RewardModel
from rlhf.run import Outcome, RunDirectory

BESIDE = 64  # rankings that were trained on, beside which probes stand where nothing was held out


def train(run: RunDirectory, config: RewardConfig) -> Outcome:
    """Train, or go on training, and judge."""
    outcome = train_reward.train(run, config)
    gc.collect()  # the model that was trained, before it is loaded again
    judge(run, config, outcome)
    return outcome


def judge(run: RunDirectory, config: RewardConfig, outcome: Outcome) -> None:
    """Leave evaluation.json, and once more with the learning curve if that is wished for. Of several
    processes the first one judges; the others wait to train the parts of the curve, or have done theirs."""
    given = data.rankings(run.input(config.dataset))
    taught, held = parts(given, config)
    curved = config.learning_curve and bool(held)
    if not curved:
        processes.leave()
    found = _found(run, config, outcome, given) if processes.rank() == 0 else {}
    if not curved:
        return
    alike = _as_long(run, config, outcome)
    curve = learning_curve.points(run, alike, train_reward.train, taught, held)
    if processes.rank():
        return
    found["learning_curve"] = learning_curve.together(curve, found)
    found["more_labels"] = claims.more_labels(found)
    run.leave(evaluate.FILE, found)
    run.log(found["more_labels"])
    learning_curve.forget(run)


def _as_long(run: RunDirectory, config: RewardConfig, outcome: Outcome) -> RewardConfig:
    """The settings of the curve's parts. They hold nothing out and cannot stop by patience: trained further
    than the run itself, they would have learnt their few rankings by heart, and more labels seem to help."""
    if not (outcome.extra.get("suggested") and run.total):
        return config
    spent = int(outcome.extra["suggested"].rpartition("-")[2]) / run.total
    return dataclasses.replace(config, epochs=config.epochs * spent, early_stop=0)


def _found(
    run: RunDirectory, config: RewardConfig, outcome: Outcome, given: Sequence[Ranking]
) -> dict[str, Any]:
    run.tell("measuring")
    path = run.path / str(outcome.extra.get("suggested") or outcome.checkpoint)
    model = RewardModel.load(path, checkpoint.choose_device(config.device), config.max_tokens)
    taught, held = parts(given, config)
    dataset = {
        "rankings": len(given),
        "all_tied": sum(not ranking.teaches for ranking in given),
        "labelers": len({ranking.labeler for ranking in given}),
        "simulated": sum(ranking.simulated for ranking in given),
        "harvested": sum(ranking.harvested for ranking in given),
        "trained_on": len(taught),
        "held_out": len(held),
    }
    bank = probes.bank(given, run.path / probes.FILE)
    about: dict[str, Any] = {"checkpoint": str(path.relative_to(run.path)), "dataset": dataset}
    about |= {"chosen_here": "suggested" in outcome.extra}  # by patience
    found = evaluate.evaluate(model, held, bank, taught[:BESIDE], fitted_here=True, **about)
    run.leave(evaluate.FILE, found)
    run.log(" ".join(found["claims"]))
    # Training knows these with the τ that the same pairs were fitted by, which flatters them.
    outcome.metrics.update({name: found[name] for name in ("nll", "ece")})
    return found


def parts(given: Sequence[Ranking], config: RewardConfig) -> tuple[list[Ranking], list[Ranking]]:
    """What was trained on and what was held out, in the orders in which training has them."""
    telling = [ranking for ranking in given if ranking.teaches]
    taught, held = data.split_by_prompt([ranking.prompt for ranking in telling], config.held_out, config.seed)
    held = [number for number in held if not telling[number].harvested]
    random.Random(config.seed).shuffle(held)
    return [telling[number] for number in taught], [telling[number] for number in held]
