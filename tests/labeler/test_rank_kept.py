"""What the ranking page keeps and gives back: drafts, skips, rankings taken back or made anew."""

import re
from datetime import timedelta

from django.urls import reverse
from django.utils import timezone

from labeler import review
from labeler.models import (
    Place,
    Project,
    Ranking,
    Round,
    Skip,
)
from tests.labeler.ranking import HTMX, form, second, url

__all__ = ["second"]  # fixtures


def one(project: Project, name: str, pk: int) -> str:
    return reverse(name, args=[project.slug, pk])


def test_a_draft_comes_back_with_the_page_and_ends_with_the_ranking(as_labeler, project, compose):
    compose(2)
    sent = form(as_labeler, project) | {"rank-e": "", "nonsense": ["a", "b"], "at": "17"}
    del sent["rank-e"]
    assert as_labeler.post(url(project, "rank_draft"), sent).status_code == 204
    page = as_labeler.get(url(project)).content.decode()
    assert re.findall(r'name="rank-(.)" value="(.)" checked', page) == list(zip("abcd", "1234", strict=True))
    assert re.findall(r'name="nonsense" value="(.)" checked', page) == ["a", "b"] and 'data-at="17"' in page
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    assert not re.search(r"value=\"[1-5a-e]\" checked", as_labeler.get(url(project)).content.decode())


def test_a_draft_renews_the_lease_and_one_for_a_place_of_others_is_dropped(
    as_labeler, project, labeler, second, compose
):
    compose(1)
    sent = form(as_labeler, project)
    soon = timezone.now() + timedelta(minutes=1)
    Place.objects.update(leased_until=soon)
    as_labeler.post(url(project, "rank_draft"), sent)
    assert Place.objects.get().leased_until > soon
    Place.objects.release(labeler)
    Place.objects.next_for(second, project)
    assert as_labeler.post(url(project, "rank_draft"), sent).status_code == 204
    assert Place.objects.get().draft is None and Place.objects.get().labeler == second
    assert as_labeler.post(url(project, "rank_draft"), {"ticket": "x"}).status_code == 422


def test_a_nul_in_a_draft_or_a_note_is_no_fault_of_ours(as_labeler, project, compose):
    compose(1)
    sent = form(as_labeler, project) | {"rank-a": "\0", "at": "1\0", "rank-\0": "1"}
    assert as_labeler.post(url(project, "rank_draft"), sent).status_code == 204
    assert set(Place.objects.get().draft) == {*(f"rank-{letter}" for letter in "abcde"), "at"}
    why = {"ticket": sent["ticket"], "reason": "broken", "note": "a\0b"}
    as_labeler.post(url(project, "rank_skip"), why)
    assert Skip.objects.get().note == "ab"


def test_a_check_made_in_an_earlier_round_says_what_work_says(as_labeler, labeler, admin, project, compose):
    [work] = compose(1)
    check = review.make_check(work, admin, "gold", [1, 2, 3, 4, 5], "")
    Round.objects.get().close(admin)
    compose(1)
    Place.objects.create(project=project, quintet=check, purpose="gold", labeler=labeler).seat(labeler)
    page = as_labeler.get(url(project)).content.decode()
    assert work.prompt.content in page and "Round 2" in page and "Round 1" not in page
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    [ranking] = Ranking.objects.all()
    again = as_labeler.get(reverse("rank_revise", args=[project.slug, ranking.pk])).content.decode()
    assert "Round 2" in again and "Round 1" not in again


def test_a_skip_goes_on_and_can_be_taken_back(as_labeler, project, labeler, compose):
    first, following = compose(2)
    sent = {"ticket": form(as_labeler, project)["ticket"], "reason": "unclear", "note": "Which pelican?"}
    html = as_labeler.post(url(project, "rank_skip"), sent, headers=HTMX).content.decode()
    skipped = Skip.objects.get()
    assert (skipped.quintet, skipped.labeler, skipped.note) == (first, labeler, "Which pelican?")
    assert following.prompt.content in html and "Take the skip back" in html
    response = as_labeler.post(one(project, "rank_unskip", skipped.pk), headers=HTMX)
    assert first.prompt.content in response.content.decode() and not Skip.objects.exists()


