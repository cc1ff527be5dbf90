"""The pages of runs, on rows made here: what they say, what they refuse, when they stop asking for news."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeler import charts
from labeler.models import (
    Checkpoint,
    Dataset,
    Prompt,
    Quintet,
    Ranking,
    Request,
    Round,
    Run,
    Sample,
    Step,
    User,
)
from rlhf import config

HTMX = {"headers": {"HX-Request": "true"}}
CLIFF = {"kind": "policy", "name": "Off the cliff", "help": "Nothing holds it.", "values": {"beta": 0}}


@pytest.fixture
def start(project) -> Checkpoint:
    """The project's starting model; with it come two prompts."""
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
    program = User.objects.create(username="sim", simulated=True)
    for number, who in enumerate((labeler, program, program)):
        prompt = project.prompts.all()[number % 2]
        texts = [f"Joke {each}." for each in range(5)]
        quintet = Quintet.objects.compose(project, Round.objects.current(project), prompt, texts)
        Ranking.objects.create(quintet=quintet, labeler=who, ranks=[1, 2, 3, 4, 5], simulated=who == program)


@pytest.fixture
def dataset(project) -> Dataset:
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


def samples(run: Run, *steps: int) -> None:
    for step in steps:
        line = {"prompt": "Write a joke.", "rollout": f"A joke of step {step}.", "score": 0.7, "kl": 2.0}
        Sample.objects.create(run=run, step=step, index=0, line=line | {"finished": True})


def page(client: Client, name: str, *args, **options) -> str:
    """The text of a page, with its whitespace as a reader sees it."""
    return read(client.get(reverse(name, args=args), **options))


def read(response) -> str:
    assert response.status_code == 200, response.content.decode()[:2000]
    return " ".join(response.content.decode().split())


# Who may see them


def test_a_labeler_is_refused_every_page_of_runs(as_labeler, project, reward_run):
    assert as_labeler.get(reverse("runs")).status_code == 403
    pages = [reverse("run_new", args=[project.slug, "reward"])]
    pages += [reverse(name, args=[reward_run.pk]) for name in ("run", "run_live", "run_steps", "run_compare")]
    assert {as_labeler.get(page).status_code for page in pages} == {404}
    assert as_labeler.post(reverse("run_cancel", args=[reward_run.pk])).status_code == 404


def test_a_visitor_is_sent_to_the_sign_in(client, reward_run):
    response = client.get(reverse("run", args=[reward_run.pk]))
    assert response.status_code == 302 and response.url.startswith(reverse("sign_in"))


def test_a_run_that_is_not_there_is_not_found(as_admin, project):
    assert as_admin.get(reverse("run", args=[999])).status_code == 404
    assert as_admin.get(reverse("run_new", args=[project.slug, "dance"])).status_code == 404


# The list


def test_an_empty_list_says_what_to_do_next(as_admin, project):
    said = page(as_admin, "runs", query_params={"project": project.slug})
    assert "No run yet" in said and reverse("run_new", args=[project.slug, "reward"]) in said


def test_the_list_polls_only_while_a_run_is_live(as_admin, project):
    run = make(project, "policy", "running")
    assert "every 2s" in page(as_admin, "runs")
    Run.objects.filter(pk=run.pk).update(state="finished", finished_at=timezone.now())
    assert "every 2s" not in page(as_admin, "runs")


def test_a_row_of_the_list_says_how_far_the_run_is(as_admin, project):
    make(project, "policy", "running")
    make(project, "reward", "queued")
    said = page(as_admin, "runs", **HTMX)
    assert "step 6 of 12 · 46 s gone, about 10 s left" in said
    assert "waiting behind 1 run" in said
    assert "<html" not in said


def test_a_row_of_the_list_says_what_came_of_a_finished_run(as_admin, reward_run):
    assert "orders 76 % of 210 held-out pairs as the labelers did" in page(as_admin, "runs")


