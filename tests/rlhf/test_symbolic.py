r"""The symbolic checker: what is the same in mathematics, how it is read, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlhf.checkers import CannotCheck, grammar, make
from rlhf.checkers.symbolic import PROGRAM, _algebra

check = make("symbolic", {})
FORMS = [
    ("2(x+1)", "2x+2", True),
    ("x^2 - 1", "(x-1)(x+1)", True),
    (r"\frac{\sqrt 2}{2}", r"1/\sqrt{2}", True),
    (r"\sin^2 x + \cos^2 x", "1", True),
    (r"\sin 2x", r"2\sin x\cos x", True),
    ("n(n+1)/2", r"\frac{n^2+n}{2}", True),
    ("x = 3", "3", True),
    ("3", "x = 3", True),
    ("y = 3", "x = 3", False),
    ("y = 2x + 1", "2x+1", True),
    ("2x + 2y = 4", "x + y = 2", True),
    ("x + y = 3", "x + y = 2", False),
    ("3 + 4 = 7", "7", True),
    ("3 + 4 = 8", "7", False),
    (r"1\frac{1}{2}", "1.5", True),
    ("-1 1/2", "-1.5", True),
    ("50%", r"\frac12", True),
    ("90°", r"\pi/2", True),
    (r"e^{i\pi}", "-1", True),
    (r"\log_2 8", "3", True),
    (r"\sqrt[3]{8}", "2", True),
    ("|x|", r"\sqrt{x^2}", True),
    (r"\sqrt{x^2}", "x", False),
    ("-x^2", "(-x)^2", False),
    ("2^-1", "0.5", True),
    ("x² + ½", "x^2 + 1/2", False),  # that sign is not read: it is no verdict for the answer
    ("1,000x", "1000x", True),
    ("x_1 + x_2", "x_{2} + x_1", True),
    ("(1, 2)", "(1, 2)", True),
    ("(2, 1)", "(1, 2)", False),
    ("2, 1", "1, 2", True),
    ("x = 2 or x = -2", r"\{-2, 2\}", True),
    ("2, 2", "1, 2", False),
    ("1", "1, 1", False),
    ("0.333", "1/3", False),
    ("10^{-30}", "2*10^{-30}", False),
    ("x/0", "x", False),
    (r"\infty", r"\infty", True),
    (r"so \boxed{x+1} and more", "1+x", True),
    ("The answer is $x+1$.", "1+x", True),
    ("so we get: x + 1", "1+x", True),
    ("First $x$, then $x+1$", "1+x", True),
    ("We get\ny = x + 1", "1+x", True),
    ("#### x+1", "1+x", True),
    (r"\boxed{x} or rather \boxed{x+1}", "1+x", True),
    (r"\boxed{nobody knows} x+1", "1+x", False),
    ("pelicans", "1+x", False),
]


@pytest.mark.parametrize(("answer", "reference", "right"), FORMS)
def test_what_is_the_same_in_mathematics_is_right(answer: str, reference: str, right: bool):
    assert check("", answer, reference).correct is right


def test_variables_may_be_positive():
    positive = make("symbolic", {"positive": True})
    for answer, reference in ((r"\sqrt{x^2}", "x"), (r"\log(ab)", r"\log a + \log b")):
        assert positive("", answer, reference).correct
        assert not check("", answer, reference).correct


def test_a_tolerance_lets_decimals_pass():
    assert make("symbolic", {"tolerance": 0.01})("", "0.333", "1/3").correct


@pytest.mark.parametrize("reference", ["", "pelicans", "9**9**9**9", "(1", "exp(exp(exp(exp(9))))"])
def test_a_reference_that_is_no_mathematics_cannot_be_checked(reference: str):
    with pytest.raises(CannotCheck, match=r"cannot be read|cannot be compared"):
        check("", "1", reference)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "().__class__", "x.real", "lambda: 1", "x'", "os;", "a@b", "x!", '"x"', "x[0]",
     "f'{x}'", "x < 1", "import os", "1 if x", "x:=1", r"\input{/etc/passwd}", r"\frac", "x^", "1 2",
     "", "x\0", "…"],
)  # fmt: skip
def test_only_mathematics_is_read(text: str):
    with pytest.raises(grammar.Unreadable):
        grammar.read(text)


def test_a_tree_is_plain():
    assert grammar.read(r"2x^2 = \frac{1}{y}") == [
        "=",
        ["*", ["number", "2"], ["^", ["symbol", "x"], ["number", "2"]]],
        ["/", ["number", "1"], ["symbol", "y"]],
    ]


ENDLESS = "exp(exp(exp(exp(exp(x)))))"  # its values have more digits than there is room for


def test_what_computes_for_too_long_is_ended_and_the_next_answer_is_checked():
    quick = make("symbolic", {"seconds": 0.2})
    assert quick("", "x", "x").correct
    before = _algebra.child.pid
    found = quick("", ENDLESS, "x")
    assert (found.correct, found.reason) == (False, f"“{ENDLESS}” takes longer than 0.2 s to compare.")
    assert not _alive(before)
    assert quick("", "x", "x").correct


def test_a_reference_that_computes_for_too_long_is_no_verdict():
    with pytest.raises(CannotCheck, match=r"cannot be compared: it takes longer than 0.2 s"):
        make("symbolic", {"seconds": 0.2})("", "x", ENDLESS)


def test_a_child_that_was_killed_is_no_verdict_and_there_is_another():
    assert check("", "x", "x").correct
    os.kill(_algebra.child.pid, signal.SIGKILL)
    _algebra.child.wait(10)
    assert check("", "x", "x").correct


def test_a_child_that_dies_over_a_question_is_no_verdict(monkeypatch, tmp_path):
    dying = tmp_path / "dying.py"
    dying.write_text("print('{\"ready\": true}', flush=True); input(); raise SystemExit(3)")
    monkeypatch.setattr("rlhf.checkers.symbolic.PROGRAM", dying)
    with _fresh(monkeypatch), pytest.raises(CannotCheck, match="ended by itself"):
        check("", "x", "x")


def test_without_sympy_there_is_no_verdict(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import sympy_that_is_not_there")
    monkeypatch.setattr("rlhf.checkers.symbolic.PROGRAM", broken)
    with _fresh(monkeypatch), pytest.raises(CannotCheck, match="could not be started"):
        check("", "x", "x")


class _fresh:
    """Another child than the warm one, for a test; the warm one stays."""

    def __init__(self, monkeypatch):
        from rlhf.checkers.symbolic import _Algebra

        self.other = _Algebra()
        monkeypatch.setattr("rlhf.checkers.symbolic._algebra", self.other)

    def __enter__(self):
        return self.other

    def __exit__(self, *_):
        if self.other.child is not None:
            self.other._end(self.other.child, 0)


def test_the_child_ends_with_its_parent():
    code = (
        "from rlhf.checkers import make, symbolic; make('symbolic', {})('', 'x', 'x');"
        "print(symbolic._algebra.child.pid, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROGRAM.parents[2]
    )
    pid = int(done.stdout)
    until = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(pid)


def test_a_fork_has_a_child_of_its_own():
    assert check("", "x", "x").correct
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check("", "2x", "x+x").correct and check("", "x", "x").correct else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert check("", "x", "x").correct


def test_many_threads_get_their_own_answers():
    found = {}

    def ask(number: int) -> None:
        found[number] = [check("", f"x+{number}", f"{each}+x").correct for each in range(4)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {number: [each == number for each in range(4)] for number in range(4)}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
