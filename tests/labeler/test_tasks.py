"""The bridge, with a scripted child in the trainer's place: claims, fences, leases, every kind of end, the
sweep. What the real trainer does under a real worker is in test_worker.py."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from django.conf import settings
from django.db import connections
from django.utils import timezone

from labeler import answers, celery, tasks, trainer
from labeler.models import Checkpoint, Prompt, Request, Run
from labeler.models.runs import FencedOff
from labeler.trainer import Trainer

pytestmark = pytest.mark.django_db(transaction=True)

# What the child does instead of training: the last word of its command is its run directory.
CHILDREN = {
    "finishes": """
        line("steps.jsonl", step=1, loss=0.5)
        result(state="finished", step=1, checkpoint=None, metrics={"loss": 0.5})""",
    "fails": """
        result(state="failed", reason="There is no such layer.", remedy="Mend it.", field="policy")
        end(1)""",
    "breaks": 'print("ImportError: no module named torch", flush=True); end(3)',
    "dies": 'line("steps.jsonl", step=1, loss=0.5); os.kill(os.getpid(), signal.SIGKILL)',
    "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
    "tries again": "end(75)",
    "waits": """
        signal.signal(signal.SIGTERM, lambda *_: end(75))
        line("steps.jsonl", step=1, loss=0.5)
        while not (run / "cancel").exists():
            time.sleep(0.05)
        result(state="cancelled", reason="The run was cancelled.")""",
    "hangs": """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        line("steps.jsonl", step=1, loss=0.5)
        time.sleep(600)""",
    "dies once": """
        first = not (run / "been").exists()
        (run / "been").touch()
        if first: os.kill(os.getpid(), signal.SIGKILL)
        result(state="finished", step=1, checkpoint=None)""",
}
PROLOGUE = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[-1])
end = os._exit
def line(name, **line):
    with (run / name).open("a") as file: file.write(json.dumps(line) + "\\n")
def result(**result): (run / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def child(monkeypatch):
    """`child("dies")`: from now on trainers are this script."""

    def choose(name: str) -> None:
        body = CHILDREN[name].replace("\n        ", "\n")
        monkeypatch.setattr(Trainer, "COMMAND", (sys.executable, "-c", PROLOGUE + body))

    return choose


@pytest.fixture
def rung(monkeypatch) -> list[tuple[str, int]]:
    """What was rung instead of ringing."""
    heard: list[tuple[str, int]] = []
    for module in ("runs", "requests"):
        monkeypatch.setattr(f"labeler.models.{module}.ring", lambda task, pk: heard.append((task, pk)))
    return heard


@pytest.fixture
def run(project, rung, home) -> Run:
    (home / "checkpoints" / "plain").mkdir(parents=True, exist_ok=True)
    project.start = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/plain")
    project.save()
    Prompt.objects.create(project=project, content="Joke, please.")
    run = Run.objects.launch(project, "rollouts", {}, None)
    rung.clear()
    return run


def meanwhile(work) -> threading.Thread:
    def with_its_own_connection():
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=with_its_own_connection)
    thread.start()
    return thread


def until(true, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def after_the_lease(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(leased_until=timezone.now() - timedelta(seconds=1))


def is_alive(pid: int) -> bool:
    """A zombie, which has no memory left, is not."""
    try:
        return bool(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return False


def process_of(run: Run) -> int:
    until((run.directory / "process.json").exists)
    return json.loads((run.directory / "process.json").read_text())["pid"]


# Claims


def test_of_two_claims_at_once_one_gets_the_run(run):
    got, together = [], threading.Barrier(8)

    def claim():
        together.wait()
        got.append(Run.objects.claim(run.pk, "here"))

    for thread in [meanwhile(claim) for _ in range(8)]:
        thread.join()
    [mine] = [each for each in got if each]
    assert mine.attempt == 1 and mine.state == "running" and mine.leased_until > timezone.now()


def test_a_claimed_run_is_not_to_be_had_until_its_lease_runs_out(run):
    first = Run.objects.claim(run.pk, "here")
    assert Run.objects.claim(run.pk, "there") is None
    after_the_lease(run)
    second = Run.objects.claim(run.pk, "there")
    assert (second.attempt, second.worker, second.started_at) == (2, "there", first.started_at)


def test_the_fence_holds_off_an_older_attempt(run):
    first = Run.objects.claim(run.pk, "here")
    after_the_lease(run)
    second = Run.objects.claim(run.pk, "there")
    assert not first.renew() and second.renew()
    with pytest.raises(FencedOff), first.held():
        pytest.fail("an older attempt held the row")
    with pytest.raises(FencedOff):
        first.give_back()
    with second.held() as row:
        row.end("finished", result={"step": 1})
    with pytest.raises(FencedOff):
        tasks.end(second, "failed", reason="too late")
    run.refresh_from_db()
    assert (run.state, run.reason) == ("finished", "")


def test_a_run_that_nobody_survives_is_given_up(run):
    for _ in range(3):
        assert Run.objects.claim(run.pk, "here")
        after_the_lease(run)
    assert Run.objects.claim(run.pk, "here") is None
    run.refresh_from_db()
    assert run.state == "failed" and run.finished_at
    assert run.reason.startswith("3 times in a row") and "not heard of" in run.reason and run.remedy


def test_a_cancelled_run_whose_worker_died_is_not_taken_up_again(run):
    Run.objects.claim(run.pk, "here").cancel()
    after_the_lease(run)
    assert Run.objects.claim(run.pk, "here") is None
    run.refresh_from_db()
    assert run.state == "cancelled"


# How it ends


def executed(run: Run) -> Run:
    tasks.execute(run.pk)
    run.refresh_from_db()
    return run


def test_a_finished_child_finishes_the_run(child, run):
    child("finishes")
    assert executed(run).state == "finished" and run.result["metrics"] == {"loss": 0.5}
    assert list(run.steps.values_list("step", "metrics")) == [(1, {"loss": 0.5})]
    assert run.finished_at > run.started_at and run.leased_until is None


def test_a_failed_child_says_why(child, run):
    child("fails")
    assert executed(run).state == "failed"
    assert (run.reason, run.remedy, run.field) == ("There is no such layer.", "Mend it.", "policy")


def test_a_child_that_ends_without_a_word_is_quoted(child, run):
    child("breaks")
    assert executed(run).state == "failed" and "no module named torch" in run.reason
    assert "no module named torch" in run.log_tail


def test_a_killed_child_is_taken_up_again(child, run, rung):
    child("dies once")
    assert executed(run).state == "queued" and run.lost == 1 and rung == [("execute", run.pk)]
    assert executed(run).state == "finished" and run.attempt == 2


def test_a_child_that_is_killed_again_and_again_fails_the_run(child, run):
    child("dies")
    for _ in range(3):
        assert run.is_live
        executed(run)
    assert run.state == "failed" and run.attempt == 3
    assert "3 times in a row" in run.reason and "probably because the machine ran out of memory" in run.reason
    assert "smaller model" in run.remedy and run.steps.count() == 1


def test_a_crash_names_its_signal(child, run):
    child("crashes")
    Run.objects.update(lost=2)
    assert "It crashed (SIGSEGV)" in executed(run).reason


def test_a_child_that_wants_to_be_tried_again_waits_in_the_queue(child, run, rung):
    child("tries again")
    assert executed(run).state == "queued" and run.lost == 0
    assert rung == []  # the sweep comes by: whatever made it go may still be there


def test_a_start_that_is_gone_fails_the_run_in_words(child, run):
    child("finishes")
    Checkpoint.objects.update(location="checkpoints/gone")
    assert executed(run).state == "failed"
    assert (
        run.reason == f"The checkpoint “Start” is gone: there is no folder {settings.HOME}/checkpoints/gone."
    )


def test_a_run_of_somebody_else_is_left_alone(child, run):
    child("fails")
    Run.objects.claim(run.pk, "there")
    assert executed(run).state == "running" and not (run.directory / "process.json").exists()


# Stopping


def test_cancelling_asks_the_child_to_stop(child, run):
    child("waits")
    work = meanwhile(lambda: tasks.execute(run.pk))
    until(lambda: run.steps.exists())
    Run.objects.get(pk=run.pk).cancel()
    work.join(10)
    run.refresh_from_db()
    assert (run.state, run.reason) == ("cancelled", "The run was cancelled.")


def test_a_child_that_does_not_stop_is_killed(child, run, monkeypatch):
    monkeypatch.setattr(trainer, "PATIENCE", 0.5)
    child("hangs")
    work = meanwhile(lambda: tasks.execute(run.pk))
    until(lambda: run.steps.exists())
    Run.objects.get(pk=run.pk).cancel()
    work.join(10)
    run.refresh_from_db()
    assert run.state == "cancelled" and not is_alive(process_of(run))


def test_a_worker_that_has_to_go_gives_its_run_back(child, run, monkeypatch):
    child("waits")
    work = meanwhile(lambda: tasks.execute(run.pk))
    until(lambda: run.steps.exists())
    monkeypatch.setattr(tasks, "is_stopping", lambda: True)
    work.join(10)
    run.refresh_from_db()
    assert (run.state, run.lost, run.leased_until) == ("queued", 0, None)


def test_who_loses_the_lease_kills_its_child(child, run, monkeypatch):
    monkeypatch.setattr(tasks, "HEARTBEAT", 0.2)
    child("hangs")
    work = meanwhile(lambda: tasks.execute(run.pk))
    pid = process_of(run)
    after_the_lease(run)
    second = Run.objects.claim(run.pk, "there")
    work.join(10)
    assert not is_alive(pid)
    second.refresh_from_db()
    assert (second.state, second.attempt) == ("running", 2)


def test_who_cannot_renew_the_lease_kills_its_child(child, run, monkeypatch):
    """The database does not answer for longer than the lease lasts."""
    monkeypatch.setattr(tasks, "GIVE_UP", 0.5)
    child("hangs")
    work = meanwhile(lambda: tasks.execute(run.pk))
    pid = process_of(run)
    work.join(10)
    assert not is_alive(pid)
    run.refresh_from_db()
    assert run.state == "running"  # nothing could be written; the lease will tell


def test_a_child_that_outlived_its_attempt_is_ended_by_the_next(child, run):
    """As where the kernel does not end it with its parent. The lock is what a living trainer holds."""
    run.prepare_directory()
    hold = "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX)"
    hold += "; print(flush=True); time.sleep(600)"
    left = subprocess.Popen(
        [sys.executable, "-c", hold, run.directory / ".lock"], start_new_session=True, stdout=subprocess.PIPE
    )
    with left:
        left.stdout.readline()
        mark = {"host": socket.gethostname(), "pid": left.pid}
        (run.directory / "process.json").write_text(json.dumps(mark))
        child("finishes")
        assert executed(run).state == "finished"
        assert left.wait(5) == -signal.SIGKILL


def test_the_child_knows_no_secret(monkeypatch):
    for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "QUINTET_ADMIN_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    known = trainer.environment()
    assert known["CUDA_VISIBLE_DEVICES"] == "1" and known["PATH"] == os.environ["PATH"]
    assert not {
        name for name in known if name.startswith(("QUINTET", "DATABASE", "CELERY", "PG", "AWS", "DJANGO"))
    }


# The sweep


@pytest.fixture
def idle(monkeypatch):
    """A node that has nothing to do; `idle.active_requests = {1}` makes it busy."""
    node = SimpleNamespace(active_requests=set())
    monkeypatch.setattr(tasks, "node", node)
    return node


def test_the_sweep_rings_for_what_waits_and_for_what_was_left(run, project, rung, idle):
    left = Run.objects.launch(project, "rollouts", {}, None, again=True)
    working = Run.objects.launch(project, "rollouts", {}, None, again=True)
    asked = Request.objects.ask(project, "sample", {}, None)
    Run.objects.claim(left.pk, "here")
    after_the_lease(left)
    Run.objects.claim(working.pk, "here")
    rung.clear()
    tasks.sweep({"runs"})
    assert set(rung) == {("execute", run.pk), ("execute", left.pk)}
    rung.clear()
    tasks.sweep({"interactive"})
    assert rung == [("answer", asked.pk)]


def test_a_busy_node_rings_for_nobody(run, rung, idle):
    idle.active_requests = {1}
    tasks.sweep({"runs", "interactive"})
    assert rung == []


def test_more_is_sampled_when_fewer_than_wanted_wait(project, compose, run, rung, idle, labeler):
    Run.objects.all().delete()
    project.keep_waiting = 2
    project.save()
    quintets = compose(3)
    tasks.sweep({"runs"})
    assert not Run.objects.exists()
    for quintet in quintets[:2]:
        place = quintet.places.get()
        quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], opened_at=timezone.now())
    more = Run.objects.get()  # asked for by the ranking itself
    assert (more.kind, more.created_by, rung) == ("rollouts", None, [("execute", more.pk)])
    lines = [json.loads(line) for line in (more.directory / "prompts.jsonl").read_text().splitlines()]
    assert lines[0]["prompt"] == "Joke, please."  # the one that has no quintet yet
    assert len(lines) == 3
    tasks.sweep({"runs"})
    assert Run.objects.count() == 1


def test_a_failed_sampling_is_not_tried_again_at_once(project, run, idle):
    tasks.end(Run.objects.claim(run.pk, "here"), "failed", reason="The weights are gone.")
    tasks.sweep({"runs"})
    assert Run.objects.count() == 1
    Run.objects.update(finished_at=timezone.now() - timedelta(hours=2))
    tasks.sweep({"runs"})
    assert Run.objects.count() == 2


# Requests


def test_a_request_waits_for_a_run_on_a_graphics_card_and_says_so(project, run, rung):
    asked = Request.objects.ask(project, "sample", {}, None)
    running = Run.objects.claim(run.pk, socket.gethostname())
    Run.objects.update(device="NVIDIA H100")
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert (asked.state, asked.phase) == ("waiting", f"waiting for run {run.pk} to finish")
    Run.objects.update(device="cpu (2 threads)")
    assert answers.what_for() == "" and running.is_live


def test_a_request_that_kills_its_worker_is_given_up(project, rung):
    asked = Request.objects.ask(project, "sample", {}, None)
    for _ in range(3):
        assert Request.objects.claim(asked.pk)
        Request.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert Request.objects.claim(asked.pk) is None
    asked.refresh_from_db()
    assert asked.state == "failed" and "died 3 times" in asked.reason


def test_a_late_answer_is_refused(project, rung):
    asked = Request.objects.ask(project, "sample", {}, None)
    first = Request.objects.claim(asked.pk)
    Request.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    second = Request.objects.claim(asked.pk)
    assert not first.answer_with({"rollouts": []}) and second.answer_with({"rollouts": [["ours"]]})
    asked.refresh_from_db()
    assert asked.answer == {"rollouts": [["ours"]]}


def test_a_broker_that_does_not_answer_stops_nobody(run, monkeypatch):
    away = Celery(broker="redis://127.0.0.1:1/0")
    away.conf.broker_transport_options = celery.ONE_TRY
    monkeypatch.setattr(celery, "app", away)
    began = time.monotonic()
    celery.ring("execute", run.pk)
    assert time.monotonic() - began < 3
