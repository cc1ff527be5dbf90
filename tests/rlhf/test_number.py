r"""The number checker: every form of an answer that we thought of, the 200 references of GSM8K and what
is wrong with altered ones, and numbers that are written in any of the forms and read back."""

import json
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.checkers import CannotCheck, make
from rlhf.checkers.numeral import places, plain, quantity

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k-200.jsonl"
EMILY = (
    "Emily buys 3 apples and 2 oranges. Each orange costs $2. The total cost of all the fruit is $13. "
    "What is the cost of apples?"
)
check = make("number", {})

# What is answered, the reference, whether that is right (None: the reference cannot be read), and why.
FORMS = [
    ("18", "18", True, "bare"),
    ("The result is 18.", "18", True, "a full stop is no decimal point"),
    ("18.0", "18", True, "the same number"),
    ("018", "18", True, "leading zeros"),
    ("17", "18", False, "another number"),
    ("181", "18", False, "a digit more"),
    ("1,000", "1000", True, "thousands"),
    ("12,345,678.90", "12345678.9", True, "thousands and a decimal point"),
    ("1,00,000", "100000", True, "Indian groups"),
    ("1'000", "1000", True, "Swiss groups"),
    ("1\u202f000 km", "1000", True, "a narrow space"),
    ("The answer is 10 000.", "10000", True, "a plain space, where a number is marked"),
    ("1_000", "1000", True, "as programmers write it"),
    ("1.234,56 €", "1234.56", True, "European: the last separator is the decimal one"),
    ("1.234.567", "1234567", True, "European thousands: two points are no decimals"),
    ("3,5", "3.5", True, "a decimal comma: thousands have three digits"),
    ("0,125", "0.125", True, "a decimal comma: no thousand begins with 0"),
    ("1,234", "1.234", False, "chosen: a comma before three digits parts thousands"),
    ("1.234", "1234", False, "chosen: one point alone is a decimal point"),
    (".5", "0.5", True, "nothing before the point"),
    ("3/4", "0.75", True, "a fraction"),
    ("3⁄4", "3/4", True, "a fraction slash"),
    ("¾", "0.75", True, "one sign"),
    ("1½", "1.5", True, "mixed, one sign"),
    ("3 1/2", "3.5", True, "mixed"),
    ("three times 2 and 1/2", "2.5", True, "mixed in words"),
    (r"\frac{3}{4}", "0.75", True, "LaTeX"),
    (r"\dfrac34", "3/4", True, "LaTeX without braces"),
    (r"2\frac{1}{2}", "2.5", True, "mixed in LaTeX"),
    (r"-\frac{1}{2}", "-0.5", True, "its sign"),
    ("1/0", "1", False, "no number at all"),
    ("1/3", "0.333333", True, "within the tolerance of 1e-6"),
    ("0.333", "1/3", False, "beyond it"),
    ("50%", "50", True, "the sign as a unit"),
    ("50 %", "0.5", True, "the sign as hundredths"),
    ("50 percent", "50%", True, "in a word"),
    (r"50\%", "50", True, "LaTeX"),
    ("5%", "50%", False, "both with the sign"),
    ("0.5%", "50%", False, "and not hundredths of one of them"),
    ("$18", "18", True, "dollars"),
    (r"\$18.00", "18", True, "dollars in LaTeX"),
    ("18 €", "18", True, "behind it"),
    ("USD 18", "18", True, "a code"),
    ("Rs.500", "500", True, "another"),
    ("It costs 18 dollars and not more.", "18", True, "a unit in words"),
    ("18 km", "18 m", True, "chosen: units are not compared"),
    ("70k", "70000", True, "thousands"),
    ("$1.5 million", "1,500,000", True, "in words"),
    ("1e3", "1000", True, "scientific"),
    ("1.5E-3", "0.0015", True, "scientific, small"),
    ("3×10^5", "300000", True, "scientific by hand"),
    (r"3 \times 10^{5}", "300000", True, "in LaTeX"),
    ("3·10⁵", "300000", True, "raised digits"),
    ("10^6", "1000000", True, "a power"),
    ("2\\pi", "2\\pi", None, "a reference that is none of digits"),
    ("1e999999999", "1", False, "no machine could hold it"),
    ("-5", "-5", True, "negative"),
    ("-5", "5", False, "a sign counts"),
    ("−5", "-5", True, "the typographer's minus"),
    ("It falls by –5 degrees", "-5", True, "a dash as a minus"),
    ("-$5", "-5", True, "before the dollar"),
    ("$-5", "-5", True, "behind it"),
    ("minus 5", "-5", True, "in a word"),
    ("x = - 5", "-5", True, "apart"),
    ("8 - 5", "5", True, "an operator is no sign: the last number is 5"),
    ("- 5 apples", "5", True, "the mark of a list is no sign"),
    ("3-5 apples", "5", True, "a range: its last number"),
    (r"\boxed{18}", "18", True, "a box"),
    (r"So \boxed{\text{18 dollars}} in 3 days", "18", True, "a box over the last number"),
    (r"\boxed{\frac{\text{3}}{4}}", "0.75", True, "braces in braces in braces"),
    (r"\boxed{x = 18}", "18", True, "an equation in a box"),
    (r"\boxed{12} no, \boxed{18}", "18", True, "the last box"),
    (r"\boxed{18", "18", True, "never closed, so no box; but the last number"),
    (r"\boxed{none} of the 18", "18", False, "a box without a number is an answer too"),
    (r"\boxed{} 18", "18", True, "an empty box says nothing"),
    (r"\boxed{10{,}000}", "10000", True, "LaTeX's comma"),
    (r"\boxed{10\,000}", "10000", True, "LaTeX's thin space"),
    (r"\boxed{\sqrt{3}}", "3", False, "a root is another number"),
    (r"\boxed{2\pi}", "2", False, "so is a multiple of π"),
    (r"it is \sqrt[3]{8}", "8", False, "also at the end"),
    (r"\boxed{3x}", "3", False, "nor is an expression a number"),
    ("1 000 000", "1000000", True, "plain spaces, and nothing else"),
    ("It is 18, not 17", "18", True, "what it is not is passed over"),
    ("1 and 2 and 2π", "2", False, "the last number counts, and this one cannot be compared"),
    (r"\boxed{17, 18}", "18", False, "two guesses"),
    (r"\boxed{17 \text{ or } 18}", "17", False, "two guesses in words"),
    ("She sells 9 eggs.\n#### 18", "18", True, "GSM8K"),
    ("#### $1,800.00", "1800", True, "GSM8K with money"),
    ("#### 17\n#### 18", "18", True, "the last one"),
    ("#### Step 3\n6 * 3 = 18", "18", True, "a heading is no mark"),
    ("9 * 2 = <<9*2=18>>18", "18", True, "GSM8K's notes are left out"),
    ("The answer is 18.", "18", True, "said"),
    ("the answer is: **18** dollars in 3 days", "18", True, "said, in bold"),
    ("Answer: 18\nThat took 3 steps.", "18", True, "said over the last number"),
    ("**Final answer**\n\n18", "18", True, "on the next line"),
    ("The final answer, in dollars, is 18 (for 2).", "18", True, "with words between"),
    ("The answer is 9 + 9 = 18", "18", True, "worked out"),
    ("The answer is 9 + 9", "18", False, "not worked out"),
    ("The answer is 17 or 18", "17", False, "two guesses"),
    ("The answer is not 18 but 17", "17", True, "what it is not is no mark; the last number"),
    ("The answer is 17. Let me check. The answer is 18.", "18", True, "the last word counts"),
    ("The answer is clear.\nIt is 18", "18", True, "a mark without a number is passed over"),
    ("I have 18, she has 3", "18", False, "without a mark the last number"),
    ("3:30", "3", False, "chosen: a time is no number"),
    ("The ratio is 2:1", "2", False, "nor is a ratio"),
    ("3/5/2024", "2024", False, "nor a date"),
    ("18 cm^2", "18", True, "an exponent of a unit is none"),
    ("18 cm²", "18", True, "nor is a raised one"),
    ("18 g of CO2", "18", True, "nor a digit of a name"),
    ("", "18", False, "nothing"),
    ("eighteen", "18", False, "chosen: words are no numbers"),
    ("It is NaN", "18", False, "nor is this"),
    ("<think>17? 18!</think>It is 18", "18", True, "thinking is left out"),
    ("<think>It is 18", "18", False, "thinking that never ended"),
    ("It was 17.</think>18", "18", True, "thinking that the prompt began"),
    ("18<think>or 17?", "18", True, "thinking behind it"),
    ("١٨", "18", True, "Arabic digits"),
    ("18", "She sold 9 * 2 eggs\n#### 18", True, "a reference of GSM8K"),
    ("18", r"so \boxed{18}", True, "a reference of MATH"),
    ("18", "9 + 9 = 18", True, "a reference that is worked out"),
    ("18", "no number", None, "nothing to compare with"),
    ("18", "", None, "an empty reference"),
    ("18", "18 of 20 eggs", None, "a reference of two numbers that marks neither"),
    ("18", "17 or 18", None, "a reference that does not know"),
    ("3:30", "3:30", None, "a reference that is a time"),
]


