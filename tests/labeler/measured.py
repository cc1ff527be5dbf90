"""An evaluation as rlhf leaves it, counted from made-up rewards: all but a model, for pages that show one."""

import random
from typing import Any

from rlhf import claims, evaluate, evaluation_run, judgement, probes
from rlhf.data import Ranking

ROLLOUTS = ("Honk.", "Why did the pelican cross the road? To prove a point.", "A bill.", "fish fish", "No.")


def evaluation(noise: float = 1.0, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Of a model that is the more often wrong, the more noise there is in what it says."""
    chances = random.Random(seed)
    rankings = [
        Ranking(
            f"Joke {n % 30}?",
            ROLLOUTS,
            tuple(chances.sample(range(1, 6), 5)),
            ("ada", "lena")[n // 30],
            str(n),
        )
        for n in range(60)
    ]
    rewards = [[-rank + chances.gauss(0, 4 * noise) for rank in each.ranks] for each in rankings]
    found = judgement.judge(rewards, rankings, lambda reward: 1 / (1 + 2.718**-reward))
    found |= evaluate.calibration(evaluate.Measured(rewards, rankings), 3.0, True)
    found |= {"mu": 0.0, "loss": 1.1, "prompts_cut": 0, "rollouts_cut": 0, "dataset": {"held_out": 60}}
    found["dataset"] |= {name: found[name] for name in ("rankings", "all_tied", "labelers", "simulated")}
    bank = probes.bank(rankings)
    told = [
        {
            "name": each.name,
            "kind": each.kind,
            "prompt": "Joke 1?",
            "text": each.answers[0][1],
            "reward": 1.0 - n,
        }
        | {"score": 0.7 - n / 10, "above_median": n < 2, "above_at": 5 - min(n, 5), "prompts": 5}
        for n, each in enumerate(bank)
    ]
    found["probes"] = {"median_real": 0.55, "worst": bank[0].name, "above": 2, "probes": told}
    share = found["accuracy"]
    ends = {end: share[end] for end in ("value", "low", "high")}
    found["learning_curve"] = [
        {
            "rankings": 15 * n,
            "accuracy": share | {end: each - 0.04 * (4 - n) for end, each in ends.items()},
            "ahead": {"difference": 0.04 * (4 - n), "low": 0.04 * (3 - n), "high": 0.04 * (5 - n), "p": 0.04},
        }
        for n in range(1, 5)
    ]
    found["more_labels"] = claims.more_labels(found)
    return found | more | {"claims": claims.of(found)}


def comparison() -> dict[str, Any]:
    """Of two models, the second of which is wrong more often."""
    first, second = evaluation(0.5), evaluation(2.0, unseen={"left_out": 3, "known": [True, False]})
    return first | {"against": evaluation_run.against(first, second)}
