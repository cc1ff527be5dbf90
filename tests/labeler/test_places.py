"""Which place is next: the queue's order, how many labelers, hidden checks, practice, skips and drafts."""

import threading
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from labeler.models import (
    AuditEntry,
    Desk,
    Membership,
    Place,
    Project,
    Quintet,
    Ranking,
    Round,
    Skip,
    User,
)
from labeler.models.rankings import RankingRefused
from tests.labeler.fixtures import JOKES

RANKS = [1, 2, 3, 4, 5]


@pytest.fixture
def project(project) -> Project:
    project.gold_rate = project.repeat_rate = 0
    project.save()
    return project


@pytest.fixture
def membership(project, labeler) -> Membership:
    return Membership.objects.get(project=project, user=labeler)


@pytest.fixture
def others(project) -> list[User]:
    found = [User.objects.create_user(name) for name in ("sven", "tara", "ugo")]
    Membership.objects.bulk_create(Membership(project=project, user=each) for each in found)
    return found


def rank(labeler: User, project: Project, ranks=RANKS) -> Ranking | None:
    """What comes next for them, ranked."""
    place = Place.objects.next_for(labeler, project)
    return place and place.quintet.record_ranking(labeler, place, ranks, place.key, ties=True)


def served(labeler: User, project: Project) -> list[Quintet]:
    found = []
    while ranking := rank(labeler, project):
        found.append(ranking.quintet)
    return found


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


# ---- hidden checks


def gold_of(compose, count: int, known=RANKS) -> list[Quintet]:
    found = compose(count, places=0)
    Quintet.objects.filter(pk__in=[each.pk for each in found]).update(purpose="gold", known_ranks=known)
    return found


def test_gold_and_repeats_come_at_their_rates_and_without_clumps(project, labeler, compose):
    project.gold_rate, project.repeat_rate = 0.1, 0.1
    project.save()
    compose(200)
    gold_of(compose, 30)
    purposes = []
    for _ in range(200):
        purposes.append(rank(labeler, project).purpose)
    assert abs(purposes.count("gold") - 20) <= 1 and abs(purposes.count("repeat") - 20) <= 2
    checks = [number for number, purpose in enumerate(purposes) if purpose != "work"]
    # In the beginning a repeat that falls due finds nothing that was ranked long enough ago.
    assert max(after - before for before, after in pairwise(n for n in checks if n >= 20)) <= 10
    assert purposes[:10].count("repeat") == 0


def test_a_repeat_is_one_of_their_own_from_a_while_ago_and_shown_in_another_order(project, labeler, compose):
    project.repeat_rate = 0.2
    project.save()
    compose(60)
    for _ in range(40):
        rank(labeler, project)
    repeats = Ranking.objects.filter(purpose="repeat")
    assert repeats.count() > 3
    for each in repeats:
        first = Ranking.objects.get(quintet=each.quintet, purpose="work")
        between = Ranking.objects.filter(purpose="work", pk__gt=first.pk, pk__lt=each.pk).count()
        assert between >= 10 and first.shown != each.shown
    assert not Ranking.objects.filter(surplus=True).exists()
    assert (
        Ranking.objects.work().count()
        == 40 - repeats.count()
        == Round.objects.get().contributions.get().ranked
    )


def test_a_quintet_of_two_comes_again_the_other_way_round(project, labeler, compose):
    for quintet in compose(8, texts=JOKES[:2]):
        assert quintet.order_for(labeler, "repeat") == quintet.order_for(labeler)[::-1]


def test_gold_takes_no_place_and_comes_once_to_each(project, labeler, others, compose):
    project.gold_rate = 1
    project.save()
    gold, work = gold_of(compose, 1)[0], compose(1)[0]
    assert served(labeler, project) == [gold, work]
    assert [place.quintet for place in [Place.objects.next_for(others[0], project)]] == [gold]
    assert not Quintet.objects.waiting().exists() and Round.objects.get().wanted == 1
    assert Ranking.objects.work().count() == 1


def test_a_check_held_over_signing_out_comes_again(project, labeler, compose):
    project.gold_rate = 1
    project.save()
    gold_of(compose, 2)
    held = Place.objects.next_for(labeler, project)
    Place.objects.release(labeler)
    assert Place.objects.next_for(labeler, project).pk == held.pk


