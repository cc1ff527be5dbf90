"""What a ranking says about rewards, as losses: tensors in, one loss per quintet out.

`rewards` and `ranks` are [quintets, places]. Rank 1 is best, equal ranks are ties, rank 0 is an empty
place, as partial quintets have. What is tied is never compared, only with what lies above and below.
How rewards come about is the matter of `rlhf.reward_model`.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def listwise(rewards: Tensor, ranks: Tensor) -> Tensor:
    """Plackett–Luce with ties, averaged over its stages.

    Every rollout with something strictly below it is a stage: it was chosen before all that is below it.
    Chance is ln(120)/4 = 1.197 for five rollouts without ties.
    """
    rewards = rewards.float()
    below = strictly_below(ranks)  # [quintets, chosen, other]
    stages = below.any(-1)
    itself = torch.eye(ranks.shape[1], dtype=torch.bool, device=ranks.device)
    pool = rewards[:, None, :].masked_fill(~(below | itself), -torch.inf)
    surprise = torch.logsumexp(pool, -1) - rewards
    return surprise.masked_fill(~stages, 0).sum(-1) / stages.sum(-1).clamp(min=1)


def pairs(rewards: Tensor, ranks: Tensor) -> Tensor:
    """Bradley–Terry over every two rollouts that differ in rank, averaged per quintet; chance is ln 2."""
    rewards = rewards.float()
    below = strictly_below(ranks)
    surprise = softplus(rewards[:, None, :] - rewards[:, :, None])  # [quintets, better, worse]
    return surprise.masked_fill(~below, 0).sum((-2, -1)) / below.sum((-2, -1)).clamp(min=1)


def centering(rewards: Tensor, ranks: Tensor) -> Tensor:
    """The square of a quintet's mean reward. Rankings leave that mean free; this keeps it from drifting."""
    there = ranks > 0
    return (rewards.float().masked_fill(~there, 0).sum(-1) / there.sum(-1).clamp(min=1)) ** 2


def strictly_below(ranks: Tensor) -> Tensor:
    """[quintets, i, j]: whether rollout j was ranked strictly below rollout i; never for an empty place."""
    there = ranks > 0
    return (ranks[:, None, :] > ranks[:, :, None]) & there[:, None, :] & there[:, :, None]


KINDS = {"listwise": listwise, "pairs": pairs}
