"""Run directories: lines that only grow, checkpoints to go back to, and every way in which a run may end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import zstandard
from safetensors.torch import load_file, save_file

from rlhf import checkpoint, config
from rlhf.execute import FAILED, FINISHED, TRY_AGAIN, execute
from rlhf.optimizer import Optimizer
from rlhf.run import Cancelled, Failed, LineFile, RunDirectory, Stopped
from tests.rlhf import tiny


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(path):
    return json.loads((path / "result.json").read_text())


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@pytest.fixture
def sft(policy_folder, tmp_path):
    """A supervised run of six steps."""
    dataset = tiny.demonstrations(tmp_path / "demonstrations.jsonl")
    values = {
        "batch": 8,
        "epochs": 2.4,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "max_new_tokens": 8,
        "sample_prompts": 1,
    }
    return tiny.run_directory(tmp_path / "run", "sft", policy_folder, dataset, **values)


def save(run, step, policy_folder):
    model, tokenizer = checkpoint.load_policy(policy_folder)
    return run.save(
        step, model, tokenizer, Optimizer(model, 0.0, 1.0), {"kind": "policy"}, {"loss": 1.0}, seen=step
    )


def test_lines_are_appended_and_cut_back(tmp_path):
    lines = LineFile(tmp_path / "steps.jsonl")
    lines.append([{"step": 1}])
    cursor = lines.size
    lines.append([{"step": 2}, {"step": 3}])
    lines.cut(cursor)
    lines.append([{"step": "two"}])
    assert read(lines.path) == [{"step": 1}, {"step": "two"}]


def test_rollouts_are_one_frame_per_append_and_a_cut_leaves_whole_frames(run):
    run.rollouts([{"index": 1}, {"index": 2}])
    cursor = run.lines["rollouts.jsonl.zst"].size
    run.rollouts([{"index": 3}])
    run.lines["rollouts.jsonl.zst"].cut(cursor)
    run.rollouts([{"index": 4}])
    with zstandard.open(run.path / "rollouts.jsonl.zst", "rt") as file:
        assert [json.loads(line)["index"] for line in file] == [1, 2, 4]


def test_a_step_tells_where_its_rollouts_are_also_after_the_files_were_cut_back(run, policy_folder):
    def at(step):
        (line,) = [each for each in read(run.path / "steps.jsonl") if each["step"] == step]
        begin, length = line["rollouts"]
        frame = (run.path / "rollouts.jsonl.zst").read_bytes()[begin : begin + length]
        return [json.loads(each)["text"] for each in zstandard.decompress(frame).splitlines()]

    for step in (1, 2, 3):
        run.rollouts([{"step": step, "text": f"the rollout of {step}" * step}])
        run.step(step, loss=1.0)
        if step == 2:
            save(run, 2, policy_folder)
    assert at(3) == ["the rollout of 3" * 3]
    again = RunDirectory(run.path)
    again.resume()
    again.rollouts([{"step": 3, "text": "another"}])
    again.step(3, loss=1.0)
    again.step(4, loss=1.0)
    assert (at(1), at(3)) == (["the rollout of 1"], ["another"])
    assert "rollouts" not in read(run.path / "steps.jsonl")[-1]


def test_a_step_leaves_out_what_was_not_measured_and_keeps_the_status_current(run):
    run.tell("training", total=9, device="cpu (1 thread)")
    run.step(4, loss=0.5, held_out_loss=None)
    (line,) = read(run.path / "steps.jsonl")
    assert line.keys() == {"step", "seconds", "loss"}
    status = json.loads((run.path / "status.json").read_text())
    assert status == {"phase": "training", "step": 4, "total": 9, "device": "cpu (1 thread)"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_end_the_run_and_leave_no_line(run, number):
    with pytest.raises(Failed, match="At step 3") as failed:
        run.step(3, loss=number)
    assert failed.value.field == "learning_rate"
    assert not (run.path / "steps.jsonl").exists()


def test_only_the_newest_checkpoint_keeps_what_resuming_needs(run, policy_folder):
    for step in (2, 4):
        save(run, step, policy_folder)
    assert [path.parent.name for path in run.path.glob("checkpoints/*/trainer")] == ["step-000004"]
    assert checkpoint.load_policy(run.path / "checkpoints" / "step-000002")


def test_resuming_cuts_every_line_file_back_to_the_checkpoint(run, policy_folder):
    run.step(1, loss=1.0)
    run.samples([{"step": 1}])
    run.rollouts([{"step": 1}])
    save(run, 1, policy_folder)
    run.step(2, loss=0.9)
    run.samples([{"step": 2}])
    run.rollouts([{"step": 2}])
    (run.path / "steps.jsonl").write_bytes((run.path / "steps.jsonl").read_bytes() + b'{"step": 3, "los')
    (run.path / "checkpoints" / ".step-000002.part").mkdir()
    again = RunDirectory(run.path)
    resumed = again.resume()
    assert (resumed.step, resumed.metrics, resumed.state) == (1, {"loss": 1.0}, {"seen": 1})
    assert [line["step"] for line in read(run.path / "steps.jsonl")] == [1]
    assert [line["step"] for line in read(run.path / "samples.jsonl")] == [1]
    with zstandard.open(run.path / "rollouts.jsonl.zst", "rt") as file:
        assert len(file.readlines()) == 1
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-000001"]


def test_without_a_checkpoint_the_slate_is_wiped(run):
    run.step(1, loss=1.0)
    assert RunDirectory(run.path).resume() is None
    assert (run.path / "steps.jsonl").read_bytes() == b""


def test_lines_that_were_lost_are_not_made_up(run, policy_folder):
    run.step(1, loss=1.0)
    save(run, 1, policy_folder)
    (run.path / "steps.jsonl").write_bytes(b"")
    with pytest.raises(Failed, match="shorter"):
        RunDirectory(run.path).resume()


def test_seconds_go_on_where_the_checkpoint_was(run, policy_folder):
    run._began -= 1000
    save(run, 1, policy_folder)
    again = RunDirectory(run.path)
    again.resume()
    assert 1000 <= again.seconds < 1060


def test_the_file_cancel_ends_the_run_after_a_saved_step(run):
    done = []
    with pytest.raises(Cancelled):
        for step in run.steps(0, 100):
            if step == 3:
                (run.path / "cancel").touch()
            if run.checkpoint_due(step, every=50):
                done.append(step)
    assert done == [3]


def test_a_signal_ends_the_run_after_a_saved_step(run):
    done = []
    with pytest.raises(Stopped):
        for step in run.steps(0, 100):
            if step == 2:
                run.stop(signal.SIGTERM, None)
            if run.checkpoint_due(step, every=50):
                done.append(step)
    assert done == [2]


def test_a_signal_that_comes_when_it_is_too_late_to_save_waits_for_the_next_step(run):
    done = []
    with pytest.raises(Stopped):
        for step in run.steps(0, 100):
            if run.checkpoint_due(step, every=50):
                done.append(step)
            if step == 2:
                run.stop(signal.SIGTERM, None)
    assert done == [3]


def test_a_signal_before_the_first_step_ends_the_run_at_once(run):
    with pytest.raises(Stopped):
        run.stop(signal.SIGTERM, None)


def test_checkpoints_are_due_at_their_time_and_at_the_end(run):
    assert [step for step in run.steps(0, 7) if run.checkpoint_due(step, every=3)] == [3, 6, 7]


def test_a_run_finishes_with_a_result(sft):
    assert execute(sft) == FINISHED
    told = result(sft)
    assert (told["state"], told["step"], told["checkpoint"]) == ("finished", 6, "checkpoints/step-000006")
    assert told["metrics"]["held_out_loss"] > 0
    assert [line["step"] for line in read(sft / "steps.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert json.loads((sft / "status.json").read_text())["phase"] == "finished"
    assert "Finished at step 6" in (sft / "log.txt").read_text()


def test_a_finished_run_is_not_run_again_unless_asked_to(sft, capfd):
    execute(sft)
    before = (sft / "steps.jsonl").read_bytes()
    assert execute(sft) == FINISHED
    assert "has finished" in capfd.readouterr().err
    assert (sft / "steps.jsonl").read_bytes() == before
    assert execute(sft, afresh=True) == FINISHED
    assert (sft / "steps.jsonl").read_bytes() != before
    assert [line["step"] for line in read(sft / "steps.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_cancelled_run_says_so_and_goes_on_when_started_again(sft):
    (sft / "cancel").touch()
    assert execute(sft) == FINISHED
    assert (result(sft)["state"], result(sft)["checkpoint"]) == ("cancelled", "checkpoints/step-000001")
    assert execute(sft) == FINISHED
    assert (result(sft)["state"], result(sft)["step"]) == ("finished", 6)


@pytest.mark.parametrize(
    ("name", "content", "field", "words"),
    [
        ("config.json", '{"kind": "sft", "epochs": -1}', "epochs", "between 0.01 and 100"),
        ("config.json", "{", "config", "cannot be read"),
        ("dataset.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": 3}', "dataset", "line 2"),
        ("dataset.jsonl", "", "dataset", "no demonstrations"),
        ("inputs/policy/config.json", "{}", "policy", "inputs/policy cannot be opened"),
    ],
)
def test_what_goes_wrong_is_told_in_words_with_its_field(sft, capfd, name, content, field, words):
    (sft / name).write_text(content)
    assert execute(sft) == FAILED
    told = result(sft)
    assert (told["state"], told["field"]) == ("failed", field)
    assert words in told["reason"]
    terminal = capfd.readouterr().err
    assert words in terminal
    assert terminal.count("\n") == 1


def test_a_missing_dataset_is_told_in_words(sft):
    (sft / "dataset.jsonl").unlink()
    assert execute(sft) == FAILED
    assert "No such file" in result(sft)["reason"]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(sft):
    weights = sft / "inputs" / "policy" / "model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert execute(sft) == FAILED
    assert "At step 1 the loss or its gradient stopped being a number" in result(sft)["reason"]
    assert (result(sft)["field"], result(sft)["checkpoint"]) == ("learning_rate", None)


def test_two_processes_never_work_in_one_directory(sft):
    held = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, sys; f = open({str(sft / '.lock')!r}, 'w');"
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held.stdout.readline() == "held\n"
    assert execute(sft) == TRY_AGAIN
    assert not (sft / "result.json").exists()
    held.communicate("")
    assert execute(sft) == FINISHED


def wait_for_step(path, step):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (path / "steps.jsonl").exists() and (path / "steps.jsonl").read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.005)
    raise AssertionError((path / "log.txt").read_text())


def test_killed_and_stopped_again_and_again_it_ends_with_the_same_weights(sft, policy_folder, tmp_path):
    values = json.loads((sft / "config.json").read_text()) | {"epochs": 24, "checkpoint_every": 3}
    config.write(sft, config.make("sft", values))
    whole = tiny.run_directory(tmp_path / "whole", "sft", policy_folder, sft / "dataset.jsonl")
    config.write(whole, config.make("sft", values))
    assert execute(whole) == FINISHED
    attempts = tiny.forked(sft, sft, sft)
    for end, step in ((signal.SIGKILL, 4), (signal.SIGTERM, 11), (signal.SIGKILL, 20)):
        child = int(attempts.stdout.readline())
        wait_for_step(sft, step)
        os.kill(child, end)
        assert int(attempts.stdout.readline()) == (TRY_AGAIN if end == signal.SIGTERM else -end)
        assert not (sft / "result.json").exists()
    attempts.communicate(timeout=60)
    assert execute(sft) == FINISHED
    assert [line["step"] for line in read(sft / "steps.jsonl")] == list(range(1, 61))
    for name in ("model.safetensors", "trainer/state.safetensors"):
        first, second = (path / "checkpoints" / "step-000060" / name for path in (sft, whole))
        assert first.read_bytes() == second.read_bytes(), name
