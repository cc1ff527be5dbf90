"""Several labelers' rankings of one quintet made into one: strengths to show, a consensus to export.

Pure functions of rank vectors in slot order; training uses the raw rankings. Left out: who ranked (weights
may say how much each counts) and how far they agree (labeler/agreement)."""

from collections import defaultdict
from collections.abc import Sequence
from math import fsum, sqrt

from labeler.strengths import PRIOR, WITHIN, Stage, fit, stages
from rlhf.data import dense

Ranks = Sequence[int]

A_HAIR = 1e-9  # weights are floats: sums that differ by less are even


def consensus(rankings: Sequence[Ranks], weights: Sequence[float] | None = None) -> list[int]:
    """Dense ranks by majority. Where majorities go in a circle, or split evenly, all of it is one tie: a
    rollout stands above another only if no chain of majorities leads back."""
    count, weights = _checked(rankings, weights)
    total = fsum(weights)
    # reaches[i][j]: as many or more say i before j as j before i, or a chain of such pairs leads from i to j.
    reaches = [
        [
            fsum(w * ((r[i] < r[j]) - (r[i] > r[j])) for r, w in zip(rankings, weights, strict=True))
            >= -A_HAIR * total
            for j in range(count)
        ]
        for i in range(count)
    ]
    for via in range(count):
        for i in range(count):
            for j in range(count):
                reaches[i][j] = reaches[i][j] or (reaches[i][via] and reaches[via][j])
    # Every two are related, so who reaches more stands higher, and who reaches as many is in the same circle.
    return list(dense([count - sum(row) for row in reaches]))


def strengths(
    rankings: Sequence[Ranks], weights: Sequence[float] | None = None
) -> list[tuple[float, float, float]]:
    """(strength, low, high) of each rollout: Plackett–Luce with mean 0, and intervals of 95 %.

    What a strength is, and what a tie says, is told in strengths.py. The intervals come from the curvature at
    the top, the prior's included, so that one ranking or none still has strengths, with intervals as wide as
    that deserves."""
    count, weights = _checked(rankings, weights)
    counted: dict[Stage, float] = defaultdict(float)
    for ranks, weight in zip(rankings, weights, strict=True):
        for stage in stages(ranks, range(count), count):
            counted[stage] += weight
    found = fit(counted, count)
    # Only differences are observed: what the prior alone says of the mean is taken out again.
    spread = [WITHIN * sqrt(found.inverse[i][i] - 1 / (PRIOR * count)) for i in range(count)]
    return [(mid, mid - wide, mid + wide) for mid, wide in zip(found.at, spread, strict=True)]


def _checked(rankings: Sequence[Ranks], weights: Sequence[float] | None) -> tuple[int, Sequence[float]]:
    lengths = {len(ranks) for ranks in rankings}
    if len(lengths) != 1:
        raise ValueError("Rankings of the same rollouts are needed, at least one.")
    weights = [1.0] * len(rankings) if weights is None else weights
    if len(weights) != len(rankings) or min(weights) < 0:
        raise ValueError("A weight of 0 or more is needed for each ranking.")
    return lengths.pop(), weights
