"""Frozen datasets: which rankings a query takes, what the manifest counts, and two of them side by side."""

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from django.conf import settings
from django.db import connection, transaction

from labeler import datasets
from labeler.agreement import compared
from labeler.datasets import Query
from labeler.datasets.compare import difference
from labeler.datasets.facts import Facts
from labeler.datasets.frozen import now, opened, place
from labeler.datasets.lines import snapshot
from labeler.models import (
    AuditEntry,
    Dataset,
    Demonstration,
    Guidelines,
    Project,
    Quintet,
    Ranking,
    User,
)
from rlhf import config, data

pytestmark = pytest.mark.django_db
CHAT = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "A joke."}]


@pytest.fixture
def others(db) -> list[User]:
    return [User.objects.create_user(name) for name in ("ann", "bob")]


def lines_of(dataset: Dataset) -> list[dict]:
    return [line for _, line in data.read_lines(settings.HOME / dataset.path)]


def quintets(project: Project, **query) -> set[int]:
    return set(Query(**query).rows(project).values_list("quintet", flat=True))


# The query


def test_rounds_dates_and_labelers_are_chosen_from(project, new_ranking, others):
    first, second = new_ranking(round=1), new_ranking(round=2, by=others[0])
    third = new_ranking(round=3, by=others[1])
    for days, ranking in enumerate((first, second, third)):
        when = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=days)
        Ranking.objects.filter(pk=ranking.pk).update(created_at=when)
    everything = {each.quintet_id for each in (first, second, third)}
    assert quintets(project) == everything
    assert quintets(project, rounds=(2, 3)) == {second.quintet_id, third.quintet_id}
    assert quintets(project, labelers=("ann",)) == {second.quintet_id}
    day = datetime(2026, 3, 2).date()
    assert quintets(project, since=day) == {second.quintet_id, third.quintet_id}
    assert quintets(project, until=day) == {first.quintet_id, second.quintet_id}
    assert quintets(project, since=day, until=day, rounds=(1,)) == set()


def test_excluded_labelers_are_in_no_dataset_whatever_is_asked(project, new_ranking, labeler, others):
    mine, other = new_ranking(), new_ranking(by=others[0])
    gold = new_ranking(purpose="gold")
    project.memberships.filter(user=labeler).update(excluded_at=datetime.now(UTC))
    assert quintets(project) == {other.quintet_id}
    assert quintets(project, labelers=("lena",), gold=True, simulated=True) == set()
    project.memberships.filter(user=labeler).update(excluded_at=None)
    assert quintets(project, gold=True) == {mine.quintet_id, other.quintet_id, gold.quintet_id}


def test_checks_practice_and_older_versions_stay_out(project, new_ranking):
    work, gold, practice = new_ranking(), new_ranking(purpose="gold"), new_ranking(purpose="practice")
    repeat = new_ranking((5, 4, 3, 2, 1), quintet=work.quintet, purpose="repeat")
    new_ranking((2, 1, 3, 4, 5), quintet=work.quintet, current=False, version=1)
    assert set(Query().rows(project)) == {work}
    assert set(Query(gold=True).rows(project)) == {work, gold}
    assert set(Query(practice=True, gold=True).rows(project)) == {work, gold, practice}
    assert repeat not in Query(practice=True, gold=True).rows(project)
    frozen = datasets.freeze(project, Query(gold=True))
    assert sorted(line.get("purpose", "work") for line in lines_of(frozen)) == ["gold", "work"]


def test_surplus_and_unreviewed_ones_can_be_left_out(project, new_ranking):
    plain, surplus, reviewed = new_ranking(), new_ranking(surplus=True), new_ranking()
    Quintet.objects.filter(pk=reviewed.quintet_id).update(reviewed_at=datetime.now(UTC))
    assert quintets(project, surplus=False) == {plain.quintet_id, reviewed.quintet_id}
    assert quintets(project, reviewed=True) == {reviewed.quintet_id}
    assert surplus.quintet_id in quintets(project)


