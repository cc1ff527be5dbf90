"""Rollouts of one prompt sampled now: asked for on a page, checked in the worker as they come, streamed into
the grid, stopped. With a scripted warm child; the real one streams in tests/rlhf/test_serve.py."""

import json
import re

import pytest
from django.urls import reverse

from labeler import answers, tasks
from labeler.models import Checkpoint, Request
from labeler.warm import Warm
from tests.labeler import drilled, played

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
import json, sys
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
for line in sys.stdin:
    asked = json.loads(line)
    if asked["op"] == "stop": continue
    if asked["op"] == "judge":
        said = []
        for each in asked["items"]:
            if "6" in each["answer"]: said.append({"correct": None, "reason": "Too long."})
            else: said.append({"correct": "4" in each["answer"], "reason": "Judged.", "read": ""})
        say(id=asked["id"], said=said)
        continue
    assert not {"prompt", "reference", "name"} & set(asked)
    assert len(asked["have"]) < asked["count"], "what is written is not asked for again"
    say(id=asked["id"], part={"prompt": {"length": 2, "cut": 0}})
    for number in range(asked["count"]):
        if number in asked["have"]: continue
        told = {"number": number, "text": f"It is {number % 10}.", "log_prob": -1.0}
        told["length"] = {0: 1, 14: 2}.get(number, 3)
        told["finished"] = number != 4 or asked["seed"] == 0
        if asked["seed"] == 2: told["stopped"] = not told["finished"]
        say(id=asked["id"], part={"rollouts": [told], "so_far": 3})
    say(id=asked["id"], written=asked["count"], tokens=9, first=0.1, seconds=1.0, stopped=False)
