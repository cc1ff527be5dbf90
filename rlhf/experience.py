"""What a policy lives through at a step: rollouts of some prompts, what each is worth, what it paid in KL.

All algorithms learn from the same, and the fixed prompts that are read along come about the same way. Every
process takes a share of the prompts; afterwards all know all. What is learnt is the matter of
`rlhf.train_policy`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlhf import algorithms, checkpoint, data, guard, policy, precision
from rlhf.algorithms import Lesson
from rlhf.batch import Example
from rlhf.config import PolicyConfig
from rlhf.memory import Memory
from rlhf.policy import Start
from rlhf.rewards import Group, ModelRewards, Verdict
from rlhf.sample import Rollout, sample

FORWARD_ONLY = 4  # times as many rollouts fit where no gradient is kept


@dataclass(frozen=True)
class Experience:
    """A step's rollouts, prompt by prompt, and what was found out about each of them."""

    groups: list[Group]
    verdicts: list[Verdict]
    sampled: list[Tensor]  # log-probabilities [tokens] that each rollout was written with
    paid: list[Tensor]  # KL to the start of each of its tokens, [tokens]

    @property
    def examples(self) -> list[Example]:
        return [group.example for group in self.groups]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    @property
    def lengths(self) -> list[int]:
        return [len(rollout.tokens) for rollout in self.rollouts]

    @property
    def kl(self) -> Tensor:
        """Of each rollout, summed over its tokens: [prompts, rollouts]."""
        return policy.per_rollout(torch.cat(self.paid), self.lengths).view(len(self.groups), -1)

    @property
    def rewards(self) -> Tensor:
        """[prompts, rollouts]"""
        rewards = [verdict.reward for verdict in self.verdicts]
        return torch.tensor(rewards, device=self.paid[0].device).view(len(self.groups), -1)

    def numbers(self) -> dict[str, float | None]:
        """What the rollouts were like, as steps.jsonl tells it."""
        tokens, kl = [rollout.tokens for rollout in self.rollouts], self.kl.mean().item()
        raws = [verdict.raw for verdict in self.verdicts if verdict.raw is not None]
        return {
            "reward": guard.mean([verdict.score for verdict in self.verdicts]),
            "raw_reward": guard.mean(raws) if raws else None,
            "kl": kl,
            "sqrt_kl": max(0.0, kl) ** 0.5,
            "distinct_1": guard.distinct(tokens, 1),
            "distinct_2": guard.distinct(tokens, 2),
            "length": guard.mean(self.lengths),
            "finished": guard.mean([rollout.finished for rollout in self.rollouts]),
            "zero_spread": algorithms.without_spread(self.rewards).float().mean().item(),
        }

    def lines(self, step: int, lesson: Lesson, beta: float, tokenizer: Any) -> list[dict[str, Any]]:
        """Every rollout with all that was made of it, for rollouts.jsonl.zst."""
        places = [
            (number, place) for number, each in enumerate(self.groups) for place in range(len(each.rollouts))
        ]
        found = []
        pieces = checkpoint.pieces(tokenizer, (each for rollout in self.rollouts for each in rollout.tokens))
        for row, (number, place) in enumerate(places):
            group, verdict, paid = self.groups[number], self.verdicts[row], self.paid[row]
            rollout, cost = group.rollouts[place], -beta * paid.sum().item()
            found.append(
                {
                    "step": step,
                    "group": number,
                    "index": place,
                    "prompt": data.prompt_text(group.line.prompt),
                    "id": group.line.id,
                    "rollout": checkpoint.decode_rollout(tokenizer, rollout.tokens),
                    "tokens": rollout.tokens,
                    "pieces": [pieces[each] for each in rollout.tokens],
                    "reward": round(verdict.reward + cost, 6),
                    "parts": {name: round(part, 6) for name, part in (verdict.parts | {"kl": cost}).items()},
                    "score": round(verdict.score, 6),
                    "advantage": round(lesson.advantages[number, place].item(), 6),
                    "kl": [round(each, 5) for each in paid.tolist()],
                    "trained": bool(lesson.taught[number, place]),
                    "finished": rollout.finished,
                }
            )
        return found

    def samples(self, step: int, tokenizer: Any) -> list[dict[str, Any]]:
        """The first rollout of every prompt, for samples.jsonl."""
        rows = zip(self.groups, self.verdicts, self.kl[:, 0].tolist(), strict=True)
        return [
            {
                "step": step,
                "index": index,
                "prompt": data.prompt_text(group.line.prompt),
                "rollout": checkpoint.decode_rollout(tokenizer, group.rollouts[0].tokens),
                "score": verdict.score,
                "kl": kl,
                "finished": group.rollouts[0].finished,
            }
            for index, (group, verdict, kl) in enumerate(rows)
        ]


