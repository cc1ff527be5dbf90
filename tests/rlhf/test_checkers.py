"""What all checkers have in common: how they are asked for, what of a text they read, and what no answer may
do to them; and the command that asks them."""

import io
import json
import re
import threading
import time
from pathlib import Path

import pytest

from rlhf import config
from rlhf.__main__ import main
from rlhf.checkers import (
    KINDS,
    CannotCheck,
    Checked,
    Item,
    answer_of,
    as_dict,
    line_of,
    make,
    options,
    read,
    thinking_of,
)
from rlhf.checkers.number import Number
from rlhf.config import Refused

REFERENCES = {"number": "18", "exact": "Paris", "choice": "B", "regex": "P(a|b)ris", "symbolic": "x + 1"}
RIGHT = {"number": "18", "exact": "paris", "choice": "(b)", "regex": "In Paris.", "symbolic": "1 + x"}


def test_the_checkers_are_those_that_a_run_may_have():
    assert tuple(KINDS) == config.CHECKERS
    assert tuple(name for name, kind in KINDS.items() if kind.by_rule) == config.RULES


@pytest.mark.parametrize("name", config.RULES)
def test_every_rule_tells_right_from_wrong(name: str):
    check = make(name, {})
    assert check("", RIGHT[name], REFERENCES[name]).correct
    assert check("", f"<think>{'no ' * 50}</think>\n{RIGHT[name]}", REFERENCES[name]).correct
    assert not check("", f"<think>{RIGHT[name]}</think>I do not know", REFERENCES[name]).correct
    assert not check("", "", REFERENCES[name]).correct
    assert check("", "", REFERENCES[name]).reason
    with pytest.raises(CannotCheck):
        check("", RIGHT[name], " ")


@pytest.mark.parametrize("name", config.CHECKERS)
def test_every_option_says_what_it_is(name: str):
    for each in options(name):
        assert each.label and each.help.endswith("."), each
        assert as_dict(make(name, {each.name: each.default}))[each.name] == each.default
    assert as_dict(make(name, {})) == {"name": name} | {each.name: each.default for each in options(name)}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("poem", {}, "There is no checker “poem”"),
        ("number", {"tolerence": 1}, "no option “tolerence”. It has: tolerance, "),
        ("number", {"tolerance": "much"}, "must be a number"),
        ("number", {"tolerance": -1}, "between 0 and"),
        ("number", {"percent": "maybe"}, "is one of either, number, share"),
        ("judge", {"checkpoint": "/etc"}, "no option “checkpoint”"),
        ("judge", {"template": "Is {answer} right?"}, "has to hold {reference}"),
        ("judge", {"no": "yes"}, "two different words"),
        ("regex", {"pattern": "(("}, "is no regular expression"),
        ("regex", {"pattern": "a" * 3000}, "longer than 2,000 characters"),
        ("choice", {"letters": "AAB"}, "different letters"),
        ("choice", {"letters": "]^"}, "different letters"),
    ],
)
def test_what_no_checker_can_be_is_refused_in_words(name: str, given: dict, words: str):
    with pytest.raises(Refused, match=re.escape(words)):
        make(name, given)


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("18", "18", ""),
        ("<think>a</think>b", "b", "a"),
        ("<think>a</think>b<think>c</think>d", "bd", "a\n\nc"),
        ("a</think>b", "b", "a"),
        ("<think>a", "", "a"),
        ("a</think>b</think>c", "c", "a\nb"),
        ("<think>a<think>b</think>c</think>d", "d", "a<think>b\n\nc"),
        ("b<think>a", "b", "a"),
        ("<think></think>b", "b", ""),
        ("<think>a<think>b</think>c", "c", "a<think>b"),
    ],
)
def test_thinking_is_told_from_the_answer(text: str, answer: str, thinking: str):
    assert (answer_of(text), thinking_of(text)) == (answer, thinking)


