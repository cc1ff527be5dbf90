"""How often a policy run asked the simulator of people, and what people read for it."""

import pytest

from labeler.models import Dataset, Ranking
from tests.labeler.runs import make, page

pytestmark = pytest.mark.django_db


def test_a_policy_run_tells_how_often_it_asked_the_simulator(as_admin, project, reward_model):
    run = make(project, "policy", "finished", reward_model=reward_model)
    said = page(as_admin, "run", run.pk)
    assert "The simulator scored 768 rollouts; people read at most 15, simulated labelers 750." in said
    assert "Asking people instead would have taken 154 rankings of five; how long is not known" in said


def test_what_the_simulator_scored_is_what_the_steps_tell(as_admin, project, reward_model):
    run = make(project, "policy", "finished", reward_model=reward_model)
    for step in run.steps.exclude(step=1):  # the first is as from before steps told it
        run.steps.filter(pk=step.pk).update(metrics=step.metrics | {"scored": 16})
    run.steps.create(step=0, metrics={"seconds": 1.0})
    assert "The simulator scored 240 rollouts;" in page(as_admin, "run", run.pk), "64, and 16 eleven times"


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