@dataclass(frozen=True)
class Stage:
    """Where a policy performs: who writes, who judges, and against which start the KL is counted."""

    model: Any
    tokenizer: Any
    start: Start
    judge: ModelRewards
    config: PolicyConfig
    memory: Memory

    def of_the_start(self, prompts: Sequence[Group]) -> list[Example]:
        """A few rollouts of the first prompts as the start writes them: the same in a resumed run."""
        some = [group.prompt for group in prompts[:2]]
        chances = [torch.Generator().manual_seed(number) for number in range(len(some))]
        rollouts = sample(
            self.start.model,
            self.tokenizer,
            some,
            2,
            self.config.max_new_tokens,
            self.config.temperature,
            chances,
        )
        tokens = [each.tokens for each in rollouts]
        return [Example(prompt, tokens[2 * place : 2 * place + 2]) for place, prompt in enumerate(some)]

    def experience(self, prompts: Sequence[Group], step: int, count: int) -> Experience:
        """`count` rollouts for each of these prompts, with chances that follow from the step alone."""
        chances = random.Random(f"step {step} of {self.config.seed}")
        seeds = [chances.getrandbits(63) for _ in prompts]
        groups = self.memory.share(
            list(zip(prompts, seeds, strict=True)), lambda some, most: self._written(some, count, most)
        )
        verdicts = self.memory.share(groups, lambda some, most: self.judge(some, _prompts(most, count)))
        started = self.memory.share(groups, self._started)
        device = self.model.device
        sampled = [torch.tensor(each.log_probs, device=device) for group in groups for each in group.rollouts]
        reference = [torch.tensor(each, device=device) for group in started for each in group]
        return Experience(
            groups,
            [verdict for row in verdicts for verdict in row],
            sampled,
            [policy.kl(now, then) for now, then in zip(sampled, reference, strict=True)],
        )

    def _written(self, asked: Sequence[tuple[Group, int]], count: int, most: int) -> list[Group]:
        """These prompts with rollouts, each prompt's from a seed of its own."""
        size, found = _prompts(most, count), []
        for first in range(0, len(asked), size):
            some = asked[first : first + size]
            with precision.computing(self.model, self.start.precision):
                rollouts = sample(
                    self.model,
                    self.tokenizer,
                    [group.prompt for group, _ in some],
                    count,
                    self.config.max_new_tokens,
                    self.config.temperature,
                    [torch.Generator().manual_seed(seed) for _, seed in some],
                )
            found += [
                replace(group, rollouts=rollouts[place * count : (place + 1) * count])
                for place, (group, _) in enumerate(some)
            ]
        return found

    def _started(self, groups: Sequence[Group], most: int) -> list[list[list[float]]]:
        """The log-probability of every token of every rollout under the start, group by group."""
        flat = self.start.log_probs([group.example for group in groups], FORWARD_ONLY * most).tolist()
        tokens = iter(flat)
        return [[[next(tokens) for _ in rollout.tokens] for rollout in group.rollouts] for group in groups]


def _prompts(most: int, count: int) -> int:
    """How many prompts with so many rollouts are taken at once where no gradient is kept."""
    return max(1, FORWARD_ONLY * most // count)