HOSTILE = {
    "a call": "__import__('os').system('touch PWNED')",
    "a call in a box": r"\boxed{__import__('os').system('touch PWNED')}",
    "a call in a formula": "$open('PWNED', 'w')$",
    "a lambda": '(lambda: exec(\'open("PWNED", "w")\'))()',
    "a tower": "9**9**9**9",
    "a tower in LaTeX": r"\boxed{9^{9^{9^{9}}}}",
    "a tower of functions": "exp(exp(exp(exp(9))))",
    "factorials": "99999!" + "!" * 50,
    "brackets": "(" * 100_000,
    "brackets that close": "(" * 40_000 + "x" + ")" * 40_000,
    "braces": r"\boxed{" * 10_000,
    "powers": "x^" * 400 + "2",
    "fractions": r"\frac{" * 300,
    "signs": "-" * 100_000 + "1",
    "digits": "1" * 100_000,
    "an exponent": "1e" + "9" * 50_000,
    "nothing else": "a" * 100_000,
    "a pattern's bait": "P" + "a" * 100_000 + "!",
    "NULs": "\0" * 1000 + "18\0",
    "half a character": "\ud800 18 \udfff",
    "thinking without end": "<think>" * 10_000,
    "no thinking begun": "</think>" * 10_000,
    "marks": "The answer is " * 7000,
    "right to left": "\u202e18\u202c",
    "a template": "{reference} {0.__class__} %s ${x}",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", config.RULES)
def test_no_answer_does_more_than_be_wrong(name: str, answer: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    found = make(name, {})("", answer, REFERENCES[name])
    assert time.process_time() - began < 5
    assert found.reason
    assert not found.correct or (name == "number" and "18" in answer)
    json.dumps(line_of(found), ensure_ascii=False).encode()  # as a file of lines takes it
    assert "\0" not in found.read + found.reason
    assert len(found.reason) < 1000
    assert not list(tmp_path.iterdir())


def test_a_checker_that_fails_is_no_verdict(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by our own fault")

    monkeypatch.setattr(Number, "compare", broken)
    with pytest.raises(CannotCheck, match="The number checker failed: ZeroDivisionError: by our own fault"):
        make("number", {})("", "18", "18")


def test_many_answers_are_checked_in_order_and_none_stops_the_others():
    right, cannot, wrong = make("number", {}).each(
        [Item("", "18", "18"), Item("", "18", "?"), Item("", "1", "18")]
    )
    assert isinstance(right, Checked) and right.correct
    assert isinstance(cannot, CannotCheck)
    assert isinstance(wrong, Checked) and not wrong.correct
    assert line_of(cannot) == {"correct": None, "reason": str(cannot), "read": ""}


def test_checkers_may_be_asked_from_any_thread():
    found: list[bool] = []

    def ask():
        found.extend(make(name, {})("", RIGHT[name], REFERENCES[name]).correct for name in config.RULES)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [True] * 8 * len(config.RULES)


def test_a_run_directory_says_which_checker_it_has(tmp_path):
    assert as_dict(read(tmp_path, "number"))["tolerance"] == 1e-6
    (tmp_path / "checker.json").write_text('{"name": "number", "tolerance": 0.5}')
    assert as_dict(read(tmp_path, "number"))["tolerance"] == 0.5
    with pytest.raises(Refused, match="does not hold the options of the exact checker"):
        read(tmp_path, "exact")
    (tmp_path / "checker.json").write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        read(tmp_path, "number")


# The command


@pytest.fixture
def say(capsys, monkeypatch):
    """`python -m rlhf check …` with these lines: its status, the lines it says, and its complaint."""

    def said(*arguments: str, lines: list[dict]) -> tuple[int, list[dict], str]:
        text = "".join(json.dumps(each) + "\n" for each in lines)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        try:
            status = main(["check", *arguments])
        except SystemExit as end:
            status = end.code
        told = capsys.readouterr()
        return status, [json.loads(each) for each in told.out.splitlines()], told.err

    return said


def test_the_command_tells_a_line_for_every_line(say):
    lines = [
        {"answer": "The answer is 18", "reference": "#### 18"},
        {"answer": "\0 17", "reference": "18", "prompt": "How many?", "more": [1]},
    ]
    status, told, complaint = say("number", lines=lines)
    assert (status, complaint) == (0, "")
    assert [each["correct"] for each in told] == [True, False]
    assert told[1] == {"correct": False, "reason": "17, read from the last number, is not 18.", "read": "17"}


def test_what_cannot_be_checked_is_null_and_no_success(say):
    lines = [{"answer": "18", "reference": "many"}, {"answer": "18", "reference": "18"}]
    status, told, complaint = say("number", lines=lines)
    assert [each["correct"] for each in told] == [None, True]
    assert "No number" not in told[1]["reason"] and "“many” cannot be read" in told[0]["reason"]
    assert (status, complaint) == (1, "1 of 2 answers could not be checked.\n")


def test_the_command_takes_options(say):
    lines = [{"answer": "18.4", "reference": "18"}]
    assert say("number", lines=lines)[1][0]["correct"] is False
    assert say("number", "--set", "tolerance=0.5", lines=lines)[1][0]["correct"] is True


@pytest.mark.parametrize(
    ("arguments", "line", "words"),
    [
        (["poem"], {}, "invalid choice: 'poem'"),
        (["number", "--set", "tolerance=-1"], {}, "between 0 and"),
        (["judge"], {}, "needs --judge"),
        (["number", "--judge", "here"], {}, "the checker “judge”"),
        (["number"], {"answer": "18"}, "line 1: “reference” must be a text."),
        (["number"], {"answer": 18, "reference": "18"}, "line 1: “answer” must be a text."),
    ],
)
def test_the_command_refuses_in_one_line(say, arguments: list[str], line: dict, words: str):
    status, told, complaint = say(*arguments, lines=[line])
    assert status not in (0, None)
    assert told == []
    assert words in complaint
    assert complaint.count("\n") == 1
