"""The pages of agreement and audits: who sees them, what they say, how much they ask of the database."""

import re
from random import Random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeler import tasks
from labeler.agreement import report
from labeler.agreement.folding import fold_all
from labeler.celery import QUEUES
from labeler.models import Membership, Quintet, Ranking, StaleQuintet, User

pytestmark = pytest.mark.django_db
PAGES = ["/agreement/pelican-jokes/", "/agreement/pelican-jokes/audits/"]


def crew(project, many: int = 3, simulated: bool = False) -> list[User]:
    """So many more labelers of the project."""
    begin = User.objects.count()
    make = User.objects.without_password if simulated else User.objects.create_user
    found = [make(f"labeler-{begin + number}") for number in range(many)]
    for user in found:
        user.simulated = simulated
    Membership.objects.bulk_create(Membership(project=project, user=user) for user in found)
    return found


def ranked(quintets, labelers, **fields) -> None:
    """Each of these quintets by each of these labelers, who agree more often than not."""
    chance = Random(2)
    rankings = []
    for quintet in quintets:
        for labeler in labelers:
            ranks, i = [1, 2, 3, 4, 5], chance.randrange(4)
            ranks[i], ranks[i + 1] = ranks[i + 1], ranks[i]
            own = {"ranks": ranks, "seconds": chance.uniform(10, 90), "shown": chance.sample(range(5), 5)}
            known = {"labeler": labeler, "simulated": labeler.simulated} | own | fields
            rankings.append(Ranking(quintet=quintet, **known))
    Ranking.objects.bulk_create(rankings)


def words(response) -> str:
    """What a reader sees of a page."""
    assert response.status_code == 200
    text = re.sub(r"<(script|style|title)\b.*?</\1>|<[^>]+>", " ", response.content.decode(), flags=re.S)
    return re.sub(r"\s+", " ", text.replace("&#x27;", "'").replace("&quot;", '"'))


@pytest.mark.parametrize("path", PAGES)
def test_reviewers_and_admins_see_it_and_nobody_else(
    path, client, as_admin, as_labeler, as_stranger, labeler, project
):
    assert client.get(path).status_code == 302
    assert as_stranger.get(path).status_code == 404
    assert as_labeler.get(path).status_code == 404
    project.memberships.filter(user=labeler).update(role=Membership.Role.REVIEWER)
    assert as_labeler.get(path).status_code == 200
    assert as_admin.get(path).status_code == 200
    assert as_admin.post(path).status_code == 405
    assert as_admin.get(path.replace("pelican-jokes", "nowhere")).status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_without_rankings_it_says_so_and_what_to_do(path, as_admin, project):
    said = words(as_admin.get(path))
    assert "Nobody has ranked anything here yet" in said
    assert "No simulated labeler has ranked anything here" in words(as_admin.get(f"{path}?simulated"))


def test_without_overlap_it_says_that_nothing_can_be_compared(as_admin, project, compose):
    ranked(compose(3), crew(project, 1))
    said = words(as_admin.get(PAGES[0]))
    assert "No quintet was ranked by two people. Let more labelers rank each quintet" in said
    assert "Kendall" not in said


def test_it_tells_agreement_the_ceiling_rounds_and_labelers(as_admin, project, compose):
    labelers = crew(project)
    ranked(compose(12), labelers)
    said = words(as_admin.get(PAGES[0]))
    told = report.of_project(project, simulated=False)
    percent = f"{100 * told['agreement']:.0f} %"
    assert f"put the same one of two rollouts first {percent} of the time" in said
    assert f"right about {100 * told['ceiling']:.0f} % of the time" in said
    assert f"how many they decide alike: {told['agreed']:,} of {told['agreed'] + told['opposed']:,}" in said
    low, high = (f"{100 * end:.0f}" for end in told["agreement_interval"])
    assert f"{low} to {high} %" in said
    assert "Round 1" in said
    assert all(labeler.username in said for labeler in labelers)


def test_audits_tell_places_lengths_times_and_who_stands_out(as_admin, project, compose):
    careful, hasty = crew(project, 2)
    quintets = compose(25, texts=["x" * length for length in (10, 20, 30, 40, 50)])
    ranked(quintets, [careful])
    ranked(quintets, [hasty], ranks=[1, 2, 3, 4, 5], shown=[0, 1, 2, 3, 4], seconds=1.5)
    fold_all([project], wait=True)
    said = words(as_admin.get(PAGES[1]))
    assert (
        f"{hasty.username} 25 rankings Half of their rankings took under 1.5 s; others usually take" in said
    )
    assert "Left the order as it was shown in 100 % of 25 rankings" in said
    assert careful.username not in said
    assert "Half of 50 rankings took under" in said
    assert "Of 500 decided pairs of rollouts of different length" in said


