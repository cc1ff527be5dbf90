"""Runs for tests of their pages: rows as a launch and a worker leave them, and a page as it is read."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from rlhf import config

if TYPE_CHECKING:
    from labeler.models import Checkpoint, Dataset, Run

HTMX = {"headers": {"HX-Request": "true"}}
CLIFF = {"kind": "policy", "name": "Off the cliff", "help": "Nothing holds it.", "values": {"beta": 0}}


@pytest.fixture
def start(project) -> Checkpoint:
    """The project's starting model; with it come two prompts."""
    from labeler.models import Checkpoint, Prompt

    project.start = Checkpoint.objects.create(
        project=project, name="Pelican start", location="checkpoints/start"
    )
    project.presets = [CLIFF]
    project.run_defaults = {"policy": {"steps": 90}}
    project.save()
    for subject in ("pelicans", "clocks"):
        Prompt.objects.create(project=project, content=f"Write a joke about {subject}.")
    return project.start


@pytest.fixture
def rankings(project, start, labeler):
    """One ranking by a person, two by a program."""
    from labeler.models import Quintet, Ranking, Round, User

    program = User.objects.create(username="sim", simulated=True)
    for number, who in enumerate((labeler, program, program)):
        prompt = project.prompts.all()[number % 2]
        texts = [f"Joke {each}." for each in range(5)]
        quintet = Quintet.objects.compose(project, Round.objects.current(project), prompt, texts)
        Ranking.objects.create(quintet=quintet, labeler=who, ranks=[1, 2, 3, 4, 5], simulated=who == program)


@pytest.fixture
def dataset(project) -> Dataset:
    from labeler.models import Dataset

    return Dataset.objects.create(
        project=project, sha256="3f9c" * 16, path="datasets/a", lines=153, simulated=150
    )


@pytest.fixture
def reward_run(project, start, dataset) -> Run:
    metrics = {"held_out_accuracy": 0.762, "held_out_pairs": 210, "held_out_loss": 0.9}
    run = make(project, "reward", "finished", start=start, dataset=dataset, result={"metrics": metrics})
    checkpoint(run, 12, suggested=True)
    return run


@pytest.fixture
def reward_model(reward_run) -> Checkpoint:
    return reward_run.checkpoints.get()


def make(project, kind: str, state: str, values: dict | None = None, **fields) -> Run:
    """A run with twelve of its twelve steps made (six, while it is running)."""
    from labeler.models import Run, Step

    now, settings = timezone.now(), config.as_dict(config.make(kind, values or {}))
    known = {"step": 6 if state == "running" else 12, "total": 12, "started_at": now - timedelta(seconds=46)}
    if state == "queued":
        known = {}
    elif state == "running":
        known["leased_until"] = now + timedelta(minutes=1)
    else:
        known["finished_at"] = now
    run = Run.objects.create(project=project, kind=kind, state=state, config=settings, **known | fields)
    told = {"policy": {"reward": 0.5, "kl": 1.5}, "reward": {"loss": 1.1}}.get(kind, {})
    Step.objects.bulk_create(
        Step(run=run, step=step, metrics={"seconds": 2.0 * step, **told}) for step in range(1, run.step + 1)
    )
    return run


def checkpoint(run: Run, step: int, **fields) -> Checkpoint:
    kind = "reward" if run.kind == "reward" else "policy"
    location = f"runs/{run.pk}/checkpoints/step-{step:06d}"
    name = f"{run.kind} {run.pk}, step {step}"
    return run.checkpoints.create(
        project=run.project, kind=kind, step=step, name=name, location=location, **fields
    )


def follow(run: Run) -> None:
    """Its steps as rows, of what its directory says, as the follower brings them there."""
    run.steps.all().delete()
    for raw in (run.directory / "steps.jsonl").read_text().splitlines():
        told = json.loads(raw)
        run.steps.create(step=told.pop("step"), metrics=told)


def samples(run: Run, *steps: int) -> None:
    from labeler.models import Sample

    for step in steps:
        line = {"prompt": "Write a joke.", "rollout": f"A joke of step {step}.", "score": 0.7, "kl": 2.0}
        Sample.objects.create(run=run, step=step, index=0, line=line | {"finished": True})


def page(client: Client, name: str, *args, **options) -> str:
    """The text of a page, with its whitespace as a reader sees it."""
    return read(client.get(reverse(name, args=args), **options))


def read(response) -> str:
    assert response.status_code == 200, response.content.decode()[:2000]
    return " ".join(response.content.decode().split())
