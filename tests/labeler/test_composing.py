"""Quintets of several checkpoints' rollouts: all of them in each, in no telling order, once."""

from collections import Counter

import pytest

from labeler import composing, tasks
from labeler.composing import chosen
from labeler.follower import Follower
from labeler.models import Checkpoint, Place, Prompt, Quintet, Run
from tests.labeler.faced import launch, line, policies, sampled, write

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoints(project) -> list[Checkpoint]:
    return policies(project)


def test_every_quintet_has_a_rollout_of_every_checkpoint(project, checkpoints):
    project.overlap = 2
    project.save()
    faceoff = launch(project, checkpoints[1:])
    sampled(faceoff)
    composing.attend()
    faceoff.refresh_from_db()
    quintets = list(faceoff.quintets.prefetch_related("rollouts__checkpoint"))
    assert faceoff.state == "asking" and len(quintets) == 6
    wrote = Counter(each.checkpoint.name for quintet in quintets for each in quintet.rollouts.all())
    assert all(
        {each.checkpoint for each in quintet.rollouts.all()} == set(checkpoints) for quintet in quintets
    )
    assert sum(wrote.values()) == 30 and max(wrote.values()) - min(wrote.values()) <= 2
    assert all(each.text.startswith(each.checkpoint.name) for q in quintets for each in q.rollouts.all())
    assert Place.objects.filter(quintet__faceoff=faceoff).count() == 12
    orders = {tuple(each.checkpoint_id for each in quintet.rollouts.all()) for quintet in quintets}
    assert len(orders) > 3, "a slot must not tell who wrote it"


def test_it_is_composed_once_and_not_before_all_have_written(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    sampled(faceoff)
    last = faceoff.contenders.last().run
    Run.objects.filter(pk=last.pk).update(state="running", leased_until="2040-01-01T00:00Z")
    composing.attend()
    assert not Quintet.objects.exists()
    Run.objects.filter(pk=last.pk).update(state="finished")
    composing.attend()
    composing.compose(faceoff)
    assert faceoff.quintets.count() == 6


def test_a_prompt_that_is_asked_twice_is_answered_twice(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2], quintets=8, prompts=5)
    sampled(faceoff)
    composing.attend()
    assert faceoff.quintets.count() == 8
    firsts = faceoff.quintets.filter(prompt=faceoff.asked[0])
    texts = [{each.text for each in quintet.rollouts.all()} for quintet in firsts]
    assert len(texts) == 2 and not texts[0] & texts[1]


def test_prompts_to_which_all_write_the_same_are_left_out_and_counted(project, checkpoints):
    faceoff = launch(project, checkpoints[1:])
    sampled(faceoff, lambda name, number, time: "Honk." if number < 2 else f"{name} {time}")
    composing.attend()
    faceoff.refresh_from_db()
    assert (faceoff.quintets.count(), faceoff.left_out) == (4, 2)


def test_a_prompt_that_was_deleted_meanwhile_is_passed_over(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    sampled(faceoff)
    Prompt.objects.get(pk=faceoff.asked[0]).delete()
    composing.attend()
    assert faceoff.quintets.count() == 5


def test_equal_texts_are_replaced_where_there_are_others():
    first = [{"rollout": text} for text in ("a", "b", "c")]
    second = [{"rollout": text} for text in (" a ", "d")]
    assert [each["rollout"] for each in chosen([0, 1, 0], [first, second])] == ["a", "d", "b"]
    same = [{"rollout": "a"}, {"rollout": "a"}]
    assert [each["rollout"] for each in chosen([0, 1], [first, same])] == ["a", "a"]


def test_the_rollouts_of_such_a_run_make_no_quintets_by_themselves(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    run = Run.objects.claim(faceoff.contenders.first().run.pk, "here")
    prompt = Prompt.objects.first()
    write(run, *(line(prompt, 0, f"Joke {n}.") for n in range(5)))
    Follower(run).catch_up()
    assert not Quintet.objects.exists()


def test_the_sweep_composes_what_a_worker_left(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    sampled(faceoff)
    tasks.sweep(set())
    assert faceoff.quintets.count() == 6


def test_what_cannot_be_read_ends_it_in_words(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    sampled(faceoff)
    run = faceoff.contenders.first().run
    (run.directory / "rollouts.jsonl.zst").write_bytes(b"no zstd at all, and long enough to be told from one")
    composing.attend()
    faceoff.refresh_from_db()
    assert faceoff.state == "stopped" and not faceoff.quintets.exists()
    assert faceoff.stopped_because.startswith("What its checkpoints wrote cannot be read:")