def test_a_run_whose_worker_is_gone_does_not_pass_for_running(as_admin, project):
    run = make(project, "policy", "running")
    Run.objects.filter(pk=run.pk).update(leased_until=timezone.now() - timedelta(seconds=30))
    said = page(as_admin, "run", run.pk)
    assert "not heard of" in said and "● running" not in said


# Launching


def launch_form(client: Client, project, kind: str, **query) -> str:
    return page(client, "run_new", project.slug, kind, query_params=query)


def sent(client: Client, project, kind: str, **values) -> tuple[int, str]:
    """POST the form of `kind` as it is shown, with `values` instead of some of its own."""
    shown = client.get(reverse("run_new", args=[project.slug, kind])).context["form"]
    filled = {
        field.name: field.value()
        for field in shown
        if field.value() is not None and field.value() is not False
    } | values
    response = client.post(reverse("run_new", args=[project.slug, kind]), filled)
    return response.status_code, response.content.decode()


def test_the_form_explains_every_setting_and_begins_with_the_projects_own(as_admin, project, reward_model):
    said = launch_form(as_admin, project, "policy")
    for setting in config.settings("policy"):
        assert setting.label in said
    assert 'value="90"' in said and "1 to 500 steps · project&#x27;s default 90" in said
    assert "1e-9 to 0.1 · default 1e-6" in said and "All settings are at this project's defaults" in said
    assert "90 steps × 8 prompts × 8 rollouts = 5,760 rollouts scored" in said
    assert "1,000 updates × 1,000 prompts × 1,000 rollouts = 1,000,000,000, and people read 1,000 × 5" in said


def test_a_preset_fills_the_form(as_admin, project, reward_model):
    said = launch_form(as_admin, project, "policy", preset="off-the-cliff")
    assert "Nothing holds it." in said
    form = as_admin.get(
        reverse("run_new", args=[project.slug, "policy"]), {"preset": "off-the-cliff"}
    ).context["form"]
    assert (form["beta"].value(), form["steps"].value()) == (0, 90)


def test_more_than_500_steps_against_a_reward_model_are_refused_in_words(as_admin, project, reward_model):
    status, said = sent(as_admin, project, "policy", steps="501")
    assert status == 422 and not project.runs.filter(kind="policy").exists()
    assert "may take at most 500 steps" in said and 'value="501"' in said


def test_every_refused_field_says_its_range_and_keeps_what_was_typed(as_admin, project, reward_model):
    status, said = sent(as_admin, project, "policy", beta="eleven", temperature="7", clip="-1")
    assert status == 422
    assert "must be a number; “eleven” is not" in said and 'value="eleven"' in said
    assert "Temperature must be between 0.05 and 2.0; 7 is not." in said
    assert '<details class="panel" open' in said, "a refused field must not hide"


def test_a_launched_run_is_queued_with_the_config_of_the_form(as_admin, admin, project, reward_model):
    status, _ = sent(as_admin, project, "policy", steps="40", seed="7")
    run = project.runs.get(kind="policy")
    assert status == 302 and (run.state, run.created_by) == ("queued", admin)
    assert (run.config["steps"], run.config["seed"]) == (40, 7)
    assert (run.start, run.reward_model) == (project.start, reward_model)


def test_a_policy_run_without_a_reward_model_is_told_what_comes_first(as_admin, project, start):
    said = launch_form(as_admin, project, "policy")
    assert "No reward model yet" in said and reverse("run_new", args=[project.slug, "reward"]) in said


def test_simulated_rankings_are_counted_apart_and_stay_out_unless_asked_for(as_admin, project, rankings):
    said = launch_form(as_admin, project, "reward")
    assert "1 ranking by people and 2 simulated" in said
    form = as_admin.get(reverse("run_new", args=[project.slug, "reward"])).context["form"]
    assert not form["simulated"].value()