"""


@pytest.fixture
def warm(warm_child):
    return warm_child(CHILD, "Start")


@pytest.fixture
def prompt(project, no_bell):
    project.judge, project.checker = "checker", {"name": "number"}
    project.start = played.policy(project)
    project.save()
    return project.prompts.create(content="What is 2 + 2?", answer="4")


def ask(client, prompt, **given) -> Request:
    start = Checkpoint.objects.get(name="Start")
    given = {"checkpoint": start.pk, "count": 15, "temperature": 1, "longest": 32, "seed": 0} | given
    answer = client.post(reverse("practice_prompt", args=[prompt.project.slug, prompt.pk]), given)
    assert answer.status_code == 302, answer.content.decode()
    return Request.objects.get(pk=answer.url.split("/")[-2])


def page(client, request: Request, query: str = "", status: int = 200, **more) -> str:
    answer = client.get(reverse("practice_sampled", args=[request.pk]) + query, **more)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def tiles(text: str) -> list[str]:
    return re.findall(r'class="tile (\w+) s\d', text)


HX = {"headers": {"HX-Request": "true"}}


def test_fifteen_are_asked_for_unless_another_number_is_said(as_admin, prompt):
    form = as_admin.get(reverse("practice_prompt", args=[prompt.project.slug, prompt.pk])).content.decode()
    assert 'name="count" value="15"' in form and "the project&#x27;s start" in form
    asked = ask(as_admin, prompt, count=10_000).question
    assert (asked["count"], asked["reference"], asked["stream"]) == (10_000, "4", "rollouts")
    address = reverse("practice_prompt", args=[prompt.project.slug, prompt.pk])
    many = as_admin.post(address, {"checkpoint": asked["checkpoint"], "count": 10_001})
    assert many.status_code == 422 and b"less than or equal to 10000" in many.content


def test_the_worker_checks_each_as_it_comes(as_admin, prompt, warm):
    request = ask(as_admin, prompt)
    tasks.answer(request.pk)
    request.refresh_from_db()
    assert request.state == "answered" and request.reason == ""
    [said] = [
        each for part in request.parts.all() for each in part.body.get("rollouts", []) if each["number"] == 4
    ]
    assert (said["correct"], said["read"]) == (True, "4") and said["checked"]
    text = page(as_admin, request)
    assert tiles(text).count("right") == 2 and tiles(text).count("wrong") == 13
    assert "2 of 15 correct" in text and "13 %, by 95 % confidence 4 % to 38 %" in text
    assert "<dt>pass@1</dt><dd>13 %" in text and "<dt>pass@15</dt><dd>100 %" in text
    assert "The yellow one would be picked for training" in text and text.count(">★</b>") == 1
    assert "the shortest of those, with 2 tokens" in text  # of the two that are correct, not of all


@pytest.mark.parametrize("name", ["number", "judge"])
def test_what_was_cut_off_is_not_correct_and_of_what_was_stopped_nobody_knows(as_admin, prompt, warm, name):
    """As in training: the number that half an answer happens to end with is not what it comes to."""
    prompt.project.checker, prompt.project.judge_model = {"name": name}, prompt.project.start
    prompt.project.save()
    for seed, right, of in ((1, 1, 15), (2, 1, 14)):
        request = ask(as_admin, prompt, seed=seed)
        tasks.answer(request.pk)
        assert f"{right} of {of - (name == 'judge')} correct" in page(as_admin, request)
        assert ("It was cut off" if seed == 1 else "It was stopped") in page(as_admin, request, "?one=4")


@pytest.fixture
def judged(as_admin, prompt, warm, monkeypatch) -> Request:
    """Fifteen that wait for a judge; the worker has been told to look up after each few of them."""
    prompt.project.checker, prompt.project.judge_model = {"name": "judge"}, prompt.project.start
    prompt.project.save()
    return ask(as_admin, prompt)


def after_the_first_few(monkeypatch, do) -> list[int]:
    """Something happens when the judge has read some answers; how many it was asked about, time by time."""
    real, asked = Warm.ask, []

    def once(self, operation, **question):
        said = real(self, operation, **question)
        if operation == "judge":
            asked.append(len(question["items"]))
            if sum(asked) == answers.A_FEW:
                do()
        return said

    monkeypatch.setattr(answers, "A_FEW", 5)
    monkeypatch.setattr(Warm, "ask", once)
    return asked


def test_a_judge_reads_them_when_all_are_written_each_once_however_many_say_the_same(
    as_admin, judged, monkeypatch
):
    read = after_the_first_few(monkeypatch, lambda: None)
    tasks.answer(judged.pk)
    assert "2 of 14 correct" in page(as_admin, judged)
    assert "Too long." in page(as_admin, judged, "?one=6") and sum(read) == 10


def test_whoever_waits_for_something_short_goes_before_the_rest_of_what_is_judged(
    as_admin, judged, prompt, monkeypatch
):
    others: list[Request] = []
    start = Checkpoint.objects.get(name="Start")
    read = after_the_first_few(
        monkeypatch, lambda: others.append(played.asked(prompt.project, None, start, count=1))
    )
    tasks.answer(judged.pk)
    judged.refresh_from_db()
    words = "the judge has read 5 of 15 answers; others come first, then it goes on"
    assert (judged.state, judged.phase) == ("waiting", words)
    said = page(as_admin, judged)
    assert words.capitalize() in said and "1 of 5 correct" in said
    Request.objects.filter(pk=others[0].pk).update(state="answered")
    tasks.answer(judged.pk)
    judged.refresh_from_db()
    assert judged.state == "answered" and sum(read) == 5 + 10, "what has its verdict is not read again"
    assert judged.answer["written"] == 15 and "2 of 14 correct" in page(as_admin, judged)


def test_a_judge_is_stopped_among_its_answers_and_says_how_far_it_came(as_admin, judged, monkeypatch):
    read = after_the_first_few(monkeypatch, judged.stop)
    tasks.answer(judged.pk)
    judged.refresh_from_db()
    assert judged.state == "answered" and judged.answer["unread"] == 10 and sum(read) == 5
    said = page(as_admin, judged)
    assert "Stopped after 15 of 15; of these the judge has not read 10." in said and "1 of 5 correct" in said


def test_without_an_answer_they_come_unchecked(as_admin, prompt, warm):
    prompt.answer = ""
    prompt.save()
    request = ask(as_admin, prompt)
    tasks.answer(request.pk)
    text = page(as_admin, request)
    assert set(tiles(text)) == {"unclear"} and "none could be checked" in text


def had(text: str) -> str:
    """What the page would say with its next question."""
    return re.search(r"\?had=[\d-]+", text)[0]


def test_tiles_come_as_parts_do_and_no_tile_comes_twice(as_admin, prompt):
    start = Checkpoint.objects.get(name="Start")
    request = drilled.sampled(prompt, start, (True, False), state="working")
    first = page(as_admin, request)
    assert len(tiles(first)) == 2 and 'value="2"' in first and "1 of 2 correct" in first
    drilled.add(request, 7, True)
    news = page(as_admin, request, had(first), **HX)
    assert tiles(news) == ["right"] and 'value="3"' in news and "2 of 3 correct" in news
    again = page(as_admin, request, had(news), **HX)
    assert tiles(again) == [] and "2 of 3 correct" in again
    assert len(tiles(page(as_admin, request, "?had=nonsense", **HX))) == 3
    Request.objects.filter(pk=request.pk).update(state="answered", answer={"stopped": False})
    done = page(as_admin, request, had(news) + "&one=7", **HX)
    assert len(tiles(done)) == 3 and "hx-trigger" not in done.split('id="whole"')[0]
    assert "7 was read." in done, "what somebody reads is taken from them when all are there"


def test_news_cost_the_same_however_many_have_come(as_admin, prompt):
    """Of the parts that a page has had, not even the numbers are asked for."""
    start = Checkpoint.objects.get(name="Start")
    request = drilled.sampled(prompt, start, (True, False, None) * 20, state="working")
    far = had(page(as_admin, request))
    request.parts.update(body={"rollouts": [], "tiles": "whoever reads this breaks"})
    drilled.add(request, 60, True)
    news = page(as_admin, request, far, **HX)
    assert tiles(news) == ["right"] and "21 of 41 correct" in news
    assert had(news) == "?had=61-61-21-41-69"


def test_one_is_read_without_the_others(as_admin, prompt, django_assert_max_num_queries):
    request = drilled.sampled(prompt, Checkpoint.objects.get(name="Start"))
    text = page(as_admin, request, "?one=1", **HX)
    assert "✗ incorrect" in text and "It is 1." in text and "1 was read." in text and "<html" not in text
    page(as_admin, request, "?one=99", status=404)


def test_it_is_stopped_and_says_how_far_it_came(as_admin, prompt):
    start = Checkpoint.objects.get(name="Start")
    request = drilled.sampled(prompt, start, (True, False), state="working")
    as_admin.post(reverse("practice_stop", args=[request.pk]))
    request.refresh_from_db()
    assert request.stopping
    Request.objects.filter(pk=request.pk).update(state="answered", answer={"stopped": True})
    assert "Stopped after 2 of 15" in page(as_admin, request)


def test_what_failed_and_what_is_gone_says_so(as_admin, prompt):
    start = Checkpoint.objects.get(name="Start")
    failed = drilled.sampled(prompt, start, (), state="failed", reason="No memory.", remedy="Ask for less.")
    assert "No memory." in page(as_admin, failed) and "Ask for less." in page(as_admin, failed)
    assert "kept for a day" in page(as_admin, drilled.sampled(prompt, start, ()))
    assert json.dumps(failed.question)


def test_a_sample_of_another_project_is_not_there(client, prompt, stranger):
    request = drilled.sampled(prompt, Checkpoint.objects.get(name="Start"))
    client.force_login(stranger)
    page(client, request, status=404)