@pytest.mark.parametrize(
    ("answer", "reference", "expected", "why"), FORMS, ids=[f"{a} / {b}" for a, b, *_ in FORMS]
)
def test_an_answer_is_read_as_it_is_written(answer: str, reference: str, expected: bool | None, why: str):
    if expected is None:
        with pytest.raises(CannotCheck):
            check("", answer, reference)
    else:
        assert check("", answer, reference).correct is expected, why


STYLES = {
    "the oranges first": "The total cost of the oranges is 2 * $2 = $4. That leaves $13 - $4 = $9 for the "
    "3 apples. So each apple costs $9 / 3 = $3.",
    "an equation": "Let x be the cost of an apple.\n3x + 2 * 2 = 13\n3x = 9\nx = 3",
    "directly": "3",
    "a sentence": "The answer is $3 for each of the apples, or $9 for all 3 of them.",
}


@pytest.mark.parametrize("style", STYLES)
def test_the_lectures_problem_is_right_in_each_of_its_styles(style: str):
    assert check(EMILY, STYLES[style], "$3").correct
    assert check(EMILY, STYLES[style], "3").read == "3"
    wrong = STYLES[style].replace("$3", "$4").replace("x = 3", "x = 4")
    assert not check(EMILY, wrong if wrong != STYLES[style] else "4", "$3").correct


