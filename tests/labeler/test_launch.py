"""Launching: what a run is given, what is refused, and the command."""

import json
import os
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from labeler.models import Checkpoint, Dataset, Probe, Prompt, Quintet, Ranking, Round, Run, User
from labeler.models.launching import LaunchedBefore
from rlhf import config
from rlhf.config import Refused

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(project, home) -> Checkpoint:
    folder = home / "checkpoints" / "plain"
    (folder / "trainer").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "trainer" / "state.json").write_text("{}")
    project.start = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/plain")
    project.run_defaults = {"policy": {"steps": 90, "beta": 0.2}, "reward": {"simulated": True}}
    project.save()
    Prompt.objects.create(project=project, content="Joke one, please.")
    Prompt.objects.create(project=project, content="Joke two, please.", answer="A pelican.")
    return project.start


@pytest.fixture
def reward_model(project) -> Checkpoint:
    kind = Checkpoint.Kind.REWARD
    return Checkpoint.objects.create(project=project, kind=kind, name="Taste", location="checkpoints/plain")


@pytest.fixture
def rankings(compose, labeler):
    """One by a person, one by a program."""
    program = User.objects.create(username="sim", simulated=True)
    for quintet, who in zip(compose(2), (labeler, program), strict=True):
        Ranking.objects.create(quintet=quintet, labeler=who, ranks=[1, 2, 3, 4, 5], simulated=who.simulated)


def launch(project, kind: str, values: dict | None = None, **given) -> Run:
    return Run.objects.launch(project, kind, values or {}, None, **given)


def test_values_go_over_the_projects_defaults_over_the_kinds(project, start, reward_model):
    run = launch(project, "policy", {"beta": "0.3"})
    assert (run.config["steps"], run.config["beta"], run.config["prompts_per_step"]) == (90, 0.3, 8)
    assert (run.state, run.start, run.reward_model, run.round.number) == ("queued", start, reward_model, 1)


def test_a_run_against_a_reward_model_is_capped(project, start, reward_model):
    with pytest.raises(Refused, match="at most 500 steps"):
        launch(project, "policy", {"steps": 501})
    assert not Run.objects.exists()


def test_the_newest_suggested_reward_model_judges(project, start):
    runs = [Run.objects.create(project=project, kind="reward") for _ in range(2)]
    made = [
        run.checkpoints.create(
            project=project, kind="reward", name="m", location="x", step=step, suggested=step == 10
        )
        for run in runs
        for step in (10, 20)
    ]
    assert launch(project, "policy").reward_model == made[2]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("policy", "no reward model yet"), ("reward", "no rankings yet"), ("sft", "no demonstr")],
)
def test_what_is_missing_is_said(project, start, kind, words):
    with pytest.raises(Refused, match=words):
        launch(project, kind)


def test_a_project_without_start_or_prompts_says_so(project):
    with pytest.raises(Refused, match="no starting model yet"):
        launch(project, "rollouts")
    project.start = Checkpoint.objects.create(project=project, name="Start", location="x")
    with pytest.raises(Refused, match="no prompts yet"):
        launch(project, "rollouts")


def test_a_checkpoint_of_another_project_or_kind_is_refused(project, start, reward_model):
    other = Checkpoint.objects.create(
        project=type(project).objects.create(name="Poems", slug="poems"), name="Foreign", location="x"
    )
    for wrong in (other, reward_model):
        with pytest.raises(Refused, match="is no starting model of this project"):
            launch(project, "rollouts", start=wrong)


def test_a_quintet_cannot_have_six_rollouts(project, start):
    with pytest.raises(Refused, match="2 to 5 rollouts"):
        launch(project, "rollouts", {"count": 6})


def test_simulated_rankings_are_in_only_when_asked_for(project, start, rankings):
    chosen = [launch(project, "reward", simulated=wish, again=True).dataset for wish in (None, True, False)]
    assert [(each.lines, each.simulated) for each in chosen] == [(2, 1), (2, 1), (1, 0)]
    project.run_defaults = {}
    assert launch(project, "reward", again=True).dataset == chosen[2]


def test_the_directory_holds_all_that_the_trainer_asks_for(project, start, reward_model, home):
    run = launch(project, "policy")
    Prompt.objects.create(project=project, content="Came too late.")
    run.prepare_directory()
    assert config.read(run.directory) == config.make("policy", {"steps": 90, "beta": 0.2})
    prompts = [json.loads(line) for line in (run.directory / "prompts.jsonl").read_text().splitlines()]
    first, second = project.prompts.all()[:2]
    assert prompts == [
        {"prompt": first.content, "id": str(first.pk)},
        {"prompt": second.content, "answer": "A pelican.", "id": str(second.pk)},
    ]
    linked = run.directory / "inputs" / "policy" / "config.json"
    assert os.path.samefile(linked, home / "checkpoints" / "plain" / "config.json")
    assert not (run.directory / "inputs" / "policy" / "trainer").exists()
    assert (run.directory / "inputs" / "reward" / "config.json").exists()


def test_a_directory_is_prepared_only_once(project, start, reward_model):
    run = launch(project, "policy")
    run.prepare_directory()
    (run.directory / "inputs" / "policy" / "config.json").unlink()
    run.prepare_directory()
    assert not (run.directory / "inputs" / "policy" / "config.json").exists()


def test_the_dataset_is_the_frozen_one(project, start, rankings, home):
    run = launch(project, "reward")
    run.prepare_directory()
    assert (run.directory / "dataset.jsonl").read_bytes() == (home / run.dataset.path).read_bytes()
    assert Dataset.objects.get() == run.dataset


