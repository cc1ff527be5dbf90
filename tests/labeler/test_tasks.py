"""The bridge: claims, fences and leases of runs, the sweep, requests. How a child ends: test_trainer.py."""

import json
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from celery import Celery
from django.utils import timezone

from labeler import answers, celery, tasks
from labeler.models import Request, Run
from labeler.models.runs import FencedOff
from tests.labeler.scripted import after_the_lease, meanwhile, run, rung

__all__ = ["run", "rung"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)


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
