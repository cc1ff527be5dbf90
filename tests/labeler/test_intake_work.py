"""An import by a worker's hand: checked, kept whole or not at all, told of, started again."""

import pytest
from django.utils import timezone

from labeler import celery, tasks
from labeler.models import AuditEntry, Import, Place, Prompt, Quintet, Ranking, Rollout, User
from tests.labeler.uploaded import ADDRESS, RANKED, done, file_of, kept, no_files_left, rung

__all__ = ["kept", "no_files_left", "rung"]  # fixtures

pytestmark = pytest.mark.django_db


# Importing


def test_what_is_asked_waits_for_a_worker_and_the_page_tells(
    as_admin, kept, rung, django_capture_on_commit_callbacks
):
    found = kept(file_of(RANKED))
    with django_capture_on_commit_callbacks(execute=True):
        assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}).status_code == 302
    assert rung == [("take_in", found.pk)]
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "Waiting for the worker" in page and 'hx-trigger="every 1s"' in page
    Import.objects.update(asked_at=timezone.now() - timezone.timedelta(minutes=1))
    assert "No worker has come for it yet" in as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}, follow=True).status_code == 200
    assert len(rung) == 1


@pytest.mark.django_db(transaction=True)
def test_a_worker_imports_it_all_and_the_page_says_so(as_admin, kept, rung):
    found = done(kept(file_of(RANKED, RANKED | {"labeler": "sam"}, RANKED)))
    assert (found.state, found.added, found.known, found.errors) == ("finished", 2, 1, 0)
    assert set(Ranking.objects.values_list("labeler__username", flat=True)) == {"rita", "sam"}
    assert {
        each.brought_by for each in (*Ranking.objects.all(), *Quintet.objects.all(), *Prompt.objects.all())
    } == {found}
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "It is all in" in page and "every 1s" not in page
    assert not found.folder.exists()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.by.username, entry.about) == ("import done", "ada", {"number": found.pk})
    assert "rankings.jsonl: 2 rankings came in, 1 were there already" in entry.words


@pytest.mark.django_db(transaction=True)
def test_a_dry_run_finds_it_good_and_keeps_nothing(as_admin, kept, rung):
    found = done(kept(file_of(RANKED)), dry_run=True)
    assert (found.state, found.added) == ("checked", 1)
    assert not Prompt.objects.exists() and not User.objects.filter(username="rita").exists()
    assert "Every line can be taken" in as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert done(found).state == "finished"
    assert Ranking.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_admin_of_a_project_cannot_put_words_into_a_strangers_mouth(
    kept, rung, project, labeler, stranger
):
    project.memberships.filter(user=labeler).update(role="admin")
    of_otto = kept(file_of(RANKED | {"labeler": "otto"}, RANKED | {"labeler": "lena"}))
    Import.objects.filter(pk=of_otto.pk).update(created_by=labeler)
    found = done(of_otto)
    assert (found.state, found.errors) == ("refused", 1)
    assert "otto has an account here and is not in this project" in str(found.first_errors)
    project.memberships.create(user=stranger)
    again = kept(file_of(RANKED | {"labeler": "otto"}, RANKED | {"labeler": "lena"}))
    Import.objects.filter(pk=again.pk).update(created_by=labeler)
    assert done(again).state == "finished"
    assert {each.labeler.username for each in Ranking.objects.all()} == {"lena", "otto"}


@pytest.mark.django_db(transaction=True)
def test_names_that_differ_in_capitals_alone_are_one_too_many(kept, rung, labeler):
    found = done(
        kept(file_of(RANKED | {"labeler": "Lena"}, RANKED | {"labeler": "New"}, RANKED | {"labeler": "new"}))
    )
    assert (found.state, found.errors) == ("refused", 2)
    assert "the labeler Lena is called lena here" in str(found.first_errors)


@pytest.mark.django_db(transaction=True)
def test_all_errors_are_told_and_nothing_is_kept(as_admin, kept, rung):
    bad = [RANKED | {"ranks": [n]} for n in range(30)]
    found = done(
        kept(file_of(RANKED, *bad, RANKED | {"labeler": "x", "simulated": True}, RANKED | {"labeler": "x"}))
    )
    assert (found.state, found.errors, len(found.first_errors)) == ("refused", 31, 20)
    assert not Prompt.objects.exists()
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "31 lines cannot be taken" in page and "Line 2: “ranks” must be a list of 5 numbers" in page
    response = as_admin.get(f"{ADDRESS}{found.pk}/errors/")
    told = b"".join(response.streaming_content).decode().splitlines()
    assert len(told) == 31
    assert told[-1] == "Line 33: the labeler x is simulated elsewhere, and a person here."
    assert "attachment" in response["Content-Disposition"]


