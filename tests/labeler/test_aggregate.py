"""Several rankings of one quintet made into one: strengths by Plackett–Luce, a consensus by majority."""

from fractions import Fraction
from itertools import combinations, permutations, product
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from labeler.aggregate import PRIOR, consensus, strengths
from rlhf.data import dense


@st.composite
def rankings(draw, most: int = 6):
    """Some weak orders of two to five rollouts."""
    size = draw(st.integers(2, 5))
    one = st.lists(st.integers(1, size), min_size=size, max_size=size).map(lambda ranks: list(dense(ranks)))
    return draw(st.lists(one, min_size=1, max_size=most))


few = settings(max_examples=60, deadline=None)


# Consensus


@pytest.mark.parametrize(
    "given, together",
    [
        ([[2, 1, 3]], [2, 1, 3]),
        ([[1, 2, 3], [1, 2, 3], [3, 2, 1]], [1, 2, 3]),
        ([[1, 2, 3], [3, 2, 1]], [1, 1, 1]),
        # One says a before b, the other sees no difference: nobody objects.
        ([[1, 2, 3], [1, 1, 2]], [1, 2, 3]),
        # An even split between the first two only.
        ([[1, 2, 3], [2, 1, 3]], [1, 1, 2]),
        ([[1, 1, 1, 1, 1]], [1, 1, 1, 1, 1]),
    ],
)
def test_a_consensus_worked_by_hand(given, together):
    assert consensus(given) == together


def test_a_circle_of_majorities_is_a_tie_of_all_that_is_in_it():
    """Condorcet's three: a before b, b before c, c before a, each by two of three; d is last for all."""
    assert consensus([[1, 2, 3, 4], [3, 1, 2, 4], [2, 3, 1, 4]]) == [1, 1, 1, 2]


def test_weights_decide_who_is_the_majority():
    split = [[1, 2], [2, 1], [2, 1]]
    assert consensus(split) == [2, 1]
    assert consensus(split, [2.5, 1, 1]) == [1, 2]
    assert consensus(split, [0.3, 0.1, 0.2]) == [1, 1]


@pytest.mark.parametrize("wrong", [[], [[1, 2], [1, 2, 3]]])
def test_what_has_no_consensus_is_refused(wrong):
    with pytest.raises(ValueError, match="same rollouts"):
        consensus(wrong)
    with pytest.raises(ValueError, match="same rollouts"):
        strengths(wrong)


