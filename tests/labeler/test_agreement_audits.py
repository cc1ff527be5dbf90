"""What rankings show without meaning to: places, lengths, times, habits; who stands out; how it is drawn."""

from itertools import permutations
from random import Random

import numpy as np
import pytest
from scipy.stats import poisson as their_poisson

from labeler.agreement import layout, pictures, report
from labeler.agreement.audits import reasons, usual_times
from labeler.agreement.figures import NOTHING, figures
from labeler.agreement.layout import EDGES, REPLICATES, Kind
from labeler.agreement.tallies import HEAD, ROW, Entry, changes, poisson
from labeler.models import Project
from tests.labeler.test_agreement_measures import told

ORDERS = [list(order) for order in permutations(range(5))]


def shown(
    *rankings: tuple[list[int], list[int]], labeler: int = 1, seconds: float = -1, **head
) -> list[Entry]:
    """A quintet for each (ranks slot by slot, slots in the order in which they were shown)."""
    entries = []
    for quintet, (ranks, order) in enumerate(rankings):
        line, row = np.zeros((), HEAD), np.zeros(1, ROW)
        for name, value in ({"size": len(ranks), "lengths": [10] * 5, "uncertainty": -1} | head).items():
            line[name] = value
        row["labeler"], row["seconds"], row["focus"], row["shown"] = labeler, seconds, -1, -1
        row["ranks"][0, : len(ranks)], row["shown"][0, : len(order)] = ranks, order
        entries.append(Entry(quintet, 1, line.tobytes() + row.tobytes()))
    return entries


def audited(entries: list[Entry]) -> dict:
    delta = changes(entries).scopes[False, Kind.PROJECT, 0]
    return figures(delta.sums, delta.replicates)


def test_what_stood_first_and_won_is_counted_at_its_place():
    # Slot 2 was shown first and ranked best; slot 0 was shown last and ranked last.
    found = audited(shown(([3, 2, 1], [2, 1, 0]), ([1, 2, 3], [2, 1, 0])))
    assert [place["best"] for place in found["positions"]] == [0.5, 0, 0.5]
    assert [place["chance"] for place in found["positions"]] == pytest.approx([1 / 3] * 3)
    assert [place["won"] for place in found["positions"]] == [0.5, 0.5, 0.5]
    assert (found["unchanged"], found["orders"]) == (0.5, 2)
    assert found["unchanged_by_chance"] == pytest.approx(1 / 6)


def test_the_best_ones_of_a_tie_share_the_win():
    found = audited(shown(([1, 1, 2], [0, 2, 1])))
    assert [place["best"] for place in found["positions"]] == [0.5, 0, 0.5]
    assert [place["won"] for place in found["positions"]] == [1, 0, 1], "first and third each beat the second"


def test_over_every_shown_order_no_place_wins():
    found = audited(shown(*(([1, 2, 3, 4, 5], order) for order in ORDERS)))
    assert [place["best"] for place in found["positions"]] == pytest.approx([0.2] * 5)
    assert found["unchanged"] == pytest.approx(1 / 120) == found["unchanged_by_chance"]
    assert found["by_position"] == pytest.approx(0)
    for place in found["positions"]:
        assert place["best_interval"][0] < 0.2 < place["best_interval"][1]


def test_who_ranks_by_place_is_told_from_who_reads():
    same_keys = audited(shown(*(([order.index(slot) + 1 for slot in range(5)], order) for order in ORDERS)))
    assert same_keys["by_position"] == pytest.approx(1)
    assert same_keys["unchanged"] == 1


def test_rankings_of_unknown_order_say_nothing_of_places():
    found = audited(shown(([1, 2, 3], [])))
    assert (found["positions"], found["unchanged"], found["by_position"]) == ([], None, None)
    assert found["rankings"] == 1


def test_the_longer_one_wins_is_counted_over_decided_pairs_of_different_length():
    # Slots of 10, 20, 20 and 30 characters; the last two are tied. Decided and different: 01, 02, 03, 13.
    found = audited(shown(([3, 1, 2, 2], []), lengths=[10, 20, 20, 30, 0]))
    assert found["lengths"] == 4
    assert found["longer"] == 3 / 4, "only the second beats a longer one"


def test_quantiles_of_times_are_right_to_a_tenth():
    chance = Random(3)
    times = [chance.lognormvariate(3, 0.8) for _ in range(400)]
    entries = [entry for time in times for entry in shown(([1, 2], []), seconds=time)]
    found = audited([Entry(number, 1, entry.bytes) for number, entry in enumerate(entries)])["seconds"]
    for name, share in (("tenth", 10), ("median", 50), ("nine_tenths", 90)):
        assert found[name] == pytest.approx(np.percentile(times, share), rel=0.1)
    assert found["count"] == sum(found["bins"]) == 400


def test_how_often_a_quintet_counts_is_drawn_from_poisson_and_never_changes():
    draws = poisson(np.arange(5000))
    assert draws.shape == (5000, REPLICATES)
    assert (draws == poisson(np.arange(5000))).all()
    shares = [(draws == many).mean() for many in range(5)]
    assert shares == pytest.approx(their_poisson(1).pmf(range(5)), abs=0.002)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.06
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.3


def test_intervals_hold_what_they_promise():
    """Of many projects whose labelers agree on a pair in 7 of 10 cases, 95 of 100 intervals hold .7."""
    chance, held = Random(1), 0
    for _ in range(100):
        quintets = [{1: [1, 2], 2: [1, 2] if chance.random() < 0.7 else [2, 1]} for _ in range(60)]
        first = chance.randrange(10**9)
        low, high = told(quintets, first=first)["agreement_interval"]
        held += low <= 0.7 <= high
    assert 88 <= held <= 99


