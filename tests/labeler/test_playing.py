"""The playground as the worker answers it, with a scripted warm child: one checkpoint after the other, read
word by word, then judged; stopped, refused, begun anew. The real child streams in
tests/rlhf/test_serve.py."""

import json

import pytest
from django.urls import reverse
from django.utils import timezone

from labeler import answers, tasks
from labeler.models import Checkpoint, Project, Request
from labeler.models.runs import LEASE
from labeler.playground import Sitting
from tests.labeler import played

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
import json, sys
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
for line in sys.stdin:
    asked = json.loads(line)
    def part(**body): say(id=asked["id"], part=body)
    name = asked["checkpoint"].rpartition("/")[2]
    if asked["op"] == "stop": continue
    if name == "Broken": say(id=asked["id"], error="There is not enough memory.", remedy="Ask for less.")
    elif asked["op"] == "score":
        long = [[float(len(text)) for text in item["rollouts"]] for item in asked["items"]]
        say(id=asked["id"], rewards=long, scores=[[each / 100 for each in row] for row in long])
    else:
        part(prompt={"length": 2, "cut": 0, "tokens": []})
        told = {"sure": asked["top_p"], "stream": asked["stream"], "seed": asked["seed"]}
        for number in range(asked["count"]):
            if number in asked["have"]: continue
            text = f"{name} says {number}"
            part(rollouts=[{"number": number, "more": text, "tokens": []}], so_far=1)
            part(rollouts=[{"number": number, "more": "", "text": text, "tokens": [], "length": 3,
                            "log_prob": -1.0, "finished": asked["seed"] != number + 1,
                            "stopped": asked["temperature"] == 2, **told}], so_far=3)
        say(id=asked["id"], written=asked["count"], tokens=9, first=0.1, seconds=1.0, stopped=False)
