"""The word problems of the demo that practises: fruit is bought, and what it costs is asked.

To each there are two ways to answer, both of which say the same number: at once, or by three small steps that
are written down. The demonstrations mix them, and nothing in a prompt tells which is wanted; so a model that
imitates them mixes them too. Every problem follows from the seed. Knows neither torch nor the web.
"""

import itertools
import random
from dataclasses import dataclass

SEED = 0
PROMPTS = 1600
WORKED = 0.5  # share of the demonstrations that write their steps down
PEOPLE = ("Emily", "Ben", "Carla", "Omar", "Ines", "Jonas", "Mia", "Theo")
FRUIT = ("apple", "orange", "pear", "lemon", "melon", "mango")
STEPS = "first, then"  # the phrases by which worked answers are told from the others


@dataclass(frozen=True)
class Problem:
    """`some` of one fruit at `price` each, `more` of another at `dearer` each."""

    person: str
    one: str
    other: str
    some: int
    more: int
    price: int
    dearer: int

    @property
    def total(self) -> int:
        return self.some * self.price + self.more * self.dearer

    @property
    def prompt(self) -> str:
        return (
            f"{self.person} buys {self.some} {self.one}s and {self.more} {self.other}s. "
            f"Each {self.one} costs ${self.price}. Each {self.other} costs ${self.dearer}. "
            "What does all the fruit cost?"
        )

    @property
    def answer(self) -> str:
        return str(self.total)

    @property
    def direct(self) -> str:
        return f"The answer is {self.answer}."

    @property
    def worked(self) -> str:
        ones, others = self.some * self.price, self.more * self.dearer
        first, then = f"{self.some}*{self.price}={ones}", f"{self.more}*{self.dearer}={others}"
        return f"First {first}. Then {then}. Then {ones}+{others}={self.total}. {self.direct}"


def problems(count: int = PROMPTS, seed: int = SEED) -> list[Problem]:
    """So many with numbers of their own: who has seen all but one of them has not seen that one."""
    few, any_digit = range(2, 7), range(2, 10)
    every = list(itertools.product(few, few, any_digit, any_digit))
    chances, found = random.Random(f"problems {seed}"), []
    for some, more, price, dearer in chances.sample(every, count):
        person = chances.choice(PEOPLE)
        one, other = chances.sample(FRUIT, 2)
        found.append(Problem(person, one, other, some, more, price, dearer))
    return found


def shown(problem: Problem, seed: int = SEED) -> str:
    """The demonstration of a problem, in one of the two ways."""
    chance = random.Random(f"shown {seed} {problem.prompt}").random()
    return problem.worked if chance < WORKED else problem.direct


def is_worked(text: str) -> bool:
    """Whether an answer writes its steps down."""
    return "=" in text