@pytest.mark.parametrize(("asked_for", "lines", "simulated"), [({}, 1, 0), ({"simulated": "on"}, 3, 2)])
def test_the_rankings_are_frozen_as_the_form_says(as_admin, project, rankings, asked_for, lines, simulated):
    status, _ = sent(as_admin, project, "reward", **asked_for)
    dataset = project.runs.get().dataset
    assert (status, dataset.lines, dataset.simulated) == (302, lines, simulated)


def test_a_dataset_frozen_before_can_be_chosen_again(as_admin, project, rankings, dataset):
    status, _ = sent(as_admin, project, "reward", dataset=str(dataset.pk))
    assert status == 302 and project.runs.get().dataset == dataset


def test_what_only_the_launch_refuses_is_said_in_the_form(as_admin, project, start):
    status, said = sent(as_admin, project, "rollouts", count="7")
    assert status == 422 and "7 do not fit" in said and 'value="7"' in said
    assert not project.runs.exists()


def test_a_dataset_of_nothing_is_refused(as_admin, project, rankings):
    Ranking.objects.filter(simulated=False).delete()
    status, said = sent(as_admin, project, "reward")
    assert status == 422 and "There is nothing to learn from: 0 rankings by people and 2 simulated." in said


def test_the_sums_follow_what_is_typed(as_admin, project, reward_model):
    shown = as_admin.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    values = {field.name: field.value() for field in shown if field.value() is not None} | {"steps": "10"}
    said = page(as_admin, "run_new", project.slug, "policy", query_params=values, **HTMX)
    assert "10 steps × 8 prompts × 8 rollouts = 640 rollouts scored" in said and "<html" not in said


def test_a_run_can_be_done_again(as_admin, project, reward_model, start):
    run = make(
        project, "policy", "failed", {"steps": 33, "beta": 0.4}, start=start, reward_model=reward_model
    )
    url = reverse("run_new", args=[project.slug, "policy"])
    assert f"{url}?from={run.pk}" in page(as_admin, "run", run.pk)
    form = as_admin.get(url, {"from": run.pk}).context["form"]
    assert (form["steps"].value(), form["beta"].value()) == (33, "0.4")
    assert form["reward_model"].value() == reward_model.pk


def test_a_link_can_choose_what_a_run_starts_from(as_admin, project, reward_run, reward_model):
    other = checkpoint(reward_run, 6)
    form = as_admin.get(
        reverse("run_new", args=[project.slug, "policy"]), {"reward_model": other.pk}
    ).context["form"]
    assert f'<option value="{other.pk}" selected>' in str(form["reward_model"])


def test_what_differs_is_counted_from_the_projects_own_defaults(as_admin, project, start, rankings):
    project.run_defaults = {"reward": {"learning_rate": 1e-3, "weight_decay": 5e-4}}
    project.save()
    said = launch_form(as_admin, project, "reward")
    assert "All settings are at this project's defaults" in said and "0.00000" not in said
    assert "1e-9 to 0.1 · project&#x27;s default 0.001" in said and "default 5e-4" in said
    shown = as_admin.get(reverse("run_new", args=[project.slug, "reward"])).context["form"]
    values = {field.name: field.value() for field in shown if field.value() is not None} | {
        "learning_rate": "9e-6"
    }
    said = page(as_admin, "run_new", project.slug, "reward", query_params=values, **HTMX)
    assert "1 setting differs from this project's defaults" in said


def test_a_reward_models_form_says_which_checkpoint_it_will_suggest(as_admin, project, rankings):
    assert (
        "It suggests its last checkpoint; with a “Patience” above 0 the one with the best held-out loss."
        in (launch_form(as_admin, project, "reward"))
    )
    project.run_defaults = {"reward": {"early_stop": 3}}
    project.save()
    said = launch_form(as_admin, project, "reward")
    assert (
        "It suggests the checkpoint with the best held-out loss, and stops after 3 measurements in a row"
        in said
    )


# Launching the same again


