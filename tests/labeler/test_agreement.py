"""Agreement kept up to date: the sums against counting it all again, whatever became of the rankings."""

import csv
import json
import threading
from collections import defaultdict
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labeler.agreement.figures import figures
from labeler.agreement.folding import fold, fold_all, states
from labeler.agreement.layout import Kind
from labeler.agreement.tallies import Entry, changes
from labeler.models import Membership, Purpose, Quintet, Ranking, Round, StaleQuintet, Tallied, Tally, User
from rlhf.data import dense
from tests.labeler.test_agreement_measures import reference, same

pytestmark = pytest.mark.django_db


@pytest.fixture
def crew(project):
    """Three people and two simulated labelers, all of the project."""
    found = [User.objects.create_user(name) for name in ("ann", "ben", "cleo")]
    found += [User.objects.without_password(name, simulated=True) for name in ("s1", "s2")]
    Membership.objects.bulk_create(Membership(project=project, user=user) for user in found)
    return found


def people_of(project) -> dict:
    fold_all([project])
    return Tally.objects.told_of(project, False, Kind.PROJECT).get(0, {})


def rank(quintet, labeler, ranks, **fields) -> Ranking:
    fields = {"simulated": labeler.simulated} | fields
    return Ranking.objects.create(quintet=quintet, labeler=labeler, ranks=ranks, **fields)


def edit(ranking: Ranking, ranks: list[int]) -> Ranking:
    """As the ranking page does: the old version stays, and is no longer the current one."""
    Ranking.objects.filter(pk=ranking.pk).update(current=False)
    return rank(ranking.quintet, ranking.labeler, ranks, version=ranking.version + 1, purpose=ranking.purpose)


def counted_again(project, simulated: bool) -> dict:
    """The measures from all rankings as they are now, by the slow definitions."""
    quintets: dict[int, dict[int, list[int]]] = defaultdict(dict)
    counted = Ranking.objects.filter(quintet__project=project, simulated=simulated).counted()
    for quintet, labeler, ranks in counted.values_list("quintet", "labeler", "ranks"):
        quintets[quintet][labeler] = ranks
    return reference(list(quintets.values())) | {"rankings": counted.count(), "ranked": len(quintets)}


def test_a_ranking_is_in_the_sums_at_the_next_look(project, compose, crew):
    [quintet] = compose()
    assert people_of(project) == {}
    rank(quintet, crew[0], [1, 2, 3, 4, 5])
    rank(quintet, crew[1], [2, 1, 3, 4, 5])
    assert StaleQuintet.objects.how_many() == 1
    told = people_of(project)
    assert (told["rankings"], told["quintets"], told["agreement"]) == (2, 1, 0.9)
    assert not StaleQuintet.objects.exists()


ranks = st.lists(st.integers(1, 5), min_size=5, max_size=5).map(
    lambda given: [sorted(set(given)).index(rank) + 1 for rank in given]
)
acts = st.lists(
    st.tuples(
        st.sampled_from(
            ["rank", "rank", "rank", "edit", "exclude", "take back", "undo", "move", "fold", "check"]
        ),
        st.integers(0, 4),
        st.integers(0, 3),
        ranks,
    ),
    max_size=25,
)


