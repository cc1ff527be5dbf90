"""A reward model: five rewards of one quintet in one forward pass, and the score from 0 to 1 that people see.

Rewards come from the backbone and the model's own head, read at each rollout's last token. Whether the model
can take a quintet as one shared row is found out by trying, never from a list of names. Training it is the
matter of `rlhf.train_reward`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf import batch, checkpoint
from rlhf.batch import Example
from rlhf.data import Prompt

UNABLE = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError)
ROUNDING = 1e-4  # by which two ways to compute the same reward may differ in fp32, relative to the largest


class RewardModel:
    """Model, tokenizer and scale. `layout` says how it takes quintets, once that has been tried."""

    def __init__(
        self, model: Any, tokenizer: Any, mu: float = 0.0, tau: float = 1.0, max_tokens: int | None = None
    ):
        self.model, self.tokenizer, self.mu, self.tau = model, tokenizer, mu, tau
        limits = [limit for limit in (max_tokens, checkpoint.longest(model)) if limit]
        self.limit = min(limits, default=None)
        self.layout = ""
        self._masks: batch.Masks | None = None

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | None = None, max_tokens: int | None = None
    ) -> "RewardModel":
        """A trained reward model with the scale that its quintet.json tells. Raises Unloadable."""
        known = checkpoint.lineage(path)
        model, tokenizer = checkpoint.load_reward_model(path, device)
        return cls(model, tokenizer, known.get("mu", 0.0), known.get("tau", 1.0), max_tokens)

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
        """[quintets, places] in fp32, with gradients where they are asked for; empty places hold zeros."""
        if not self.layout:
            self.settle(examples)
        return self._padded(examples) if self._masks is None else self._shared(examples, self._masks)

    @torch.no_grad()
    def rewards_of(self, examples: Sequence[Example], at_once: int = 8) -> list[list[float]]:
        """The rewards of any number of quintets as plain numbers, in their order."""
        found: list[list[float]] = [[] for _ in examples]
        for portion in batch.portions(examples, at_once):
            rewards = self.rewards([examples[number] for number in portion]).tolist()
            for number, row in zip(portion, rewards, strict=True):
                found[number] = row[: len(examples[number].rollouts)]
        return found

    def score(self, reward: float) -> float:
        """The chance that a rollout of this reward beats a typical answer of the starting model."""
        return float(torch.sigmoid(torch.tensor((reward - self.mu) / self.tau, dtype=torch.float64)))

    @torch.no_grad()
    def settle(self, examples: Sequence[Example]) -> None:
        """Try shared rows on real quintets, best the longest, and keep them only if they change no reward."""
        longest = sorted(examples, key=lambda each: each.tokens)[-2:]
        expected = self._padded(longest)
        for masks in batch.mask_forms(self.model):
            try:
                found = self._shared(longest, masks)
            except UNABLE:
                continue
            if bool((found - expected).abs().max() <= ROUNDING * (1 + expected.abs().max())):
                self._masks, self.layout = masks, "one row per quintet"
                return
        self._masks, self.layout = None, "one row per rollout"

    def _shared(self, examples: Sequence[Example], masks: batch.Masks) -> Tensor:
        rows = batch.shared_rows(examples, self.tokenizer.pad_token_id)
        rows = batch.SharedRows(*(each.to(self.model.device) for each in vars(rows).values()))
        hidden = checkpoint.backbone(self.model)(
            input_ids=rows.ids, position_ids=rows.positions, attention_mask=masks(rows), use_cache=False
        ).last_hidden_state  # [quintets, tokens, width]
        at_ends = hidden.gather(1, rows.ends[..., None].expand(-1, -1, hidden.shape[-1]))
        return self._of_places(self.model.score(at_ends)[..., 0], examples)

    def _padded(self, examples: Sequence[Example]) -> Tensor:
        rows = batch.padded_rows(examples, self.tokenizer.pad_token_id)
        rows = batch.PaddedRows(*(each.to(self.model.device) for each in vars(rows).values()))
        hidden = checkpoint.backbone(self.model)(
            input_ids=rows.ids, attention_mask=rows.there, use_cache=False
        ).last_hidden_state  # [quintets × places, tokens, width]
        at_ends = hidden[torch.arange(len(hidden), device=hidden.device), rows.ends.flatten()]
        return self._of_places(self.model.score(at_ends)[:, 0].view(rows.ends.shape), examples)

    @staticmethod
    def _of_places(found: Tensor, examples: Sequence[Example]) -> Tensor:
        """Rewards in fp32, zero where a partial quintet has no rollout."""
        there = [[place < len(each.rollouts) for place in range(found.shape[1])] for each in examples]
        return found.float().masked_fill(~torch.tensor(there, device=found.device), 0)
