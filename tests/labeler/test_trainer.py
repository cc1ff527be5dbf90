"""A run's child process, with a script in its place: every kind of end, and stopping it. What the real
trainer does under a real worker is in test_worker.py."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from django.conf import settings

from labeler import tasks, trainer
from labeler.models import Checkpoint, Run
from tests.labeler.scripted import (
    after_the_lease,
    child,
    executed,
    is_alive,
    meanwhile,
    process_of,
    run,
    rung,
    until,
)

__all__ = ["child", "run", "rung"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)


# How it ends


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
