"""A long question of the playground and the short ones of others: who goes first, what is put down meanwhile,
and that nothing is lost. With a scripted child that, where top-p is .5, waits after two tokens whether it is
to pause, so that it makes no difference how fast a machine is."""

import pytest

from labeler import answers, tasks
from labeler.models import Project, Request
from labeler.playground import Sitting, waits_for
from tests.labeler import played

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
import json, select, sys
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
def write(asked):
    def part(**body): say(id=asked["id"], part=body)
    begun = {each["number"]: each for each in asked["begun"]}
    part(prompt={"length": 2, "cut": 0, "tokens": []} | ({"drafts": sorted(begun)} if begun else {}))
    written = tokens = 0
    def end(how="", **more):
        sums = {"tokens": tokens, "seconds": 1.0, "first": 0.1 if not begun else 0.7}
        say(id=asked["id"], written=written, stopped=how == "stop", **sums, **more)
    for number in range(asked["count"]):
        if number in asked["have"]: continue
        draft = begun.get(number, {"number": number, "tokens": [], "log_prob": 0.0, "said": 0})
        while len(draft["tokens"]) < asked["max_new_tokens"]:
            patience = 1.5 if tokens == 2 and asked["top_p"] == 0.5 else 0
            if select.select([sys.stdin], [], [], patience)[0]:
                how = json.loads(sys.stdin.readline())["op"]
                return end(how, **({"drafts": [draft]} if how == "pause" else {}))
            place = len(draft["tokens"])
            draft["tokens"].append(place)
            tokens += 1
            word = {"id": place, "text": str(place)}
            part(rollouts=[{"number": number, "more": str(place), "tokens": [word]}], so_far=tokens)
        text = "".join(map(str, draft["tokens"]))
        whole = {"text": text, "length": len(text), "log_prob": -1.0, "finished": True}
        part(rollouts=[{"number": number, "more": "", "tokens": [], **whole}], so_far=tokens)
        written += 1
    end()
for line in sys.stdin:
    asked = json.loads(line)
    if asked["op"] == "sample": write(asked)
    elif asked["op"] == "score":
        long = [[float(len(text)) for text in item["rollouts"]] for item in asked["items"]]
        say(id=asked["id"], rewards=long, scores=long)
    elif asked["op"] == "judge":
        told = {"reason": "Judged.", "read": ""}
        say(id=asked["id"], said=[told | {"correct": each["answer"] == "4"} for each in asked["items"]])
