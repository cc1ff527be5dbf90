"""What a run says to its fixed prompts at a measured step, beside what it said before: word by word.

The words are compared, never their sense. Which step is looked at is asked by the page (views/runs.py)."""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from labeler.models import Run

Words = list[tuple[str, bool]]  # pieces of a text, and whether the other text lacks them
LONG = 600  # words, beyond which texts are not compared: it would take too long


@dataclass
class Said:
    """One answer, with what it is held against: `then` is empty where it is held against nothing."""

    prompt: str
    now: Words
    then: Words
    score: float | None
    score_then: float | None
    kl: float | None
    finished: bool
    correct: bool | None = None  # where a checker says so
    length: int | None = None  # tokens, where that is of interest
    length_then: int | None = None

    @property
    def grew(self) -> int:
        """By how many tokens it is longer than what it is held against."""
        return (self.length or 0) - (self.length_then or self.length or 0)

    @property
    def same(self) -> bool:
        """Whether not a word has changed."""
        return bool(self.then) and not any(new for _, new in [*self.now, *self.then])

    @property
    def moved(self) -> int:
        """1 up, −1 down, 0 where what is shown of the score is the same, or nothing is known."""
        if self.score is None or self.score_then is None:
            return 0
        now, then = round(self.score, 2), round(self.score_then, 2)
        return (now > then) - (now < then)


def at(run: Run, step: int, against: int | None) -> list[Said]:
    """Every fixed prompt at a measured step, held against another one. Of a run against a checker those come
    first whose answers grew the most: there the policy has learnt to take its time."""
    lines = _lines(run, step)
    then = _lines(run, against) if against is not None else {}
    found = [_said(line, then.get(index)) for index, line in sorted(lines.items())]
    return sorted(found, key=lambda each: -each.grew)


def _lines(run: Run, step: int) -> dict[int, dict[str, Any]]:
    return dict(run.samples.filter(step=step).values_list("index", "line"))


def _said(line: dict[str, Any], then: dict[str, Any] | None) -> Said:
    before, after = then["rollout"] if then else "", line["rollout"]
    old, new = differences(before, after) if then else ([], [(after, False)])
    return Said(
        prompt=line["prompt"],
        now=new,
        then=old,
        score=line.get("score"),
        score_then=then.get("score") if then else None,
        kl=line.get("kl"),
        finished=line.get("finished", True),
        correct=line.get("correct"),
        length=line.get("length"),
        length_then=then.get("length") if then else None,
    )


def differences(before: str, after: str) -> tuple[Words, Words]:
    """Both texts, cut where they differ."""
    old, new = _words(before), _words(after)
    if len(old) + len(new) > LONG:
        return [(before, False)], [(after, False)]
    matcher = SequenceMatcher(None, [each.strip() for each in old], [each.strip() for each in new], False)
    cut: tuple[Words, Words] = ([], [])
    for how, a, b, c, d in matcher.get_opcodes():
        for words, found in ((old[a:b], cut[0]), (new[c:d], cut[1])):
            if words:
                found.append(("".join(words), how != "equal"))
    return cut[0] or [("", False)], cut[1] or [("", False)]


def _words(text: str) -> list[str]:
    """With the space after each, so that they make the text again."""
    return re.findall(r"\S+\s*|^\s+", text)


def chosen(measured: list[int], look: int, against: str) -> int | None:
    """The measured step that one is held against: the first (`start`), or else the one before it."""
    if look <= 0:
        return None
    return measured[0] if against == "start" else measured[look - 1]
