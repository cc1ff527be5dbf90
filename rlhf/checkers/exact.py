"""The same text as the reference, after both are tidied up: letter case, spaces and punctuation.

What an answer marks is compared first, the last mark only; without one the whole answer is. Signs and decimal
points of numbers stay, so that “-5” is not “5” and “3.5” not “35”.
"""

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import regex as re

from rlhf.checkers.checker import CannotCheck, Checked, Checker, shown
from rlhf.checkers.marked import BOX, marking_words, marks
from rlhf.setting import setting

_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s?\{([^{}]*+)\}")
_INSIDE = re.compile(r"(?<=\d)[.,](?=\d)|(?<![^\W_])-(?=[\d.])|[#%&@]")  # punctuation that means something
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SENTENCE = re.compile(r"[.!?](?=\s)")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Exact(Checker):
    """The same text, after tidying up."""

    name: ClassVar[str] = "exact"
    ignore_case: bool = setting(True, "Ignore capitals", "“paris” is “Paris”.")
    ignore_punctuation: bool = setting(
        True, "Ignore punctuation", "“Paris!” is “Paris”; signs and decimal points of numbers count.")
    ignore_articles: bool = setting(False, "Ignore articles", "“the heart” is “heart”; English ones only.")
    separator: str = setting(
        "", "Between alternatives", "What parts several right answers in a reference, such as |.")
    where: str = setting(
        "marked or whole", "Compare",
        r"What is marked (\boxed{}, ####, “the answer is”), or where nothing is, the whole answer.",
        choices=("marked or whole", "whole"))
    words: str = marking_words()
# fmt: on

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        wanted = _wanted(self, reference)
        if not any(wanted):
            raise CannotCheck(f"The reference “{shown(reference)}” holds nothing to compare with.")
        if not answer:
            return Checked(False, "There is no answer outside of the thinking, or none at all.")
        readings = self._readings(answer)
        for text in readings:
            if (tidy := self.tidy(text)) and tidy in wanted:
                return Checked(True, f"“{shown(text)}” is the reference.", shown(text))
        read = shown(readings[0])
        return Checked(False, f"“{read}” is not “{shown(reference.strip())}”.", read)

    def tidy(self, text: str) -> str:
        """The text without what two equal answers may differ in."""
        text = unicodedata.normalize("NFKC", _MACRO.sub(r"\1", text)).replace("−", "-")
        text = text.casefold() if self.ignore_case else text
        if self.ignore_punctuation:
            kept = {found.start() for found in _INSIDE.finditer(text)}
            plainer = "".join(_plainer(each, at in kept) for at, each in enumerate(text))
            text = plainer if plainer.strip() else text  # what is nothing else is compared as it is
        if self.ignore_articles:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split())

    def _alternatives(self, reference: str) -> list[str]:
        marked = [mark.text for mark in marks(reference, "")][:1]
        whole = marked[0] if marked else reference
        return whole.split(self.separator) if self.separator else [whole]

    def _readings(self, answer: str) -> list[str]:
        """What may be meant by an answer: of a sentence that marks it, all or up to its full stop."""
        if self.where != "whole":
            for mark in marks(answer, self.words):
                text = mark.text.strip()
                if not text:
                    continue
                return [text] if mark.how == BOX else [text, _SENTENCE.split(text, maxsplit=1)[0]]
        return [answer]


@lru_cache(maxsize=64)
def _wanted(checker: Exact, reference: str) -> list[str]:
    """Each right answer, tidied: once for however many are held against it."""
    return [checker.tidy(each) for each in checker._alternatives(reference)]


def _plainer(letter: str, means: bool) -> str:
    """A letter, or what punctuation leaves: nothing of an apostrophe, else a space."""
    if means or not unicodedata.category(letter).startswith("P"):
        return letter
    return "" if letter in "'’" else " "
