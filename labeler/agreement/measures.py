"""What rank vectors of the same rollouts say of agreement: pure functions, a quintet at a time.

Vectors are in slot order, 1 is best, equal numbers are ties. Best-first lists of slots are something else:
read as ranks they give wrong signs. Left out: many quintets at once (tallies.py)."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import fsum, sqrt

Ranks = Sequence[int]


def compared(one: Ranks, other: Ranks) -> Counter[str]:
    """Two labelers' ranks of the same rollouts: how many pairs of rollouts went which way."""
    names: Counter[str] = Counter()
    for i, j in combinations(range(len(one)), 2):
        first, second = _sign(one[i] - one[j]), _sign(other[i] - other[j])
        if first == second:
            names["agreed" if first else "both_tied"] += 1
        else:
            names["opposed" if first and second else "one_tied"] += 1
    return names


def tau_b(one: Ranks, other: Ranks) -> float | None:
    """Kendall's tau-b of two rank vectors; None where either of them ties everything."""
    pairs = list(combinations(range(len(one)), 2))
    signs, others = ([_sign(ranks[i] - ranks[j]) for i, j in pairs] for ranks in (one, other))
    decided = sum(map(abs, signs)) * sum(map(abs, others))
    return sum(a * b for a, b in zip(signs, others, strict=True)) / sqrt(decided) if decided else None


def of_quintet(rankings: Sequence[Ranks]) -> float | None:
    """The mean tau-b of every two labelers' rankings of one quintet; None where no two can be compared."""
    found = [tau for one, other in combinations(rankings, 2) if (tau := tau_b(one, other)) is not None]
    return fsum(found) / len(found) if found else None


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
