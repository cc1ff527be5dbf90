"""How much one is preferred to another, from rankings of several at a time: Plackett–Luce with ties.

It serves the five rollouts of one quintet (aggregate.py), and checkpoints whose rollouts met in many
(models/faceoffs.py): there one checkpoint may have written several rollouts of a quintet.

A ranking is a row of choices, as in the listwise loss (rlhf/losses.py): every rollout with something
strictly below it is chosen from among itself and what lies below. A difference of strengths is the log of the
odds that one is ranked before the other. Pure functions; left out: who ranked, and what becomes of it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import ceil, copysign, exp, fsum, log, sqrt

PRIOR = 0.1  # precision of the normal prior on a strength: it holds where rankings say nothing, and no more
STEPS, CLOSE_ENOUGH = 100, 1e-12
CLOSE = 0.003  # standard errors: an end of an interval is known to a tenth of a percent
WITHIN = 1.959964  # standard errors to either side of 95 of 100
SEEN = 0.841621  # of a standard error: so that 80 of 100 would see it

Matrix = list[list[float]]
Stage = tuple[int, tuple[int, ...]]  # who was chosen, and how often each is among those it was chosen from


def stages(ranks: Sequence[int], players: Sequence[int], count: int) -> Iterator[Stage]:
    """The choices that a ranking says; `players[slot]` is whose rollout it is, one of `count`."""
    for slot, rank in enumerate(ranks):
        below = [player for player, its in zip(players, ranks, strict=True) if its > rank]
        if below:
            many = [0] * count
            for player in (players[slot], *below):
                many[player] += 1
            yield players[slot], tuple(many)


@dataclass(frozen=True)
class Strengths:
    """The strengths, whose mean is 0, and two accounts of how unsure they are: by the curvature at the top
    (`inverse`), and by how far apart what single prompts say lies (`among`), where prompts are known."""

    at: list[float]
    inverse: Matrix
    among: Matrix = field(default_factory=list)
    told: "Told | None" = field(default=None, repr=False, compare=False)

    def apart(self, one: int, other: int) -> tuple[float, float]:
        """The difference, and its standard error: the greater one of the two accounts. The curvature takes
        every choice for independent, which those at one prompt are not; the prompts' own spread is nothing
        where all of a few prompts say the same."""
        error = max(_of_difference(each, one, other) for each in (self.inverse, self.among) if each)
        return self.at[one] - self.at[other], sqrt(max(error, 0.0))

    def sure(self, one: int, other: int) -> float:
        """How many standard errors lie between the two, above 0 where `one` is the stronger: the root of
        twice what the likelihood loses where they are equal. Where one nearly always wins the top is flat and
        the error there says nothing; this does not suffer from that."""
        return copysign(self._lost(one, other, 0.0), self.at[one] - self.at[other])

    def between(self, one: int, other: int, within: float = WITHIN) -> tuple[float, float]:
        """The differences that are no more than `within` standard errors away: those of the profile."""
        value, error = self.apart(one, other)
        low, high = (self._end(one, other, side * within * error, within) for side in (-1, 1))
        return value + low, value + high

    @cached_property
    def _top(self) -> float:
        assert self.told
        return self.told.height(self.at)

    def _lost(self, one: int, other: int, difference: float) -> float:
        """The root of twice what the likelihood loses where the two differ by so much; less, where the
        prompts differ more than the choices by themselves would."""
        assert self.told
        middle = (self.at[one] + self.at[other]) / 2
        begin = list(self.at)
        begin[one], begin[other] = middle + difference / 2, middle - difference / 2
        lost = self._top - self.told.climb(begin, (one, other))[1]
        wider = _of_difference(self.among, one, other) if self.among else 0.0
        alone = _of_difference(self.inverse, one, other)
        return sqrt(max(0.0, 2 * lost * min(1.0, alone / wider if wider else 1.0)))

    def _end(self, one: int, other: int, reach: float, most: float) -> float:
        """How far from the likeliest difference so much is lost, to the side of `reach`. What is lost grows
        nearly as a straight line, so a few looks along one find the place."""
        value, near, far = self.at[one] - self.at[other], 0.0, reach
        lost_near, lost_far = 0.0, self._lost(one, other, value + far)
        while lost_far < most:
            near, lost_near, far = far, lost_far, 2 * far
            lost_far = self._lost(one, other, value + far)
        for _ in range(STEPS):
            at = near + (far - near) * (most - lost_near) / (lost_far - lost_near)
            lost = self._lost(one, other, value + at)
            if abs(lost - most) < CLOSE:
                return at
            if lost < most:
                near, lost_near = at, lost
            else:
                far, lost_far = at, lost
        return at


def fit(
    counted: Mapping[Stage, float], count: int, prompts: Iterable[Mapping[Stage, float]] = ()
) -> Strengths:
    """The strengths of `count` players under which these choices, each as often as counted, are likeliest;
    `prompts` are the same choices prompt by prompt."""
    told = Told(counted, count)
    found, _ = told.climb([0.0] * count)
    spread = inverse(told.slope_and_curve(found)[1])
    return Strengths(found, spread, _among(found, counted, list(prompts), spread), told)


class Told:
    """All that choices say together: how often each was chosen, and how often it was chosen from which."""

    def __init__(self, counted: Mapping[Stage, float], count: int):
        self.chosen = [0.0] * count
        weights: dict[tuple[int, ...], float] = defaultdict(float)
        for (who, pool), weight in counted.items():
            self.chosen[who] += weight
            weights[pool] += weight
        self.pools = [
            (weight, [(player, many) for player, many in enumerate(pool) if many])
            for pool, weight in weights.items()
        ]

    def climb(self, begin: list[float], tied: tuple[int, int] | None = None) -> tuple[list[float], float]:
        """The top of the log posterior and its height; where two are `tied`, with the difference that they
        begin with."""
        found, (value, shares) = begin, self._look(begin)
        for _ in range(STEPS):
            slope, curve = self._slope_and_curve(found, shares)
            if tied:
                _merge(slope, curve, *tied)
            step = [fsum([a * b for a, b in zip(row, slope, strict=True)]) for row in inverse(curve)]
            if tied:
                step.insert(tied[0], step[tied[1] - (tied[1] > tied[0])])
            # The hill has one top; a step that overshoots it is halved.
            while (there := self._look([a + b for a, b in zip(found, step, strict=True)]))[0] < value:
                step = [part / 2 for part in step]
                if max(map(abs, step)) < CLOSE_ENOUGH:
                    break
            found = [a + b for a, b in zip(found, step, strict=True)]
            value, shares = there
            if max(map(abs, step)) < CLOSE_ENOUGH:
                break
        return found, value

    def height(self, at: Sequence[float]) -> float:
        """The log posterior."""
        return self._look(at)[0]

    def slope_and_curve(self, at: Sequence[float]) -> tuple[list[float], Matrix]:
        """The gradient of the log posterior and the negative of its Hessian."""
        return self._slope_and_curve(at, self._look(at)[1])

    def _look(self, at: Sequence[float]) -> tuple[float, list[list[float]]]:
        """The log posterior; and how likely each of every pool is to be chosen, which both it and its slope
        are made of."""
        parts, shares = [-PRIOR / 2 * each**2 for each in at], []
        parts += [many * each for many, each in zip(self.chosen, at, strict=True)]
        for weight, pool in self.pools:
            top = max([at[player] for player, _ in pool])
            odds = [many * exp(at[player] - top) for player, many in pool]
            total = fsum(odds)
            parts.append(-weight * (top + log(total)))
            shares.append([each / total for each in odds])
        return fsum(parts), shares

    def _slope_and_curve(self, at: Sequence[float], shares: list[list[float]]) -> tuple[list[float], Matrix]:
        slope = [many - PRIOR * each for many, each in zip(self.chosen, at, strict=True)]
        curve = [[PRIOR * (i == j) for j in range(len(at))] for i in range(len(at))]
        for (weight, pool), its in zip(self.pools, shares, strict=True):
            for (i, _), share in zip(pool, its, strict=True):
                row, likely = curve[i], weight * share
                slope[i] -= likely
                row[i] += likely
                for (j, _), other in zip(pool, its, strict=True):
                    row[j] -= likely * other
        return slope, curve


def _merge(slope: list[float], curve: Matrix, one: int, other: int) -> None:
    """The two move as one: its row and column are the sums of theirs."""
    slope[other] += slope[one]
    curve[other] = [a + b for a, b in zip(curve[other], curve[one], strict=True)]
    for row in curve:
        row[other] += row[one]
        del row[one]
    del slope[one], curve[one]


def _among(at: list[float], counted: Mapping[Stage, float], prompts: list[Mapping], spread: Matrix) -> Matrix:
    """The sandwich: the inverse curvature around what the prompts' own slopes sum to."""
    if len(prompts) < 2:
        return []
    size = range(len(at))
    slopes = {stage: _slope(at, stage) for stage in counted}
    middle = [[0.0] * len(at) for _ in size]
    for prompt in prompts:
        mine = [fsum(many * slopes[stage][i] for stage, many in prompt.items()) for i in size]
        for i in size:
            for j in size:
                middle[i][j] += mine[i] * mine[j]
    few = len(prompts) / (len(prompts) - 1)
    return _product(_product(spread, [[few * each for each in row] for row in middle]), spread)


