"""A reward model: five rewards of one quintet in one forward pass, and the score from 0 to 1 that people see.

Rewards come from the backbone and the model's own head, read at each rollout's last token. Whether the model
can take quintets as shared rows, and whether half precision is faster here, is found out by trying, never
from a list of names. Training it is the matter of `rlhf.train_reward`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf import attention, batch, checkpoint, ensemble, precision
from rlhf.batch import Example
from rlhf.data import Prompt

ROUNDING = 1e-4  # by which two ways to compute the same reward may differ in fp32, relative to the largest
UNMOVED = 1e-6  # and one way, where only what must not be seen has changed

Way = Callable[[Sequence[Example]], Tensor]  # quintets in, [members, quintets, places] out


class RewardModel:
    """Model, tokenizer and scale. `layout` says how it takes quintets, once that has been tried."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        mu: float = 0.0,
        tau: float = 1.0,
        max_tokens: int | None = None,
        penalty: float = 0.0,
    ):
        self.model, self.tokenizer, self.mu, self.tau = model, tokenizer, mu, tau
        self.penalty = penalty  # λ of an ensemble, whose reward is its mean − λ · spread
        limits = [limit for limit in (max_tokens, checkpoint.longest(model)) if limit]
        self.limit = min(limits, default=None)
        self.layout = ""
        self.precision = "fp32"  # of training; what is asked without gradients is always computed in fp32
        self._way: Way = self._padded

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | None = None, max_tokens: int | None = None
    ) -> "RewardModel":
        """A trained reward model with the scale that its quintet.json tells. Raises Unloadable."""
        known = checkpoint.lineage(path)
        model, tokenizer = checkpoint.load_reward_model(path, device)
        ensemble.restore(model, path)
        scale = (known.get("mu", 0.0), known.get("tau", 1.0))
        return cls(model, tokenizer, *scale, max_tokens, known.get("penalty", 0.0))

    @property
    def count(self) -> int:
        """How many members it has: 1 where it is no ensemble."""
        return ensemble.count(self.model)

    def encode(
        self, prompt: Prompt, rollouts: Sequence[str], finished: Sequence[bool] | None = None
    ) -> Example:
        """A quintet of texts as tokens. A rollout that was cut off has no end; it is read where it stops."""
        ids = [checkpoint.encode_rollout(self.tokenizer, text) for text in rollouts]
        for place, ended in enumerate(finished or ()):
            if not ended and len(ids[place]) > 1:
                ids[place].pop()
        return batch.fit(checkpoint.encode_prompt(self.tokenizer, prompt), ids, self.limit)

    def rewards(self, examples: Sequence[Example]) -> Tensor:
        """[quintets, places], fp32, with gradients, computed in `precision`."""
        return self.together(self.members(examples))

    def members(self, examples: Sequence[Example]) -> Tensor:
        """[members, quintets, places], fp32, as training takes them; one member where it is no ensemble."""
        if not self.layout:
            self.settle(examples)
        with precision.computing(self.model, self.precision):
            return self._way(examples)

    def together(self, members: Tensor) -> Tensor:
        """What the members' rewards come to, [members, …] in and […] out: the mean − λ · spread."""
        if len(members) == 1:
            return members[0]
        mean = members.mean(0)
        return mean - self.penalty * spread(members) if self.penalty else mean

    def rewards_of(self, examples: Sequence[Example], at_once: int = 8) -> list[list[float]]:
        """The rewards of any number of quintets as plain numbers, in their order, computed in fp32."""
        return [self.together(each).tolist() for each in self.members_of(examples, at_once)]

    @torch.no_grad()
    def members_of(self, examples: Sequence[Example], at_once: int = 8) -> list[Tensor]:
        """The rewards by each member, [members, places], of any number of quintets, computed in fp32."""
        if examples and not self.layout:
            self.settle(examples)
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        for portion in batch.portions(examples, at_once):
            rewards = self._way([examples[number] for number in portion]).cpu()
            for place, number in enumerate(portion):
                found[number] = rewards[:, place, : len(examples[number].rollouts)]
        return found

    def score(self, reward: float) -> float:
        """The chance that a rollout of this reward beats a typical answer of the starting model."""
        return float(torch.sigmoid(torch.tensor((reward - self.mu) / self.tau, dtype=torch.float64)))

    @torch.no_grad()
    def settle(self, examples: Sequence[Example]) -> None:
        """Try shared rows on real quintets, the longest ones, and keep them only if they change no reward,
        and what one rollout says changes none of its siblings'.

        What is computed apart is the first and the last rollout of each: the one has all others behind it in
        its row, the other before it. That takes less than half the time of all of them. Of rollouts without
        siblings nothing can be learnt, and nothing is settled by them.
        """
        several = [each for each in examples if len(each.rollouts) > 1]
        if not several:
            return
        longest = sorted(several, key=lambda each: each.tokens)[-2:]
        outer = [Example(each.prompt, [each.rollouts[place] for place in _outer(each)]) for each in longest]
        expected = self._padded(outer)
        words = self.model.config.get_text_config().vocab_size
        others = [batch.with_another_first(each, words) for each in longest]
        for layout, way in self._ways():
            try:
                found, moved = way(longest), way(others)
            except batch.UNABLE:
                continue
            theirs = [found[:, number, _outer(each)] for number, each in enumerate(longest)]
            siblings = _close(found[:, :, 1:], moved[:, :, 1:], UNMOVED)
            if siblings and _close(torch.stack(theirs, 1), expected, ROUNDING):
                self.layout, self._way = layout, way
                return
        if self.model.config._attn_implementation == attention.NAME:
            self.model.set_attn_implementation("sdpa")
        self.layout, self._way = "one row per rollout", self._padded

    def choose_precision(self, wanted: str, examples: Sequence[Example]) -> None:
        """What training computes in; "auto" is tried and timed on a quintet of middling length."""
        one = [sorted(examples, key=lambda each: each.tokens)[len(examples) // 2]]
        self.precision = precision.timed(wanted, self.model, lambda: self._way(one))

    def _ways(self) -> Iterator[tuple[str, Way]]:
        """The ways to share rows, the fastest first, each set up by the time it is given."""
        forms = batch.forms(self.model)
        if attention.possible(self.model):
            self.model.set_attn_implementation(attention.NAME)
            for form in forms:
                yield "quintets packed in one row", partial(self._packed, form=form)
            self.model.set_attn_implementation("sdpa")
        for form in forms:
            yield "one row per quintet", partial(self._shared, form=form)

    def _packed(self, examples: Sequence[Example], form: batch.Form) -> Tensor:
        row, device = batch.packed_row(examples), self.model.device
        attended_in = precision.attended_in(self.model)
        mask = form(lambda window: attention.layout(examples, attended_in, device, window))
        hidden = checkpoint.backbone(self.model)(
            input_ids=row.ids.to(device),
            position_ids=row.positions.to(device),
            attention_mask=mask,
            use_cache=False,
        ).last_hidden_state[0]  # [tokens, width]
        return self._of_places(hidden[row.ends.to(device)], examples)

    def _shared(self, examples: Sequence[Example], form: batch.Form) -> Tensor:
        rows = batch.shared_rows(examples, self.tokenizer.pad_token_id)
        rows = batch.SharedRows(*(each.to(self.model.device) for each in vars(rows).values()))
        attended_in = precision.attended_in(self.model)
        mask = form(lambda window: batch.block_mask(rows, attended_in, window))
        hidden = checkpoint.backbone(self.model)(
            input_ids=rows.ids, position_ids=rows.positions, attention_mask=mask, use_cache=False
        ).last_hidden_state  # [quintets, tokens, width]
        return self._of_places(
            hidden.gather(1, rows.ends[..., None].expand(-1, -1, hidden.shape[-1])), examples
        )

    def _padded(self, examples: Sequence[Example]) -> Tensor:
        rows = batch.padded_rows(examples, self.tokenizer.pad_token_id)
        rows = batch.PaddedRows(*(each.to(self.model.device) for each in vars(rows).values()))
        hidden = checkpoint.backbone(self.model)(
            input_ids=rows.ids, attention_mask=rows.there, use_cache=False
        ).last_hidden_state  # [quintets × places, tokens, width]
        at_ends = hidden[torch.arange(len(hidden), device=hidden.device), rows.ends.flatten()]
        return self._of_places(at_ends.view(*rows.ends.shape, -1), examples)

    def _of_places(self, at_ends: Tensor, examples: Sequence[Example]) -> Tensor:
        """Rewards in fp32, [members, quintets, places], of the hidden states at the ends, [quintets, places,
        width]; zero where a partial quintet has no rollout. The head is never rounded: the loss sees
        differences of its numbers."""
        with torch.autocast(at_ends.device.type, enabled=False):
            found = self.model.score(at_ends.to(self.model.dtype)).float().movedim(-1, 0)
        there = [[place < len(each.rollouts) for place in range(found.shape[2])] for each in examples]
        return found.masked_fill(~torch.tensor(there, device=found.device), 0)


def spread(members: Tensor) -> Tensor:
    """How far the members are apart, [members, …] in and […] out: their standard deviation."""
    return members.std(0, correction=0)


def _outer(example: Example) -> list[int]:
    return [0, len(example.rollouts) - 1]


def _close(found: Tensor, expected: Tensor, rounding: float) -> bool:
    return bool((found - expected).abs().max() <= rounding * (1 + expected.abs().max()))