def old(run: Run) -> Run:
    """As if it had been launched a minute ago."""
    Run.objects.filter(pk=run.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    return run


def test_the_same_run_is_launched_again_only_when_that_is_meant(as_admin, project, reward_model):
    sent(as_admin, project, "policy", steps="40")
    first = old(project.runs.get(kind="policy"))
    status, said = sent(as_admin, project, "policy", steps="40")
    assert status == 422 and f"The same run is waiting already: policy (RLHF) run {first.pk}" in said
    assert f'name="again" value="{first.pk}">Launch again' in said and 'value="40"' in said
    assert reverse("run", args=[first.pk]) in said
    assert sent(as_admin, project, "policy", steps="40", again=str(first.pk))[0] == 302
    assert project.runs.filter(kind="policy").count() == 2
    assert sent(as_admin, project, "policy", steps="41")[0] == 302, "another run is another run"


def test_a_button_that_is_pressed_twice_launches_one_run_and_leads_to_it(as_admin, project, reward_model):
    form = reverse("run_new", args=[project.slug, "policy"])
    shown = as_admin.get(form).context["form"]
    filled = {
        each.name: each.value() for each in shown if each.value() is not None and each.value() is not False
    }
    answers = [as_admin.post(form, filled) for _ in range(2)]
    run = project.runs.get(kind="policy")
    assert [answer.url for answer in answers] == [reverse("run", args=[run.pk])] * 2
    old(run)
    answers = [as_admin.post(form, filled | {"again": run.pk}) for _ in range(2)]
    second = project.runs.filter(kind="policy").first()
    assert [answer.url for answer in answers] == [reverse("run", args=[second.pk])] * 2 and second != run
    assert project.runs.filter(kind="policy").count() == 2


def test_what_somebody_else_launched_a_moment_ago_is_told(as_admin, project, reward_model, stranger):
    sent(as_admin, project, "policy")
    project.runs.filter(kind="policy").update(created_by=stranger)
    assert sent(as_admin, project, "policy")[0] == 422


@pytest.mark.parametrize("odd", ["", "x", "-1", "9" * 30, "²"])
def test_an_odd_word_for_again_launches_nothing(as_admin, project, reward_model, odd):
    sent(as_admin, project, "policy")
    old(project.runs.get(kind="policy"))
    assert sent(as_admin, project, "policy", again=odd)[0] == 422


# One run


def test_a_live_run_polls_and_a_finished_one_does_not(as_admin, project):
    run = make(project, "policy", "running")
    assert "every 2s" in page(as_admin, "run", run.pk)
    assert "every 2s" in page(as_admin, "run_live", run.pk, **HTMX)
    Run.objects.filter(pk=run.pk).update(state="finished", finished_at=timezone.now())
    assert "every 2s" not in page(as_admin, "run_live", run.pk, **HTMX)
    assert "every 2s" not in page(as_admin, "run", run.pk)


def test_a_rollouts_run_shows_what_it_wrote(as_admin, project, rankings):
    run = make(project, "rollouts", "finished")
    quintet = project.quintets.last()
    quintet.run, quintet.group = run, 0
    quintet.save()
    said = page(as_admin, "run", run.pk)
    assert "Joke 4." in said and reverse("rank", args=[project.slug]) in said


def test_a_run_that_failed_while_starting_has_no_numbers(as_admin, project):
    run = make(project, "reward", "failed", step=0, total=0, result={"metrics": {}})
    said = page(as_admin, "run", run.pk)
    assert "failed while it was starting, after 46 s" in said and '<dl class="strip">' not in said


def test_a_run_that_is_starting_says_its_phase(as_admin, project):
    run = make(project, "policy", "running", step=0, phase="loading")
    assert "loading · 46 s gone" in page(as_admin, "run", run.pk)


def test_a_failed_run_says_why_and_what_to_do(as_admin, project):
    log = "\n".join(f"line {number}" for number in range(40))
    why = {"reason": "The loss is not a number.", "remedy": "Lower the learning rate.", "log_tail": log}
    said = page(as_admin, "run", make(project, "policy", "failed", **why).pk)
    assert "The loss is not a number." in said and "Lower the learning rate." in said
    assert "line 39" in said and "Try again" in said


def test_what_a_run_says_is_escaped(as_admin, project):
    run = make(project, "policy", "failed", reason="<script>alert(1)</script>", log_tail="<img src=x>")
    Sample.objects.create(
        run=run,
        step=1,
        index=0,
        line={"prompt": "<b>p", "rollout": "<script>alert(2)</script>", "score": None, "finished": True},
    )
    said = page(as_admin, "run", run.pk)
    assert "<script>alert" not in said and "<img" not in said and "<b>p" not in said


def test_a_run_that_ended_early_says_why_and_after_how_many_steps(as_admin, project, start):
    because = "the KL to the start is 12.31 nats a rollout, above the limit of 12"
    run = make(project, "policy", "finished", start=start, result={"stopped": because}, step=7)
    page = as_admin.get(reverse("run", args=[run.pk])).content.decode()
    assert f"<b>It ended before its last step</b>, because {because}." in page and "7 steps in" in page
    other = make(project, "policy", "finished", start=start, result={"stopped": None})
    assert "before its last step" not in as_admin.get(reverse("run", args=[other.pk])).content.decode()


def test_a_run_of_several_updates_or_of_a_kl_to_aim_at_draws_them(project, start):
    plain = make(project, "policy", "finished", start=start)
    both = make(
        project, "policy", "finished", {"updates_per_batch": 2, "kl_target": 8, "steps": 90}, start=start
    )
    drawn = [
        {line["key"] for chart in charts.charts(run) for line in chart["series"]} for run in (plain, both)
    ]
    assert drawn[1] - drawn[0] == {"clip_fraction", "sampler_kl", "beta"}


def test_a_finished_run_says_what_to_do_next(as_admin, project, reward_run, start):
    chosen = (
        f"{reverse('run_new', args=[project.slug, 'policy'])}?reward_model={reward_run.checkpoints.get().pk}"
    )
    assert chosen in page(as_admin, "run", reward_run.pk)
    policy = make(project, "policy", "finished", start=start)
    best = checkpoint(policy, 10, suggested=True)
    checkpoint(policy, 12)
    said = page(as_admin, "run", policy.pk)
    assert reverse("run_compare", args=[policy.pk]) in said
    assert f"{reverse('run_new', args=[project.slug, 'rollouts'])}?start={best.pk}" in said


def test_a_suggested_crop_is_said_with_its_rules(as_admin, project):
    crop = {
        "step": 7,
        "rules": ["The entropy is at 40% of its start.", "The KL is 3 nats."],
        "checkpoint": "",
    }
    run = make(project, "policy", "finished", result={"crop": crop})
    said = page(as_admin, "run", run.pk)
    assert (
        "A crop is suggested at step 7." in said
        and "The entropy is at 40% of its start. The KL is 3 nats." in said
    )


def test_a_crop_is_said_as_soon_as_its_signs_agree(as_admin, project):
    run = make(project, "policy", "running")
    run.steps.filter(step=4).update(metrics={"seconds": 8.0, "reward": 0.5, "crop": ["kl", "entropy"]})
    said = page(as_admin, "run", run.pk)
    assert "A crop is suggested at step 4." in said
    assert "The KL to the start and the entropy went past their limits." in said


def test_the_csv_of_overlaid_runs_says_whose_each_line_is(as_admin, as_stranger, project):
    run, other = make(project, "policy", "finished"), make(project, "policy", "running")
    of_another_kind = make(project, "reward", "finished")
    Step.objects.filter(run=run, step=1).update(metrics={"seconds": 2.0, "reward": 0.5, "rollouts": [0, 99]})
    query = {"form": "csv", "with": f"{other.pk},{of_another_kind.pk},{run.pk},999,x"}
    answer = as_admin.get(reverse("run_steps", args=[run.pk]), query_params=query)
    lines = answer.content.decode().splitlines()
    assert lines[0] == "run,step,seconds,kl,reward"
    assert lines[1] == f"{run.pk},1,2.0,,0.5" and len(lines) == 1 + 12 + 6
    assert {line.split(",")[0] for line in lines[1:]} == {str(run.pk), str(other.pk)}
    told = as_admin.get(reverse("run_steps", args=[run.pk])).json()["steps"][0]
    assert "rollouts" not in told
    alone = as_admin.get(reverse("run_steps", args=[run.pk]), query_params={"form": "csv"})
    assert alone.content.decode().splitlines()[0] == "step,seconds,kl,reward"


def test_runs_to_draw_over_it_are_of_its_project_and_kind_and_say_how_they_differ(as_admin, project):
    run = make(project, "policy", "finished")
    other = make(project, "policy", "finished", {"beta": 0.0, "seed": 7})
    make(project, "reward", "finished")
    make(project, "policy", "queued")
    (offered,) = as_admin.get(reverse("run", args=[run.pk])).context["chart_spec"]["others"]
    assert offered["name"] == f"Policy run {other.pk}"
    assert "β, pull to the start 0" in offered["differs"] and "7" in offered["differs"]


def test_what_people_say_of_its_checkpoints_goes_with_the_steps(as_admin, project, start):
    run = make(project, "policy", "finished", start=start)
    five, ten = checkpoint(run, 5), checkpoint(run, 10)
    round = Round.objects.current(project)

    def faceoff(number: int, by: str, *shares) -> None:
        rows = [{"checkpoint": each.pk, "share": share, "low": 0.1, "high": 0.9} for each, share in shares]
        made = project.faceoffs.create(number=number, round=round, start=start, found={by: {"rows": rows}})
        for place, (each, _) in enumerate(shares):
            made.contenders.create(checkpoint=each, place=place)

    def told() -> dict:
        return as_admin.get(reverse("run_steps", args=[run.pk])).json()["marks"]["people"]

    faceoff(1, "simulated", (start, 0.5), (ten, 0.9))
    assert told()["by"] == "simulated" and [each["step"] for each in told()["points"]] == [0, 10]
    faceoff(2, "people", (start, 0.5), (five, 0.6))
    faceoff(3, "people", (start, 0.5), (five, 0.7))
    said = told()
    assert said["by"] == "people" and [each["people"] for each in said["points"]] == [0.5, 0.7]
    assert said["points"][1] == {"step": 5, "people": 0.7, "low": 0.1, "high": 0.9}


def test_the_config_that_ran_shows_what_differs_first(as_admin, project):
    project.run_defaults = {"policy": {"temperature": 0.5}}
    project.save()
    run = make(project, "policy", "finished", {"beta": 0, "steps": 12, "temperature": 0.5})
    shown = as_admin.get(reverse("run", args=[run.pk])).context["settings"]
    assert [row["setting"].name for row in shown if row["differs"]] == ["steps", "beta"]
    assert [row["differs"] for row in shown] == sorted((row["differs"] for row in shown), reverse=True)


def test_the_lineage_counts_people_and_programs_apart(as_admin, reward_run):
    said = page(as_admin, "run", reward_run.pk)
    assert "3 rankings by people, 150 simulated" in said and "3f9c" * 16 in said


def test_a_policy_run_tells_how_often_it_asked_the_simulator(as_admin, project, reward_model):
    run = make(project, "policy", "finished", reward_model=reward_model)
    said = page(as_admin, "run", run.pk)
    assert "The simulator scored 768 rollouts; people read at most 15, simulated labelers 750." in said
    assert "Asking people instead would have taken 154 rankings of five; how long is not known" in said


def test_what_asking_people_would_have_cost_is_told_at_the_pace_that_was_measured(
    as_admin, project, reward_model, rankings, dataset
):
    Dataset.objects.filter(pk=dataset.pk).update(manifest={"partial": 0})
    timed = Ranking.objects.filter(simulated=False)
    timed.update(focus_seconds=30.0)
    Ranking.objects.filter(simulated=True).update(focus_seconds=1.0)
    run = make(project, "policy", "finished", reward_model=reward_model)
    said = page(as_admin, "run", run.pk)
    assert (
        "people read 15, simulated labelers 750. Asking people instead would have taken 154 rankings" in said
    )
    assert "of five: 1 h 17 min at 30 s each, the median here." in said


def test_the_samples_of_any_measured_step_can_be_read(as_admin, project):
    run = make(project, "policy", "finished")
    samples(run, 1, 10, 12)
    assert "A joke of step <ins>12.</ins>" in page(as_admin, "run", run.pk)
    said = page(as_admin, "run", run.pk, query_params={"look": "1"}, **HTMX)
    assert "A joke of step <ins>10.</ins>" in said and "<html" not in said
    assert "A joke of step <ins>12.</ins>" in page(as_admin, "run", run.pk, query_params={"look": "nonsense"})


def test_a_sample_is_held_against_the_measurement_before_or_the_start(as_admin, project):
    run = make(project, "policy", "finished")
    for step, text, score in ((0, "the end", 0.1), (6, "why the end", 0.4), (12, "why the end", 0.4)):
        line = {"prompt": "Joke?", "rollout": text, "score": score, "kl": step / 6, "finished": True}
        Sample.objects.create(run=run, step=step, index=0, line=line)
    before = page(as_admin, "run", run.pk)
    assert "the same as at step 6" in before and "<ins>why" not in before
    start = page(as_admin, "run", run.pk, query_params={"against": "start"})
    assert "<ins>why </ins>the end" in start and "<ins>marked</ins> is what was not there at step 0" in start
    assert '<span class="quiet">0.10 →</span> <b>0.40</b> <span class="up">' in start
    assert '<b>2.00</b> <span class="quiet">KL' in start
    assert f'href="{reverse("steps", args=[run.pk])}?step=12">All rollouts of step 12</a>' in start
    first = page(as_admin, "run", run.pk, query_params={"look": 0})
    assert "<ins>" not in first and "step 6 →" in first


def test_the_measured_steps_are_links_too(as_admin, project):
    run = make(project, "policy", "finished")
    samples(run, 1, 10, 12)
    said = page(as_admin, "run", run.pk, query_params={"look": 1, "against": "start"})
    assert (
        'href="?look=0&amp;against=start#samples"' in said
        and 'href="?look=2&amp;against=start#samples"' in said
    )


def test_a_poll_brings_samples_only_when_there_are_new_ones(as_admin, project):
    run = make(project, "policy", "running")
    samples(run, 1)
    assert "A joke" not in page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 1}, **HTMX)
    samples(run, 5)
    said = page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 1}, **HTMX)
    assert "A joke of step <ins>5.</ins>" in said, "who looked at the newest moves along"
    samples(run, 6)
    said = page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 2}, **HTMX)
    assert "A joke of step 1." in said and 'max="2"' in said, "who looked back stays there"


