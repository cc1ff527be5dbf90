"""Where an answer says of itself that it is the answer: `\\boxed{…}`, `#### …`, “the answer is …”.

The last word counts: marks are told from the last to the first, and their reader takes the first one that it
can read. Only the last twenty are looked at, so that an answer made of marks costs no more than another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex as re

from rlhf.setting import setting

BOX, HASHES, WORDS = "\\boxed{…}", "####", "“the answer is …”"
MOST = 20  # marks that are looked at
LONGEST = 2000  # characters of one

_BRACES = re.compile(r"\\(?:f?boxed|fbox)\s*+(?P<box>\{)|\\[{}\\]|(?P<open>\{)|(?P<close>\})")
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*+")
_NOISE = r"[\s:=*_`]*+"


def marking_words() -> Any:
    """The option of every checker that looks for marks."""
    told = "Words that mark the answer in “the … is” or “…:”, commas between them."
    return setting("answer", "Marking words", told, advanced=True)


@dataclass(frozen=True)
class Mark:
    """A stretch of an answer that is marked: by what, and from where to where."""

    how: str
    start: int
    text: str


def marks(text: str, words: str = "answer") -> Iterator[Mark]:
    """What is marked, the last first. A box is its content, all else the rest of the line."""
    places = [(start, end, BOX) for start, end in _boxes(text)]
    places += [(found.end(), -1, HASHES) for found in _HASHES.finditer(text)]
    if phrase := _phrase(words):
        places += [(found.end(), -1, WORDS) for found in phrase.finditer(text)]
    for start, end, how in sorted(places, reverse=True)[:MOST]:
        if end < 0:
            end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield Mark(how, start, text[start : min(end, start + LONGEST)])


def _boxes(text: str) -> Iterator[tuple[int, int]]:
    """The contents of all boxes that are closed, found in one pass."""
    opened: list[int] = []  # where the content of a box begins, or -1 for another brace
    for found in _BRACES.finditer(text):
        if found["box"]:
            opened.append(found.end())
        elif found["open"]:
            opened.append(-1)
        elif found["close"] and opened:
            start = opened.pop()
            if start >= 0:
                yield start, found.start()


@lru_cache(maxsize=64)
def _phrase(words: str) -> re.Pattern[str] | None:
    """“The answer is”, “Answer:”, “the final answer, in dollars, is”, or the word alone on a line."""
    listed = [re.escape(each.strip()) for each in words.split(",") if each.strip()]
    if not listed:
        return None
    alone = r"[*_]{0,3}[ \t]{0,9}\n"
    said = r"\b(?:is|are|was|be|equals?)\b(?!\s{1,3}not\b)(?:\s{1,3}(?:that|about|approximately)\b)?|[:=]"
    words = rf"(?<!\w)(?:{'|'.join(listed)})(?!\w)"
    return re.compile(rf"{words}(?:[^\n.!?:=]{{0,80}}?(?:{said})|{alone}){_NOISE}", re.IGNORECASE)
