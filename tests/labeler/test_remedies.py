"""What is offered after a failure: the same run, with the one thing changed that is known to help."""

import errno
import os
import re
import shutil
from types import SimpleNamespace

import pytest
from django.urls import reverse

from labeler import remedies, trainer
from labeler.models import Checkpoint, Run
from labeler.trainer import MEMORY, Trainer
from rlhf import config

pytestmark = pytest.mark.django_db
GONE = "There is not enough memory."
FULL = os.strerror(errno.ENOSPC)


def failed(project, kind: str = "policy", values: dict | None = None, **fields) -> Run:
    given = config.as_dict(config.make(kind, values or {}))
    return Run.objects.create(project=project, kind=kind, state="failed", config=given, **fields)


@pytest.mark.parametrize(
    ("kind", "values", "why", "changed"),
    [
        ("policy", {}, {"reason": "It was killed.", "remedy": MEMORY}, ("micro_batch", "16")),
        ("policy", {}, {"reason": GONE, "field": "micro_batch"}, ("micro_batch", "16")),
        ("policy", {"prompts_per_step": 10}, {"remedy": MEMORY}, ("micro_batch", "16")),
        ("policy", {"micro_batch": 1}, {"remedy": MEMORY}, ("lora_rank", "16")),
        ("reward", {}, {"remedy": MEMORY}, ("micro_batch", "4")),
        ("rollouts", {}, {"remedy": MEMORY}, ("batch", "8")),
        ("policy", {}, {"reason": "NaN", "field": "learning_rate"}, ("learning_rate", "3e-7")),
        ("policy", {}, {"reason": GONE, "field": "max_new_tokens"}, ("max_new_tokens", "128")),
        ("policy", {}, {"reason": f"{FULL} /x"}, ("checkpoint_every", "50")),
        ("policy", {}, {"reason": "The disk is full."}, ("checkpoint_every", "50")),
        ("sft", {"device": "cuda"}, {"reason": "No card.", "field": "device"}, ("device", "auto")),
    ],
)
def test_a_known_failure_is_offered_its_remedy(as_admin, project, kind, values, why, changed):
    run = failed(project, kind, values, **why)
    said = as_admin.get(reverse("run", args=[run.pk])).content.decode()
    link = re.search(r'id="remedy" class="btn go" href="([^"]+)">Try again with', said)
    assert link and f"{changed[0]}={changed[1]}" in link[1].replace("&amp;", "&")
    form = as_admin.get(link[1].replace("&amp;", "&")).context["form"]
    assert str(form[changed[0]].value()) == changed[1] and form.settings
    others = [each.name for each in form.settings if each.name != changed[0]]
    assert all(
        str(run.config[name]) == str(config.make(kind, {name: form[name].value()}).__dict__[name])
        for name in others
    )


def test_what_is_proposed_can_be_launched(project, home):
    """Half of the portion, and a step still divides into it."""
    run = failed(project, "policy", {"prompts_per_step": 9, "rollouts_per_prompt": 5}, remedy=MEMORY)
    found = remedies.of(run)
    assert found and "micro_batch=15" in found.url  # of 45


def test_another_start_is_offered_where_the_first_is_gone(as_admin, project, home):
    folder = home / "checkpoints" / "there"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    gone = Checkpoint.objects.create(project=project, name="Gone", location="checkpoints/gone")
    run = failed(project, "policy", start=gone, reason="No such file or directory: x")
    assert remedies.of(run) is None, "there is no other"
    there = Checkpoint.objects.create(project=project, name="There", location="checkpoints/there")
    found = remedies.of(run)
    assert found and found.words == "another start, “There”" and f"start={there.pk}" in found.url


def test_nothing_is_offered_where_nothing_is_known(as_admin, project):
    run = failed(project, reason="KeyError: 'x'", remedy="The log tells where it happened.")
    said = as_admin.get(reverse("run", args=[run.pk])).content.decode()
    assert "Try again with" not in said and f"?from={run.pk}" in said


def test_a_run_that_was_stopped_needs_no_remedy(project):
    run = failed(project, remedy=MEMORY)
    run.state = "cancelled"
    assert remedies.of(run) is None


def test_a_trainer_that_could_not_write_why_it_failed_tells_of_the_full_disk(tmp_path, monkeypatch):
    child = Trainer(tmp_path)
    child.process = SimpleNamespace(returncode=1)
    assert "without a result" in child.how_it_ended()[0]
    monkeypatch.setattr(trainer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    reason, remedy = child.how_it_ended()
    assert reason == "The disk is full." and "Delete runs" in remedy


def test_every_run_can_be_launched_again_whatever_became_of_it(as_admin, project):
    for state in ("queued", "finished", "failed", "cancelled"):
        run = failed(project)
        Run.objects.filter(pk=run.pk).update(state=state)
        assert f"policy/?from={run.pk}" in as_admin.get(reverse("run", args=[run.pk])).content.decode()
