"""Two processes on one processor, as torchrun starts them: the losses of one, and one writer."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from rlhf import __main__ as command
from rlhf import config, launch, processes
from rlhf.execute import FAILED, FINISHED, TRY_AGAIN, execute
from rlhf.run import Failed, RunDirectory
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


@pytest.fixture(scope="module")
def finished(policy_folder, tmp_path_factory):
    """A run that one process has finished, and a copy of it that two have run again afresh."""
    folder = tmp_path_factory.mktemp("finished")
    settings = FAST | {"learning_curve": True, "held_out": 0.3}
    dataset = tiny.rankings(folder / "rankings.jsonl", 24)
    alone, both = (
        tiny.run_directory(folder / "alone", "reward", policy_folder, dataset, **settings),
        folder / "both",
    )
    assert execute(alone) == FINISHED
    shutil.copytree(alone, both)
    (both / "checkpoints/step-000001").mkdir()  # of an earlier attempt
    command = [*tiny.TORCHRUN, "-m", "rlhf", both, "--afresh"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert result(both)["state"] == "finished"
    return alone, both


def result(path):
    return json.loads((path / "result.json").read_text())


def started(path, *arguments):
    """By ourselves, without torchrun's command."""
    command = [sys.executable, "-m", "rlhf", str(path), "--processes", "2", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(path, name="steps.jsonl"):
    lines = [json.loads(line) for line in (path / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights_of(path):
    folder = path / result(path)["checkpoint"]
    return {
        name: weight
        for file in ("model.safetensors", "heads.safetensors")
        for name, weight in safetensors.torch.load_file(folder / file).items()
    }


def test_two_processes_give_the_losses_of_one(finished):
    alone, both = finished
    expected, found = read(alone), read(both)
    assert [line["step"] for line in found] == [line["step"] for line in expected]  # told once, not twice
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "held_out_loss", "spread"):
            assert other.get(name) == pytest.approx(one.get(name), abs=1e-4)
    assert len(read(both, "samples.jsonl")) == len(read(alone, "samples.jsonl"))
    first, second = weights_of(alone), weights_of(both)
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


def test_two_processes_run_again_what_has_finished_afresh(finished):
    alone, both = finished
    assert not (both / "checkpoints/step-000001").exists()
    name = "evaluation.json"
    assert (both / name).read_bytes() != (alone / name).read_bytes()  # measured again


def test_what_goes_wrong_is_told_by_the_first_and_ends_both(directory):
    path = directory("run")
    (path / "dataset.jsonl").write_text('{"prompt": "p", "rollouts": ["a", "b"], "ranks": [1, 1]}\n')
    both = started(path)
    _, told = both.communicate(timeout=180)
    assert both.returncode == FAILED
    assert told == "No ranking says that one rollout is better than another. Rank some more.\n"
    assert (result(path)["state"], result(path)["field"]) == ("failed", "dataset")


def test_the_first_judges_and_all_of_them_train_the_parts_of_the_curve(finished):
    expected, found = (json.loads((path / "evaluation.json").read_text()) for path in finished)
    assert [point["rankings"] for point in found["learning_curve"]] == [
        point["rankings"] for point in expected["learning_curve"]
    ]
    for one, other in zip(expected["learning_curve"], found["learning_curve"], strict=True):
        assert other["accuracy"]["value"] == pytest.approx(one["accuracy"]["value"], abs=0.03)
    assert found["accuracy"]["value"] == pytest.approx(expected["accuracy"]["value"], abs=0.03)
    _, both = finished
    assert not (both / "curve").exists() and not list(both.glob(".*.part"))
    log = (both / "log.txt").read_text()
    assert log.count(found["claims"][0]) == log.count(found["more_labels"]) == 1


def test_several_processes_that_are_stopped_end_as_one_would_and_go_on(directory):
    whole, path = directory("whole", epochs=40), directory("run", epochs=40)
    assert execute(whole) == FINISHED
    both, until = started(path), time.monotonic() + 120
    while not (path / "steps.jsonl").exists() or len(read(path)) < 5:
        assert both.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    both.send_signal(signal.SIGTERM)
    both.communicate(timeout=120)
    assert both.returncode == TRY_AGAIN and not (path / "result.json").exists()
    last = read(path)[-1]["step"]
    (path / "cancel").touch()
    again = started(path)
    _, told = again.communicate(timeout=180)
    assert again.returncode == FINISHED, told
    ended = result(path)
    assert (ended["state"], ended["step"]) == ("cancelled", last + 1)  # no step was lost, none taken twice
    assert execute(path) == FINISHED  # one alone goes on where two were
    expected, found = (read(each) for each in (whole, path))
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(expected[:20], found[:20], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-3)


def test_only_kinds_that_share_their_work_take_several_processes(tmp_path, capsys):
    path = tmp_path / "run"
    config.write(path, config.make("rollouts", {}))
    for number, words in (
        ("2", "A run of kind rollouts takes one process."),
        ("0", "A run takes at least one process."),
    ):
        assert command.main([str(path), "--processes", number]) == FAILED
        assert capsys.readouterr().err == f"{words}\n"
    assert not (path / "result.json").exists()


def test_whoever_kills_one_of_them_is_told_apart_from_a_wish_to_stop():
    assert launch._status({0: TRY_AGAIN, 1: -signal.SIGKILL}) == FAILED
    assert launch._status({0: TRY_AGAIN, 1: FAILED}) == TRY_AGAIN  # another process is at work there
    assert launch._status({0: FAILED, 1: -signal.SIGTERM}) == FAILED


def test_what_fails_at_the_first_fails_at_all(tmp_path, monkeypatch):
    """A step that cannot be written ends the others with the same words, in place of leaving them waiting."""
    sent = []
    monkeypatch.setattr(processes, "agree", lambda value: sent.append(value) or value)
    with pytest.raises(Failed):
        processes.Led(tmp_path).step(1, loss=float("nan"))
    monkeypatch.setattr(processes, "agree", lambda _: sent[-1])
    with pytest.raises(Failed, match="At step 1 the loss"):
        processes.Followed(tmp_path).step(1, loss=0.5)


def test_alone_nothing_is_shared_out():
    assert processes.count() == 1 and processes.rank() == 0
    assert processes.share([[1], [2]]) == [[1], [2]]
    assert processes.portion(8, 3) == 8
    assert processes.agree("bf16") == "bf16"
    assert processes.sum_gradients([], 0.5) == 0.5
    assert type(processes.directory(".")) is RunDirectory
