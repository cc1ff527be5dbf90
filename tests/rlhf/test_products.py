"""Linear layers on a processor: the same numbers and gradients from either library."""

import copy

import pytest
import torch
from torch import nn

from rlhf import products
from tests.rlhf import tiny

able = pytest.mark.parametrize("shape", [(7, 192), (2, 3, 192), (1, 192)])


@pytest.fixture(autouse=True)
def wanted(monkeypatch):
    """On any processor, so that what is tested does not depend on whose it is."""
    monkeypatch.setattr(products, "oneDNN_is_faster", lambda: True)


def layers(bias: bool) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(192, 160, bias=bias)
    fast = copy.deepcopy(plain)
    fast.__class__ = products.Linear
    return plain, fast


@able
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_the_other_library(shape, bias):
    plain, fast = layers(bias)
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    inputs[1].copy_(inputs[0])
    outputs = [layer(each.requires_grad_()) for layer, each in zip((plain, fast), inputs, strict=True)]
    assert torch.allclose(*outputs, atol=1e-5)
    assert type(outputs[1].grad_fn).__name__ == "_ProductBackward"
    for each in outputs:
        (each.square().sum() / 100).backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_frozen_weights_pass_the_gradient_on_and_get_none():
    _, fast = layers(True)
    fast.requires_grad_(False)
    given = torch.randn(4, 192, requires_grad=True)
    fast(given).sum().backward()
    assert fast.weight.grad is None and fast.bias.grad is None
    assert torch.allclose(given.grad, fast.weight.sum(0).expand(4, -1), atol=1e-5)


def test_while_weights_do_not_change_a_copy_is_multiplied_and_then_forgotten():
    plain, fast = layers(True)
    given = torch.randn(5, 192)
    with torch.no_grad():
        with products.unchanging(nn.ModuleList([fast])):
            assert fast.packed is not None
            assert torch.allclose(fast(given), plain(given), atol=1e-5)
        assert fast.packed is None
        fast.weight.zero_()
        assert torch.equal(fast(given), fast.bias.expand(5, -1))


def test_half_precision_is_left_to_pytorch():
    plain, fast = layers(True)
    given = torch.randn(5, 192)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(given), plain(given)) and fast(given).dtype == torch.bfloat16


def test_a_whole_model_says_the_same_and_is_saved_the_same(tmp_path):
    model = tiny.model("llama", hidden_size=128, intermediate_size=256)
    ids = torch.tensor([[5, 6, 7, 8]])
    before, names = model(ids).logits, list(model.state_dict())
    products.speed_up(model)
    fast = [each for each in model.modules() if type(each) is products.Linear]
    assert len(fast) == 11  # five of a layer that are wide enough, and the head
    assert torch.allclose(model(ids).logits, before, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert list(model.state_dict()) == names
    assert torch.allclose(type(model).from_pretrained(tmp_path)(ids).logits, before, atol=1e-5)


def test_a_processor_of_intel_is_left_to_its_own_library(monkeypatch):
    monkeypatch.undo()
    products.oneDNN_is_faster.cache_clear()
    monkeypatch.setattr(products, "_processor", lambda: "vendor_id : GenuineIntel")
    assert not products.oneDNN_is_faster()
    products.oneDNN_is_faster.cache_clear()


def test_a_library_that_computes_other_numbers_is_not_used(monkeypatch):
    monkeypatch.undo()
    products.oneDNN_is_faster.cache_clear()
    monkeypatch.setattr(products, "_processor", lambda: "vendor_id : AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    exact = products._product
    monkeypatch.setattr(products, "_product", lambda *given: exact(*given) * 1.001)
    assert not products.oneDNN_is_faster()
    products.oneDNN_is_faster.cache_clear()
