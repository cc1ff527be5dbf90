"""What an import brought, out again: all of it and nothing else, and not once somebody has built on it."""

import pytest
from django.utils import timezone

from labeler import tasks
from labeler.models import AuditEntry, Import, Place, Prompt, Quintet, Ranking, Rollout, User
from tests.labeler.uploaded import ADDRESS, RANKED, done, file_of, kept, no_files_left, rung

pytestmark = pytest.mark.django_db
__all__ = ["kept", "no_files_left", "rung"]


@pytest.fixture
def imported(kept, rung, transactional_db) -> Import:
    return done(kept(file_of(RANKED, RANKED | {"labeler": "lena", "quintet": "two"})))


def test_what_came_in_can_be_taken_out_again(as_admin, imported):
    as_admin.post(f"{ADDRESS}{imported.pk}/undo/")
    tasks.take_in(imported.pk)
    imported.refresh_from_db()
    assert imported.state == "undone"
    assert not any(model.objects.exists() for model in (Ranking, Rollout, Quintet, Prompt))
    assert set(User.objects.values_list("username", flat=True)) == {"ada", "lena"}
    assert AuditEntry.objects.latest("pk").action == "import undone"
    assert "It was taken out again" in as_admin.get(f"{ADDRESS}{imported.pk}/").content.decode()
    assert not imported.ask(undo=True) and not imported.ask()


def test_what_was_there_before_stays(as_admin, project, kept, rung, transactional_db):
    first = done(kept(file_of(RANKED)))
    second = done(kept(file_of(RANKED, RANKED | {"labeler": "sam"}, RANKED | {"prompt": "Another."})))
    assert done(second, undo=True).state == "undone"
    assert list(Ranking.objects.values_list("labeler__username", "brought_by")) == [("rita", first.pk)]
    assert list(Prompt.objects.values_list("content", flat=True)) == ["Write a joke."]
    assert not User.objects.filter(username="sam").exists()


def test_what_waits_is_taken_out_of_the_queue(project, kept, rung, transactional_db):
    found = done(kept(file_of({"prompt": "p", "rollouts": ["a", "b"]})))
    assert Place.objects.count() == 1
    assert done(found, undo=True).state == "undone"
    assert not Place.objects.exists() and not Quintet.objects.exists()


def test_what_somebody_ranked_since_stays_and_is_said_to(as_admin, imported, labeler, stranger):
    Quintet.objects.first().record_ranking(stranger, None, [1, 2, 3, 4, 5])
    done(imported, undo=True)
    assert (imported.state, imported.reason) == (
        "finished",
        "One quintet of this import has been ranked here since. It stays.",
    )
    assert Ranking.objects.count() == 3
    assert "has been ranked here since" in as_admin.get(f"{ADDRESS}{imported.pk}/").content.decode()


@pytest.mark.parametrize(
    "since, words",
    [
        (
            lambda: Quintet.objects.update(reviewed_at=timezone.now()),
            "2 quintets of this import have been reviewed",
        ),
        (lambda: Ranking.objects.update(returned_at=timezone.now()), "edited or sent back"),
        (lambda: Quintet.objects.update(purpose="gold"), "become a check or practice"),
        (lambda: Ranking.objects.first().flags.create(reason="reward model"), "marked for review"),
    ],
)
def test_what_was_built_upon_stays(imported, since, words):
    since()
    done(imported, undo=True)
    assert words in imported.reason
    assert Ranking.objects.count() == 2


def test_nothing_is_pulled_away_from_under_who_is_ranking_it(kept, rung, labeler, project, transactional_db):
    found = done(kept(file_of({"prompt": "p", "rollouts": ["a", "b"]})))
    Place.objects.next_for(labeler, project)
    assert "Somebody is ranking" in done(found, undo=True).reason
    Place.objects.release(labeler)
    assert done(found, undo=True).state == "undone"
