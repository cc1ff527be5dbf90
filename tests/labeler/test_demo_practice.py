"""The demos that practise: problems that come out the same again and are right, files that are what they say,
and projects whose answers are checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from labeler import loop
from labeler.demo import practice, problems, sums
from labeler.models import Checkpoint, Project, Request, Run
from rlhf import checkers, config

ROOT = Path(__file__).resolve().parents[2]
NUMBER = checkers.make("number", {})


@pytest.fixture
def seeded(db) -> dict[str, Project]:
    call_command("seed_demo", verbosity=0)
    return {project.slug: project for project in Project.objects.all()}


def test_every_sum_is_there_once_and_right():
    found = sums.sums()
    assert len({one.prompt for one in found}) == len(found) == 3000
    for one in found:
        first, second = one.prompt.rstrip("=").split("+")
        assert int(one.answer) == int(first) + int(second) == int(one.worked) and len(one.worked) == 3


def test_every_word_problem_has_numbers_of_its_own_and_both_ways_end_in_the_right_one():
    found = problems.problems()
    numbers = {(one.some, one.more, one.price, one.dearer) for one in found}
    assert len(numbers) == len(found) == 1600
    for one in found:
        assert one.total == one.some * one.price + one.more * one.dearer
        for text in (one.direct, one.worked):
            assert NUMBER(one.prompt, text, one.answer).correct, text
        for step in one.worked.split(". ")[:3]:
            left, _, right = step.split()[-1].partition("=")
            assert eval(left, {}, {}) == int(right), step
        assert problems.is_worked(one.worked) and not problems.is_worked(one.direct)


def test_demonstrations_mix_both_ways_and_the_prompt_does_not_tell_which():
    shown = [problems.is_worked(problems.shown(one)) for one in problems.problems()]
    assert abs(sum(shown) / len(shown) - problems.WORKED) < 0.03


def test_a_seed_gives_the_same_problems_in_every_process():
    program = (
        "from labeler.demo import problems, sums\n"
        "for one in problems.problems(200): print(one, problems.shown(one))\nprint(sums.sums(200))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("demo", practice.ALL, ids=lambda demo: demo.slug)
def test_a_demo_that_practises_is_seeded_with_answers_solutions_and_both_checkpoints(seeded, demo, settings):
    project = seeded[demo.slug]
    assert project.is_checked and project.checked_by_rule and project.checker_name == "number"
    assert (
        project.prompts.answered().count() == project.demonstrations.counted().count() == len(demo.problems())
    )
    assert not project.prompts.unanswered().exists()
    start, imitation = project.start, Checkpoint.objects.imitation_of(project, project.start)
    assert imitation and imitation != start and "imitated" in imitation.name
    for each in (start, imitation):
        assert (settings.HOME / each.location / "model.safetensors").is_file()
        assert each.lineage["config"]["kind"] == "sft"


@pytest.mark.parametrize("demo", practice.ALL, ids=lambda demo: demo.slug)
def test_what_a_demo_s_runs_are_launched_with_may_run_and_nothing_holds_the_policy(demo):
    for kind, values in demo.run_defaults.items():
        config.make(kind, values | ({"checker": "number", "reward": ""} if kind == "policy" else {}))
    made = config.make("policy", demo.run_defaults["policy"] | {"checker": "number", "reward": ""})
    assert made.judged == "rules" and made.beta == 0 and 0 < made.held_out <= practice.HELD_OUT


def test_what_comes_next_in_a_demo_is_practice_and_the_worker_tries_its_references(seeded, admin, as_admin):
    project = seeded["sums"]
    shown = as_admin.get(project.get_absolute_url()).content.decode()
    assert "“Sums, the start” was finetuned before; there are 3,000 worked solutions here" in shown
    steps = {each.title: each.state for each in loop.standings([project], admin)[0].steps}
    assert (steps["Supervised start"], steps["Practise"]) == ("passed", "next")
    assert Request.objects.claimable().filter(project=project, kind=Request.Kind.REFERENCES).exists()


def test_a_run_of_a_demo_is_given_its_checker_and_what_to_be_held_against(seeded):
    project = seeded["sums"]
    run = Run.objects.launch(project, "policy", {}, None)
    run.prepare_directory()
    made = config.read(run.directory)
    assert (made.checker, made.reward, made.against) == ("number", "", config.AGAINST)
    assert (run.directory / config.AGAINST / "model.safetensors").is_file()
    assert checkers.read(run.directory, "number") == NUMBER
    assert run.against == Checkpoint.objects.imitation_of(project, project.start)


def test_the_newest_finetuning_of_the_project_s_own_is_what_practice_is_held_against(seeded):
    project = seeded["sums"]
    for stage in ("answers", "reading"):
        run = project.runs.create(kind="sft", state="finished", config={"kind": "sft", "stage": stage})
        run.checkpoints.create(project=project, name=stage, location=f"runs/{stage}", step=10, suggested=True)
    assert Checkpoint.objects.imitation_of(project, project.start).name == "answers"
