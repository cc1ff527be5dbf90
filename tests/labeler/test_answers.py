"""The warm child and who gets its memory, with a scripted one in its place. The real one answers a comparison
in test_worker.py."""

import os
import re
import signal
import socket
import time

import pytest
from django.utils import timezone

from labeler import answers, tasks
from labeler.models import Checkpoint, Request, Run
from labeler.models.runs import LEASE
from labeler.warm import Warm
from tests.labeler.scripted import meanwhile

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
import json, os, select, signal, sys, time
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
def stream(asked): # a rollout after the other; for ever where the prompt is "on and on", until a stop
    def part(**body): say(id=asked["id"], part=body)
    part(prompt={"length": 2, "cut": 0})
    written, how, more = 0, "", {}
    for number in range(10**6 if asked["prompts"] == ["on and on"] else asked["count"]):
        if number in asked["have"]: continue
        if select.select([sys.stdin], [], [], 0.01)[0]:
            told = json.loads(sys.stdin.readline())
            assert told["id"] == asked["id"]
            how = told["op"]
            if how == "pause": more = {"drafts": [{"number": number, "tokens": [1]}]}
            break
        one = {"number": number, "text": f"number {number} \\0", "length": 2, "finished": True}
        part(rollouts=[one], so_far=number)
        part(so_far=number)
        written += 1
    say(id=asked["id"], written=written, stopped=how == "stop", begun=len(asked["begun"]), **more)
for line in sys.stdin:
    asked = json.loads(line)
    wish = asked.get("prompts", [""])[0]
    if wish == "die": os.kill(os.getpid(), signal.SIGKILL)
    if wish == "leave": os._exit(3)
    if wish == "think": time.sleep(600)
    if asked.get("stream"):
        stream(asked)
        continue
    if wish == "refuse": say(id=asked["id"], error="There is no tokenizer.", remedy="Save one.")
    else: say(id=asked["id"], rollouts=[[{"text": f"pid {os.getpid()}\\0", "tokens": [1], "finished": True}]])
"""


@pytest.fixture
def warm(warm_child):
    return warm_child(CHILD, "plain")


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


def test_what_nobody_expected_is_said_at_once_and_not_tried_again(ask, monkeypatch):
    monkeypatch.setitem(answers.KINDS, "sample", lambda request, asked: asked["nothing"])
    asked = ask("Joke, please.")
    assert (asked.state, asked.reason, asked.lost) == ("failed", "KeyError: 'nothing'", 0)
    assert asked.remedy == "The worker's log tells where it happened."


def test_files_that_are_not_here_are_said_to_be_missing(ask, project):
    gone = Checkpoint.objects.create(project=project, name="Old one", location="checkpoints/gone")
    assert ask("Joke.", checkpoint=gone.pk).reason == "The files of “Old one” are not on this machine."
    gone.delete()
    assert "no longer known" in ask("Joke.", checkpoint=gone.pk or 0).reason


def gone_within(warm: Warm, seconds: float) -> bool:
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
    monkeypatch.setattr("labeler.warm.IDLE", 0.5)
    ask("Joke, please.")
    assert gone_within(warm, 5)


def test_a_worker_that_has_to_go_leaves_the_question_to_the_next(ask, warm, monkeypatch):
    ask("Joke, please.")
    monkeypatch.setattr("labeler.warm.is_stopping", lambda: True)
    asked = ask("think")
    assert (asked.state, asked.leased_until) == ("waiting", None) and warm.process is None


def test_a_question_that_takes_for_ever_is_ended(ask, monkeypatch):
    ask("Joke, please.")
    monkeypatch.setattr("labeler.warm.LONGEST", 0.5)
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


# Streaming


@pytest.fixture
def stream(project, warm):
    """`stream("joke")`: a streamed request, not yet answered."""
    checkpoint = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/plain")

    def asked(prompt: str = "joke", count: int = 3, form: str = "rollouts") -> Request:
        question = {"checkpoint": checkpoint.pk, "prompts": [prompt], "count": count, "stream": form}
        return Request.objects.ask(project, "sample", question, None)

    return asked


def answered(request: Request) -> Request:
    tasks.answer(request.pk)
    request.refresh_from_db()
    return request


def written(request: Request) -> list[str]:
    bodies = request.parts.order_by("number").values_list("body", flat=True)
    return [each["text"] for body in bodies for each in body.get("rollouts", [])]


def test_parts_are_kept_as_they_come_and_signs_of_life_are_not(stream):
    asked = answered(stream())
    sums = {"written": 3, "stopped": False, "full": False, "begun": 0}
    assert asked.state == "answered" and asked.answer == sums
    assert written(asked) == ["number 0 \ufffd", "number 1 \ufffd", "number 2 \ufffd"]
    assert [each.number for each in asked.parts.all()] == [1, 2, 3, 4, 5]
    assert asked.parts.last().body == {"sums": sums}
    assert asked.parts.first().body == {"prompt": {"length": 2, "cut": 0}}
    assert [part.number for part in asked.parts.after(3)] == [4, 5]


def test_a_stop_is_heard_while_it_is_written_and_the_child_stays(stream, warm):
    answered(stream())
    asked, process = stream("on and on"), warm.process
    thread = meanwhile(lambda: tasks.answer(asked.pk))
    deadline = time.monotonic() + 10
    while not asked.parts.filter(number__gt=3).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    asked.stop()
    thread.join(10)
    asked.refresh_from_db()
    assert asked.state == "answered" and asked.answer["stopped"] is True
    assert asked.answer["written"] == len(written(asked)) > 1
    assert len(written(answered(stream()))) == 3 and warm.process is process


def test_thousands_let_others_pass_and_only_the_missing_ones_are_written_afterwards(stream, monkeypatch):
    asked, other = stream(count=50), stream("short", form="tokens")
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert asked.state == "waiting"
    assert re.fullmatch(r"the model has written \d+ of 50 rollouts; others come first.*", asked.phase)
    assert len(written(answered(other))) == 3
    answered(asked)
    assert asked.state == "answered" and asked.answer["written"] == 50
    assert asked.answer["begun"] == 1, "what was a draft is gone on with"
    assert sorted(written(asked)) == sorted(f"number {n} \ufffd" for n in range(50))


def test_what_is_read_word_by_word_is_not_written_twice_after_an_interruption(stream):
    asked = stream(form="tokens")
    body = {"rollouts": [{"number": 0, "text": "whole"}, {"number": 1, "more": "half of"}]}
    asked.parts.create(number=1, body=body)
    answered(asked)
    bodies = asked.parts.values_list("body", flat=True)
    found = [each["number"] for body in bodies for each in body.get("rollouts", []) if "text" in each]
    assert found == [0, 1, 2]


def test_an_answer_that_is_too_large_to_keep_ends(stream, monkeypatch):
    monkeypatch.setattr(answers, "ROOM", 400)
    asked = answered(stream("on and on", count=9))
    assert asked.state == "answered" and asked.answer["full"] is True
    assert 1 < asked.answer["written"] < 1000


def test_parts_of_a_request_that_another_attempt_owns_are_not_kept(stream, monkeypatch):
    asked, kept = stream(), []

    def keep(self, body):
        kept.append(body)
        Request.objects.filter(pk=self.pk).update(attempt=9)
        return Request.keep_for_sure(self, body)

    monkeypatch.setattr(Request, "keep_for_sure", Request.keep, raising=False)
    monkeypatch.setattr(Request, "keep", keep)
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert len(kept) == 1 and not asked.parts.exists() and (asked.state, asked.attempt) == ("working", 9)