def test_a_skip_without_a_reason_is_refused_in_words(as_labeler, project, compose):
    compose(1)
    sent = {"ticket": form(as_labeler, project)["ticket"]}
    response = as_labeler.post(url(project, "rank_skip"), sent, headers=HTMX)
    assert response.status_code == 422 and "Say why you skip it" in response.content.decode()
    assert not Skip.objects.exists()


def test_an_undone_ranking_is_shown_as_it_was(as_labeler, project, compose):
    first, _ = compose(2)
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project, "cabed"))
    ranking = Ranking.objects.get()
    response = as_labeler.post(one(project, "rank_undo", ranking.pk))
    assert (response.status_code, response["Location"]) == (302, url(project))
    page = as_labeler.get(url(project)).content.decode()
    assert first.prompt.content in page
    checked = re.findall(r'name="rank-(.)" value="(.)" checked', page)
    assert checked == [("a", "2"), ("b", "3"), ("c", "1"), ("d", "5"), ("e", "4")]
    assert not Ranking.objects.filter(current=True).exists()


def test_a_changed_ranking_is_a_new_version(as_labeler, project, compose):
    compose(1)
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    first = Ranking.objects.get()
    assert one(project, "rank_revise", first.pk) in as_labeler.get(url(project, "rank_mine")).content.decode()
    page = as_labeler.get(one(project, "rank_revise", first.pk)).content.decode()
    assert page.count("checked") == 5 + 1 and "ticket" not in page
    ranks = {f"rank-{letter}": rank for letter, rank in zip("abcde", "54321", strict=True)}
    for _ in range(2):  # a double click
        response = as_labeler.post(one(project, "rank_revise", first.pk), ranks, headers=HTMX)
        assert response["HX-Redirect"] == url(project, "rank_mine")
    newest = Ranking.objects.get(current=True)
    assert newest.version == 2 and Ranking.objects.count() == 2
    assert [newest.ranks[slot] for slot in newest.shown] == [5, 4, 3, 2, 1]
    refused = as_labeler.post(one(project, "rank_revise", newest.pk), ranks | {"rank-a": "1"}, headers=HTMX)
    assert refused.status_code == 422 and "Rank 1 is given more than once" in refused.content.decode()


def test_nobody_reads_changes_or_takes_back_what_others_did(as_labeler, as_admin, project, compose):
    compose(2)
    as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    skip = {"ticket": form(as_labeler, project)["ticket"], "reason": "cannot"}
    as_labeler.post(url(project, "rank_skip"), skip)
    ranking, skipped = Ranking.objects.get(), Skip.objects.get()
    assert as_admin.get(one(project, "rank_revise", ranking.pk)).status_code == 404
    assert as_admin.post(one(project, "rank_undo", ranking.pk)).status_code == 404
    assert as_admin.post(one(project, "rank_unskip", skipped.pk)).status_code == 404
    assert "Joke number" not in as_admin.get(url(project, "rank_mine")).content.decode()


def test_what_was_sent_back_stands_first_with_its_reason(as_labeler, admin, project, compose):
    compose(2)
    for _ in range(2):
        as_labeler.post(url(project, "rank_submit"), form(as_labeler, project))
    Ranking.objects.earliest("pk").send_back(admin, "Read <C> again.")
    page = as_labeler.get(url(project, "rank_mine")).content.decode()
    assert "Read &lt;C&gt; again." in page
    assert page.index("Joke number 1") < page.index("Lately") < page.index("Joke number 2")


def test_practice_asks_for_a_membership(as_admin, project):
    assert as_admin.post(url(project, "rank_practise")).status_code == 404
