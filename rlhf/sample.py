"""Sampling rollouts in groups, for any causal language model of transformers.

A prompt is read once and its cache copied to its rollouts; those that ended leave the batch when that pays.
Log-probabilities are those that the training pass would compute: at the same temperature, the log-sum-exp in
fp32, before top-p takes anything away. Top-p is for whoever tries a model out; no trainer asks for it,
because what is trained must be what was sampled from. Leaves out beams and top-k.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from rlhf import batch, checkpoint, prefix, products
from rlhf.config import Refused

WORTH_DROPPING = 0.75  # a batch of which no more than this share still writes is made smaller
ROUNDING = 1e-4  # by which two ways to write may differ in their logits, relative to the largest


@dataclass(frozen=True)
class Rollout:
    """One sampled answer: its token ids (the ending one included) and the log-probability of each."""

    tokens: list[int]
    log_probs: list[float]
    finished: bool


@dataclass(frozen=True)
class Moment:
    """What the rollouts that are still being written said at one place; n of them."""

    rows: torch.Tensor  # [n]: which rollouts
    tokens: torch.Tensor  # [n]
    log_probs: torch.Tensor  # [n]
    ended: torch.Tensor  # [n]: whether that was its last token by itself
    logits: torch.Tensor  # [n, vocabulary]: what each token was drawn from


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    count: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | Sequence[torch.Generator] | torch.Tensor,
    top_p: float = 1.0,
    watch: Callable[[Moment], bool] | None = None,
) -> list[Rollout]:
    """`count` rollouts of every prompt, prompt by prompt. A temperature of 0 takes the likeliest token.

    `generator` lives on the CPU and gives one number per rollout and place, so that dropping the finished
    rollouts changes none of the others. With one generator for each prompt, a prompt's rollouts are the same
    whichever others are sampled with it; the numbers may also be given, [rollouts, places]. `watch` sees
    every place as it is written, and ends all by returning False: what was not finished then is cut off.
    """
    if not prompts:
        return []
    training = model.training
    model.eval()
    try:
        with products.unchanging(model):
            held = _Batch(writer(model, prompts, count, max_new_tokens), len(prompts) * count, max_new_tokens)
            stops = torch.tensor(sorted(checkpoint.end_ids(model, tokenizer)), device=model.device)
            for place in range(max_new_tokens):
                chances = _chances(generator, len(prompts), count, place)
                drawn = chances.to(model.device)[held.rows]
                tokens, log_probs = choose(held.logits, temperature, drawn, top_p)
                ending, living = torch.isin(tokens, stops), held.alive
                held.record(place, tokens, log_probs, ending)
                seen = (held.rows, tokens, log_probs, ending, held.logits)
                if watch and not watch(Moment(*(each[living] for each in seen))):
                    break
                if held.done or place == max_new_tokens - 1:
                    break
                held.read(tokens)
            return held.rollouts()
    finally:
        model.train(training)


def choose(
    logits: torch.Tensor, temperature: float, chances: torch.Tensor, top_p: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token per row and its log-probability: logits [N, V], chances [N] in [0, 1) → [N], [N].

    The token is where the running sum of the probabilities passes the chance: one random number a row. With
    `top_p` that sum is over the nucleus alone; the log-probability is always of the whole distribution, so
    that it says how likely the model finds a token and not how we drew it.
    """
    log_probs = distribution(logits, temperature)
    if temperature:
        exact = torch.float32 if logits.device.type == "mps" else torch.float64
        drawn_from = nucleus(log_probs.exp(), top_p) if top_p < 1 else log_probs.exp()
        sums = drawn_from.cumsum(-1, dtype=exact)
        total = sums[:, -1]
        # Below the total even after rounding, so that no token of probability zero is the first to pass it.
        limit = torch.minimum(chances.to(exact) * total, total.nextafter(torch.zeros_like(total)))
        tokens = torch.searchsorted(sums, limit[:, None], right=True)[:, 0]
    else:
        tokens = logits.argmax(-1)
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]


