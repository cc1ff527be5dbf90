"""Going on after a sudden end: whichever step was the last, weights, optimizer and lines are the same."""

import pytest

from rlhf import config
from rlhf.run import RunDirectory
from rlhf.train_reward import train
from tests.rlhf import tiny

STEPS = 9
EVERYTHING = {
    "learning_rate": 3e-2, "batch": 8, "epochs": 3.8, "evaluate_every": 2, "checkpoint_every": 4,
    "sample_quintets": 2, "early_stop": 3, "labeler_weights": "agreement", "margin": 0.1, "members": 2,
}  # fmt: skip


@pytest.fixture
def directory(policy_folder, tmp_path):
    def make(name):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", 24)
        return tiny.run_directory(tmp_path / name, "reward", policy_folder, dataset, **EVERYTHING)

    return make


def run(path):
    return train(RunDirectory(path), config.read(path))


@pytest.fixture(scope="module")
def whole(policy_folder, tmp_path_factory):
    """What a run leaves that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    dataset = tiny.rankings(folder / "rankings.jsonl", 24)
    path = tiny.run_directory(folder / "run", "reward", policy_folder, dataset, **EVERYTHING)
    found = tiny.left(path, run(path), "heads.safetensors")
    assert len(found[0]) == STEPS
    return found


@pytest.mark.parametrize("saved", [False, True], ids=["told", "saved"])
@pytest.mark.parametrize("last", range(1, STEPS + 1))
def test_killed_around_any_step_it_ends_with_the_same_bits(directory, whole, last, saved):
    path = directory("run")
    if not (saved and last == STEPS):  # after that nothing is left to kill
        with pytest.raises(tiny.Killed):
            train(tiny.Doomed(path, last, saved), config.read(path))
    assert tiny.left(path, run(path), "heads.safetensors") == whole


def test_killed_again_and_again_it_ends_with_the_same_bits(directory, whole):
    path = directory("run")
    for last in (6, 5, 7):
        with pytest.raises(tiny.Killed):
            train(tiny.Doomed(path, last), config.read(path))
    assert tiny.left(path, run(path), "heads.safetensors") == whole
