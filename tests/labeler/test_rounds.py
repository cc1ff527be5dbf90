"""Rounds: closing one, opening it again, what late rankings become, and the page that shows them."""

import pytest
from django.utils import timezone

from labeler.models import AuditEntry, Checkpoint, Place, Project, Quintet, Round, Run, User
from labeler.models.places import LEASE
from labeler.models.rounds import RoundRefused
from rlhf import config

pytestmark = pytest.mark.django_db
RANKS = [1, 2, 3, 4, 5]


def rank(labeler: User, project: Project, quintets: int = 1) -> None:
    for _ in range(quintets):
        place = Place.objects.next_for(labeler, project)
        place.quintet.record_ranking(labeler, place, RANKS, place.key, opened_at=place.opened_at)


def first(project: Project) -> Round:
    return Round.objects.get(project=project, number=1)


def test_a_closed_round_is_served_to_nobody_and_the_next_begins(compose, project, labeler, as_admin, admin):
    compose(3)
    rank(labeler, project)
    as_admin.post("/rounds/pelican-jokes/1/close/")
    assert Place.objects.next_for(labeler, project) is None
    assert not Quintet.objects.awaiting(labeler).exists() and not Quintet.objects.waiting().exists()
    assert Round.objects.current(project).number == 2
    written = AuditEntry.objects.get()
    assert (written.by, written.words) == (admin, "Round 1 closed; 2 of its places stay empty.")
    new = compose(1)[0]
    assert new.round.number == 2
    assert Place.objects.next_for(labeler, project).quintet == new


def test_whoever_sits_at_a_quintet_when_its_round_closes_may_finish_it(compose, project, labeler, admin):
    compose(2)
    place = Place.objects.next_for(labeler, project)
    first(project).close(admin)
    assert Place.objects.next_for(labeler, project) == place
    ranking = place.quintet.record_ranking(labeler, place, RANKS, place.key)
    assert not ranking.surplus
    assert Place.objects.next_for(labeler, project) is None


def test_a_place_given_back_in_a_closed_round_goes_to_nobody(compose, project, labeler, stranger, admin):
    compose(1)
    Place.objects.next_for(labeler, project)
    first(project).close(admin)
    Place.objects.release(labeler)
    assert Place.objects.next_for(stranger, project) is None
    assert not Quintet.objects.awaiting(stranger).exists() and not Quintet.objects.waiting().exists()


def test_a_ranking_that_comes_after_its_lease_and_the_closing_is_kept_as_surplus(
    compose, project, labeler, admin
):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    Place.objects.filter(pk=place.pk).update(leased_until=timezone.now() - LEASE)
    first(project).close(admin)
    assert place.quintet.record_ranking(labeler, place, RANKS, place.key).surplus


def test_reopening_serves_what_was_left_and_takes_the_empty_round_away(compose, project, labeler, as_admin):
    compose(3)
    rank(labeler, project)
    as_admin.post("/rounds/pelican-jokes/1/close/")
    page = as_admin.post("/rounds/pelican-jokes/1/reopen/", follow=True).content.decode()
    assert "Round 1 is open again" in page
    assert list(project.rounds.values_list("number", "closed_at")) == [(1, None)]
    rank(labeler, project, 2)
    assert AuditEntry.objects.first().words == "Round 1 opened again."


def test_a_round_stays_closed_once_the_next_has_something_in_it(compose, project, admin, as_admin):
    compose(1)
    first(project).close(admin)
    compose(1)
    page = as_admin.post("/rounds/pelican-jokes/1/reopen/", follow=True).content.decode()
    assert "Round 1 stays closed: the next one has begun." in page and "Reopen" not in page
    assert first(project).closed_at


def test_an_empty_round_is_not_closed_nor_one_twice(compose, project, admin):
    empty = Round.objects.current(project)
    with pytest.raises(RoundRefused, match="nothing to close"):
        empty.close(admin)
    compose(1)
    empty.close(admin)
    with pytest.raises(RoundRefused, match="closed already"):
        empty.close(admin)


def test_a_reward_model_belongs_to_the_round_that_it_learns_from(compose, project, labeler, admin):
    """Also when that round was closed before; what is tuned against the model belongs there as well."""
    compose(6)
    rank(labeler, project, 6)
    project.start = Checkpoint.objects.create(name="Tiny", location="demo/checkpoint")
    project.save()
    first(project).close(admin)
    reward = Run.objects.launch(project, "reward", {}, admin)
    assert reward.round.number == 1
    model = reward.checkpoints.create(project=project, kind="reward", name="Judge", step=1, location="x")
    policy = Run.objects.launch(project, "policy", {"steps": 3}, admin, reward_model=model)
    rollouts = Run.objects.launch(project, "rollouts", {}, admin)
    assert (policy.round.number, rollouts.round.number) == (1, 2)


def test_the_page_tells_what_is_in_each_round_and_what_was_made_of_it(compose, project, labeler, as_admin):
    compose(4)
    rank(labeler, project, 3)
    first(project).close(None)
    run = project.runs.create(
        round=first(project),
        kind="reward",
        state="finished",
        config=config.as_dict(config.make("reward", {})),
        result={"metrics": {"held_out_accuracy": 0.71, "held_out_pairs": 240}},
    )
    compose(2)
    page = as_admin.get("/rounds/pelican-jokes/").content.decode()
    assert page.index("Round 2") < page.index("Round 1")
    assert "<dt>Left unranked</dt><dd>1</dd>" in page and "<dt>Places still open</dt><dd>2</dd>" in page
    assert f'href="/runs/{run.pk}/"' in page and "right on 71 % of 240 held-out pairs" in page
    assert "Close round 2" in page and "Reopen" not in page


def test_the_page_asks_no_more_of_the_database_as_rounds_grow(
    compose, project, as_admin, django_assert_max_num_queries
):
    for _ in range(6):
        compose(2)
        Round.objects.current(project).close(None)
    with django_assert_max_num_queries(24):
        as_admin.get("/rounds/pelican-jokes/")


@pytest.mark.parametrize("address", ["", "1/close/", "1/reopen/"])
def test_rounds_are_for_those_who_run_the_project(compose, as_labeler, client, project, address):
    compose(1)
    address = f"/rounds/pelican-jokes/{address}"
    ask = as_labeler.post if "/1/" in address else as_labeler.get
    assert ask(address).status_code == 404
    assert client.get(address).url.startswith("/account/sign-in/")


def test_closing_is_no_link(compose, as_admin, project):
    compose(1)
    assert as_admin.get("/rounds/pelican-jokes/1/close/").status_code == 405
    assert as_admin.post("/rounds/pelican-jokes/7/close/").status_code == 404