def distribution(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """The log-probabilities [N, V] at this temperature; at 0, where nothing is drawn, those of the model."""
    logits = logits.float() / (temperature or 1.0)
    return logits - logits.logsumexp(-1, keepdim=True)


def nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """The probabilities [N, V] of the fewest tokens that together have `top_p`, and 0 for the others. The
    likeliest token always stays; of equal ones the earlier in the vocabulary."""
    largest, places = probs.sort(stable=True, dim=-1, descending=True)
    exact = torch.float32 if probs.device.type == "mps" else torch.float64
    before = largest.cumsum(-1, dtype=exact) - largest
    kept = before < top_p
    kept[:, 0] = True
    return torch.zeros_like(probs).scatter(-1, places, largest * kept)


def chances_of(seed: int, rollouts: Iterable[tuple[int, int]], places: int) -> torch.Tensor:
    """The random numbers [rollouts, places] of rollouts, each named by its prompt's number and its own: it is
    the same however many others are asked for, and however many are written at once."""
    rows = [np.random.default_rng([seed, *each]).random(places, dtype=np.float32) for each in rollouts]
    return torch.from_numpy(np.stack(rows))


def _chances(
    generator: torch.Generator | Sequence[torch.Generator] | torch.Tensor,
    prompts: int,
    count: int,
    place: int,
) -> torch.Tensor:
    if isinstance(generator, torch.Tensor):
        return generator[:, place]
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


class Writer(Protocol):
    """What another engine has to offer, in three lines: prompts in hand, one token after the other."""

    logits: torch.Tensor  # [rollouts held, vocabulary]: of each one's next token

    def read(self, tokens: torch.Tensor) -> None: ...  # [held]: what each has written; then come new logits

    def keep(self, rows: torch.Tensor) -> None: ...  # go on with these of the held ones, in this order


class _Batch:
    """The rollouts being written: which are still held, and the results of all."""

    def __init__(self, writer: Writer, total: int, longest: int):
        self.writer, device = writer, writer.logits.device
        self.rows = torch.arange(total, device=device)  # which rollouts are held, in order
        self.alive = torch.ones(total, dtype=torch.bool, device=device)  # of those held
        self.tokens = torch.zeros(total, longest, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(total, longest, device=device)
        self.lengths = torch.zeros(total, dtype=torch.long, device=device)
        self.finished = torch.zeros(total, dtype=torch.bool, device=device)
        self.done = False

    @property
    def logits(self) -> torch.Tensor:
        return self.writer.logits

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
            self.writer.keep(living)
        self.writer.read(tokens)

    def rollouts(self) -> list[Rollout]:
        ends = self.lengths.tolist()
        tokens, log_probs, finished = (each.tolist() for each in (self.tokens, self.log_probs, self.finished))
        return [
            Rollout(tokens[row][:end], log_probs[row][:end], finished[row]) for row, end in enumerate(ends)
        ]


def writer(model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, longest: int) -> Writer:
    """Prompts that were read, each `count` times: their keys held once where the model can take it."""
    if not all(prompts):
        raise ValueError("A prompt holds no tokens at all.")
    form = prefix.form(model, _alike) if count > 1 else None
    if form is not None:
        return _Sharing(model, prompts, count, form)
    return _Apart(model, prompts, count, longest)


class _Apart:
    """Every rollout with a cache of its own that begins with a copy of its prompt's: takes any model."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, longest: int):
        self.model, device = model, model.device
        ids, mask, positions = (each.to(device) for each in pad_left(prompts))
        self.cache = _roomy_cache(model)
        self.keep_logits = {"logits_to_keep": 1} if keeps_logits(model) else {}
        # Without padding no mask is built at all, and attention takes its faster way.
        self.padded = not bool(mask.all())
        self.width = mask.shape[1]
        self.mask = torch.ones(len(prompts), self.width + longest, dtype=torch.long, device=device)
        self.mask[:, : self.width] = mask
        self.logits = self._forward(ids, positions)
        self.positions = positions[:, -1:]
        if count > 1:
            self.keep(torch.arange(len(prompts), device=device).repeat_interleave(count))

    def read(self, tokens: torch.Tensor) -> None:
        self.positions = self.positions + 1
        self.width += 1
        self.logits = self._forward(tokens[:, None], self.positions)

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]
        self.mask, self.positions, self.logits = self.mask[rows], self.positions[rows], self.logits[rows]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : self.width] if self.padded else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.keep_logits,
        )
        return output.logits[:, -1]


class _Sharing:
    """Every rollout with a cache of what it wrote itself; its prompt's is one for all of its siblings."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, form: batch.Form
    ):
        self.model = model
        ids, mask, positions = pad_left(prompts)
        self.keep_logits = {"logits_to_keep": 1} if keeps_logits(model) else {}
        cache = DynamicCache()  # of no config: a layer with a window holds the whole prompt too
        output = model(
            input_ids=ids,
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self.keep_logits,
        )
        self.prefix = prefix.Prefix(model, form, count, mask, cache)
        self.positions = positions[:, -1:].repeat_interleave(count, 0)
        self.logits = output.logits[:, -1].repeat_interleave(count, 0)

    def read(self, tokens: torch.Tensor) -> None:
        self.positions = self.positions + 1
        mask = self.prefix.mask()
        self.prefix.written += 1
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=self.positions,
            past_key_values=self.prefix.cache,
            use_cache=True,
            **self.keep_logits,
        )
        self.logits = output.logits[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        self.prefix.keep(rows)
        self.positions, self.logits = self.positions[rows], self.logits[rows]


def _alike(model: PreTrainedModel, form: batch.Form) -> bool:
    """Whether both ways of writing say the same, on prompts of unequal length, rows dropped in between."""
    prompts, tokens = [[1, 2, 3, 4, 5], [3, 1]], torch.tensor([2, 0, 1, 3, 2, 1])
    apart, sharing = _Apart(model, prompts, 3, 4), _Sharing(model, prompts, 3, form)
    for kept in (None, torch.tensor([0, 2, 3]), torch.tensor([1, 2]), torch.tensor([1])):
        for each in (apart, sharing):
            if kept is not None:
                each.keep(kept)
            each.read(tokens[: len(each.logits)])
        if not (sharing.logits - apart.logits).abs().max() <= ROUNDING * (1 + apart.logits.abs().max()):
            return False
    return True


def keeps_logits(model: PreTrainedModel) -> bool:
    """Whether the model can be asked for the last logits only; nearly all can, and a vocabulary is wide."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _roomy_cache(model: PreTrainedModel) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    cache.layers = [prefix.RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
