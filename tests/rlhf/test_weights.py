"""What a ranking counts: numbers worked by hand, and samples that the prompt alone decides."""

import math
from collections import Counter

import pytest

from rlhf import weights
from rlhf.data import Ranking


def ranking(labeler, ranks, prompt="p", rollouts=("a", "b", "c")):
    return Ranking(prompt, rollouts[: len(ranks)], ranks, labeler)


def test_who_agrees_with_the_others_counts_for_more_by_the_formula():
    rankings = [ranking("ann", (1, 2, 3)), ranking("ben", (1, 2, 3)), ranking("cat", (1, 3, 2))]
    found = weights.by_agreement(rankings)
    # Ann and Ben: 3 of 3 alike; each of them and Cat: 2 of 3. Everybody: 14 of 18.
    assert {name: (each.pairs, each.alike) for name, each in found.items()} == {
        "ann": (6, 5 / 6), "ben": (6, 5 / 6), "cat": (6, 4 / 6),
    }  # fmt: skip
    excess = [2 * (k + 20 * 14 / 18) / 26 - 1 for k in (5, 5, 4)]
    mean = sum(excess) / 3
    assert [each.weight for each in found.values()] == pytest.approx([each / mean for each in excess])


def test_weights_have_the_mean_one_over_the_rankings_and_nobody_is_unheard():
    rankings = [ranking(name, (1, 2, 3), f"p{n}") for n in range(40) for name in ("ann", "ben", "eve")]
    rankings += [ranking("contrary", (3, 2, 1), f"p{n}") for n in range(20)]
    found = weights.by_agreement(rankings)
    assert sum(found[each.labeler].weight for each in rankings) / len(rankings) == pytest.approx(1)
    assert 0 < found["contrary"].weight < 0.2 * found["ann"].weight


@pytest.mark.parametrize(
    "rankings",
    [
        [ranking("ann", (1, 2)), ranking("ben", (2, 1))],  # they agree less than coins do
        [ranking("ann", (1, 2)), ranking("ben", (1, 2), "another")],  # they never ranked the same
        [ranking("ann", (1, 2)), ranking("ann", (1, 2))],  # one labeler, who agrees with nobody but themself
    ],
)
def test_where_nothing_tells_labelers_apart_all_count_alike(rankings):
    assert {each.weight for each in weights.by_agreement(rankings).values()} == {1.0}


def test_ties_are_neither_alike_nor_not():
    found = weights.by_agreement([ranking("ann", (1, 1, 2)), ranking("ben", (1, 2, 3))])
    assert found["ann"].pairs == 2


def test_a_member_draws_prompts_as_often_as_a_bootstrap_would():
    counts = Counter(weights.times_drawn(f"prompt {n}", 0, 0) for n in range(4000))
    for times in range(4):  # Poisson with mean 1
        assert counts[times] / 4000 == pytest.approx(math.exp(-1) / math.factorial(times), abs=0.03)


def test_a_sample_follows_from_the_prompt_and_differs_by_member_and_seed():
    def drawn(member, seed):
        return [weights.times_drawn(f"prompt {n}", member, seed) for n in range(50)]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(1, 0)
    assert drawn(0, 0) != drawn(0, 1)


def test_rankings_of_one_quintet_are_found_by_its_texts():
    rankings = [
        ranking("a", (1, 2)),
        ranking("a", (1, 2), "q"),
        ranking("b", (2, 1)),
        ranking("b", (1, 2, 3)),
    ]
    assert weights.same_quintets(rankings) == [[0, 2], [1], [3]]
