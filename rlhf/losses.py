"""What a ranking says about rewards, as losses: tensors in, one loss per quintet out.

`rewards` and `ranks` are [quintets, places]. Rank 1 is best, equal ranks are ties, rank 0 is an empty
place, as partial quintets have. What is tied is never compared, only with what lies above and below.
How rewards come about is the matter of `rlhf.reward_model`.
"""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus


def listwise(rewards: Tensor, ranks: Tensor, margin: float = 0.0) -> Tensor:
    """Plackett–Luce with ties, averaged over its stages.

    Every rollout with something strictly below it is a stage: it was chosen before all that is below it, and
    has to be ahead of that by the margin. Chance is ln(120)/4 = 1.197 for five rollouts without ties.
    """
    rewards = rewards.float()
    below = strictly_below(ranks)  # [quintets, chosen, other]
    stages = below.any(-1)
    itself = torch.eye(ranks.shape[1], dtype=torch.bool, device=ranks.device)
    pool = (rewards[:, None, :] + margin * below).masked_fill(~(below | itself), -torch.inf)
    surprise = torch.logsumexp(pool, -1) - rewards
    return surprise.masked_fill(~stages, 0).sum(-1) / stages.sum(-1).clamp(min=1)


def pairs(rewards: Tensor, ranks: Tensor, margin: float = 0.0) -> Tensor:
    """Bradley–Terry over every two rollouts that differ in rank, the better one ahead by the margin, averaged
    per quintet; chance is ln 2."""
    rewards = rewards.float()
    below = strictly_below(ranks)
    surprise = softplus(rewards[:, None, :] - rewards[:, :, None] + margin)  # [quintets, better, worse]
    return surprise.masked_fill(~below, 0).sum((-2, -1)) / below.sum((-2, -1)).clamp(min=1)


def centering(rewards: Tensor, ranks: Tensor) -> Tensor:
    """The square of a quintet's mean reward. Rankings leave that mean free; this keeps it from drifting."""
    there = ranks > 0
    return (rewards.float().masked_fill(~there, 0).sum(-1) / there.sum(-1).clamp(min=1)) ** 2


def strictly_below(ranks: Tensor) -> Tensor:
    """[quintets, i, j]: whether rollout j was ranked strictly below rollout i; never for an empty place."""
    there = ranks > 0
    return (ranks[:, None, :] > ranks[:, :, None]) & there[:, None, :] & there[:, :, None]


EXPLODED_TIMES, EXPLODED_STEPS = 5, 3
MEMORY = 50  # losses, of which the median is what is usual


def exploding(before: Sequence[float]) -> int:
    """How many of the last losses, without a gap, are each over five times the median of those before them.

    Three of them are an explosion; a single one is a hard batch. A median below ln 2 counts as ln 2, because
    what was learnt by heart costs next to nothing, of which anything is a multiple.
    """
    for count in range(min(EXPLODED_STEPS, len(before) - 1), 0, -1):
        usual = max(math.log(2), statistics.median(before[:-count]))
        if all(loss > EXPLODED_TIMES * usual for loss in before[-count:]):
            return count
    return 0


KINDS = {"listwise": listwise, "pairs": pairs}