@pytest.mark.django_db(transaction=True)
def test_the_columns_chosen_on_the_page_are_those_that_are_imported(as_admin, kept, rung):
    found = kept(b"q,r1,r2,secret\nWrite a joke.,a,b,x\n", "sheet.csv")
    chosen = {f"column-{n}": field for n, field in enumerate(["prompt", "rollout 1", "rollout 2", "-"])}
    as_admin.post(f"{ADDRESS}{found.pk}/", {"kind": "rollouts"})
    as_admin.post(f"{ADDRESS}{found.pk}/", chosen | {"kind": "rollouts", "do": "import"})
    tasks.take_in(found.pk)
    quintet = Quintet.objects.get()
    assert [each.text for each in quintet.rollouts.all()] == ["a", "b"]
    assert (quintet.extra, quintet.prompt.content) == ({}, "Write a joke.")
    assert Place.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("content", [b"\n\n{}\n", b"{\n"])
def test_a_file_without_one_good_line_is_refused(kept, rung, content):
    assert done(kept(b"\n" + content)).state == "refused"


@pytest.mark.django_db(transaction=True)
def test_a_header_alone_is_no_import(kept, rung):
    found = done(kept(b"prompt,answer\n", "sheet.csv"))
    assert (found.state, found.reason) == ("failed", "There is no line in it.")


# A worker's life


@pytest.mark.django_db(transaction=True)
def test_a_message_that_comes_twice_finds_nothing_to_do(kept, rung):
    found = done(kept(file_of(RANKED)))
    tasks.take_in(found.pk)
    assert Ranking.objects.count() == 1
    assert Import.objects.get().attempt == 1


@pytest.mark.django_db(transaction=True)
def test_an_import_whose_worker_was_killed_starts_again_from_nothing(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    lost = Import.objects.claim(found.pk)
    assert Import.objects.claim(found.pk) is None
    Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    tasks.take_in(found.pk)
    assert Ranking.objects.count() == 1
    assert not lost.end("failed") and not lost.renew(1, 1, "")
    assert Import.objects.get().state == "finished"


@pytest.mark.django_db(transaction=True)
def test_what_kills_three_workers_is_not_tried_a_fourth_time(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    for _ in range(3):
        assert Import.objects.claim(found.pk)
        Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    assert Import.objects.claim(found.pk) is None
    found.refresh_from_db()
    assert (found.state, found.reason.partition(" over")[0]) == ("failed", "The worker died 3 times")


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_go_leaves_it_whole_to_the_next(kept, rung, monkeypatch):
    found = kept(file_of(*({"prompt": f"p{n}"} for n in range(2500))), "prompts.jsonl")
    found.ask()
    claimed = Import.objects.claim(found.pk)
    asked = iter([False, True])
    from labeler.intake.work import carry_out

    carry_out(claimed, lambda: next(asked))
    found.refresh_from_db()
    assert (found.state, Prompt.objects.count()) == ("waiting", 0)
    tasks.take_in(found.pk)
    assert Prompt.objects.count() == 2500


@pytest.mark.django_db(transaction=True)
def test_an_attempt_that_lost_the_row_keeps_nothing(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    late = Import.objects.claim(found.pk)
    Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    Import.objects.claim(found.pk)
    from labeler.intake.work import carry_out

    carry_out(late, lambda: False)
    assert not Ranking.objects.exists()
    assert Import.objects.get().state == "working"


def test_the_sweep_rings_for_what_waits(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    tasks.sweep({"interactive"})
    assert rung == [("take_in", found.pk)]
    tasks.sweep({"runs"})
    assert len(rung) == 1


def test_imports_are_taken_by_the_queue_of_those_who_wait():
    assert celery.app.conf.task_routes["take_in"] == {"queue": "interactive"}
    assert sorted(queue.name for queue in celery.app.conf.task_queues) == ["interactive", "runs"]


def test_a_real_worker_imports_what_a_page_asked_for(worker, as_admin, kept):
    found = kept(file_of(*(RANKED | {"quintet": f"q{n}"} for n in range(1500))))
    assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}).status_code == 302
    worker.wait_until(lambda: Import.objects.get().state == "finished")
    assert Ranking.objects.count() == 1500
    assert as_admin.post(f"{ADDRESS}{found.pk}/undo/").status_code == 302
    worker.wait_until(lambda: Import.objects.get().state == "undone")
    assert not Ranking.objects.exists() and not Rollout.objects.exists()
