"""The warm child and who gets its memory, with a scripted one in its place. The real one answers a comparison
in test_worker.py."""

import os
import signal
import socket
import sys
import time

import pytest
from django.utils import timezone

from labeler import answers, tasks
from labeler.models import Checkpoint, Request, Run
from labeler.models.runs import LEASE

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
import json, os, signal, sys, time
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
for line in sys.stdin:
    asked = json.loads(line)
    wish = asked.get("prompts", [""])[0]
    if wish == "die": os.kill(os.getpid(), signal.SIGKILL)
    if wish == "leave": os._exit(3)
    if wish == "think": time.sleep(600)
    if wish == "refuse": say(id=asked["id"], error="There is no tokenizer.", remedy="Save one.")
    else: say(id=asked["id"], rollouts=[[{"text": f"pid {os.getpid()}\\0", "tokens": [1], "finished": True}]])
"""


@pytest.fixture
def warm(monkeypatch, home):
    (home / "checkpoints" / "plain").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(answers.Warm, "COMMAND", (sys.executable, "-c", CHILD))
    monkeypatch.setattr("labeler.models.requests.ring", lambda *_: None)
    warm = answers.Warm()
    monkeypatch.setattr(answers, "warm", warm)
    yield warm
    warm.stop()


@pytest.fixture
def ask(project, warm):
    """`ask("die")`: the request, after the worker had it."""
    checkpoint = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/plain")

    def asked(prompt: str, **question) -> Request:
        question = {"checkpoint": checkpoint.pk, "prompts": [prompt], **question}
        request = Request.objects.ask(project, "sample", question, None)
        tasks.answer(request.pk)
        request.refresh_from_db()
        return request

    return asked


def text(request: Request) -> str:
    return request.answer["rollouts"][0][0]["text"]


def test_the_child_stays_for_the_next_question(ask):
    first, second = ask("Joke, please."), ask("Another one.")
    assert first.state == "answered" and first.finished_at
    assert text(first) == text(second) and text(first).endswith("\ufffd")


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ("die", "It was killed, probably because the machine ran out of memory."),
        ("leave", "The process that answers ended with status 3."),
        ("refuse", "There is no tokenizer."),
    ],
)
def test_what_went_wrong_is_said_and_the_next_question_is_answered(ask, wish, reason):
    asked = ask(wish)
    assert (asked.state, asked.reason) == ("failed", reason) and asked.remedy
    assert ask("Joke, please.").state == "answered"


def test_files_that_are_not_here_are_said_to_be_missing(ask, project):
    gone = Checkpoint.objects.create(project=project, name="Old one", location="checkpoints/gone")
    assert ask("Joke.", checkpoint=gone.pk).reason == "The files of “Old one” are not on this machine."
    gone.delete()
    assert "no longer known" in ask("Joke.", checkpoint=gone.pk or 0).reason


def gone_within(warm: answers.Warm, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while warm.process and time.monotonic() < deadline:
        time.sleep(0.05)
    return warm.process is None


def test_the_memory_goes_to_a_run_that_begins(ask, warm, project):
    ask("Joke, please.")
    assert not gone_within(warm, 1.5)
    lease = {"leased_until": timezone.now() + LEASE}
    elsewhere = Run.objects.create(
        project=project, kind="reward", state="running", worker="elsewhere", **lease
    )
    assert not gone_within(warm, 1.5)
    Run.objects.filter(pk=elsewhere.pk).update(worker=socket.gethostname(), device="cpu (2 threads)")
    assert gone_within(warm, 5)
    assert ask("Joke, please.").state == "answered"  # beside a run on the processor, but not kept warm
    assert gone_within(warm, 5)


def test_the_memory_is_given_back_when_nobody_asks(ask, warm, monkeypatch):
    monkeypatch.setattr(answers, "IDLE", 0.5)
    ask("Joke, please.")
    assert gone_within(warm, 5)


def test_a_worker_that_has_to_go_leaves_the_question_to_the_next(ask, warm, monkeypatch):
    ask("Joke, please.")
    monkeypatch.setattr(answers, "is_stopping", lambda: True)
    asked = ask("think")
    assert (asked.state, asked.leased_until) == ("waiting", None) and warm.process is None


def test_a_question_that_takes_for_ever_is_ended(ask, monkeypatch):
    ask("Joke, please.")
    monkeypatch.setattr(answers, "LONGEST", 0.5)
    asked = ask("think")
    assert asked.state == "failed" and "no answer within" in asked.reason


def test_the_child_ends_with_its_lease(ask, warm, monkeypatch):
    """Somebody else has the request by now: nothing of ours may go on."""
    ask("Joke, please.")
    monkeypatch.setattr(tasks, "HEARTBEAT", 0.2)
    monkeypatch.setattr(Request, "renew", lambda self: False)
    process = warm.process
    asked = ask("think")
    assert process.poll() == -signal.SIGKILL and warm.process is None
    assert asked.state == "failed" and os.getpid() != process.pid
