"""The ranking page: what it shows, what it takes, and what it says when there is nothing to rank."""

import re
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from labeler.models import (
    Checkpoint,
    Faceoff,
    Membership,
    Place,
    Project,
    Prompt,
    Quintet,
    Ranking,
    Round,
    Run,
)
from tests.labeler.fixtures import JOKES
from tests.labeler.ranking import HTMX, form, letters_of, second, ticket_in, url

__all__ = ["second"]  # fixtures

FORM = "application/x-www-form-urlencoded"


# ---- the page


FORMS = ("rank_submit", "rank_hold", "rank_draft", "rank_skip", "rank_practise")
ABOUT_ONE = ("rank_undo", "rank_unskip")


def every(project: Project) -> list[str]:
    one = [reverse(name, args=[project.slug, 1]) for name in (*ABOUT_ONE, "rank_revise")]
    return [url(project, name) for name in ("rank", "rank_mine", *FORMS)] + one


def test_it_needs_a_sign_in(client, project):
    for address in every(project):
        response = client.get(address)
        assert response.status_code == 302 and reverse("sign_in") in response["Location"]


def test_a_project_of_others_is_not_there(as_stranger, project, compose):
    compose(1)
    for name in ("rank", "rank_mine"):
        assert as_stranger.get(url(project, name)).status_code == 404
    for name in FORMS:
        assert as_stranger.post(url(project, name)).status_code == 404
    for name in (*ABOUT_ONE, "rank_revise"):
        assert as_stranger.post(reverse(name, args=[project.slug, 1])).status_code == 404


def test_what_changes_something_rejects_get(as_labeler, project):
    for name in FORMS:
        assert as_labeler.get(url(project, name)).status_code == 405
    for name in ABOUT_ONE:
        assert as_labeler.get(reverse(name, args=[project.slug, 1])).status_code == 405


def test_the_page_shows_prompt_rollouts_and_guidelines_and_no_hint_of_their_model(
    as_labeler, project, compose, labeler
):
    project.revise_guidelines("Funniest **first**. <script>alert(1)</script>")
    policy = Checkpoint.objects.create(project=project, name="secret-policy", location="runs/secret")
    quintet = compose(1, checkpoints=policy)[0]
    page = as_labeler.get(url(project))
    html = page.content.decode()
    assert [JOKES[slot] for slot in quintet.order_for(labeler)] == letters_of(page)
    assert quintet.prompt.content in html and "<strong>first</strong>" in html
    assert "<script>alert" not in html and "secret" not in html
    for word in ("/runs/", "/checkpoints/", "/people/", "/datasets/", "/admin/"):
        assert word not in html
    assert letters_of(as_labeler.get(url(project))) == letters_of(page)


def test_markup_in_prompts_and_rollouts_stays_text(as_labeler, project):
    texts = ["<script>alert(1)</script>", "<b>two</b>", "{{ three }}"]
    turns = [{"role": "system", "content": "Be <i>brief</i>."}, {"role": "user", "content": "A joke?"}]
    prompt = Prompt.objects.create(project=project, content=turns)
    Quintet.objects.compose(project, Round.objects.current(project), prompt, texts)
    html = as_labeler.get(url(project)).content.decode()
    assert "&lt;script&gt;alert(1)" in html and "<script>alert" not in html and "{{ three }}" in html
    assert "Be &lt;i&gt;brief&lt;/i&gt;." in html and "System" in html and "A joke?" in html


def test_a_submit_keeps_the_ranking_and_answers_with_the_next_quintet(as_labeler, project, labeler, compose):
    first, following = compose(2)
    sent = form(as_labeler, project, "cabed")
    response = as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX)
    html = response.content.decode()
    assert response.status_code == 200
    assert html.lstrip().startswith('<div id="quintet"') and "<html" not in html
    assert following.prompt.content in html and first.prompt.content not in html
    ranking = Ranking.objects.get()
    best_to_worst = [JOKES[first.order_for(labeler)["abcde".index(letter)]] for letter in "cabed"]
    by_rank = sorted(zip(ranking.ranks, JOKES, strict=True))
    assert [text for _, text in by_rank] == best_to_worst
    assert ranking.quintet == first and ranking.labeler == labeler and 0 <= ranking.seconds < 5


def test_without_javascript_a_submit_leads_back_to_the_page(as_labeler, project, compose):
    compose(2)
    response = as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    assert (response.status_code, response["Location"]) == (302, url(project))


def test_a_double_submit_is_one_ranking(as_labeler, project, compose):
    compose(2)
    sent = form(as_labeler, project)
    pages = [as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX) for _ in range(2)]
    assert [page.status_code for page in pages] == [200, 200]
    assert letters_of(pages[0]) == letters_of(pages[1])
    assert Ranking.objects.count() == 1