# Who stands out


def usual(**changed) -> dict:
    """A labeler's numbers, in none of which there is anything to see."""
    timed = {"count": 40, "median": 30.0}
    return (
        NOTHING
        | {
            "rankings": 40,
            "orders": 40,
            "unchanged": 0.01,
            "unchanged_by_chance": 1 / 120,
            "by_position": 0.02,
            "agreed": 140,
            "opposed": 60,
            "agreement": 0.7,
            "agreement_interval": [0.6, 0.8],
            "repeats": 5,
            "self_agreement": 0.8,
            "golds": 5,
            "gold": 0.9,
            "seconds": timed,
        }
        | changed
    )


def test_nobody_stands_out_who_is_like_the_rest():
    assert reasons(usual(), 30.0, Project()) == []


@pytest.mark.parametrize(
    "changed, words",
    [
        (
            {"seconds": {"count": 40, "median": 4.0}},
            "Half of their rankings took under 4.0 s; others usually take 30 s.",
        ),
        ({"by_position": 0.8}, "The place on the page accounts for 80 %"),
        ({"unchanged": 0.45}, "Left the order as it was shown in 45 % of 40 rankings; chance gives 1 %."),
        ({"all_tied": 30}, "Called all rollouts equal in 75 % of 40 rankings."),
        (
            {"agreement": 0.52, "agreement_interval": [0.45, 0.6]},
            "Agrees with the others on 52 % of 200 pairs",
        ),
        (
            {"self_agreement": 0.5},
            "Ranked 50 % of the pairs the same way when 5 quintets came again; the project asks",
        ),
        ({"gold": 0.6}, "Got 60 % of the pairs of 5 gold quintets right; the project asks for 70 %."),
    ],
)
def test_a_reason_is_a_number_with_what_is_usual_beside_it(changed, words):
    [reason] = reasons(usual(**changed), 30.0, Project())
    assert reason.startswith(words)


def test_what_is_usual_is_what_the_others_do():
    medians = [2.0, 30.0, 40.0, 50.0, None]
    told = [{"seconds": {"count": 9} | ({"median": each} if each else {})} for each in medians]
    assert usual_times(told) == [40.0, 40.0, 30.0, 30.0, 35.0]
    assert usual_times(told[:1]) == [None]


@pytest.mark.parametrize(
    "few",
    [
        {"seconds": {"count": 19, "median": 1.0}},
        {"rankings": 19, "by_position": 0.9, "all_tied": 19},
        {"orders": 19, "unchanged": 0.9},
        {"agreed": 40, "opposed": 59, "agreement": 0.4, "agreement_interval": [0.3, 0.5]},
        {"repeats": 2, "self_agreement": 0.1},
        {"golds": 2, "gold": 0.1},
    ],
)
def test_a_few_rankings_are_no_reason(few):
    assert reasons(usual(**few), 30.0, Project()) == []


# Pictures


def test_what_pages_know_without_numpy_is_what_the_sums_are_laid_out_by():
    assert (pictures.SHORTEST, pictures.PER_OCTAVE) == (layout.SHORTEST, layout.PER_OCTAVE)
    assert tuple(Kind) == (report.PROJECT, report.ROUND, report.LABELER, report.ARM)


def test_bars_of_places_stand_on_the_floor_and_chance_at_its_height():
    places = [
        {"placed": 10, "best": 0.4, "best_interval": [0.3, 0.5], "chance": 0.25, "won": 0.5},
        {"placed": 10, "best": 0.1, "best_interval": None, "chance": 0.25, "won": 0.5},
    ]
    drawn = pictures.positions(places)
    first, second = drawn["bars"]
    for bar in (first, second):
        assert bar["y"] + bar["height"] == pytest.approx(drawn["floor"])
    assert first["height"] == pytest.approx(4 * second["height"], abs=0.5)
    assert first["whisker"][0] > first["y"] > first["whisker"][1]
    assert second["whisker"] is None
    assert first["y"] < first["chance"] < second["y"]
    assert first["end"] < second["x"]


def test_bars_of_times_hold_every_ranking_and_the_median_is_where_it_belongs():
    found = audited(
        [
            Entry(number, 1, entry.bytes)
            for number, time in enumerate([2.0] * 3 + [30.0] * 5 + [100.0] * 2)
            for entry in shown(([1, 2], []), seconds=time)
        ]
    )
    drawn = pictures.histogram(found["seconds"])
    assert sum(bar["count"] for bar in drawn["bars"]) == 10
    [tallest] = [bar for bar in drawn["bars"] if bar["count"] == 5]
    assert tallest["from"] <= 30 < tallest["to"]
    assert tallest["x"] - 1 <= drawn["median"] <= tallest["x"] + tallest["width"] + 2
    assert {tick["name"] for tick in drawn["ticks"]} >= {"10 s", "1 min"}


def test_a_strip_keeps_what_lies_outside_at_its_end():
    drawn = pictures.strip(1.2, [-0.5, 0.5], 0, 1)
    assert (drawn["dot"], drawn["ends"]) == (100, [0, 50])
    assert pictures.strip(None, None, 0, 1)["dot"] is None


def test_the_longest_and_the_shortest_times_have_a_bin():
    entries = [shown(([1, 2], []), seconds=time)[0] for time in (0.01, 1e6)]
    found = audited([Entry(number, 1, entry.bytes) for number, entry in enumerate(entries)])["seconds"]
    assert (found["count"], found["from_bin"], len(found["bins"])) == (2, 0, len(EDGES) - 1)
