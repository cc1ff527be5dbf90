"""Writing with a prompt's keys and values held once for all its rollouts, instead of once for each.

The scores at the prompt are one product for all of its rollouts, those at themselves one for each; the
softmax is over both. For models whose attention `rlhf.attention` knows, on a processor, where it was
measured; whether a model says the same this way as with a cache for each rollout is tried, not assumed.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlhf import attention, batch

LEAP = 64  # tokens by which a cache grows

_forms: WeakKeyDictionary[Any, batch.Form | None] = WeakKeyDictionary()  # of the models that were tried


def form(model: Any, alike: Callable[[Any, batch.Form], bool]) -> batch.Form | None:
    """How a model takes this module's masks, found out once; None where it cannot, or says other things."""
    if model not in _forms:
        _forms[model] = None
        kind = getattr(model.config, "_attn_implementation", None)
        if model.device.type != "cpu" or not attention.possible(model):
            return None
        model.set_attn_implementation(attention.NAME)
        for each in batch.forms(model):
            try:
                with torch.autocast(model.device.type, enabled=False):
                    same = alike(model, each)
                if same:
                    _forms[model] = each
                    return each
            except batch.UNABLE:
                continue
        model.set_attn_implementation(kind)
    if _forms[model] is not None and model.config._attn_implementation != attention.NAME:
        model.set_attn_implementation(attention.NAME)
    return _forms[model]