def test_weights_that_do_not_fit_are_refused():
    for weights in ([1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="weight"):
            consensus([[1, 2], [2, 1]], weights)


@few
@given(rankings())
def test_a_consensus_prefers_nothing_that_a_majority_does_not(several):
    """By definition, slowly: i stands above j where no chain of “at least as many” leads from j to i."""
    size, together = len(several[0]), consensus(several)

    def as_many(i: int, j: int) -> bool:
        return sum(r[i] < r[j] for r in several) >= sum(r[j] < r[i] for r in several)

    def a_chain(i: int, j: int) -> bool:
        between = [k for k in range(size) if k not in (i, j)]
        chains = (way for length in range(len(between) + 1) for way in permutations(between, length))
        return any(all(as_many(a, b) for a, b in zip((i, *way), (*way, j), strict=True)) for way in chains)

    for i, j in permutations(range(size), 2):
        assert (together[i] < together[j]) == (not a_chain(j, i))
        if together[i] < together[j]:
            assert sum(r[i] < r[j] for r in several) > sum(r[j] < r[i] for r in several)
    assert together == list(dense(together))


@few
@given(rankings(), st.randoms(use_true_random=False))
def test_neither_the_order_of_labelers_nor_of_rollouts_matters(several, chance):
    together = consensus(several)
    shuffled = several[:]
    chance.shuffle(shuffled)
    assert consensus(shuffled) == together
    slots = list(range(len(several[0])))
    chance.shuffle(slots)
    assert consensus([[ranks[slot] for slot in slots] for ranks in several]) == [together[s] for s in slots]


@few
@given(rankings())
def test_what_all_say_is_the_consensus(several):
    assert consensus([several[0]] * len(several)) == several[0]


# Strengths


def test_two_rollouts_by_hand():
    """One before the other, three times of four: with a weak prior the odds are nearly 3 : 1."""
    (one, low, high), (other, *_) = strengths([[1, 2]] * 3 + [[2, 1]])
    d = one - other
    # The top of 3 log σ(d) + log σ(−d) − PRIOR d²/4, by its slope; and the curvature there.
    assert 4 / (1 + exp(d)) - 1 - PRIOR * d / 2 == pytest.approx(0, abs=1e-9)
    assert d == pytest.approx(log(3), abs=0.1)
    p = 1 / (1 + exp(-d))
    assert (high - low) / 2 == pytest.approx(1.959964 * sqrt(1 / (PRIOR + 8 * p * (1 - p)) / 2), abs=1e-9)


def test_a_tie_alone_decides_nothing():
    found = strengths([[1, 1, 1]])
    assert [mid for mid, _, _ in found] == pytest.approx([0, 0, 0])
    assert min(high - low for _, low, high in found) > 10


def slow_log_posterior(at, several, weights):
    """As rlhf/losses.py writes it, stage by stage, but summed; and the prior."""
    total = -PRIOR / 2 * sum(each**2 for each in at)
    for ranks, weight in zip(several, weights, strict=True):
        for i, rank in enumerate(ranks):
            below = [j for j, other in enumerate(ranks) if other > rank]
            if below:
                total += weight * (at[i] - log(exp(at[i]) + sum(exp(at[j]) for j in below)))
    return total


@settings(max_examples=15, deadline=None)
@given(rankings(), st.randoms(use_true_random=False))
def test_strengths_are_at_the_top_that_another_optimizer_finds(several, chance):
    weights = [chance.choice([0.0, 0.5, 1.0, 2.0]) for _ in several]
    top = minimize(
        lambda at: -slow_log_posterior(at, several, weights),
        np.zeros(len(several[0])),
        options={"gtol": 1e-8},
    )
    assert [mid for mid, _, _ in strengths(several, weights)] == pytest.approx(list(top.x), abs=2e-5)


@settings(max_examples=10, deadline=None)
@given(rankings())
def test_intervals_are_the_curvature_at_the_top_by_differences(several):
    found, size, ones, step = strengths(several), len(several[0]), [1.0] * len(several), 1e-3
    at = [mid for mid, _, _ in found]

    def moved(i, a, j, b):
        there = at[:]
        there[i] += a * step
        there[j] += b * step
        return slow_log_posterior(there, several, ones)

    curve = np.array(
        [
            [
                sum(a * b * moved(i, a, j, b) for a, b in product((1, -1), repeat=2)) / -4 / step**2
                for j in range(size)
            ]
            for i in range(size)
        ]
    )
    centred = np.eye(size) - 1 / size
    wide = 1.959964 * np.sqrt(np.diag(centred @ np.linalg.inv(curve) @ centred))
    assert [(high - low) / 2 for _, low, high in found] == pytest.approx(list(wide), rel=1e-3)


@few
@given(rankings())
def test_strengths_always_exist_and_sum_to_nothing(several):
    found = strengths(several)
    assert sum(mid for mid, _, _ in found) == pytest.approx(0, abs=1e-8)
    assert all(low < mid < high for mid, low, high in found)


def test_more_rankings_say_it_more_surely():
    few, many = strengths([[1, 2, 3]] * 2), strengths([[1, 2, 3]] * 50)
    assert many[0][0] > few[0][0] > 0
    crowd = strengths([[1, 2, 3], [2, 1, 3], [1, 3, 2]] * 50)
    assert crowd[0][1] > crowd[2][2], "the first is above the last, interval and all"


def test_strengths_follow_the_odds_that_rankings_were_drawn_by():
    """Every order of four, as often as Plackett–Luce says: the strengths come back."""
    true = [0.9, 0.2, -0.3, -0.8]
    odds = [Fraction(exp(each)) for each in true]

    def chance_of(order):
        left, share = list(order), Fraction(1)
        while left:
            share *= odds[left[0]] / sum(odds[i] for i in left)
            left.pop(0)
        return float(share)

    orders = list(permutations(range(4)))
    several = [[order.index(slot) + 1 for slot in range(4)] for order in orders]
    found = strengths(several, [1e6 * chance_of(order) for order in orders])
    assert [mid for mid, _, _ in found] == pytest.approx(true, abs=1e-4)
    for (one, other), (t, u) in zip(combinations(found, 2), combinations(true, 2), strict=True):
        assert one[0] - other[0] == pytest.approx(t - u, abs=1e-4)
