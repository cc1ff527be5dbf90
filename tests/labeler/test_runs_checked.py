"""The page of a policy run against a checker: two large charts, what imitation reaches, samples that grew."""

import json
import re
from pathlib import Path

import pytest
from django.urls import reverse

from labeler import answers, charts, samples
from labeler.models import Checkpoint, Request, Run, Sample, Step
from labeler.templatetags.runs import outcome
from rlhf import config
from tests.labeler.checked import practised, sums  # noqa: F401 - fixtures
from tests.labeler.runs import start  # noqa: F401

AT_STEP_0 = {"held_out_accuracy": 0.68, "held_out_sampled": 0.4, "imitation_accuracy": 0.9}


def policy(**settings) -> dict:
    return config.as_dict(config.make("policy", {"checker": "number", "reward": ""} | settings))


@pytest.fixture
def run(project, start):  # noqa: F811
    made = project.runs.create(
        kind=Run.Kind.POLICY, state=Run.State.FINISHED, start=start, config=policy(), step=2, total=2,
        result={"state": "finished", "metrics": {"held_out_accuracy": 0.95, "held_out_sampled": 0.9}},
    )  # fmt: skip
    steps = {
        0: AT_STEP_0,
        1: {"accuracy": 0.4, "length": 5.0},
        2: {"accuracy": 0.6, "held_out_accuracy": 0.95},
    }
    Step.objects.bulk_create(Step(run=made, step=step, metrics=found) for step, found in steps.items())
    texts = {0: ("9.", "First 4+5=9. Then 9."), 2: ("First 4+5=9. Then 9.", "First 4+5=9. Then 9.")}
    for step, said in texts.items():
        for index, text in enumerate(said):
            line = {
                "step": step, "index": index, "prompt": f"Sum {index}", "rollout": text, "score": None,
                "kl": 0.0, "finished": True, "correct": index == 1, "length": len(text.split()),
            }  # fmt: skip
            Sample.objects.create(run=made, step=step, index=1 - index, line=line)
    return made


def test_accuracy_and_length_are_the_large_charts_with_what_imitation_reaches(run):
    found = charts.charts(run)
    large = [each["title"] for each in found if each["large"]]
    assert large == ["Accuracy", "Mean length of an answer, in tokens"]
    lines = {line["of"]: line["share"] for line in found[0]["lines"]}
    assert lines == {"held_out_accuracy": 1, "imitation_accuracy": 1}
    keys = [each["key"] for each in found[0]["series"]]
    assert keys == ["accuracy", "held_out_accuracy", "held_out_sampled"]


def test_the_phrases_that_are_counted_are_named(run):
    run.config = policy(recheck_phrases="wait, hold on")
    about = [each["about"] for each in charts.charts(run)]
    assert "Those that say “wait”, “hold on”." in about


def test_the_parts_of_a_mixed_reward_are_drawn_apart(run):
    def parts(**settings):
        run.config = policy(**settings)
        return [
            each["key"] for chart in charts.charts(run) for each in chart["series"]
            if each["key"].startswith("reward_")
        ]  # fmt: skip

    assert parts() == []
    assert parts(format_weight=0.1) == ["reward_checker", "reward_format", "reward_unfinished"]
    assert parts(reward="inputs/reward")[1] == "reward_model"


def test_a_run_against_a_reward_model_keeps_its_one_large_chart(run):
    run.config = config.as_dict(config.make("policy", {}))
    assert [each["large"] for each in charts.charts(run)].count(True) == 1


def test_samples_that_grew_come_first(run):
    assert [each.prompt for each in samples.at(run, 0, None)] == ["Sum 1", "Sum 0"]
    grown = samples.at(run, 2, 0)
    assert [(each.prompt, each.length_then, each.length) for each in grown] == [
        ("Sum 0", 1, 4), ("Sum 1", 4, 4),
    ]  # fmt: skip


def test_the_page_says_what_was_right_and_what_came_of_it(client, admin, run):
    client.force_login(admin)
    page = client.get(reverse("run", args=[run.pk])).content.decode()
    assert "Held out, greedy" in page and "95 %" in re.sub(r"\s", " ", page).replace("95%", "95 %")
    assert "✓" in page and "✗" in page and "what grew the most comes first" in page
    assert outcome(run).startswith("95")
    steps = json.loads(client.get(reverse("run_steps", args=[run.pk])).content)["steps"]
    assert steps[0] == AT_STEP_0 | {"step": 0}


def test_a_curve_leads_to_the_practice_grid(client, admin, run):
    client.force_login(admin)
    Run.objects.filter(pk=run.pk).update(checker={"name": "number"})
    response = client.get(reverse("run", args=[run.pk]))
    assert response.context["chart_spec"]["open"] == reverse("practice", args=[run.pk])
    assert "See the practice grid of a step" in response.content.decode()


def test_the_start_has_no_rollouts_to_open(client, admin, run):
    client.force_login(admin)
    assert client.get(reverse("step", args=[run.pk, 0])).status_code == 404
    assert client.get(reverse("steps", args=[run.pk]), {"step": "0"}).url == reverse("step", args=[run.pk, 1])


def test_before_and_after_are_held_against_right_answers(as_admin, practised, home, monkeypatch):  # noqa: F811
    for step, said in ((None, "It is 6."), (3, "It is 5.")):
        folder = home / "checkpoints" / said
        folder.mkdir(parents=True)
        about = {"name": said, "kind": "policy", "location": str(folder), "step": step}
        Checkpoint.objects.create(project=practised.project, run=practised if step else None, **about)
    practised.start = Checkpoint.objects.get(step=None)
    practised.save()
    address = reverse("run_compare", args=[practised.pk])
    asks = as_admin.get(address).content.decode()
    assert "the checker says which answers are correct" in asks and "the reward model" not in asks
    as_admin.post(address, {"after": Checkpoint.objects.get(step=3).pk, "seed": 0})

    def wrote(op, checkpoint, prompts, **rest):
        return {"rollouts": [[{"text": Path(checkpoint).name, "finished": True}] for _ in prompts]}

    monkeypatch.setattr(answers.warm, "ask", wrote)
    asked = Request.objects.claim(Request.objects.get(kind="compare").pk)
    asked.answer_with(answers.KINDS["compare"](asked, asked.question))
    said = re.sub(r"<[^>]*>", "", as_admin.get(address).content.decode())
    assert "Of 2 problems, 0 are correct before and 1 after." in said
    assert said.count("✓ correct") == 1 and said.count("✗ incorrect") == 3
    assert "for people to say" not in said, "a checker says it here"