def test_the_least_agreement_is_that_of_counting_every_pair(project, new_ranking, others, labeler):
    chance, expected = random.Random(4), {}
    sim = User.objects.without_password("sim", simulated=True)
    for _ in range(40):
        quintet, given = None, []
        for person in [labeler, *others][: chance.randint(1, 3)]:
            given.append([1, *(chance.randint(1, 2) for _ in range(chance.randint(1, 4)))] if not given else [
                1, *(chance.randint(1, 2) for _ in given[0][1:])])  # fmt: skip
            quintet = new_ranking(given[-1], quintet=quintet, by=person).quintet
        new_ranking(given[0][::-1] if 1 in given[0] else given[0], quintet=quintet, by=sim)
        agreed = opposed = 0
        for one, other in combinations(given, 2):
            found = compared(one, other)
            agreed, opposed = agreed + found["agreed"], opposed + found["opposed"]
        if agreed + opposed:
            expected[quintet.pk] = agreed / (agreed + opposed)
    assert len(set(expected.values())) > 3
    for least in (0.0, 0.5, 0.75, 1.0):
        assert quintets(project, agreement=least) == {pk for pk, share in expected.items() if share >= least}


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(rounds=(1, 2), labelers=("ann",), agreement=0.5, since=datetime(2026, 1, 2).date()),
        Query(simulated=True, surplus=False, gold=True, practice=True, reviewed=True),
    ],
)
def test_a_query_is_kept_with_what_it_froze(query):
    assert Query.of(json.loads(json.dumps(query.as_dict()))) == query


# Freezing


def test_a_frozen_file_is_read_only_whole_and_named_by_its_hash(project, new_ranking, admin):
    new_ranking()
    frozen = datasets.freeze(project, Query(rounds=(1,)), admin)
    path = settings.HOME / frozen.path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == frozen.sha256 == path.stem
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not list(path.parent.glob(".*"))
    assert frozen.query == {"rounds": [1]}
    entry = AuditEntry.objects.get(action="dataset frozen")
    assert (entry.by, entry.about["sha256"]) == (admin, frozen.sha256)
    datasets.freeze(project, by=admin)  # the same lines: nothing new has happened
    assert AuditEntry.objects.filter(action="dataset frozen").count() == 1


def test_the_order_of_the_lines_is_their_own(project, new_ranking, labeler, others):
    """Whatever came first, the lines stand in the order that a reader of the file alone would give them."""
    chats = [CHAT, [{"role": "user", "content": "Joke 3"}]]
    contents = [*(f"Joke {number}" for number in range(12)), *chats, "ÿ🦤"]
    random.Random(1).shuffle(contents)
    for content in contents:
        made = new_ranking(prompt=content)
        for person in others:
            new_ranking((2, 1, 3, 3, 3), quintet=made.quintet, by=person)
    lines = lines_of(datasets.freeze(project))
    assert len(lines) == 45
    assert lines == sorted(lines, key=place)


def test_a_line_tells_only_what_there_is_to_tell(project, new_ranking):
    version = Guidelines.objects.create(project=project, number=7, text="Funny first.")
    new_ranking(prompt="plain", arm="order")
    new_ranking(
        (1, 2), prompt="marked", round=2, nonsense=[1], unsafe=[0], acceptable=0, guidelines=version,
        arm="random", surplus=True, shown=[1, 0], extra={"mood": "good"},
    ).quintet.rollouts.filter(slot=0).update(model="gpt-0", finished=False)  # fmt: skip
    by_prompt = {line["prompt"]: line for line in lines_of(datasets.freeze(project))}
    known = {"prompt", "rollouts", "ranks", "labeler", "quintet", "seconds", "simulated"}
    assert set(by_prompt["plain"]) == known
    told = {key: value for key, value in by_prompt["marked"].items() if key not in known}
    assert told == {
        "acceptable": 0, "arm": "random", "finished": [False, True], "guidelines": 7,
        "models": ["gpt-0", None], "mood": "good", "nonsense": [1], "round": 2, "shown": [1, 0],
        "surplus": True, "unsafe": [0],
    }  # fmt: skip
    assert list(told) == sorted(told)


