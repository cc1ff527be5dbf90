"""Lines into rows: nothing twice, nothing half, nothing lost when a resumed trainer writes over its files."""

import json
import os

import pytest
import zstandard

from labeler.follower import LOG_TAIL, Follower, read_new
from labeler.models import Checkpoint, Place, Prompt, Quintet, Round, Run
from labeler.models.runs import FencedOff

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project) -> Run:
    """A policy run that is being worked on."""
    return claimed(project, "policy")


def claimed(project, kind: str, **fields) -> Run:
    run = Run.objects.create(project=project, kind=kind, round=Round.objects.current(project), **fields)
    run.keep_inputs({})
    return Run.objects.claim(run.pk, "here")


def write(run: Run, name: str, *lines: dict) -> None:
    with (run.directory / name).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def steps(run: Run) -> dict[int, dict]:
    return dict(run.steps.values_list("step", "metrics"))


def test_every_line_becomes_a_step_once(run):
    follower = Follower(run)
    write(run, "steps.jsonl", {"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.8})
    assert follower.catch_up() and not follower.catch_up()
    write(run, "steps.jsonl", {"step": 3, "loss": 0.7})
    follower.catch_up()
    assert steps(run) == {1: {"loss": 0.9}, 2: {"loss": 0.8}, 3: {"loss": 0.7}}


def test_half_a_line_waits_for_its_other_half(run):
    follower, path = Follower(run), run.directory / "steps.jsonl"
    path.write_text('{"step": 1, "loss": 0.9}\n{"step": 2, "lo')
    follower.catch_up()
    assert list(steps(run)) == [1]
    with path.open("a") as file:
        file.write('ss": 0.8}\n')
    follower.catch_up()
    assert steps(run)[2] == {"loss": 0.8}


def test_the_next_attempt_goes_on_at_the_cursor(run):
    write(run, "steps.jsonl", {"step": 1, "loss": 0.9})
    Follower(run).catch_up()
    run.refresh_from_db()
    before = run.cursors["steps.jsonl"]
    write(run, "steps.jsonl", {"step": 2, "loss": 0.8})
    assert [line["step"] for line in read_new(run.directory / "steps.jsonl", before)[0]] == [2]
    assert Follower(run).catch_up() and list(steps(run)) == [1, 2]


def test_a_file_that_was_cut_back_and_written_anew_is_read_again(run):
    """As a trainer does that resumes at an older checkpoint, while the follower is looking on."""
    follower = Follower(run)
    write(run, "steps.jsonl", *({"step": step, "loss": 0.5} for step in range(1, 6)))
    follower.catch_up()
    os.truncate(run.directory / "steps.jsonl", 2 * len('{"step": 1, "loss": 0.5}\n'))
    write(run, "steps.jsonl", *({"step": step, "loss": 0.25} for step in range(3, 9)))
    follower.catch_up()
    assert {step: metrics["loss"] for step, metrics in steps(run).items()} == {
        1: 0.5,
        2: 0.5,
        **dict.fromkeys(range(3, 9), 0.25),
    }


def test_samples_are_kept_as_they_were_written_without_nul(run):
    line = {"step": 10, "index": 0, "prompt": "Joke.", "rollout": "Why\0?", "score": 0.5}
    write(run, "samples.jsonl", line, line | {"score": 0.75})
    Follower(run).catch_up()
    assert run.samples.get().line == line | {"rollout": "Why\ufffd?", "score": 0.75}


def test_the_status_is_shown_on_the_row(run):
    status = {"phase": "training", "step": 3, "total": 90, "device": "cpu (2 threads)"}
    (run.directory / "status.json").write_text(json.dumps(status))
    Follower(run).catch_up()
    run.refresh_from_db()
    assert {name: getattr(run, name) for name in status} == status


def test_the_end_of_the_log_is_kept(run):
    (run.directory / "log.txt").write_text("".join(f"line {number}\n" for number in range(20_000)))
    Follower(run).catch_up()
    run.refresh_from_db()
    assert run.log_tail.endswith("line 19999\n") and run.log_tail.startswith("line ")
    assert LOG_TAIL - 20 < len(run.log_tail) <= LOG_TAIL


def test_a_saved_checkpoint_becomes_a_row_and_clears_the_count_of_lost_attempts(run):
    Run.objects.update(lost=2)
    follower = Follower(run)
    folder = run.directory / "checkpoints" / "step-000010"
    folder.mkdir(parents=True)
    (folder / "quintet.json").write_text('{"kind": "policy", "step": 10}')
    follower.catch_up()
    checkpoint = Checkpoint.objects.get(run=run)
    assert (checkpoint.step, checkpoint.kind, checkpoint.folder) == (10, "policy", folder)
    assert checkpoint.lineage == {"kind": "policy", "step": 10}
    run.refresh_from_db()
    assert run.lost == 0


def test_a_checkpoint_of_an_earlier_attempt_is_no_progress(run):
    (run.directory / "checkpoints" / "step-000010").mkdir(parents=True)
    Run.objects.update(lost=2)
    Follower(run).catch_up()
    run.refresh_from_db()
    assert run.lost == 2 and run.checkpoints.count() == 1


def rollouts(prompt: Prompt, group: int) -> bytes:
    lines = [
        {
            "prompt": prompt.content,
            "id": str(prompt.pk),
            "group": group,
            "rollout": f"Joke {slot}.",
            "tokens": [],
        }
        | {"finished": slot != 4}
        for slot in range(5)
    ]
    return zstandard.compress("".join(json.dumps(line) + "\n" for line in lines).encode())


def test_sampled_rollouts_become_quintets_that_wait(project):
    project.overlap = 2
    project.save()
    start = Checkpoint.objects.create(project=project, name="start", location="checkpoints/start")
    run = claimed(project, "rollouts", start=start)
    prompts = [Prompt.objects.create(project=project, content=f"Joke {number}.") for number in range(2)]
    path, follower = run.directory / "rollouts.jsonl.zst", Follower(run)
    whole, half = rollouts(prompts[0], 0), rollouts(prompts[1], 1)
    path.write_bytes(whole + half[:20])
    follower.catch_up()
    assert [quintet.prompt for quintet in run.quintets.all()] == [prompts[0]]
    path.write_bytes(whole + half)
    follower.catch_up()
    follower.cursors = {}  # as if nothing had been read: the groups are known
    follower.catch_up()
    assert Quintet.objects.waiting().count() == 2 and Place.objects.count() == 4
    rollout = run.quintets.last().rollouts.last()
    assert (rollout.text, rollout.finished, rollout.checkpoint) == ("Joke 4.", False, start)


def test_an_older_attempt_writes_nothing(run):
    write(run, "steps.jsonl", {"step": 1, "loss": 0.9})
    Run.objects.update(attempt=2)
    with pytest.raises(FencedOff):
        Follower(run).catch_up()
    assert not run.steps.exists()
