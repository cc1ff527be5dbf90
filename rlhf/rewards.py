"""What a rollout is worth, in parts: by a reward model, on the tokens that the policy wrote; by a checker,
who holds its answer against the right one; by its form. `Reward` is the sum of those that a run asks for.

A reward model's part is on the scale on which σ of it is the 0–1 score; a correct answer earns 1 before it is
weighted, and so does the form. The KL to the start is no part of them: it is subtracted in
`rlhf.train_policy`. A reward that cannot be computed fails the run and names the sample; it is never zero
instead. What is correct is the matter of `rlhf.checkers`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import regex
import torch
from jinja2.exceptions import TemplateError

from rlhf import checkpoint
from rlhf.batch import Example, fit
from rlhf.checkers import CUT_OFF, CannotCheck, Checked, Checker, Item
from rlhf.data import Prompt, PromptLine, prompt_text
from rlhf.reward_model import RewardModel
from rlhf.run import Failed
from rlhf.sample import Rollout

PATIENCE = 1.0  # seconds in which a form must be found, or not


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
    """What a rollout is worth, of which parts that sum is made, what the reward model itself said and its
    score from 0 to 1, whether there are characters in it that the reward model's tokenizer does not know; and
    what the checker said of the text that it read."""

    parts: dict[str, float]
    raw: float | None = None
    unknown: bool = False
    score: float | None = None
    checked: Checked | None = None
    text: str | None = None

    @property
    def reward(self) -> float:
        return sum(self.parts.values())


class Part(Protocol):
    """One word on what rollouts are worth: a verdict for every rollout, so many groups at once."""

    def __call__(self, groups: Sequence[Group], at_once: int = 8) -> list[list[Verdict]]: ...


class Reward:
    """The sum of several parts, each with its weight; but a rollout that was cut off earns what it earns."""

    def __init__(self, *parts: tuple[float, Part]):
        self.parts = parts
        said = [part for _, part in parts]
        self.model = next((each for each in said if isinstance(each, ModelRewards)), None)
        self.checker = next((each for each in said if isinstance(each, CheckerRewards)), None)

    def __call__(self, groups: Sequence[Group], at_once: int = 8) -> list[list[Verdict]]:
        columns = [(weight, part(groups, at_once)) for weight, part in self.parts]
        return [
            [
                _together([(weight, rows[number][place]) for weight, rows in columns])
                for place in range(len(group.rollouts))
            ]
            for number, group in enumerate(groups)
        ]


def _together(said: Sequence[tuple[float, Verdict]]) -> Verdict:
    parts = {
        name: part if name == "unfinished" else weight * part
        for weight, each in said
        for name, part in each.parts.items()
    }
    found = {name: value for _, each in said for name, value in vars(each).items() if value is not None}
    return replace(said[0][1], **found | {"parts": parts, "unknown": any(each.unknown for _, each in said)})


class ModelRewards:
    """(raw − μ)/τ of a reward model; a rollout that was cut off earns a fixed reward instead."""

    def __init__(
        self,
        model: RewardModel,
        policy_tokenizer: Any,
        unfinished: float,
        prompts: Sequence[Prompt] = ("A prompt.",),
    ):
        self.model, self.unfinished = model, unfinished
        self.words = policy_tokenizer
        self.by_text = not same_tokens(policy_tokenizer, model.tokenizer, prompts)
        if self.by_text:
            self._must_take(prompts)

    def __call__(self, groups: Sequence[Group], at_once: int = 8) -> list[list[Verdict]]:
        """A verdict for every rollout, so many groups at once."""
        encode = self._from_text if self.by_text else self._from_tokens
        examples = [encode(each) for each in groups]
        raws = self.model.rewards_of(examples, at_once)
        unknown = _unknown(self.model.tokenizer) if self.by_text else None
        return [
            [
                self._verdict(group, place, raw, unknown in example.rollouts[place])
                for place, raw in enumerate(row)
            ]
            for group, example, row in zip(groups, examples, raws, strict=True)
        ]

    def cost_of_text(self, groups: Sequence[Group]) -> float:
        """Seconds that decoding and encoding these anew takes."""
        began = time.perf_counter()
        for each in groups:
            self._from_text(each)
        return time.perf_counter() - began

    def _verdict(self, group: Group, place: int, raw: float, unknown: bool) -> Verdict:
        if not math.isfinite(raw):
            raise _failure(group, place, f"the reward model answered {raw}", self.words)
        if not group.rollouts[place].finished:
            return Verdict({"unfinished": self.unfinished}, raw, unknown, score(self.unfinished))
        reward = (raw - self.model.mu) / self.model.tau
        return Verdict({"model": reward}, raw, unknown, score(reward))

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

    def _must_take(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a reward model that cannot read these prompts, before anything is scored."""
        words = self.model.tokenizer
        for each in prompts:
            asked = f"the prompt “{_short(prompt_text(each))}”"
            try:
                ids = checkpoint.encode_prompt(words, each)
            except TemplateError as error:
                raise _unable(f"The reward model's chat template does not take {asked}: {error}.") from error
            if _unknown(words) in ids:
                raise _unable(f"The reward model's tokenizer has no tokens for a part of {asked}.")


