"""The lineage of a checkpoint, as a page and as a file: what it rests on, and whose rankings."""

import json

import pytest
from django.urls import reverse

from labeler import datasets
from labeler.models import Checkpoint, Dataset, Membership, User
from rlhf import config

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(project) -> Checkpoint:
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:org/tiny@abc")
    project.save()
    return project.start


@pytest.fixture
def dataset(project, new_ranking, labeler, admin) -> Dataset:
    for _ in range(3):
        new_ranking(by=labeler)
    new_ranking(by=admin)
    new_ranking(by=User.objects.create(username="simulated-1", simulated=True))
    return datasets.freeze(project, datasets.Query(simulated=True))


def made(project, kind: str, start: Checkpoint, step: int = 4, values=None, **given) -> Checkpoint:
    """A checkpoint with the run that made it, as a worker leaves them."""
    settings = config.as_dict(config.make(kind, values or {}))
    run = project.runs.create(kind=kind, state="finished", start=start, config=settings, step=step, **given)
    told = {"base": {"sha256": "f00d" * 16}, "config": settings}
    if run.dataset:
        told["sha256"] = {"dataset": run.dataset.sha256}
    role = "reward" if kind == "reward" else "policy"
    fields = {"kind": role, "name": f"{kind} {run.pk}", "location": f"runs/{run.pk}/x", "lineage": told}
    return run.checkpoints.create(project=project, step=step, **fields)


@pytest.fixture
def line(project, start, dataset) -> dict[str, Checkpoint]:
    """Two rounds: each with a reward model and a policy, the second from the policy of the first."""
    judge = made(project, "reward", start, dataset=dataset, round=project.rounds.first())
    first = made(project, "policy", start, step=90, reward_model=judge, values={"beta": 0.2})
    again = made(project, "reward", start, dataset=dataset)
    second = made(project, "policy", first, step=60, reward_model=again)
    return {"start": start, "judge": judge, "first": first, "again": again, "second": second}


def file(client, checkpoint: Checkpoint, **query) -> dict:
    response = client.get(reverse("checkpoint_lineage_file", args=[checkpoint.pk]), query)
    assert response.status_code == 200 and "attachment" in response["Content-Disposition"]
    return response.json()


def page(client, checkpoint: Checkpoint) -> str:
    response = client.get(reverse("checkpoint_lineage", args=[checkpoint.pk]))
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_file_follows_every_start_and_reward_model_back_to_the_imported_weights(as_admin, line, dataset):
    told = file(as_admin, line["second"])
    links = {each["id"]: each for each in told["checkpoints"]}
    assert list(links) == [line[name].pk for name in ("second", "again", "first", "judge", "start")]
    second, again, first = (links[line[name].pk] for name in ("second", "again", "first"))
    assert (second["start"], second["reward_model"]) == (first["id"], again["id"])
    assert first["run"]["config"]["beta"] == 0.2 and again["dataset"] == dataset.sha256
    assert links[line["start"].pk]["origin"] == "the Hub, org/tiny@abc"
    assert links[line["judge"].pk]["run"]["round"] == 1
    [learnt] = told["datasets"]  # one, though two reward models learnt from it
    assert learnt["sha256"] == dataset.sha256
    assert learnt["labelers"] == {"lena": 3, "ada": 1} and learnt["simulated_labelers"] == {"simulated-1": 1}


def test_nothing_is_in_a_lineage_that_the_checkpoint_does_not_rest_on(as_admin, line):
    told = file(as_admin, line["first"])
    assert [each["id"] for each in told["checkpoints"]] == [
        line[name].pk for name in ("first", "judge", "start")
    ]
    assert file(as_admin, line["start"])["datasets"] == []


def test_the_page_says_whose_rankings_and_which_settings(as_admin, line, dataset):
    said = page(as_admin, line["second"])
    assert dataset.sha256 in said and "its quintet.json names the same sha256" in said
    assert '<td>lena</td><td class="num">3</td>' in said
    assert '<td>simulated-1 <span class="chip">simulated</span></td>' in said
    assert "beta 0.2" in said
    assert "<dt>Updates of the policy</dt><dd>150</dd>" in said
    assert "the Hub, org/tiny@abc. No run here made it." in said


def test_weights_that_were_not_made_from_the_dataset_of_their_run_are_told(as_admin, line):
    line["judge"].lineage = {"sha256": {"dataset": "0" * 64}}
    line["judge"].save()
    assert "names another dataset" in page(as_admin, line["first"])


def test_a_reviewer_reads_it_without_names_and_so_may_anybody_who_is_given_the_file(
    as_admin, as_labeler, project, labeler, line
):
    assert as_labeler.get(reverse("checkpoint_lineage", args=[line["second"].pk])).status_code == 404
    Membership.objects.filter(project=project, user=labeler).update(role="reviewer")
    assert file(as_labeler, line["second"])["datasets"][0]["labelers"] == 2
    said = page(as_labeler, line["second"])
    assert "By 2 people and 1 simulated labeler." in said and "<td>lena" not in said
    assert file(as_admin, line["second"], names="no")["datasets"][0]["labelers"] == 2


def test_the_page_of_a_checkpoint_leads_to_its_lineage(as_admin, line):
    said = as_admin.get(reverse("checkpoint", args=[line["second"].pk])).content.decode()
    assert reverse("checkpoint_lineage", args=[line["second"].pk]) in said


def test_labelers_who_were_chosen_are_not_named_in_a_file_without_names(as_admin, project, start, dataset):
    chosen = datasets.freeze(project, datasets.Query(labelers=("lena",)))
    judge = made(project, "reward", start, dataset=chosen)
    assert "lena" in json.dumps(file(as_admin, judge))
    assert "lena" not in json.dumps(file(as_admin, judge, names="no"))
