"""How much is computed at once: as much as was asked for, and by halves wherever that did not fit.

Memory runs out without a warning, in one of several processes or in all of them. What was under way is then
done again in portions half as large, by all alike, and the run says so; what does not fit at all fails and
names the setting to turn. Which numbers come out does not depend on the portions, but for rounding. And what
is freed is kept for the next step instead of being given back to the system.
"""

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from rlhf import processes
from rlhf.run import Failed, RunDirectory

WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")

# mallopt's own numbers for what glibc does with memory: when it gives some back, how much it takes ahead, and
# how many large pieces are the system's own each, which are given back at once.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
AHEAD = 64 * 2**20  # bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


def keep_what_is_freed() -> None:
    """Have a program that ends when its work is done reuse its memory. Every step of a training asks for the
    same again; where it was given back, each page costs a visit to the system, up to half of a step's time on
    virtual machines. Elsewhere than under glibc nothing changes."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, AHEAD)
        mallopt(MMAP_MAX, 0)


def ran_out(error: BaseException) -> bool:
    """Whether this is how a library says that there was not enough memory: a card's, or the processor's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


@dataclass(frozen=True)
class Portioned:
    """What is computed in portions: its name and its setting, and what helps where even one is too much."""

    noun: str
    setting: str
    remedy: str
    field: str


ROLLOUTS = Portioned(
    "rollout",
    "Rollouts at once",
    "Lower the longest rollout, train adapters (LoRA rank), or start from a smaller model.",
    "max_new_tokens",
)
EXAMPLES = Portioned(
    "example",
    "Examples at once",
    "Lower the longest example, compute twice, train adapters (LoRA rank), or start from a smaller model.",
    "max_tokens",
)


class Memory:
    """How many rollouts are computed at once: the same number in all processes, and only ever less."""

    def __init__(self, run: RunDirectory, at_once: int, what: Portioned = ROLLOUTS):
        self.run, self.at_once, self.what = run, at_once, what

    def share(
        self, items: Sequence[Item], work: Callable[[list[Item], int], Sequence[Result]]
    ) -> list[Result]:
        """`work` on all items, a share of them by each process: a result for every item, in their order."""
        mine = list(processes.share(items))
        found: list[Any] = [None] * len(items)
        parts = self.fit(lambda at_once: list(work(mine, at_once)) if mine else [])
        for number, part in enumerate(parts):
            found[number :: len(parts)] = part
        return found

    def fit(self, work: Callable[[int], Result]) -> list[Result]:
        """What `work` gives at each process, told how much to compute at once. It may be called again, and
        then has to begin anew; it may not talk to other processes. What fails at one of them fails at all."""
        while True:
            found, trouble = self._tried(work)
            told = processes.everyones((found, trouble))
            if all(each is None for _, each in told):
                return [part for part, _ in told]
            for _, each in told:
                if isinstance(each, Failed):
                    raise each
            self._halve()

    def _tried(self, work: Callable[[int], Result]) -> tuple[Any, Failed | str | None]:
        try:
            return work(self.at_once), None
        except Failed as failed:
            return None, failed
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            return None, str(error)

    def _halve(self) -> None:
        if self.at_once == 1:
            raise Failed(
                f"There is not enough memory for one {self.what.noun} at a time.",
                self.what.remedy,
                self.what.field,
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before, self.at_once = self.at_once, self.at_once // 2
        self.run.log(
            f"There was not enough memory for {before} {self.what.noun}s at once; from here on it is "
            f"{self.at_once}. The setting “{self.what.setting}” (micro_batch) begins lower."
        )
