"""Several processes for one run, as torchrun starts them: each computes its share of a batch, their
gradients are summed before every step, and the first one alone decides, measures and writes.

Runs that train take them all; of the other kinds of run the first process does everything. Which
machine they run on and how they find each other is torchrun's business; starting them is the matter of
`rlhf.launch`.
"""

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlhf.run import Failed, Resumed, RunDirectory

KINDS = ("sft", "reward", "policy")  # of runs that take more than one process
WAITING = datetime.timedelta(days=1)  # for the first to measure; if it dies, torchrun ends the others

Value = TypeVar("Value")


def rank() -> int:
    """Which of them this one is; the first is 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def directory(path: str | Path, kind: type[RunDirectory] = RunDirectory, *more: Any) -> RunDirectory:
    """The run directory, of that kind, as this process may use it."""
    if count() == 1:
        return kind(path, *more)
    role = Followed if rank() else Led
    mixed: type[RunDirectory] = type(role.__name__, (role, kind), {})
    return mixed(path, *more)


def join(device: Any) -> None:
    """Meet the others, where there are any that are not met yet."""
    if count() == 1 or _together():
        return
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=WAITING)


def leave() -> None:
    """Part from the others."""
    if _together():
        import torch

        torch.distributed.destroy_process_group()


def share(portions: Sequence[Value]) -> Sequence[Value]:
    """Those of a batch's portions that this process computes."""
    return portions[rank() :: count()] if _together() else portions


def portion(size: int, examples: int) -> int:
    """How many examples a portion may have at the most, so that there is one for every process."""
    return min(size, -(-examples // count())) if _together() else size


def agree(value: Value) -> Value:
    """What the first process says."""
    if not _together():
        return value
    import torch

    told = [value]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def everyones(value: Value) -> list[Value]:
    """What each of them says, the first one first."""
    if not _together():
        return [value]
    import torch

    found: list[Any] = [None] * count()
    torch.distributed.all_gather_object(found, value)
    return found


def gathered(values: dict[int, float]) -> dict[int, float]:
    """What all of them found."""
    return {key: value for each in everyones(values) for key, value in each.items()}


def sum_gradients(weights: Iterable[Any], loss: float) -> float:
    """Sum the gradients that each process has, of a loss over the whole batch, and that loss, at one go."""
    if not _together():
        return loss
    import torch

    trained = list(weights)
    flat = torch.cat(
        [
            *(torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in trained),
            torch.tensor([loss], device=trained[0].device),
        ]
    )
    torch.distributed.all_reduce(flat)
    begin = 0
    for each in trained:
        each.grad = flat[begin : begin + each.numel()].view_as(each).clone()
        begin += each.numel()
    return float(flat[-1])


def _together() -> bool:
    if count() == 1:
        return False
    import torch

    return torch.distributed.is_initialized()


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """What fails in here at the first process fails at all of them."""
    try:
        yield
    except Failed as failed:
        agree(failed)
        raise
    agree(None)


def _hear() -> None:
    failed = agree(None)
    if failed is not None:
        raise failed


class Led(RunDirectory):
    """The run directory of the first process, which tells the others where to begin and when to end."""

    def input(self, given: str) -> Path:
        found = super().input(given)
        return agree(found) if given.startswith("hub:") else found  # the others wait for it

    def checkpoint_due(self, step: int, every: int) -> bool:
        due = super().checkpoint_due(step, every)
        agree((due, self.ending))
        return due

    def resume(self) -> Resumed | None:
        with _telling():
            found = super().resume()
        agree(found.step if found else None)
        return found

    def step(self, step: int, **metrics: Any) -> None:
        with _telling():
            super().step(step, **metrics)


class Followed(RunDirectory):
    """The run directory of any other process, which reads it and leaves the writing to the first."""

    def input(self, given: str) -> Path:
        return agree(Path()) if given.startswith("hub:") else super().input(given)

    def checkpoint_due(self, step: int, every: int) -> bool:
        due, self.ending = agree((False, self.ending))
        if self.ending is not None:
            self._may_end_after = step
        return due

    def resume(self) -> Resumed | None:
        _hear()
        step: int | None = agree(None)
        return None if step is None else Resumed(self.path / self.checkpoint_at(step))

    def stop(self, *_: Any) -> None:
        if not self._stepping:  # between two steps the first one says when
            super().stop()

    def save(self, step: int, *_: Any, **__: Any) -> str:
        return self.checkpoint_at(step)

    def step(self, step: int, **metrics: Any) -> None:
        _hear()
        self.step_now = step

    def tell(self, phase: str, step: int | None = None, total: int | None = None, device: str = "") -> None:
        self.phase, self.device = phase, device or self.device
        self.total = self.total if total is None else total

    def samples(self, lines: Sequence[dict[str, Any]]) -> None:
        """Told by the first."""

    def rollouts(self, lines: Sequence[dict[str, Any]]) -> None:
        """Told by the first."""

    def leave(self, name: str, value: dict[str, Any]) -> None:
        """Left by the first."""

    def log(self, text: str) -> None:
        """Told by the first."""

    def finish(self, state: str, outcome: Any = None, **told: Any) -> None:
        """Told by the first."""

    def _heed_cancel(self) -> None:
        """Heeded by the first."""
