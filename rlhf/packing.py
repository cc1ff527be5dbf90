"""What a policy pays for texts: the loss of every learnt token, many texts packed in one row.

Each text sees itself alone, and its positions begin anew: the numbers of separate rows, without their
padding. Which way of packing a model can take is tried on real texts against each in a row of its own; where
none gives the same, texts are padded. Which tokens are learnt is the matter of `rlhf.texts`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlhf import attention, batch, memory, precision
from rlhf.batch import SharedRows
from rlhf.sample import keeps_logits
from rlhf.texts import Text

ROUNDING = 1e-4  # by which two ways to compute the same loss may differ in fp32
UNMOVED = 1e-6  # and one way, where only what must not be seen has changed; both relative to the largest

Way = Callable[[Sequence[Text]], Tensor]


class Packing:
    """Reads texts with a causal language model; `layout` says how, once that has been tried."""

    def __init__(self, model: Any):
        self.model = model
        self.layout, self.precision = "", "fp32"
        self.keeps_logits = keeps_logits(model)
        self._way: Way = self._padded

    def losses(self, texts: Sequence[Text]) -> Tensor:
        """The negative log-probability of every learnt token, text by text: [tokens], fp32, with gradients,
        computed in `precision`."""
        if not self.layout:
            self.settle(texts)
        with precision.computing(self.model, self.precision):
            return self._way(texts)

    @torch.no_grad()
    def mean_loss(self, texts: Sequence[Text], at_once: int, tokens: int) -> float | None:
        """That of a learnt token of all these texts, in fp32; None where there is none."""
        if texts and not self.layout:
            self.settle(texts)
        found = [self._way([texts[n] for n in some]).cpu() for some in batch.portions(texts, at_once, tokens)]
        return float(torch.cat(found).double().mean()) if found else None

    @torch.no_grad()
    def settle(self, texts: Sequence[Text]) -> None:
        """Try to pack a long, a middling and a short one, and keep the first way that changes no loss, and in
        which what the first says changes none of the others'."""
        order = sorted(texts, key=lambda each: each.tokens)
        tried = [order[-1], order[len(order) // 2], order[0]]
        others = [self._another(tried[0]), *tried[1:]]
        expected = torch.cat([self._padded([each]) for each in tried])
        most, behind = 1 + expected.abs().max(), len(tried[0].learnt)
        kind = self.model.config._attn_implementation
        for layout, way in self._ways():
            try:
                found, moved = way(tried), way(others)
            except batch.UNABLE as error:
                if memory.ran_out(error):
                    raise
                continue
            same = (found - expected).abs().max() <= ROUNDING * most
            if bool(same and (found - moved)[behind:].abs().max() <= UNMOVED * most):
                self.layout, self._way = layout, way
                return
        if self.model.config._attn_implementation != kind:
            self.model.set_attn_implementation(kind)
        self.layout, self._way = "one padded row per text", self._padded

    def choose_precision(self, wanted: str, texts: Sequence[Text]) -> None:
        """What training computes in; "auto" is tried and timed on a row of middling texts."""
        order = sorted(texts, key=lambda each: each.tokens)
        middle = len(order) // 2
        self.precision = precision.timed(wanted, self.model, lambda: self._way(order[middle : middle + 4]))

    def _ways(self) -> Iterator[tuple[str, Way]]:
        """The ways to pack, the fastest first, each set up by the time it is given."""
        forms = batch.forms(self.model)
        if attention.possible(self.model):
            kind = self.model.config._attn_implementation
            self.model.set_attn_implementation(attention.NAME)  # which takes any mask as it did before
            for form in forms:
                yield "texts packed in one row", partial(self._packed, mask=form, dense=False)
            self.model.set_attn_implementation(kind)
        for form in forms:
            yield "texts packed in one row by a mask", partial(self._packed, mask=form, dense=True)

    def _another(self, text: Text) -> Text:
        """One of other tokens in the same places."""
        words = self.model.config.get_text_config().vocab_size
        return Text([(token + 1) % words for token in text.ids], text.learnt)

    def _packed(self, texts: Sequence[Text], mask: batch.Form, dense: bool) -> Tensor:
        more = batch.spare(sum(each.tokens for each in texts))
        texts = [*texts, *([Text([0] * more, [])] if more else [])]
        row = _row(texts)
        row = SharedRows(*(each.to(self.model.device) for each in vars(row).values()))
        lengths, attended_in = [each.tokens for each in texts], precision.attended_in(self.model)

        def of(window: int | None) -> Tensor:
            if dense:
                return batch.block_mask(row, attended_in, window)
            return attention.alone(lengths, row.ids.device, window)

        starts = accumulate(lengths, initial=0)
        begun = zip(texts, starts, strict=False)
        places = [start + place for each, start in begun for place in each.learnt]
        learnt = self._tensor(places + [places[-1]] * batch.spare(len(places)))
        keep = {"logits_to_keep": learnt - 1} if self.keeps_logits else {}
        logits = self.model(
            input_ids=row.ids, position_ids=row.positions, attention_mask=mask(of), use_cache=False, **keep
        ).logits[0]
        return _surprise(logits if keep else logits[learnt - 1], row.ids[0, learnt])[: len(places)]

    def _padded(self, texts: Sequence[Text]) -> Tensor:
        longest = max(each.tokens for each in texts)
        ids = self._tensor([each.ids + [0] * (longest - each.tokens) for each in texts])
        there = torch.arange(longest, device=ids.device) < self._tensor([[each.tokens] for each in texts])
        rows = self._tensor([number for number, each in enumerate(texts) for _ in each.learnt])
        places = self._tensor([place for each in texts for place in each.learnt])
        logits = self.model(input_ids=ids, attention_mask=there.long(), use_cache=False).logits
        return _surprise(logits[rows, places - 1], ids[rows, places])

    def _tensor(self, numbers: list[Any]) -> Tensor:
        return torch.tensor(numbers, device=self.model.device)


def _row(texts: Sequence[Text]) -> SharedRows:
    """The texts behind each other, none of them a prompt that others see; positions begin anew in each."""
    ids = [token for each in texts for token in each.ids]
    positions = [place for each in texts for place in range(each.tokens)]
    segments = [number for number, each in enumerate(texts, start=1) for _ in each.ids]
    ends = [end - 1 for end in accumulate(each.tokens for each in texts)]
    return SharedRows(*(torch.tensor([each]) for each in (ids, positions, segments, ends)))


def _surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits.float(), tokens, reduction="none")
