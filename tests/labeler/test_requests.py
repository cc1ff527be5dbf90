"""A request's row: stopped before and while it is answered; its parts kept in order, and let go in time."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from labeler.models import Part, Request
from labeler.models.requests import STALE
from tests.labeler.scripted import meanwhile

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(project, monkeypatch) -> Request:
    monkeypatch.setattr("labeler.models.requests.ring", lambda *_: None)
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
    assert not Request.objects.read_along()
    Request.objects.ask(project, "order", {"checkpoint": 1}, None)
    Request.objects.ask(project, "references", {}, None)
    assert not Request.objects.read_along()
    Request.objects.ask(project, "play", {"checkpoints": [1], "names": ["start"]}, None)
    assert Request.objects.read_along()


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
    assert asked.parts.written() == [4, 2]  # number 5 is not there whole
    assert asked.parts.size() > 20
    assert not asked.keep({})  # this one has not claimed it


def test_parts_go_when_nobody_waits_for_them_any_more(asked, project):
    Request.objects.claim(asked.pk).keep({"rollouts": []})
    old = Request.objects.ask(project, "sample", {}, None)
    Request.objects.claim(old.pk).keep({"rollouts": []})
    Request.objects.filter(pk=old.pk).update(created_at=timezone.now() - STALE - timedelta(minutes=1))
    assert Part.objects.prune() == 1
    assert Part.objects.get().request_id == asked.pk
