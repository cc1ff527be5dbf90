"""The regex checker: patterns in references, a pattern of its own, and patterns that would never end."""

import threading
import time

import pytest

from rlhf.checkers import CannotCheck, make


def test_a_reference_is_a_pattern_to_be_found():
    check = make("regex", {})
    assert check("", "It is Paris.", "par[iy]s").read == "Paris"
    assert not check("", "It is Rome.", "par[iy]s").correct


def test_the_whole_answer_can_be_asked_for():
    assert not make("regex", {"whole": True})("", "It is Paris", "paris").correct
    assert make("regex", {"whole": True})("", "Paris", "paris").correct
    assert not make("regex", {"ignore_case": False})("", "Paris", "paris").correct


def test_a_pattern_of_its_own_finds_what_is_the_reference():
    check = make("regex", {"pattern": r"final:\s*(\S+)"})
    found = check("", "final: Rome\nfinal: Paris!", "paris")
    assert (found.correct, found.read) == (True, "Paris!")
    assert check("", "final: Rome", "Paris").reason == "The pattern finds “Rome”, which is not the reference."
    assert check("", "Paris", "Paris").reason == "The pattern is not found in the answer."
    assert make("regex", {"pattern": r"\d+"})("", "7 of 18", "18").correct


def test_a_pattern_with_an_empty_group_finds_nothing():
    assert not make("regex", {"pattern": r"a(b)?"})("", "a", "b").correct


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", r"(a|a)*b", r"(.*a){25}$"])
def test_a_pattern_that_backtracks_for_ever_ends_in_words(pattern: str):
    began = time.process_time()
    found = make("regex", {"seconds": 0.1})("", "a" * 100_000 + "!", pattern)
    assert not found.correct
    assert found.reason in (
        "The pattern was still at it after 0.1 s.",
        "The pattern is not found in the answer.",
    )
    assert time.process_time() - began < 5


def test_a_pattern_that_backtracks_for_ever_is_ended_in_any_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(make("regex", {"seconds": 0.1})("", "a" * 100_000 + "!", "(a+)+$"))
    )
    thread.start()
    thread.join(30)
    assert found[0].reason == "The pattern was still at it after 0.1 s."


@pytest.mark.parametrize("reference", ["((", "a" * 3000, "(" * 900 + ")" * 900, "a{99999999999}", ""])
def test_a_reference_that_is_no_pattern_cannot_be_checked(reference: str):
    with pytest.raises(CannotCheck, match=r"is no regular expression|is empty"):
        make("regex", {})("", "a", reference)
