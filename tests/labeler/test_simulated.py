"""Simulated labelers: what they rank, how it is marked, and that it counts as nobody's."""

import pytest
from django.db import transaction
from django.urls import reverse

from labeler import backbone, simulated, tasks
from labeler.demo.taste import LABELERS, taste
from labeler.models import AuditEntry, Place, Prompt, Quintet, Ranking, Request, Round, User
from tests.labeler.scripted import meanwhile

pytestmark = pytest.mark.django_db
ASKED = "Tell me a joke about a pelican."
JOKES = [
    "Why did the pelican get kicked out of the restaurant? Because it had a very big bill.",
    "the the the the the the the the the",
    "A pelican walks into a bar. The bartender says: that is a big bill.",
    "fish",
    "pelican pelican bill bill bill pelican",
]


@pytest.fixture
def quintets(project) -> list[Quintet]:
    round = Round.objects.current(project)
    prompts = [Prompt.objects.create(project=project, content=f"{ASKED} Number {n}.") for n in range(3)]
    return [Quintet.objects.compose(project, round, prompt, JOKES) for prompt in prompts]


def switch(client, project, **sent) -> None:
    client.post(reverse("round_simulate", args=[project.slug]), sent)


def answered() -> Request:
    request = Request.objects.filter(kind="simulate").latest("pk")
    tasks.answer(request.pk)
    request.refresh_from_db()
    return request


def test_they_rank_all_that_waits_by_their_taste(as_admin, project, quintets):
    switch(as_admin, project)
    told = answered()
    assert (told.state, told.answer["ranked"]) == ("answered", 3 * len(LABELERS))
    for ranking in Ranking.objects.all():
        assert ranking.simulated and ranking.labeler.simulated and ranking.purpose == "work"
    felt = [taste(joke, "pelican") for joke in JOKES]
    best = quintets[0].rankings.first().ranks.index(1)
    assert felt[best] > sorted(felt)[1]


def test_they_take_no_place_from_anybody_and_count_as_nobody(as_admin, project, quintets, labeler):
    switch(as_admin, project)
    answered()
    assert Place.objects.filter(done=True).count() == 0
    assert Place.objects.next_for(labeler, project) is not None
    assert project.rankings_by_people() == 0
    page = as_admin.get(reverse("rounds", args=[project.slug])).content.decode()
    assert "0 rankings by people" in page and "9 simulated, counted apart" in page
    for address in ("rounds", "project", "projects"):
        page = as_admin.get(reverse(address, args=[] if address == "projects" else [project.slug]))
        assert "simulated labelers rank here" in page.content.decode()


def test_what_is_ranked_already_is_not_ranked_again(as_admin, project, quintets):
    switch(as_admin, project)
    answered()
    switch(as_admin, project)
    assert answered().answer["ranked"] == 0
    assert Ranking.objects.count() == 3 * len(LABELERS)


def test_of_what_they_know_nothing_about_they_have_no_opinion(as_admin, project, compose):
    compose(2)
    switch(as_admin, project)
    assert answered().answer["passed_over"] == 2
    assert not Ranking.objects.exists()
    assert "they have no opinion" in as_admin.get(reverse("rounds", args=[project.slug])).content.decode()


def test_while_they_are_switched_in_they_rank_what_comes_later(as_admin, project, quintets):
    switch(as_admin, project)
    answered()
    backbone.attend()
    assert Request.objects.count() == 1  # nothing new has come
    prompt = Prompt.objects.create(project=project, content=ASKED)
    Quintet.objects.compose(project, Round.objects.current(project), prompt, JOKES)
    backbone.attend()
    backbone.attend()
    assert Request.objects.count() == 2
    assert answered().answer["ranked"] == len(LABELERS)


def test_switched_out_they_rank_nothing(as_admin, admin, project, quintets):
    switch(as_admin, project)
    switch(as_admin, project, off="")
    assert answered().state == "failed" and not Ranking.objects.exists()
    backbone.attend()
    assert Request.objects.count() == 1
    assert AuditEntry.objects.filter(action="settings changed", by=admin).count() == 2


def test_a_person_of_the_same_name_is_no_program(as_admin, project, quintets):
    User.objects.create_user("simulated-1", password="x")
    switch(as_admin, project)
    told = answered()
    assert told.state == "failed" and "is no program" in told.reason
    backbone.attend()
    assert Request.objects.count() == 1  # it is not tried again at once


def test_a_closed_round_is_ranked_by_nobody(as_admin, admin, project, quintets):
    Round.objects.current(project).close(admin)
    assert not simulated.waiting(project).exists()


@pytest.mark.django_db(transaction=True)
def test_two_who_switch_them_in_at_once_ask_once(admin, project):
    """The second comes while the first is not committed: it waits for it, and finds what it asked."""
    with transaction.atomic():
        first = Request.objects.ask_to_simulate(project, admin)
        second: list[Request] = []
        thread = meanwhile(lambda: second.append(Request.objects.ask_to_simulate(project, admin)))
        thread.join(0.5)
    thread.join()
    assert second == [first] and Request.objects.count() == 1


def test_they_are_offered_only_where_they_have_an_opinion(as_admin, project):
    offer, page = "Let simulated labelers rank what waits", reverse("rounds", args=[project.slug])
    project.prompts.create(content="29+20=")
    assert offer not in as_admin.get(page).content.decode()
    project.prompts.create(content=ASKED)
    assert offer in as_admin.get(page).content.decode()


def test_where_they_are_switched_in_they_can_be_switched_out(as_admin, project):
    project.change(None, simulated_labelers=True)
    assert "Switch them out" in as_admin.get(reverse("rounds", args=[project.slug])).content.decode()
