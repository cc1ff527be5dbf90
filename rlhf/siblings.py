"""Attention in three parts: prompts at themselves, rollouts at their prompt, each rollout at itself alone.

The rollouts of a prompt never look at each other, so that the square of all of them, masked or not, need not
be computed: every rollout is a batch of its own. Prompts and rollouts are padded for that, and only here.
Pays where rollouts are many; where one is far longer than its siblings, or a prompt is very long,
`rlhf.attention` computes them in two parts. Its rules hold here as well: causal, whole or within a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rlhf.batch import Example, spare

PAYS = 1.0  # the most that the three parts may compute, as a share of the two parts
AT_MOST = 2**21  # scores of a head that are held at once


@dataclass(frozen=True)
class Parts:
    """Where the tokens of a packed row belong, and what they may see."""

    sizes: tuple[
        int, int, int, int
    ]  # quintets, tokens of the longest prompt, rollouts, tokens of the longest
    prompts: Tensor  # [quintets × prompt]: of each place its token in the row
    rollouts: Tensor  # [quintets × rollouts × length]
    back: Tensor  # [tokens]: of each token its place among those of the prompts and the rollouts behind them
    whole: bool  # whether every prompt may be read by each of its rollouts to its full length
    before: Tensor  # [quintets, 1, 1 or length, prompt], added to the scores of rollouts at prompts
    past: Tensor  # [length, length], added to those of rollouts at themselves
    within: Tensor | None  # [prompt, prompt], added to those of prompts; None where they are plainly causal


def parts(
    examples: Sequence[Example], dtype: torch.dtype, device: torch.device, window: int | None
) -> Parts | None:
    """How these would be computed in three parts; None where that is not worth it."""
    ahead, lengths = (
        [len(each.prompt) for each in examples],
        [list(map(len, each.rollouts)) for each in examples],
    )
    count, prompt = len(examples), max(ahead)
    places, longest = max(map(len, lengths)), max(max(each) for each in lengths)
    scores = count * places * longest * (prompt + longest)
    apart = sum(sum(each) * (before + sum(each)) for before, each in zip(ahead, lengths, strict=True))
    if scores > AT_MOST or scores + count * prompt**2 > PAYS * (apart + sum(each**2 for each in ahead)):
        return None
    at_prompt = torch.zeros(count, prompt, dtype=torch.long)
    at_rollout = torch.zeros(count, places, longest, dtype=torch.long)
    back, start = [], 0
    for number, (before, each) in enumerate(zip(ahead, lengths, strict=True)):
        at_prompt[number, :before] = torch.arange(start, start + before)
        back.append(torch.arange(before) + number * prompt)
        start += before
        for place, length in enumerate(each):
            at_rollout[number, place, :length] = torch.arange(start, start + length)
            back.append(torch.arange(length) + count * prompt + (number * places + place) * longest)
            start += length
    back.append(torch.zeros(spare(start), dtype=torch.long))  # what is found there, nobody reads
    lowest, ends = torch.finfo(dtype).min, torch.tensor(ahead)
    order = torch.arange(max(prompt, longest))
    hidden = order[:, None] < order[None, :]
    unseen = (order[None, :prompt] >= ends[:, None])[:, None]  # [quintets, 1, prompt]
    if window is not None:
        hidden = hidden | (order[:, None] - order[None, :] >= window)
        position = ends[:, None] + order[:longest]  # [quintets, length]
        unseen = unseen | (position[:, :, None] - order[None, None, :prompt] >= window)
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, lowest).to(device)
    return Parts(
        (count, prompt, places, longest),
        at_prompt.flatten().to(device),
        at_rollout.flatten().to(device),
        torch.cat(back).to(device),
        not bool(unseen.any()),
        torch.zeros(unseen.shape, dtype=dtype).masked_fill(unseen, lowest)[:, None].to(device),
        mask[:longest, :longest],
        mask[:prompt, :prompt] if window is not None and window < prompt else None,
    )


def in_three_parts(of: Parts, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """[1, heads, tokens, width] of a packed row in, [1, tokens, heads, width] out."""
    (count, prompt, places, longest), (heads, width) = of.sizes, (query.shape[1], query.shape[3])
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))  # [tokens, heads, width]

    def prompts(rows: Tensor) -> Tensor:
        return rows[of.prompts].view(count, prompt, heads, width).transpose(1, 2)

    def rollouts(rows: Tensor) -> Tensor:  # [quintets × heads × rollouts, length, width]
        apart = rows[of.rollouts].view(count, places, longest, heads, width)
        return apart.permute(0, 3, 1, 2, 4).reshape(-1, longest, width)

    seen, told = prompts(key), prompts(value)
    first = _of_prompts(prompts(query), seen, told, of.within, scale)
    seen, told = (each.reshape(count * heads, prompt, width) for each in (seen, told))
    asking = rollouts(query)
    together = asking.view(count * heads, places * longest, width)
    above = torch.bmm(together, seen.transpose(1, 2)) * scale
    if not of.whole:
        above = (above.view(count, heads * places, longest, prompt) + of.before).view(above.shape)
    own = torch.baddbmm(of.past, asking, rollouts(key).transpose(1, 2), alpha=scale)
    weights = torch.softmax(torch.cat([above.view(-1, longest, prompt), own], -1), -1)
    found = torch.bmm(weights[..., prompt:], rollouts(value)).view(together.shape)
    found = found + torch.bmm(weights[..., :prompt].reshape(-1, places * longest, prompt), told)
    behind = found.view(count, heads, places, longest, width).permute(0, 2, 3, 1, 4)
    rows = torch.cat([each.reshape(-1, heads, width) for each in (first.transpose(1, 2), behind)])
    return rows[of.back][None]


def _of_prompts(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Padding stands behind a prompt, where none of its tokens looks: [quintets, heads, prompt, width]."""
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
    )
