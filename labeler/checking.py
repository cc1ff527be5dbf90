"""What a project's checker says: of its own references, and of answers that somebody tries it on.

Rules that take no time are asked in place, for a moment at the most. All else is the interactive worker's
matter (labeler/answers.py), so that no page waits for a computer algebra system, a regular expression or a
model. Left out: how answers are compared (rlhf/checkers), and what people say of verdicts
(labeler/verdicts.py)."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from labeler.models import Demonstration, Project, Prompt, Request
from labeler.templatetags.words import count
from rlhf import checkers, config, data

QUICK = ("number", "exact", "choice")  # judge thousands of answers in a second, whatever is in them
A_MOMENT = 0.8  # seconds that a page may be kept waiting
A_CHUNK = 32  # references between two looks at who else waits

DESCRIBED = {
    "number": "Reads the number that an answer comes to, whatever stands around it, and compares it.",
    "exact": "Compares an answer with the right one letter by letter, after both are tidied up.",
    "choice": "Reads which of the choices an answer settles on, and compares the letter.",
    "regex": "Looks whether an answer matches a regular expression.",
    "symbolic": "Asks a computer algebra system whether an answer and the right one mean the same.",
    "judge": "Asks a language model whether an answer agrees with the right one. A model can be wrong, and it"
    " can be fooled: a run against it is capped.",
}

Item = Mapping[str, str]  # of prompt, answer and reference
Judging = Callable[[Sequence[Item]], list[dict[str, Any]]]


def rule(project: Project) -> Judging:
    """What the project's checker says of items, where it is a rule: `correct` (None where it cannot tell,
    which is no verdict), `reason` and `read`. Raises Refused where its options cannot be."""
    return _judging(checkers.make(project.checker_name, project.checker_options))


def other_rule(name: str) -> Judging:
    """The same of another rule, with its usual options."""
    return _judging(checkers.make(name, {}))


def _judging(checker: checkers.Checker) -> Judging:
    def judged(items: Sequence[Item]) -> list[dict[str, Any]]:
        asked = [checkers.Item(each["prompt"], each["answer"], each["reference"]) for each in items]
        return [checkers.line_of(each) for each in checker.each(asked)]

    return judged


def is_quick(project: Project) -> bool:
    return project.checker_name in QUICK


def doubt(prompt: Prompt, answer: str) -> str:
    """What the project's checker has against an answer to this prompt, where it can say so at once; nothing
    where it has nothing."""
    project = prompt.project
    if not (project.is_checked and is_quick(project) and prompt.answer):
        return ""
    item = {"prompt": data.prompt_text(prompt.content), "answer": answer, "reference": prompt.answer}
    try:
        [said] = rule(project)([item])
    except config.Refused:
        return ""  # its options cannot be, which its own page says
    return said["reason"] if said["correct"] is False else ""


# References


@dataclass(frozen=True)
class References:
    """How a project's answers fare under its own checker."""

    prompts: int
    answered: int
    passing: int
    failing: int
    unreadable: int
    waiting: int
    aside: int = 0

    @property
    def unanswered(self) -> int:
        return self.prompts - self.answered

    @property
    def troubled(self) -> int:
        return self.failing + self.unreadable

    @property
    def practised(self) -> int:
        """Prompts that a run can be asked."""
        return self.answered - self.unreadable - self.aside

    @property
    def words(self) -> str:
        """In a sentence; empty where there is nothing to be said against them."""
        if not self.troubled:
            return ""
        do = "does not pass its" if self.troubled == 1 else "do not pass their"
        said, of = f"{self.troubled:,}", count(self.answered, "reference")
        if not self.failing:
            return f"{said} of {of} cannot be read by {'its' if self.troubled == 1 else 'their'} own checker"
        said += f" of {of} {do} own checker"
        return f"{said}; {self.unreadable:,} of them cannot be read by it" if self.unreadable else said

    @property
    def left_out(self) -> str:
        """What no run is asked, in a sentence; empty where it is asked everything."""
        said = []
        if self.unanswered:
            said.append(f"{count(self.unanswered, 'prompt')} without an answer")
        if self.unreadable:
            said.append(f"{self.unreadable:,} whose answer the checker cannot read")
        if self.aside:
            said.append(f"{self.aside:,} set aside by hand")
        many = self.unanswered + self.unreadable + self.aside
        *others, last = said or [""]
        words = f"{', '.join(others)} and {last}" if others else last
        return f"{words} {'is' if many == 1 else 'are'} left out of practice" if many else ""


def references(project: Project) -> References:
    digest = project.checker_digest
    tried = Q(reference_by=digest) & ~Q(answer="")
    unreadable = tried & Q(reference="unreadable")
    states = {"passing": "passes", "failing": "fails", "unreadable": "unreadable"}
    found = project.prompts.order_by().aggregate(
        prompts=Count("pk"),
        answered=Count("pk", filter=~Q(answer="")),
        waiting=Count("pk", filter=~Q(answer="") & ~Q(reference_by=digest)),
        aside=Count("pk", filter=~Q(answer="") & ~unreadable & ~Q(set_aside_at=None)),
        **{name: Count("pk", filter=tried & Q(reference=state)) for name, state in states.items()},
    )
    return References(**found)


def attend(project: Project) -> None:
    """Hold every reference that the checker has not seen against its own solution: at once as far as that
    goes in a moment, and what is left by the worker. For whenever prompts come, or the checker changes."""
    if not project.is_checked:
        return
    unchecked = project.prompts.unchecked(project.checker_digest)
    if is_quick(project):
        until = time.monotonic() + A_MOMENT
        judging = rule(project)
        while time.monotonic() < until and (some := list(unchecked[:A_CHUNK])):
            hold(project, some, judging)
    if unchecked.exists():
        Request.objects.ask_to_check_references(project)


def hold(project: Project, prompts: Sequence[Prompt], judging: Judging) -> None:
    """Hold the references of these against their own solutions, where they have any, or else themselves."""
    digest = project.checker_digest
    own = solutions(prompts)
    items = [
        {"prompt": data.prompt_text(each.content), "answer": own.get(each.pk, each.answer)}
        | {"reference": each.answer}
        for each in prompts
    ]
    for prompt, said in zip(prompts, judging(items), strict=True):
        prompt.reference = _state(said["correct"])
        prompt.reference_said = said["reason"][:2000]
        prompt.reference_by = digest
    Prompt.objects.bulk_update(prompts, ["reference", "reference_said", "reference_by"])


def solutions(prompts: Iterable[Prompt]) -> dict[int, str]:
    """The worked solution that each came with, by the prompt's number; the newest where there are several."""
    found = Demonstration.objects.filter(prompt__in=list(prompts), solution=True).order_by("pk")
    return dict(found.values_list("prompt_id", "completion"))


def _state(correct: bool | None) -> str:
    if correct is None:
        return Prompt.Reference.UNREADABLE
    return Prompt.Reference.PASSES if correct else Prompt.Reference.FAILS