PROBLEMS = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]


def test_all_references_of_gsm8k_pass_on_their_own_solutions():
    assert len(PROBLEMS) == 200
    for problem in PROBLEMS:
        found = check(problem["question"], problem["answer"], problem["answer"])
        assert found.correct, (problem, found)
        assert check("", f"The answer is {_final(problem):,}.", problem["answer"]).correct


ALTERED = {
    "one more": lambda number: number + 1,
    "one less": lambda number: number - 1,
    "another first digit": lambda number: int(f"{int(str(number)[0]) % 9 + 1}{str(number)[1:]}"),
    "a digit more": lambda number: number * 10 + 1,
    "a digit less": lambda number: number // 10 if number > 9 else number + 2,
    "the other sign": lambda number: -number,
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_no_altered_answer_of_gsm8k_passes(alter):
    tried = 0
    for problem in PROBLEMS:
        right, steps = _final(problem), problem["answer"].rpartition("####")[0]
        if (wrong := alter(right)) != right:
            tried += 1
            for answer in (
                f"{steps}#### {wrong}",
                f"{steps}The answer is {wrong:,}.",
                rf"{steps}\boxed{{{wrong}}}",
            ):
                assert not check("", answer, problem["answer"]).correct, (problem, answer)
    assert tried >= 195


def _final(problem: dict[str, str]) -> int:
    return int(problem["answer"].rpartition("####")[2].replace(",", ""))


def _european(number: Decimal) -> str:
    return f"{number:,}".translate(str.maketrans(",.", ".,"))


WRITTEN = {
    "bare": str,
    "thousands": lambda number: f"{number:,}",
    "dollars": lambda number: f"{'-' if number < 0 else ''}${abs(number):,}",
    "typographic": lambda number: str(number).replace("-", "−"),
    "box": lambda number: rf"therefore \boxed{{\text{{{number}}}}}",
    "hashes": lambda number: f"2 + 2 = 4\n#### {number:,}",
    "said": lambda number: f"The final answer is {number}.",
    "bold": lambda number: f"**Answer:** **{number}**",
    "formula": lambda number: f"$x = {number}$",
    "unit": lambda number: f"{number} metres",
    "scientific": lambda number: f"{number:e}",
    "narrow spaces": lambda number: f"{number:,}".replace(",", "\u202f"),
    "in a sentence": lambda number: f"There were 7 of them, and it comes to {number}, I think.",
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@settings(max_examples=30, deadline=None)
@given(number=st.decimals(-(10**9), 10**9, places=2) | st.integers(-(10**12), 10**12).map(Decimal))
def test_a_number_that_is_written_is_read_back(write, number: Decimal):
    text = write(number)
    found = check("", text, str(number))
    assert found.correct, text
    assert not check("", text, str(number + 1)).correct, text


@settings(deadline=None)
@given(number=st.decimals(0, 10**9, places=2))
def test_a_european_number_is_read_back(number: Decimal):
    assert check("", f"{_european(number)} €", str(number)).correct


@settings(deadline=None)
@given(whole=st.integers(1, 999), top=st.integers(1, 99), bottom=st.integers(2, 100))
def test_a_fraction_is_read_back_in_every_form(whole: int, top: int, bottom: int):
    top = top % (bottom - 1) + 1 if bottom > 2 else 1
    value = whole + Fraction(top, bottom)
    for text in (
        f"{whole} {top}/{bottom}",
        rf"{whole}\frac{{{top}}}{{{bottom}}}",
        f"{whole * bottom + top}/{bottom}",
    ):
        (found,) = map(quantity, places(plain(text)))
        assert found.value == value, text


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,/-$%^*(){}\\=:#½ \u2009eE×fracboxedanswer is\n", max_size=200))
def test_whatever_stands_there_is_judged_in_words(answer: str):
    found = check("", answer, "18")
    assert found.reason
    assert len(found.reason) < 500


def test_tolerances_are_absolute_or_a_share():
    near = make("number", {"tolerance": "0.01", "relative": "0"})
    assert near("", "3.14", "3.1416").correct
    assert not near("", "3.12", "3.1416").correct
    share = make("number", {"tolerance": 0, "relative": 0.01})
    assert share("", "1009", "1000").correct
    assert not share("", "1011", "1000").correct
    assert not make("number", {"tolerance": 0})("", "0.33333333", "1/3").correct


def test_percentages_can_be_told_what_they_are():
    assert make("number", {"percent": "number"})("", "50%", "50").correct
    assert not make("number", {"percent": "number"})("", "50%", "0.5").correct
    assert make("number", {"percent": "share"})("", "50%", "0.5").correct
    assert not make("number", {"percent": "share"})("", "50%", "50").correct


def test_only_what_is_marked_may_count():
    strict = make("number", {"where": "marked"})
    assert strict("", "#### 18", "18").correct
    assert strict("", "It is 18", "18").reason == "Nothing is marked as the answer."


def test_other_words_may_mark_the_answer():
    german = make("number", {"words": "Antwort, Ergebnis"})
    assert german("", "Ergebnis: 18, in 3 Tagen", "18").correct
    assert not german("", "answer: 18, in 3 days", "18").correct


def test_a_verdict_says_what_was_read_and_where():
    found = check("", r"It is \boxed{1{,}700.50}", "1,800")
    assert (found.correct, found.read) == (False, "1700.5")
    assert found.reason == r"1700.5, read from \boxed{…}, is not 1800."
    assert found.probability is None


PIECES = (
    "1", "1,", "1 ", "111 ", "√1", "1.", "1/", "1/1/", "1_", "-", "(", "{", "$", "<<", "<<1", "^1", "1=",
    r"\boxed{", r"\frac{1}{", r"\boxed{1}", "answer:", "answer is 1 ", "answer\n", "####", "#### 1", "\0",
    "½", "1 1/2 ", "a", "minus ", "1 and ", r"\text{1", "answer: 1=", "**1**", " ", "\n", "1e", "1^{", "\\",
)  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_hundred_thousand_characters_take_no_more_than_their_share(piece: str):
    short, long = (
        min(_seconds(piece * (size // len(piece))) for _ in range(2)) for size in (10_000, 100_000)
    )
    assert long < 60 * max(short, 0.01)  # a quadratic search takes 100 times as long


def _seconds(text: str) -> float:
    began = time.process_time()
    check("", text, "18")
    return time.process_time() - began
