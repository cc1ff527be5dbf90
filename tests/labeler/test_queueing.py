"""The queue of runs: one order for all projects, by which they are shown and by which they are taken."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from labeler import queueing, tasks
from labeler.models import AuditEntry, Checkpoint, Membership, Project, Request, Run
from rlhf import config

pytestmark = pytest.mark.django_db


@pytest.fixture
def poems() -> Project:
    return Project.objects.create(name="Poems", slug="poems")


def queued(project, kind: str = "policy", **fields) -> Run:
    return Run.objects.create(
        project=project, kind=kind, config=config.as_dict(config.make(kind, {})), **fields
    )


def running(project, **fields) -> Run:
    now = timezone.now()
    lease = {"state": "running", "started_at": now, "leased_until": now + timedelta(minutes=1)}
    return queued(project, **lease | fields)


def read(client, name: str = "run_queue") -> str:
    return " ".join(client.get(reverse(name)).content.decode().split())


def order(client) -> list[int]:
    return [line.run.pk for line in client.get(reverse("run_queue")).context["lines"] if line.place]


def claimed() -> list[int]:
    taken = []
    while run := Run.objects.claim_next("here"):
        taken.append(run.pk)
        run.end("finished")
    return taken


def test_runs_are_taken_in_the_order_that_the_page_shows(as_admin, admin, project, poems):
    runs = [queued(each) for each in (project, poems, project, poems)]
    lost = running(project, leased_until=timezone.now() - timedelta(minutes=1))
    assert runs[2].move_to_front(admin) and runs[3].move_to_front(admin)
    shown = order(as_admin)
    assert shown == [lost.pk, runs[3].pk, runs[2].pk, runs[0].pk, runs[1].pk]
    assert claimed() == shown


def test_a_message_for_a_later_run_brings_the_one_whose_turn_it_is(project, monkeypatch):
    first, second = queued(project), queued(project)
    carried_out = []
    monkeypatch.setattr(tasks, "carry_out", lambda run, *_: carried_out.append(run.pk))
    tasks.execute(second.pk)
    assert carried_out == [first.pk]
    tasks.execute(second.pk)
    assert carried_out == [first.pk, second.pk]
    tasks.execute(second.pk)
    assert len(carried_out) == 2, "a message too many finds nothing to do"


def test_an_admin_of_all_moves_a_run_to_the_front_and_that_is_written_down(as_admin, admin, project, poems):
    first, second = queued(poems), queued(project)
    assert "To the front" in read(as_admin)
    as_admin.post(reverse("run_front", args=[second.pk]))
    assert order(as_admin) == [second.pk, first.pk] and "moved to the front" in read(as_admin)
    entry = AuditEntry.objects.get(project=project, action="run moved")
    assert (entry.by, entry.about) == (admin, {"run": second.pk})


def test_a_run_that_has_begun_cannot_be_moved(as_admin, project):
    run = running(project)
    said = as_admin.post(reverse("run_front", args=[run.pk]), follow=True).content.decode()
    assert "does not wait any more" in said and not AuditEntry.objects.exists()


def test_an_admin_of_one_project_sees_that_others_wait_and_no_more(client, labeler, project, poems):
    Membership.objects.filter(project=project, user=labeler).update(role="admin")
    queued(poems, created_by=None)
    mine = queued(project)
    client.force_login(labeler)
    said = read(client)
    assert "A run of another project" in said and "Poems" not in said and f"Policy run {mine.pk}" in said
    assert "To the front" not in said
    assert client.post(reverse("run_front", args=[mine.pk])).status_code == 404


def test_taking_a_run_off_the_queue_leads_back_to_it_and_is_written_down(as_admin, admin, project):
    run = queued(project)
    answer = as_admin.post(reverse("run_cancel", args=[run.pk]), {"from": "queue"})
    assert answer.url == reverse("run_queue") and not order(as_admin)
    as_admin.post(reverse("run_cancel", args=[run.pk]))
    assert AuditEntry.objects.get(action="run stopped").about == {"run": run.pk}, "once is enough"


def test_a_start_is_estimated_from_what_is_before_it(as_admin, project):
    now = timezone.now()
    run = running(project, step=6, total=12, started_at=now - timedelta(seconds=60))
    for step in range(1, 7):
        run.steps.create(step=step, metrics={"seconds": 10.0 * step})
    queued(project)
    queued(project)
    said = read(as_admin)
    assert "about 1 min left" in said and "starts in about 1 min" in said
    assert "its start is not known" in said, "nothing like the first one has finished here yet"


def test_an_empty_queue_says_so_and_no_longer_asks(as_admin, project):
    said = read(as_admin)
    assert "Nothing runs and nothing waits" in said and "every 5s" not in said


def asked_for(client, address: str, **headers: str) -> list[str]:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(address, headers=headers).status_code == 200
    return [each["sql"] for each in asked.captured_queries]


POLLED = {"HX-Request": "true"}


def with_a_past(project) -> None:
    """Something to estimate by: a finished run of the same start, and a try."""
    start = Checkpoint.objects.create(project=project, name="start", location="checkpoints/start")
    now = timezone.now()
    done = {"state": "finished", "started_at": now - timedelta(minutes=5), "finished_at": now}
    for _ in range(3):
        run = queued(project, start=start, step=2, total=2, **done)
        for step in (1, 2):
            run.steps.create(step=step, metrics={"seconds": 10.0 * step, "length": 20.0})
    answer = {"device": "cpu", "rows": 8, "sampled": 100.0, "trained": 100.0, "longest": 9}
    Request.objects.create(
        project=project,
        kind="try",
        question={"checkpoint": start.pk, "train": True},
        answer=answer,
        state="answered",
    )
    for run in project.runs.filter(state="queued"):
        Run.objects.filter(pk=run.pk).update(start=start)


def test_the_queue_asks_as_often_however_many_wait_and_reads_no_logs(as_admin, project):
    address = reverse("run_queue")
    queued(project)
    with_a_past(project)
    few = asked_for(as_admin, address, **POLLED)
    for _ in range(60):
        queued(project, start=Checkpoint.objects.get(name="start"), log_tail="x" * 10_000)
    many = asked_for(as_admin, address, **POLLED)
    assert len(many) <= len(few) + 1
    for column in ("log_tail", '"result"', "cursors", "guidelines", "lineage"):
        assert not [sql for sql in many if column in sql], column


def test_the_list_of_runs_asks_as_often_however_many_wait_and_says_behind_how_many_each_does(
    as_admin, project
):
    running(project)
    queued(project)
    few = asked_for(as_admin, reverse("runs"), **POLLED)
    runs = [queued(project) for _ in range(20)]
    assert len(asked_for(as_admin, reverse("runs"), **POLLED)) == len(few)
    runs[-1].move_to_front(None)
    said = read(as_admin, "runs")
    assert said.index("waiting behind 1 run<") < said.index("waiting behind 20 runs"), "the newest is first"


def test_a_long_queue_comes_in_pages_and_tells_no_start_of_what_is_far(as_admin, project):
    now = running(project)
    runs = [queued(project) for _ in range(queueing.A_PAGE + 3)]
    assert order(as_admin) == [run.pk for run in runs[: queueing.A_PAGE]]
    second = as_admin.get(reverse("run_queue"), {"page": 2})
    assert [line.run.pk for line in second.context["lines"]] == [run.pk for run in runs[queueing.A_PAGE :]]
    said = " ".join(second.content.decode().split())
    assert "too far behind to tell when it starts" in said and f"Place {queueing.A_PAGE + 1}" in said
    assert f"/runs/{now.pk}/" not in said and "?page=2" in said, (
        "it is asked for again as the page that it is"
    )
    assert runs[-1].move_to_front(None) and order(as_admin)[0] == runs[-1].pk


def test_a_charts_page_reads_of_other_runs_their_settings_and_a_poll_nothing(as_admin, project):
    run = running(project, step=1)
    for _ in range(3):
        queued(project, state="finished", step=5, log_tail="x" * 10_000)
    others = f'"id" = {run.pk}) AND NOT'  # all but this one
    whole = [sql for sql in asked_for(as_admin, reverse("run", args=[run.pk])) if others in sql]
    assert len(whole) == 1 and '"config"' in whole[0]
    assert not [name for name in ("log_tail", '"result"', "cursors") if name in whole[0]]
    assert not [
        sql for sql in asked_for(as_admin, reverse("run_live", args=[run.pk]), **POLLED) if others in sql
    ]
    few = len(asked_for(as_admin, reverse("run", args=[run.pk])))
    queued(project, state="finished", step=5)
    assert len(asked_for(as_admin, reverse("run", args=[run.pk]))) == few
