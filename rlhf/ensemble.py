"""Several heads on one backbone: each with its own start and its own sample of the prompts, so that they part
where the rankings leave room to.

One checkpoint holds them all: the model's own head is their mean, which plain transformers opens, and the
heads themselves lie beside it. What their rewards are put together to is the matter of `rlhf.reward_model`,
who learns from which prompts that of `rlhf.weights`.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "heads.safetensors"


class Heads(torch.nn.Module):
    """In the place of a model's one head: [..., width] in, [..., members] out."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)  # [members, width]

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.nn.functional.linear(hidden, self.weight)


def add(model: Any, start: Path, members: int, seed: int) -> None:
    """Give a model so many heads: those of its start where that has as many, else each drawn anew."""
    restore(model, start)
    if count(model) == members:
        return
    width = model.score.weight.shape[1]
    each = [torch.Generator().manual_seed(seed * 4096 + member) for member in range(1, members + 1)]
    # Of this spread rewards are of about unit size, so that no ranking starts out sure.
    drawn = torch.stack([torch.randn(width, generator=its) for its in each]) / (width + 1) ** 0.5
    model.score = Heads(drawn.to(model.score.weight))


def restore(model: Any, path: str | Path) -> None:
    """Give a model the heads that its checkpoint has; nothing where it is no ensemble."""
    file = Path(path) / FILE
    if file.is_file():
        model.score = Heads(load_file(file)["weight"].to(model.score.weight))


def count(model: Any) -> int:
    """How many heads a model has."""
    return model.score.weight.shape[0] if isinstance(getattr(model, "score", None), Heads) else 1


def save(model: Any, folder: Path) -> None:
    """Write the heads beside the model; nothing where it is no ensemble."""
    if count(model) > 1:
        weight = model.score.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / FILE, metadata={"format": "pt"})


def with_mean_head(model: Any, weights: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """The weights to be saved (None: the model's own), with the mean in the place of several heads."""
    if count(model) == 1:
        return weights
    known = model.state_dict() if weights is None else weights
    return known | {"score.weight": model.score.weight.detach().mean(0, keepdim=True)}
