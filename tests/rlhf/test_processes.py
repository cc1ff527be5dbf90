"""Two processes on one processor, as torchrun starts them: the losses of one, and one writer."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from rlhf import processes
from rlhf.execute import FINISHED, execute
from rlhf.run import RunDirectory
from tests.rlhf import tiny

FAST = {
    "learning_rate": 3e-3, "batch": 8, "evaluate_every": 3, "checkpoint_every": 4, "sample_quintets": 2,
    "epochs": 2, "members": 2, "labeler_weights": "agreement",
}  # fmt: skip


@pytest.fixture
def directory(policy_folder, tmp_path):
    def make(name, **values):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", 24)
        return tiny.run_directory(tmp_path / name, "reward", policy_folder, dataset, **FAST | values)

    return make


def run_by_two(path, *arguments):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "rlhf", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads((path / "result.json").read_text())


def read(path, name="steps.jsonl"):
    lines = [json.loads(line) for line in (path / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights_of(path, result):
    folder = path / result["checkpoint"]
    return {
        name: weight
        for file in ("model.safetensors", "heads.safetensors")
        for name, weight in safetensors.torch.load_file(folder / file).items()
    }


def test_two_processes_give_the_losses_of_one(directory):
    alone, both = directory("alone"), directory("both")
    assert execute(alone) == FINISHED
    result = run_by_two(both)
    assert result["state"] == "finished"
    expected, found = read(alone), read(both)
    assert [line["step"] for line in found] == [line["step"] for line in expected]  # told once, not twice
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "held_out_loss", "spread"):
            assert other.get(name) == pytest.approx(one.get(name), abs=1e-4)
    assert len(read(both, "samples.jsonl")) == len(read(alone, "samples.jsonl"))
    first, second = (
        weights_of(alone, json.loads((alone / "result.json").read_text())),
        weights_of(both, result),
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


def test_two_processes_heed_a_wish_to_stop_and_go_on_from_there(directory):
    whole, path = directory("whole"), directory("run")
    assert execute(whole) == FINISHED
    (path / "cancel").touch()
    stopped = run_by_two(path)
    assert (stopped["state"], stopped["step"]) == ("cancelled", 1)
    assert run_by_two(path)["state"] == "finished"
    expected, found = ([line["loss"] for line in read(each)] for each in (whole, path))
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_goes_wrong_is_told_by_the_first_and_ends_both(directory):
    path = directory("run")
    (path / "dataset.jsonl").write_text('{"prompt": "p", "rollouts": ["a", "b"], "ranks": [1, 1]}\n')
    with pytest.raises(AssertionError):
        run_by_two(path)
    result = json.loads((path / "result.json").read_text())
    assert (result["state"], result["field"]) == ("failed", "dataset")


def test_alone_nothing_is_shared_out():
    assert processes.count() == 1 and processes.rank() == 0
    assert processes.share([[1], [2]]) == [[1], [2]]
    assert processes.portion(8, 3) == 8
    assert processes.agree("bf16") == "bf16"
    assert processes.sum_gradients([], 0.5) == 0.5
    assert type(processes.directory(".")) is RunDirectory
