"""Attention in two parts: a quintet's prompt looks at itself, its rollouts at the prompt and themselves.

Several quintets lie packed in a row without padding, and the square of that row is never computed; so do
texts without rollouts, each of which looks at itself alone. For causal attention, whole or within a window.
Caps and sinks are refused; `rlhf.reward_model` and `rlhf.packing` then take masks. What a row holds is the
matter of `rlhf.batch`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf import apart, siblings
from rlhf.batch import Example, spare

NAME = "quintet_in_two_parts"
REFUSED = ("softcap", "position_bias", "s_aux", "cache")
KINDS = {"full_attention", "sliding_attention"}  # of layers
CHUNK = 128  # prompt tokens that look back together; what none of them may see is not computed
# Tokens up to which plain products in half precision are faster on a processor than its kernel.
BY_HAND = 4096

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Group:
    """Neighbours in a packed row that are of one shape, and what their rollouts may see of their quintet."""

    quintets: int
    prompt: int
    behind: int
    window: int | None  # how many tokens back a token sees, itself among them
    mask: Tensor  # [quintets, 1, behind, seen of the prompt + behind], added to the scores

    @property
    def tokens(self) -> int:
        return self.quintets * (self.prompt + self.behind)


def possible(model: Any) -> bool:
    """Whether a model could take it: fused attention, and only full and sliding layers in its config."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    return model.config._attn_implementation in ("sdpa", NAME) and kinds <= KINDS


def layout(
    examples: Sequence[Example], dtype: torch.dtype, device: torch.device, window: int | None = None
) -> Tensor:
    """What a layer is given as its mask for a packed row: an empty one that tells the groups of the row.

    Four dimensions, because transformers hands such a mask on to every layer as it is.
    """
    carrier: Any = torch.empty(1, 1, 1, 1, device=device)
    carrier.window, carrier.groups = window, []
    carrier.spare = spare(sum(each.tokens for each in examples))
    carrier.parts = siblings.parts(examples, dtype, device, window)
    if carrier.parts is not None:
        return carrier
    for (prompt, behind), alike in groupby(
        examples, key=lambda each: (len(each.prompt), sum(map(len, each.rollouts)))
    ):
        seen = min(prompt, prompt if window is None else window - 1)
        masks = [_behind(seen, tuple(map(len, each.rollouts)), dtype, window) for each in alike]
        carrier.groups.append(Group(len(masks), prompt, behind, window, torch.stack(masks).to(device)))
    return carrier


def alone(lengths: Sequence[int], device: torch.device, window: int | None = None) -> Tensor:
    """The same for a row of texts of these lengths, in which each sees itself alone."""
    carrier: Any = torch.empty(1, 1, 1, 1, device=device)
    carrier.window, carrier.groups, carrier.parts = window, [], None
    carrier.texts = apart.texts(lengths, device)
    return carrier


