"""Several labelers' rankings of one quintet made into one: strengths to show, a consensus to export.

Pure functions of rank vectors in slot order; training uses the raw rankings. Left out: who ranked (weights
may say how much each counts) and how far they agree (labeler/agreement)."""

from collections.abc import Sequence
from math import exp, fsum, log, sqrt

from rlhf.data import dense

Ranks = Sequence[int]

PRIOR = 0.1  # precision of the normal prior on a strength: it holds where rankings say nothing, and no more
STEPS, CLOSE_ENOUGH = 100, 1e-12
WITHIN = 1.959964  # standard errors to either side of 95 of 100
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

    Rollouts are chosen stage by stage as in the listwise loss (rlhf/losses.py): what is tied is compared only
    with what lies below. A difference of strengths is the log of the odds that one is ranked before the
    other. The intervals come from the curvature at the top, the prior's included, so that one ranking or
    none still has strengths, with intervals as wide as that deserves."""
    count, weights = _checked(rankings, weights)
    stages = [
        (i, [i, *(j for j in range(count) if ranks[j] > ranks[i])], weight)
        for ranks, weight in zip(rankings, weights, strict=True)
        for i in range(count)
        if any(rank > ranks[i] for rank in ranks)
    ]
    found = [0.0] * count
    value = _log_posterior(found, stages)
    for _ in range(STEPS):
        slope, curve = _slope_and_curve(found, stages)
        step = [fsum(a * b for a, b in zip(row, slope, strict=True)) for row in _inverse(curve)]
        # The hill has one top; a step that overshoots it is halved.
        while (there := _log_posterior([a + b for a, b in zip(found, step, strict=True)], stages)) < value:
            step = [part / 2 for part in step]
            if max(map(abs, step)) < CLOSE_ENOUGH:
                break
        found = [a + b for a, b in zip(found, step, strict=True)]
        value = there
        if max(map(abs, step)) < CLOSE_ENOUGH:
            break
    inverse = _inverse(_slope_and_curve(found, stages)[1])
    # Only differences are observed: what the prior alone says of the mean is taken out again.
    spread = [WITHIN * sqrt(inverse[i][i] - 1 / (PRIOR * count)) for i in range(count)]
    return [(mid, mid - wide, mid + wide) for mid, wide in zip(found, spread, strict=True)]


def _checked(rankings: Sequence[Ranks], weights: Sequence[float] | None) -> tuple[int, Sequence[float]]:
    lengths = {len(ranks) for ranks in rankings}
    if len(lengths) != 1:
        raise ValueError("Rankings of the same rollouts are needed, at least one.")
    weights = [1.0] * len(rankings) if weights is None else weights
    if len(weights) != len(rankings) or min(weights) < 0:
        raise ValueError("A weight of 0 or more is needed for each ranking.")
    return lengths.pop(), weights


Stage = tuple[int, list[int], float]  # who was chosen, among whom, how much it counts


def _log_posterior(at: list[float], stages: list[Stage]) -> float:
    parts = [-PRIOR / 2 * each**2 for each in at]
    for chosen, pool, weight in stages:
        top = max(at[j] for j in pool)
        parts.append(weight * (at[chosen] - top - log(fsum(exp(at[j] - top) for j in pool))))
    return fsum(parts)


def _slope_and_curve(at: list[float], stages: list[Stage]) -> tuple[list[float], list[list[float]]]:
    """The gradient of the log posterior and the negative of its Hessian."""
    slope = [-PRIOR * each for each in at]
    curve = [[PRIOR * (i == j) for j in range(len(at))] for i in range(len(at))]
    for chosen, pool, weight in stages:
        top = max(at[j] for j in pool)
        odds = {j: exp(at[j] - top) for j in pool}
        total = fsum(odds.values())
        slope[chosen] += weight
        for i in pool:
            p = odds[i] / total
            slope[i] -= weight * p
            curve[i][i] += weight * p
            for j in pool:
                curve[i][j] -= weight * p * odds[j] / total
    return slope, curve


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss and Jordan. The matrix is positive definite: no pivots have to be looked for."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        rows[i] = [each / rows[i][i] for each in rows[i]]
        for k in range(size):
            if k != i and rows[k][i]:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]
