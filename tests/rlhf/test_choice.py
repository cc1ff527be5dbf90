"""The choice checker: which letter an answer settles on."""

import pytest

from rlhf.checkers import CannotCheck, make

QUESTION = "What is the capital of France?\nA) Rome\nB) Paris\n(C) a car\nD. Rome, Georgia"
FORMS = [
    ("B", "B", True),
    ("b", "B", True),
    ("(B)", "B", True),
    ("**B**", "B", True),
    ("B.", "B", True),
    ("B) Paris", "B", True),
    ("B: because it is", "B", True),
    ("The answer is B", "B", True),
    ("The answer is (b).", "B", True),
    ("The answer is B, because A is in Italy.", "B", True),
    ("The correct answer is option B", "B", True),
    (r"\boxed{B}", "B", True),
    (r"\boxed{\text{B}}", "B", True),
    ("#### B", "B", True),
    ("Answer: A\nNo. Answer: B", "B", True),
    ("Not (A), but (B)", "B", True),
    ("I would take option B", "B", True),
    ("Let me see.\n\nB", "B", True),
    ("Paris", "B", True),
    ("The answer is Paris.", "B", True),
    ("a car", "C", True),
    ("The answer is a car", "C", True),
    ("B", "(B)", True),
    ("B", "B) Paris", True),
    ("B", "Paris", True),
    ("A", "B", False),
    ("A car is no city", "A", False),
    ("The answer is A or B", "B", False),
    ("The answer is A, B", "A", False),
    ("The answer is Banana", "B", False),
    ("F", "B", False),
    ("I do not know", "B", False),
]


@pytest.mark.parametrize(("answer", "reference", "right"), FORMS)
def test_the_letter_that_an_answer_settles_on_counts(answer: str, reference: str, right: bool):
    assert make("choice", {})(QUESTION, answer, reference).correct is right


def test_without_listed_choices_a_text_is_none():
    assert not make("choice", {})("Which?", "Paris", "B").correct


def test_a_reference_that_is_no_choice_cannot_be_checked():
    for reference in ("F", "London", "A or B", ""):
        with pytest.raises(CannotCheck, match="is none of A, B, C, D, E"):
            make("choice", {})(QUESTION, "B", reference)


def test_other_letters_and_digits_may_be_choices():
    check = make("choice", {"letters": "1234"})
    assert check("", "The answer is 3.", "3").correct
    assert not check("", "5", "3").correct


def test_a_verdict_says_the_letter():
    found = make("choice", {})(QUESTION, "It is (A)", "B")
    assert (found.read, found.reason) == ("A", "A is not B.")
