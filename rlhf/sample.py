"""Sampling rollouts in groups, for any causal language model of transformers.

A prompt is read once and its cache copied to its rollouts; those that ended leave the batch when that pays.
Log-probabilities are those that the training pass would compute: at the same temperature, the log-sum-exp in
fp32. Leaves out beams, top-k and top-p: what is trained must be what was sampled from.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from rlhf import checkpoint
from rlhf.config import Refused

WORTH_DROPPING = 0.75  # a batch of which no more than this share still writes is made smaller
LEAP = 64  # tokens by which a cache grows


@dataclass(frozen=True)
class Rollout:
    """One sampled answer: its token ids (the ending one included) and the log-probability of each."""

    tokens: list[int]
    log_probs: list[float]
    finished: bool


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    count: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | Sequence[torch.Generator],
) -> list[Rollout]:
    """`count` rollouts of every prompt, prompt by prompt. A temperature of 0 takes the likeliest token.

    `generator` lives on the CPU and gives one number per rollout and place, so that dropping the finished
    rollouts changes none of the others. With one generator for each prompt, a prompt's rollouts are the same
    whichever others are sampled with it.
    """
    if not prompts:
        return []
    training = model.training
    model.eval()
    try:
        batch = _Batch(model, prompts, count, max_new_tokens)
        stops = torch.tensor(sorted(checkpoint.end_ids(model, tokenizer)), device=model.device)
        for place in range(max_new_tokens):
            chances = _chances(generator, len(prompts), count)
            tokens, log_probs = choose(batch.logits, temperature, chances.to(model.device)[batch.rows])
            batch.record(place, tokens, log_probs, torch.isin(tokens, stops))
            if batch.done or place == max_new_tokens - 1:
                break
            batch.read(tokens)
        return batch.rollouts()
    finally:
        model.train(training)


def choose(
    logits: torch.Tensor, temperature: float, chances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token per row and its log-probability: logits [N, V], chances [N] in [0, 1) → [N], [N].

    The token is where the running sum of the probabilities passes the chance: one random number a row.
    """
    logits = logits.float() / (temperature or 1.0)
    log_probs = logits - logits.logsumexp(-1, keepdim=True)
    if temperature:
        exact = torch.float32 if logits.device.type == "mps" else torch.float64
        sums = log_probs.exp().cumsum(-1, dtype=exact)
        total = sums[:, -1]
        # Below the total even after rounding, so that no token of probability zero is the first to pass it.
        limit = torch.minimum(chances.to(exact) * total, total.nextafter(torch.zeros_like(total)))
        tokens = torch.searchsorted(sums, limit[:, None], right=True)[:, 0]
    else:
        tokens = logits.argmax(-1)
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]


def _chances(
    generator: torch.Generator | Sequence[torch.Generator], prompts: int, count: int
) -> torch.Tensor:
    if isinstance(generator, torch.Generator):
        return torch.rand(prompts * count, generator=generator)
    return torch.cat([torch.rand(count, generator=each) for each in generator])


def fitted(prompt: Sequence[int], model: PreTrainedModel, max_new_tokens: int) -> list[int]:
    """The prompt, without its beginning where prompt and rollout would not fit the model together."""
    limit = checkpoint.longest(model)
    if limit is None:
        return list(prompt)
    if limit <= max_new_tokens:
        raise Refused(
            "max_new_tokens",
            f"The model takes {limit:,} tokens, prompt and rollout together; a rollout of {max_new_tokens:,} "
            "leaves no room for a prompt.",
        )
    return list(prompt[max(0, len(prompt) - (limit - max_new_tokens)) :])


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of ids, their mask and their positions, each [N, longest], right ends aligned.

    The mask alone says where padding stands, so that any id will do for it.
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


class _Batch:
    """The rollouts being written: cache, mask and positions of those still held, results of all."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, longest: int):
        if not all(prompts):
            raise ValueError("A prompt holds no tokens at all.")
        self.model, device = model, model.device
        ids, mask, positions = (each.to(device) for each in pad_left(prompts))
        total = len(prompts) * count
        self.rows = torch.arange(total, device=device)  # which rollouts are held, in order
        self.alive = torch.ones(total, dtype=torch.bool, device=device)  # of those held
        self.tokens = torch.zeros(total, longest, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(total, longest, device=device)
        self.lengths = torch.zeros(total, dtype=torch.long, device=device)
        self.finished = torch.zeros(total, dtype=torch.bool, device=device)
        self.done = False
        self.cache = _roomy_cache(model)
        self.keep = {"logits_to_keep": 1} if keeps_logits(model) else {}
        # Without padding no mask is built at all, and attention takes its faster way.
        self.padded = not bool(mask.all())
        self.width = mask.shape[1]
        self.mask = torch.ones(len(prompts), self.width + longest, dtype=torch.long, device=device)
        self.mask[:, : self.width] = mask
        self.logits = self._forward(ids, positions)
        self.positions = positions[:, -1:]
        self._keep(torch.arange(len(prompts), device=device).repeat_interleave(count))

    def record(self, place: int, tokens: torch.Tensor, log_probs: torch.Tensor, ending: torch.Tensor) -> None:
        """Note each living rollout's token [n], and let those that end here end."""
        living = self.alive
        written = self.rows[living]
        self.tokens[written, place] = tokens[living]
        self.log_probs[written, place] = log_probs[living]
        self.finished[written] = ending[living]
        self.lengths[written] += 1
        self.alive = living & ~ending
        self.done = not bool(self.alive.any())

    def read(self, tokens: torch.Tensor) -> None:
        """Feed each held rollout's newest token [n]; afterwards `logits` are those of the next one."""
        if int(self.alive.sum()) <= WORTH_DROPPING * len(self.rows):
            living = self.alive.nonzero()[:, 0]
            tokens, self.rows, self.alive = tokens[living], self.rows[living], self.alive[living]
            self._keep(living)
        self.positions = self.positions + 1
        self.width += 1
        self.logits = self._forward(tokens[:, None], self.positions)

    def rollouts(self) -> list[Rollout]:
        ends = self.lengths.tolist()
        tokens, log_probs, finished = (each.tolist() for each in (self.tokens, self.log_probs, self.finished))
        return [
            Rollout(tokens[row][:end], log_probs[row][:end], finished[row]) for row, end in enumerate(ends)
        ]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : self.width] if self.padded else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.keep,
        )
        return output.logits[:, -1]

    def _keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows of the batch, each as often as it is named."""
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]
        self.mask, self.positions, self.logits = self.mask[rows], self.positions[rows], self.logits[rows]


def keeps_logits(model: PreTrainedModel) -> bool:
    """Whether the model can be asked for the last logits only; nearly all can, and a vocabulary is wide."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


class _RoomyLayer(DynamicLayer):
    """Keys and values with room at their end: joining tensors would copy all of them for every token."""

    room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[-2]
        if not held or self.keys is None or self.values is None:
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        assert self.keys is not None and self.values is not None
        if self.room is None or self.room[0].shape[-2] < end:
            self.room = self._widened(self.keys, end), self._widened(self.values, end)
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[..., held:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self.room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.room = None

    @staticmethod
    def _widened(held: torch.Tensor, end: int) -> torch.Tensor:
        size = end + max(LEAP, end // 4)
        wide = held.new_empty((*held.shape[:-2], size, held.shape[-1]))
        wide[..., : held.shape[-2], :] = held
        return wide


def _roomy_cache(model: PreTrainedModel) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
