"""The pages of checkpoints: where each comes from, how to open it, and making one the project's start."""

import pytest
from django.urls import reverse

from labeler.models import Checkpoint, Dataset, Request, Run
from rlhf import config


@pytest.fixture
def start(project) -> Checkpoint:
    project.start = Checkpoint.objects.create(
        project=project, name="Pelican start", location="checkpoints/start"
    )
    project.save()
    return project.start


@pytest.fixture
def reward_model(project, start) -> Checkpoint:
    dataset = Dataset.objects.create(
        project=project, sha256="3f9c" * 16, path="datasets/a", lines=153, simulated=150
    )
    settings = config.as_dict(config.make("reward", {}))
    metrics = {"held_out_accuracy": 0.762, "held_out_pairs": 210}
    run = Run.objects.create(
        project=project,
        kind="reward",
        state="finished",
        start=start,
        dataset=dataset,
        config=settings,
        step=34,
        total=34,
        result={"metrics": metrics},
    )
    run.steps.create(step=34, metrics={"seconds": 9.0, "loss": 0.31})
    return run.checkpoints.create(
        project=project,
        kind="reward",
        name="Reward model 1",
        location="runs/1/checkpoints/step-000034",
        step=34,
        suggested=True,
        lineage={"mu": 0.25, "tau": 0.8, "sha256": {"dataset": "3f9c" * 16}},
    )


def page(client, name: str, *args, **query) -> str:
    response = client.get(reverse(name, args=args), query)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_a_labeler_is_refused(as_labeler, start):
    assert as_labeler.get(reverse("checkpoints")).status_code == 403
    assert as_labeler.get(reverse("checkpoint", args=[start.pk])).status_code == 404
    assert as_labeler.post(reverse("checkpoint", args=[start.pk])).status_code == 404


def test_an_empty_list_says_where_checkpoints_come_from(as_admin, project):
    said = page(as_admin, "checkpoints", project=project.slug)
    assert "Choose a starting model" in said and "Train reward model" in said


def test_the_list_has_policies_and_reward_models_apart(as_admin, project, start, reward_model):
    said = page(as_admin, "checkpoints", project=project.slug)
    assert said.index("Policies") < said.index("Pelican start") < said.index("Reward models")
    assert said.index("Reward models") < said.index("step 34, suggested")
    assert "the project's start" in said


def test_two_reward_models_can_be_compared_from_the_list(as_admin, project, reward_model):
    assert "Compare two of them" not in page(as_admin, "checkpoints", project=project.slug)
    Checkpoint.objects.create(project=project, kind="reward", name="Another", location="another")
    said = page(as_admin, "checkpoints", project=project.slug)
    assert reverse("run_new", args=[project.slug, "evaluation"]) in said and "Compare two of them" in said


def test_another_projects_checkpoints_stay_out_of_the_list(as_admin, project, reward_model):
    from labeler.models import Project

    other = Project.objects.create(name="Poems", slug="poems")
    Checkpoint.objects.create(project=other, name="Poet", location="checkpoints/poet")
    assert "Poet" not in page(as_admin, "checkpoints", project=project.slug)
    assert "Poet" in page(as_admin, "checkpoints")


def test_a_checkpoint_tells_its_lineage(as_admin, reward_model):
    said = page(as_admin, "checkpoint", reward_model.pk)
    assert "Reward model run" in said and "Pelican start" in said
    assert "3 rankings by people, 150 simulated" in said and "3f9c" * 16 in said
    assert "76 %" in said and "0.310" in said


def test_a_checkpoint_tells_how_plain_transformers_open_it(as_admin, settings, start, reward_model):
    said = page(as_admin, "checkpoint", start.pk)
    assert "AutoModelForCausalLM" in said and f"{settings.HOME}/checkpoints/start" in said
    said = page(as_admin, "checkpoint", reward_model.pk)
    assert "AutoModelForSequenceClassification" in said and "mu, tau = 0.25, 0.8" in said


def test_a_model_from_the_hub_is_opened_by_its_name_and_revision(as_admin, project):
    hub = Checkpoint.objects.create(project=project, name="Small", location="hub:someone/small@abc123")
    said = page(as_admin, "checkpoint", hub.pk)
    assert "someone/small" in said and "revision=" in said and "abc123" in said


def test_a_policy_can_become_the_projects_start(as_admin, project, start):
    better = Checkpoint.objects.create(project=project, name="Policy run 3, step 20", location="runs/3")
    response = as_admin.post(reverse("checkpoint", args=[better.pk]), follow=True)
    project.refresh_from_db()
    assert project.start == better
    assert "now starts from Policy run 3, step 20" in response.content.decode()


def test_a_reward_model_cannot_become_the_projects_start(as_admin, project, start, reward_model):
    as_admin.post(reverse("checkpoint", args=[reward_model.pk]))
    project.refresh_from_db()
    assert project.start == start


# The queue


def test_an_admin_has_the_queue_ordered_by_what_a_reward_model_is_least_sure_of(
    as_admin, reward_model, project, compose
):
    compose(3)
    shown = page(as_admin, "checkpoint", reward_model.pk)
    assert "It can read the 3 quintets that wait" in shown and "Order the queue by this reward model" in shown
    as_admin.post(reverse("checkpoint_order", args=[reward_model.pk]))
    project.refresh_from_db()
    request = project.requests.get()
    assert (project.queue, request.kind) == ("uncertain", "order")
    assert request.question == {"checkpoint": reward_model.pk}
    assert project.audit.get().words == "queue: imported, now uncertain"
    Request.objects.update(phase="the reward model has read 2 of 3 waiting quintets", state="working")
    news = as_admin.get(reverse("checkpoint_order", args=[reward_model.pk]), headers={"HX-Request": "true"})
    assert "The reward model has read 2 of 3 waiting quintets." in news.content.decode()
    assert 'hx-trigger="every 2s"' in news.content.decode()
    project.quintets.update(scored_by=reward_model)
    Request.objects.update(state="answered")
    shown = page(as_admin, "checkpoint", reward_model.pk)
    assert "has read 3 quintets of the 3 that wait" in shown and "every 2s" not in shown


def test_why_the_queue_could_not_be_ordered_is_said(as_admin, reward_model, project):
    failed = {"state": "failed", "reason": "There is no tokenizer.", "remedy": "Save one."}
    project.requests.create(kind="order", question={"checkpoint": reward_model.pk}, **failed)
    assert "There is no tokenizer. Save one." in page(as_admin, "checkpoint", reward_model.pk)


def test_only_a_reward_model_orders_the_queue_and_only_for_admins(as_admin, as_labeler, reward_model, start):
    assert as_admin.post(reverse("checkpoint_order", args=[start.pk])).status_code == 404
    assert as_labeler.post(reverse("checkpoint_order", args=[reward_model.pk])).status_code == 404
    assert "Order the queue" not in page(as_admin, "checkpoint", start.pk)
