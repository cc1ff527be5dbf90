"""Half precision: whether a run computes in it, and computing in it.

Weights, sums over vocabularies and what is learnt stay in fp32; the products inside are bf16's, on machines
that have them. Policy runs ask whether a machine has them and try what they change on what the start itself
writes. Runs that learn from what people wrote or ranked time them, and keep what they found in their
checkpoints, so that a resumed one computes the same.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.batch import Example

WEIGHTS_WORTH_IT = 1_000_000  # below, converting takes as long as is gained
AT_MOST = 0.01  # nats by which the log-probabilities of tokens may change, root mean square
ROUNDED = 0.1  # by which a number may change that is only learnt from, relative to the largest
FASTER = 1.15  # what half precision must gain on a processor to be worth its rounding
TRYING_SECONDS = 0.25  # for either precision, after its first pass


def chosen(wanted: str, reader: Any, examples: Sequence[Example]) -> str:
    """fp32 or bf16, as it is wanted; "auto" is bf16 where the machine is faster with it and `reader`, a
    `rlhf.policy.Reader` of the start, says nearly the same of these examples."""
    if wanted != "auto":
        return wanted
    if not promising(reader.model) or not examples:
        return "fp32"
    found = {}
    for reader.precision in ("bf16", "fp32"):
        with torch.no_grad():
            found[reader.precision] = reader.read(examples).log_probs
    # Not the largest difference: that grows with the number of tokens that one looks at.
    apart = (found["bf16"] - found["fp32"]).square().mean().sqrt()
    return "bf16" if bool(apart <= AT_MOST) else "fp32"


def timed(wanted: str, model: Any, compute: Callable[[], Tensor]) -> str:
    """fp32 or bf16, as it is wanted; "auto" is bf16 where a card has it, or where a processor is faster with
    it at `compute`, a pass forward whose numbers it may only round."""
    if wanted != "auto":
        return wanted
    device = model.device.type
    if device == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = device == "cpu" and sum(each.numel() for each in model.parameters()) > WEIGHTS_WORTH_IT
    if not able or model.dtype != torch.float32:
        return "fp32"
    (exact, slow), (half, fast) = (tried(model, each, compute) for each in ("fp32", "bf16"))
    same = bool((half - exact).abs().max() <= ROUNDED * (1 + exact.abs().max()))
    return "bf16" if same and (device == "cuda" or slow > FASTER * fast) else "fp32"


def tried(model: Any, precision: str, compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The numbers, and the processor's time for one pass forward and back, the best of those that fit a short
    while."""
    best, ends = float("inf"), time.perf_counter() + TRYING_SECONDS
    while True:
        began = time.process_time()  # others may be at work on this machine
        with computing(model, precision):
            found = compute()
        found.sum().backward()
        best = min(best, time.process_time() - began)
        model.zero_grad(set_to_none=True)
        if time.perf_counter() > ends:
            return found.detach(), best


def promising(model: Any) -> bool:
    """Whether the machine multiplies bf16 faster than fp32, and the model is large enough to gain from it."""
    if model.dtype != torch.float32 or sum(each.numel() for each in model.parameters()) < WEIGHTS_WORTH_IT:
        return False
    if model.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return model.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def computing(model: Any, precision: str) -> torch.autocast:
    """A context in which products are of this precision."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")


def attended_in(model: Any) -> torch.dtype:
    """What attention computes in, here and now."""
    device = model.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