"""


@pytest.fixture
def start(warm_child, project):
    warm_child(CHILD, "Start", "Judge")
    return played.policy(project)


def answered(request: Request) -> Request:
    tasks.answer(request.pk)
    request.refresh_from_db()
    return request


def said(request: Request) -> list[str]:
    rollouts = Sitting(request).read().rollouts
    assert ["".join(each["text"] for each in one.tokens) for one in rollouts] == [
        one.text for one in rollouts
    ]
    return [one.text for one in rollouts]


def test_a_long_question_lets_a_short_one_pass_and_goes_on_where_it_was(start, project, monkeypatch):
    monkeypatch.setattr(answers, "A_TURN", 0.0)
    long = played.asked(project, None, start, start, count=2, max_new_tokens=9, top_p=0.5)
    short = played.asked(project, None, start, count=1, max_new_tokens=1)
    assert "1 question is before yours" in waits_for(short)
    assert answered(long).state == "waiting"
    assert waits_for(long) == "Start has written 0 of 2 rollouts; others come first, then it goes on."
    shown = said(long)
    assert shown[0] and shown[0] != "012345678" and not shown[1]
    assert said(answered(short)) == ["0"]
    assert answered(long).state == "answered" and said(long) == ["012345678"] * 4
    first, second = (side.sums for side in Sitting(long).read().sides)
    assert first["tokens"] == second["tokens"] == 18 and first["written"] == 2
    assert first["first"] == 0.1 and first["seconds"] == 2.0


def test_however_often_others_come_every_turn_goes_further(start, project, monkeypatch):
    monkeypatch.setattr(answers, "A_TURN", 0.0)
    long = played.asked(project, None, start, count=2, max_new_tokens=9, top_p=0.5)
    played.asked(project, None, start, count=1)
    turns, far = 0, [""]
    while answered(long).state == "waiting":
        turns += 1
        assert len("".join(said(long))) > len("".join(far)), "nothing was written in this turn"
        far = said(long)
        assert turns < 19
    assert turns > 1 and said(long) == ["012345678"] * 2


def test_within_its_turn_a_question_is_answered_to_the_end(start, project):
    long = played.asked(project, None, start, count=2, max_new_tokens=9)
    played.asked(project, None, start, count=1)
    assert answered(long).state == "answered"


def test_it_is_stopped_while_others_are_before_it_and_what_is_there_stays(start, project, monkeypatch):
    monkeypatch.setattr(answers, "A_TURN", 0.0)
    long = played.asked(project, None, start, count=2, max_new_tokens=9, top_p=0.5)
    played.asked(project, None, start, count=1)
    shown = said(answered(long))
    long.stop()
    long.refresh_from_db()
    assert (long.state, said(long)) == ("answered", shown)
    one, two = Sitting(long).read().rollouts
    assert one.ended and one.stopped and not two.ended


def test_what_is_judged_lets_others_pass_and_nobody_is_read_twice(start, project, monkeypatch):
    monkeypatch.setattr(answers, "A_FEW", 2)
    judge = played.policy(project, "Judge", kind="reward")
    Project.objects.filter(pk=project.pk).update(judge="checker", checker={"name": "number"})
    long = played.asked(project, None, start, count=5, max_new_tokens=2, reward_model=judge.pk, reference="1")
    short = played.asked(project, None, start, count=1, max_new_tokens=1)
    phases = []
    while answered(long).state == "waiting":
        phases.append(long.phase.partition(";")[0])
    assert phases == [
        "the reward model has read 2 of 5 answers",
        "the reward model has read 4 of 5 answers",
        "the checker has read 2 of 5 answers",
        "the checker has read 4 of 5 answers",
    ]
    bodies = list(long.parts.values_list("body", flat=True))
    for what in ("scores", "verdicts"):
        numbers = [each[0] for body in bodies for each in body.get(what, [])]
        assert numbers == [0, 1, 2, 3, 4]
    assert all(one.score == 2.0 and one.verdict["correct"] for one in Sitting(long).read().rollouts)
    assert answered(short).state == "answered"


def test_whoever_is_given_way_to_is_rung_for_even_where_a_message_was_lost(start, project, monkeypatch):
    """Else the long one would give way for ever to somebody who does not come."""
    monkeypatch.setattr(answers, "A_TURN", 0.0)
    rung: list[int] = []
    monkeypatch.setattr("labeler.models.requests.ring", lambda task, pk: rung.append(pk))
    long = played.asked(project, None, start, count=1, max_new_tokens=9, top_p=0.5)
    first, second = (played.asked(project, None, start, count=1) for _ in range(2))
    assert answered(long).state == "waiting" and rung == [first.pk, second.pk, long.pk]


def test_answers_that_somebody_tries_a_judge_on_let_others_pass(start, project):
    given = {"judge": "checker", "checker": {"name": "judge"}, "judge_model": start}
    Project.objects.filter(pk=project.pk).update(**given)
    items = [{"prompt": "", "answer": str(number), "reference": "4"} for number in range(25)]
    tried = Request.objects.ask_to_check(project, items, None)
    played.asked(project, None, start, count=1)
    phases = []
    while answered(tried).state == "waiting":
        phases.append(tried.phase.partition(";")[0])
    assert phases == ["checked 10 of 25 answers", "checked 20 of 25 answers"]
    assert [each["correct"] for each in tried.answer["verdicts"]] == [number == 4 for number in range(25)]
