"""Training few weights instead of all: LoRA by peft inside a model, and saving memory by computing twice.

The model stays the class it was, so that rows, rewards and gradients are computed as without. What a
checkpoint holds is merged and opens plainly; the adapters themselves travel in `trainer/`, and a resumed run
puts them on its starting weights again, because what was merged cannot be taken apart to the bit.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

NAME = "default"
PREFIX = "trained."  # of their weights among a trainer's tensors


def add(model: Any, rank: int) -> None:
    """Freeze a model and adapt every linear layer of its backbone; a reward model's head is trained whole."""
    import peft  # only where it is asked for

    head = ["score"] if hasattr(model, "score") else None
    settings = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", exclude_modules=head, bias="none"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # it finds out by itself what GPT-2 needs
        peft.inject_adapter_in_model(settings, model, adapter_name=NAME)
    if head:
        model.score.requires_grad_(True)


@contextlib.contextmanager
def off(model: Any) -> Iterator[None]:
    """The model as it was before `add`, for a while; any other model as it is."""
    layers = list(_layers(model).values())
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(model: Any) -> dict[str, Tensor] | None:
    """The weights as a model without adapters would hold them, None where it has none."""
    layers = _layers(model)
    if not layers:
        return None
    found = {}
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if ".lora_" in name:
                continue
            owner, inner, last = name.rpartition(".base_layer.")
            if inner and last == "weight":
                weight = weight + layers[owner].get_delta_weight(NAME)
            found[f"{owner}.{last}" if inner else name] = weight
    return found


def state(model: Any) -> dict[str, Tensor]:
    """What `restore` needs beside the starting weights; empty for a model without adapters."""
    if not _layers(model):
        return {}
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return {PREFIX + name: weight.detach().cpu().clone() for name, weight in trained}


@torch.no_grad()
def restore(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state` gave, into a model that `add` was called on."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.copy_(tensors[PREFIX + name])


def compute_twice(model: Any) -> None:
    """Keep only what enters each layer, and compute its inside again on the way back.

    transformers does so only in training, where dropout would be on. So the layers alone, not what is in
    them, are set to training, and what they themselves would drop is nothing.
    """
    model.activation_checkpointing_enable({"use_reentrant": False})
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
            for name, value in vars(layer).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(layer, name, 0.0)


def _layers(model: Any) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
