"""Launching practice: what a policy run of a checked project is given, what it is not asked, its cap."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from labeler import checking
from labeler.models import Checkpoint, Run
from labeler.models.launching import LaunchedBefore
from rlhf.config import Refused
from tests.labeler.checked import sums  # noqa: F401 - a fixture
from tests.labeler.runs import checkpoint, make, page, read

pytestmark = pytest.mark.django_db


@pytest.fixture
def ready(sums, start):  # noqa: F811 - which brings two prompts without an answer
    sums.refresh_from_db()
    return sums


def launch(project, **more) -> Run:
    return Run.objects.launch(project, "policy", more.pop("values", {}), None, **more)


def prompts_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "prompts.jsonl").read_text().splitlines()]


def test_a_run_is_given_the_checker_and_no_reward_model(ready, reward_model):
    run = launch(ready, values={"steps": 2000})
    assert (run.config["checker"], run.config["reward"], run.reward_model) == ("number", "", None)
    assert run.judged == "rules" and run.config["beta"] == 0
    assert run.checker == {"name": "number"}
    run.start = None
    run.prepare_directory()
    assert json.loads((run.directory / "checker.json").read_text()) == {"name": "number"}


def test_its_options_go_with_it_and_make_it_another_run(ready, admin):
    launch(ready)
    with pytest.raises(LaunchedBefore):
        launch(ready)
    ready.change(admin, checker={"name": "number", "relative": 0.1})
    run = launch(ready)
    assert run.checker == {"name": "number", "relative": 0.1}


def test_prompts_without_an_answer_or_with_one_that_cannot_be_read_are_left_out_and_said(ready):
    ready.prompts.create(content="What is love?", answer="a song")
    checking.attend(ready)
    run = launch(ready)
    assert {each["answer"] for each in prompts_of(run)} == {"5", "24"}
    said = " ".join(run.foreseen.warnings)
    assert "2 prompts without an answer and 1 whose answer the checker cannot read are left out" in said
    assert "1 of 3 references cannot be read by its own checker" in said


def test_a_reference_that_fails_is_warned_of_and_stops_nothing(ready):
    prompt = ready.prompts.get(answer="5")
    ready.demonstrations.create(prompt=prompt, completion="It is 6.", solution=True)
    ready.prompts.update(reference_by="")
    checking.attend(ready)
    run = launch(ready)
    assert len(prompts_of(run)) == 2
    assert any("1 of 2 references does not pass" in each for each in run.foreseen.warnings)


def test_without_any_answer_it_is_refused(ready):
    ready.prompts.update(answer="")
    with pytest.raises(Refused, match="No prompt has an answer that the checker can read"):
        launch(ready)


def test_mixed_with_a_reward_model_it_is_capped(ready, reward_model):
    run = launch(ready, reward_model=reward_model, values={"steps": 500})
    assert run.judged == "mixed" and run.reward_model == reward_model
    assert run.config["reward"] == "inputs/reward"
    with pytest.raises(Refused, match="at most 500 steps"):
        launch(ready, reward_model=reward_model, values={"steps": 501})


def test_a_judge_needs_a_model_and_brings_the_cap(ready, admin):
    ready.change(admin, checker={"name": "judge"})
    with pytest.raises(Refused, match="a judge without a model"):
        launch(ready)
    ready.change(admin, judge_model=Checkpoint.objects.create(project=ready, name="Judge", location="judge"))
    with pytest.raises(Refused, match="at most 500 steps"):
        launch(ready, values={"steps": 501})
    run = launch(ready, values={"steps": 500})
    assert run.judge_model.name == "Judge" and run.judged == "mixed"


def test_the_page_says_that_there_is_no_cap_and_asks_for_no_reward_model(as_admin, ready):
    shown = page(as_admin, "run_new", ready.slug, "policy")
    assert "No cap: every part of the reward is computed by rule." in shown
    assert "none: the checker alone" in shown and "Practise</button>" in shown
    assert "1 to 1,000,000 steps" in shown and "By the simulator of people" not in shown
    assert "2 prompts without an answer are left out of practice" in shown


def test_the_page_says_why_there_is_one(as_admin, ready, reward_model):
    address = reverse("run_new", args=[ready.slug, "policy"])
    shown = read(as_admin.get(address, {"reward_model": reward_model.pk}))
    assert "At most 500 steps: a part of the reward is what a reward model says" in shown
    assert "Weight of the reward model" in shown and "1 to 500 steps" in shown


def test_the_settings_follow_whoever_judges(as_admin, ready, reward_model):
    """What was left as it was had not been meant; what was typed stays."""
    address = reverse("run_new", args=[ready.slug, "policy"])
    form = as_admin.get(address).context["form"]
    given = {name: form[name].value() for name in form.fields if form[name].value() not in ("", None)}
    given |= {"judged": "rules", "reward_model": reward_model.pk, "learning_rate": "7e-4"}
    assert given["beta"] == "0"
    asked = {"headers": {"HX-Request": "true"}}
    news = as_admin.get(address, given, **asked)
    said, form = read(news), news.context["form"]
    assert 'id="settings" class="stack" hx-swap-oob="true"' in said and "Weight of the reward model" in said
    assert 'name="judged" value="mixed"' in said and "1 to 500 steps" in said
    values = [form[name].value() for name in ("beta", "reward_weight", "learning_rate")]
    assert values == ["0.1", "1", "7e-4"]
    sent = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    mixed = sent | {"judged": "mixed", "beta": "0.3"}
    assert 'id="settings"' not in read(as_admin.get(address, mixed, **asked)), "it stays while one types"
    back = as_admin.get(address, mixed | {"reward_model": "", "beta": "0.1"}, **asked)
    assert back.context["form"]["beta"].value() == "0"
    assert "Weight of the reward model" not in read(back)


def test_it_is_launched_from_the_page(as_admin, ready):
    address = reverse("run_new", args=[ready.slug, "policy"])
    form = as_admin.get(address).context["form"]
    given = {name: form[name].value() for name in form.fields if form[name].value() not in ("", None)}
    answer = as_admin.post(address, given | {"steps": "1500"})
    run = Run.objects.get()
    assert answer.status_code == 302 and run.config["steps"] == 1500 and run.checker == {"name": "number"}


def test_what_was_shown_solutions_is_offered_to_be_held_against(as_admin, ready):
    taught = make(ready, "sft", "finished")
    imitation = checkpoint(taught, 12, suggested=True)
    form = as_admin.get(reverse("run_new", args=[ready.slug, "policy"])).context["form"]
    assert form["against"].value() == imitation.pk
    run = launch(ready, against=imitation)
    assert run.against == imitation and run.config["against"] == "inputs/against"
    hub = Checkpoint.objects.create(project=ready, name="Hub", location="hub:a/b@main")
    with pytest.raises(Refused, match="must be a folder"):
        launch(ready, against=hub)


def test_imitation_that_came_with_the_project_is_held_against_and_may_be_left_out(as_admin, ready):
    """Of a checkpoint that no run made here, its lineage says that it imitates."""
    lineage = {"config": {"kind": "sft"}}
    given = {"project": ready, "kind": "policy", "location": ready.start.location, "lineage": lineage}
    imitation = Checkpoint.objects.create(name="All solutions imitated", **given)
    address = reverse("run_new", args=[ready.slug, "policy"])
    assert as_admin.get(address).context["form"]["against"].value() == imitation.pk
    form = as_admin.get(address, {"start": imitation.pk}).context["form"]
    assert form["against"].value() is None, "that would be held against itself"
    sent = {name: form[name].value() for name in form.fields if form[name].value() not in ("", None)}
    assert as_admin.post(address, sent | {"start": ready.start.pk, "against": ""}).status_code == 302
    assert Run.objects.latest("pk").against is None, "nothing was chosen, and nothing it is"
    assert launch(ready, values={"seed": 7}).against == imitation


def test_all_that_is_written_is_counted_though_less_is_learnt_from(as_admin, ready):
    for number in range(20):
        ready.prompts.create(content=f"What is {number} + 9?", answer=str(number + 9))
    shown = page(as_admin, "run_new", ready.slug, "policy")
    assert "90 steps × 16 prompts × 8 rollouts = 11,520 rollouts checked" in shown
    assert "learnt from: 8 prompts a step" in shown


def test_a_page_without_answers_leads_to_where_they_are_added(as_admin, ready):
    ready.prompts.update(answer="")
    assert "No prompt has an answer yet" in page(as_admin, "run_new", ready.slug, "policy")


def test_the_command_line_practises_too(ready, capsys):
    call_command("launch", "policy", "--project", ready.slug, "--set", "steps=900")
    assert Run.objects.get().judged == "rules"
    assert "2 prompts without an answer are left out" in capsys.readouterr().err
    with pytest.raises(CommandError, match="Launch it once more with --again"):
        call_command("launch", "policy", "--project", ready.slug, "--set", "steps=900")


def test_other_kinds_of_run_are_as_they_were(ready):
    run = Run.objects.launch(ready, "rollouts", {}, None)
    assert run.checker == {} and len(prompts_of(run)) == 4
