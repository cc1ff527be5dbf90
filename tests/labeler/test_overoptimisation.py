"""The demo's story on one seed: against its reward model alone a policy rises and falls, pulled to its start
it holds, and the checkpoint that is suggested keeps most of what was gained: in the first sixty steps. The
benchmark tells of three seeds and all ninety.
"""

from benchmarks import overoptimisation


def test_without_a_pull_it_rises_and_falls_with_one_it_holds_and_the_crop_keeps_the_rise(subtests):
    told = overoptimisation.measure(1, steps=60)[0]
    (fell,), (held,) = told["beta0"], told["default"]
    with subtests.test("without a pull to the start the taste rises and falls while the score ends higher"):
        assert fell["peak"] >= fell["start"] + 0.08
        assert fell["end"] <= fell["peak"] - 0.15
        assert fell["reward"][1] > fell["reward"][0]
    with subtests.test("the suggested checkpoint keeps most of the rise"):
        # The mean over seeds is the benchmark's; where one seed goes differs from processor to processor.
        assert fell["crop"] and fell["kept"] >= 0.7
    with subtests.test("with the demo's own pull it holds, and no crop is suggested"):
        assert held["end"] >= held["peak"] - 0.1 and held["peak"] >= held["start"] + 0.08
        assert held["crop"] is None
