"""What rollouts of some worth teach: three algorithms, their losses and β, by hand and by slow references."""

import math

import pytest
import torch

from rlhf import algorithms, policy

WORTH = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])


def test_leave_one_out_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    # 1 − (2+6)/2, 2 − (1+6)/2, 6 − (1+2)/2
    assert algorithms.leave_one_out(rewards).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


def test_normalised_advantages_have_a_spread_of_one():
    found = algorithms.normalised(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]))
    assert found[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[0].std().item() == pytest.approx(1, abs=1e-4)
    assert found[1].tolist() == [0, 0, 0]


def test_advantages_do_not_see_a_constant():
    rewards = torch.tensor([[0.3, 0.9, -2.0]])
    assert torch.allclose(algorithms.leave_one_out(rewards), algorithms.leave_one_out(rewards + 7), atol=1e-5)


def test_a_group_without_spread_is_found():
    rewards = torch.tensor([[1.0, 1.0], [1.0, 1.1], [1.0, 1.0 + 1e-5], [1.0, 1.001]])
    assert algorithms.without_spread(rewards).tolist() == [True, False, True, False]


def test_the_loss_by_hand():
    log_probs = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    found = algorithms.loss(log_probs, torch.tensor([2.0, 2.0, -1.0]), tokens=3)
    found.backward()
    assert found.item() == pytest.approx((2 + 4 - 4) / 3)
    assert log_probs.grad.tolist() == pytest.approx([-2 / 3, -2 / 3, 1 / 3])


def test_a_penalty_on_kl_pulls_towards_the_start():
    """Two rollouts of equal reward: the one the policy has come to prefer loses, the other wins."""
    paid = policy.per_rollout(policy.kl(torch.tensor([-0.2, -1.8]), torch.tensor([-0.7, -0.7])), [1, 1])
    found = algorithms.leave_one_out((torch.tensor([1.0, 1.0]) - 0.1 * paid)[None])
    assert found[0, 0] < 0 < found[0, 1]


def test_normalised_by_hand():
    # The mean is 3, the spread √((4 + 1 + 9) / 2).
    expected = [each / math.sqrt(7) for each in (-2, -1, 3)]
    assert algorithms.normalised(WORTH)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_best_by_hand():
    worth = torch.tensor([[1.0, 2.0, 6.0], [5.0, 3.0, 5.0], [0.0, -1.0, -2.0]])
    assert algorithms.best(worth).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]


def test_what_differs_by_rounding_is_equally_good():
    assert algorithms.best(torch.tensor([[1.0, 1.0 + 1e-6, 0.0]])).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("algorithm", algorithms.ADVANTAGES)
def test_a_group_without_spread_teaches_nothing(algorithm):
    found = algorithms.lesson(algorithm, WORTH, WORTH)
    assert found.advantages[1].tolist() == [0, 0, 0] and not found.taught[1].any()
    assert found.taught[0].any() and found.advantages[0].abs().max() > 0


def test_only_the_best_is_learnt_from_where_that_is_the_algorithm():
    assert algorithms.lesson("best", WORTH, WORTH).taught.tolist() == [[False, False, True], [False] * 3]
    assert algorithms.lesson("rloo", WORTH, WORTH).taught.tolist() == [[True] * 3, [False] * 3]
    assert algorithms.lesson("grpo", WORTH, WORTH).taught.tolist() == [[True] * 3, [False] * 3]


PAID = torch.tensor([[2.0, 4.0, 9.0]])  # nats, by three rollouts that all earn the same
SAME = torch.ones(1, 3)


def of_equals(algorithm, beta):
    return algorithms.lesson(algorithm, SAME - beta * PAID, SAME)


def test_where_all_earn_the_same_they_are_pulled_back_by_beta_and_no_more():
    """Divided by their own spread, the KLs would push as hard at a β of a thousandth as at one of 1."""
    for algorithm in ("rloo", "grpo"):
        for beta in (0.1, 0.001):
            found = of_equals(algorithm, beta)
            expected = [4.5 * beta, 1.5 * beta, -6 * beta]
            assert found.advantages[0].tolist() == pytest.approx(expected, abs=1e-6) and found.taught.all()
    assert not of_equals("grpo", 0).taught.any()


def test_where_all_earn_the_same_there_is_no_best_one_to_imitate():
    """All cut off, or all wrong: that one of them came more cheaply makes it no example."""
    assert not of_equals("best", 0.1).taught.any()
    assert algorithms.lesson("best", SAME - 0.1 * PAID, torch.tensor([[1.0, 1.0, 2.0]])).taught.any()