# What changes after it was added up has to be taken out again.
FOLD = [("fold", 0, 0, [])]
COUNTED = [("rank", 0, 0, [1, 2, 3, 4, 5]), ("rank", 1, 0, [1, 3, 2, 4, 5]), *FOLD]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=acts)
@example(acts=[*COUNTED, ("edit", 0, 0, [2, 1, 3, 4, 5])])
@example(acts=[*COUNTED, ("check", 0, 0, [1, 2, 3, 5, 4])])
@example(acts=[*COUNTED, ("undo", 1, 0, [])])
@example(acts=[*COUNTED, ("exclude", 1, 0, []), *FOLD, ("take back", 1, 0, [])])
@example(acts=[*COUNTED, ("move", 0, 0, [1])])
def test_sums_kept_up_to_date_equal_counting_it_all_again(project, crew, compose, acts):
    """After any history of ranking, checking, editing, excluding, taking back, deleting, moving to another
    round and folding in between, every number is the one that a fresh count gives."""
    Ranking.objects.all().delete()
    fold_all([project])
    quintets = list(project.quintets.all()) or compose(4)
    rounds = [quintets[0].round, project.rounds.get_or_create(number=2)[0]]
    for act, who, which, order in acts:
        labeler, quintet = crew[who], quintets[which]
        member = project.memberships.filter(user=labeler)
        mine = Ranking.objects.filter(quintet=quintet, labeler=labeler, current=True)
        if act == "rank" and not mine.filter(purpose=Purpose.WORK).exists():
            rank(quintet, labeler, order, shown=[4, 2, 0, 1, 3], seconds=order[0] * 9.5)
        elif act == "check" and not mine.filter(purpose=Purpose.REPEAT).exists():
            rank(quintet, labeler, order, purpose=Purpose.REPEAT)
        elif act == "edit" and mine:
            edit(mine.first(), order)
        elif act == "undo":
            mine.delete()
        elif act == "exclude":
            member.update(excluded_at="2026-11-21T09:00Z")
        elif act == "take back":
            member.update(excluded_at=None)
        elif act == "move":
            Quintet.objects.filter(pk=quintet.pk).update(round=rounds[order[0] % 2])
        elif act == "fold":
            fold(project, most=2)
    fold_all([project])
    kept = {tally.pk: tally for tally in project.tallies.all()}
    fresh = changes([Entry(pk, 1, state) for pk, state in states([q.pk for q in quintets]).items()]).scopes
    assert {(each.simulated, each.kind, each.ref) for each in kept.values()} == set(fresh)
    for tally in kept.values():
        delta = fresh[tally.simulated, tally.kind, tally.ref]
        assert alike(tally.told, figures(delta.sums, delta.replicates))
    for simulated in (False, True):
        told = Tally.objects.told_of(project, simulated, Kind.PROJECT).get(0)
        expected = counted_again(project, simulated)
        assert same(told, expected) if told else not expected["rankings"]
    project.memberships.update(excluded_at=None)


