"""Strengths of those who wrote several rollouts of a quintet, and how many quintets it takes: against what is
worked out by hand, by a slower optimizer, by a bootstrap, and by playing it through."""

import random
from collections import Counter
from itertools import combinations, permutations
from math import exp, log, sqrt

import numpy as np
import pytest
from scipy.optimize import minimize

from labeler.strengths import PRIOR, WITHIN, Stage, Strengths, fit, power, seats, stages


def drawn(at: list[float], players: list[int], chances: random.Random) -> list[int]:
    """Ranks as people of these tastes give them: the best first, each among what is left."""
    left, ranks = list(range(len(players))), [0] * len(players)
    for rank in range(1, len(players) + 1):
        slot = chances.choices(left, [exp(at[players[each]]) for each in left])[0]
        ranks[slot] = rank
        left.remove(slot)
    return ranks


def counted(rankings: list[tuple[list[int], list[int]]], count: int) -> list[Counter[Stage]]:
    """Of each ranking, with whose rollouts they were, its choices."""
    return [Counter(stages(ranks, players, count)) for ranks, players in rankings]


def fitted(prompts: list[Counter[Stage]], count: int) -> Strengths:
    together: Counter[Stage] = Counter()
    for each in prompts:
        together.update(each)
    return fit(together, count, prompts)


def test_a_ranking_is_told_as_choices():
    """Two rollouts of the second checkpoint, one of them tied with the first one's."""
    assert list(stages([1, 1, 2], [0, 1, 1], 2)) == [(0, (1, 1)), (1, (0, 2))]
    assert list(stages([1, 1], [0, 1], 2)) == []


def test_sixty_of_a_hundred_by_hand():
    """60 : 40 is a difference of log 1.5, whose variance is 1 / (100 · .6 · .4)."""
    found = fitted(counted([([1, 2], [0, 1])] * 60 + [([2, 1], [0, 1])] * 40, 2), 2)
    value, error = found.apart(0, 1)
    assert value == pytest.approx(log(1.5), abs=0.01)
    assert error == pytest.approx(sqrt(1 / 24), rel=0.02)
    back, same = found.apart(1, 0)
    assert (back, same) == pytest.approx((-value, error))


def test_a_checkpoint_compared_with_itself_says_nothing():
    found = fitted(counted([([1, 2, 3], [0, 0, 0]), ([3, 2, 1], [1, 1, 1])], 2), 2)
    assert found.apart(0, 1)[0] == pytest.approx(0, abs=1e-9)
    assert found.apart(0, 1)[1] == pytest.approx(sqrt(2 / PRIOR))


def test_strengths_are_where_another_optimizer_finds_the_top():
    chances = random.Random(3)
    players = [[chances.randrange(3) for _ in range(5)] for _ in range(30)]
    rankings = [([chances.randint(1, 4) for _ in each], each) for each in players]

    def slow(at: np.ndarray) -> float:
        total = PRIOR / 2 * float(at @ at)
        for ranks, whose in rankings:
            for i, rank in enumerate(ranks):
                if below := [j for j, other in enumerate(ranks) if other > rank]:
                    total += log(sum(exp(at[whose[j]]) for j in [i, *below])) - at[whose[i]]
        return total

    top = minimize(slow, np.zeros(3), options={"gtol": 1e-9}).x
    assert fitted(counted(rankings, 3), 3).at == pytest.approx(list(top), abs=1e-5)


def test_the_interval_is_as_wide_as_a_bootstrap_over_prompts():
    """Where one prompt is ranked by five people who see it alike, five rankings are not five tellings."""
    chances = random.Random(11)
    prompts = []
    for number in range(60):
        taste = [0.0, chances.gauss(0.4, 1.5), chances.gauss(-0.2, 1.5)]
        seen = [(drawn(taste, seats(number, 3), chances), seats(number, 3)) for _ in range(5)]
        prompts.append(sum(counted(seen, 3), Counter()))
    found = fitted(prompts, 3)
    again = [fitted(chances.choices(prompts, k=60), 3) for _ in range(300)]
    for one, other in combinations(range(3), 2):
        spread = np.std([each.apart(one, other)[0] for each in again])
        assert found.apart(one, other)[1] == pytest.approx(spread, rel=0.15)
        alone = Strengths(found.at, found.inverse).apart(one, other)[1]
        assert alone < 0.6 * spread, "the curvature alone would be far too sure"


def test_a_few_prompts_that_all_say_the_same_do_not_make_it_sure():
    """Their own spread is next to nothing; the likelihood is not fooled by that: 2 · 2 log 2 is no 3.84."""
    found = fitted(counted([([1, 2], [0, 1])] * 2, 2), 2)
    assert 0 < found.sure(0, 1) < WITHIN
    low, high = found.between(0, 1)
    assert low < 0 < high


