"""Three ways from what rollouts are worth to what a policy learns from them, and the price of moving away.

Worth is [prompts, rollouts]: the reward less β times the KL that a rollout paid. An algorithm gives each
rollout an advantage and says which of them are learnt from; a loss turns both into a gradient. All three
share the sampling, the rewards and the log-probabilities of `rlhf.experience` and `rlhf.policy`. Leaves out
critics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SAME = 1e-4  # by which rewards less their KL, a sum over many tokens, may differ by rounding
PATIENCE = 0.1  # share of its distance from the target by which β follows the KL, at every step
SURPRISE = 0.2  # no more than this distance is believed of a single step


@dataclass(frozen=True)
class Lesson:
    """What a step's rollouts teach: how much the chance of each is to rise, and whether it is learnt from."""

    advantages: Tensor  # [prompts, rollouts]; 0 for what is not learnt from
    taught: Tensor  # [prompts, rollouts], true or false

    def of(self, kept: Sequence[bool]) -> "Lesson":
        """The same for these groups alone: the others are not learnt from."""
        rows = torch.tensor(kept, device=self.taught.device)[:, None]
        return Lesson(self.advantages.masked_fill(~rows, 0.0), self.taught & rows)


def lesson(algorithm: str, worth: Tensor, rewards: Tensor) -> Lesson:
    """What is to be learnt from rollouts of this worth, and of these rewards before their KL was subtracted:
    [prompts, rollouts] both.

    A group whose rollouts are all worth the same teaches nothing: its advantages would be mere rounding.
    Where all earn the same, only what they paid differs: that pulls by β and no more. Divided by its own
    spread it would pull as hard at any β, and none of them is a best one to imitate.
    """
    telling, earning = (~without_spread(each)[:, None].expand_as(worth) for each in (worth, rewards))
    advantages = torch.where(earning, ADVANTAGES[algorithm](worth), OF_EQUALS[algorithm](worth))
    advantages = advantages.masked_fill(~telling, 0.0)
    return Lesson(advantages, telling & (advantages > 0) if algorithm == "best" else telling)


def leave_one_out(worth: Tensor) -> Tensor:
    """How much better each rollout is than the mean of its siblings: REINFORCE with that as its baseline."""
    count = worth.shape[1]
    return (worth - worth.mean(1, keepdim=True)) * count / (count - 1)


def normalised(worth: Tensor) -> Tensor:
    """The distance from the group's mean, divided by the group's standard deviation: GRPO's advantage."""
    return (worth - worth.mean(1, keepdim=True)) / (worth.std(1, keepdim=True) + 1e-6)


def best(worth: Tensor) -> Tensor:
    """1 for the best rollout of each prompt, the first of several that are equal, and 0 for the others."""
    equal = worth >= worth.amax(1, keepdim=True) - SAME
    return (equal & (equal.cumsum(1) == 1)).to(worth.dtype)


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "rloo": leave_one_out,
    "grpo": normalised,
    "best": best,
}
OF_EQUALS: dict[str, Callable[[Tensor], Tensor]] = {  # where all of a group earn the same
    "rloo": leave_one_out,
    "grpo": leave_one_out,
    "best": torch.zeros_like,
}


def without_spread(worth: Tensor) -> Tensor:
    """Which groups say nothing, all their rollouts being worth the same: [prompts, rollouts] → [prompts].

    The same but for rounding: Adam would make a whole step of a gradient that is nothing else.
    """
    return worth.amax(1) - worth.amin(1) <= SAME


def is_clipped(algorithm: str, updates_per_batch: int) -> bool:
    """Whether the loss is that of clipped ratios. Imitating the best is plain likelihood however often it is
    done, and the first update of a batch is made by the policy that sampled it."""
    return algorithm == "grpo" or (algorithm == "rloo" and updates_per_batch > 1)


def loss(log_probs: Tensor, advantages: Tensor, tokens: int) -> Tensor:
    """REINFORCE over some of a step's tokens: log-probabilities and their rollout's advantage, both [tokens].

    `tokens` counts those of the whole step, so that losses of portions add up to that of the step. With an
    advantage of 1 it is the negative log-likelihood of supervised learning.
    """
    return -(advantages * log_probs).sum() / tokens


def clipped_loss(log_probs: Tensor, sampled: Tensor, advantages: Tensor, tokens: int, clip: float) -> Tensor:
    """PPO's: each token's chance against the one it was sampled with, [tokens] all, paid for only as far as
    `clip` from 1. A token that has gone further in the wanted direction has no gradient left."""
    ratio = (log_probs - sampled).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).sum() / tokens


def clipped(log_probs: Tensor, sampled: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Which tokens the clipping has left without a gradient."""
    ratio = (log_probs - sampled).exp()
    return ((ratio > 1 + clip) & (advantages > 0)) | ((ratio < 1 - clip) & (advantages < 0))


def drift(log_probs: Tensor, sampled: Tensor) -> Tensor:
    """k3, what each token says of the KL between the policy that sampled it and the policy as it is now.

    Never negative and of little variance; with no gradient and no part in the loss.
    """
    gone = (log_probs - sampled).detach()
    return gone.exp() - 1 - gone


def adapted(beta: float, kl: float, target: float) -> float:
    """The β of the next step: up to 2% more while the KL is above its target, up to 2% less below it."""
    distance = min(max(kl / target - 1, -SURPRISE), SURPRISE)
    return beta * (1 + PATIENCE * distance)
