"""Ranking losses: numbers worked by hand, a slow reference, and what must not change them."""

import itertools
import math
import random

import pytest
import torch

from rlhf import losses


def row(*values, dtype=torch.float32):
    return torch.tensor([values], dtype=dtype)


def slow_listwise(rewards, ranks):
    """The formula, read aloud."""
    stages = []
    for own, rank in zip(rewards, ranks, strict=True):
        below = [r for r, other in zip(rewards, ranks, strict=True) if rank and other > rank]
        if below:
            stages.append(-(own - math.log(math.exp(own) + sum(map(math.exp, below)))))
    return sum(stages) / len(stages)


def slow_pairs(rewards, ranks):
    found = [
        math.log(1 + math.exp(worse - better))
        for (better, above), (worse, below) in itertools.permutations(zip(rewards, ranks, strict=True), 2)
        if 0 < above < below
    ]
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("rewards", "ranks", "expected"),
    [
        ((0.0,) * 5, (1, 2, 3, 4, 5), math.log(120) / 4),
        ((0.0,) * 2, (2, 1), math.log(2)),
        # Three in order with rewards ln 4, ln 2, ln 1: 4 of 7, then 2 of 3.
        ((math.log(4), math.log(2), 0.0), (1, 2, 3), (math.log(7 / 4) + math.log(3 / 2)) / 2),
        # Two tied winners over one: each is a stage against the loser alone, 4 of 5 and 2 of 3.
        ((math.log(4), math.log(2), 0.0), (1, 1, 2), (math.log(5 / 4) + math.log(3 / 2)) / 2),
        # One over two tied losers: a single stage, 4 of 7.
        ((math.log(4), math.log(2), 0.0), (1, 2, 2), math.log(7 / 4)),
        # A partial quintet of two: its empty places count for nothing.
        ((math.log(3), 0.0, 9.0, 9.0, 9.0), (1, 2, 0, 0, 0), math.log(4 / 3)),
    ],
)
def test_listwise_gives_the_numbers_worked_by_hand(rewards, ranks, expected):
    assert losses.listwise(row(*rewards), row(*ranks, dtype=torch.long)).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize(
    ("rewards", "ranks", "expected"),
    [
        ((0.0,) * 5, (1, 2, 3, 4, 5), math.log(2)),
        ((math.log(3), 0.0), (1, 2), math.log(4 / 3)),
        ((math.log(3), 0.0, 0.0), (1, 2, 2), math.log(4 / 3)),
        ((math.log(3), 0.0, 9.0), (2, 1, 0), math.log(4)),
    ],
)
def test_pairs_give_the_numbers_worked_by_hand(rewards, ranks, expected):
    assert losses.pairs(row(*rewards), row(*ranks, dtype=torch.long)).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize(("fast", "slow"), [(losses.listwise, slow_listwise), (losses.pairs, slow_pairs)])
def test_every_weak_order_of_four_agrees_with_the_slow_reference(fast, slow):
    dice = random.Random(0)
    orders = [ranks for ranks in itertools.product((1, 2, 3, 4), repeat=4) if len(set(ranks)) > 1]
    rewards = [[dice.gauss(0, 2) for _ in range(4)] for _ in orders]
    found = fast(torch.tensor(rewards), torch.tensor(orders)).tolist()
    assert found == pytest.approx([slow(*pair) for pair in zip(rewards, orders, strict=True)], abs=1e-5)


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_a_constant_added_to_all_rewards_changes_nothing(loss):
    rewards, ranks = (
        torch.randn(8, 5, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[2, 1, 3, 3, 4]] * 8),
    )
    assert loss(rewards + 7, ranks).tolist() == pytest.approx(loss(rewards, ranks).tolist(), abs=1e-5)


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_equals_may_change_places(loss):
    ranks = row(1, 2, 2, 2, 3, dtype=torch.long)
    found = {
        round(loss(row(2.0, *middle, 0.3), ranks).item(), 5)
        for middle in itertools.permutations((0.5, -1.0, 1.5))
    }
    assert len(found) == 1


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_equals_are_not_torn_apart(loss):
    """No gradient prefers one equal to another: with equal rewards, equal gradients."""
    rewards = row(0.0, 0.0, 0.0).requires_grad_()
    loss(rewards, row(1, 1, 2, dtype=torch.long)).sum().backward()
    best, also_best, worst = rewards.grad[0].tolist()
    assert best == pytest.approx(also_best)
    assert best < 0 < worst


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_a_ranking_of_equals_costs_nothing_and_teaches_nothing(loss):
    rewards = row(3.0, -3.0).requires_grad_()
    found = loss(rewards, row(1, 1, dtype=torch.long))
    found.sum().backward()
    assert found.item() == 0
    assert rewards.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_an_empty_place_gets_no_gradient(loss):
    rewards = row(1.0, 0.0, 0.0).requires_grad_()
    loss(rewards, row(2, 1, 0, dtype=torch.long)).sum().backward()
    assert rewards.grad[0, 2] == 0


@pytest.mark.parametrize("loss", losses.KINDS.values())
def test_half_precision_rewards_are_compared_in_full(loss):
    rewards, ranks = row(60.0, 59.5, 0.25, dtype=torch.bfloat16), row(1, 2, 3, dtype=torch.long)
    assert loss(rewards, ranks).dtype == torch.float32


def test_one_step_raises_the_undervalued_second_most_and_lowers_the_overvalued_last():
    scores = row(0.80, 0.10, 0.55, 0.50, 0.60)
    rewards = torch.logit(scores).requires_grad_()
    losses.listwise(rewards, row(1, 2, 3, 4, 5, dtype=torch.long)).sum().backward()
    change = -rewards.grad[0]
    assert change.argmax() == 1
    assert change.argmin() == 4


def test_centering_is_the_squared_mean_of_the_rollouts_that_are_there():
    found = losses.centering(row(1.0, 3.0, 99.0), row(1, 2, 0, dtype=torch.long))
    assert found.item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("loss", "rewards", "ranks", "expected"),
    [
        # Equal rewards, but the better one has to be ahead by ln 3: 1 of 1 + 3.
        (losses.listwise, (0.0, 0.0), (1, 2), math.log(4)),
        (losses.pairs, (0.0, 0.0), (1, 2), math.log(4)),
        # The winner against two that are each given ln 3: 1 of 7; those two are equals and owe nothing.
        (losses.listwise, (0.0, 0.0, 0.0), (1, 2, 2), math.log(7)),
        # Ahead by just the margin: a coin's toss.
        (losses.pairs, (math.log(3), 0.0), (1, 2), math.log(2)),
    ],
)
def test_a_margin_is_what_the_better_one_has_to_be_ahead(loss, rewards, ranks, expected):
    found = loss(row(*rewards), row(*ranks, dtype=torch.long), math.log(3))
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([1.2, 1.1, 1.0], 0),
        ([1.2, 1.1, 1.0, 5.6], 1),  # five times 1.1 is 5.5
        ([1.2, 1.1, 1.0, 5.4], 0),
        ([1.2, 1.1, 1.0, 5.6, 5.7], 2),
        ([1.2, 1.1, 1.0, 5.6, 5.7, 90.0], 3),
        ([1.2, 1.1, 1.0, 5.6, 1.0, 90.0], 1),
        ([0.01, 0.01, 0.01, 0.6], 0),  # learnt by heart: what a coin loses is no explosion
        ([0.01, 0.01, 0.01, 3.5], 1),  # five times ln 2 is 3.466
        ([90.0], 0),
        ([], 0),
    ],
)
def test_losses_far_above_what_was_usual_are_counted(told, expected):
    assert losses.exploding(told) == expected
