"""The demo's story on one seed: against its reward model alone a policy rises and falls, pulled to its start
it holds, and the checkpoint that is suggested keeps most of what was gained: in the first sixty steps. The
benchmark tells of three seeds and all ninety.
"""

import pytest

from benchmarks import overoptimisation


@pytest.fixture(scope="module")
def told():
    return overoptimisation.measure(seeds=1, steps=60)[0]


def test_without_a_pull_to_the_start_the_taste_rises_and_falls_while_the_score_ends_higher(told):
    (fell,) = told["beta0"]
    assert fell["peak"] >= fell["start"] + 0.08
    assert fell["end"] <= fell["peak"] - 0.15
    assert fell["reward"][1] > fell["reward"][0]


def test_the_suggested_checkpoint_keeps_most_of_the_rise(told):
    (fell,) = told["beta0"]
    # The mean over seeds is the benchmark's; where one seed goes differs from processor to processor.
    assert fell["crop"] and fell["kept"] >= 0.7


def test_with_the_demo_s_own_pull_it_holds_and_no_crop_is_suggested(told):
    (held,) = told["default"]
    assert held["end"] >= held["peak"] - 0.1 and held["peak"] >= held["start"] + 0.08
    assert held["crop"] is None
