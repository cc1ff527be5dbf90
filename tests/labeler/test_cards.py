"""The cards of a quintet and what a form says about them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.cards import cards, draft_of, filled_by, lesson, said
from labeler.models import Project, Quintet, Ranking, Rollout
from labeler.models.rankings import RankingRefused

STRICT, LOOSE = Project(), Project(ties=True, acceptable=True)


def rollouts(*texts: str) -> list[Rollout]:
    """As a labeler sees them: the last slot first."""
    return [Rollout(slot=slot, text=text) for slot, text in reversed(list(enumerate(texts)))]


def form(ranks: str, **more) -> dict[str, list[str]]:
    """`form("213")`: A is second, B first, C third."""
    return {f"rank-{letter}": [rank] for letter, rank in zip("abcde", ranks, strict=False)} | more


def test_a_form_is_read_slot_by_slot():
    read = said(form("132", nonsense=["c"], unsafe=["a", "b"]), rollouts("x", "y", "z"), STRICT)
    assert read["ranks"] == [2, 3, 1]
    assert (read["nonsense"], read["unsafe"], read["ties"]) == ([0], [2, 1], False)
    assert read["acceptable"] is None and read["focus_seconds"] is None


def test_ties_are_kept_without_gaps_and_the_line_with_them():
    shown = rollouts("v", "w", "x", "y", "z")
    read = said(form("11355", acceptable=["4"], focus_seconds=["12.5"]), shown, LOOSE)
    assert read["ranks"] == [3, 3, 2, 1, 1]
    assert (read["acceptable"], read["focus_seconds"]) == (2, 12.5)
    assert said(form("11355", acceptable=["0"]), shown, LOOSE)["acceptable"] == 0
    assert said(form("11355", acceptable=[""]), shown, LOOSE)["acceptable"] is None
    assert said(form("12345", acceptable=["2"]), shown, STRICT)["acceptable"] is None  # not asked


def test_rollouts_that_read_the_same_are_one_card():
    shown = rollouts("same", "other", " same\n", "third")
    assert [(card.name, card.text, card.slots) for card in cards(shown)] == [
        ("A", "third", [3]),
        ("B", " same\n", [2, 0]),
        ("C", "other", [1]),
    ]
    read = said(form("213", nonsense=["b"]), shown, STRICT)
    assert read["ranks"] == [1, 3, 1, 2] and sorted(read["nonsense"]) == [0, 2]


@pytest.mark.parametrize(
    ("filled", "words"),
    [
        (form("12"), "1 of the 3 rollouts has no rank yet"),
        ({}, "3 of the 3 rollouts have no rank yet"),
        (form("122"), "Rank 2 is given more than once"),
        (form("124"), "from 1 to 3"),
        (form("1234"), "not one of these"),
        (form("123", nonsense=["d"]), "not one of these"),
        (form("12x"), "whole number"),
    ],
)
def test_what_is_no_ranking_is_refused_in_words(filled, words):
    with pytest.raises(RankingRefused, match=words):
        said(filled, rollouts("x", "y", "z"), STRICT)


@pytest.mark.parametrize("value", ["6", "-1", "x", "٢"])
def test_a_line_elsewhere_is_refused(value):
    with pytest.raises(RankingRefused, match="acceptable"):
        said(form("123", acceptable=[value]), rollouts("x", "y", "z"), LOOSE)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "-3", "1" * 400])
def test_a_clock_that_makes_no_sense_is_no_reason_to_refuse(value):
    assert said(form("123", focus_seconds=[value]), rollouts("x", "y", "z"), STRICT)["focus_seconds"] is None


def test_a_draft_keeps_what_was_done_and_nothing_else():
    filled = {"ticket": ["x"], "csrfmiddlewaretoken": ["y"], "focus_seconds": ["3"], "at": ["17"]}
    assert draft_of(filled) is None
    kept = draft_of(filled | form("21", unsafe=["a"]))
    assert kept == form("21", unsafe=["a"], focus_seconds=["3"], at=["17"])


@given(st.lists(st.integers(1, 5), min_size=5, max_size=5), st.data())
@settings(max_examples=50)
def test_any_ranking_comes_back_from_the_form_that_it_fills(ranks, data):
    dense = [sorted(set(ranks)).index(rank) + 1 for rank in ranks]
    slots = st.lists(st.integers(0, 4), unique=True).map(sorted)
    line = data.draw(st.none() | st.integers(0, max(dense)))
    ranking = Ranking(ranks=dense, nonsense=data.draw(slots), unsafe=data.draw(slots), acceptable=line)
    shown = rollouts("v", "w", "x", "y", "z")
    read = said(filled_by(ranking, shown), shown, LOOSE)
    assert read["ranks"] == dense and read["acceptable"] == line
    assert sorted(read["nonsense"]) == ranking.nonsense and sorted(read["unsafe"]) == ranking.unsafe


def test_a_lesson_stands_best_first_as_the_example_has_it():
    ranking = Ranking(ranks=[1, 2, 3], quintet=Quintet(known_ranks=[3, 1, 2]))
    taught = lesson(ranking, rollouts("x", "y", "z"))
    assert [(each.card.text, each.known, each.given) for each in taught] == [
        ("y", 1, 2),
        ("z", 2, 3),
        ("x", 3, 1),
    ]
