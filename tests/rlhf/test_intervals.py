"""Intervals over prompts: by hand, against slow counts of every draw, by how often they hold the truth."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from rlhf import intervals


def test_the_interval_is_that_of_every_possible_draw_of_prompts():
    right = [1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1]
    prompts = ["a", "a", "a", "b", "b", "c", "c", "d", "d", "d", "e", "e"]
    by_prompt = [(2, 3), (1, 2), (0, 2), (3, 3), (1, 2)]
    every = [
        sum(each[0] for each in draw) / sum(each[1] for each in draw)
        for draw in itertools.product(by_prompt, repeat=5)
    ]
    found = intervals.share(right, prompts)
    assert (found["value"], found["pairs"], found["prompts"]) == (7 / 12, 12, 5)
    outside = intervals.tail(5)
    for side, level in (("low", outside), ("high", 1 - outside)):
        near = np.quantile(every, [max(0, level - 0.003), min(1, level + 0.003)])
        assert near[0] - 1e-9 <= found[side] <= near[1] + 1e-9
    assert found["low"] < 0.2 and found["high"] > 0.9


@pytest.mark.parametrize("prompts", [5, 8, 20, 100, 100_000])
def test_the_ends_are_where_students_t_has_them(prompts):
    """The draws of n prompts spread by √((n − 1)/n) too little, and are taken for normal."""
    student = stats.t.ppf(0.975, prompts - 1)
    expected = stats.norm.cdf(-student * math.sqrt(prompts / (prompts - 1)))
    assert intervals.tail(prompts) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("prompts", [6, 8])
def test_the_interval_of_few_prompts_holds_the_truth_as_often_as_it_says(prompts):
    """Of 300 each; the plain 95 % of the draws held it 266 and 267 times."""
    chances = np.random.default_rng(prompts)
    held = 0
    for _ in range(300):
        likely = chances.beta(3, 2, size=prompts)  # prompts are of different difficulty
        right = (chances.random((10, prompts)) < likely).astype(float).ravel()
        found = intervals.share(right, list(range(prompts)) * 10)
        held += found["low"] <= 0.6 <= found["high"]
    assert 276 <= held <= 296


def test_fewer_than_five_prompts_count_as_so_many_trials():
    found = intervals.share([1.0] * 9 + [0.0], ["a", "b"] * 5)
    assert (found["low"], found["high"]) == pytest.approx(intervals.wilson(0.9, 2))
    assert found["low"] < 0.35


def test_pairs_of_one_prompt_are_not_counted_as_independent():
    together = [float(number % 2) for number in range(40) for _ in range(10)]
    of_a_prompt = intervals.share(together, [number for number in range(40) for _ in range(10)])
    each_alone = intervals.share(together, range(400))
    wide, narrow = (each["high"] - each["low"] for each in (of_a_prompt, each_alone))
    assert wide / narrow == pytest.approx(math.sqrt(10), rel=0.15)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    chances = random.Random(1)
    held = 0
    for _ in range(150):
        likely = [chances.betavariate(3, 2) for _ in range(30)]  # prompts are of different difficulty
        told = [(float(chances.random() < each), prompt) for prompt, each in enumerate(likely * 4)]
        found = intervals.share([each for each, _ in told], [prompt % 30 for _, prompt in told])
        held += found["low"] <= 0.6 <= found["high"]
    assert 0.88 <= held / 150 <= 0.995


def test_where_all_prompts_agree_the_interval_is_wilsons_over_prompts():
    found = intervals.share([1.0] * 12, ["a", "b", "c"] * 4)
    square = 1.96**2
    assert (found["value"], found["high"]) == (1, 1)
    assert found["low"] == pytest.approx(3 / (3 + square), abs=1e-3)


def test_nothing_and_one_prompt_alone_have_no_interval():
    assert intervals.share([], []) == {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}
    alone = intervals.mean([0.5, 1.0], ["a", "a"])
    assert alone == {"value": 0.75, "low": None, "high": None, "rankings": 2, "prompts": 1}


def test_the_same_numbers_in_any_order_give_the_same_interval():
    right, prompts = [1.0, 0.0, 1.0, 0.5, 0.0], list("abcda")
    assert intervals.share(right, prompts) == intervals.share(right[::-1], prompts[::-1])


def test_wilsons_interval_is_scipys():
    found = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert intervals.wilson(0.35, 20) == pytest.approx((found.low, found.high))


def test_two_models_are_told_apart_by_flipping_prompts():
    # Five prompts of two pairs each: the first model is right on one more pair at each of them.
    found = intervals.paired([1, 1] * 5, [1, 0] * 5, [number for number in range(5) for _ in range(2)])
    assert (found["difference"], found["first_better"], found["second_better"]) == (0.5, 5, 0)
    assert found["p"] == 2 / 2**5  # only all kept and all flipped are as far from zero
    assert found["p_sign"] == 2 / 2**5
    assert (found["first"]["value"], found["second"]["value"]) == (1.0, 0.5)


def test_equal_models_are_not_told_apart():
    found = intervals.paired([1, 0, 1], [1, 0, 1], "abc")
    assert (found["difference"], found["p"], found["p_sign"], found["equal"]) == (0, 1, 1, 3)
    assert (found["low"], found["high"]) == (0, 0)


def test_a_difference_is_of_prompts_and_not_of_their_pairs():
    """A hundred pairs of one prompt say no more than that prompt."""
    found = intervals.paired([1] * 100, [0] * 100, ["p"] * 100)
    assert (found["difference"], found["low"], found["p"]) == (1, None, 1)


def test_drawn_flips_find_what_all_flips_would():
    chances = np.random.default_rng(0)
    apart = chances.normal(0.3, 1, size=13)
    signs = np.array(list(itertools.product((1, -1), repeat=13)))
    every = (abs(signs @ apart) >= abs(apart.sum()) - 1e-9).mean()
    assert intervals.paired(apart, [0] * 13, range(13))["p"] == pytest.approx(every, abs=0.015)


def test_chances_of_a_difference_are_even_where_there_is_none():
    chances = np.random.default_rng(5)
    found = [
        intervals.paired(chances.normal(size=8), chances.normal(size=8), range(8))["p"] for _ in range(300)
    ]
    assert np.mean([p <= 0.1 for p in found]) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 3), (5, 0), (9, 2), (2, 9)])
def test_the_sign_test_is_scipys(wins, losses):
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1
    assert intervals.sign_test(wins, losses) == pytest.approx(expected)


def test_tau_b_by_hand():
    assert intervals.tau_b([1, 2, 3], [1, 2, 3]) == 1
    assert intervals.tau_b([1, 2, 3], [3, 2, 1]) == -1
    # One of three pairs is tied on the left; of the other two, both are ordered alike: 2 / √(2 · 3).
    assert intervals.tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert intervals.tau_b([1, 1, 1], [1, 2, 3]) is None


def test_correlations_are_scipys():
    chances = random.Random(2)
    for _ in range(50):
        one, other = ([chances.randrange(4) for _ in range(5)] for _ in range(2))
        if len(set(one)) == 1 or len(set(other)) == 1:
            assert intervals.tau_b(one, other) is intervals.pearson(one, other) is None
            continue
        assert intervals.tau_b(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)
        assert intervals.pearson(one, other) == pytest.approx(stats.pearsonr(one, other).statistic)
        assert intervals.spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
