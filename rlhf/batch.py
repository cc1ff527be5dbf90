"""Quintets as rows of tokens: the prompt once with its rollouts behind it, or one padded row per rollout.

In a shared row every rollout sees the prompt and itself, never its neighbours, and its positions go on where
the prompt ends: the numbers of five separate rows at a fraction of the work. Which of the two a model takes
is found out by `rlhf.reward_model`; texts become tokens in `rlhf.checkpoint`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

# What a model raises that cannot take a form of rows which is tried on it.
UNABLE = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError)
SHAPES = 64  # tokens, of which packed rows are multiples
NOWHERE = -1  # the segment of padding; the prompt's is 0, rollout k's is k + 1


@dataclass(frozen=True)
class Example:
    """The tokens of one quintet: its prompt and each of its rollouts, whole or cut to fit."""

    prompt: list[int]
    rollouts: list[list[int]]
    prompt_cut: bool = False
    rollouts_cut: int = 0

    @property
    def tokens(self) -> int:
        """Length of its shared row."""
        return len(self.prompt) + sum(map(len, self.rollouts))


class Long(Protocol):
    """What has a length in tokens."""

    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True)
class SharedRows:
    """One row per quintet: [quintets, tokens] all, but `ends`, [quintets, places]: where rollouts end."""

    ids: Tensor
    positions: Tensor
    segments: Tensor
    ends: Tensor


@dataclass(frozen=True)
class PackedRow:
    """Quintets behind each other in one row without padding, [1, tokens]; `ends` is [quintets, places]."""

    ids: Tensor
    positions: Tensor
    ends: Tensor


@dataclass(frozen=True)
class PaddedRows:
    """One row per place of a quintet, [quintets × places, tokens]; `ends` is [quintets, places]."""

    ids: Tensor
    there: Tensor
    ends: Tensor


OfWindow = Callable[[int | None], Any]  # the mask of layers with such a window
Form = Callable[[OfWindow], Any]  # those of all its layers, as the model takes them


def fit(prompt: Sequence[int], rollouts: Sequence[Sequence[int]], limit: int | None) -> Example:
    """An example in which prompt and longest rollout take at most `limit` tokens.

    The prompt loses its beginning first, down to its last token; only then are rollouts cut, and counted.
    """
    if limit is None:
        return Example(list(prompt), [list(each) for each in rollouts])
    kept = [list(each[: limit - 1]) for each in rollouts]
    room = limit - max(map(len, kept))
    cut = sum(len(after) < len(before) for after, before in zip(kept, rollouts, strict=True))
    return Example(list(prompt[-room:]), kept, len(prompt) > room, cut)


def shared_rows(examples: Sequence[Example], pad: int) -> SharedRows:
    """Every example as one row, padded on the right."""
    length = max(each.tokens for each in examples)
    places = max(len(each.rollouts) for each in examples)
    ids, positions, segments, ends = [], [], [], []
    for each in examples:
        row, place, part, last = list(each.prompt), list(range(len(each.prompt))), [0] * len(each.prompt), []
        for number, rollout in enumerate(each.rollouts, start=1):
            row += rollout
            place += range(len(each.prompt), len(each.prompt) + len(rollout))
            part += [number] * len(rollout)
            last.append(len(row) - 1)
        spare = length - len(row)
        ids.append(row + [pad] * spare)
        positions.append(place + [0] * spare)
        segments.append(part + [NOWHERE] * spare)
        ends.append(last + [0] * (places - len(last)))
    return SharedRows(*map(torch.tensor, (ids, positions, segments, ends)))


def spare(tokens: int) -> int:
    """How many tokens a row is given beyond those, which nobody reads: oneDNN prepares its products for every
    shape and keeps what it prepared, so that rows of ever new lengths would take ever more memory."""
    return -tokens % SHAPES


def packed_row(examples: Sequence[Example]) -> PackedRow:
    """Every example in one row, as it would stand in a shared row of its own, and spare tokens at its end."""
    places = max(len(each.rollouts) for each in examples)
    ids: list[int] = []
    positions: list[int] = []
    ends = []
    for each in examples:
        ids += each.prompt
        positions += range(len(each.prompt))
        last = []
        for rollout in each.rollouts:
            ids += rollout
            positions += range(len(each.prompt), len(each.prompt) + len(rollout))
            last.append(len(ids) - 1)
        ends.append(last + [0] * (places - len(last)))
    more = [0] * spare(len(ids))
    ids, positions = ids + more, positions + more
    return PackedRow(torch.tensor([ids]), torch.tensor([positions]), torch.tensor(ends))


def padded_rows(examples: Sequence[Example], pad: int) -> PaddedRows:
    """Every rollout behind a copy of its prompt, padded on the right; an empty place is a prompt alone."""
    places = max(len(each.rollouts) for each in examples)
    rows = [
        each.prompt + (each.rollouts[place] if place < len(each.rollouts) else [])
        for each in examples
        for place in range(places)
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    there = torch.arange(length)[None, :] < lengths[:, None]
    return PaddedRows(ids, there.long(), (lengths - 1).view(len(examples), places))


def block_mask(rows: SharedRows, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """What may look at what, added to attention scores: [quintets, 1, looking, seen], 0 or very negative.

    A window counts restarted positions, as it would in the rollout's own row. Additive because a boolean mask
    is silently wrong where attention adds it, finite because a row of minus infinities has no softmax.
    """
    looking, seen = rows.segments[:, :, None], rows.segments[:, None, :]
    order = torch.arange(rows.ids.shape[1], device=rows.ids.device)
    allowed = ((looking == seen) | (seen == 0)) & (order[:, None] >= order[None, :])
    if window is not None:
        allowed &= rows.positions[:, :, None] - rows.positions[:, None, :] < window
    mask = torch.zeros(allowed.shape, dtype=dtype, device=rows.ids.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def with_another_first(example: Example, words: int) -> Example:
    """The same, but for every token of its first rollout, of a vocabulary of so many. What a model says of
    the others must not change: it is computed alike, so that even a leak far below rounding shows."""
    first, *others = example.rollouts
    return Example(example.prompt, [[(token + 1) % words for token in first], *others])


def forms(model: Any) -> list[Form]:
    """The ways in which architectures take a mask, the most particular first: one per layer kind, or one."""
    text = model.config.get_text_config()
    window, kinds = getattr(text, "sliding_window", None), set(getattr(text, "layer_types", None) or [])

    def one_per_kind(of: OfWindow) -> dict[str, Any]:
        return {kind: of(window if kind == "sliding_attention" else None) for kind in kinds}

    def windowed(of: OfWindow) -> Any:
        return of(window)

    def whole(of: OfWindow) -> Any:
        return of(None)

    return [*([one_per_kind] if kinds else []), *([windowed] if window else []), whole]


def portions(examples: Sequence[Long], size: int, tokens: int | None = None) -> list[list[int]]:
    """The numbers of the examples in portions of at most `size`, similar lengths together to pad little.

    With `tokens`, the shared rows of a portion hold no more than that together, save one that does alone.
    """
    order = sorted(range(len(examples)), key=lambda number: (examples[number].tokens, number))
    found: list[list[int]] = []
    held = 0
    for number in order:
        held += examples[number].tokens
        if not found or len(found[-1]) == size or (tokens is not None and held > tokens):
            found.append([])
            held = examples[number].tokens
        found[-1].append(number)
    return found


def drawn(count: int, size: int, step: int, seed: int) -> list[int]:
    """The examples of a step (1, 2 …): epoch after epoch, each in an order of its own.

    They follow from the step alone, so a resumed run needs no memory of what it has seen.
    """
    size = min(size, count)
    places = range((step - 1) * size, step * size)
    return [order(count, place // count, seed)[place % count] for place in places]


@lru_cache(maxsize=4)
def order(count: int, epoch: int, seed: int) -> list[int]:
    """An epoch's own order of so many examples."""
    numbers = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(numbers)
    return numbers


def steps_of(count: int, size: int, epochs: float) -> int:
    """How many steps of `size` examples make so many epochs."""
    return max(1, round(epochs * count / min(size, count)))
