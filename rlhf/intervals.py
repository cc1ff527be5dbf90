"""Shares and means with intervals that know how rankings come: in prompts, whose pairs stand and fall as one.

Every interval is a bootstrap over prompts: prompts are drawn anew, each with all that was counted at it,
never pairs or rankings by themselves. Its quantiles lie as far out as Student's t asks for: few prompts drawn
again and again look surer than they are. Numbers in, plain numbers out; knows neither torch nor the web, so
that a page may compare two reward models. What is counted is the matter of `rlhf.judgement`.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

DRAWS = 2000
EXACT = 12  # up to so many prompts that differ, every flip of their signs is tried
FLIPS = 10_000  # beyond that, so many at random
AT_ONCE = 100  # draws held in memory together
FEWEST = 5  # prompts: drawing fewer hides most of what others could be like
Z = 1.959963984540054


def share(right: Sequence[float], prompts: Sequence[Hashable]) -> dict[str, Any]:
    """How many of the pairs are right, with its interval. Where every prompt says the same, or there are only
    a few, drawing prompts anew tells nothing: then it is Wilson's, with each prompt as one trial."""
    found = mean(right, prompts, "pairs")
    if found["low"] is not None and (found["low"] == found["high"] or found["prompts"] < FEWEST):
        found["low"], found["high"] = wilson(found["value"], found["prompts"])
    return found


def mean(values: Sequence[float], prompts: Sequence[Hashable], counted: str = "rankings") -> dict[str, Any]:
    """The mean of `values`, and between what it lies at 95 %; one prompt alone has no interval.
    `prompts` tells of each value which prompt it was counted at."""
    found: dict[str, Any] = {"value": None, "low": None, "high": None}
    sums, counts = _by_prompt(values, prompts)
    if len(sums):
        found["value"] = float(sums.sum() / counts.sum())
    if len(sums) > 1:
        found["low"], found["high"] = _bounds(np.stack([sums, counts]))
    return found | {counted: len(values), "prompts": len(sums)}


def wilson(value: float, trials: int) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent trials."""
    spread = Z * math.sqrt(value * (1 - value) / trials + Z**2 / (4 * trials**2))
    middle, scale = value + Z**2 / (2 * trials), 1 + Z**2 / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def paired(first: Sequence[float], second: Sequence[float], prompts: Sequence[Hashable]) -> dict[str, Any]:
    """What two reward models got right of the same pairs: the difference in accuracy, its bootstrap interval
    over prompts, and two chances that as much would be seen if neither were better: by flipping which model
    is which, prompt by prompt (`p`), and by how many prompts each wins (`p_sign`)."""
    apart, counts = _by_prompt([one - other for one, other in zip(first, second, strict=True)], prompts)
    found: dict[str, Any] = {
        "first": share(first, prompts),
        "second": share(second, prompts),
        "difference": None, "low": None, "high": None, "p": None, "p_sign": None,
        "first_better": int((apart > 0).sum()),
        "second_better": int((apart < 0).sum()),
        "equal": int((apart == 0).sum()),
        "pairs": len(first), "prompts": len(apart),
    }  # fmt: skip
    if len(apart):
        found["difference"] = float(apart.sum() / counts.sum())
        found["p"] = _flipped(apart)
        found["p_sign"] = sign_test(found["first_better"], found["second_better"])
    if len(apart) > 1:
        found["low"], found["high"] = _bounds(np.stack([apart, counts]))
    return found


def sign_test(wins: int, losses: int) -> float:
    """How likely a fair coin falls at least as unevenly, both ways counted."""
    tosses = wins + losses
    tail = sum(math.comb(tosses, each) for each in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b of two orders of the same things, ties aware; None where one of them tells none apart."""
    score, apart = 0, [0, 0]
    for one, other in itertools.combinations(range(len(first)), 2):
        signs = [_sign(each[one] - each[other]) for each in (first, second)]
        score += signs[0] * signs[1]
        apart = [count + abs(sign) for count, sign in zip(apart, signs, strict=True)]
    return score / math.sqrt(apart[0] * apart[1]) if all(apart) else None


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The correlation of two series; None where one of them does not vary."""
    one, other = (np.asarray(each, dtype=float) - np.mean(each) for each in (first, second))
    size = math.sqrt(float(one @ one) * float(other @ other))
    return max(-1.0, min(1.0, float(one @ other) / size)) if size > 0 else None


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The correlation of two series' ranks, equal values sharing their mean rank."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + sum(other == value for other in values) / 2
        for value in values
    ]


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _by_prompt(values: Sequence[float], prompts: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each prompt's values and how many there are, in an order that does not depend on theirs."""
    sums: dict[Hashable, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        held = sums.setdefault(prompt, [0.0, 0.0])
        held[0] += value
        held[1] += 1
    table = np.array(list(sums.values()), dtype=float).reshape(-1, 2)
    table = table[np.lexsort(table.T)]
    return table[:, 0], table[:, 1]


def _bounds(table: np.ndarray) -> tuple[float, float]:
    """Of [sums and counts, prompts]: between what sum ÷ count lies over draws of as many prompts."""
    prompts = table.shape[1]
    chances = np.random.default_rng(0)  # the same numbers give the same interval
    found: list[np.ndarray] = []
    for _ in range(DRAWS // AT_ONCE):
        times = chances.multinomial(prompts, np.full(prompts, 1 / prompts), size=AT_ONCE)
        sums, counts = table @ times.T
        found.append(sums / counts)
    outside = tail(prompts)
    low, high = np.quantile(np.concatenate(found), [outside, 1 - outside])
    return float(low), float(high)


def tail(prompts: int) -> float:
    """What share of the draws is to lie beyond either end, so that the interval of so many prompts holds
    95 of 100 (Hesterberg's expanded percentiles): the draws' spread is short by √((n − 1)/n), and Student's t
    lies further out than the normal distribution."""
    freedom = prompts - 1
    # Cornish and Fisher's series for Student's t: to a thousandth from five prompts on.
    student = Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    student += (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * freedom**3)
    return NormalDist().cdf(-student * math.sqrt(prompts / freedom))


def _flipped(apart: np.ndarray) -> float:
    """The share of sign flips whose sum is as far from zero as the sum seen."""
    differing = apart[apart != 0]
    if not len(differing):
        return 1.0
    seen = abs(differing.sum()) - 1e-9  # sums of the same numbers in another order are equal
    if len(differing) <= EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(differing))))
        return float((abs(signs @ differing) >= seen).mean())
    chances = np.random.default_rng(0)
    beyond = sum(
        int((abs(chances.choice((-1, 1), size=(AT_ONCE, len(differing))) @ differing) >= seen).sum())
        for _ in range(FLIPS // AT_ONCE)
    )
    return (beyond + 1) / (FLIPS + 1)
