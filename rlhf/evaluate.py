"""How well a reward model agrees with the people who ranked, on rankings that it has not seen.

Every two rollouts that a labeler did not tie are a pair; its margin is the reward of the better minus that of
the worse. Accuracy counts positive margins; τ, NLL and calibration error ask how far to believe σ(margin/τ).
A τ that was fitted on the very pairs it is judged on would flatter itself, so half the prompts are judged
with the τ of the other half. What else can be counted is in `rlhf.judgement`, in words in `rlhf.claims`.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf import checkpoint, claims, data, judgement, losses, probes
from rlhf.data import Ranking
from rlhf.reward_model import RewardModel

# Of the mean size of a margin: where few pairs are held out, the best τ may be no τ at all.
TAU_BOUNDS = (0.1, 10.0)
BINS = 10
AT_ONCE = 8
FILE = "evaluation.json"


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

    @property
    def prompts(self) -> list[str]:
        """The digest of every pair's prompt, in the order of `margins`."""
        each = zip(self.rewards, self.rankings, strict=True)
        return [
            data.prompt_digest(ranking.prompt)
            for rewards, ranking in each
            for _ in _margins(rewards, ranking)
        ]

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
    """The τ with the least surprise, of the scale that the margins have; 1 where no pair tells of one."""
    size = float(margins.abs().mean()) if len(margins) else 0.0
    if not size:
        return 1.0
    margins = margins / size
    # The surprise is convex in 1/τ, so the sign of its slope says on which side the best one lies.
    low, high = 1 / TAU_BOUNDS[1], 1 / TAU_BOUNDS[0]
    for _ in range(60):
        middle = (low + high) / 2
        slope = -(margins * torch.sigmoid(-margins * middle)).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return size * 2 / (low + high)


def reliability(margins: Tensor, tau: float) -> list[dict[str, float]]:
    """Of the pairs that the model is about as sure of, in ten equal steps from .5 to 1: how sure, how often
    right, how many. Steps without a pair are left out."""
    sure, right = torch.sigmoid(margins.abs() / tau), _right(margins)
    bins = ((sure - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    return [
        {
            "sure": float(sure[bins == each].mean()),
            "right": float(right[bins == each].mean()),
            "pairs": int((bins == each).sum()),
        }
        for each in bins.unique()
    ]


def calibration_error(margins: Tensor, tau: float) -> float | None:
    """How far, on average, what the model is sure of differs from how often it is right (10 bins)."""
    if not len(margins):
        return None
    gaps = [abs(each["right"] - each["sure"]) * each["pairs"] for each in reliability(margins, tau)]
    return sum(gaps) / len(margins)


def taus_of_others(measured: Measured) -> Tensor | None:
    """For every pair the τ that the other half of the prompts asks for: the prompts in the order of their
    digests, every second one a half. None where there is no half with pairs on either side."""
    prompts = measured.prompts
    order = {each: number % 2 for number, each in enumerate(sorted(set(prompts)))}
    if len(order) < 2:
        return None
    half = torch.tensor([order[each] for each in prompts])
    margins = measured.margins
    other = [fit_tau(margins[half == 1]), fit_tau(margins[half == 0])]
    return torch.tensor(other, dtype=torch.float64)[half]


def calibration(measured: Measured, tau: float, fitted_here: bool) -> dict[str, Any]:
    """How far to believe the margins: as they are (“raw”, τ = 1) and with τ. A τ that was `fitted_here`, on
    these pairs, is judged by that of the other half of the prompts; `tau_of` says which it was."""
    margins = measured.margins
    others = taus_of_others(measured) if fitted_here else None
    scaled = margins / (tau if others is None else others)
    tau_of = "nothing" if not len(margins) else "elsewhere" if not fitted_here else "the same pairs"
    return {
        "nll": nll(scaled, 1.0),
        "ece": calibration_error(scaled, 1.0),
        "nll_raw": nll(margins, 1.0),
        "ece_raw": calibration_error(margins, 1.0),
        "tau": tau,
        "tau_of": tau_of if others is None else "other prompts",
        "taus": [] if others is None else sorted(set(others.tolist())),
        "reliability": reliability(scaled, 1.0),
        "reliability_raw": reliability(margins, 1.0),
    }


def evaluate(
    model: RewardModel,
    rankings: Sequence[Ranking],
    bank: Sequence[probes.Probe] = (),
    beside: Sequence[Ranking] = (),
    fitted_here: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Everything measured of a reward model on these rankings, as evaluation.json holds it. `fitted_here`:
    its τ comes from these very rankings. Probes stand beside these rankings, or where there are none beside
    those of `beside`. `more` goes in as it is, before the claims are made."""
    examples = [model.encode(each.prompt, each.rollouts, each.finished) for each in rankings]
    members = model.members_of(examples, AT_ONCE)
    measured = Measured([model.together(each).tolist() for each in members], rankings)
    apart = [each.tolist() for each in members] if model.count > 1 else None
    found = judgement.judge(measured.rewards, rankings, model.score, apart)
    for named, name in (("by_labeler", by_labeler), ("by_arm", by_arm)):
        for each, told in measured.right_by(name).items():
            found[named][each] |= told
    found |= calibration(measured, model.tau, fitted_here) | {"mu": model.mu, "loss": measured.loss()}
    found["prompts_cut"] = sum(example.prompt_cut for example in examples)
    found["rollouts_cut"] = sum(example.rollouts_cut for example in examples)
    if bank and (rankings or beside):
        real = measured.rewards if rankings else _rewards(model, beside)
        found["probes"] = probes.judge(model, bank, rankings or beside, real)
    found |= more
    return found | {"claims": claims.of(found)}


def compare(first: RewardModel, second: RewardModel, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Two reward models on the same rankings, with a paired test over prompts."""
    return judgement.compare(
        *(judgement.quintets(_rewards(each, rankings), rankings, each.score) for each in (first, second))
    )


def _rewards(model: RewardModel, rankings: Sequence[Ranking]) -> list[list[float]]:
    examples = [model.encode(each.prompt, each.rollouts, each.finished) for each in rankings]
    return model.rewards_of(examples, AT_ONCE)


def trained_on(path: Path, dataset: Path) -> bool:
    """Whether a reward model says that it learnt from this very file."""
    known = checkpoint.lineage(path).get("sha256", {}).get("dataset")
    return known is not None and known == hashlib.sha256(dataset.read_bytes()).hexdigest()


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """The plain numbers of an evaluation, as a run's result tells them."""
    plain = {
        name: value for name, value in found.items() if value is None or isinstance(value, int | float | str)
    }
    counted = {
        by: {
            name: {key: told[key] for key in ("right", "pairs", "error")} for name, told in found[by].items()
        }
        for by in ("by_labeler", "by_arm")
    }
    return {
        "accuracy": found["accuracy"]["value"],
        "pairs": found["accuracy"]["pairs"],
        **plain,
        **counted,
    }
