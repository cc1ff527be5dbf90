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


def test_without_a_pause_every_prompt_comes_as_often_as_any_other_and_never_twice_in_a_step():
    found = steps(Curriculum(6, seed=3), 3, 6, solved=lambda number: number % 2)
    assert found == [batch.drawn(6, 3, step, 3) for step in range(1, 7)]
    for prompts, size in ((7, 4), (5, 4), (9, 8), (3, 2)):
        for seed in range(6):
            drawn = steps(Curriculum(prompts, seed), size, prompts * 5, solved=lambda number: number % 2)
            assert all(len(set(step)) == len(step) == size for step in drawn)
            often = [sum(number in step for step in drawn) for number in range(prompts)]
            assert max(often) - min(often) <= 1


def test_who_is_owed_a_turn_comes_first_in_the_next_step():
    seed = next(s for s in range(99) if batch.order(3, 1, s)[0] == batch.order(3, 0, s)[2])
    order, both = Curriculum(3, seed), batch.order(3, 0, seed) + batch.order(3, 1, seed)
    assert [order.draw(2), order.draw(2)] == [both[:2], [both[2], both[4]]]
    assert order.state()["owed"] == [both[3]] and order.draw(2) == [both[3], both[5]]


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
    order.note([0], [1.0])
    assert order.waiting == 1
    assert [order.draw(2) for _ in range(3)] == [[1]] * 3
    assert order.waiting == 0 and 0 in order.aside  # its turn is next


def test_a_step_that_wants_all_prompts_leaves_out_those_that_are_set_aside():
    """Drawing on until all are there would outwait every pause within the step."""
    order = Curriculum(4, seed=1, pause=1)
    drawn = steps(order, 4, 6, solved=lambda number: 0.5 if number == 2 else 1.0)
    assert sorted(drawn[0]) == [0, 1, 2, 3] == sorted(drawn[2])  # passed over once, then twice
    assert drawn[1] == drawn[3] == drawn[4] == [2]
    assert sorted(drawn[5]) == [0, 1, 2, 3]


def test_a_step_has_each_prompt_once_and_never_waits_for_ever():
    order = Curriculum(5, seed=1, pause=100)
    assert sorted(order.draw(5)) == [0, 1, 2, 3, 4]
    order.note(range(5), [0.0] * 5)
    for _ in range(20):
        drawn = order.draw(5)
        assert drawn and len(drawn) == len(set(drawn))
        order.note(drawn, [0.0] * len(drawn))


@pytest.mark.parametrize(("prompts", "size", "pause"), [(30, 6, 2), (7, 5, 0), (6, 6, 1)])
def test_taken_up_from_its_state_it_goes_on_with_the_same_prompts(prompts, size, pause):
    share = {number: (0.0, 0.4, 1.0)[number % 3] for number in range(prompts)}
    whole, broken = Curriculum(prompts, 5, pause), Curriculum(prompts, 5, pause)
    expected = steps(whole, size, 40, share.get)
    found = steps(broken, size, 17, share.get)
    days_later = Curriculum(prompts, 5, pause)
    days_later.restore(json.loads(json.dumps(broken.state())))
    assert found + steps(days_later, size, 23, share.get) == expected
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
