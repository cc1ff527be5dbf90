"""pass@k against numbers worked by hand, against counting every draw, and against exact fractions where
thousands were written."""

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest

from rlhf.difficulty import pass_at


@pytest.mark.parametrize(
    ("k", "n", "c", "by_hand"),
    [
        (1, 15, 6, 0.4),  # the share
        (2, 4, 1, 0.5),  # of the six pairs three hold the one that is correct
        (2, 4, 2, 5 / 6),  # one pair of six holds neither
        (3, 5, 1, 0.6),  # C(4, 3)/C(5, 3) = 4/10 hold none
        (5, 15, 0, 0.0),
        (5, 15, 15, 1.0),
        (10, 15, 6, 1.0),  # nine are wrong: among ten one is right
        (15, 15, 1, 1.0),
    ],
)
def test_it_is_what_one_works_out_by_hand(k, n, c, by_hand):
    assert pass_at(k, n, c) == pytest.approx(by_hand, abs=1e-12)


def test_it_is_the_share_of_draws_that_hold_a_correct_one():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations(range(n), k))
                holding = sum(any(each < c for each in draw) for draw in draws)
                assert pass_at(k, n, c) == pytest.approx(holding / len(draws), abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "c"), [(1, 10_000, 1), (100, 10_000, 3), (1000, 10_000, 5000), (7, 9999, 2)]
)
def test_thousands_lose_nothing(k, n, c):
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at(k, n, c) == pytest.approx(float(exact), rel=1e-12)


def test_of_fewer_than_k_nothing_is_said_and_nonsense_is_refused():
    assert pass_at(16, 15, 3) is None
    for k, n, c in ((1, 3, 4), (0, 3, 1), (1, 3, -1)):
        with pytest.raises(ValueError, match="rollouts"):
            pass_at(k, n, c)
