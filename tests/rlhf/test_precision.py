"""Whether a policy run computes in half precision, and that it then says nearly the same."""

import pytest
import torch

from rlhf import policy, precision
from rlhf.batch import Example
from rlhf.policy import Reader
from tests.rlhf import tiny

EXAMPLES = [
    Example([2, 70, 71, 3], [[80, 81, 82, 4], [90, 91, 4]]),
    Example([2, 5], [[60, 61], [62, 63, 64]]),
]


@pytest.fixture
def able(monkeypatch):
    """A machine that multiplies bf16, and models of any size worth it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_in_half_precision_every_token_is_nearly_as_likely(kind):
    reader = Reader(tiny.model(kind))
    exact = reader.read(EXAMPLES).log_probs
    reader.precision = "bf16"
    found = reader.read(EXAMPLES).log_probs
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert float((found - exact).detach().abs().max()) < 2 * precision.AT_MOST
    found.sum().backward()
    assert all(
        each.grad.dtype == torch.float32 for each in reader.model.parameters() if each.grad is not None
    )


@pytest.mark.usefixtures("able")
def test_auto_is_half_precision_where_little_changes_and_full_where_much_does(monkeypatch):
    reader = Reader(tiny.model())
    assert precision.chosen("auto", reader, EXAMPLES) == "bf16"
    monkeypatch.setattr(precision, "AT_MOST", 1e-6)
    assert precision.chosen("auto", reader, EXAMPLES) == "fp32"


def test_auto_is_full_precision_on_small_models_and_on_machines_without_half(monkeypatch):
    reader = Reader(tiny.model())
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert precision.chosen("auto", reader, EXAMPLES) == "fp32"
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert precision.chosen("auto", reader, EXAMPLES) == "fp32"


def test_what_is_asked_for_is_not_tried():
    assert precision.chosen("bf16", None, []) == "bf16" and precision.chosen("fp32", None, []) == "fp32"


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3_text", "gpt2"])
def test_packed_rows_without_padding_are_what_is_read_where_a_model_can_take_them(kind):
    reader = Reader(tiny.model(kind))
    reader.worth_sharing = lambda example: True
    reader.read(EXAMPLES)
    assert reader._way is not None and reader._way.func.__func__ is policy.Reader._packed
