r"""The same in mathematics: `2(x+1)` is `2x+2`, `\frac{\sqrt 2}{2}` is `1/\sqrt2`, `x = 3` is `3`.

Text becomes a tree by our own grammar (`grammar.py`), which knows nothing but mathematics; trees are compared
by sympy in a child process (`algebra.py`) that stays warm and that the kernel ends when a comparison has
computed for a second. Then there is a new one. No signal is used here, and no text is ever evaluated.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import regex as re

from rlhf.checkers import grammar
from rlhf.checkers.checker import CannotCheck, Checked, Checker, shown
from rlhf.checkers.grammar import Tree, Unreadable
from rlhf.checkers.marked import BOX, marking_words, marks
from rlhf.setting import setting

PROGRAM = Path(__file__).with_name("algebra.py")
START = 120.0  # seconds that the child may take to be ready, on a busy machine
PATIENCE = 30.0  # times the seconds of computing that anybody waits for: other processes want the machine too
_FORMULA = re.compile(r"\$\$?([^$]{1,1000})\$|\\\(([^$]{1,1000}?)\\\)|\\\[([^$]{1,1000}?)\\\]")
_PROSE = re.compile(r"^\s*+(?:[A-Za-z]{2,}+[,:]?+\s++)++")
_SENTENCE = re.compile(r"[.!?](?=\s|$)")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Symbolic(Checker):
    """The same in mathematics."""

    name: ClassVar[str] = "symbolic"
    tolerance: float = setting(
        1e-9, "Tolerance", "How far apart values may be, as a share of the larger; 1/3 is not 0.333.", 0, 0.5)
    positive: bool = setting(
        False, "Variables are positive", "Then √(x²) is x, and log(ab) is log a + log b.")
    words: str = marking_words()
    seconds: float = setting(
        1.0, "Time for an answer", "A comparison that takes longer is ended: the answer is not correct.",
        0.05, 60, advanced=True, unit="seconds")
# fmt: on

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        try:
            right = _reference(reference, self.words)
        except Unreadable as error:
            why = shown(str(error))
            raise CannotCheck(f"The reference “{shown(reference)}” cannot be read: {why}.") from None
        try:
            given, text = _read(answer, self.words)
        except Unreadable as error:
            return Checked(False, f"No mathematics is read out of the answer: {shown(str(error))}.")
        asked = {"answer": given, "reference": right, "tolerance": self.tolerance, "positive": self.positive}
        said = _algebra.ask(asked | {"seconds": self.seconds})
        read, of_reference = shown(text), not said.get("understood")
        if of_reference and ("unreadable" in said or "slow" in said):
            why = said.get("unreadable") or f"it takes longer than {self.seconds:g} s"
            raise CannotCheck(f"The reference “{shown(reference)}” cannot be compared: {why}.")
        if "slow" in said:
            return Checked(False, f"“{read}” takes longer than {self.seconds:g} s to compare.", read)
        if "unreadable" in said:
            return Checked(False, f"“{read}” cannot be compared: {said['unreadable']}.", read)
        is_ = "is" if said["equal"] else "is not"
        return Checked(bool(said["equal"]), f"“{read}” {is_} the reference.", read)


@lru_cache(maxsize=1024)
def _reference(text: str, words: str) -> Tree:
    """The expression of a reference: all of it, or what it marks."""
    for mark in marks(text, words):
        return grammar.read(mark.text)
    return grammar.read(text)


def _read(text: str, words: str) -> tuple[Tree, str]:
    """What an answer comes to, and its text. The last box counts even where it cannot be read; other marks
    that hold no mathematics are passed over."""
    if not text:
        raise Unreadable("there is no answer outside of the thinking, or none at all")
    for mark in marks(text, words):
        for piece in _pieces(mark.text, mark.how == BOX):
            with contextlib.suppress(Unreadable):
                return grammar.read(piece), piece.strip()
        if mark.how == BOX:
            grammar.read(mark.text)
    trouble = Unreadable("nothing in it is an expression")
    last = text.rstrip().rpartition("\n")[2]
    formulas = [next(filter(None, each.groups()), "") for each in _FORMULA.finditer(text[-4000:])]
    for piece in [*formulas[-1:], last, _PROSE.sub("", last), last.rpartition("=")[2]]:
        try:
            return grammar.read(piece), piece.strip()
        except Unreadable as error:
            trouble = error
    raise trouble


def _pieces(text: str, box: bool) -> Iterator[str]:
    """What may be meant by a mark: all of it, a formula in it, or its first sentence."""
    yield text
    if not box:
        if formula := _FORMULA.search(text):
            yield next(filter(None, formula.groups()), "")
        yield _SENTENCE.split(text, maxsplit=1)[0]


class _Algebra:
    """The warm child, and a new one where it had to end; one question at a time."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as after a fork: the child is then another process's."""
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None
        self.buffer = b""

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the child says, `understood` where it had taken in the reference; `slow` where the kernel
        ended it for computing too long. Raises CannotCheck where it could not do its work."""
        with self.lock:
            child = self._ready()
            understood, ends = False, time.monotonic() + PATIENCE * (1 + question["seconds"])
            try:
                assert child.stdin is not None
                child.stdin.write(json.dumps(question).encode() + b"\n")
                child.stdin.flush()
                while "stage" in (said := self._line(child, ends)):
                    understood = True
                return said | {"understood": understood}
            except (_Ended, BrokenPipeError):
                status = self._end(child, 5)
                if status == -signal.SIGPROF:
                    return {"slow": True, "understood": understood}
                raise CannotCheck(f"The computer algebra ended by itself (status {status}).") from None
            except TimeoutError:
                self._end(child, 0)
                raise CannotCheck("The computer algebra got no time: the machine is busy.") from None

    def _ready(self) -> "subprocess.Popen[bytes]":
        """The child, started where there is none."""
        if self.child is not None:
            if self.child.poll() is None:
                return self.child
            self._end(self.child, 0)
        self.buffer = b""
        try:
            self.child = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._line(self.child, time.monotonic() + START)
        except (OSError, _Ended, TimeoutError) as error:
            if self.child is not None:
                self._end(self.child, 0)
            why = "is sympy installed?" if isinstance(error, _Ended) else str(error) or "it was too slow."
            raise CannotCheck(f"The computer algebra could not be started: {why}") from None
        return self.child

    def _line(self, child: "subprocess.Popen[bytes]", ends: float) -> dict[str, Any]:
        """The next line that it says before a time."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                left = ends - time.monotonic()
                if left <= 0 or not waiting.select(left):
                    raise TimeoutError
                if not (said := os.read(child.stdout.fileno(), 65536)):
                    raise _Ended
                self.buffer += said
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def _end(self, child: "subprocess.Popen[bytes]", patience: float) -> int:
        """Its exit status; killed where it does not end by itself within so many seconds."""
        self.child = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return child.wait()


class _Ended(Exception):
    """The child has gone."""


_algebra = _Algebra()
os.register_at_fork(after_in_child=_algebra.forget)
