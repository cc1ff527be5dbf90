"""The sums of the demo that practises: two numbers of two digits, and what they come to.

Every sum follows from the seed. What is shown to be imitated is the bare number, in three digits: there is
nothing to work out on paper, only to get right. Knows neither torch nor the web.
"""

import random
from dataclasses import dataclass

SEED = 0
PROMPTS = 3000


@dataclass(frozen=True)
class Sum:
    one: int
    other: int

    @property
    def prompt(self) -> str:
        return f"{self.one}+{self.other}="

    @property
    def answer(self) -> str:
        return str(self.one + self.other)

    @property
    def worked(self) -> str:
        """As it is shown to be imitated: always of three digits."""
        return f"{self.one + self.other:03}"


def sums(count: int = PROMPTS, seed: int = SEED) -> list[Sum]:
    """So many different ones, in an order of no meaning."""
    every = [Sum(one, other) for one in range(10, 100) for other in range(10, 100)]
    return random.Random(f"sums {seed}").sample(every, count)
