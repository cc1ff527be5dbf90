"""The launch form of a run: what it explains, what it refuses, and when an equal run is meant."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeler.models import (
    Ranking,
    Run,
)
from rlhf import config
from tests.labeler.runs import HTMX, checkpoint, make, page

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
    for setting in config.settings("policy", "model"):
        assert setting.label in said
    assert 'value="90"' in said and "1 to 500 steps · project&#x27;s default 90" in said
    assert "1e-9 to 0.1 · default 1e-6" in said and "All settings are at this project's defaults" in said
    assert "90 steps × 2 prompts × 8 rollouts = 1,440 rollouts scored" in said, "there are no more than two"
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
    status, said = sent(as_admin, project, "reward", simulated="")
    assert status == 422 and "There is nothing to learn from: 0 rankings by people and 2 simulated." in said


@pytest.mark.parametrize("kind", ["reward", "evaluation"])
def test_where_only_programs_ranked_theirs_are_in_unless_left_out(
    as_admin, project, reward_model, rankings, kind
):
    Ranking.objects.filter(simulated=False).delete()
    status, said = sent(as_admin, project, kind)
    run = project.runs.filter(kind=kind).latest("pk")
    assert (status, run.dataset.lines, run.dataset.simulated) == (302, 2, 2), said
    status, said = sent(as_admin, project, kind, simulated="")
    what = "measure on" if kind == "evaluation" else "learn from"
    assert status == 422 and f"There is nothing to {what}: 0 rankings by people and 2 simulated." in said


def test_without_documents_there_is_nothing_to_read_and_it_says_so(as_admin, project, start):
    prompt = project.prompts.create(content="Why did the pelican honk?")
    project.demonstrations.create(prompt=prompt, completion="It had a bill to pay.")
    status, said = sent(as_admin, project, "sft", stage="reading")
    assert status == 422 and "There is nothing to read: bring in documents on the page of datasets." in said
    assert "There is nothing to learn from" not in said


def test_the_sums_follow_what_is_typed(as_admin, project, reward_model):
    shown = as_admin.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    values = {field.name: field.value() for field in shown if field.value() is not None} | {"steps": "10"}
    said = page(as_admin, "run_new", project.slug, "policy", query_params=values, **HTMX)
    assert "10 steps × 2 prompts × 8 rollouts = 160 rollouts scored" in said and "<html" not in said


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
