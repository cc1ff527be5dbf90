"""The exact checker: which texts are the same."""

import pytest

from rlhf.checkers import CannotCheck, make
from rlhf.checkers.exact import Exact

FORMS = [
    ("Paris", "paris", True),
    ("  Paris!\n", "Paris", True),
    ("The answer is Paris.", "Paris", True),
    ("The answer is Paris. It lies on the Seine.", "Paris", True),
    (r"It is \boxed{\text{Paris}}, not Rome", "Paris", True),
    ("#### Paris", "Paris", True),
    ("Answer: Rome\nAnswer: Paris", "Paris", True),
    ("I think of Paris", "Paris", False),
    ("Pari", "Paris", False),
    ("New   York", "new york", True),
    ("New-York", "New York", True),
    ("rock 'n' roll", "rock n roll", True),
    ("Ｐａｒｉｓ", "Paris", True),
    ("STRASSE", "straße", True),
    ("-5", "5", False),
    ("−5", "-5", True),
    ("3.5", "35", False),
    ("50%", "50", False),
    ("C#", "C", False),
    ("x+1", "x1", False),
    ("?!", "?!", True),
    ("?", "!", False),
    ("Paris", "#### Paris", True),
]


@pytest.mark.parametrize(("answer", "reference", "right"), FORMS)
def test_texts_are_the_same_but_for_what_does_not_matter(answer: str, reference: str, right: bool):
    assert make("exact", {})("", answer, reference).correct is right


@pytest.mark.parametrize(
    ("options", "answer", "reference", "usually", "then"),
    [
        ({"ignore_case": False}, "paris", "Paris", True, False),
        ({"ignore_punctuation": False}, "Paris!", "Paris", True, False),
        ({"ignore_articles": True}, "the heart", "Heart", False, True),
        ({"separator": "|"}, "Sankt Petersburg", "St. Petersburg | Sankt Petersburg", False, True),
        ({"where": "whole"}, "The answer is Paris", "Paris", True, False),
        ({"words": "Antwort"}, "Antwort: Paris", "Paris", False, True),
    ],
)
def test_what_matters_can_be_told(options: dict, answer: str, reference: str, usually: bool, then: bool):
    assert make("exact", {})("", answer, reference).correct is usually
    assert make("exact", options)("", answer, reference).correct is then


def test_a_reference_of_nothing_is_no_reference():
    with pytest.raises(CannotCheck, match="holds nothing to compare with"):
        make("exact", {"ignore_articles": True})("", "the", "The")


def test_a_verdict_names_both_texts():
    found = make("exact", {})("", "The answer is Rome.", "Paris")
    assert found.reason == "“Rome.” is not “Paris”."


def test_a_reference_is_tidied_once_however_many_answers_are_held_against_it(monkeypatch):
    """A page tries a hundred answers at once, and a reference may be long."""
    tidied, tidy = [], Exact.tidy
    monkeypatch.setattr(Exact, "tidy", lambda self, text: tidied.append(text) or tidy(self, text))
    checker = make("exact", {})
    said = [checker("", each, "A long reference").correct for each in ("a long reference", "b")]
    assert said == [True, False]
    assert tidied.count("A long reference") == 1
