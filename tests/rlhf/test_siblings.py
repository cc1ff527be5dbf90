"""Attention in three parts, against one plain pass for each rollout."""

import pytest
import torch

from rlhf import attention, batch, siblings
from rlhf.batch import Example
from tests.rlhf import tiny

MODELS = ("llama", "qwen3", "mistral", "gemma3_text", "gpt2")
RAGGED = [
    Example(list(range(5, 25)), [[50 + place] * length for place, length in enumerate((9, 12, 4, 12, 7))]),
    Example([7, 8, 9], [[90 + place, 91, 92, 93, 94, 95, 96, 97] for place in range(4)]),
    Example(list(range(30, 41)), [[120 + place] * 10 for place in range(5)]),
]


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(siblings, "PAYS", 100)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("window", [2, 6, 13, 100])
def test_logits_and_gradients_are_those_of_one_pass_for_each_rollout(kind, window):
    changes = {"sliding_window": window} if kind in ("mistral", "gemma3_text") else {}
    model = tiny.model(kind, **changes)
    assert siblings.parts(RAGGED, torch.float32, torch.device("cpu"), None) is not None
    expected = [
        model(torch.tensor([each.prompt + one])).logits[0, -len(one) :]
        for each in RAGGED
        for one in each.rollouts
    ]
    torch.cat(expected).square().mean().backward()
    gradients = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()

    model.set_attn_implementation(attention.NAME)
    row = batch.packed_row(RAGGED)
    for form in batch.forms(model):
        mask = form(lambda window: attention.layout(RAGGED, torch.float32, torch.device("cpu"), window))
        logits = model(input_ids=row.ids, position_ids=row.positions, attention_mask=mask, use_cache=False)
        break
    written = torch.cat(
        [torch.tensor([0] * len(e.prompt) + [1] * (e.tokens - len(e.prompt))) for e in RAGGED]
    )
    found = logits.logits[0, : len(written)][written.bool()]
    assert torch.allclose(found, torch.cat(expected), atol=2e-5)
    found.square().mean().backward()
    for one, other in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(one.grad, other, atol=2e-5 * (1 + float(other.abs().max())))


def test_rollouts_of_about_one_length_are_computed_in_three():
    usual = [
        Example([5] * (10 + number), [[6] * (20 + number + each) for each in range(8)]) for number in range(4)
    ]
    assert siblings.parts(usual, torch.float32, torch.device("cpu"), None) is not None


def test_a_rollout_far_longer_than_its_siblings_is_left_to_two_parts():
    ragged = [Example([5] * 10, [[6] * 200, *[[7] * 3] * 7])]
    assert siblings.parts(ragged, torch.float32, torch.device("cpu"), None) is None


@pytest.mark.usefixtures("always")
def test_what_would_hold_too_many_scores_is_left_to_two_parts(monkeypatch):
    assert siblings.parts(RAGGED, torch.float32, torch.device("cpu"), None) is not None
    monkeypatch.setattr(siblings, "AT_MOST", 1000)
    assert siblings.parts(RAGGED, torch.float32, torch.device("cpu"), None) is None


@pytest.mark.usefixtures("always")
def test_siblings_do_not_see_each_other_and_padding_sees_nothing():
    of = siblings.parts(RAGGED, torch.float32, torch.device("cpu"), None)
    assert of is not None and not of.whole
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 2, sum(e.tokens for e in RAGGED), 4, generator=random) for _ in range(3)
    )
    before = siblings.in_three_parts(of, query, key, value, 0.5)
    key[:, :, 20:29], value[:, :, 20:29] = 9.0, 9.0  # the first rollout of the first prompt
    after = siblings.in_three_parts(of, query, key, value, 0.5)
    changed = (before != after).flatten(2).any(-1)[0]
    assert changed[20:29].all() and not changed[:20].any() and not changed[29:].any()