def test_a_start_from_the_hub_is_left_to_the_trainer(project, start):
    hub = "hub:organisation/name@main"
    run = launch(project, "rollouts", start=Checkpoint.objects.create(name="Hub", location=hub))
    run.prepare_directory()
    assert config.read(run.directory).policy == hub and not (run.directory / "inputs").exists()


def test_a_directory_left_from_another_database_is_moved_aside(project, start, home):
    number = launch(project, "rollouts").pk + 1
    (home / "runs" / str(number)).mkdir()
    (home / "runs" / str(number) / "config.json").write_text("another run's")
    run = launch(project, "rollouts", again=True)
    assert run.pk == number and not (run.directory / "config.json").exists()
    assert len(list((home / "runs").glob(f"{number}.before-*"))) == 1


def test_a_queued_run_is_taken_off_at_once_a_running_one_is_asked(project, start, admin):
    queued, running = launch(project, "rollouts"), launch(project, "rollouts", again=True)
    running = Run.objects.claim(running.pk, "here")
    queued.cancel(admin)
    running.cancel(admin)
    assert (queued.state, queued.reason) == ("cancelled", "Taken off the queue by ada.")
    assert (running.state, running.cancel_requested) == ("running", True)


# The same again


@pytest.mark.parametrize(
    ("state", "how"),
    [
        ("queued", "is waiting already"),
        ("running", "is running already"),
        ("finished", "has been done already"),
    ],
)
def test_an_equal_run_is_not_launched_again_unless_it_is_meant(project, start, reward_model, state, how):
    first = launch(project, "policy")
    lease = timezone.now() if state == "running" else None
    Run.objects.filter(pk=first.pk).update(state=state, leased_until=lease)
    with pytest.raises(LaunchedBefore, match=f"The same run {how}: policy .RLHF. run {first.pk},") as refused:
        launch(project, "policy")
    assert refused.value.run == first and Run.objects.count() == 1
    second = launch(project, "policy", again=first.pk)
    with pytest.raises(LaunchedBefore):
        launch(project, "policy", again=first.pk)  # of the second one nobody was told
    assert Run.objects.count() == 2 and launch(project, "policy", again=True) != second


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_came_to_nothing_is_launched_again_without_a_word(project, start, reward_model, state):
    Run.objects.filter(pk=launch(project, "policy").pk).update(state=state)
    assert launch(project, "policy").state == "queued"


def test_what_differs_in_anything_is_another_run(project, start, reward_model, rankings):
    launch(project, "policy")
    launch(project, "policy", {"seed": 1})
    other = Checkpoint.objects.create(
        project=project, kind="reward", name="Taste 2", location="checkpoints/plain"
    )
    launch(project, "policy", reward_model=other)
    Prompt.objects.create(project=project, content="Joke three, please.")
    launch(project, "policy")
    launch(project, "reward")
    launch(project, "reward", simulated=False)
    Probe.of(project, "buy now").add(project.created_by)
    launch(project, "reward")
    assert Run.objects.count() == 7


def test_a_project_knows_nothing_of_anothers_runs(project, start):
    launch(project, "rollouts", start=start)
    other = type(project).objects.create(name="Poems", slug="poems")
    shared = Checkpoint.objects.create(name="Shared", location="x")
    for each in (project, other):
        Prompt.objects.get_or_create(project=each, content="A line, please.")
    runs = [launch(each, "rollouts", start=shared) for each in (project, other)]
    assert {run.state for run in runs} == {"queued"}


@pytest.mark.django_db(transaction=True)
def test_of_two_launches_at_the_same_moment_one_finds_the_other(project, start):
    """Each on a connection of its own, begun together."""
    outcomes, together = [], threading.Barrier(2)

    def press() -> None:
        together.wait(10)
        try:
            outcomes.append(launch(project, "rollouts").pk)
        except LaunchedBefore as before:
            outcomes.append(before)
        finally:
            connection.close()

    pressing = [threading.Thread(target=press) for _ in range(2)]
    for each in pressing:
        each.start()
    for each in pressing:
        each.join(30)
    run = Run.objects.get()
    assert run.pk in outcomes and [each.run for each in outcomes if each != run.pk] == [run]


# The command


def test_the_command_queues_a_run(project, start, reward_model, capsys):
    call_command("launch", "policy", project=project.slug, values=["steps=7"])
    run, said = Run.objects.get(), capsys.readouterr()
    assert run.config["steps"] == 7 and said.out == f"Run {run.pk} is queued.\n"
    assert said.err == "Whether probes fool Taste is unknown: it has not been measured on any.\n"


def test_the_command_asks_for_a_word_before_it_launches_the_same_again(project, start, capsys):
    call_command("launch", "rollouts", project=project.slug)
    with pytest.raises(CommandError, match=r"is waiting already: rollouts run \d+, .*--again"):
        call_command("launch", "rollouts", project=project.slug)
    call_command("launch", "rollouts", project=project.slug, again=True)
    assert Run.objects.count() == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["policy", "--project", "nowhere"], "no project “nowhere”"),
        (["policy", "--project", "pelican-jokes", "--set", "steps=501"], "at most 500 steps"),
        (["policy", "--project", "pelican-jokes", "--set", "steps"], "KEY=VALUE"),
        (["policy", "--project", "pelican-jokes", "--set", "stepz=1"], "no setting “stepz”"),
        (["reward", "--project", "pelican-jokes"], "no rankings yet"),
        (["rollouts", "--project", "pelican-jokes", "--from", "999999"], "no checkpoint 999999"),
    ],
)
def test_the_command_refuses_in_words(project, start, reward_model, arguments, words):
    with pytest.raises(CommandError, match=words):
        call_command("launch", *arguments)
    assert not Run.objects.exists()


def test_rounds_and_quintets_are_untouched_by_a_launch(project, start):
    launch(project, "rollouts")
    assert Round.objects.count() == 1 and not Quintet.objects.exists()
