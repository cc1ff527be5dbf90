"""The verdicts of a checker on a run's rollouts beside what people say of them, and what that says of the
checker: how often it is right, and in which answers it is wrong.

A checker's verdicts stay in the run's file, a step at a time (labeler/steps.py); people's are rows
(labeler/models/verdicts.py). Whoever only looks at what seems odd finds more faults than there are, so the
list can be read in a random order."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from labeler import checking, steps
from labeler.models import Project, Prompt, Run, Step, Verdict
from labeler.models.verdicts import WORDS

Z = 1.959963984540054
MOST = 500  # verdicts of people that a checker is held against
SHOWN = {
    "": "all",
    "correct": WORDS[True],
    "incorrect": WORDS[False],
    "unclear": WORDS[None],
    "said": "that somebody has judged",
}


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's interval."""

    right: int
    of: int

    @property
    def value(self) -> float | None:
        return self.right / self.of if self.of else None

    @property
    def between(self) -> tuple[float, float] | None:
        if self.value is None:
            return None
        share, trials = self.value, self.of
        spread = Z * sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
        middle, scale = share + Z**2 / (2 * trials), 1 + Z**2 / trials
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass
class Judged:
    """A rollout with the checker's verdict, and a person's where there is one."""

    one: steps.Written
    prompt: Prompt | None
    verdict: Verdict | None = None

    @property
    def reference(self) -> str:
        return self.verdict.reference if self.verdict else self.prompt.answer if self.prompt else ""

    @property
    def state(self) -> str:
        return {True: "correct", False: "incorrect", None: "unclear"}[self.one.correct]

    @property
    def said(self) -> dict[str, Any]:
        """What is kept with a person's verdict."""
        about = {"correct": self.one.correct, "reason": self.one.checked, "read": self.one.read}
        asked = {"prompt": self.prompt, "asked": self.one.prompt, "answer": self.one.text}
        return asked | about | {"reference": self.reference}

    def holds(self, words: Iterable[str]) -> bool:
        text = f"{self.one.prompt}\n{self.one.text}\n{self.reference}\n{self.one.checked}".lower()
        return all(word in text for word in words)


def newest_run(project: Project) -> Run | None:
    """The newest policy run whose rollouts a checker has judged."""
    checked = project.runs.filter(kind=Run.Kind.POLICY).exclude(checker={})
    return checked.filter(steps__isnull=False).order_by("-pk").distinct().first()


def judged(run: Run, step: Step) -> list[Judged]:
    """All of a step. Raises steps.NotThere."""
    written = steps.written(run, step)
    prompts = run.project.prompts.numbered(each.prompt_id for each in written)
    said = {each.name: each for each in run.verdicts.filter(step=step.step).select_related("by")}
    return [Judged(each, prompts.get(each.prompt_id), said.get(each.name)) for each in written]


def chosen(rows: Iterable[Judged], show: str, words: str, mixed: bool) -> list[Judged]:
    """Those that are asked for; `mixed` in an order that has nothing to do with what they say."""
    wanted = words.lower().split()
    found = [each for each in rows if each.holds(wanted)]
    if show == "said":
        found = [each for each in found if each.verdict]
    elif show:
        found = [each for each in found if each.state == show]
    return sorted(found, key=_shuffled) if mixed else found


def _shuffled(row: Judged) -> str:
    return hashlib.sha256(f"{row.one.name} {row.one.text}".encode()).hexdigest()


# What people's verdicts say of the checker


@dataclass
class Measure:
    """A checker held against people. `older`: verdicts on what another checker said, which cannot be asked of
    this one here."""

    agreed: Share
    false_positives: list[Verdict] = field(default_factory=list)
    false_negatives: list[Verdict] = field(default_factory=list)
    unread: int = 0
    older: int = 0


def measure(project: Project) -> Measure:
    """The checker in force against what people said. Verdicts from before its options changed are asked of it
    again, where that takes no time."""
    said = list(project.verdicts.select_related("by", "run")[:MOST])
    mine = {"name": project.checker_name, **project.checker_options}
    again = [each for each in said if each.checker != mine]
    older = 0
    if again and checking.is_quick(project):
        items = [{"prompt": each.asked, "answer": each.answer, "reference": each.reference} for each in again]
        for each, now in zip(again, checking.rule(project)(items), strict=True):
            each.correct, each.reason, each.read = now["correct"], now["reason"], now["read"]
    elif again:
        older = len(again)
        said = [each for each in said if each.checker == mine]
    told = [each for each in said if each.correct is not None]
    wrong = [each for each in told if not each.confirms]
    return Measure(
        Share(len(told) - len(wrong), len(told)),
        [each for each in wrong if each.correct],
        [each for each in wrong if each.right],
        len(said) - len(told),
        older,
    )


@dataclass
class Beside:
    """A judge held against a rule, on the answers of a step where both have a verdict."""

    name: str
    agreed: Share
    differing: list[tuple[Judged, dict[str, Any]]]


def beside(rows: Sequence[Judged], name: str) -> Beside:
    both = [each for each in rows if each.one.correct is not None and each.reference]
    items = [
        {"prompt": each.one.prompt, "answer": each.one.text, "reference": each.reference} for each in both
    ]
    pairs = list(zip(both, checking.other_rule(name)(items), strict=True))
    pairs = [(row, said) for row, said in pairs if said["correct"] is not None]
    differing = [(row, said) for row, said in pairs if said["correct"] != row.one.correct]
    return Beside(name, Share(len(pairs) - len(differing), len(pairs)), differing)
