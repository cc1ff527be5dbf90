"""Which prompts come, which wait and for how long, and which groups are learnt from."""

import json

import pytest

from rlhf import batch
from rlhf.curriculum import LONGEST, Curriculum, most_mixed


def steps(order, size, count, solved=lambda number: 0.5):
    """The prompts of so many steps, where each prompt is solved to this share."""
    found = []
    for _ in range(count):
        drawn = order.draw(size)
        order.note(drawn, [solved(number) for number in drawn])
        found.append(drawn)
    return found


def test_without_a_pause_the_prompts_are_those_that_follow_from_the_step_alone():
    found = steps(Curriculum(7, seed=3), 4, 6, solved=lambda number: number % 2)
    assert found == [batch.drawn(7, 4, step, 3) for step in range(1, 7)]


def test_a_prompt_that_is_always_or_never_solved_is_passed_over_and_longer_each_time():
    order = Curriculum(4, seed=0, pause=1)
    drawn = [
        number for each in steps(order, 1, 60, solved=lambda number: float(number == 2)) for number in each
    ]
    assert set(drawn) == {0, 1, 2, 3}  # all come back
    mixed = Curriculum(4, seed=0, pause=1)
    often = [
        number for each in steps(mixed, 1, 60, lambda number: 0.5 if number == 1 else 0.0) for number in each
    ]
    assert often.count(1) > 2 * max(often.count(number) for number in (0, 2, 3))


def test_how_long_it_waits_by_hand():
    order = Curriculum(2, seed=0, pause=3)
    waits = []
    for _ in range(6):
        order.note([0], [1.0])
        waits.append(order.aside[0][0])
    assert waits == [3, 6, 12, 24, 3 * LONGEST, 3 * LONGEST]
    order.note([0], [0.25])
    assert 0 not in order.aside and order.waiting == 0


def test_a_step_has_each_prompt_once_and_never_waits_for_ever():
    order = Curriculum(5, seed=1, pause=100)
    for _ in range(20):
        drawn = order.draw(5)
        assert sorted(drawn) == [0, 1, 2, 3, 4]
        order.note(drawn, [0.0] * 5)


def test_taken_up_from_its_state_it_goes_on_with_the_same_prompts():
    share = {number: (0.0, 0.4, 1.0)[number % 3] for number in range(30)}
    whole, broken = Curriculum(30, 5, 2), Curriculum(30, 5, 2)
    expected = steps(whole, 6, 40, share.get)
    found = steps(broken, 6, 17, share.get)
    days_later = Curriculum(30, 5, 2)
    days_later.restore(json.loads(json.dumps(broken.state())))
    assert found + steps(days_later, 6, 23, share.get) == expected
    assert days_later.state() == whole.state()


@pytest.mark.parametrize(
    ("solved", "count", "kept"),
    [
        ([0, 1, 0.5, 0.25], 2, [False, False, True, True]),
        ([0, 1, 0, 1], 2, [True, True, False, False]),
        ([0.9, 0.5, 0.1], 3, [True, True, True]),
        ([0.875, 0.125, 0.75], 1, [False, False, True]),
        ([0.25, 0.75, 1], 1, [True, False, False]),
    ],
)
def test_the_most_mixed_groups_are_learnt_from(solved, count, kept):
    assert most_mixed(solved, count) == kept
