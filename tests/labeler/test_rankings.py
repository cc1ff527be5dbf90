"""What a ranking says beside its ranks, and how it is changed and taken back by whoever made it."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labeler import review
from labeler.models import AuditEntry, Contribution, Membership, Place, Project, Quintet, Ranking, Round, User
from labeler.models.rankings import AlreadyRanked, RankingRefused, TakenBack, Today
from tests.labeler.fixtures import JOKES

RANKS, OTHER = [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]


@pytest.fixture
def second(project) -> User:
    second = User.objects.create_user("sven")
    Membership.objects.create(project=project, user=second)
    return second


def rank(labeler: User, project: Project, ranks=RANKS, **said) -> Ranking:
    place = Place.objects.next_for(labeler, project)
    return place.quintet.record_ranking(labeler, place, ranks, place.key, **said)


# ---- what it says


def test_marks_guidelines_and_times_are_kept(project, labeler, compose):
    compose(1)
    project.revise_guidelines("Short ones first.")
    newest = project.revise_guidelines("Long ones first.")
    said = {"nonsense": [3, 1], "unsafe": [4], "acceptable": 2, "focus_seconds": 12.5}
    ranking = Ranking.objects.get(pk=rank(labeler, project, **said).pk)
    assert (ranking.nonsense, ranking.unsafe, ranking.acceptable) == ([1, 3], [4], 2)
    assert (ranking.focus_seconds, ranking.guidelines) == (12.5, newest)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"nonsense": [5]}, "not one of these"),
        ({"unsafe": [-1]}, "not one of these"),
        ({"acceptable": 6}, "from 0 to 5"),
        ({"acceptable": -1}, "from 0 to 5"),
    ],
)
def test_marks_that_say_nothing_of_these_rollouts_are_refused(project, labeler, compose, said, words):
    compose(1)
    with pytest.raises(RankingRefused, match=words):
        rank(labeler, project, **said)
    assert not Ranking.objects.exists()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_browsers_wrong_clock_costs_no_ranking(project, labeler, compose, seconds):
    compose(1)
    assert rank(labeler, project, focus_seconds=seconds).focus_seconds is None


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ([1, 2, 3, 4, 5], [1, 1, 2, 1, 3]),
        ([4, None, 2, None, 1], [3, 3, 2, 3, 1]),
        ([2, 2, 3, 2, 1], [2, 2, 3, 2, 1]),
    ],
)
def test_equal_texts_get_one_rank_though_ties_are_off(project, labeler, compose, given, stored):
    quintet = compose(1, texts=["same", " same\n", "other", "same", "third"])[0]
    assert quintet.alike() == [[0, 1, 3]]
    assert rank(labeler, project, given).ranks == stored


def test_equal_texts_excuse_no_other_tie(project, labeler, compose):
    compose(1, texts=["same", "same", "other", "third", "fourth"])
    with pytest.raises(RankingRefused, match="Rank 2 is given more than once"):
        rank(labeler, project, [1, 1, 2, 2, 3])


# ---- changed


def test_a_revised_ranking_is_a_new_version_beside_the_old_one(project, labeler, compose):
    compose(1)
    first = rank(labeler, project)
    key = uuid.uuid4()
    later = first.revise(labeler, OTHER, key, nonsense=[2])
    assert (later.version, later.ranks, later.nonsense, later.shown) == (2, OTHER, [2], first.shown)
    assert first.revise(labeler, OTHER, key, nonsense=[2]) == later
    assert later.revise(labeler, OTHER, nonsense=[2]) == later
    assert list(Ranking.objects.values_list("version", "current")) == [(1, False), (2, True)]
    assert list(Ranking.objects.work()) == [later]
    assert Round.objects.get().contributions.get().ranked == 1


def test_the_second_of_two_tabs_that_change_a_ranking_is_told(project, labeler, compose):
    compose(1)
    first = rank(labeler, project)
    first.revise(labeler, OTHER)
    with pytest.raises(RankingRefused, match="elsewhere"):
        first.revise(labeler, [2, 1, 3, 4, 5])
    assert Ranking.objects.work().get().ranks == OTHER


def test_the_form_sent_again_after_a_change_is_the_ranking_it_was(project, labeler, compose):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    first = place.quintet.record_ranking(labeler, place, RANKS, place.key)
    first.revise(labeler, OTHER)
    assert place.quintet.record_ranking(labeler, place, RANKS, place.key) == first
    assert Ranking.objects.work().get().ranks == OTHER


def test_nobody_changes_anothers_ranking(project, labeler, second, compose):
    compose(1)
    ranking = rank(labeler, project)
    for change in (lambda: ranking.revise(second, OTHER), lambda: ranking.take_back(second)):
        with pytest.raises(RankingRefused, match="somebody else's"):
            change()
    assert Ranking.objects.get().current


def test_a_ranking_stands_after_a_day_or_when_its_round_is_closed(project, labeler, admin, compose):
    compose(2)
    old, of_closed = rank(labeler, project), rank(labeler, project)
    Ranking.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(hours=25))
    assert list(Ranking.objects.recent(labeler, project)) == [of_closed]
    with pytest.raises(RankingRefused, match="for a day"):
        old.revise(labeler, OTHER)
    Round.objects.get().close(admin)
    assert not Ranking.objects.recent(labeler, project)
    for change in (lambda: of_closed.revise(labeler, OTHER), lambda: of_closed.take_back(labeler)):
        with pytest.raises(RankingRefused, match="round is closed"):
            change()


def test_a_ranking_sent_back_may_be_changed_at_any_time_and_is_then_done(project, labeler, admin, compose):
    compose(1)
    ranking = rank(labeler, project)
    Ranking.objects.update(created_at=timezone.now() - timedelta(days=9))
    ranking.send_back(admin, "Both are the same joke.")
    assert list(Ranking.objects.returned(labeler, project)) == [ranking]
    assert AuditEntry.objects.get(action="send back").about["ranking"] == ranking.pk
    later = ranking.revise(labeler, RANKS)  # the same ranks: they were looked at again
    assert later.version == 2 and not Ranking.objects.returned(labeler, project)


# ---- taken back


def test_a_ranking_taken_back_opens_its_place_for_its_labeler(project, labeler, second, compose):
    compose(2)
    ranking = rank(labeler, project)
    Place.objects.next_for(labeler, project)
    place = ranking.take_back(labeler)
    assert ranking.take_back(labeler).key == place.key
    assert Place.objects.next_for(labeler, project).pk == place.pk
    assert not Ranking.objects.work().exists() and Round.objects.get().contributions.get().ranked == 0
    again = rank(labeler, project, OTHER)
    assert (again.quintet, again.version, again.surplus) == (ranking.quintet, 2, False)
    with pytest.raises(RankingRefused, match="changed this ranking since"):
        ranking.take_back(labeler)


def test_a_form_sent_again_after_its_ranking_was_taken_back_does_not_bring_it_back(project, labeler, compose):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    place.quintet.record_ranking(labeler, place, RANKS, place.key).take_back(labeler)
    with pytest.raises(TakenBack):
        place.quintet.record_ranking(labeler, place, RANKS, place.key)
    assert issubclass(TakenBack, AlreadyRanked) and not Ranking.objects.work().exists()


def test_a_surplus_ranking_taken_back_is_gone_and_opens_nothing(project, labeler, second, compose):
    compose(1)
    place = Place.objects.next_for(labeler, project)
    Place.objects.update(leased_until=timezone.now() - timedelta(hours=1))
    rank(second, project)
    late = place.quintet.record_ranking(labeler, place, RANKS, place.key)
    assert late.surplus and late.take_back(labeler) is None
    assert Ranking.objects.work().get().labeler == second and Place.objects.get().done


def test_a_check_is_changed_and_taken_back_like_any_other(project, labeler, compose):
    """Or a labeler could tell it from work."""
    project.gold_rate, project.repeat_rate = 1, 0
    project.save()
    gold = compose(1, texts=JOKES, places=0)[0]
    gold.purpose, gold.known_ranks = "gold", RANKS
    gold.save()
    ranking = rank(labeler, project)
    assert list(Ranking.objects.recent(labeler, project)) == [ranking]
    place = ranking.revise(labeler, OTHER).take_back(labeler)
    assert place.purpose == "gold" and rank(labeler, project).version == 3


def test_what_came_twice_is_among_the_recent_ones_once(project, labeler, compose):
    project.gold_rate, project.repeat_rate = 0, 0.3
    project.save()
    compose(30)
    for _ in range(20):
        rank(labeler, project)
    repeat = Ranking.objects.filter(purpose="repeat").latest("pk")
    recent = list(Ranking.objects.recent(labeler, project))
    assert repeat in recent and len({each.quintet_id for each in recent}) == len(recent)


def test_a_check_goes_with_the_round_in_which_it_was_ranked(project, labeler, admin, compose):
    """It was made in an earlier one: staying where work can be changed, it could be told from it."""
    [work] = compose(1)
    check = review.make_check(work, admin, "gold", RANKS, "")
    Round.objects.get().close(admin)
    place = Place.objects.create(project=project, quintet=check, purpose="gold", labeler=labeler)
    place.seat(labeler)
    ranking = check.record_ranking(labeler, place, RANKS, place.key)
    assert list(Ranking.objects.recent(labeler, project)) == [ranking]
    ranking = ranking.revise(labeler, OTHER)
    compose(1)
    Round.objects.current(project).close(admin)
    assert not Ranking.objects.recent(labeler, project)
    with pytest.raises(RankingRefused, match="round is closed"):
        ranking.take_back(labeler)


def test_today_counts_checks_and_time_and_not_what_was_taken_back(project, labeler, compose):
    project.gold_rate, project.repeat_rate = 0.5, 0
    project.save()
    gold = compose(2, places=0)
    Quintet.objects.filter(pk__in=[each.pk for each in gold]).update(purpose="gold", known_ranks=RANKS)
    compose(6)
    done = [rank(labeler, project, focus_seconds=10) for _ in range(6)]
    assert {each.purpose for each in done} == {"work", "gold"}
    assert Ranking.objects.today(labeler, project) == Today(6, 60.0)
    done[0].take_back(labeler)
    done[1].revise(labeler, OTHER, focus_seconds=25)
    assert Ranking.objects.today(labeler, project) == Today(5, 65.0)
    Ranking.objects.filter(pk=done[2].pk).update(created_at=timezone.now() - timedelta(days=1))
    assert Ranking.objects.today(labeler, project) == Today(4, 55.0)
    Contribution.objects.update(day=timezone.localdate() - timedelta(days=1))
    assert Ranking.objects.today(labeler, project) == Today(0, 0.0)
    rank(labeler, project, focus_seconds=5)
    assert Ranking.objects.today(labeler, project) == Today(1, 5.0)
