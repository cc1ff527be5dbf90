r"""The number that an answer comes to, compared with that of the reference.

The last thing that is marked counts (`\boxed{…}`, `#### …`, “the answer is …”), and where nothing is marked
the last number of all. One answer is read, never the best of several: “3 or 4” marks nothing that could be
right. Units are not compared, and times or ratios like 3:30 are no numbers.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import ClassVar

import regex as re

from rlhf.checkers import numeral
from rlhf.checkers.checker import CannotCheck, Checked, Checker, shown
from rlhf.checkers.marked import BOX, HASHES, WORDS, marking_words, marks
from rlhf.checkers.numeral import Quantity, said
from rlhf.setting import setting

_SENTENCE = re.compile(r"[.!?](?=\s|$)|[;\n]")
_WORKED = re.compile(r"[\d\s.,+\-*/×÷·$€£¥₹()^%{}\[\]]{0,200}[=≈]")
_MONEY = r"[-$€£¥₹({\s]{0,4}[\d.]"
_CALCULATION = re.compile(rf"[)}}\s]{{0,4}}(?:[+×÷·±]|\*(?!\*)|-(?=\s?[$(]?\d)){_MONEY}")
_CHOICE = re.compile(rf"[)}}\s]{{0,4}}(?:\bor\b|;){_MONEY}")
_LIST = re.compile(rf"[)}}\s]{{0,4}}(?:\b(?:or|and)\b|[;,&/]){_MONEY}")
_HEADING = re.compile(r"[A-Za-z]{2}")
_MONEY_CODES = re.compile(r"\b(?:USD|EUR|GBP|INR|CAD|AUD|CHF|Rs|US|is|approx|about)\b")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,]\d)(?! ?/)")
_LONG = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3}){2,}(?![\d.,]\d)(?! ?/)")
_VARIABLE = re.compile(r"\s?[xyz](?![A-Za-z])")
_NOT = re.compile(r"\bnot\s{1,3}[-$€£({]{0,3}$")
LOOKED_AT = 100  # numbers, at the end of an answer or at the beginning of what is marked
SHORT = 40  # characters of an answer that is taken for a number alone
LAST = "the last number"
_NO_NUMBER = "The last digits of the answer are no number that could be compared."


@dataclass(frozen=True)
class _Found:
    """What was read, and where; or why nothing was."""

    quantity: Quantity | None
    where: str
    trouble: str = ""


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Number(Checker):
    """The number that an answer comes to."""

    name: ClassVar[str] = "number"
    tolerance: float = setting(
        1e-6, "Tolerance", "How far from the right number still counts as right.", 0, 1e12)
    relative: float = setting(
        0.0, "Relative tolerance", "The same as a share of the right number; the larger of both holds.", 0, 1)
    where: str = setting(
        "marked or last", "Read",
        r"What is marked (\boxed{}, ####, “the answer is”), or where nothing is, the last number.",
        choices=("marked or last", "marked"))
    percent: str = setting(
        "either", "Percentages", "Whether 50% is 50, is 0.5, or may be either where the other has no sign.",
        choices=("either", "number", "share"), advanced=True)
    words: str = marking_words()
# fmt: on

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        right = _reference(reference, self.words)
        found = _read(answer, self.words, self.where == "marked")
        if found.quantity is None or found.quantity.value is None:
            return Checked(False, found.trouble, "")
        value = said(found.quantity.value)
        read = f"{value}%" if found.quantity.percent else value
        wanted = f"{said(_value(right))}{'%' if right.percent else ''}"
        if self._equal(found.quantity, right):
            return Checked(True, f"{read}, read from {found.where}, is right.", read)
        return Checked(False, f"{read}, read from {found.where}, is not {wanted}.", read)

    def _equal(self, found: Quantity, right: Quantity) -> bool:
        if found.percent == right.percent:
            return self._near(_value(found), _value(right))
        return any(self._near(one, other) for one in self._readings(found) for other in self._readings(right))

    def _readings(self, quantity: Quantity) -> list[Fraction]:
        """What a percentage may mean beside a number without a sign."""
        value = _value(quantity)
        if not quantity.percent:
            return [value]
        return {"number": [value], "share": [value / 100], "either": [value, value / 100]}[self.percent]

    def _near(self, found: Fraction, right: Fraction) -> bool:
        allowed = max(Fraction(self.tolerance), Fraction(self.relative) * abs(right))
        return abs(found - right) <= allowed


def _value(quantity: Quantity) -> Fraction:
    assert quantity.value is not None  # nothing without a value gets as far as being compared
    return quantity.value


@lru_cache(maxsize=4096)
def _reference(text: str, words: str) -> Quantity:
    """The number of a reference: what it marks, as GSM8K's solutions do, or the only one in it."""
    for mark in marks(text, words):
        found = _marked(mark.text, mark.how)
        if found is None:
            continue
        if found.quantity is None or found.quantity.value is None:
            raise CannotCheck(f"The reference “{shown(text)}” cannot be read: {found.trouble}")
        return found.quantity
    if not text.strip():
        raise CannotCheck("The reference is empty.")
    alone = _marked(text.strip(), "It")
    if alone is None or alone.quantity is None or alone.quantity.value is None:
        why = alone.trouble if alone else "No number is in it."
        raise CannotCheck(f"The reference “{shown(text)}” cannot be read: {why}")
    if alone.trouble:
        raise CannotCheck(f"The reference “{shown(text)}” holds several numbers, and none is marked.")
    return alone.quantity


