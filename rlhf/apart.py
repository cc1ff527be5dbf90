"""Attention of texts that lie behind each other in one row, each at itself alone.

Texts of similar length make a bunch, padded to its longest for attention and only there: padding stands
behind a text, where causal attention never looks. So neither the square of the row nor anything between two
texts is computed, masked or not. `rlhf.attention` says when this is done, and what a text may see of itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIKE, NEAR = 0.85, 8  # of a bunch's longest, its shortest: a share, or so many tokens fewer
FEW, SEVERAL = 16, 64  # tokens, whose multiples bunches are as long as: of few shapes, up to 256 and above

Causal = Callable[[Tensor, Tensor, Tensor], Tensor]  # [texts, heads, tokens, width] each


@dataclass(frozen=True)
class Texts:
    """The bunches of a row, texts × tokens of their longest; and of each of its tokens the place in them."""

    bunches: tuple[tuple[int, int], ...]
    places: Tensor | None  # None where the row is laid out so already

    @property
    def padded(self) -> int:
        return sum(texts * longest for texts, longest in self.bunches)


def texts(lengths: Sequence[int], device: torch.device) -> Texts:
    """How texts of these lengths, in this order, are bunched: neighbours with neighbours."""
    bunches: list[list[int]] = []
    for length in lengths:
        own = bunches[-1] if bunches else []
        shortest, longest = min([length, *own]), max([length, *own])
        if own and (shortest >= ALIKE * longest or longest - shortest <= NEAR):
            own.append(length)
        else:
            bunches.append([length])
    sizes = tuple((len(each), _rounded(max(each))) for each in bunches)
    places, start = [], 0
    for each, (_, longest) in zip(bunches, sizes, strict=True):
        for number, length in enumerate(each):
            first = start + number * longest
            places.append(torch.arange(first, first + length))
        start += len(each) * longest
    return Texts(sizes, torch.cat(places).to(device) if start > sum(lengths) else None)


def _rounded(length: int) -> int:
    step = FEW if length <= 256 else SEVERAL
    return -(-length // step) * step


def each_alone(of: Texts, query: Tensor, key: Tensor, value: Tensor, causal: Causal) -> Tensor:
    """[1, heads, tokens, width] of a row in, [1, tokens, heads, width] out."""
    heads, width = query.shape[1], query.shape[3]
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]  # [tokens, heads, width]
    if of.places is not None:
        rows = [_Padded.apply(each, of.places, of.padded) for each in rows]
    found, start = [], 0
    for count, longest in of.bunches:
        end = start + count * longest
        own = [each[start:end].view(count, longest, heads, width).transpose(1, 2) for each in rows]
        found.append(causal(*own).transpose(1, 2).reshape(-1, heads, width))
        start = end
    together = torch.cat(found) if len(found) > 1 else found[0]
    return (together if of.places is None else _Unpadded.apply(together, of.places))[None]


class _Padded(torch.autograd.Function):
    """[tokens, heads, width] → [places, heads, width], nothing where no token is."""

    @staticmethod
    def forward(context: Any, rows: Tensor, places: Tensor, count: int) -> Tensor:
        context.save_for_backward(places)
        return _spread(rows, places, count)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient.index_select(0, *context.saved_tensors), None, None


class _Unpadded(torch.autograd.Function):
    """[places, heads, width] → [tokens, heads, width]: no gradient comes to where no token is."""

    @staticmethod
    def forward(context: Any, rows: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        context.count = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = context.saved_tensors
        return _spread(gradient, places, context.count), None


def _spread(rows: Tensor, places: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, *rows.shape[1:]).index_copy_(0, places, rows)