def alike(one, other) -> bool:
    """The same numbers but for rounding; intervals are kept less exactly."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


def test_a_bulk_import_marks_each_quintet_once(project, compose, crew):
    quintets = compose(3)
    Ranking.objects.bulk_create(
        Ranking(quintet=quintet, labeler=labeler, ranks=[1, 2, 3, 4, 5])
        for quintet in quintets
        for labeler in crew[:3]
    )
    assert StaleQuintet.objects.count() == 3


def test_what_changes_no_number_marks_nothing(project, compose, crew):
    ranking = rank(compose()[0], crew[0], [1, 2, 3, 4, 5])
    rank(compose()[0], crew[0], [1, 2, 3, 4, 5], purpose=Purpose.PRACTICE)
    fold_all([project])
    ranking.extra = {"note": "read twice"}
    ranking.save()
    project.memberships.update(paused_at="2026-11-21T09:00Z")
    assert not StaleQuintet.objects.exists()


def test_a_quintet_that_is_deleted_is_taken_out_of_the_sums(project, compose, crew):
    one, other = compose(2)
    for quintet in (one, other):
        rank(quintet, crew[0], [1, 2, 3, 4, 5])
    assert people_of(project)["rankings"] == 2
    one.rankings.all().delete()
    one.delete()
    assert people_of(project)["rankings"] == 1
    other.rankings.all().delete()
    assert people_of(project) == {}
    assert not Tally.objects.exists()
    assert not Tallied.objects.exists()


def test_sums_of_another_version_are_made_anew(project, compose, crew):
    rank(compose()[0], crew[0], [1, 2, 3, 4, 5])
    told = people_of(project)
    Tally.objects.update(version=0, told={}, sums=b"", replicates=b"")
    assert people_of(project) == told


@pytest.mark.django_db(transaction=True)
def test_two_folds_at_once_take_turns(transactional_db, project, compose, crew):
    """Who comes second leaves the marks to the first, or waits for it."""
    quintets = compose(6)
    for quintet in quintets:
        rank(quintet, crew[0], [1, 2, 3, 4, 5])
    begun, go_on, second = threading.Event(), threading.Event(), []

    def first() -> None:
        with transaction.atomic():
            assert fold(project, most=2) == 2
            begun.set()
            go_on.wait(10)
        connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    second.append(fold(project))
    go_on.set()
    thread.join()
    assert second == [0]
    assert people_of(project)["rankings"] == 6


# What the numbers mean


def test_people_are_not_compared_with_simulated_labelers(project, compose, crew):
    [quintet] = compose()
    for labeler in crew[:2]:
        rank(quintet, labeler, [1, 2, 3, 4, 5])
    for labeler in crew[3:]:
        rank(quintet, labeler, [5, 4, 3, 2, 1])
    found = told_by_command()
    assert (found["people"]["agreement"], found["people"]["pairs"]) == (1.0, 10)
    assert (found["simulated"]["agreement"], found["simulated"]["pairs"]) == (1.0, 10)


def test_hidden_checks_are_no_rankings_but_tell_of_their_labelers(project, compose, crew):
    quintet, gold = compose(2)
    Quintet.objects.filter(pk=gold.pk).update(purpose=Purpose.GOLD, known_ranks=[1, 2, 3, 3, 3])
    rank(quintet, crew[0], [1, 2, 3, 4, 5])
    rank(quintet, crew[0], [1, 2, 3, 5, 4], purpose=Purpose.REPEAT)
    rank(gold, crew[0], [1, 2, 2, 3, 4], purpose=Purpose.GOLD)
    told = people_of(project)
    assert (told["rankings"], told["repeats"], told["golds"]) == (1, 1, 1)
    assert told["self_agreement"] == 0.9
    assert told["gold"] == pytest.approx(6 / 7), "seven pairs are known; one of them was called a tie"
    mine = Tally.objects.told_of(project, False, Kind.LABELER)[crew[0].pk]
    assert (mine["self_agreement"], mine["gold"]) == (told["self_agreement"], told["gold"])
    assert Tally.objects.told_of(project, False, Kind.LABELER).keys() == {crew[0].pk}


def test_the_command_tells_all_numbers_and_names(project, compose, crew):
    for quintet in compose(2):
        rank(quintet, crew[0], [1, 2, 3, 4, 5])
        rank(quintet, crew[1], [1, 2, 3, 5, 4])
    found = told_by_command()
    people = found["people"]
    assert {name: people[name] for name in ("quintets", "labelers", "agreed", "opposed", "pairs")} == {
        "quintets": 2,
        "labelers": 2,
        "agreed": 18,
        "opposed": 2,
        "pairs": 20,
    }
    assert [each["labeler"] for each in people["by_labeler"]] == ["ann", "ben"]
    assert [each["round"] for each in people["by_round"]] == [1]
    assert people["ceiling"] == pytest.approx((1 + 0.8**0.5) / 2)
    assert people["agreement_interval"] is None, "two quintets are too few for an interval"
    assert found["simulated"]["rankings"] == 0


def told_by_command() -> dict:
    said = StringIO()
    call_command("agreement", "pelican-jokes", "--json", stdout=said)
    return json.loads(said.getvalue())


def test_the_command_says_in_words_how_far_they_agree(project, compose, crew, capsys):
    [quintet] = compose()
    call_command("agreement", "pelican-jokes")
    assert capsys.readouterr().out.splitlines()[0] == "People: no two of them ranked the same quintet."
    rank(quintet, crew[0], [1, 2, 3, 4, 5])
    rank(quintet, crew[1], [1, 2, 3, 4, 5])
    call_command("agreement", "pelican-jokes")
    assert capsys.readouterr().out.splitlines()[0] == (
        "People: 100.0% (10 pairs of rollouts alike, 0 opposed; 0 tied by one, 0 by both; 2 labelers, "
        "1 quintets); tau-b 1.00, W 1.00, alpha 1.00, kappa 1.00."
    )


WMT = Path(__file__).parents[1] / "data" / "wmt13-fr-en-extract.csv"


def test_agreement_of_judges_of_wmt13_equals_an_independent_computation(project):
    """Real people's rankings with ties: segments and systems are the quintets, judges the labelers."""
    with WMT.open(newline="") as file:
        rows = list(csv.DictReader(file))
    judges = {name: User.objects.create_user(name) for name in sorted({row["judgeId"] for row in rows})}
    quintets: dict[tuple, Quintet] = {}
    current = Round.objects.current(project)
    for row in rows:
        systems = [row[f"system{number}Id"] for number in range(1, 6)]
        prompt = project.prompts.get_or_create(content=f"segment {row['segmentId']}")[0]
        key = (row["segmentId"], *systems)
        if key not in quintets:
            quintets[key] = Quintet.objects.compose(project, current, prompt, systems, places=0)
        if not quintets[key].rankings.filter(labeler=judges[row["judgeId"]]).exists():
            ranks = dense([int(row[f"system{number}rank"]) for number in range(1, 6)])
            rank(quintets[key], judges[row["judgeId"]], list(ranks))
    told = people_of(project)
    assert told["quintets"] == 7
    assert same(told, counted_again(project, simulated=False))
    assert told["agreement_interval"][0] < told["agreement"] < told["agreement_interval"][1]
