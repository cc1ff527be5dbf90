"""Which place is next: the queue's order, how many labelers, skips and drafts, who is excluded."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from labeler.models import (
    AuditEntry,
    Desk,
    Place,
    Quintet,
    Ranking,
    Round,
    Skip,
)
from labeler.models.rankings import RankingRefused
from tests.labeler.served import RANKS, membership, others, project, rank, served

__all__ = ["membership", "others", "project"]  # fixtures


# ---- the order


def test_quintets_are_served_in_the_order_in_which_they_came(project, labeler, compose):
    quintets = compose(5)
    assert served(labeler, project) == quintets
    assert {each.arm for each in Ranking.objects.all()} == {"order"}


def test_at_random_is_another_order_and_marked_so(project, labeler, compose):
    project.queue = "random"
    quintets = compose(12)
    order = served(labeler, project)
    assert sorted(order, key=lambda each: each.pk) == quintets != order
    assert {each.arm for each in Ranking.objects.all()} == {"random"}


def test_the_unsure_come_first_and_the_random_share_is_spread_among_them(project, labeler, compose):
    quintets = compose(100)
    for number, quintet in enumerate(quintets):
        quintet.uncertainty = number % 50 / 100
    Quintet.objects.bulk_update(quintets, ["uncertainty"])
    project.queue, project.random_share = "uncertain", 0.2
    project.save()
    Quintet.objects.reorder(project)
    queue = list(Place.objects.waiting().order_by("priority", "pk").select_related("quintet"))
    arms = [place.quintet.arm for place in queue]
    for end in (20, 40, 60, 80, 100):
        assert abs(arms[:end].count("random") - 0.2 * end) <= 2
    unsure = [place.quintet.uncertainty for place in queue if place.quintet.arm == "uncertain"]
    assert unsure == sorted(unsure, reverse=True)
    drawn = [place.quintet.uncertainty for place in queue if place.quintet.arm == "random"]
    assert drawn != sorted(drawn, reverse=True)
    assert rank(labeler, project).arm == arms[0]


def test_what_is_not_scored_yet_comes_after_the_scored_and_is_not_marked_as_chosen(project, compose):
    project.queue, project.random_share = "uncertain", 0
    first, second = compose(2)
    Quintet.objects.filter(pk=second.pk).update(uncertainty=0.1)
    Quintet.objects.reorder(project)
    queue = Place.objects.waiting().order_by("priority").values_list("quintet", "quintet__arm")
    assert list(queue) == [(first.pk, "order"), (second.pk, "order")]  # settings were not saved: as they came
    project.save()
    Quintet.objects.reorder(project)
    assert list(queue.all()) == [(second.pk, "uncertain"), (first.pk, "order")]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_the_wider_share_comes_out_exact(project, compose, share):
    project.overlap, project.wider_overlap, project.wider_share = 1, 3, share
    quintets = compose(80)
    wide = [each for each in quintets if each.places.count() == 3]
    assert abs(len(wide) - share * 80) <= 1
    assert all(each.places.count() in (1, 3) for each in quintets)


def test_another_overlap_opens_or_closes_places_of_what_waits_and_keeps_who_sits(
    project, labeler, others, compose
):
    project.overlap = 2
    project.save()
    waiting, _ = compose(2)
    rank(labeler, project)
    held = Place.objects.next_for(others[0], project)
    for overlap, wanted in ((1, 3), (3, 6), (2, 4)):
        project.overlap = overlap
        project.save()
        Quintet.objects.reorder(project)
        assert Round.objects.get().wanted == wanted
    held.refresh_from_db()
    assert held.quintet == waiting and held.labeler == others[0] and not held.done


def test_a_place_given_back_at_the_head_is_served_before_the_rest(project, labeler, others, compose):
    first = compose(30)[0]
    Place.objects.next_for(others[0], project)
    for _ in range(20):
        rank(labeler, project)
    Place.objects.release(others[0])
    assert rank(labeler, project).quintet == first


@pytest.mark.django_db(transaction=True)
def test_whoever_asks_while_the_last_place_is_locked_waits_for_it(project, labeler, compose):
    compose(1)
    got: list[Place | None] = []

    def ask() -> None:
        got.append(Place.objects.next_for(labeler, project))
        connections.close_all()

    asking = threading.Thread(target=ask)
    with transaction.atomic():
        list(Place.objects.select_for_update())
        asking.start()
        asking.join(0.5)
        assert asking.is_alive()
    asking.join()
    assert got[0] is not None


def test_a_claim_looks_at_as_much_however_much_a_labeler_has_ranked(project, labeler, compose):
    """With two wanted and one labeler, all that they ranked stays open."""
    project.overlap = 2
    compose(100)
    costs = []
    for _ in range(100):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            place = Place.objects.next_for(labeler, project)
        costs.append(len(queries))
        place.quintet.record_ranking(labeler, place, RANKS, place.key)
    assert max(costs[1:]) <= costs[1] + 1  # beyond the head of the queue: where they have come to
    desk = Desk.objects.get()
    assert desk.place == Place.objects.filter(labeler=labeler).order_by("-priority", "-pk").first().pk
    assert Place.objects.next_for(labeler, project) is None


def test_nobody_ranks_what_they_wrote(project, labeler, others, compose):
    theirs, _ = compose(2)
    theirs.rollouts.filter(slot=2).update(author=labeler)
    assert theirs not in served(labeler, project)
    assert served(others[0], project) == [theirs]


# ---- skips and drafts


def test_a_skipped_place_goes_back_to_the_queue(project, labeler, others, compose):
    first, second = compose(2)
    place = Place.objects.next_for(labeler, project)
    skip = place.skip(labeler, "upsetting", "Not this one.")
    assert (skip.quintet, skip.note) == (first, "Not this one.")
    assert place.skip(labeler, "broken") == skip
    assert Place.objects.next_for(others[0], project).quintet == first
    assert served(labeler, project) == [second] and not Ranking.objects.filter(quintet=first).exists()


def test_a_skip_taken_back_gives_the_place_back_while_it_is_free(project, labeler, others, compose):
    quintet = compose(1)[0]
    skip = Place.objects.next_for(labeler, project).skip(labeler, "unclear")
    assert Place.objects.next_for(labeler, project) is None
    place = skip.take_back()
    assert place.quintet == quintet and Place.objects.next_for(labeler, project).pk == place.pk
    again = place.skip(labeler, "unclear")
    rank(others[0], project)
    assert again.take_back() is None and not Skip.objects.exists()


def test_three_peoples_skips_set_a_quintet_aside_until_somebody_brings_it_back(
    project, labeler, others, admin, compose
):
    project.overlap = 2
    quintet = compose(1)[0]
    for who in (labeler, others[0], others[1]):
        Place.objects.next_for(who, project).skip(who, "broken")
    quintet.refresh_from_db()
    assert quintet.set_aside_at and Place.objects.next_for(others[2], project) is None
    assert not Quintet.objects.waiting().exists() and Round.objects.get().wanted == 0
    assert AuditEntry.objects.get(action="set aside").about == {"quintet": quintet.pk}
    project.save()
    quintet.bring_back(admin)
    assert Place.objects.next_for(others[2], project).quintet == quintet
    assert Place.objects.next_for(labeler, project) is None


def test_what_is_sent_after_a_quintet_was_set_aside_is_kept_as_surplus(project, labeler, admin, compose):
    quintet = compose(1)[0]
    place = Place.objects.next_for(labeler, project)
    quintet.set_aside(admin, "It looks broken.")
    assert quintet.record_ranking(labeler, place, RANKS, place.key).surplus


def test_who_ranks_in_another_tab_what_they_skipped_has_ranked_it(project, labeler, compose):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    place.skip(labeler, "cannot")
    assert not place.quintet.record_ranking(labeler, place, RANKS, place.key).surplus
    assert not Skip.objects.exists()
    with pytest.raises(RankingRefused, match="ranked this one already"):
        place.skip(labeler, "cannot")


def test_a_skip_needs_one_of_the_reasons(project, labeler, compose):
    compose(1)
    with pytest.raises(RankingRefused, match="Say why"):
        Place.objects.next_for(labeler, project).skip(labeler, "bored")


def test_a_draft_survives_and_goes_with_the_place(project, labeler, others, compose):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    assert place.keep_draft(labeler, {"rank-a": 1})
    assert not place.keep_draft(others[0], {"rank-a": 2})
    assert Place.objects.next_for(labeler, project).draft == {"rank-a": 1}
    for draft, words in (({"note": "x" * 3000}, "at most 2048"), ([1], "names and values")):
        with pytest.raises(RankingRefused, match=words):
            place.keep_draft(labeler, draft)
    Place.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert Place.objects.next_for(others[0], project).draft is None


# ---- who is excluded


def test_an_excluded_labelers_places_go_to_others_and_come_back_while_they_are_free(
    project, labeler, others, admin, membership, compose
):
    compose(3)
    served(labeler, project)
    membership.exclude("It looks like chance.", admin)
    assert Quintet.objects.waiting().count() == 3 and Ranking.objects.work().count() == 3
    assert not Ranking.objects.counted().exists()
    taken = rank(others[0], project).quintet
    membership.take_back(admin)
    assert not Quintet.objects.waiting().exists()
    assert Ranking.objects.get(surplus=True).quintet == taken
    contributions = {each.labeler.username: each.filled for each in Round.objects.get().contributions.all()}
    assert contributions == {"lena": 2, "sven": 1}
