"""How far labelers agree: every measure against hand-worked cases and against independent programs."""

from itertools import combinations, permutations
from math import sqrt

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from labeler.agreement import compared, of_quintet, tau_b
from labeler.agreement.figures import ceiling, figures
from labeler.agreement.layout import Kind
from labeler.agreement.tallies import HEAD, ROW, WORK, Entry, changes
from rlhf.data import dense

NEAR = {"abs": 1e-9, "rel": 1e-9}


# Two rankings, and a few


@pytest.mark.parametrize(
    "one, other, tau",
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 1 / 3),
        # 4 pairs decided by one, 6 by the other, 4 alike: 4 / √24.
        ([1, 1, 2, 2], [1, 2, 3, 4], 4 / sqrt(24)),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_tau_b_worked_by_hand(one, other, tau):
    assert tau_b(one, other) == (None if tau is None else pytest.approx(tau))


def test_best_first_lists_of_slots_give_wrong_signs():
    """Two labelers see it exactly the other way round. Their lists of slots, best first, look alike."""
    ranks = [2, 3, 1, 4, 5], [4, 3, 5, 2, 1]
    best_first = [[ranks.index(place) for place in range(1, 6)] for ranks in ranks]
    assert best_first == [[2, 0, 1, 3, 4], [4, 3, 1, 0, 2]]
    assert tau_b(*ranks) == pytest.approx(-1)
    assert tau_b(*best_first) > -0.5
    wrong = sum(
        (tau_b(one, other) > 0) != (tau_b(np.argsort(one).tolist(), np.argsort(other).tolist()) > 0)
        for one, other in combinations(permutations(range(1, 5)), 2)
    )
    assert wrong > 50


weak_orders = st.integers(2, 5).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(1, size), min_size=size, max_size=size).map(lambda ranks: list(dense(ranks))),
        min_size=2,
        max_size=4,
    )
)


@settings(max_examples=60, deadline=None)
@given(weak_orders)
def test_tau_b_is_scipys(several):
    taus = []
    for one, other in combinations(several, 2):
        theirs = kendalltau(one, other, variant="b").statistic
        assert tau_b(one, other) == (None if np.isnan(theirs) else pytest.approx(theirs, **NEAR))
        taus += [] if np.isnan(theirs) else [theirs]
    assert of_quintet(several) == (pytest.approx(np.mean(taus), **NEAR) if taus else None)


def test_one_ranking_agrees_with_nobody():
    assert of_quintet([[1, 2, 3]]) is None


@pytest.mark.parametrize(
    "one, other, counts",
    [
        ([1, 2, 3], [1, 2, 3], {"agreed": 3}),
        ([1, 2, 3], [3, 2, 1], {"opposed": 3}),
        ([1, 2, 3], [1, 3, 2], {"agreed": 2, "opposed": 1}),
        ([1, 1, 2], [1, 1, 2], {"agreed": 2, "both_tied": 1}),
        ([1, 1, 2], [1, 2, 3], {"agreed": 2, "one_tied": 1}),
        ([1, 1, 1], [1, 2, 3], {"one_tied": 3}),
    ],
)
def test_two_rankings_compared_by_hand(one, other, counts):
    assert compared(one, other) == counts


@pytest.mark.parametrize(
    "agreement, most", [(1.0, 1.0), (0.5, 0.5), (0.726, 0.836), (0.4, None), (None, None)]
)
def test_agreement_puts_a_ceiling_on_a_reward_model(agreement, most):
    assert ceiling(agreement) == (None if most is None else pytest.approx(most, abs=5e-4))


# Many quintets


def entry(quintet: int, rankings: dict[int, list[int]], purpose: int = WORK, sign: int = 1, **head) -> Entry:
    """A quintet as it is kept: ranks by labeler, slot by slot."""
    size = len(next(iter(rankings.values())))
    known = {"round": 1, "size": size, "uncertainty": -1, "lengths": [10] * 5} | head
    line, rows = np.zeros((), HEAD), np.zeros(len(rankings), ROW)
    for name, value in known.items():
        line[name] = value
    rows["shown"], rows["seconds"], rows["focus"], rows["purpose"] = -1, -1, -1, purpose
    for row, (labeler, ranks) in zip(rows, rankings.items(), strict=True):
        row["labeler"] = labeler
        row["ranks"][:size] = ranks
    return Entry(quintet, sign, line.tobytes() + rows.tobytes())


def told(
    quintets: list[dict[int, list[int]]], kind: int = Kind.PROJECT, ref: int = 0, first: int = 0
) -> dict:
    """The figures of quintets given as ranks by labeler, numbered from `first` on."""
    found = changes([entry(number, rankings) for number, rankings in enumerate(quintets, first)]).scopes
    delta = found[False, kind, ref]
    return figures(delta.sums, delta.replicates)


def slow_w(several: list[list[int]]) -> float | None:
    """Kendall's W with the textbook's correction for ties."""
    m, k = len(several), len(several[0])
    middle = [[np.mean([p + 1 for p, o in enumerate(sorted(r)) if o == rank]) for rank in r] for r in several]
    sums = [sum(ranks[i] for ranks in middle) for i in range(k)]
    spread = sum((each - np.mean(sums)) ** 2 for each in sums)
    ties = sum(r.count(rank) ** 3 - r.count(rank) for r in several for rank in set(r))
    most = m**2 * (k**3 - k) - m * ties
    return 12 * spread / most if most else None