@lru_cache(maxsize=64)
def _behind(prompt: int, rollouts: tuple[int, ...], dtype: torch.dtype, window: int | None) -> Tensor:
    """[1, behind, prompt + behind]: rollouts see the prompt (its last so many tokens) and their own past, no
    further back than the window, which counts restarted positions."""
    owner = torch.repeat_interleave(torch.arange(len(rollouts)), torch.tensor(rollouts))
    places = torch.cat([torch.arange(prompt, prompt + length) for length in rollouts])
    seen = torch.cat([torch.arange(prompt), places])
    hidden = (owner[:, None] != owner[None, :]) | torch.ones(len(owner), len(owner), dtype=torch.bool).triu(1)
    hidden = torch.cat([torch.zeros(len(owner), prompt, dtype=torch.bool), hidden], 1)
    if window is not None:
        hidden |= places[:, None] - seen[None, :] >= window
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)[None]


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
    if (prefix := getattr(attention_mask, "prefix", None)) is not None:
        refuse(attention_mask, dropout, others)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return prefix.attend(module.layer_idx, attention_mask, query, key, value, scale), None
    groups: list[Group] | None = getattr(attention_mask, "groups", None)
    if groups is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    refuse(attention_mask, dropout, others)
    if torch.is_autocast_enabled(query.device.type):
        narrow = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(narrow), key.to(narrow), value.to(narrow)
    if (shared := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    texts: apart.Texts | None = getattr(attention_mask, "texts", None)
    if texts is not None:
        window: int | None = getattr(attention_mask, "window", None)
        causal = partial(_causal, scale=scale, window=window)
        return apart.each_alone(texts, query, key, value, causal), None
    parts_of_row: siblings.Parts | None = getattr(attention_mask, "parts", None)
    if parts_of_row is not None:
        return siblings.in_three_parts(parts_of_row, query, key, value, scale), None
    left: int = getattr(attention_mask, "spare", 0)
    sizes = [*(group.tokens for group in groups), left]
    queries, keys, values = (each.transpose(1, 2).split(sizes, 1) for each in (query, key, value))
    parts = zip(groups, queries, keys, values, strict=False)
    found = [_of_a_group(group, q, k, v, scale) for group, q, k, v in parts]
    return torch.cat([*found, found[0].new_zeros(1, left, *found[0].shape[2:])], 1), None


def refuse(mask: Any, dropout: float, others: dict[str, Any]) -> None:
    """Raise where a layer wants more than plain causal attention within the window that its mask is of."""
    another = others.get("sliding_window") not in (None, getattr(mask, "window", None))
    if dropout or another or any(others.get(name) is not None for name in REFUSED):
        raise ValueError("Only plain causal attention is computed in parts.")


def _of_a_group(group: Group, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """[1, tokens, heads, width] of quintets of one shape."""
    heads, width = query.shape[2:]
    each = (group.quintets, group.prompt + group.behind, heads, width)
    query, key, value = (rows.reshape(each).transpose(1, 2) for rows in (query, key, value))
    asking, answering = query.split([group.prompt, group.behind], 2)
    attend = _by_hand if _is_by_hand(query) else _fused
    prompt = _causal(
        asking, key[:, :, : group.prompt], value[:, :, : group.prompt], scale, group.window, attend
    )
    reach = each[1] - group.mask.shape[-1]  # where what the rollouts see begins
    rollouts = attend(answering, key[:, :, reach:], value[:, :, reach:], group.mask, scale)
    return torch.cat([prompt, rollouts], 2).transpose(1, 2).reshape(1, group.tokens, heads, width)


def _is_by_hand(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype != torch.float32 and query.shape[2] <= BY_HAND


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    attend: Attend | None = None,
) -> Tensor:
    """Each row at itself and its past, as far as the window reaches: [rows, heads, tokens, width]."""
    attend = attend or (_by_hand if _is_by_hand(query) else _fused)
    narrow = window is not None and window < query.shape[2]
    if attend is _by_hand or narrow:
        return _chunk_by_chunk(query, key, value, scale, window if narrow else None, attend)
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)


def _chunk_by_chunk(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, attend: Attend
) -> Tensor:
    """Each chunk sees its own past and what came before it, as far as the window reaches."""
    found = []
    for start in range(0, query.shape[2], CHUNK):
        end = min(start + CHUNK, query.shape[2])
        first = 0 if window is None else max(0, start - window + 1)
        mask = _past(start - first, end - first, query.dtype, window).to(query.device)
        seen, told = key[:, :, first:end], value[:, :, first:end]
        found.append(attend(query[:, :, start:end], seen, told, mask, scale))
    return torch.cat(found, 2)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


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
def _past(start: int, end: int, dtype: torch.dtype, window: int | None) -> Tensor:
    """[1, 1, chunk, end]: what the tokens from `start` on may see."""
    apart = torch.arange(start, end)[:, None] - torch.arange(end)[None, :]
    hidden = (apart < 0) | (apart >= (end if window is None else window))
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)[None, None]


AttentionInterface.register(NAME, in_two_parts)
AttentionMaskInterface.register(NAME, sdpa_mask)
