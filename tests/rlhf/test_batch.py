"""Rows of tokens: who sees whom, at which position, and which examples a step draws."""

import pytest
import torch

from rlhf import batch
from rlhf.batch import Example

ONE = Example([1, 2, 3], [[4, 5], [6]])
TWO = Example([7], [[8], [9], [10, 11]])


def test_a_shared_row_holds_the_prompt_once_and_restarts_positions():
    rows = batch.shared_rows([ONE, TWO], pad=0)
    assert rows.ids.tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 1, 1, 2, 0]]
    assert rows.segments.tolist() == [[0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 3, batch.NOWHERE]]
    assert rows.ends.tolist() == [[4, 5, 0], [1, 2, 4]]


def test_a_packed_row_holds_quintets_behind_each_other_and_is_of_few_lengths():
    row, spare = batch.packed_row([ONE, TWO]), [0] * (batch.SHAPES - 11)
    assert row.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, *spare]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 1, 1, 2, *spare]]
    assert row.ends.tolist() == [[4, 5, 0], [7, 8, 10]]
    assert [batch.spare(each) for each in (1, 63, 64, 65)] == [63, 1, 0, 63]


def test_padded_rows_repeat_the_prompt_for_every_rollout():
    rows = batch.padded_rows([ONE, TWO], pad=0)
    assert rows.ids.tolist() == [
        [1, 2, 3, 4, 5], [1, 2, 3, 6, 0], [1, 2, 3, 0, 0], [7, 8, 0, 0, 0], [7, 9, 0, 0, 0], [7, 10, 11, 0, 0]
    ]  # fmt: skip
    assert rows.there.sum(1).tolist() == [5, 4, 3, 2, 2, 3]
    assert rows.ends.tolist() == [[4, 3, 2], [1, 1, 2]]


def test_a_rollout_sees_its_prompt_and_its_own_past_only():
    seen = batch.block_mask(batch.shared_rows([ONE], pad=0), torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]


def test_a_window_counts_restarted_positions():
    seen = batch.block_mask(batch.shared_rows([ONE], pad=0), torch.float32, window=2)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0, 1],
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_mask_is_added_and_never_infinite(dtype):
    mask = batch.block_mask(batch.shared_rows([ONE, TWO], pad=0), dtype)
    assert mask.dtype == dtype
    assert torch.isfinite(mask).all()


def test_what_fits_is_left_alone():
    assert batch.fit([1, 2, 3], [[4, 5], [6]], 5) == ONE
    assert batch.fit([1, 2, 3], [[4, 5], [6]], None) == ONE


def test_a_long_prompt_loses_its_beginning():
    assert batch.fit([1, 2, 3], [[4, 5], [6]], 4) == Example([2, 3], [[4, 5], [6]], prompt_cut=True)


def test_a_rollout_is_cut_only_when_the_prompt_is_down_to_its_last_token_and_is_counted():
    found = batch.fit([1, 2, 3], [[4, 5, 6, 7], [8]], 3)
    assert found == Example([3], [[4, 5], [8]], prompt_cut=True, rollouts_cut=1)


def test_an_epoch_draws_every_example_once_and_the_next_in_another_order():
    epochs = [
        [n for step in range(1, 6) for n in batch.drawn(20, 4, step + 5 * epoch, 0)] for epoch in (0, 1)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 2
    assert epochs[0] != epochs[1]


def test_batches_run_across_the_end_of_an_epoch():
    drawn = [n for step in range(1, 8) for n in batch.drawn(7, 3, step, 0)]
    assert all(sorted(drawn[start : start + 7]) == list(range(7)) for start in (0, 7, 14))


def test_a_batch_larger_than_the_data_is_the_data():
    assert sorted(batch.drawn(3, 16, 1, 0)) == [0, 1, 2]
    assert batch.steps_of(3, 16, 2.0) == 2


def test_the_seed_alone_decides_the_order():
    assert batch.drawn(50, 8, 3, seed=1) == batch.drawn(50, 8, 3, seed=1) != batch.drawn(50, 8, 3, seed=2)


def test_portions_hold_every_example_once_and_similar_lengths_together():
    examples = [Example([0] * length, [[1]]) for length in (9, 1, 8, 2, 7)]
    assert batch.portions(examples, 2) == [[1, 3], [4, 2], [0]]


def test_a_portion_holds_no_more_tokens_than_it_may_save_one_example_alone():
    examples = [Example([0] * length, [[1]]) for length in (9, 1, 8, 2, 7)]
    assert batch.portions(examples, 8, tokens=12) == [[1, 3], [4], [2], [0]]
    assert batch.portions(examples, 8, tokens=5) == [[1, 3], [4], [2], [0]]
    assert batch.portions(examples, 8, tokens=1000) == [[1, 3, 4, 2, 0]]
    assert batch.portions([], 8) == []
