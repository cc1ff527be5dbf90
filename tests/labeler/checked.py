"""A checked project with problems, and a policy run whose rollouts its checker has judged: for the tests of
its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labeler import checking
from rlhf.run import RunDirectory
from tests.labeler.runs import follow

if TYPE_CHECKING:
    from labeler.models import Project, Run

PROBLEMS = {"What is 2 + 3?": "5", "What is 4 * 6?": "24"}
# What was written to both, and what the checker said.
WROTE = [
    ("It is 5.", True, "5", "5 is 5."),
    ("I say 6.", False, "6", "6 is not 5."),
    ("<think>Perhaps 7?</think>No idea.", False, "", "There is no number in it."),
    ("24", True, "24", "24 is 24."),
    ("4 * 6 = 24, so 24 apples <script>", True, "24", "24 is 24."),
    ("twenty", None, "", "The checker could not run."),
]


def with_problems(project: Project, problems: dict[str, str]) -> Project:
    """The same, but its answers are checked, and these are asked there."""
    project.judge, project.checker = "checker", {"name": "number"}
    project.save()
    for problem, answer in problems.items():
        project.prompts.create(content=problem, answer=answer)
    return project


def checked_run(project: Project, steps: int) -> Run:
    """A policy run that has taken so many steps against the number checker, of which nothing is written."""
    given = {"checker": {"name": "number"}, "config": {"checker": "number", "reward": ""}}
    run = project.runs.create(kind="policy", state="finished", step=steps, total=steps, **given)
    run.directory.mkdir(parents=True, exist_ok=True)
    return run


@pytest.fixture
def sums(project) -> Project:
    """The project of the other fixtures, but its answers are checked."""
    with_problems(project, PROBLEMS)
    checking.attend(project)
    return project


@pytest.fixture
def practised(sums, home) -> Run:
    """Three steps of two prompts with three rollouts each, told as the trainer tells them."""
    run = checked_run(sums, 3)
    kept, prompts = RunDirectory(run.directory), list(sums.prompts.order_by("pk"))
    for step in (1, 2, 3):
        kept.rollouts([_line(step, number, prompts) for number in range(len(WROTE))])
        kept.step(step, reward=0.5, kl=0.0, accuracy=0.5, held_out_accuracy=0.25 * step)
    follow(run)
    return run


def _line(step: int, number: int, prompts: list) -> dict:
    text, correct, read, why = WROTE[number]
    group, index = divmod(number, 3)
    said = {"correct": correct, "checked": why, "read": read, "reward": float(bool(correct)), "parts": {}}
    asked = {"prompt": prompts[group].content, "id": str(prompts[group].pk)}
    rest = {"advantage": 0.0, "kl": [0.0], "tokens": [1], "pieces": [text], "trained": True, "finished": True}
    return {"step": step, "group": group, "index": index, "rollout": text, **asked, **said, **rest}