def test_other_ranks_under_a_used_form_are_refused_and_the_work_goes_on(as_labeler, project, compose):
    _, following = compose(2)
    sent = form(as_labeler, project)
    as_labeler.post(url(project, "rank_submit"), sent)
    response = as_labeler.post(
        url(project, "rank_submit"), sent | {"rank-a": "2", "rank-b": "1"}, headers=HTMX
    )
    assert response.status_code == 422
    assert "The first ones stand" in response.content.decode()
    assert following.prompt.content in response.content.decode()
    assert Ranking.objects.count() == 1


def test_a_quintet_ranked_already_says_so_and_goes_on(as_labeler, project, labeler, compose):
    _, following = compose(2)
    sent = form(as_labeler, project)
    Place.objects.release(labeler)
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project, "edcba"))
    response = as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX)
    assert response.status_code == 409
    assert "You have ranked this one already" in response.content.decode()
    assert following.prompt.content in response.content.decode()


def test_an_untouched_order_is_refused(as_labeler, project, compose):
    compose(1)
    sent = {"ticket": form(as_labeler, project)["ticket"]}
    response = as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX)
    assert response.status_code == 422
    assert "5 of the 5 rollouts have no rank yet" in response.content.decode()
    assert not Ranking.objects.exists()


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_refused_ranking_keeps_what_the_labeler_did(as_labeler, project, compose, headers):
    compose(2)
    sent = form(as_labeler, project) | {"rank-b": "1"}
    response = as_labeler.post(url(project, "rank_submit"), sent, headers=headers)
    html = response.content.decode()
    assert response.status_code == 422 and "Rank 1 is given more than once" in html
    checked = re.findall(r'name="rank-(.)" value="(.)" checked', html)
    assert checked == [("a", "1"), ("b", "1"), ("c", "3"), ("d", "4"), ("e", "5")]
    repaired = as_labeler.post(
        url(project, "rank_submit"), sent | {"rank-b": "2", "ticket": ticket_in(response)}
    )
    assert repaired.status_code == 302 and Ranking.objects.count() == 1


@pytest.mark.parametrize(
    "extra", [{"rank-f": "1"}, {"rank-": "1"}, {"rank-7": "2"}, {"rank-a": "9"}, {"rank-a": "１"}]
)
def test_a_rank_for_something_else_is_refused(as_labeler, project, compose, extra):
    compose(1)
    response = as_labeler.post(url(project, "rank_submit"), form(as_labeler, project) | extra, headers=HTMX)
    assert response.status_code == 422
    assert "checked" in response.content.decode()
    assert not Ranking.objects.exists()


def test_the_form_of_another_labeler_is_refused(as_labeler, project, second, compose):
    compose(2)
    other = Client()
    other.force_login(second)
    response = as_labeler.post(url(project, "rank_submit"), form(other, project), headers=HTMX)
    assert response.status_code == 422 and "not one that you were shown" in response.content.decode()
    assert not Ranking.objects.exists()


def test_the_form_of_another_project_is_refused(as_labeler, admin, labeler, project, compose):
    compose(1)
    elsewhere = Project.objects.create(name="Poems", slug="poems", created_by=admin)
    Membership.objects.create(project=elsewhere, user=labeler)
    response = as_labeler.post(url(elsewhere, "rank_submit"), form(as_labeler, project), headers=HTMX)
    assert response.status_code == 422
    assert not Ranking.objects.exists()


def test_a_surplus_ranking_is_kept_and_the_labeler_told(as_labeler, project, second, compose):
    compose(1)
    sent = form(as_labeler, project)
    Place.objects.update(leased_until=timezone.now() - timedelta(hours=1))
    Place.objects.next_for(second, project)
    response = as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX)
    assert response.status_code == 200 and "kept beside theirs" in response.content.decode()
    assert Ranking.objects.get().surplus


@pytest.mark.parametrize("name", ["ticket", "rank-a"])
@pytest.mark.parametrize("value", ["\0", "a\0b:c:d", "x" * 1_000_000, "\ud800", "🪿:🪿:🪿", "", "1:2:3"])
def test_odd_bodies_are_refused_and_never_a_fault(as_labeler, project, compose, name, value):
    compose(1)
    sent = form(as_labeler, project) | {name: value.encode("utf-8", "surrogatepass")}
    response = as_labeler.post(url(project, "rank_submit"), urlencode(sent), content_type=FORM)
    assert response.status_code == 422
    assert not Ranking.objects.exists()


def test_a_body_over_the_limit_or_of_another_kind_is_refused(as_labeler, project, compose, settings):
    compose(1)
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000
    sent = form(as_labeler, project) | {"rank-a": "1" * 200_000}
    assert as_labeler.post(url(project, "rank_submit"), urlencode(sent), content_type=FORM).status_code == 400
    for content_type in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        response = as_labeler.post(url(project, "rank_submit"), b"\xff\0{", content_type=content_type)
        assert 400 <= response.status_code < 500
    assert not Ranking.objects.exists()


