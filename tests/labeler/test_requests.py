"""A request's row: stopped before and while it is answered; its parts kept in order, and let go in time."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from labeler.models import Part, Request
from labeler.models.requests import KEPT, STALE
from tests.labeler.scripted import meanwhile

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(project, no_bell) -> Request:
    return Request.objects.ask(project, "sample", {"stream": "rollouts"}, None)


def test_what_nobody_has_begun_ends_as_soon_as_it_is_stopped(asked):
    asked.stop()
    asked.refresh_from_db()
    assert (asked.state, asked.answer) == ("answered", {"stopped": True}) and asked.finished_at
    assert Request.objects.claim(asked.pk) is None


def test_what_is_being_answered_is_told_to_stop(asked):
    claimed = Request.objects.claim(asked.pk)
    assert not claimed.is_to_stop()
    asked.stop()
    assert claimed.is_to_stop()
    asked.refresh_from_db()
    assert asked.state == "working"


def test_thousands_of_rollouts_let_pass_whoever_waits_for_something_short(asked, project):
    assert not Request.objects.short_ones_wait()
    Request.objects.ask(project, "order", {"checkpoint": 1}, None)
    Request.objects.ask(project, "references", {}, None)
    assert not Request.objects.short_ones_wait()
    Request.objects.ask(project, "play", {"checkpoints": [1], "names": ["start"]}, None)
    assert Request.objects.short_ones_wait()


@pytest.mark.django_db(transaction=True)
def test_references_are_asked_for_once_by_two_at_once(asked, project):
    with transaction.atomic():
        first, second = Request.objects.ask_to_check_references(project), []
        thread = meanwhile(lambda: second.append(Request.objects.ask_to_check_references(project)))
        thread.join(0.5)
    thread.join()
    assert second == [first]


def test_an_answer_cannot_be_stopped_any_more(asked):
    claimed = Request.objects.claim(asked.pk)
    claimed.answer_with({"written": 3})
    asked.stop()
    asked.refresh_from_db()
    assert asked.answer == {"written": 3} and not asked.stopping


def test_parts_are_numbered_in_the_order_in_which_they_came(asked):
    claimed = Request.objects.claim(asked.pk)
    assert claimed.keep({"rollouts": [{"number": 4, "text": "a\0"}, {"number": 5}]})
    assert claimed.keep({"rollouts": [{"number": 2, "text": "b"}]})
    assert [(each.number, each.body["rollouts"][0]["number"]) for each in asked.parts.all()] == [
        (1, 4),
        (2, 2),
    ]
    assert asked.parts.numbers("text") == [4, 2]  # number 5 is not there whole
    assert asked.parts.size() > 20
    assert not asked.keep({})  # this one has not claimed it


def test_parts_go_when_nobody_waits_for_them_any_more(asked, project):
    Request.objects.claim(asked.pk).keep({"rollouts": []})
    old = Request.objects.ask(project, "sample", {}, None)
    Request.objects.claim(old.pk).keep({"rollouts": []})
    Request.objects.filter(pk=old.pk).update(created_at=timezone.now() - STALE - timedelta(minutes=1))
    assert Part.objects.prune() == 1
    assert Part.objects.get().request_id == asked.pk


def aged(request: Request, by: timedelta, **more) -> Request:
    Request.objects.filter(pk=request.pk).update(
        created_at=timezone.now() - by - timedelta(minutes=1), **more
    )
    request.refresh_from_db()
    return request


def test_what_nobody_answers_within_a_day_ends_in_words(asked, project):
    killed = Request.objects.ask(project, "play", {}, None)
    killed = aged(killed, STALE, state="working", attempt=1, leased_until=timezone.now() - timedelta(hours=1))
    at_work = Request.objects.ask(project, "play", {}, None)
    Request.objects.claim(at_work.pk)
    aged(at_work, STALE)
    fresh, waits = Request.objects.ask(project, "play", {}, None), aged(asked, STALE)
    assert Request.objects.end_stale() == 2
    for each in (killed, waits):
        each.refresh_from_db()
        assert (each.state, each.reason) == ("failed", "It was not answered within a day.")
        assert "bin/manage doctor" in each.remedy and each.finished_at
    assert {each.pk for each in Request.objects.filter(state="failed")} == {killed.pk, waits.pk}
    assert fresh.is_live and Request.objects.end_stale() == 0


@pytest.mark.parametrize("kind", Request.UNATTENDED)
def test_what_nobody_sits_and_waits_for_is_done_however_late(project, asked, kind):
    late = aged(Request.objects.ask(project, kind, {}, None), STALE * 3)
    assert Request.objects.end_stale() == 0
    assert Request.objects.claim(late.pk)


def test_a_question_that_nobody_answered_does_not_stand_in_the_way_of_the_next(project, asked):
    first = aged(Request.objects.ask_to_simulate(project), STALE)
    assert Request.objects.ask_to_simulate(project) == first
    Request.objects.end_stale()
    assert Request.objects.ask_to_simulate(project) != first


def test_old_questions_go_but_for_what_became_of_something(project, asked):
    def answered(kind: str, **more) -> int:
        made = Request.objects.create(project=project, kind=kind, question={}, state="answered", **more)
        return aged(made, KEPT).pk

    gone = [answered(kind) for kind in ("play", "sample", "order", "try")]
    stay = [answered(kind) for kind in ("compare", "harvest", "gather", "compare")]
    stay += [answered("play", kept=True), answered("order"), answered("try")]
    newest = [
        Request.objects.create(project=project, kind=kind, question={}).pk for kind in ("play", "sample")
    ]
    assert Request.objects.prune() == len(gone)
    assert set(Request.objects.values_list("pk", flat=True)) == {*stay, *newest, asked.pk}


def test_only_workers_that_died_count_against_a_request(asked):
    """One that let others pass many times is not given up when a worker dies over it once."""
    for _ in range(5):
        Request.objects.claim(asked.pk).give_back("read 3 of 9; others come first")
    for died in range(3):
        claimed = Request.objects.claim(asked.pk)
        assert claimed and claimed.lost == died
        Request.objects.filter(pk=asked.pk).update(leased_until=timezone.now() - timedelta(minutes=1))
    assert Request.objects.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("failed", "The worker died 3 times over this.")
