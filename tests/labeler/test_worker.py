"""Runs and requests from end to end: a real worker with its two nodes, the real trainer on a tiny model, the
real broker. What is killed here is killed with `kill -9`."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from labeler.models import Checkpoint, Prompt, Quintet, Ranking, Request, Run
from tests.labeler import redis_server
from tests.labeler.fixtures import Worker
from tests.rlhf import tiny

pytestmark = pytest.mark.django_db(transaction=True)

# Long enough to be met in the middle, even where a step takes a few milliseconds.
LONG = {"epochs": 40, "batch": 1, "evaluate_every": 1}


@pytest.fixture
def start(project, home) -> Checkpoint:
    """A tiny model to start from, and as many prompts as quintets are to wait."""
    if not (home / "checkpoints" / "tiny").exists():
        tiny.policy(home / "checkpoints" / "tiny")
    project.start = Checkpoint.objects.create(project=project, name="Tiny", location="checkpoints/tiny")
    project.keep_waiting = 0
    project.run_defaults = {
        "rollouts": {"max_new_tokens": 12, "batch": 4},
        "reward": {"learning_rate": 0.001, "batch": 2, "epochs": 20, "held_out": 0.25},
    }
    project.save()
    Prompt.objects.bulk_create(
        Prompt(project=project, content=f"Joke {n}, please.", digest=str(n)) for n in range(6)
    )
    return project.start


@pytest.fixture
def rankings(start, compose, labeler) -> None:
    words = ["a pelican with fish", "a pelican", "a fish on the road", "a bird", "the road"]
    for number, quintet in enumerate(compose(12, texts=words)):
        Ranking.objects.create(quintet=quintet, labeler=labeler, ranks=[1, 2, 3, 4, 5 - number % 2])


def over(run: Run):
    def ended() -> bool:
        run.refresh_from_db()
        return not run.is_live

    return ended


def at_step(run: Run, step: int):
    return lambda: run.steps.filter(step__gte=step).exists()


def trainer(run: Run) -> int:
    return json.loads((run.directory / "process.json").read_text())["pid"]


def log_of(run: Run) -> str:
    return (run.directory / "log.txt").read_text()


def is_there(pid: int) -> bool:
    """A zombie, which has no memory left, is not."""
    try:
        return bool(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return False


def loads_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def computes(run: Run) -> bool:
    try:
        return loads_torch(trainer(run))
    except OSError:
        return False


def launch(project, kind: str, values: dict | None = None, **given) -> Run:
    return Run.objects.launch(project, kind, {"device": "cpu", **(values or {})}, None, **given)


def check_whole(run: Run) -> None:
    """It finished, and every step is there once, none of a killed attempt beside them."""
    assert run.state == "finished", f"{run.reason}\n{run.log_tail}"
    assert run.step == run.total
    assert list(run.steps.values_list("step", flat=True)) == list(range(1, run.total + 1))
    lines = (run.directory / "steps.jsonl").read_text().splitlines()
    written = {line.pop("step"): line for line in map(json.loads, lines)}
    assert len(lines) == run.total and written == dict(run.steps.values_list("step", "metrics"))


def test_a_reward_model_and_a_policy_are_trained_and_compared(project, rankings, worker):
    reward = launch(project, "reward", {"epochs": 4})
    policy_values = {"steps": 4, "prompts_per_step": 2, "rollouts_per_prompt": 2, "max_new_tokens": 8}
    worker.wait_until(over(reward), 120)
    check_whole(reward)
    model = reward.checkpoints.get(suggested=True)
    assert (
        model.kind == "reward" and (model.folder / "model.safetensors").exists() and model.lineage["sha256"]
    )
    assert reward.dataset.lines == 12 and reward.samples.exists() and "Finished" in reward.log_tail

    policy = launch(project, "policy", policy_values | {"checkpoint_every": 2, "evaluate_every": 2})
    # Neither node nor its pool process has torch; the trainer has, and none of our secrets.
    worker.wait_until(lambda: computes(policy), 120)
    os.kill(trainer(policy), signal.SIGSTOP)  # it would be done before it was looked at
    own = [pid for pid in worker.processes() if pid != trainer(policy)]
    assert len(own) >= 5 and not [pid for pid in own if loads_torch(pid)]
    known = Path(f"/proc/{trainer(policy)}/environ").read_text()
    os.kill(trainer(policy), signal.SIGCONT)
    assert "QUINTET" not in known and "DATABASE_URL" not in known
    worker.wait_until(over(policy), 120)
    check_whole(policy)
    assert policy.samples.exists() and policy.reward_model == model and policy.device.startswith("cpu")
    assert set(policy.checkpoints.values_list("step", flat=True)) == {2, 4}

    asked = Request.objects.ask_to_compare(policy, policy.checkpoints.get(suggested=True), seed=3)
    worker.wait_until(lambda: Request.objects.filter(finished_at__isnull=False).exists(), 120)
    asked.refresh_from_db()
    assert asked.state == "answered", asked.reason
    assert [item["prompt"] for item in asked.answer["items"]] == asked.question["prompts"]
    for item in asked.answer["items"]:
        assert all(0 <= item[side]["score"] <= 1 and item[side]["text"] for side in ("before", "after"))

    # The same child writes thousands for whoever reads along, until it is told to stop.
    question = {"checkpoint": policy.start_id, "prompts": ["Joke?"], "count": 10_000, "stream": "rollouts"}
    many = Request.objects.ask(project, "sample", question | {"max_new_tokens": 200}, None)
    worker.wait_until(lambda: many.parts.filter(number__gt=1).exists(), 60)
    many.stop()
    worker.wait_until(lambda: Request.objects.filter(pk=many.pk, finished_at__isnull=False).exists(), 60)
    many.refresh_from_db()
    assert many.state == "answered" and many.answer["stopped"] is True, many.reason
    assert 0 < many.answer["written"] == len(set(many.parts.numbers("text"))) < 10_000


def test_a_run_survives_the_death_of_its_trainer_and_of_its_worker(project, rankings, worker):
    run = launch(project, "reward", {"checkpoint_every": 20} | LONG)
    worker.wait_until(at_step(run, 25), 120)
    first = trainer(run)
    os.kill(first, signal.SIGKILL)
    worker.wait_until(lambda: Run.objects.filter(attempt=2, phase="training"), 60)
    worker.wait_until(at_step(run, run.steps.last().step + 10), 60)
    assert trainer(run) != first

    second = trainer(run)
    worker.kill(second)
    run.refresh_from_db()
    assert run.state == "running"
    worker.wait_until(lambda: not is_there(second), 30)  # it does not outlive its worker
    Run.objects.update(leased_until=timezone.now())  # as 45 s later
    worker.start()
    worker.wait_until(over(run), 120)
    check_whole(run)
    assert run.attempt == 3 and "Going on after step" in log_of(run)


def test_a_run_whose_worker_is_told_to_end_goes_on_with_the_next(project, rankings, worker):
    run = launch(project, "reward", {"checkpoint_every": 10_000} | LONG)
    worker.wait_until(at_step(run, 5), 120)
    began = time.monotonic()
    worker.stop(seconds=60)
    assert time.monotonic() - began < 30
    run.refresh_from_db()
    assert (run.state, run.lost, run.attempt) == ("queued", 0, 1), f"{run.reason}\n{run.log_tail}"
    reached = run.step
    worker.start()
    worker.wait_until(over(run), 120)
    check_whole(run)
    assert f"Going on after step {reached}" in log_of(run)  # nothing was lost


def test_a_lost_message_costs_seconds_and_more_is_sampled_by_itself(project, start, worker, labeler):
    """The broker forgets everything; then fewer quintets wait than the project wants."""
    worker.kill()
    run = launch(project, "rollouts")
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("SELECT pgmq.purge_queue(queue_name) FROM pgmq.list_queues()")
    worker.start()
    worker.wait_until(over(run), 60)
    check_whole(run)
    assert Quintet.objects.waiting().count() == 6
    assert all(quintet.rollouts.count() == 5 for quintet in run.quintets.all())

    project.keep_waiting = 6
    project.save()
    place = run.quintets.first().places.get()
    place.quintet.record_ranking(labeler, place, [5, 4, 3, 2, 1], opened_at=timezone.now())
    more = Run.objects.exclude(pk=run.pk).get()
    worker.wait_until(over(more), 60)
    assert more.state == "finished" and Quintet.objects.waiting().count() > 6


def test_a_model_that_cannot_be_loaded_fails_the_run_with_the_reason(project, start, worker, home, capsys):
    broken = home / "checkpoints" / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "config.json").write_text('{"model_type": "llama"}')
    Checkpoint.objects.update(location="checkpoints/broken")
    with pytest.raises(CommandError, match="failed"):
        call_command("launch", "rollouts", "--project", project.slug, "--wait")
    run = Run.objects.get()
    assert run.state == "failed" and run.reason and run.remedy
    assert f"Run {run.pk} is queued." in capsys.readouterr().out


@pytest.fixture
def redis(tmp_path):
    """The address of a real server; None where none can be had, which is said at the end of the tests."""
    program = redis_server.find_or_install()
    if program is None:
        yield None
        return
    with redis_server.running(program, tmp_path) as address:
        yield address


def test_the_worker_runs_on_redis(project, start, redis, tmp_path, monkeypatch):
    if redis is None:
        warnings.warn(
            "NO redis-server IS HERE AND NONE COULD BE INSTALLED: the worker was not tried on Redis, and "
            "this test ran on the queue in Postgres instead.",
            stacklevel=1,
        )
    monkeypatch.setenv("CELERY_BROKER_URL", redis or "")
    worker = Worker(tmp_path / "worker.log")
    worker.start()
    try:
        command = [sys.executable, "manage.py", "launch", "rollouts", "--project", project.slug, "--wait"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + worker.log.read_text()
    finally:
        worker.kill()
    run = Run.objects.get()
    assert run.state == "finished" and run.finished_at - run.created_at < timedelta(seconds=60)
    assert f"Run {run.pk} has finished." in done.stdout and Quintet.objects.waiting().count() == 6