def clipped_loss(ratios, advantages, clip=0.2):
    sampled = torch.full((len(ratios),), -1.0)
    log_probs = (sampled + torch.tensor(ratios).log()).requires_grad_()
    found = algorithms.clipped_loss(log_probs, sampled, torch.tensor(advantages), len(ratios), clip)
    found.backward()
    gone = algorithms.clipped(log_probs.detach(), sampled, torch.tensor(advantages), clip)
    return found.item(), log_probs.grad, gone


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 1.0, -1.2, 0.0),  # likelier by more than a fifth: that is enough
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),  # less likely by more than a fifth: that is enough
        (1.5, -1.0, 1.5, 1.5),  # went the wrong way: all the way back
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_the_clipped_loss_by_hand(ratio, advantage, loss, slope):
    found, gradient, gone = clipped_loss([ratio], [advantage])
    assert found == pytest.approx(loss, abs=1e-6)
    assert gradient.tolist() == pytest.approx([slope], abs=1e-6)
    assert gone.tolist() == [slope == 0]


def test_what_is_counted_as_clipped_is_what_has_no_gradient():
    chances = torch.Generator().manual_seed(0)
    ratios = (0.5 * torch.randn(500, generator=chances)).exp().tolist()
    advantages = torch.randn(500, generator=chances).tolist()
    _, gradient, gone = clipped_loss(ratios, advantages)
    assert 0.1 < gone.float().mean() < 0.9
    assert torch.equal(gradient == 0, gone)


def test_at_the_first_update_the_clipped_loss_has_the_gradient_of_reinforce():
    sampled, advantages = torch.tensor([-1.0, -2.0, -0.1]), torch.tensor([0.5, -2.0, 1.0])
    one, other = (sampled.clone().requires_grad_() for _ in range(2))
    algorithms.clipped_loss(one, sampled, advantages, 3, 0.2).backward()
    algorithms.loss(other, advantages, 3).backward()
    assert torch.allclose(one.grad, other.grad)


def test_losses_of_portions_add_up():
    now, then = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.5, -1.0, -0.5])
    weights = torch.tensor([1.0, -2.0, 0.3])
    whole = algorithms.clipped_loss(now, then, weights, 3, 0.2)
    parts = sum(
        algorithms.clipped_loss(now[each], then[each], weights[each], 3, 0.2) for each in ([0, 2], [1])
    )
    assert parts.item() == pytest.approx(whole.item(), abs=1e-6)


def test_drift_by_hand_is_never_negative_and_approaches_the_true_kl():
    found = algorithms.drift(torch.tensor([-1.0, -1.0 + math.log(2)]), torch.tensor([-1.0, -1.0]))
    assert found.tolist() == pytest.approx([0.0, 2 - 1 - math.log(2)], abs=1e-6)
    before, after = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.4, 0.1, -0.3])
    chances = before.softmax(-1)
    true = float((chances * (before.log_softmax(-1) - after.log_softmax(-1))).sum())
    drawn = torch.multinomial(chances, 50_000, True, generator=torch.Generator().manual_seed(0))
    sampled, now = before.log_softmax(-1)[drawn], after.log_softmax(-1)[drawn]
    found = algorithms.drift(now, sampled)
    assert float(found.min()) >= 0 and float(found.mean()) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(4.0, 1.0), (4.4, 1.01), (8.0, 1.02), (400.0, 1.02), (3.6, 0.99), (0.0, 0.98), (-1.0, 0.98)],
)
def test_beta_follows_the_kl_by_hand(kl, factor):
    assert algorithms.adapted(0.1, kl, target=4.0) == pytest.approx(0.1 * factor)


def test_beta_settles_where_the_kl_is_at_its_target():
    """A policy whose KL is 1/β, as one that has gone as far as it pays."""
    beta = 0.05
    for _ in range(400):
        beta = algorithms.adapted(beta, 1 / beta, target=5.0)
    assert 1 / beta == pytest.approx(5.0, rel=0.01)


def test_clipping_is_for_what_was_sampled_by_an_older_policy():
    assert algorithms.is_clipped("grpo", 1) and algorithms.is_clipped("rloo", 2)
    assert not algorithms.is_clipped("rloo", 1) and not algorithms.is_clipped("best", 4)