def test_a_partial_quintet_asks_for_as_many_ranks_as_it_has_rollouts(as_labeler, project, compose):
    compose(1, texts=JOKES[:3])
    page = as_labeler.get(url(project)).content.decode()
    assert len(re.findall(r'name="rank-[a-e]"', page)) == 9
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project, "bca"))
    assert sorted(Ranking.objects.get().ranks) == [1, 2, 3]


# ---- when there is nothing


def test_an_empty_project_says_what_to_do_next(as_labeler, as_admin, project):
    mine, admins = (client.get(url(project)).content.decode() for client in (as_labeler, as_admin))
    assert "Nothing to rank yet" in mine and reverse("prompts", args=[project.slug]) not in mine
    assert "Nothing to rank yet" in admins and reverse("prompts", args=[project.slug]) in admins


def test_who_ranked_everything_is_told_so(as_labeler, as_admin, project, compose):
    project.keep_waiting = 0
    project.save()
    compose(1)
    response = as_labeler.post(url(project, "rank_submit"), form(as_labeler, project), headers=HTMX)
    html = response.content.decode()
    assert "You have ranked everything" in html and "every 15s" in html
    assert reverse("run_new", args=[project.slug, "reward"]) not in html
    assert reverse("run_new", args=[project.slug, "reward"]) in as_admin.get(url(project)).content.decode()


def test_while_more_are_being_written_the_page_turns_into_the_next_quintet(as_labeler, project, compose):
    Run.objects.create(project=project, kind="rollouts", state="queued")
    page = as_labeler.get(url(project)).content.decode()
    assert "More are being written" in page and "every 3s" in page
    polled = f"{url(project)}?state=writing"
    assert as_labeler.get(polled, headers=HTMX).status_code == 204
    quintet = compose(1)[0]
    response = as_labeler.get(polled, headers=HTMX)
    assert response.status_code == 200 and quintet.prompt.content in response.content.decode()
    assert "every 3s" not in response.content.decode()


def test_more_are_coming_where_a_starting_model_keeps_the_queue_filled(as_labeler, project, compose):
    project.start = Checkpoint.objects.create(project=project, name="start", location="start")
    project.save()
    assert "Nothing to rank yet" in as_labeler.get(url(project)).content.decode()
    compose(1, places=0)
    assert "More are being written" in as_labeler.get(url(project)).content.decode()
    Run.objects.create(project=project, kind="rollouts", state="failed")
    assert "No more could be written" in as_labeler.get(url(project)).content.decode()


def test_a_face_off_brings_something_only_as_long_as_all_of_its_runs_may(as_labeler, project, compose):
    """What happens to its runs says nothing of those that keep the queue filled."""
    project.start = Checkpoint.objects.create(project=project, name="start", location="start")
    project.save()
    compose(1, places=0)
    project.keep_waiting = 0
    project.save()
    assert as_labeler.get(url(project)).context["state"] == "done"
    about = {"project": project, "number": 1, "start": project.start, "asked": []}
    faceoff = Faceoff.objects.create(round=Round.objects.current(project), **about)
    runs = [Run.objects.create(project=project, kind="rollouts", state="queued") for _ in range(2)]
    for place, run in enumerate(runs):
        checkpoint = Checkpoint.objects.create(name=f"step {place}", location=f"x/{place}")
        faceoff.contenders.create(checkpoint=checkpoint, place=place, run=run)
    assert as_labeler.get(url(project)).context["state"] == "writing"
    Run.objects.filter(pk=runs[0].pk).update(state="failed")
    assert as_labeler.get(url(project)).context["state"] == "done"
    Run.objects.filter(pk=runs[1].pk).update(state="failed")
    Project.objects.filter(pk=project.pk).update(keep_waiting=20)
    project.prompts.create(content="Another joke, please.")
    assert as_labeler.get(url(project)).context["state"] == "writing", (
        "more are sampled, whatever became of them"
    )


# ---- speed


@pytest.fixture
def asked():
    """How often the database was asked something, locks and all; savepoints are this test's own."""

    def count(act) -> int:
        with CaptureQueriesContext(connection) as queries:
            act()
        return sum("SAVEPOINT" not in query["sql"] for query in queries.captured_queries)

    return count


def test_next_and_submit_ask_the_database_as_often_however_much_there_is(as_labeler, project, compose, asked):
    def rank_one():
        sent = form(as_labeler, project)
        return asked(lambda: as_labeler.post(url(project, "rank_submit"), sent, headers=HTMX))

    compose(3)
    rank_one()
    shown, ranked = asked(lambda: as_labeler.get(url(project))), rank_one()
    compose(30)
    for _ in range(5):
        rank_one()
    assert (asked(lambda: as_labeler.get(url(project))), rank_one()) == (shown, ranked)
    assert shown <= 14 and ranked <= 22
