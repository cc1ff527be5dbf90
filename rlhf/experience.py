"""What a policy lives through at a step: rollouts of some prompts, what each is worth, what it paid in KL.

All algorithms learn from the same, and the fixed prompts that are read along come about the same way. Every
process takes a share of the prompts; afterwards all know all. What is learnt is the matter of
`rlhf.train_policy`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rlhf import algorithms, checkpoint, data, guard, policy, precision
from rlhf.algorithms import Lesson
from rlhf.batch import Example
from rlhf.config import PolicyConfig
from rlhf.memory import Memory
from rlhf.policy import Start
from rlhf.rewards import Group, Reward, Verdict
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
    def texts(self) -> list[str]:
        """Of a checked run: as the checker read them."""
        return [verdict.text or "" for verdict in self.verdicts]

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

    @property
    def solved(self) -> list[float]:
        """The share of each prompt's rollouts that is correct; nothing where nobody checked."""
        said = iter(self.verdicts)
        rows = [[next(said).checked for _ in group.rollouts] for group in self.groups]
        return [guard.mean([each.correct for each in row if each]) for row in rows if all(row)]

    @property
    def practised(self) -> list[list[Any]]:
        """Of each prompt that has an id: it, how many rollouts were checked, and how many are correct."""
        said, found = iter(self.verdicts), []
        for group in self.groups:
            row = [each.checked.correct for each in islice(said, len(group.rollouts)) if each.checked]
            if group.line.id is not None and row:
                found.append([str(group.line.id), len(row), sum(row)])
        return found

    def picked(self, lesson: Lesson) -> list[int]:
        """Of each prompt that is learnt from, the rollout that is pushed most: a correct one, of these
        the one of the highest reward, of these the shortest. As places in `rollouts`."""
        found, place = [], 0
        for number, group in enumerate(self.groups):
            pushed = [
                (self._merit(place + index), -index)
                for index in range(len(group.rollouts))
                if lesson.taught[number, index] and lesson.advantages[number, index] > 0
            ]
            if pushed:
                found.append(place - max(pushed)[1])
            place += len(group.rollouts)
        return found

    def _merit(self, place: int) -> tuple[bool, float, int]:
        verdict = self.verdicts[place]
        right = verdict.checked is not None and verdict.checked.correct
        return right, round(verdict.reward, 6), -self.lengths[place]

    def numbers(self) -> dict[str, float | None]:
        """What the rollouts were like, as steps.jsonl tells it."""
        tokens, kl = [rollout.tokens for rollout in self.rollouts], self.kl.mean().item()
        raws = [verdict.raw for verdict in self.verdicts if verdict.raw is not None]
        solved = self.solved
        return {
            "reward": guard.mean([_worth(verdict) for verdict in self.verdicts]),
            "raw_reward": guard.mean(raws) if raws else None,
            **({"scored": len(raws)} if raws else {}),
            "accuracy": guard.mean(solved) if solved else None,
            "solved": guard.mean([share > 0 for share in solved]) if solved else None,
            "mixed": guard.mean([0 < share < 1 for share in solved]) if solved else None,
            **self._parts(),
            "kl": kl,
            "sqrt_kl": max(0.0, kl) ** 0.5,
            "distinct_1": guard.distinct(tokens, 1),
            "distinct_2": guard.distinct(tokens, 2),
            "length": guard.mean(self.lengths),
            "finished": guard.mean([rollout.finished for rollout in self.rollouts]),
            "zero_spread": algorithms.without_spread(self.rewards).float().mean().item(),
        }

    def _parts(self) -> dict[str, float]:
        """What each part of a reward came to on average, where a checker's word is not all of it."""
        names = list(dict.fromkeys(name for verdict in self.verdicts for name in verdict.parts))
        if not self.solved or set(names) <= {"checker", "unfinished"}:
            return {}
        each = {name: [verdict.parts.get(name, 0.0) for verdict in self.verdicts] for name in names}
        return {f"reward_{name}": guard.mean(values) for name, values in each.items()}

    def lines(
        self,
        step: int,
        lesson: Lesson,
        beta: float,
        tokenizer: Any,
        pushed: Mapping[int, list[float]] | None = None,
    ) -> list[dict[str, Any]]:
        """Every rollout with all that was made of it, for rollouts.jsonl.zst. `pushed`: by their places, the
        picked ones' log-probabilities before and after."""
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
                    "rollout": verdict.text or checkpoint.decode_rollout(tokenizer, rollout.tokens),
                    "tokens": rollout.tokens,
                    "pieces": [pieces[each] for each in rollout.tokens],
                    "reward": round(verdict.reward + cost, 6),
                    "parts": {name: round(part, 6) for name, part in (verdict.parts | {"kl": cost}).items()},
                    "score": None if verdict.score is None else round(verdict.score, 6),
                    "advantage": round(lesson.advantages[number, place].item(), 6),
                    "kl": [round(each, 5) for each in paid.tolist()],
                    "trained": bool(lesson.taught[number, place]),
                    "finished": rollout.finished,
                    **_checked(verdict),
                }
            )
            if pushed and row in pushed:
                found[-1] |= {"picked": True, "log_prob": [round(each, 5) for each in pushed[row]]}
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
                **_checked(verdict),
                **({"length": len(group.rollouts[0].tokens)} if verdict.checked else {}),
            }
            for index, (group, verdict, kl) in enumerate(rows)
        ]


def _worth(verdict: Verdict) -> float:
    """A rollout's reward as a step tells it: from 0 to 1 where a reward model alone has a say."""
    return verdict.reward if verdict.checked or verdict.score is None else verdict.score


def _checked(verdict: Verdict) -> dict[str, Any]:
    said = verdict.checked
    if said is None:
        return {}
    sure = {} if said.probability is None else {"probability": round(said.probability, 6)}
    return {"correct": said.correct, "checked": said.reason, "read": said.read, **sure}


@dataclass(frozen=True)
class Stage:
    """Where a policy performs: who writes, who judges, and against which start the KL is counted."""

    model: Any
    tokenizer: Any
    start: Start
    judge: Reward
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
        asked = list(zip(prompts, seeds, strict=True))
        groups = self.memory.share(
            asked, lambda some, most: self._written(some, count, most, self.config.temperature)
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

    def answers(self, prompts: Sequence[Group], temperature: float) -> list[tuple[Rollout, Verdict]]:
        """One rollout of each prompt and what the checker says of it; the same chances every time."""
        checker = self.judge.checker
        assert checker, "answers are checked by a checker"
        asked = list(zip(prompts, range(len(prompts)), strict=True))
        groups = self.memory.share(asked, lambda some, most: self._written(some, 1, most, temperature))
        verdicts = self.memory.share(groups, lambda some, most: checker(some))
        return [(group.rollouts[0], row[0]) for group, row in zip(groups, verdicts, strict=True)]

    def _written(
        self, asked: Sequence[tuple[Group, int]], count: int, most: int, temperature: float
    ) -> list[Group]:
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
                    temperature,
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