def test_forty_wins_of_forty_are_sure_though_the_top_is_flat():
    """2 · 40 log 2 is 55.5, whose root is 7.4; by the curvature it would not be 3."""
    found = fitted(counted([([1, 2], [0, 1])] * 40, 2), 2)
    value, error = found.apart(0, 1)
    assert value / error < 3
    assert found.sure(0, 1) == pytest.approx(7.3, abs=0.2) and found.sure(1, 0) == -found.sure(0, 1)
    assert found.between(0, 1)[0] > log(8)


def test_the_interval_is_where_another_optimizer_has_lost_as_much():
    """The profile, slowly: the other strengths at their best for each difference of the two."""
    chances = random.Random(8)
    rankings = [(drawn([0.8, 0, -0.5], seats(n, 3), chances), seats(n, 3)) for n in range(15)]
    together = sum(counted(rankings, 3), Counter())
    found = fit(together, 3)

    def height(at: list[float]) -> float:
        total = -PRIOR / 2 * sum(each**2 for each in at)
        for (who, pool), many in together.items():
            total += many * (at[who] - log(sum(m * exp(s) for m, s in zip(pool, at, strict=True))))
        return total

    for end in found.between(0, 2):
        best = minimize(lambda u, end=end: -height([u[0] + end, u[1], u[0]]), np.zeros(2)).fun
        assert 2 * (height(found.at) + best) == pytest.approx(WITHIN**2, abs=0.05)


def test_the_interval_is_wider_by_as_much_as_prompts_differ():
    """The same rankings as of 30 prompts, five each, and as of 150."""
    chances = random.Random(2)
    prompts = []
    for number in range(30):
        taste = [0.0, chances.gauss(0.5, 1.5)]
        seen = [(drawn(taste, seats(number, 2), chances), seats(number, 2)) for _ in range(5)]
        prompts.append(sum(counted(seen, 2), Counter()))
    together = sum(prompts, Counter())
    alone, among = fit(together, 2), fit(together, 2, prompts)
    wider = among.apart(0, 1)[1] / alone.apart(0, 1)[1]
    assert wider > 1.3
    assert among.sure(0, 1) == pytest.approx(alone.sure(0, 1) / wider)
    (a, b), (c, d) = alone.between(0, 1), among.between(0, 1)
    assert (d - c) / (b - a) == pytest.approx(wider, rel=0.05)


def test_the_intervals_hold_what_they_promise():
    """95 of 100 hold the truth, give or take what 200 trials vary by."""
    chances, true, held = random.Random(5), [0.0, 0.5, -0.4, 0.2], 0
    for _ in range(200):
        rankings = [(drawn(true, seats(number, 4), chances), seats(number, 4)) for number in range(40)]
        low, high = fitted(counted(rankings, 4), 4).between(1, 0)
        held += low <= 0.5 <= high
    assert 0.91 <= held / 200 <= 0.995


# How many quintets it takes


@pytest.mark.parametrize("checkpoints, pairs, direct", [(5, 10, 1), (4, 9, 1.5), (3, 8, 8 / 3), (2, 6, 6)])
def test_the_pairs_that_a_quintet_gives(checkpoints, pairs, direct):
    found = power(checkpoints)
    assert (found.pairs, found.direct) == pytest.approx((pairs, direct))
    several = [seats(number, checkpoints) for number in range(checkpoints)]
    assert Counter(each for players in several for each in players) == dict.fromkeys(range(checkpoints), 5), (
        "all are seen as often"
    )


def test_sixty_to_forty_takes_191_separate_comparisons():
    """(1.96 + 0.84)² · 4 / (log 1.5)² = 7.849 · 4 / 0.1644."""
    assert power(5).comparisons() == 191
    assert power(2).comparisons(0.75) == 27


def test_what_a_quintet_is_worth_by_going_through_every_order():
    """The curvature of all 120 orders of five equal ones, at the top."""
    curve = np.full((5, 5), 0.2)
    for order in permutations(range(1, 6)):
        for _, pool in stages(order, range(5), 5):
            share = np.array(pool) / sum(pool)
            curve += (np.diag(share) - np.outer(share, share)) / 120
    spread = np.linalg.inv(curve)
    assert power(5).worth == pytest.approx(4 / (spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]))


@pytest.mark.parametrize("checkpoints", [2, 3, 5])
def test_with_as_many_quintets_as_estimated_60_to_40_is_told_apart_four_times_of_five(checkpoints):
    """Two of them differ by 60 : 40, the others lie in the middle. Played through 250 times."""
    chances, many = random.Random(checkpoints), power(checkpoints).quintets()
    true = [log(1.5) / 2, -log(1.5) / 2, *[0.0] * (checkpoints - 2)]
    seen = 0
    for _ in range(250):
        rankings = []
        for number in range(many):
            players = seats(number, checkpoints)
            rankings.append((drawn(true, players, chances), players))
        seen += fitted(counted(rankings, checkpoints), checkpoints).sure(0, 1) > WITHIN
    assert 0.72 <= seen / 250 <= 0.89
