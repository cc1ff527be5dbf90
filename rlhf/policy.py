"""What a policy, or its start, says of rollouts that were sampled: log-probabilities, entropies and the KL.

Tokens of all rollouts stand in one flat row, rollout after rollout, so that no number here knows of padding.
A prompt is read once for all its rollouts where that is less work and the model can take it, which is tried
and not assumed. Sampling is the matter of `rlhf.sample`, what is learnt that of `rlhf.algorithms`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf import adapters, attention, batch, memory, precision
from rlhf.batch import Example
from rlhf.sample import keeps_logits

ROUNDING = 1e-4  # by which two ways to compute the same log-probability may differ in fp32
UNMOVED = 1e-6  # and one way, where only what must not be seen has changed; both relative to the largest


@dataclass(frozen=True)
class Reading:
    """Each rollout token's log-probability and the entropy it was drawn from, both [tokens] in fp32."""

    log_probs: Tensor
    entropies: Tensor


@dataclass(frozen=True)
class _Places:
    """Rows of ids [rows, length]; and of every rollout token what it is and where it is foretold."""

    ids: Tensor
    positions: Tensor
    row: Tensor  # [tokens]
    column: Tensor  # [tokens]: of the token before, whose logits foretell it
    token: Tensor  # [tokens]


Way = Callable[[Sequence[Example]], Reading]


class Reader:
    """Reads rollouts with a causal language model, at the temperature they were sampled at."""

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0):
        self.model, self.temperature = model, temperature or 1.0
        self.keeps_logits = keeps_logits(model)
        self.precision = "fp32"
        self._way: Way | None = None
        self._settled = False

    def read(self, examples: Sequence[Example]) -> Reading:
        """One forward pass, with gradients where they are asked for; tokens example by example, in order."""
        if not self._settled and any(self.worth_sharing(each) for each in examples):
            self.settle(examples)
        way: Way = self._padded
        if self._way is not None and all(self.worth_sharing(each) for each in examples):
            way = self._way
        with precision.computing(self.model, self.precision):
            return way(examples)

    @torch.no_grad()
    def log_probs(self, examples: Sequence[Example], at_once: int) -> Tensor:
        """Every rollout token's log-probability, [tokens] in the order of the examples, without gradients."""
        count = sum(len(each.rollouts) for each in examples)
        found = [torch.empty(0)] * count
        for some, numbers in portions(examples, at_once):
            parts = self.read(some).log_probs.split([len(one) for each in some for one in each.rollouts])
            for number, part in zip(numbers, parts, strict=True):
                found[number] = part
        return torch.cat(found)

    @torch.no_grad()
    def settle(self, examples: Sequence[Example]) -> None:
        """Try shared rows on the longest of these examples, and keep them only if they change no number, and
        what one rollout says changes none of its siblings'."""
        longest = sorted(examples, key=lambda each: each.tokens)[-2:]
        words = self.model.config.get_text_config().vocab_size
        others = [batch.with_another_first(each, words) for each in longest]
        places = [place > 0 for each in longest for place, one in enumerate(each.rollouts) for _ in one]
        siblings = torch.tensor(places, device=self.model.device)
        expected = self._padded(longest).log_probs
        most = 1 + expected.abs().max()
        for way in self._ways():
            try:
                found, moved = way(longest).log_probs, way(others).log_probs
            except batch.UNABLE as error:
                if memory.ran_out(error):
                    raise
                continue
            same = (found - expected).abs().max() <= ROUNDING * most
            if bool(same and (found - moved)[siblings].abs().max() <= UNMOVED * most):
                self._way = way
                break
        self._settled = True

    def worth_sharing(self, example: Example) -> bool:
        """Whether one row for all is less work: the prompt is read once, but attention is quadratic."""
        prompt, rollouts = len(example.prompt), [len(each) for each in example.rollouts]
        each_token = 6 * self.model.config.get_text_config().hidden_size  # against one seen token's share
        apart = sum((prompt + length) * (each_token + prompt + length) for length in rollouts)
        return example.tokens * (each_token + example.tokens) < apart

    def _ways(self) -> Iterator[Way]:
        """The ways to share rows, the fastest first, each set up by the time it is given."""
        if attention.possible(self.model) and self.keeps_logits:
            self.model.set_attn_implementation(attention.NAME)  # which takes any mask as it did before
            for form in batch.forms(self.model):
                yield partial(self._packed, form=form)
        for form in batch.forms(self.model):
            yield partial(self._shared, form=form)

    def _packed(self, examples: Sequence[Example], form: batch.Form) -> Reading:
        row, device = batch.packed_row(examples), self.model.device
        attended_in = precision.attended_in(self.model)
        mask = form(lambda window: attention.layout(examples, attended_in, device, window))
        foretold, token, start = [], [], 0
        for example in examples:
            last, start = start + len(example.prompt) - 1, start + len(example.prompt)
            for rollout in example.rollouts:
                foretold += [last, *range(start, start + len(rollout) - 1)]
                token += rollout
                start += len(rollout)
        output = self.model(
            input_ids=row.ids.to(device),
            position_ids=row.positions.to(device),
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=self._tensor(foretold + foretold[-1:] * batch.spare(len(foretold))),
        )
        return token_log_probs(output.logits[0, : len(token)], self._tensor(token), self.temperature)

    def _shared(self, examples: Sequence[Example], form: batch.Form) -> Reading:
        rows = batch.shared_rows(examples, 0)
        rows = batch.SharedRows(*(each.to(self.model.device) for each in vars(rows).values()))
        row, column, token = [], [], []
        for number, example in enumerate(examples):
            start = len(example.prompt)
            for rollout in example.rollouts:
                row += [number] * len(rollout)
                column += [len(example.prompt) - 1, *range(start, start + len(rollout) - 1)]
                token += rollout
                start += len(rollout)
        places = _Places(rows.ids, rows.positions, *map(self._tensor, (row, column, token)))
        attended_in = precision.attended_in(self.model)
        mask = form(lambda window: batch.block_mask(rows, attended_in, window))
        return self._read(places, mask, min(len(each.prompt) for each in examples))

    def _padded(self, examples: Sequence[Example]) -> Reading:
        rows = batch.padded_rows(
            [Example(each.prompt, [one]) for each in examples for one in each.rollouts], 0
        )
        lengths = [(len(each.prompt), len(one)) for each in examples for one in each.rollouts]
        places = _Places(
            ids=rows.ids.to(self.model.device),
            positions=torch.arange(rows.ids.shape[1], device=self.model.device).expand(rows.ids.shape),
            row=self._tensor([number for number, (_, length) in enumerate(lengths) for _ in range(length)]),
            column=self._tensor(
                [prompt - 1 + place for prompt, length in lengths for place in range(length)]
            ),
            token=self._tensor([token for each in examples for one in each.rollouts for token in one]),
        )
        # Padding stands on the right, where no earlier token looks: the plain causal mask is all it takes.
        return self._read(places, None, min(prompt for prompt, _ in lengths))

    def _read(self, places: _Places, mask: object, shortest_prompt: int) -> Reading:
        skipped = shortest_prompt - 1  # positions of which no logits are asked for
        keep = {"logits_to_keep": places.ids.shape[1] - skipped} if self.keeps_logits else {}
        output = self.model(
            input_ids=places.ids, attention_mask=mask, position_ids=places.positions, use_cache=False, **keep
        )
        column = places.column - skipped if keep else places.column
        return token_log_probs(output.logits[places.row, column], places.token, self.temperature)

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.model.device)