def test_quintets_on_which_the_reward_model_and_people_disagree_come_first(as_admin, reward_run):
    def line(prompt: str, scores: list[float]) -> dict:
        return {"prompt": prompt, "rollouts": ["one", "two", "three"], "ranks": [1, 2, 2], "scores": scores}

    for index, scores in enumerate(([0.9, 0.5, 0.4], [0.2, 0.5, 0.4])):
        Sample.objects.create(run=reward_run, step=12, index=index, line=line(f"Prompt {index}", scores))
    shown = as_admin.get(reverse("run", args=[reward_run.pk])).context["samples"]
    assert [(each.prompt, each.turned, each.pairs) for each in shown] == [
        ("Prompt 1", 2, 2),
        ("Prompt 0", 0, 2),
    ]
    said = page(as_admin, "run", reward_run.pk)
    assert "2 of 2 pairs the other way round" in said and "ordered just so" in said


# The steps, for the charts


def test_the_steps_come_after_the_one_that_is_known(as_admin, project):
    run = make(project, "policy", "running")
    checkpoint(run, 5, suggested=True)
    url = reverse("run_steps", args=[run.pk])
    everything = as_admin.get(url).json()
    assert [each["step"] for each in everything["steps"]] == [1, 2, 3, 4, 5, 6]
    assert everything["steps"][0] == {"step": 1, "seconds": 2.0, "reward": 0.5, "kl": 1.5}
    marks = {"crop": None, "checkpoints": [{"step": 5, "suggested": True}]}
    assert everything["marks"] == marks | {"people": {"by": "simulated", "points": []}}
    assert [each["step"] for each in as_admin.get(url, {"after": "4"}).json()["steps"]] == [5, 6]
    assert len(as_admin.get(url, {"after": "x"}).json()["steps"]) == 6


