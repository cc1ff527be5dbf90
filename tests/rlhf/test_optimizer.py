"""The optimizer: its rates by hand, its state there and back, and gradients that are no numbers."""

import math

import pytest
import torch

from rlhf.optimizer import FLOOR, Optimizer, rate


def layer(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


def take(model, optimizer, value=1.0):
    (model(torch.ones(4, 3)).square().sum() * value).backward()
    return optimizer.step(0.01)


def test_the_rate_rises_straight_and_falls_along_a_cosine():
    rates = [rate(step, total=11, peak=1.0, warmup=3) for step in range(1, 12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[7] == pytest.approx(FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * 4 / 7)))
    assert rates[-1] == pytest.approx(FLOOR)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_run_of_one_step_has_a_rate():
    assert rate(1, total=1, peak=0.5, warmup=0) == 0.5


def test_a_restored_optimizer_goes_on_as_if_nothing_had_been():
    through, stopped = layer(), layer()
    first, second = Optimizer(through, 0.1, 1.0), Optimizer(stopped, 0.1, 1.0)
    for _ in range(3):
        take(through, first)
        take(stopped, second)
    again = Optimizer(stopped, 0.1, 1.0)
    again.restore(second.state())
    take(through, first)
    take(stopped, again)
    assert torch.equal(through.weight, stopped.weight)
    assert torch.equal(through.bias, stopped.bias)


def test_a_gradient_that_is_no_number_changes_no_weight():
    model = layer()
    optimizer = Optimizer(model, 0.0, 1.0)
    before = model.weight.detach().clone()
    assert not math.isfinite(take(model, optimizer, math.nan))
    assert torch.equal(model.weight, before)
    assert math.isfinite(take(model, optimizer))
    assert not torch.equal(model.weight, before)


def test_vectors_do_not_decay():
    model = layer()
    optimizer = Optimizer(model, 0.5, 1.0)
    decays = {
        weight: group["weight_decay"] for group in optimizer.adam.param_groups for weight in group["params"]
    }
    assert (decays[model.weight], decays[model.bias]) == (0.5, 0.0)
