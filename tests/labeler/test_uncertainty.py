"""Uncertain first: the measure by hand, and the queue that a reward model has read. The child is scripted: a
rollout's reward is its length."""

import json
import math
from itertools import combinations

import pytest
from django.core.management import call_command

from labeler import answers, tasks
from labeler.models import Checkpoint, Project, Request, Run
from labeler.uncertainty import disagreement, uncertainty

CHILD = """
import json, sys
def say(**answer): print(json.dumps(answer), flush=True)
say(ready=True, device="cpu")
for line in sys.stdin:
    asked = json.loads(line)
    rewards = [[float(len(text)) for text in item["rollouts"]] for item in asked["items"]]
    say(id=asked["id"], rewards=rewards, scores=rewards)
"""
SURE = ["a", "b" * 9, "c" * 19, "d" * 29, "e" * 39]
UNSURE = ["a", "b", "cc", "dd", "ee"]


def test_the_measure_is_twice_the_share_of_pairs_that_the_model_expects_to_get_wrong():
    rewards = [0.3, -1.2, 2.0, 0.4]
    chances = [1 / (1 + math.exp(-(one - other) / 0.7)) for one, other in combinations(rewards, 2)]
    expected = 2 * sum(min(chance, 1 - chance) for chance in chances) / len(chances)
    assert uncertainty(rewards, list("abcd"), 0.7) == pytest.approx(expected)


def test_the_measure_lies_between_none_and_one_and_knows_twins():
    assert uncertainty([1.0, 1.0, 1.0], list("abc"), 1.0) == 1
    assert uncertainty([0.0, 1e6], list("ab"), 0.1) < 1e-6
    assert uncertainty([2.0, 2.0], ["same", "same"], 1.0) == 0
    assert uncertainty([2.0, 2.0, 9.0], ["same", "same", "other"], 1.0) == uncertainty(
        [2.0, 9.0], ["s", "o"], 1.0
    )


def test_the_measure_of_an_ensemble_grows_with_its_spread():
    assert disagreement([1.0, 3.0], ["a", "b"], 2.0) == pytest.approx(0.5)  # a mean spread of τ
    assert disagreement([9.0, 27.0], ["a", "b"], 2.0) == pytest.approx(0.9)
    assert disagreement([0.0, 0.0], ["a", "b"], 2.0) == 0
    assert disagreement([5.0, 5.0], ["same", "same"], 2.0) == 0


@pytest.fixture
def judge(project, warm_child, monkeypatch) -> Checkpoint:
    warm_child(CHILD, "judge")
    monkeypatch.setattr(answers, "A_CHUNK", 2)
    project.queue, project.random_share = Project.Queue.UNCERTAIN, 0
    project.save()
    return Checkpoint.objects.create(
        project=project, kind="reward", name="Judge", location="checkpoints/judge", lineage={"tau": 2.0}
    )


@pytest.mark.django_db(transaction=True)
def test_what_the_reward_model_is_least_sure_of_is_ranked_first(judge, project, compose, labeler):
    from labeler.models import Place

    sure, unsure = compose(3, SURE), compose(2, UNSURE)
    request = Request.objects.ask_to_order(project, judge)
    tasks.answer(request.pk)
    request.refresh_from_db()
    assert (request.state, request.answer) == ("answered", {"checkpoint": judge.pk, "read": 5})
    for quintet in (*sure, *unsure):
        quintet.refresh_from_db()
        assert quintet.scored_by == judge
    assert sure[0].uncertainty < 0.01 < 0.5 < unsure[0].uncertainty <= 1
    assert Place.objects.next_for(labeler, project).quintet in unsure


@pytest.mark.django_db(transaction=True)
def test_where_the_members_of_an_ensemble_are_apart_is_ranked_first(judge, project, compose, warm_child):
    ensemble = CHILD.replace(
        "scores=rewards", "scores=rewards, spreads=[[each / 9 for each in row] for row in rewards]"
    )
    warm_child(ensemble)
    sure, unsure = compose(1, SURE), compose(1, UNSURE)
    tasks.answer(Request.objects.ask_to_order(project, judge).pk)
    for quintet in (*sure, *unsure):
        quintet.refresh_from_db()
    assert unsure[0].uncertainty < 0.1 < sure[0].uncertainty < 1


@pytest.mark.django_db(transaction=True)
def test_new_rollouts_are_read_when_they_come_and_the_others_not_again(judge, project, compose):
    compose(2, SURE)
    tasks.answer(Request.objects.keep_ordered(project).pk)
    compose(1, UNSURE)
    again = Request.objects.keep_ordered(project)
    tasks.answer(again.pk)
    again.refresh_from_db()
    assert again.answer["read"] == 1


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_in_front_of_a_page_comes_first(judge, project, compose):
    quintets = compose(5, SURE)
    ordering = Request.objects.ask_to_order(project, judge)
    item = {"prompt": "Hm?", "rollouts": ["a", "bb"]}
    asked = Request.objects.ask(project, "score", {"checkpoint": judge.pk, "items": [item]}, None)
    tasks.answer(ordering.pk)
    ordering.refresh_from_db()
    assert (ordering.state, ordering.phase) == (
        "waiting",
        "read 2 of 5 quintets; others come first, then it goes on",
    )
    assert sum(quintet.scored_by_id is not None for quintet in project.quintets.all()) == 2
    tasks.answer(asked.pk)
    tasks.answer(ordering.pk)
    ordering.refresh_from_db()
    assert (ordering.state, ordering.answer["read"]) == ("answered", 3) and len(quintets) == 5


@pytest.mark.django_db(transaction=True)
def test_a_question_that_still_waits_is_not_asked_twice(judge, project):
    newer = Checkpoint.objects.create(project=project, kind="reward", name="Newer", location="x")
    first = Request.objects.ask_to_order(project, judge)
    assert Request.objects.keep_ordered(project) == first
    first.refresh_from_db()
    assert first.question == {"checkpoint": newer.pk} and Request.objects.count() == 1


@pytest.mark.parametrize(
    ("kind", "queue", "asked"),
    [
        ("reward", "uncertain", 1),
        ("rollouts", "uncertain", 1),
        ("policy", "uncertain", 0),
        ("reward", "imported", 0),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_run_that_finished_has_the_queue_ordered_where_the_project_wants_it(
    judge, project, kind, queue, asked
):
    Project.objects.filter(pk=project.pk).update(queue=queue)
    run = Run.objects.claim(project.runs.create(kind=kind).pk, "here")
    tasks.end(run, Run.State.FINISHED)
    assert Request.objects.filter(kind="order").count() == asked


@pytest.mark.django_db(transaction=True)
def test_choosing_the_order_by_uncertainty_has_what_waits_read(judge, project, admin):
    project.change(admin, queue=Project.Queue.RANDOM)
    assert not Request.objects.exists()
    project.change(admin, queue=Project.Queue.UNCERTAIN)
    assert Request.objects.get().question == {"checkpoint": judge.pk}


@pytest.mark.django_db(transaction=True)
def test_what_is_imported_is_read_as_well(judge, project, tmp_path):
    lines = tmp_path / "more.jsonl"
    lines.write_text(json.dumps({"prompt": "Joke?", "rollouts": UNSURE}) + "\n")
    call_command("import_prompts", str(lines), project=project.slug)
    assert Request.objects.get().kind == "order"