def test_the_steps_can_be_had_as_csv(as_admin, project):
    run = make(project, "policy", "finished")
    response = as_admin.get(reverse("run_steps", args=[run.pk]), {"form": "csv"})
    lines = response.content.decode().splitlines()
    assert lines[:2] == ["step,seconds,kl,reward", "1,2.0,1.5,0.5"] and len(lines) == 13
    assert "attachment" in response["Content-Disposition"]


# Stopping


def test_a_run_is_asked_to_stop(as_admin, project):
    run = make(project, "policy", "running")
    assert as_admin.get(reverse("run_cancel", args=[run.pk])).status_code == 405
    said = read(as_admin.post(reverse("run_cancel", args=[run.pk]), **HTMX))
    run.refresh_from_db()
    assert run.cancel_requested and "stopping after this step" in said


def test_a_run_that_has_not_begun_is_taken_off_the_queue(as_admin, project):
    run = make(project, "policy", "queued")
    as_admin.post(reverse("run_cancel", args=[run.pk]))
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert "Taken off the queue by ada" in page(as_admin, "run", run.pk)


# Before and after


@pytest.fixture
def compared(project, start, reward_model) -> Run:
    run = make(project, "policy", "finished", start=start, reward_model=reward_model)
    checkpoint(run, 6, suggested=True)
    checkpoint(run, 12)
    return run


