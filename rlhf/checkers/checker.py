"""What every checker is: options, one question, one verdict; and what of a rollout is its answer.

A verdict is `Checked`. What is no verdict is `CannotCheck`: a reference that cannot be read, a checker that
could not run. Neither is ever taken for a wrong answer. How answers are compared is told module by module.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

OPEN, CLOSE = "<think>", "</think>"
CUT_OFF = "It was cut off before it ended."  # what is said of it instead of a comparison: it is not correct
SHOWN = 200  # characters of an answer that a verdict repeats


class CannotCheck(Exception):
    """No verdict, and why, in words: the reference cannot be read, or the checker could not run."""


@dataclass(frozen=True)
class Checked:
    """A verdict on an answer: why, what was read out of it, and from a model how sure it is."""

    correct: bool
    reason: str
    read: str = ""
    probability: float | None = None  # that the answer is correct, where a model says so


class Item(NamedTuple):
    """An answer to be checked."""

    prompt: str
    answer: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class Checker(ABC):
    """The options of a checker are its fields; how they are shown and bounded is said as for a run's."""

    name: ClassVar[str]
    by_rule: ClassVar[bool] = True

    def __call__(self, prompt_text: str, answer: str, reference: str) -> Checked:
        """The verdict on an answer, its thinking left out. Raises CannotCheck."""
        try:
            return self.compare(prompt_text, answer_of(answer), reference)
        except CannotCheck:
            raise
        except Exception as error:  # a fault of ours must not be held against an answer
            raise CannotCheck(
                f"The {self.name} checker failed: {type(error).__name__}: {shown(str(error))}"
            ) from error

    def each(self, items: Iterable[Item]) -> list[Checked | CannotCheck]:
        """The verdicts on many answers, in order; what cannot be checked stands among them."""
        return [self._one(*item) for item in items]

    @abstractmethod
    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        """The verdict on what is left of an answer without its thinking. Raises CannotCheck."""

    def check(self) -> None:  # noqa: B027 - most have nothing to add
        """Raise Refused for what no single option's bounds can tell."""

    def _one(self, prompt: str, answer: str, reference: str) -> Checked | CannotCheck:
        try:
            return self(prompt, answer, reference)
        except CannotCheck as cannot:
            return cannot


def line_of(found: Checked | CannotCheck) -> dict[str, Any]:
    """A verdict as a line has it: `correct` is null where there is none."""
    if isinstance(found, CannotCheck):
        return {"correct": None, "reason": str(found), "read": ""}
    line = {"correct": found.correct, "reason": found.reason, "read": found.read}
    return line if found.probability is None else line | {"probability": round(found.probability, 6)}


def answer_of(text: str) -> str:
    """What is left of a text without its thinking, which nobody checks."""
    return _parted(text)[0].strip()


def thinking_of(text: str) -> str:
    """What stands between `<think>` and `</think>`; what was never closed is thinking to the end."""
    return _parted(text)[1].strip()


def shown(text: str) -> str:
    """A piece of an answer as a verdict repeats it: short, and without what no file or row could hold."""
    tidy = text[: SHOWN + 1].replace("\0", "�").encode("utf-8", "replace").decode()
    return tidy if len(text) <= SHOWN else tidy[: SHOWN - 1] + "…"


def _parted(text: str) -> tuple[str, str]:
    """The text outside of all thinking, and that within. What ends without a beginning is thinking as well:
    the prompt had begun it."""
    outside, inside, at = [], [], 0
    while True:
        begins = text.find(OPEN, at)
        thought, closed, rest = text[at : begins if begins >= 0 else len(text)].rpartition(CLOSE)
        inside += [thought.replace(CLOSE, "\n")] if closed else []
        outside.append(rest)
        if begins < 0:
            return "".join(outside), "\n\n".join(inside)
        ends = text.find(CLOSE, begins)
        inside.append(text[begins + len(OPEN) : ends if ends >= 0 else len(text)])
        at = len(text) if ends < 0 else ends + len(CLOSE)