def slow_kappa(quintets: list[dict[int, list[int]]]) -> float | None:
    """Every two judges of a quintet, every unordered pair of its rollouts, said both ways round."""
    alike, said = [], []
    for rankings in quintets:
        for one, other in combinations(rankings.values(), 2):
            for i, j in permutations(range(len(one)), 2):
                a, b = np.sign(one[i] - one[j]), np.sign(other[i] - other[j])
                alike.append(a == b)
                said += [a, b]
    if not alike:
        return None
    by_chance = sum((said.count(way) / len(said)) ** 2 for way in (-1, 0, 1))
    return (np.mean(alike) - by_chance) / (1 - by_chance) if by_chance < 1 else None


def their_alpha(quintets: list[dict[int, list[int]]]) -> float | None:
    """The krippendorff package on one column a rollout, one row a labeler."""
    labelers = sorted({labeler for rankings in quintets for labeler in rankings})
    columns = [
        [rankings[labeler][slot] if labeler in rankings else np.nan for labeler in labelers]
        for rankings in quintets
        if len(rankings) > 1
        for slot in range(len(next(iter(rankings.values()))))
    ]
    if not columns or len({value for column in columns for value in column if not np.isnan(value)}) < 2:
        return None
    return krippendorff.alpha(np.array(columns).T, level_of_measurement="ordinal")


def reference(quintets: list[dict[int, list[int]]]) -> dict:
    """All of it again, from the definitions or by other people's programs."""
    several = [list(rankings.values()) for rankings in quintets if len(rankings) > 1]
    twos = [two for rankings in several for two in combinations(rankings, 2)]
    taus = [kendalltau(*two, variant="b").statistic for two in twos]
    taus = [tau for tau in taus if not np.isnan(tau)]
    ws = [w for rankings in several if (w := slow_w(rankings)) is not None]
    agreed = sum(compared(*two)["agreed"] for two in twos)
    opposed = sum(compared(*two)["opposed"] for two in twos)
    return {
        "agreement": agreed / (agreed + opposed) if agreed + opposed else None,
        "tau": np.mean(taus) if taus else None,
        "w": np.mean(ws) if ws else None,
        "kappa": slow_kappa(quintets),
        "alpha": their_alpha(quintets),
    }


def same(told: dict, expected: dict) -> bool:
    return {name: told[name] for name in expected} == {
        name: None if value is None else pytest.approx(value, **NEAR) for name, value in expected.items()
    }


@st.composite
def ranked_quintets(draw):
    """Quintets of 2 to 5 rollouts, each ranked by 1 to 4 of six labelers, with ties."""
    found = []
    for _ in range(draw(st.integers(1, 8))):
        size, who = draw(st.integers(2, 5)), draw(st.sets(st.integers(1, 6), min_size=1, max_size=4))
        one = st.lists(st.integers(1, size), min_size=size, max_size=size)
        found.append({labeler: list(dense(draw(one))) for labeler in who})
    return found


def test_one_quintet_of_three_labelers_by_hand():
    """12345, 12354 and 21345: of 30 pairs 10 + 9 + … are alike, opposed are 1, 1 and 2."""
    found = told([{1: [1, 2, 3, 4, 5], 2: [1, 2, 3, 5, 4], 3: [2, 1, 3, 4, 5]}])
    assert (found["agreed"], found["opposed"], found["pairs"]) == (26, 4, 30)
    assert found["agreement"] == pytest.approx(26 / 30)
    assert found["tau"] == pytest.approx((0.8 + 0.8 + 0.6) / 3)
    # Rank sums 4, 5, 9, 13, 14, their mean 9: S = 25 + 16 + 0 + 16 + 25, W = 12 · 82 / (9 · 120).
    assert found["w"] == pytest.approx(12 * 82 / 1080)
    # No ties: P(E) is a half, so kappa is 2 · 26/30 - 1.
    assert found["kappa"] == pytest.approx(22 / 30)


def test_kappa_with_ties_by_hand():
    """= twice of four sayings: P(A) 1/2, P(=) 1/2, P(<) = P(>) = 1/4, P(E) = 1/4 + 1/16 + 1/16 = 3/8."""
    found = told(
        [{1: [1, 2], 2: [1, 1]}, {1: [1, 1], 2: [1, 1]}, {1: [1, 2], 2: [1, 2]}, {1: [2, 1], 2: [1, 1]}]
    )
    assert found["kappa"] == pytest.approx((0.5 - 0.375) / 0.625)


@settings(max_examples=60, deadline=None)
@given(ranked_quintets())
def test_every_measure_equals_an_independent_computation(quintets):
    assert same(told(quintets), reference(quintets))


@settings(max_examples=30, deadline=None)
@given(ranked_quintets())
def test_a_labeler_is_measured_against_each_of_the_others(quintets):
    for labeler in {labeler for rankings in quintets for labeler in rankings}:
        twos = [
            {labeler: rankings[labeler], other: rankings[other]}
            for rankings in quintets
            for other in rankings
            if labeler in rankings and other != labeler
        ]
        assert same(told(quintets, Kind.LABELER, labeler), reference(twos))
