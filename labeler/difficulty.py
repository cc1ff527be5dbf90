"""How hard a project's prompts are for a policy, by what a run has written to them: pass@1 and pass@k over
its steps, and how the first of these compare with the last.

A step's metrics say of each prompt how many rollouts were checked and how many are correct, as the trainer
told it; how pass@k follows is said in rlhf/difficulty.py."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labeler.models import Prompt, Run
from labeler.verdicts import Share
from rlhf.difficulty import pass_at

KINDS = {
    "mixed": "solved now and then",
    "never": "never solved",
    "always": "always solved",
    "aside": "set aside",
}
ORDERS = {"mixed": "mixed first", "hardest": "hardest first", "easiest": "easiest first"}
RUNS = 30  # the newest that may be chosen


@dataclass
class Practised:
    """A prompt and how a run fared on it."""

    prompt: Prompt
    written: int
    correct: int
    steps: int
    first: Share
    last: Share
    last_step: int
    k: int = 1

    @property
    def kind(self) -> str:
        return "never" if not self.correct else "always" if self.correct == self.written else "mixed"

    @property
    def pass_1(self) -> float:
        return self.correct / self.written

    @property
    def pass_k(self) -> float | None:
        return pass_at(self.k, self.written, self.correct)

    @property
    def share(self) -> Share:
        return Share(self.correct, self.written)


def runs(project) -> list[Run]:
    """Those that say how their prompts fared, the newest first."""
    found = project.runs.filter(kind=Run.Kind.POLICY, steps__metrics__has_key="practised")
    return list(found.order_by("-pk").distinct()[:RUNS])


def of(run: Run, k: int) -> list[Practised]:
    """Every prompt that the run was asked and that the project still has."""
    told: dict[str, list[tuple[int, int, int]]] = {}
    steps = run.steps.filter(metrics__has_key="practised").order_by("step")
    for step, rows in steps.values_list("step", "metrics__practised"):
        for number, written, correct in rows:
            told.setdefault(number, []).append((step, written, correct))
    known = run.project.prompts.numbered(told)
    return [_practised(known[name], rows, k) for name, rows in told.items() if name in known]


def _practised(prompt: Prompt, rows: list[tuple[int, int, int]], k: int) -> Practised:
    (_, *first), (last_step, *last) = rows[0], rows[-1]
    return Practised(
        prompt,
        written=sum(written for _, written, _ in rows),
        correct=sum(correct for _, _, correct in rows),
        steps=len(rows),
        first=Share(first[1], first[0]),
        last=Share(last[1], last[0]),
        last_step=last_step,
        k=k,
    )


PLACES: dict[str, Callable[[Practised], float]] = {
    "mixed": lambda one: abs(one.pass_1 - 0.5),
    "hardest": lambda one: one.pass_1,
    "easiest": lambda one: -one.pass_1,
}


def chosen(rows: Iterable[Practised], kind: str, order: str, words: str) -> list[Practised]:
    """Those that are asked for, in this order; what is set aside comes only by that name."""
    wanted = words.lower().split()
    found = [
        one
        for one in rows
        if (bool(one.prompt.set_aside_at) == (kind == "aside"))
        and (kind in ("", "aside") or one.kind == kind)
        and all(word in one.prompt.text.lower() for word in wanted)
    ]
    return sorted(found, key=lambda one: (PLACES[order](one), one.prompt.pk))


def counts(rows: Iterable[Practised]) -> dict[str, int]:
    kinds = ["aside" if one.prompt.set_aside_at else one.kind for one in rows]
    return {"": len(kinds) - kinds.count("aside"), **{name: kinds.count(name) for name in KINDS}}
