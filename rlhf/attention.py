"""Attention in two parts: a quintet's prompt looks at itself, its rollouts at the prompt and themselves.

Several quintets lie packed in a row without padding, and the square of that row is never computed. For plain
causal attention only: windows, caps and sinks are refused, and `rlhf.reward_model` then takes masks. What a
row holds is the matter of `rlhf.batch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.batch import Example

NAME = "quintet_in_two_parts"
REFUSED = ("softcap", "sliding_window", "position_bias", "s_aux", "cache")
CHUNK = 128  # prompt tokens that look back together; what none of them may see is not computed
BY_HAND = (
    4096  # tokens up to which plain products in half precision are faster on a processor than its kernel
)


@dataclass(frozen=True)
class Group:
    """Neighbours in a packed row that are of one shape, and what their rollouts may see of their quintet."""

    quintets: int
    prompt: int
    behind: int
    mask: Tensor  # [quintets, 1, behind, prompt + behind], added to the scores

    @property
    def tokens(self) -> int:
        return self.quintets * (self.prompt + self.behind)


def of_plain_layers(model: Any) -> bool:
    """Whether a model could take it: fused attention, and only full layers in its config."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return model.config._attn_implementation in ("sdpa", NAME) and kinds == {"full_attention"}


def layout(examples: Sequence[Example], dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a model is given as its mask for a packed row: an empty one that tells the groups of the row.

    Four dimensions, because transformers hands such a mask on to every layer as it is.
    """
    carrier: Any = torch.empty(1, 1, 1, 1, device=device)
    shapes = groupby(examples, key=lambda each: (len(each.prompt), sum(map(len, each.rollouts))))
    carrier.groups = [
        Group(len(masks), *shape, torch.stack(masks).to(device))
        for shape, alike in shapes
        if (masks := [_behind(len(each.prompt), tuple(map(len, each.rollouts)), dtype) for each in alike])
    ]
    return carrier


@lru_cache(maxsize=64)
def _behind(prompt: int, rollouts: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """[1, behind, prompt + behind]: rollouts see the whole prompt and their own past."""
    owner = torch.repeat_interleave(torch.arange(len(rollouts)), torch.tensor(rollouts))
    hidden = (owner[:, None] != owner[None, :]) | torch.ones(len(owner), len(owner), dtype=torch.bool).triu(1)
    mask = torch.zeros(len(owner), len(owner), dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
    return torch.cat([torch.zeros(len(owner), prompt, dtype=dtype), mask], 1)[None]


def in_two_parts(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: [1, heads, tokens, width] in, [1, tokens, heads, width] out.

    With any other mask than `layout` made it is plain fused attention.
    """
    groups: list[Group] | None = getattr(attention_mask, "groups", None)
    if groups is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    if dropout or any(others.get(name) is not None for name in REFUSED):
        raise NotImplementedError("Only plain causal attention is computed in two parts.")
    if torch.is_autocast_enabled(query.device.type):
        narrow = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(narrow), key.to(narrow), value.to(narrow)
    if (shared := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    sizes = [group.tokens for group in groups]
    queries, keys, values = (each.transpose(1, 2).split(sizes, 1) for each in (query, key, value))
    parts = zip(groups, queries, keys, values, strict=True)
    return torch.cat([_of_a_group(group, q, k, v, scaling) for group, q, k, v in parts], 1), None


def _of_a_group(group: Group, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """[1, tokens, heads, width] of quintets of one shape."""
    heads, width = query.shape[2:]
    each = (group.quintets, group.prompt + group.behind, heads, width)
    query, key, value = (rows.reshape(each).transpose(1, 2) for rows in (query, key, value))
    asking, answering = query.split([group.prompt, group.behind], 2)
    seen, told = key[:, :, : group.prompt], value[:, :, : group.prompt]
    by_hand = query.device.type == "cpu" and query.dtype != torch.float32 and each[1] <= BY_HAND
    if by_hand:
        scale = width**-0.5 if scaling is None else scaling
        found = [
            _causal_by_hand(asking, seen, told, scale),
            _by_hand(answering, key, value, group.mask, scale),
        ]
    else:
        found = [
            scaled_dot_product_attention(asking, seen, told, is_causal=True, scale=scaling),
            scaled_dot_product_attention(answering, key, value, attn_mask=group.mask, scale=scaling),
        ]
    return torch.cat(found, 2).transpose(1, 2).reshape(1, group.tokens, heads, width)


def _causal_by_hand(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The prompt, chunk by chunk: a chunk sees what came before it and its own past."""
    found = []
    for start in range(0, query.shape[2], CHUNK):
        end = min(start + CHUNK, query.shape[2])
        mask = _past(start, end, query.dtype)
        found.append(_by_hand(query[:, :, start:end], key[:, :, :end], value[:, :, :end], mask, scale))
    return torch.cat(found, 2)


def _by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention as plain products, softmax inside in fp32: [quintets, heads, looking, width].

    The processor's fused kernel is no faster in half precision than in full; its matrix products are, by far.
    """
    quintets, heads, looking, width = query.shape
    mask = mask.expand(quintets, heads, -1, -1).flatten(0, 1) if mask.shape[0] > 1 else mask[0]
    query, key, value = (each.reshape(quintets * heads, -1, width) for each in (query, key, value))
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), value).view(quintets, heads, looking, width)


@lru_cache(maxsize=64)
def _past(start: int, end: int, dtype: torch.dtype) -> Tensor:
    """[1, 1, chunk, end]: what the tokens from `start` on may see."""
    mask = torch.full((end - start, end), torch.finfo(dtype).min, dtype=dtype).triu(start + 1)
    return mask[None, None]


AttentionInterface.register(NAME, in_two_parts)
AttentionMaskInterface.register(NAME, sdpa_mask)
