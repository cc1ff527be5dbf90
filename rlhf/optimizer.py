"""The optimizer that the trainers share: AdamW in fp32, a warmed-up cosine, clipped gradients, a saved state.

Losses and data are the trainers' own. The rate follows from the step alone, so resuming restores no schedule.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhf.config import PolicyConfig

FLOOR = 0.1  # of the peak rate, at the end of a cosine


def rate(step: int, total: int, peak: float, warmup: int) -> float:
    """The learning rate of a step (1 … total): a straight rise over `warmup` steps, then half a cosine."""
    if step <= warmup:
        return peak * step / (warmup + 1)
    done = (step - warmup - 1) / max(1, total - warmup - 1)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def rate_in_line(step: int, config: PolicyConfig) -> float:
    """The learning rate of a policy's step (1 … steps): a straight rise over the warm-up, while the peak
    falls in a line from the first step to the last, to the share of it that is asked for."""
    fallen = (1 - config.final_rate) * (step - 1) / max(1, config.steps - 1)
    return config.learning_rate * (1 - fallen) * min(1.0, step / (config.warmup + 1))


class Optimizer:
    """AdamW over every trainable weight of a model; vectors (norms, biases) are not decayed."""

    def __init__(self, model: Any, weight_decay: float, clip: float):
        self.names = {weight: name for name, weight in model.named_parameters() if weight.requires_grad}
        matrices = [weight for weight in self.names if weight.ndim > 1]
        vectors = [weight for weight in self.names if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            groups, lr=0.0, betas=(0.9, 0.95), fused=next(iter(self.names)).device.type != "mps"
        )
        self.clip = clip

    def step(self, learning_rate: float) -> float:
        """Apply the gathered gradients and forget them; returns their norm before it was clipped.

        A norm that is no finite number is returned too, but nothing is applied: the weights stay good.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.names), self.clip))
        if math.isfinite(norm):
            for group in self.adam.param_groups:
                group["lr"] = learning_rate
            self.adam.step()
        self.forget()
        return norm

    def forget(self) -> None:
        """Forget the gradients that were gathered."""
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Adam's moments by the names of their weights, as tensors that safetensors can hold."""
        return {
            f"adam.{self.names[weight]}.{key}": value.detach().cpu().clone()
            for weight, moments in self.adam.state.items()
            for key, value in moments.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for weight, name in self.names.items():
            prefix = f"adam.{name}."
            moments = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                self.adam.state[weight] = {key: value.to(weight.device) for key, value in moments.items()}
