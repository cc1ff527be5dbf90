"""Two processes on one processor, as torchrun starts them: where one ends, with one writer."""

# ruff: noqa: F811
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from rlhf import __main__ as command
from rlhf import config, launch, processes, train_policy
from rlhf.execute import FAILED, FINISHED, TRY_AGAIN, execute
from rlhf.run import Failed, RunDirectory
from tests.rlhf import tiny
from tests.rlhf.test_policy_runs import KINDS
from tests.rlhf.test_practice import practising
from tests.rlhf.test_train_policy import judge, lines, prepared, result, start, told  # noqa: F401
from tests.rlhf.test_train_sft_trouble import made as supervised

FAST = {
    "learning_rate": 3e-3, "batch": 8, "evaluate_every": 3, "checkpoint_every": 4, "sample_quintets": 2,
    "epochs": 2, "members": 2, "labeler_weights": "agreement",
}  # fmt: skip
POLICIES = ("rloo", "grpo", "best", "adapters")
PRACTICE = {
    "steps": 3, "prompts_per_step": 3, "checker": "number", "learning_rate": 0.02, "format_weight": 1.0,
    "format": "[aeiou]",
}  # fmt: skip


@pytest.fixture
def directory(policy_folder, tmp_path):
    def make(name, **values):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", 24)
        return tiny.run_directory(tmp_path / name, "reward", policy_folder, dataset, **FAST | values)

    return make


@pytest.fixture(scope="module")
def launched(policy_folder, start, judge, tmp_path_factory):
    """A folder of runs that one process has finished, and of copies that two have, in one launch for all."""
    folder = tmp_path_factory.mktemp("launched")
    dataset = tiny.rankings(folder / "rankings.jsonl", 24)
    tiny.run_directory(
        folder / "reward", "reward", policy_folder, dataset, **FAST, learning_curve=True, held_out=0.3
    )
    supervised(folder / "sft", policy_folder)
    for kind in POLICIES:
        settings = {"steps": 3, "prompts_per_step": 3, "learning_rate": 0.02} | KINDS[kind]
        prepared(folder / kind, start, judge, **settings)
    practising(prepared(folder / "practice", start, judge), "3", **PRACTICE)
    practising(prepared(folder / "nothing", start, judge), "12345", steps=1, checker="number")
    killed = folder / "killed together"
    shutil.copytree(folder / "adapters", killed)
    with pytest.raises(tiny.Killed):
        train_policy.train(tiny.Doomed(killed, 3), config.read(killed))
    commands = [[killed]]
    for name in ("reward", "sft", *POLICIES, "practice", "nothing"):
        alone, both = folder / name, folder / f"{name} together"
        if name != "reward":
            shutil.copytree(alone, both)
        assert execute(alone) == FINISHED
        if name == "reward":  # it has finished and is run again
            shutil.copytree(alone, both)
            (both / "checkpoints/step-000001").mkdir()  # of an earlier attempt
        commands.append([both, "--afresh"] if name == "reward" else [both])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    told = [shlex.join(map(str, each)) for each in commands]
    done = subprocess.run(
        [*torchrun, "-m", "tests.rlhf.by_two", folder, *told], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def pair(launched):
    """Of one name, what one process has made and what two have."""

    def of(name):
        alone, both = launched / name, launched / f"{name} together"
        assert result(both)["state"] == "finished", result(both)
        return alone, both

    return of


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


def test_two_processes_give_a_reward_model_the_losses_of_one(pair):
    alone, both = pair("reward")
    expected, found = read(alone), read(both)
    assert [line["step"] for line in found] == [line["step"] for line in expected]  # told once, not twice
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "held_out_loss", "spread"):
            assert other.get(name) == pytest.approx(one.get(name), abs=1e-4)
    assert len(read(both, "samples.jsonl")) == len(read(alone, "samples.jsonl"))
    first, second = weights_of(alone), weights_of(both)
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


