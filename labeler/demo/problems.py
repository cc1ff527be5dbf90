"""The word problems of the demo that practises: fruit is bought, and something about its price is asked.

To each there are two ways to answer, both of which say the same number: at once, or by three small steps that
are written down. The demonstrations mix them, and nothing in a prompt tells which is wanted; so a model that
imitates them mixes them too. Every problem follows from the seed. Knows neither torch nor the web.
"""

import operator
import random
from dataclasses import dataclass

SEED = 0
PROMPTS = 3000
WORKED = 0.3  # share of the demonstrations that write their steps down
PEOPLE = ("Emily", "Ben", "Carla", "Omar", "Ines", "Jonas", "Mia", "Theo")
FRUIT = ("apple", "orange", "pear", "lemon", "melon", "mango")
DONE = {"*": operator.mul, "+": operator.add, "-": operator.sub, "/": operator.floordiv}
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
    asks_for_all: bool

    @property
    def total(self) -> int:
        return self.some * self.price + self.more * self.dearer

    @property
    def prompt(self) -> str:
        bought = f"{self.person} buys {self.some} {self.one}s and {self.more} {self.other}s."
        if self.asks_for_all:
            return (
                f"{bought} Each {self.one} costs ${self.price}. Each {self.other} costs ${self.dearer}."
                " What does all the fruit cost?"
            )
        return (
            f"{bought} Each {self.other} costs ${self.dearer}. All the fruit costs ${self.total}."
            f" What does each {self.one} cost?"
        )

    @property
    def answer(self) -> str:
        return str(self.total if self.asks_for_all else self.price)

    @property
    def direct(self) -> str:
        return f"The answer is {self.answer}."

    @property
    def worked(self) -> str:
        others = self.more * self.dearer
        if self.asks_for_all:
            ones = self.some * self.price
            steps = [(self.some, "*", self.price), (self.more, "*", self.dearer), (ones, "+", others)]
        else:
            ones = self.total - others
            steps = [(self.more, "*", self.dearer), (self.total, "-", others), (ones, "/", self.some)]
        said = [f"{one}{sign}{other}={DONE[sign](one, other)}." for one, sign, other in steps]
        return f"First {said[0]} Then {said[1]} Then {said[2]} {self.direct}"


def problems(count: int = PROMPTS, seed: int = SEED) -> list[Problem]:
    """So many different ones."""
    chances, found = random.Random(f"problems {seed}"), {}
    while len(found) < count:
        one, other = chances.sample(FRUIT, 2)
        some, more, price, dearer = (chances.randint(2, 9) for _ in range(4))
        made = Problem(chances.choice(PEOPLE), one, other, some, more, price, dearer, chances.random() < 0.5)
        found[made.prompt] = made
    return list(found.values())


def shown(problem: Problem, seed: int = SEED) -> str:
    """The demonstration of a problem, in one of the two ways."""
    chance = random.Random(f"shown {seed} {problem.prompt}").random()
    return problem.worked if chance < WORKED else problem.direct


def is_worked(text: str) -> bool:
    """Whether an answer writes its steps down."""
    return "=" in text