def _shares(at: Sequence[float], pool: Sequence[int]) -> list[float]:
    """How likely each is to be chosen."""
    top = max([each for each, many in zip(at, pool, strict=True) if many])
    odds = [many * exp(each - top) if many else 0.0 for each, many in zip(at, pool, strict=True)]
    total = fsum(odds)
    return [each / total for each in odds]


def _slope(at: Sequence[float], stage: Stage) -> list[float]:
    chosen, pool = stage
    return [(i == chosen) - share for i, share in enumerate(_shares(at, pool))]


def inverse(matrix: Matrix) -> Matrix:
    """Gauss and Jordan. The matrix is positive definite: no pivots have to be looked for."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        rows[i] = [each / rows[i][i] for each in rows[i]]
        for k in range(size):
            if k != i and rows[k][i]:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


def _product(one: Matrix, other: Matrix) -> Matrix:
    return [
        [fsum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*other, strict=True)]
        for row in one
    ]


def _of_difference(spread: Matrix, one: int, other: int) -> float:
    return spread[one][one] + spread[other][other] - 2 * spread[one][other]


# How many quintets it takes


@dataclass(frozen=True)
class Power:
    """How much quintets of so many checkpoints tell. `pairs`: those of different checkpoints in a quintet;
    `direct`: of these, between any two checkpoints; `worth`: as how many separate comparisons of these two a
    ranked quintet counts, what follows by way of the others included."""

    checkpoints: int
    pairs: float
    direct: float
    worth: float

    def comparisons(self, share: float = 0.6) -> int:
        """Separate comparisons of two, so that a preference of `share` is seen in 80 of 100 such trials."""
        return ceil((WITHIN + SEEN) ** 2 * 4 / log(share / (1 - share)) ** 2)

    def quintets(self, share: float = 0.6) -> int:
        """Ranked quintets, for the same."""
        return ceil((WITHIN + SEEN) ** 2 * 4 / log(share / (1 - share)) ** 2 / self.worth)

    def seen(self, quintets: int) -> float:
        """The least preference that so many ranked quintets show, in 80 of 100 such trials."""
        apart = (WITHIN + SEEN) * sqrt(4 / (self.worth * quintets))
        return 1 / (1 + exp(-apart))


def seats(number: int, checkpoints: int, size: int = 5) -> list[int]:
    """Whose rollouts the quintet of this number has: each checkpoint's in turn, so that over as many quintets
    as there are checkpoints all have as many."""
    return [(number + turn) % checkpoints for turn in range(size)]


def power(checkpoints: int, size: int = 5) -> Power:
    """Between equal checkpoints, where any order is as likely as any other: each choice is from among any
    `m` of the rollouts with the same chance, and tells of two what the curvature there says."""
    several = [seats(number, checkpoints, size) for number in range(checkpoints)]
    curve = [[1 / checkpoints] * checkpoints for _ in range(checkpoints)]
    for players in several:
        for many in range(2, size + 1):
            pools = list(combinations(players, many))
            for pool in pools:
                shares = [pool.count(player) / many for player in range(checkpoints)]
                for i, share in enumerate(shares):
                    for j, other in enumerate(shares):
                        told = share * (i == j) - share * other
                        curve[i][j] += told / len(pools) / len(several)
    pairs = sum(one != other for players in several for one, other in combinations(players, 2)) / len(several)
    twos = checkpoints * (checkpoints - 1) / 2
    # One comparison of two equal ones leaves a variance of 4.
    return Power(checkpoints, pairs, pairs / twos, 4 / _of_difference(inverse(curve), 0, 1))
