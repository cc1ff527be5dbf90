"""Hidden checks and practice: when they come, to whom, and what comes of them."""

from itertools import pairwise

import pytest

from labeler.models import (
    AuditEntry,
    Place,
    Quintet,
    Ranking,
    Round,
)
from labeler.models.checks import scores
from tests.labeler.fixtures import JOKES
from tests.labeler.served import RANKS, membership, others, project, rank, served

__all__ = ["membership", "others", "project"]  # fixtures


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
    score = scores(project)[labeler.pk]
    assert (score["gold"].right, score["gold"].decided, score["gold"].quintets) == (9 + 6, 18, 2)
    assert score["repeat"].share is None


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
    assert scores(project)[labeler.pk]["gold"].share == 0


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
    assert scores(project)[labeler.pk]["gold"].share > 0.7 and membership.warned_because == ""


def test_a_skipped_check_is_not_served_again(project, labeler, compose):
    project.gold_rate = 1
    project.save()
    gold = gold_of(compose, 1)[0]
    skip = Place.objects.next_for(labeler, project).skip(labeler, "cannot")
    assert Place.objects.next_for(labeler, project) is None
    assert skip.take_back().quintet == gold


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