def answered(run: Run) -> None:
    side = {"text": "Why?", "score": 0.4, "finished": True}
    item = {"prompt": "Write a joke.", "before": side, "after": side | {"text": "Because.", "score": 0.7}}
    Request.objects.filter(run=run).update(state="answered", answer={"items": [item]})


def test_the_suggested_checkpoint_is_compared_unless_another_is_chosen(as_admin, admin, compared):
    said = page(as_admin, "run_compare", compared.pk)
    assert said.index("step 6 · suggested") < said.index("step 12") and "Not asked yet" in said
    suggested = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": suggested.pk, "seed": 0})
    asked = Request.objects.get()
    assert (asked.kind, asked.run, asked.created_by) == ("compare", compared, admin)
    assert asked.question["after"] == suggested.pk


def test_a_comparison_polls_until_it_is_answered(as_admin, compared):
    after = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": after.pk, "seed": 0})
    Request.objects.update(state="working", phase="opening the checkpoint")
    said = page(as_admin, "run_compare", compared.pk, **HTMX)
    assert "every 1s" in said and "Opening the checkpoint" in said
    answered(compared)
    said = page(as_admin, "run_compare", compared.pk, **HTMX)
    assert "every 1s" not in said and "Because." in said
    assert "from <b>0.40</b> to <b>0.70</b>; 1 of 1 answer" in said
    assert "reward model's opinion" in said and "Ask again with another seed" in said


def test_a_comparison_that_failed_says_why(as_admin, compared):
    after = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": after.pk, "seed": 0})
    Request.objects.update(state="failed", reason="The folder is gone.", remedy="Run it again.")
    said = page(as_admin, "run_compare", compared.pk)
    assert "The folder is gone." in said and "Run it again." in said and "every 1s" not in said


def test_only_a_checkpoint_of_the_run_can_be_compared(as_admin, compared, start):
    asked = as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": start.pk, "seed": 0})
    assert asked.status_code == 404 and not Request.objects.exists()
