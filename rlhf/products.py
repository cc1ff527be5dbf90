"""The matrix products of linear layers on a processor, in fp32, by whichever library is faster there.

PyTorch multiplies fp32 matrices with MKL, which uses half the width of processors that are not Intel's.
oneDNN, which PyTorch brings along, uses all of it: 250 instead of 105 GFLOP/s on one core of an EPYC. The
numbers are those of fp32 either way. Who is faster follows from the processor alone and is not timed, so that
a resumed run computes the same bits. Leaves out half precision, where oneDNN does the work already.
"""

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WORTH_IT = 2**14  # weights below which a layer is left as it is
PACKED = 2**27  # weights up to which a model is copied in oneDNN's own order while it writes
ROUNDING = 1e-4  # by which two fp32 products of numbers around 1 may differ


class Linear(nn.Linear):
    """A linear layer that multiplies with oneDNN in fp32; anything else it leaves to PyTorch."""

    packed: Tensor | None = None  # its weights in oneDNN's order, for as long as nobody changes them

    def forward(self, input: Tensor) -> Tensor:
        if (
            input.dtype != torch.float32
            or self.weight.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
        ):
            return functional.linear(input, self.weight, self.bias)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            return _Product.apply(input, self.weight, self.bias)
        return _product(input, self.weight if self.packed is None else self.packed, self.bias)


class _Product(torch.autograd.Function):
    """input [..., in] × weight [out, in] + bias → [..., out]."""

    @staticmethod
    def forward(context: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = context.saved_tensors
        wanted = context.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_input = _product(gradient, weight.t()) if wanted[0] else None
        to_weight = _product(rows.t(), input.reshape(-1, input.shape[-1]).t()) if wanted[1] else None
        to_bias = rows.sum(0) if wanted[2] else None
        return to_input, to_weight, to_bias


def speed_up(model: Any) -> Any:
    """The model, its linear layers multiplied by the faster library where this processor has one."""
    if model.device.type == "cpu" and oneDNN_is_faster():
        for layer in model.modules():
            if type(layer) is nn.Linear and layer.weight.numel() >= WORTH_IT:
                layer.__class__ = Linear
    return model


@contextlib.contextmanager
def unchanging(model: Any) -> Iterator[None]:
    """While the weights stay as they are: layers of small models multiply with a copy in oneDNN's order."""
    layers = [each for each in model.modules() if isinstance(each, Linear)]
    if sum(each.weight.numel() for each in layers) > PACKED or torch.is_autocast_enabled("cpu"):
        layers = []
    try:
        for each in layers:
            each.packed = torch.ops.mkldnn._reorder_linear_weight(each.weight.detach())
        yield
    finally:
        for each in layers:
            each.packed = None


@cache
def oneDNN_is_faster() -> bool:
    """Whether MKL leaves half of this processor idle, and oneDNN computes the same."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or "GenuineIntel" in _processor():
        return False
    random = torch.Generator().manual_seed(0)
    input, weight = (torch.randn(64, 128, generator=random) for _ in range(2))
    try:
        found = _product(input, weight), _product(input, weight.t().contiguous().t())
    except (
        AttributeError,
        RuntimeError,
        TypeError,
    ):  # a PyTorch that is built without it, or calls it otherwise
        return False
    return all(torch.allclose(each, input @ weight.t(), atol=ROUNDING) for each in found)


def _product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