def test_scores_count_the_pairs_whose_order_is_known(project, labeler, membership, compose):
    project.gold_rate = 1
    project.save()
    gold_of(compose, 2, known=[1, 1, 2, 3, 4])
    rank(labeler, project, [1, 2, 3, 4, 5])
    rank(labeler, project, [1, 1, 2, 2, 2])
    score = membership.check_scores()["gold"]
    assert (score.right, score.decided, score.quintets) == (9 + 6, 18, 2)
    assert Ranking.objects.check_scores(project)[labeler.pk]["gold"] == score
    assert membership.check_scores()["repeat"].share is None


@pytest.mark.parametrize(("checks", "paused", "warned"), [("report", 0, 0), ("warn", 0, 1), ("pause", 1, 0)])
def test_five_bad_checks_are_reported_or_warned_of_or_pause(
    project, labeler, membership, compose, checks, paused, warned
):
    project.gold_rate, project.checks = 1, checks
    project.save()
    gold_of(compose, 6)
    compose(1)
    for number in range(5):
        membership.refresh_from_db()
        assert not membership.paused_at and not membership.warned_because, number
        rank(labeler, project, RANKS[::-1])
    membership.refresh_from_db()
    assert bool(membership.paused_at) == paused and bool(membership.warned_because) == warned
    told = AuditEntry.objects.filter(project=project, action__in=["pause", "warn"], by=None)
    assert told.count() == paused + warned
    assert (Place.objects.next_for(labeler, project) is None) == bool(paused)
    assert membership.check_scores()["gold"].share == 0


def test_who_goes_on_after_a_pause_is_not_paused_again_for_the_same_checks(
    project, labeler, admin, membership, compose
):
    project.gold_rate, project.checks = 1, "pause"
    project.save()
    gold_of(compose, 7)
    for _ in range(5):
        rank(labeler, project, RANKS[::-1])
    membership.refresh_from_db()
    membership.unpause(admin)
    rank(labeler, project, RANKS[::-1])
    membership.refresh_from_db()
    assert not membership.paused_at


def test_a_warning_goes_when_the_checks_are_good_again(project, labeler, membership, compose):
    project.gold_rate, project.checks = 1, "warn"
    project.save()
    gold_of(compose, 20)
    for ranks in [RANKS[::-1]] * 5 + [RANKS] * 12:
        rank(labeler, project, ranks)
    membership.refresh_from_db()
    assert membership.check_scores()["gold"].share > 0.7 and membership.warned_because == ""


# ---- practice


def practice_of(compose, count: int) -> list[Quintet]:
    found = compose(count, places=0)
    Quintet.objects.filter(pk__in=[each.pk for each in found]).update(purpose="practice", known_ranks=RANKS)
    return found


def test_new_labelers_practise_first_and_pass_at_the_mark(project, labeler, membership, compose):
    project.practice = True
    project.save()
    pieces, work = practice_of(compose, 2), compose(1)[0]
    assert Place.objects.practising(labeler, project)
    assert [rank(labeler, project).quintet for _ in pieces] == pieces
    assert not Place.objects.practising(labeler, project)
    assert rank(labeler, project).quintet == work
    membership.refresh_from_db()
    assert membership.practised_at and membership.practice_result().share == 1
    assert Ranking.objects.work().count() == 1


def test_who_fails_the_practice_gets_no_work_and_may_go_through_it_again(
    project, labeler, membership, compose
):
    project.practice = True
    project.save()
    pieces = practice_of(compose, 2)
    compose(1)
    for _ in pieces:
        assert rank(labeler, project, RANKS[::-1]).score().share == 0
    assert Place.objects.next_for(labeler, project) is None
    assert membership.practice_result().share == 0
    assert membership.practise_again() == 2
    assert [rank(labeler, project).version for _ in pieces] == [2, 2]
    membership.refresh_from_db()
    assert membership.practised_at and Ranking.objects.count() == 4


def test_an_admin_ranks_without_practice(project, admin, compose):
    project.practice = True
    project.save()
    practice_of(compose, 1)
    work = compose(1)[0]
    assert Place.objects.next_for(admin, project).quintet == work


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


def test_a_skipped_check_is_not_served_again(project, labeler, compose):
    project.gold_rate = 1
    project.save()
    gold = gold_of(compose, 1)[0]
    skip = Place.objects.next_for(labeler, project).skip(labeler, "cannot")
    assert Place.objects.next_for(labeler, project) is None
    assert skip.take_back().quintet == gold


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