def _read(text: str, words: str, only_marked: bool) -> _Found:
    if not text:
        return _Found(None, "", "There is no answer outside of the thinking, or none at all.")
    for mark in marks(text, words):
        if (found := _marked(mark.text, mark.how)) is not None:
            return found
    if only_marked:
        return _Found(None, "", "Nothing is marked as the answer.")
    text = numeral.plain(text)
    text = (_SPACED if len(text) < SHORT else _LONG).sub(_joined, text)
    for place in reversed(deque(numeral.places(text), maxlen=LOOKED_AT)):
        if not _NOT.search(text, max(0, place.start() - 12), place.start()):
            quantity = numeral.quantity(place)
            return _Found(quantity, LAST, _NO_NUMBER if quantity.value is None else "")
    return _Found(None, "", "No number is in the answer.")


def _joined(found: re.Match[str]) -> str:
    return found[0].replace(" ", "\u2009")


def _marked(text: str, how: str) -> _Found | None:
    """What a mark marks; None where it is passed over, because it marks no number at all."""
    text = numeral.plain(text)
    if how == WORDS and (end := _SENTENCE.search(text)):
        text = text[: end.start()]
    text = _SPACED.sub(_joined, text)
    found = list(islice(numeral.places(text), LOOKED_AT))
    if not found:
        return _Found(None, how, f"{how} holds no number.") if how == BOX and text.strip() else None
    if how == HASHES and _HEADING.search(_MONEY_CODES.sub("", text[: found[0].start()])):
        return None  # the heading of a chapter
    number = 0
    while worked := _WORKED.match(text, found[number].end()):
        later = [each for each in range(number, len(found)) if found[each].start() >= worked.end()]
        if not later:
            break
        number = later[0]
    quantity = numeral.quantity(found[number], bare=True)
    rest = text[quantity.end :]
    if quantity.value is None:
        return _Found(None, how, f"{how} holds digits that are no number.")
    if how == BOX and _VARIABLE.match(rest):
        return _Found(None, how, f"{how} holds an expression.")
    if _CALCULATION.match(rest):
        return _Found(None, how, f"{how} holds a calculation that is not worked out.")
    if (_CHOICE if how == WORDS else _LIST).match(rest):
        return _Found(None, how, f"{how} holds several numbers.")
    return _Found(quantity, how, "several" if number + 1 < len(found) else "")