class RoomyLayer(DynamicLayer):
    """Keys and values with room at their end: joining tensors would copy all of them for every token."""

    room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[-2]
        if not held or self.keys is None or self.values is None:
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        if self.room is None or self.room[0].shape[-2] < end:
            self.room = self._widened(self.keys, end), self._widened(self.values, end)
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[..., held:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self.room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.room = None

    @staticmethod
    def _widened(held: Tensor, end: int) -> Tensor:
        size = end + max(LEAP, end // 4)
        wide = held.new_empty((*held.shape[:-2], size, held.shape[-1]))
        wide[..., : held.shape[-2], :] = held
        return wide


class OwnLayer(RoomyLayer):
    """What the rollouts of some prompts wrote; what the prompts say lies beside it, prompt by prompt."""

    def __init__(self, prompt: DynamicLayer, dtype: torch.dtype):
        super().__init__()
        assert prompt.keys is not None and prompt.values is not None
        # [prompts × heads, tokens, width]
        self.asked = prompt.keys.to(dtype).flatten(0, 1).contiguous()
        self.told = prompt.values.to(dtype).flatten(0, 1).contiguous()
        self.kept = dtype

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any):
        return super().update(key_states.to(self.kept), value_states.to(self.kept))


class Prefix:
    """Prompts that were read, and the rollouts that are being written behind them."""

    def __init__(self, model: Any, form: batch.Form, count: int, mask: Tensor, cache: DynamicCache):
        self.model, self.form = model, form
        self.layers = [OwnLayer(layer, model.dtype) for layer in cache.layers]  # type: ignore[arg-type]
        self.cache = DynamicCache()
        self.cache.layers = list(self.layers)
        self.lowest = torch.finfo(model.dtype).min
        self.there = mask.bool()  # [prompts, tokens]: which are no padding
        self.prompts, self.written = len(mask), 0
        self.owners = torch.arange(self.prompts).repeat_interleave(count)  # [rollouts]: whose they are
        self._arrange()

    def mask(self) -> Any:
        """What the model is given as its mask for the next token."""
        return self.form(self._carrier)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rollouts, in their order."""
        self.owners = self.owners[rows]
        if self.written:
            self.cache.reorder_cache(rows)  # type: ignore[arg-type]
        left, owners = self.owners.unique(return_inverse=True)
        if len(left) < self.prompts:
            self.owners, self.there = owners, self.there[left]
            for layer in self.layers:
                layer.asked, layer.told = (
                    each.view(self.prompts, -1, *each.shape[1:])[left].flatten(0, 1)
                    for each in (layer.asked, layer.told)
                )
            self.prompts = len(left)
        self._arrange()

    def _arrange(self) -> None:
        """Prompts with fewer rollouts than others get places that nobody holds: a product is square."""
        counts = self.owners.bincount(minlength=self.prompts)
        self.count = int(counts.max())
        self.places: Tensor | None = None  # [rollouts]: where they are among prompts × count
        self.rows: Tensor | None = None  # [prompts × count]: who is at a place, anybody where nobody is
        if int(counts.min()) < self.count:
            first = counts.cumsum(0) - counts
            nth = torch.arange(len(self.owners)) - first[self.owners]
            self.places = self.owners * self.count + nth
            self.rows = torch.zeros(self.prompts * self.count, dtype=torch.long)
            self.rows[self.places] = torch.arange(len(self.owners))

    def _carrier(self, window: int | None) -> Any:
        carrier: Any = torch.empty(1, 1, 1, 1)
        carrier.window, carrier.prefix, carrier.hidden = window, self, None
        seen = self.there
        if window is not None and (length := self.there.shape[1]) + self.written >= window:
            near = length + self.written - torch.arange(length) < window
            seen = seen & near
        if not bool(seen.all()):
            hidden = torch.zeros(seen.shape, dtype=self.model.dtype).masked_fill(~seen, self.lowest)
            carrier.hidden = hidden[:, None, None]  # [prompts, 1, 1, tokens]
        return carrier

    def attend(
        self, layer: int, carrier: Any, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        """One token of each rollout, [rollouts, heads, 1, width] → [rollouts, 1, heads, width].

        `key` and `value` are what the rollouts wrote, [rollouts, key heads, tokens, width].
        """
        own = self.layers[layer]
        rows, heads, _, width = query.shape
        few = key.shape[1]  # heads that keys have; several of a query's may share one
        if carrier.window is not None:
            key, value = key[:, :, -carrier.window :], value[:, :, -carrier.window :]
        with torch.autocast(query.device.type, enabled=False):
            asking = (query.to(key.dtype) * scale).view(rows * few, heads // few, width)
            at_own = torch.bmm(asking, key.flatten(0, 1).transpose(1, 2)).view(rows, heads, -1)
            at_prompt = torch.bmm(self._by_prompt(asking, few), own.asked.transpose(1, 2))
            length = at_prompt.shape[-1]
            if carrier.hidden is not None:
                of_each = at_prompt.view(self.prompts, few, -1, length)
                at_prompt = (of_each + carrier.hidden).flatten(0, 1)
            scores = torch.cat([self._by_rollout(at_prompt, few).reshape(rows, heads, length), at_own], -1)
            weights = torch.softmax(scores, -1).view(rows * few, heads // few, -1)
            found = torch.bmm(weights[..., length:], value.flatten(0, 1)).view(rows, 1, heads, width)
            of_prompt = torch.bmm(self._by_prompt(weights[..., :length], few), own.told)
            return found + self._by_rollout(of_prompt, few).reshape(rows, 1, heads, width)

    def _by_prompt(self, each: Tensor, few: int) -> Tensor:
        """[rollouts × key heads, sharing, n] → [prompts × key heads, count × sharing, n]"""
        sharing, size = each.shape[1:]
        each = each.reshape(-1, few, sharing, size)
        if self.rows is not None:
            each = each[self.rows]
        each = each.view(self.prompts, self.count, few, sharing, size).transpose(1, 2)
        return each.reshape(self.prompts * few, self.count * sharing, size)

    def _by_rollout(self, each: Tensor, few: int) -> Tensor:
        """[prompts × key heads, count × sharing, n] → [rollouts, key heads, sharing, n]"""
        size = each.shape[-1]
        each = each.reshape(self.prompts, few, self.count, -1, size).transpose(1, 2)
        each = each.reshape(self.prompts * self.count, few, -1, size)
        return each if self.places is None else each[self.places]