"""


@pytest.fixture
def warm(warm_child):
    return warm_child(CHILD, "Start", "Step 9", "Judge", "Broken")


@pytest.fixture
def ask(project, warm):
    """`ask("Start", "Step 9", seed=3)`: the request, after the worker had it."""

    def asked(*names: str, **more) -> Request:
        known = [
            Checkpoint.objects.filter(name=name).first() or played.policy(project, name) for name in names
        ]
        request = played.asked(project, None, *known, **more)
        tasks.answer(request.pk)
        request.refresh_from_db()
        return request

    return asked


def bodies(request: Request, name: str) -> list[dict]:
    found = [part.body for part in request.parts.all() if name in part.body]
    return json.loads(json.dumps(found))


def texts(request: Request) -> list[tuple[int, str]]:
    parts = [(body["side"], each) for body in bodies(request, "rollouts") for each in body["rollouts"]]
    return [(side, each["text"]) for side, each in parts if "text" in each]


def test_one_checkpoint_answers_after_the_other_as_it_was_asked(ask):
    request = ask("Start", "Step 9", count=2, top_p=0.5, seed=7)
    assert request.state == "answered" and request.answer == {"stopped": False}
    said = [(0, "Start says 0"), (0, "Start says 1"), (1, "Step 9 says 0"), (1, "Step 9 says 1")]
    assert texts(request) == said
    last = bodies(request, "rollouts")[-1]["rollouts"][0]
    assert (last["sure"], last["stream"], last["seed"]) == (0.5, "tokens", 7)
    assert [(each["side"], each["sums"]["first"]) for each in bodies(request, "sums")] == [(0, 0.1), (1, 0.1)]
    assert not bodies(request, "scores") and not bodies(request, "verdicts")


def test_the_reward_model_reads_every_answer_a_few_at_a_time(ask, project, monkeypatch):
    monkeypatch.setattr(answers, "A_FEW", 2)
    judge = played.policy(project, "Judge", kind="reward")
    request = ask("Start", reward_model=judge.pk)
    assert [each["scores"] for each in bodies(request, "scores")] == [
        [[0, 12.0, 0.12], [1, 12.0, 0.12]],
        [[2, 12.0, 0.12]],
    ]


def test_the_checker_says_which_answers_are_correct(ask, project):
    Project.objects.filter(pk=project.pk).update(judge="checker", checker={"name": "number"})
    [told] = bodies(ask("Start", reference="1"), "verdicts")
    assert [(number, said["correct"]) for number, said in told["verdicts"]] == [
        (0, False),
        (1, True),
        (2, False),
    ]
    assert all(said["reason"] for _, said in told["verdicts"])


def test_answers_stay_where_nothing_can_be_said_of_them(ask, project):
    broken = played.policy(project, "Broken", kind="reward")
    Project.objects.filter(pk=project.pk).update(judge="checker", checker={"name": "judge"})
    request = ask("Start", reward_model=broken.pk, reference="1")
    assert request.state == "answered" and len(texts(request)) == 3
    assert [each["trouble"] for each in bodies(request, "trouble")] == [
        "No scores: There is not enough memory. Ask for less.",
        "No verdicts: The judge has no model. Choose one on the checker's settings.",
    ]


def test_a_checkpoint_that_cannot_answer_fails_in_words_and_what_was_said_stays(ask, project, warm):
    request = ask("Start", "Broken")
    assert (request.state, request.reason) == ("failed", "There is not enough memory.")
    assert len(texts(request)) == 3
    gone = played.policy(project, "Gone")
    asked = played.asked(project, None, gone)
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert asked.reason == "The files of “Gone” are not on this machine."


def test_after_a_stop_nobody_else_answers_and_nothing_is_judged(ask, project, monkeypatch):
    judge = played.policy(project, "Judge", kind="reward")
    real = Request.keep

    def keep(self, body):
        kept = real(self, body)
        if any(each.get("text") for each in body.get("rollouts", [])):
            self.stop()
        return kept

    monkeypatch.setattr(Request, "keep", keep)
    request = ask("Start", "Step 9", reward_model=judge.pk)
    assert request.state == "answered" and request.answer == {"stopped": True}
    assert {side for side, _ in texts(request)} == {0} and not bodies(request, "scores")


def test_what_was_cut_off_is_not_correct_and_of_what_was_stopped_nobody_knows(ask, project):
    """As in training, where an answer has to end; “Start says 1” would be right."""
    Project.objects.filter(pk=project.pk).update(judge="checker", checker={"name": "number"})
    [told] = bodies(ask("Start", reference="1", seed=2), "verdicts")
    verdict = dict(told["verdicts"])[1]
    assert (verdict["correct"], verdict["reason"]) == (False, "It was cut off before it ended.")
    [told] = bodies(ask("Start", reference="1", seed=2, temperature=2), "verdicts")
    verdict = dict(told["verdicts"])[1]
    assert (verdict["correct"], verdict["reason"]) == (None, "It was stopped before it ended.")


HALF = {"rollouts": [{"number": 0, "more": "Half of", "tokens": [{"id": 1, "text": "Half of"}]}]}


def half_answered(project) -> Request:
    """By a worker that died over it: one is there whole, of another the beginning."""
    asked = played.asked(project, None, played.policy(project, "Start"))
    played.tell(asked, {"prompt": {"length": 2, "cut": 0}}, HALF, {"rollouts": [played.whole(1, "Whole.")]})
    Request.objects.filter(pk=asked.pk).update(state="working", leased_until=timezone.now() - LEASE)
    asked.refresh_from_db()
    return asked


def test_a_question_that_is_taken_up_again_keeps_what_is_whole_and_begins_the_rest_anew(warm, project):
    asked = half_answered(project)
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    said = Sitting(asked).read().rollouts
    assert [one.text for one in said] == ["Start says 0", "Whole.", "Start says 2"]
    assert all(one.ended and not one.stopped for one in said) and said[0].tokens == []


def test_what_was_shown_stays_when_somebody_stops_it_after_its_worker_died(as_admin, warm, project):
    asked = half_answered(project)
    asked.stop()
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert asked.state == "answered" and asked.answer == {"stopped": True}
    said = as_admin.get(reverse("play", args=[asked.pk])).content.decode()
    assert "Half of</p>" in said and "Whole.</p>" in said
    assert said.count('<span class="chip warn">stopped</span>') == 1


def test_a_start_from_the_hub_answers_from_where_a_run_has_downloaded_it(ask, project, home):
    start = Checkpoint.objects.create(project=project, name="Hub start", location="hub:a/b@main")
    asked = played.asked(project, None, start)
    tasks.answer(asked.pk)
    asked.refresh_from_db()
    assert "are not on this machine" in asked.reason
    run = project.runs.create(kind="rollouts", state="finished", start=start)
    (run.directory / "inputs" / "policy").mkdir(parents=True)
    asked = played.asked(project, None, start)
    tasks.answer(asked.pk)
    assert texts(asked)[0] == (0, "policy says 0")
