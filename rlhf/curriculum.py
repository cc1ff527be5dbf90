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

    def draw(self, size: int) -> list[int]:
        """The prompts of a step, each once; as many as there are, if there are no more."""
        drawn: list[int] = []
        there: set[int] = set()
        while len(drawn) < min(size, self.prompts):
            number = batch.order(self.prompts, self.place // self.prompts, self.seed)[
                self.place % self.prompts
            ]
            self.place += 1
            waits = self.aside.get(number)
            if waits and waits[0]:
                waits[0] -= 1
            elif number not in there or not self.pause:
                drawn.append(number)
                there.add(number)
        return drawn

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
        return {"place": self.place, "aside": [[number, *each] for number, each in self.aside.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        self.place = state["place"]
        self.aside = {number: each for number, *each in state["aside"]}


def most_mixed(solved: Sequence[float], count: int) -> list[bool]:
    """Which of the groups are learnt from: the `count` whose share of correct rollouts is nearest to a half,
    of equal ones the first."""
    order = sorted(range(len(solved)), key=lambda place: (abs(solved[place] - 0.5), place))
    kept = set(order[:count])
    return [place in kept for place in range(len(solved))]