def test_the_first_judges_and_all_of_them_train_the_parts_of_the_curve(pair):
    expected, found = (json.loads((path / "evaluation.json").read_text()) for path in pair("reward"))
    assert [point["rankings"] for point in found["learning_curve"]] == [
        point["rankings"] for point in expected["learning_curve"]
    ]
    for one, other in zip(expected["learning_curve"], found["learning_curve"], strict=True):
        assert other["accuracy"]["value"] == pytest.approx(one["accuracy"]["value"], abs=0.03)
    assert found["accuracy"]["value"] == pytest.approx(expected["accuracy"]["value"], abs=0.03)
    _, both = pair("reward")
    assert not (both / "curve").exists() and not list(both.glob(".*.part"))
    log = (both / "log.txt").read_text()
    assert log.count(found["claims"][0]) == log.count(found["more_labels"]) == 1


def test_two_processes_run_again_what_has_finished_afresh(pair):
    alone, both = pair("reward")
    assert not (both / "checkpoints/step-000001").exists()
    name = "evaluation.json"
    assert (both / name).read_bytes() != (alone / name).read_bytes()  # measured again


def test_two_processes_give_supervised_finetuning_the_losses_of_one(pair):
    alone, both = pair("sft")
    expected, found = read(alone), read(both)
    assert [line["step"] for line in found] == [line["step"] for line in expected]  # told once, not twice
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "held_out_loss"):
            assert other.get(name) == pytest.approx(one.get(name), abs=1e-4)
        assert one["tokens"] == other["tokens"]
    assert len(read(both, "samples.jsonl")) == len(read(alone, "samples.jsonl"))


@pytest.mark.parametrize("kind", POLICIES)
def test_two_processes_end_where_one_does(pair, kind):
    alone, both = pair(kind)
    rows = zip(lines(alone, "rollouts.jsonl.zst"), lines(both, "rollouts.jsonl.zst"), strict=True)
    assert all(one["tokens"] == other["tokens"] for one, other in rows)
    for one, other in zip(told(alone), told(both), strict=True):
        assert set(one) == set(other)
        for name in set(one) - {"step", "crop", "rollouts"}:
            assert other[name] == pytest.approx(one[name], rel=1e-2, abs=2e-3), name
    for one, other in zip(lines(alone, "samples.jsonl"), lines(both, "samples.jsonl"), strict=True):
        assert one["rollout"] == other["rollout"] and one["kl"] == pytest.approx(other["kl"], abs=1e-2)


def test_two_processes_go_on_where_one_was_killed(pair):
    (alone, _), (_, killed) = pair("adapters"), pair("killed")
    assert [each["step"] for each in lines(killed)] == [1, 2, 3]
    assert "Going on after step" in (killed / "log.txt").read_text()
    for one, other in zip(lines(alone), lines(killed), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=2e-3)


def test_two_processes_that_practise_end_where_one_does(pair):
    """Hardly anything is correct here, so that what is learnt from is the form."""
    alone, both = pair("practice")
    for one, other in zip(told(alone), told(both), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, float):
                assert other[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name
    drawn = [[each["tokens"] for each in lines(path, "rollouts.jsonl.zst")] for path in (alone, both)]
    assert drawn[0] == drawn[1]


def test_two_processes_get_over_a_step_that_teaches_nothing(pair):
    _, both = pair("nothing")
    assert lines(both)[1]["mixed"] == 0 == lines(both)[1]["grad_norm"]


def test_what_happens_to_one_process_is_heard_by_both(launched):
    heard = [json.loads((launched / f"heard-{rank}.json").read_text()) for rank in (0, 1)]
    assert heard[0] == heard[1]
    assert (heard[0]["fitted"], heard[0]["at_once"]) == ([0, 1], 2)
    assert heard[0]["shared"] == ["aa", "bb", "cc"]
    assert heard[0]["failed"] == ["No reward for rollout 3.", "Mend it.", "reward"]


def test_what_goes_wrong_is_told_by_the_first_and_ends_both(directory):
    path = directory("run")
    (path / "dataset.jsonl").write_text('{"prompt": "p", "rollouts": ["a", "b"], "ranks": [1, 1]}\n')
    both = started(path)
    _, told = both.communicate(timeout=180)
    assert both.returncode == FAILED
    assert told == "No ranking says that one rollout is better than another. Rank some more.\n"
    assert (result(path)["state"], result(path)["field"]) == ("failed", "dataset")


def test_several_processes_that_are_stopped_end_as_one_would_and_go_on(directory):
    long = {"epochs": 40, "evaluate_every": 20, "checkpoint_every": 30}
    whole, path = directory("whole", **long), directory("run", **long)
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