def test_nobody_stands_out_is_said_too(as_admin, project, compose):
    ranked(compose(25), crew(project, 2))
    assert "Nobody: no labeler is much faster" in words(as_admin.get(PAGES[1]))


def test_imported_rankings_have_neither_places_nor_times(as_admin, project, compose):
    ranked(compose(3), crew(project, 2), shown=None, seconds=None)
    said = words(as_admin.get(PAGES[1]))
    assert "It is not known of any ranking in which order its rollouts were shown" in said
    assert "No time is known of any ranking" in said
    assert "No pair of rollouts of different length" not in said


def test_the_gain_of_choosing_is_told_beside_those_drawn_at_random(as_admin, project, compose):
    quintets, labelers = compose(8), crew(project, 2)
    ranked(quintets, labelers)
    assert "What choosing quintets brings" not in words(as_admin.get(PAGES[1]))
    unsure = Quintet.objects.filter(pk__in=[quintet.pk for quintet in quintets[:4]])
    unsure.update(arm="uncertain", uncertainty=0.9)
    Quintet.objects.exclude(arm="uncertain").update(arm="random", uncertainty=0.25)
    said = words(as_admin.get(PAGES[1]))
    assert "At random 8 0.25" in said
    assert "The reward model is unsure 8 0.90" in said


def test_simulated_labelers_have_a_page_of_their_own(as_admin, project, compose):
    quintets = compose(6)
    ranked(quintets, crew(project, 2))
    ranked(quintets, programs := crew(project, 2, simulated=True))
    said = words(as_admin.get(PAGES[0]))
    assert "Two people who rank the same quintet" in said
    assert programs[0].username not in said
    said = words(as_admin.get(f"{PAGES[0]}?simulated"))
    assert "Two simulated labelers who rank the same quintet" in said
    assert programs[0].username in said


def test_who_is_excluded_is_named_and_not_counted(as_admin, project, compose):
    first, second, third = crew(project)
    ranked(compose(6), [first, second, third])
    words(as_admin.get(PAGES[0]))
    membership = project.memberships.filter(user=third)
    membership.update(excluded_at="2026-11-21T09:00Z", excluded_because="pressed keys")
    said = words(as_admin.get(PAGES[0]))
    assert f"because excluded: {third.username} (pressed keys)." in said
    assert report.of_project(project, simulated=False)["rankings"] == 12
    membership.update(excluded_at=None)
    words(as_admin.get(PAGES[0]))
    assert report.of_project(project, simulated=False)["rankings"] == 18


def test_what_a_page_cannot_fold_in_time_is_said_and_left_to_the_sweep(
    as_admin, project, compose, monkeypatch
):
    monkeypatch.setattr(report, "IN_A_VIEW", 4)
    ranked(compose(10), crew(project, 2))
    assert "6 quintets are not counted yet" in words(as_admin.get(PAGES[0]))
    tasks.sweep({QUEUES["answer"]})
    assert not StaleQuintet.objects.exists()
    said = words(as_admin.get(PAGES[0]))
    assert "not counted yet" not in said
    assert report.of_project(project, simulated=False)["ranked"] == 10


def test_many_labelers_are_turned_over_by_pages_the_busiest_first(as_admin, project, compose, monkeypatch):
    monkeypatch.setattr("labeler.views.agreement.A_PAGE", 2)
    quintets, (first, second, third) = compose(4), crew(project)
    ranked(quintets, [second])
    ranked(quintets[:3], [first])
    ranked(quintets[:2], [third])
    said = words(as_admin.get(PAGES[0]))
    assert said.index(second.username) < said.index(first.username)
    assert third.username not in said
    assert third.username in words(as_admin.get(f"{PAGES[0]}?page=2"))


@pytest.mark.parametrize("path", PAGES)
def test_more_data_asks_no_more_of_the_database(path, as_admin, project, compose):
    """Neither what is stored nor what is still to be folded makes a page ask more often."""

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            words(as_admin.get(path))
        return len(asked)

    ranked(compose(2), crew(project, 2))
    queries()
    ranked(compose(2), crew(project, 2))
    to_fold, nothing_new = queries(), queries()
    assert nothing_new < to_fold
    ranked(compose(20), crew(project, 9))
    assert (queries(), queries()) == (to_fold, nothing_new)


def test_the_way_there_is_on_every_page_of_the_project(as_admin, as_labeler, project):
    link = 'href="/agreement/pelican-jokes/"'
    assert link in as_admin.get("/projects/pelican-jokes/").content.decode()
    assert link not in as_labeler.get("/projects/pelican-jokes/").content.decode()


def test_a_fold_of_nothing_leaves_nothing(project):
    fold_all()
    assert report.of_project(project, simulated=False) is None