class CheckerRewards:
    """1 for an answer that is correct, 0 for any other. Thinking is no part of the answer."""

    def __init__(self, checker: Checker, policy_tokenizer: Any, unfinished: float):
        self.checker, self.words, self.unfinished = checker, policy_tokenizer, unfinished

    def __call__(self, groups: Sequence[Group], at_once: int = 8) -> list[list[Verdict]]:
        texts = [
            [checkpoint.decode_rollout(self.words, each.tokens) for each in group.rollouts]
            for group in groups
        ]
        items = {
            Item(prompt_text(group.line.prompt), text, group.line.answer or ""): (group, place)
            for group, row in zip(groups, texts, strict=True)
            for place, (text, rollout) in enumerate(zip(row, group.rollouts, strict=True))
            if rollout.finished
        }  # once, however many siblings say the same
        said = dict(zip(items, self.checker.each(items), strict=True))
        for item, found in said.items():
            if isinstance(found, CannotCheck):
                group, place = items[item]
                raise _failure(group, place, str(found).rstrip("."), self.words) from found
        return [
            [self._verdict(group, place, text, said) for place, text in enumerate(row)]
            for group, row in zip(groups, texts, strict=True)
        ]

    def _verdict(
        self, group: Group, place: int, text: str, said: Mapping[Item, Checked | CannotCheck]
    ) -> Verdict:
        if not group.rollouts[place].finished:
            return Verdict({"unfinished": self.unfinished}, checked=Checked(False, CUT_OFF), text=text)
        found = said[Item(prompt_text(group.line.prompt), text, group.line.answer or "")]
        assert isinstance(found, Checked)
        return Verdict({"checker": float(found.correct)}, checked=found, text=text)


class FormRewards:
    """1 for a rollout in which a pattern is found, its thinking included; 0 for any other."""

    def __init__(self, pattern: str, policy_tokenizer: Any, unfinished: float):
        self.pattern, self.words, self.unfinished = regex.compile(pattern), policy_tokenizer, unfinished

    def __call__(self, groups: Sequence[Group], at_once: int = 8) -> list[list[Verdict]]:
        return [[self._verdict(group, place) for place in range(len(group.rollouts))] for group in groups]

    def _verdict(self, group: Group, place: int) -> Verdict:
        rollout = group.rollouts[place]
        if not rollout.finished:
            return Verdict({"unfinished": self.unfinished})
        text = checkpoint.decode_rollout(self.words, rollout.tokens)
        try:
            found = self.pattern.search(text, timeout=PATIENCE)
        except TimeoutError as error:
            raise _failure(
                group, place, f"looking for its form took longer than {PATIENCE:g} s", self.words
            ) from error
        return Verdict({"format": float(found is not None)})


def score(reward: float) -> float:
    """σ(reward), for a reward model the chance to beat a typical answer of the starting model."""
    return float(torch.sigmoid(torch.tensor(reward, dtype=torch.float64)))


def same_tokens(one: Any, other: Any, prompts: Sequence[Prompt] = ("A prompt.",)) -> bool:
    """Whether ids that one tokenizer wrote mean the same to the other, in these prompts included."""
    if one.get_vocab() != other.get_vocab() or one.eos_token_id != other.eos_token_id:
        return False
    try:
        return all(
            checkpoint.encode_prompt(one, each) == checkpoint.encode_prompt(other, each) for each in prompts
        )
    except TemplateError:
        return False


def _unknown(words: Any) -> int | None:
    """The token that stands for what a tokenizer cannot write, None where it can write everything."""
    ends = (words.eos_token_id, words.bos_token_id, words.pad_token_id)  # GPT-2 calls its end unknown, too
    return None if words.unk_token_id in ends else words.unk_token_id


def _unable(reason: str) -> Failed:
    return Failed(reason, "Train a reward model from this policy's own start.", "reward")


def _failure(group: Group, place: int, reason: str, words: Any) -> Failed:
    prompt = _short(prompt_text(group.line.prompt))
    text = _short(checkpoint.decode_rollout(words, group.rollouts[place].tokens))
    return Failed(
        f"No reward for rollout {place + 1} of the prompt “{prompt}”: {reason}. The rollout reads: “{text}”",
        "Mend what computes the reward; the run goes on from its last checkpoint.",
    )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} …"