@pytest.mark.django_db(transaction=True)
def test_a_freezing_sees_one_moment(project, new_ranking):
    new_ranking()
    with snapshot():
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            assert cursor.fetchone() == ("repeatable read",)
        before = Ranking.objects.count()
        # Somebody else ranks meanwhile, on a connection of their own.
        code = (
            "import django; django.setup();"
            "from labeler.models import Ranking;"
            "row = Ranking.objects.get(); row.pk = None; row.key = None; row.purpose = 'repeat'; row.save()"
        )
        env = os.environ | {"DJANGO_SETTINGS_MODULE": "labeler.settings"}
        subprocess.run([sys.executable, "-c", code], cwd=settings.BASE_DIR, env=env, check=True)
        assert Ranking.objects.count() == before
        with pytest.raises(Exception, match="read-only"), transaction.atomic():
            Ranking.objects.update(seconds=1)
    assert Ranking.objects.count() == before + 1


def test_demonstrations_by_excluded_people_stay_out(project, labeler, others):
    for person in (labeler, others[0]):
        prompt = project.prompts.create(content=f"For {person}")
        Demonstration.objects.create(project=project, prompt=prompt, completion="x", author=person)
    project.memberships.filter(user=labeler).update(excluded_at=datetime.now(UTC))
    assert [line["prompt"] for line in lines_of(datasets.freeze_demonstrations(project))] == ["For ann"]


# The manifest


def test_the_manifest_counts_what_is_in_the_file(project, new_ranking, others):
    sim = User.objects.without_password("sim", simulated=True)
    first = new_ranking((1, 2, 3, 4, 5), texts=["aaaa", "bbb", "cc", "d", ""], shown=[0, 1, 2, 3, 4])
    new_ranking((2, 1, 3, 4, 5), quintet=first.quintet, by=others[0], shown=[4, 3, 2, 1, 0], surplus=True)
    new_ranking((1, 1, 1), round=2, texts=["x" * 30, "y", "z"])
    new_ranking((1, 2), round=2, by=sim, texts=["x", "y"], acceptable=1)
    facts = datasets.freeze(project, Query(simulated=True)).manifest
    assert (facts["lines"], facts["simulated"], facts["quintets"], facts["prompts"]) == (4, 1, 3, 3)
    assert (facts["pairs"], facts["chats"]) == (21, 0)
    assert (facts["ties"], facts["all_tied"], facts["partial"]) == (1, 1, 2)
    assert (facts["surplus"], facts["acceptable"]) == (1, 1)
    assert facts["rounds"] == {"1": 2, "2": 2}
    assert facts["labelers"] == {"lena": 2, "ann": 1}
    assert facts["simulated_labelers"] == {"sim": 1}
    people = facts["agreement"]["people"]
    assert (people["quintets"], people["agreed"], people["opposed"], people["agreement"]) == (1, 9, 1, 0.9)
    assert facts["agreement"]["simulated"]["agreement"] is None
    assert facts["lengths"]["counts"][:2] == [9, 1]
    assert facts["lengths"]["longest"] == 30
    people = facts["bias"]["people"]
    assert people["best_at"] == [1, 0, 0, 1, 0]
    assert (people["longer_first"], people["decided"]) == (19, 20)
    assert facts["bias"]["simulated"]["decided"] == 0


def test_the_split_of_the_manifest_is_the_one_that_a_run_makes(project, new_ranking):
    for number in range(30):
        new_ranking((1, 1, 1) if number % 7 == 0 else (1, 2, 3), prompt=f"Joke {number % 20}")
    frozen = datasets.freeze(project)
    split = frozen.manifest["split"]
    telling = [line for line in data.rankings(settings.HOME / frozen.path) if line.teaches]
    taught, held = data.split_by_prompt(
        [line.prompt for line in telling], config.RewardConfig.held_out, seed=config.RewardConfig.seed
    )
    with opened(frozen) as source:
        validation, train = (
            [line["prompt"] for line in source.lines(part)] for part in ("validation", "train")
        )
    assert len(validation) == split["line"] > 0
    assert len(validation) + len(train) == 30
    assert {telling[number].prompt for number in held} <= set(validation)
    assert {telling[number].prompt for number in taught} <= set(train)
    assert not set(validation) & set(train)


