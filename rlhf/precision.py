"""Half precision for policies: whether a run computes in it, and computing in it.

Weights, sums over vocabularies and what is learnt stay in fp32; the products inside are bf16's, on machines
that have them. Whether a machine has them is asked and not timed, and what they change is tried on what the
start itself writes, so that a resumed run finds the same. Reward models choose theirs in `rlhf.reward_model`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from rlhf.batch import Example

WEIGHTS_WORTH_IT = 1_000_000  # below, converting takes as long as is gained
AT_MOST = 0.02  # nats by which the log-probability of a token may change


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
    apart = (found["bf16"] - found["fp32"]).abs().max()
    return "bf16" if bool(apart <= AT_MOST) else "fp32"


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
