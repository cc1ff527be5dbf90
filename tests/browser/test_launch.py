"""Launching in a real browser: the preview follows what is typed, and who asked is told when a run ends."""

import shutil
import time
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from labeler import capacity
from labeler.demo import HERE
from labeler.models import Checkpoint, Prompt, Request, Run
from rlhf import config

pytestmark = pytest.mark.django_db(transaction=True)

# What the browser was asked to show, beside showing it.
LISTEN = """
  window.told = [];
  const Real = window.Notification;
  window.Notification = class extends Real {
    constructor(title, more) { super(title, more); window.told.push(title); }
  };
"""


@pytest.fixture
def form(page, sign_in, admin, project, home):
    """The launch form of a policy run of the demo's model."""
    shutil.copytree(HERE / "checkpoint", home / "checkpoints" / "small", dirs_exist_ok=True)
    capacity.tell()
    known = {"project": project, "location": "checkpoints/small"}
    project.start = Checkpoint.objects.create(name="Small", **known)
    project.run_defaults = {"policy": {"max_new_tokens": 40}}
    project.save()
    Checkpoint.objects.create(name="Taste", kind="reward", **known)
    Prompt.objects.create(project=project, content="Write a joke about pelicans.")
    sign_in(page, admin)
    page.goto(reverse("run_new", args=[project.slug, "policy"]))
    return page


def test_the_preview_follows_what_is_typed_and_says_what_stops_it(form):
    assert "no run like this has finished here yet" in form.inner_text("#sums")
    assert "All settings are at this project's defaults" in form.inner_text("#sums")
    form.fill("[name=max_new_tokens]", "256")
    form.wait_for_selector("text=It cannot be launched like this.")
    assert "leaves no room for a prompt in the 256 tokens" in form.inner_text("#sums .stops")
    assert "1 setting differs from this project's defaults" in form.inner_text("#sums")
    form.click("button.btn.go")
    form.wait_for_selector(".errorlist >> text=leaves no room for a prompt")
    assert not Run.objects.exists(), "nor does launching it all the same"
    form.fill("[name=max_new_tokens]", "30")
    form.wait_for_selector("#sums .stops", state="detached")
    form.click("button.btn.go")
    form.wait_for_url("**/runs/*/")
    assert Run.objects.get().config["max_new_tokens"] == 30


def test_a_try_is_waited_for_and_shown_without_losing_what_was_typed(form):
    form.fill("[name=steps]", "60")
    form.click("text=Try it for a few seconds")
    form.wait_for_selector("#sums >> text=Waiting for the worker")
    answer = {"device": "cpu", "loading": 1, "sampled": 8000, "trained": 12000, "longest": 9, "rows": 64}
    Request.objects.filter(kind="try").update(state="answered", answer=answer)
    form.wait_for_selector("#sums >> text=by a try with 64 rows on cpu")
    assert "about 45 s" in form.inner_text("#sums") and form.input_value("[name=steps]") == "60"


def test_a_try_is_waited_for_on_a_slow_machine_too(form):
    """News that come later than the next question is asked are not thrown away for it."""
    form.click("text=Try it for a few seconds")
    form.wait_for_selector("#sums >> text=Waiting for the worker")
    form.route("**/runs/new/**", lambda route: (time.sleep(1.3), route.continue_()))
    Request.objects.filter(kind="try").update(phase="the model is tried out")
    form.wait_for_selector("#sums >> text=The model is tried out", timeout=10_000)


def test_a_reward_model_beside_the_checker_brings_its_settings(form, project):
    project.judge, project.checker = "checker", {"name": "number"}
    project.save()
    project.prompts.create(content="What is 2 + 3?", answer="5")
    form.reload()
    form.fill("[name=learning_rate]", "7e-4")
    form.select_option("[name=reward_model]", label="Taste")
    form.wait_for_selector("[name=reward_weight]")
    assert form.input_value("[name=beta]") == "0.1" and form.input_value("[name=learning_rate]") == "7e-4"
    form.select_option("[name=reward_model]", "")
    form.wait_for_selector("[name=reward_weight]", state="detached")
    assert form.input_value("[name=beta]") == "0"


def test_the_preview_fits_a_phone(form):
    form.set_viewport_size({"width": 390, "height": 844})
    assert form.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.fixture
def run(project) -> Run:
    now = timezone.now()
    made = config.as_dict(config.make("policy", {"steps": 30}))
    return Run.objects.create(
        project=project,
        kind="policy",
        state="running",
        config=made,
        step=12,
        total=30,
        started_at=now - timedelta(seconds=20),
        leased_until=now + timedelta(minutes=5),
    )


def test_who_asks_is_told_when_the_run_ends_and_the_tab_says_how_far_it_is(page, sign_in, admin, run):
    page.context.grant_permissions(["notifications"])
    page.add_init_script(LISTEN)
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    assert page.title().startswith(f"40 % Policy run {run.pk}")
    page.click("text=Tell me when it ends")
    page.wait_for_selector("#notify[aria-pressed=true] >> text=You will be told")
    Run.objects.filter(pk=run.pk).update(state="finished", step=30, finished_at=timezone.now())
    page.wait_for_selector("#live[data-state=finished]")
    assert page.evaluate("window.told") == [f"Policy run {run.pk} has finished"]
    assert page.title().startswith("✓ Policy run")


def test_nobody_is_told_who_did_not_ask(page, sign_in, admin, run):
    page.context.grant_permissions(["notifications"])
    page.add_init_script(LISTEN)
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    Run.objects.filter(pk=run.pk).update(state="failed", reason="No.", finished_at=timezone.now())
    page.wait_for_selector("#live[data-state=failed]")
    assert page.evaluate("window.told") == [] and page.title().startswith("✕ ")


def test_the_way_to_the_first_step_is_shown(page, sign_in, admin, run):
    Run.objects.filter(pk=run.pk).update(step=0, phase="loading")
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    assert page.text_content(".phases [aria-current=step]") == "loading"
    assert page.locator(".phases .past").count() == 2
    Run.objects.filter(pk=run.pk).update(step=1, phase="training")
    page.wait_for_selector(".phases", state="detached")
