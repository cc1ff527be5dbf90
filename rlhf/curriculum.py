"""Which prompts a policy practises, and from which of them it learns: those it solves now and then.

Prompts come epoch after epoch, each in an order of its own. One whose rollouts were all right, or all wrong,
has nothing to teach at the moment: it is passed over, and longer each time that it is met again like that.
All of it follows from the seed and from what was noted, so that a number and a list in the checkpoint
are enough to go on with the very same prompts, days later.
"""

from collections.abc import Sequence
from typing import Any

from rlhf import batch

LONGEST = 8  # times as often as at first a prompt is passed over, at the most


class Curriculum:
    """The order of so many prompts. `pause`: how often one that taught nothing is passed over at first."""

    def __init__(self, prompts: int, seed: int, pause: int = 0):
        self.prompts, self.seed, self.pause = prompts, seed, pause
        self.place = 0  # in the endless row of epochs
        self.aside: dict[int, list[int]] = {}  # prompt: turns it waits, times in a row
        self.owed: list[int] = []  # prompts whose turn came a second time within a step

    def draw(self, size: int) -> list[int]:
        """The prompts of a step, each once: so many, or as many as there are without those that are passed
        over in it. Only where that leaves none do they come all the same, those first that wait the least."""
        drawn: list[int] = []
        passed: set[int] = set()
        again: list[int] = []
        while len(drawn) < min(size, self.prompts - len(passed)):
            number = self.owed.pop(0) if self.owed else self._next()
            waits = self.aside.get(number)
            if number in passed or number in drawn:
                again.append(number)
            elif waits and waits[0]:
                waits[0] -= 1
                passed.add(number)
                if len(passed) == self.prompts:
                    passed.clear()
            else:
                drawn.append(number)
        self.owed = again + self.owed
        return drawn

    def _next(self) -> int:
        epoch, place = divmod(self.place, self.prompts)
        self.place += 1
        return batch.order(self.prompts, epoch, self.seed)[place]

    def note(self, prompts: Sequence[int], solved: Sequence[float]) -> None:
        """What share of each one's rollouts was correct."""
        for number, share in zip(prompts, solved, strict=True):
            if 0 < share < 1 or not self.pause:
                self.aside.pop(number, None)
            else:
                times = self.aside.get(number, [0, 0])[1]
                self.aside[number] = [self.pause * min(2**times, LONGEST), times + 1]

    @property
    def waiting(self) -> int:
        """How many prompts are set aside."""
        return sum(turns > 0 for turns, _ in self.aside.values())

    def state(self) -> dict[str, Any]:
        aside = [[number, *each] for number, each in self.aside.items()]
        return {"place": self.place, "aside": aside, "owed": self.owed}

    def restore(self, state: dict[str, Any]) -> None:
        self.place = state["place"]
        self.aside = {number: each for number, *each in state["aside"]}
        self.owed = list(state.get("owed", []))


def most_mixed(solved: Sequence[float], count: int) -> list[bool]:
    """Which of the groups are learnt from: the `count` whose share of correct rollouts is nearest to a half,
    of equal ones the first."""
    order = sorted(range(len(solved)), key=lambda place: (abs(solved[place] - 0.5), place))
    kept = set(order[:count])
    return [place in kept for place in range(len(solved))]
