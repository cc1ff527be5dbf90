r"""One letter of several: `(B)`, “the answer is B”, `\boxed{B}`, “B) Paris”, or the text of a choice itself.

The last mark counts; without one an answer that is a letter alone, or the last letter in brackets or after
“option”. A bare letter in the midst of a sentence is none: “A” is also a word. Two letters are no choice.
"""

from dataclasses import dataclass
from typing import ClassVar

import regex as re

from rlhf.checkers.checker import CannotCheck, Checked, Checker, shown
from rlhf.checkers.exact import Exact
from rlhf.checkers.marked import marking_words, marks
from rlhf.setting import Refused, setting

_TIDY = Exact()


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Choice(Checker):
    """One letter of several."""

    name: ClassVar[str] = "choice"
    letters: str = setting("ABCDE", "Letters", "The choices that there are, one letter or digit each.")
    words: str = marking_words()
# fmt: on

    def check(self) -> None:
        if not self.letters.isalnum() or len(set(self.letters.upper())) != len(self.letters):
            raise Refused("letters", "The letters of a choice are different letters or digits, such as ABCD.")

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        texts = self._texts(prompt)
        right = self._alone(reference) or self._of_text(reference, texts)
        for mark in marks(reference, self.words):
            right = right or self._marked(mark.text)[0]
        if not right:
            raise CannotCheck(f"The reference “{shown(reference)}” is none of {self._listed()}.")
        found, why = self._read(answer, texts)
        if not found:
            return Checked(False, why)
        return Checked(found == right, f"{found} is {'right' if found == right else f'not {right}'}.", found)

    def _read(self, answer: str, texts: dict[str, str]) -> tuple[str, str]:
        """The letter that an answer settles on; or nothing, and why."""
        if not answer:
            return "", "There is no answer outside of the thinking, or none at all."
        for mark in marks(answer, self.words):
            letter, trouble = self._marked(mark.text)
            letter = letter or self._of_text(mark.text, texts)
            if letter or trouble:
                return letter, trouble
        if letter := self._alone(answer) or self._of_text(answer, texts):
            return letter, ""
        letters = self._class(True)
        named = re.compile(rf"\(([{letters}])\)|(?i:\b(?:option|choice)\s{{1,3}})\(?([{letters}])\b")
        for found in list(named.finditer(answer))[-1:]:
            return (found[1] or found[2]).upper(), ""
        if letter := self._alone(answer.rstrip().rpartition("\n")[2]):
            return letter, ""
        return "", f"The answer settles on none of {self._listed()}."

    def _alone(self, text: str) -> str:
        """The letter of “B”, “(b).”, “**B**” or “B) Paris”."""
        ends = r"[\s*_$)\]}\"'`.,!]*+$|[).:\]](?=\s)"
        found = re.match(rf"[\s*_$(\[{{\"'`]{{0,9}}([{self._class()}])(?:{ends})", text)
        return found[1].upper() if found else ""

    def _marked(self, text: str) -> tuple[str, str]:
        """The letter with which a marked stretch begins; a small one only where it stands alone."""
        if letter := self._alone(text.strip()):
            return letter, ""
        opening = r"[\s*_$(\[{\"'`]{0,9}(?:\\text[a-z]{0,4}\s?\{\s?)?(?i:(?:option|choice)\s{1,3}\(?)?"
        found = re.match(rf"{opening}([{self._class(True)}])(?![\w'’])[)\]}}*_$\s]{{0,6}}", text)
        if not found:
            return "", ""
        if re.match(rf"(?:or|and|/|,|&)\s{{0,3}}\(?[{self._class(True)}](?![\w'’])", text[found.end() :]):
            return "", "The answer marks several letters."
        return found[1].upper(), ""

    def _texts(self, prompt: str) -> dict[str, str]:
        """The choices that a prompt lists, tidied: their texts and the letter of each."""
        begins = list(re.finditer(rf"(?:^|(?<=[\s;,]))\(?([{self._class(True)}])[).:]\s", prompt))
        found: dict[str, str] = {}
        for number, begin in enumerate(begins, start=1):
            end = begins[number].start() if number < len(begins) else len(prompt)
            text = _TIDY.tidy(prompt[begin.end() : end].split("\n")[0])
            found[text] = "" if text in found else begin[1].upper()  # of two alike neither tells a letter
        return found

    def _of_text(self, text: str, texts: dict[str, str]) -> str:
        return texts.get(_TIDY.tidy(text), "") if len(text) <= 2000 else ""

    def _listed(self) -> str:
        return ", ".join(self.letters.upper())

    def _class(self, capitals: bool = False) -> str:
        return self.letters.upper() if capitals else self.letters.upper() + self.letters.lower()
