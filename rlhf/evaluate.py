"""How well a reward model agrees with the people who ranked, on rankings that it has not seen.

Every two rollouts that a labeler did not tie are a pair; its margin is the reward of the better minus that of
the worse. Accuracy counts positive margins; τ, NLL and calibration error ask how far to believe σ(margin/τ).
Leaves out who disagrees with whom: agreement between people is counted where their rankings live.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf import checkpoint, data, losses
from rlhf.config import EvaluationConfig
from rlhf.data import Ranking
from rlhf.reward_model import RewardModel
from rlhf.run import Failed, Outcome, RunDirectory

TAU_BOUNDS = (0.1, 10.0)  # where few pairs are held out, the best τ may be no τ at all
BINS = 10
AT_ONCE = 8


@dataclass(frozen=True)
class Measured:
    """The rewards of some rankings beside what their labelers said."""

    rewards: list[list[float]]
    rankings: Sequence[Ranking]

    @property
    def margins(self) -> Tensor:
        """The margin of every pair, [pairs] in fp64."""
        each = zip(self.rewards, self.rankings, strict=True)
        found = [margin for rewards, ranking in each for margin in _margins(rewards, ranking)]
        return torch.tensor(found, dtype=torch.float64)

    def right_by(self, name: Callable[[Ranking], str]) -> dict[str, dict[str, float]]:
        """For each name: of how many pairs its rankings tell, how many of them the model orders likewise
        (equal rewards are half right), and the standard error of that share. The pairs of one ranking are not
        independent of each other; rankings are. A ranking without a name is nobody's."""
        told: dict[str, list[tuple[float, int]]] = {}
        for rewards, ranking in zip(self.rewards, self.rankings, strict=True):
            margins = _margins(rewards, ranking)
            if margins and name(ranking):
                right = float(_right(torch.tensor(margins)).sum())
                told.setdefault(name(ranking), []).append((right, len(margins)))
        return {each: _share(told[each]) for each in sorted(told)}

    def loss(self, kind: str = "listwise") -> float | None:
        """The ranking loss of the rankings that say anything."""
        telling = [number for number, ranking in enumerate(self.rankings) if ranking.teaches]
        if not telling:
            return None
        rewards = torch.zeros(len(telling), data.MOST)
        for row, number in enumerate(telling):
            rewards[row, : len(self.rewards[number])] = torch.tensor(self.rewards[number])
        ranks = ranks_of([self.rankings[number] for number in telling])
        return float(losses.KINDS[kind](rewards, ranks).mean())


def _share(rankings: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Of rankings with so many pairs right out of so many: the sums, and the error of their quotient."""
    right, pairs = (sum(column) for column in zip(*rankings, strict=True))
    apart = sum((its - right / pairs * of) ** 2 for its, of in rankings)
    several = len(rankings) / max(1, len(rankings) - 1)
    return {"right": right, "pairs": pairs, "error": math.sqrt(several * apart) / pairs}


def _margins(rewards: Sequence[float], ranking: Ranking) -> list[float]:
    """The reward of the better minus that of the worse, for every two rollouts that were not tied."""
    return [
        better - worse
        for better, above in zip(rewards, ranking.ranks, strict=True)
        for worse, below in zip(rewards, ranking.ranks, strict=True)
        if above < below
    ]


def by_labeler(ranking: Ranking) -> str:
    return ranking.labeler


def by_arm(ranking: Ranking) -> str:
    """How the queue chose the quintet, where the line tells."""
    arm = ranking.extra.get("arm")
    return arm if isinstance(arm, str) else ""


def ranks_of(rankings: Sequence[Ranking], places: int = data.MOST) -> Tensor:
    """[quintets, places]; 0 is an empty place."""
    return torch.tensor([[*ranking.ranks, *[0] * (places - len(ranking.ranks))] for ranking in rankings])


def accuracy(margins: Tensor) -> float | None:
    """The share of pairs in which the better one has the higher reward; equal rewards are half right."""
    return float(_right(margins).mean()) if len(margins) else None


def _right(margins: Tensor) -> Tensor:
    return (margins > 0).double() + 0.5 * (margins == 0)


def nll(margins: Tensor, tau: float) -> float | None:
    """The mean surprise at what people chose, in nats; ln 2 is what a coin achieves."""
    return float(-logsigmoid(margins / tau).mean()) if len(margins) else None


def fit_tau(margins: Tensor) -> float:
    """The τ with the least surprise; 1 where there is no pair to fit it on."""
    if not len(margins):
        return 1.0
    # The surprise is convex in 1/τ, so the sign of its slope says on which side the best one lies.
    low, high = 1 / TAU_BOUNDS[1], 1 / TAU_BOUNDS[0]
    for _ in range(60):
        middle = (low + high) / 2
        slope = -(margins * torch.sigmoid(-margins * middle)).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 2 / (low + high)


def calibration_error(margins: Tensor, tau: float) -> float | None:
    """How far, on average, what the model is sure of differs from how often it is right (10 bins)."""
    if not len(margins):
        return None
    sure = torch.sigmoid(margins.abs() / tau)
    right = _right(margins)
    bins = ((sure - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    gaps = [(right[bins == each] - sure[bins == each]).sum().abs() for each in bins.unique()]
    return float(sum(gaps) / len(margins))


def evaluate(model: RewardModel, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Everything measured of a trained reward model on these rankings."""
    examples = [model.encode(each.prompt, each.rollouts, each.finished) for each in rankings]
    if examples:
        model.settle(examples)
    measured = Measured(model.rewards_of(examples, AT_ONCE), rankings)
    margins = measured.margins
    return {
        "accuracy": accuracy(margins),
        "pairs": len(margins),
        "loss": measured.loss(),
        "nll": nll(margins, model.tau),
        "ece": calibration_error(margins, model.tau),
        "mu": model.mu,
        "tau": model.tau,
        "rankings": len(rankings),
        "labelers": len({ranking.labeler for ranking in rankings}),
        "simulated": sum(ranking.simulated for ranking in rankings),
        "prompts_cut": sum(example.prompt_cut for example in examples),
        "rollouts_cut": sum(example.rollouts_cut for example in examples),
        "by_labeler": measured.right_by(by_labeler),
        "by_arm": measured.right_by(by_arm),
    }


def measure(run: RunDirectory, config: EvaluationConfig) -> Outcome:
    """A run of kind evaluation."""
    device = checkpoint.choose_device(config.device)
    run.tell("measuring", device=checkpoint.describe(device))
    rankings = data.rankings(run.input(config.dataset))
    if not rankings:
        raise Failed("There are no rankings to measure on.", "Add some to the dataset.", "dataset")
    model = RewardModel.load(run.input(config.reward), device, config.max_tokens)
    return Outcome(metrics=evaluate(model, rankings))
