"""Quintets, the places that labelers take at them, and rankings that are kept once."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections
from django.urls import reverse
from django.utils import timezone

from labeler.models import Checkpoint, Membership, Place, Quintet, Ranking, Round, Run, User
from labeler.models.rankings import AlreadyRanked, RankingRefused, SentOtherwise
from tests.labeler.fixtures import JOKES


@pytest.fixture
def second(project) -> User:
    second = User.objects.create_user("sven")
    Membership.objects.create(project=project, user=second)
    return second


# ---- quintets


def test_a_quintet_has_its_rollouts_in_slots_and_a_place_for_each_labeler_wanted(project, compose):
    project.overlap = 3
    quintet = compose()[0]
    assert [(rollout.slot, rollout.text) for rollout in quintet.rollouts.all()] == list(enumerate(JOKES))
    assert quintet.places.count() == 3


def test_a_quintet_without_places_stays_out_of_the_queue(project, labeler, compose):
    compose(places=0)
    assert Place.objects.next_for(labeler, project) is None
    assert not Quintet.objects.awaiting(labeler).exists()
    assert not Quintet.objects.waiting().exists()


def test_a_group_of_a_run_is_composed_once(project, compose):
    run = Run.objects.create(project=project, kind="rollouts")
    first, again = compose(run=run, group=4)[0], compose(run=run, group=4)[0]
    assert first == again
    assert first.rollouts.count() == 5 and first.places.count() == 1


def test_each_rollout_may_come_from_another_checkpoint(project, compose):
    wrote = [Checkpoint.objects.create(project=project, name=name, location=name) for name in "vwxyz"]
    quintet = compose(checkpoints=wrote)[0]
    assert [rollout.checkpoint for rollout in quintet.rollouts.all()] == wrote


@pytest.mark.parametrize("count", [1, 6])
def test_fewer_than_two_or_more_than_five_rollouts_are_refused(compose, count):
    with pytest.raises(ValueError, match=f"not {count}"):
        compose(texts=["a joke"] * count)


def test_a_sampled_nul_is_kept_as_a_replacement_character(compose):
    assert compose(texts=["a\0b", "c"])[0].rollouts.first().text == "a\ufffdb"


def test_a_closed_round_is_followed_by_the_next(project):
    first = Round.objects.current(project)
    assert Round.objects.current(project) == first
    first.closed_at = timezone.now()
    first.save()
    assert Round.objects.current(project).number == 2


# ---- places


def test_a_labeler_gets_the_place_they_hold_with_its_order_again(project, labeler, compose):
    compose(3)
    place = Place.objects.next_for(labeler, project)
    again = Place.objects.next_for(labeler, project)
    assert (again.pk, again.shown, again.key, again.opened_at) == (
        place.pk,
        place.shown,
        place.key,
        place.opened_at,
    )


def test_two_labelers_see_different_orders(project, labeler, second, compose):
    orders = set()
    for quintet in compose(12):
        assert sorted(quintet.order_for(labeler)) == [0, 1, 2, 3, 4]
        orders.add(quintet.order_for(labeler) == quintet.order_for(second))
    assert False in orders
    assert len({tuple(quintet.order_for(labeler)) for quintet in Quintet.objects.all()}) > 6


def test_nobody_gets_two_places_at_one_quintet(project, labeler, compose):
    project.overlap = 2
    compose(1)
    place = Place.objects.next_for(labeler, project)
    place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5])
    assert Place.objects.next_for(labeler, project) is None
    assert not Quintet.objects.awaiting(labeler).exists()
    assert Quintet.objects.waiting().count() == 1


def test_a_leased_place_is_nobody_elses_until_the_lease_runs_out(project, labeler, second, compose):
    compose(1)
    held = Place.objects.next_for(labeler, project)
    assert Place.objects.next_for(second, project) is None
    assert [Quintet.objects.awaiting(who).count() for who in (labeler, second)] == [1, 0]
    Place.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    taken = Place.objects.next_for(second, project)
    assert taken.pk == held.pk and taken.labeler == second and taken.key != held.key
    assert Place.objects.next_for(labeler, project) is None


def test_use_renews_the_lease_and_signing_out_gives_it_back(project, labeler, as_labeler, compose):
    compose(1)
    as_labeler.get(reverse("rank", args=[project.slug]))
    Place.objects.update(leased_until=timezone.now() + timedelta(minutes=1))
    assert as_labeler.post(reverse("rank_hold", args=[project.slug])).status_code == 204
    assert Place.objects.get().leased_until > timezone.now() + timedelta(minutes=29)
    as_labeler.logout()
    place = Place.objects.get()
    assert (place.labeler, place.leased_until, place.key) == (None, None, None)


def test_who_comes_back_after_the_lease_begins_a_new_clock(project, labeler, compose):
    compose(1)
    Place.objects.next_for(labeler, project)
    yesterday = timezone.now() - timedelta(days=1)
    Place.objects.update(leased_until=yesterday, opened_at=yesterday)
    assert Place.objects.next_for(labeler, project).opened_at > timezone.now() - timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_labelers_who_ask_at_once_never_get_the_same_place(project, compose):
    """400 places, 8 labelers."""
    project.overlap, project.repeat_rate = 2, 0
    compose(200)
    people = User.objects.bulk_create(User(username=f"labeler {number}") for number in range(8))
    gate, got = threading.Barrier(len(people)), []

    def work(labeler: User) -> None:
        gate.wait()
        while place := Place.objects.next_for(labeler, project):
            place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key)
            got.append((place.pk, place.quintet_id, labeler.pk))
        connections.close_all()

    threads = [threading.Thread(target=work, args=[labeler]) for labeler in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({place for place, _, _ in got}) == len(got) == 400
    assert len({(quintet, labeler) for _, quintet, labeler in got}) == 400
    assert not Ranking.objects.filter(surplus=True).exists()


@pytest.mark.django_db(transaction=True)
def test_two_tabs_of_one_labeler_never_take_both_places_of_a_quintet(project, labeler, compose):
    project.overlap = 2
    compose(1)
    gate, got = threading.Barrier(4), []

    def ask() -> None:
        gate.wait()
        got.append(Place.objects.next_for(labeler, project).pk)
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1
    assert Place.objects.filter(labeler=labeler).count() == 1


# ---- rankings


def seated(project, labeler) -> tuple[Place, Quintet]:
    place = Place.objects.next_for(labeler, project)
    return place, place.quintet


def test_the_same_key_and_ranks_again_are_the_same_ranking(project, labeler, compose):
    compose(1)
    place, quintet = seated(project, labeler)
    first = quintet.record_ranking(labeler, place, [2, 1, 3, 5, 4], place.key)
    assert quintet.record_ranking(labeler, place, [2, 1, 3, 5, 4], place.key) == first
    assert first.shown == place.shown and not first.surplus
    with pytest.raises(SentOtherwise):
        quintet.record_ranking(labeler, place, [1, 2, 3, 5, 4], place.key)
    with pytest.raises(AlreadyRanked) as refused:
        quintet.record_ranking(labeler, place, [2, 1, 3, 5, 4], uuid.uuid4())
    assert refused.value.stored == first == Ranking.objects.get()


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([1, 2, 3, 4], "5 rollouts, but 4 ranks"),
        ([1, 2, 3, 4, 5, 6], "5 rollouts, but 6 ranks"),
        ([1, 2, 3, 4, None], "1 of the 5 rollouts has no rank"),
        ([None] * 5, "5 of the 5 rollouts have no rank"),
        ([1, 1, 3, 4, 5], "Rank 1 is given more than once"),
        ([0, 2, 3, 4, 5], "from 1 to 5"),
        ([1, 2, 3, 4, 6], "from 1 to 5"),
        ([1, 2, 3, 4, "5"], "from 1 to 5"),
        ([True, 2, 3, 4, 5], "from 1 to 5"),
    ],
)
def test_what_is_no_ranking_of_these_rollouts_is_refused_in_words(project, labeler, compose, ranks, words):
    compose(1)
    place, quintet = seated(project, labeler)
    with pytest.raises(RankingRefused, match=words):
        quintet.record_ranking(labeler, place, ranks, place.key)
    assert not Ranking.objects.exists() and not Place.objects.get().done


def test_ties_are_stored_dense_where_they_are_allowed(labeler, compose):
    quintet = compose(1)[0]
    ranking = quintet.record_ranking(labeler, None, [1, 3, 3, 7, 1], ties=True)
    assert ranking.ranks == [1, 2, 2, 3, 1]


def test_a_late_ranking_takes_its_vacant_place(project, labeler, compose):
    compose(1)
    place, quintet = seated(project, labeler)
    Place.objects.update(leased_until=timezone.now() - timedelta(hours=1))
    assert not quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key).surplus
    assert Place.objects.get().done


def test_a_late_ranking_for_a_place_that_another_took_is_kept_as_surplus(project, labeler, second, compose):
    compose(1)
    place, quintet = seated(project, labeler)
    Place.objects.update(leased_until=timezone.now() - timedelta(hours=1))
    theirs, _ = seated(project, second)
    late = quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key)
    assert late.surplus and late.shown == quintet.order_for(labeler)
    assert Place.objects.get().labeler == second
    assert not quintet.record_ranking(second, theirs, [5, 4, 3, 2, 1], theirs.key).surplus


def test_a_simulated_labeler_takes_no_place_and_is_marked(compose):
    program = User.objects.create_user("simulated 1", simulated=True)
    quintet = compose(1)[0]
    ranking = quintet.record_ranking(program, None, [1, 2, 3, 4, 5])
    assert ranking.simulated and not ranking.surplus
    assert Place.objects.filter(done=False).count() == 1


def test_progress_counts_simulated_rankings_apart(project, labeler, second, compose):
    quintets = compose(4)
    program = User.objects.create_user("simulated 1", simulated=True)
    quintets[3].record_ranking(program, None, [1, 2, 3, 4, 5])
    for who in (labeler, labeler, second):
        place, quintet = seated(project, who)
        quintet.record_ranking(who, place, [1, 2, 3, 4, 5])
    Ranking.objects.filter(quintet=quintets[0]).update(created_at=timezone.now() - timedelta(days=2))
    progress = Ranking.objects.progress(labeler, Round.objects.current(project))
    assert (progress.today, progress.mine) == (1, 2)
    assert (progress.done, progress.wanted, progress.simulated) == (3, 4, 1)
