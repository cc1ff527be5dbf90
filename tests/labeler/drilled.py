"""Steps of practice as a trainer tells them: three prompts, fifteen rollouts each, one of them picked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rlhf.run import RunDirectory
from tests.labeler.checked import checked_run, with_problems
from tests.labeler.runs import follow

if TYPE_CHECKING:
    from labeler.models import Checkpoint, Project, Prompt, Request, Run

PROBLEMS = {
    "Emily buys 3 apples at $2 each and 2 oranges at $1 each. How much does she pay?": "8",
    "What is 17 + 25?": "42",
    "What is 9 * 9?": "81",
}
# How many of each prompt's rollouts are correct.
CORRECT = (6, 15, 0)
MANY = 15


def line(step: int, group: int, index: int, prompts: list, correct: int, **more) -> dict:
    prompt = prompts[group]
    right, length = index < correct, 3 + (index * 7) % 31
    read = prompt.answer if right else str(100 + index)
    why = f"{read} is {prompt.answer}." if right else f"{read} is not {prompt.answer}."
    mixed = 0 < correct < MANY
    told = {
        "step": step,
        "group": group,
        "index": index,
        "prompt": prompt.content,
        "id": str(prompt.pk),
        "rollout": f"<think>Let me see, {index}.</think>The answer is {read}.",
        "tokens": list(range(length)),
        "pieces": ["."] * length,
        "reward": float(right),
        "parts": {"checker": float(right)},
        "advantage": round(right - correct / MANY, 3),
        "kl": [0.0] * length,
        "trained": mixed,
        "finished": index != 4,
        "correct": right,
        "checked": why,
        "read": read,
    }
    if mixed and index == 0:
        told |= {"picked": True, "log_prob": [-14.2, -13.9]}
    return told | more


def write(run: Run, steps, correct=CORRECT, **more) -> None:
    """Some steps, as the follower has brought them into rows."""
    kept, prompts = RunDirectory(run.directory), list(run.project.prompts.order_by("pk"))
    for step in steps:
        found = [
            line(step, group, index, prompts, right, **more)
            for group, right in enumerate(correct)
            for index in range(MANY)
        ]
        kept.rollouts(found)
        practised = [[str(prompt.pk), MANY, right] for prompt, right in zip(prompts, correct, strict=True)]
        told = {"accuracy": sum(correct) / len(correct) / MANY, "solved": 2 / 3, "mixed": 1 / 3}
        kept.step(step, practised=practised, length=17.5, **told)
    follow(run)


def sampled(prompt: Prompt, checkpoint: Checkpoint, verdicts=(True, False, True), **more) -> Request:
    """What was asked of a prompt, and what has come of it, each in a part of its own."""
    question = {"checkpoint": checkpoint.pk, "name": checkpoint.name, "prompt": prompt.pk}
    question |= {"prompts": [prompt.content], "reference": prompt.answer, "count": 15, "temperature": 1.0}
    question |= {"max_new_tokens": 32, "seed": 0, "stream": "rollouts"}
    told = {"state": "answered", "answer": {"written": len(verdicts), "stopped": False}}
    request = prompt.project.requests.create(kind="sample", question=question, **told | more)
    for number, correct in enumerate(verdicts):
        add(request, number, correct)
    return request


def add(request: Request, number: int, correct: bool | None) -> None:
    text = f"<think>Hm, {number}.</think>It is {number}."
    said = {"number": number, "text": text, "length": 9 + number, "log_prob": -3.5, "finished": True}
    said |= {"correct": correct, "checked": f"{number} was read.", "read": str(number)}
    body = {"rollouts": [said], "tiles": [[number, 9 + number, correct]]}
    request.parts.create(number=request.parts.count() + 1, body=body)


@pytest.fixture
def drilled(project: Project, home) -> Run:
    """Two steps of it, in a project whose answers are checked."""
    run = checked_run(with_problems(project, PROBLEMS), 2)
    write(run, (1, 2))
    return run