def test_a_project_that_holds_out_more_is_split_so(project, new_ranking):
    for _ in range(20):
        new_ranking()
    project.run_defaults = {"reward": {"held_out": 0.4}}
    places = [int(data.prompt_digest(each.content), 16) for each in project.prompts.all()]
    held = sum(place < 0.4 * 2**256 for place in places)
    assert datasets.freeze(project).manifest["split"] | {"offset": 0} == {
        "share": 0.4, "seed": 0, "prompts": 20, "held_out": held, "line": held, "offset": 0,
    }  # fmt: skip
    assert 0 < held < 20


def test_any_line_is_found_without_reading_those_before_it(project, new_ranking, monkeypatch):
    monkeypatch.setattr("labeler.datasets.facts.A_MARK", 4)
    monkeypatch.setattr("labeler.datasets.frozen.A_MARK", 4)
    for _ in range(11):
        new_ranking()
    frozen = datasets.freeze(project)
    everything = lines_of(frozen)
    with opened(frozen) as source:
        assert len(source.manifest["marks"]) == 3
        for first in range(12):
            assert source.page(first, 3) == everything[first : first + 3]


def test_a_kind_of_value_that_comes_late_is_remembered(monkeypatch):
    monkeypatch.setattr("labeler.datasets.facts.EARLY", 100)
    facts = Facts(0.1)
    base = {"prompt": "a", "rollouts": ["b"], "ranks": [1], "labeler": "l", "quintet": "q", "seconds": None}
    told = [
        {},
        {"a": 1},
        {"a": 2},
        {"a": 1.5},
        {"seconds": 2.0},
        {"b": {"c": [1]}},
        {"b": {"c": ["x"]}},
        {"a": 3},
    ]
    for number, more in enumerate(told):
        facts.add(base | more, 50 * number + 10)
    assert facts.manifest()["early"] == [160, 210, 260, 310]


def test_a_dataset_from_before_there_were_manifests_is_read_in_order(project, new_ranking):
    for _ in range(8):
        new_ranking()
    frozen = datasets.freeze(project)
    told, lines = frozen.manifest, lines_of(frozen)
    path = settings.HOME / "datasets" / "older.jsonl"
    data.write_lines(path, lines[::-1])
    older = Dataset.objects.create(project=project, sha256="0" * 64, path="datasets/older.jsonl", lines=8)
    with opened(older) as source:
        assert list(source.lines()) == lines
        assert source.manifest == told
    path.unlink()


def test_what_is_taken_out_now_leaves_no_file(project, new_ranking):
    new_ranking()
    before = set((settings.HOME / "datasets").glob("*"))
    with now(project, Dataset.Kind.RANKINGS) as source:
        assert len(list(source.lines())) == 1
    assert set((settings.HOME / "datasets").glob("*")) == before


# Side by side


def test_two_datasets_differ_by_what_was_added_taken_away_and_changed(project, new_ranking, others):
    same, gone, other = new_ranking(), new_ranking(), new_ranking()
    one = datasets.freeze(project)
    gone.current = False
    gone.save()
    Ranking.objects.filter(pk=other.pk).update(ranks=[5, 4, 3, 2, 1])
    added = [new_ranking(quintet=same.quintet, by=person) for person in others]
    two = datasets.freeze(project)
    with opened(one) as left, opened(two) as right:
        found = difference(left, right)
    assert (found.same, found.changed, found.only_one, found.only_other) == (1, 1, 1, 2)
    assert [line["quintet"] for line in found.first_of_one] == [str(gone.quintet_id)]
    assert {line["labeler"] for line in found.first_of_other} == {each.labeler.username for each in added}
    ((before, after),) = found.first_changed
    assert (before["ranks"], after["ranks"]) == ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    with opened(one) as left, opened(one) as right:
        assert difference(left, right).same == 3


def test_only_the_first_of_many_differences_are_shown(project, new_ranking):
    first = new_ranking()
    one = datasets.freeze(project)
    for _ in range(30):
        new_ranking()
    with opened(one) as left, opened(datasets.freeze(project)) as right:
        found = difference(left, right, shown=5)
    assert (found.same, found.only_other, len(found.first_of_other)) == (1, 30, 5)
    assert first.quintet_id