class Start(Reader):
    """Reads as the policy was at first: a model of its own, or the trained one with its adapters off."""

    def log_probs(self, examples: Sequence[Example], at_once: int) -> Tensor:
        with adapters.off(self.model):
            return super().log_probs(examples, at_once)


def portions(
    examples: Sequence[Example], at_once: int, wanted: Sequence[bool] | None = None
) -> Iterator[tuple[list[Example], list[int]]]:
    """The examples in portions of at most so many rollouts, and whose rollouts these are of all, in order.

    Examples of similar length go together; one of too many rollouts is taken in pieces. `wanted` says of each
    rollout whether it is to be in any portion.
    """
    pieces, numbers, before = [], [], 0
    for each in examples:
        own = range(before, before + len(each.rollouts))
        kept = [number for number in own if wanted is None or wanted[number]]
        for start in range(0, len(kept), at_once):
            some = kept[start : start + at_once]
            pieces.append(Example(each.prompt, [each.rollouts[number - before] for number in some]))
            numbers.append(some)
        before += len(each.rollouts)
    most = max((len(each.rollouts) for each in pieces), default=1)
    for portion in batch.portions(pieces, max(1, at_once // most)):
        yield [pieces[place] for place in portion], [each for place in portion for each in numbers[place]]


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Reading:
    """Logits [tokens, vocabulary] and what followed [tokens] → log-probabilities and entropies, [tokens].

    Everything is divided by the temperature that the tokens were drawn at, and summed in fp32.
    """
    logits = logits.float() / temperature
    totals = logits.logsumexp(-1)
    with torch.no_grad():
        entropies = totals - ((logits - totals[:, None]).exp() * logits).sum(-1)
    return Reading(logits.gather(-1, tokens[:, None])[:, 0] - totals, entropies)


def per_rollout(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """The sum over each rollout's tokens: values [tokens] and the rollouts' lengths → [rollouts]."""
    owners = torch.repeat_interleave(torch.tensor(lengths, device=values.device))
    return torch.zeros(len(lengths), device=values.device).index_add_(0, owners, values)


def kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """k1, the sampled KL to the start: log π − log π_ref of each token [tokens], never with a gradient.

    Positive where the policy is surer of what it wrote than its start would be; its expectation is the KL.
    """
    return (log_probs - reference).detach()
