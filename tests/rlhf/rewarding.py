"""Run directories of reward models for tests that train one."""

import json

import pytest

from rlhf import config
from rlhf.run import RunDirectory
from rlhf.train_reward import train
from tests.rlhf import tiny

FAST = {"learning_rate": 3e-3, "batch": 8, "evaluate_every": 3, "checkpoint_every": 4, "sample_quintets": 2}


@pytest.fixture
def directory(policy_folder, tmp_path):
    """A function that makes a run directory."""

    def make(name, count=24, start=policy_folder, **values):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", count)
        return tiny.run_directory(tmp_path / name, "reward", start, dataset, **FAST | values)

    return make


def run(path):
    return train(RunDirectory(path), config.read(path))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(path, outcome):
    folder = path / outcome.checkpoint
    return [(folder / name).read_bytes() for name in ("model.safetensors", "trainer/state.safetensors")]
