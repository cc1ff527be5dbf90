"""What a rollout is worth: by a reward model, on the tokens that the policy wrote, or by a rule, on its text.

Rewards are on the scale on which σ(reward) is the 0–1 score. The KL to the start is no part of them: it is
subtracted in `rlhf.train_policy`. A reward that cannot be computed fails the run and names the sample; it is
never zero instead.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf import checkpoint
from rlhf.batch import Example, fit
from rlhf.data import Prompt, PromptLine, prompt_text
from rlhf.reward_model import RewardModel
from rlhf.run import Failed
from rlhf.sample import Rollout

Rule = Callable[[PromptLine, str], float]


@dataclass(frozen=True)
class Group:
    """A prompt, its tokens, and the rollouts that were sampled for it."""

    line: PromptLine
    prompt: list[int]
    rollouts: list[Rollout]

    @property
    def example(self) -> Example:
        return Example(self.prompt, [each.tokens for each in self.rollouts])


@dataclass(frozen=True)
class Verdict:
    """What a rollout is worth, of which parts that sum is made, and what the reward model itself said."""

    parts: dict[str, float]
    raw: float | None = None

    @property
    def reward(self) -> float:
        return sum(self.parts.values())

    @property
    def score(self) -> float:
        """From 0 to 1."""
        return score(self.reward)


class ModelRewards:
    """(raw − μ)/τ of a reward model; a rollout that was cut off earns a fixed reward instead."""

    def __init__(self, model: RewardModel, policy_tokenizer: Any, unfinished: float, at_once: int = 8):
        self.model, self.unfinished, self.at_once = model, unfinished, at_once
        self.words = policy_tokenizer
        self.by_text = not same_tokens(policy_tokenizer, model.tokenizer)

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        encode = self._from_text if self.by_text else self._from_tokens
        raws = self.model.rewards_of([encode(each) for each in groups], self.at_once)
        return [
            [self._verdict(group, place, raw) for place, raw in enumerate(row)]
            for group, row in zip(groups, raws, strict=True)
        ]

    def cost_of_text(self, groups: Sequence[Group]) -> float:
        """Seconds that decoding and encoding these anew takes."""
        began = time.perf_counter()
        for each in groups:
            self._from_text(each)
        return time.perf_counter() - began

    def _verdict(self, group: Group, place: int, raw: float) -> Verdict:
        if not math.isfinite(raw):
            raise _failure(group, place, f"the reward model answered {raw}", self.words)
        if not group.rollouts[place].finished:
            return Verdict({"unfinished": self.unfinished}, raw)
        return Verdict({"model": (raw - self.model.mu) / self.model.tau}, raw)

    def _from_tokens(self, group: Group) -> Example:
        # A chat model may end in one of several tokens; the reward model has learnt to read at one of them.
        end = self.model.tokenizer.eos_token_id
        rollouts = [[*each.tokens[:-1], end] if each.finished else each.tokens for each in group.rollouts]
        return fit(group.prompt, rollouts, self.model.limit)

    def _from_text(self, group: Group) -> Example:
        words = self.model.tokenizer
        rollouts = []
        for each in group.rollouts:
            ids = checkpoint.encode_rollout(words, checkpoint.decode_rollout(self.words, each.tokens))
            rollouts.append(ids if each.finished or len(ids) == 1 else ids[:-1])
        return fit(checkpoint.encode_prompt(words, group.line.prompt), rollouts, self.model.limit)


class RuleRewards:
    """The word of a rule, which sees a rollout's text and its prompt's answer."""

    def __init__(self, rule: Rule, policy_tokenizer: Any, unfinished: float):
        self.rule, self.words, self.unfinished = rule, policy_tokenizer, unfinished

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return [[self._verdict(group, place) for place in range(len(group.rollouts))] for group in groups]

    def _verdict(self, group: Group, place: int) -> Verdict:
        rollout = group.rollouts[place]
        if not rollout.finished:
            return Verdict({"unfinished": self.unfinished})
        try:
            reward = float(self.rule(group.line, checkpoint.decode_rollout(self.words, rollout.tokens)))
        except Exception as error:  # whatever a rule trips over, its author must see on what
            raise _failure(group, place, f"{type(error).__name__}: {error}", self.words) from error
        if not math.isfinite(reward):
            raise _failure(group, place, f"the rule answered {reward}", self.words)
        return Verdict({"rule": reward})


def score(reward: float) -> float:
    """σ(reward), for a reward model the chance to beat a typical answer of the starting model."""
    return float(torch.sigmoid(torch.tensor(reward, dtype=torch.float64)))


def same_tokens(one: Any, other: Any, prompt: Prompt = "A prompt.") -> bool:
    """Whether ids that one tokenizer wrote mean the same to the other, prompts included."""
    return (
        one.get_vocab() == other.get_vocab()
        and one.eos_token_id == other.eos_token_id
        and checkpoint.encode_prompt(one, prompt) == checkpoint.encode_prompt(other, prompt)
    )


def _failure(group: Group, place: int, reason: str, words: Any) -> Failed:
    prompt = _short(prompt_text(group.line.prompt))
    text = _short(checkpoint.decode_rollout(words, group.rollouts[place].tokens))
    return Failed(
        f"No reward for rollout {place + 1} of the prompt “{prompt}”: {reason}. The rollout reads: “{text}”",
        "Mend what computes the reward; the run goes on from its last checkpoint.",
    )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} …"
