"""The pages of what a reward model is worth, through the front door: real runs of a tiny model, and the words
around their numbers."""

import json
import random
import re

import pytest
from django.urls import reverse

from labeler import tasks
from labeler.follower import Follower
from labeler.models import Checkpoint, Dataset, Evaluation, Run, User
from labeler.models.evaluations import read
from labeler.templatetags import evaluations as words
from labeler.trainer import Trainer
from rlhf import config
from rlhf.execute import execute
from tests.rlhf import tiny

FAST = {"learning_rate": 0.003, "batch": 8, "epochs": 1, "held_out": 0.4, "max_tokens": 256, "device": "cpu"}


def carry_out(run: Run) -> Run:
    """What a worker does with a run, in this process."""
    run = Run.objects.claim(run.pk, "here")
    run.prepare_directory()
    execute(run.directory)
    tasks.conclude(run, Trainer(run.directory), Follower(run), False)
    run.refresh_from_db()
    assert run.state == "finished", run.reason
    return run


@pytest.fixture
def start(project, home) -> Checkpoint:
    """A tiny model that the project begins with."""
    if not (home / "checkpoints" / "tiny").exists():
        tiny.policy(home / "checkpoints" / "tiny")
    project.start = Checkpoint.objects.create(project=project, name="Tiny", location="checkpoints/tiny")
    project.save()
    return project.start


@pytest.fixture
def ranked(project, labeler, stranger, new_ranking) -> None:
    """Twenty-four quintets by two people who like long ones, and half of them once more by a program."""
    bot, chances = User.objects.create(username="bot", simulated=True), random.Random(0)
    for number in range(24):
        texts = [" ".join(chances.choices(tiny.WORDS, k=size)) for size in (3, 5, 1, 4, 2)]
        first = new_ranking((3, 1, 5, 2, 4), prompt=f"Joke {number}?", texts=texts)
        new_ranking((3, 2, 5, 1, 4), quintet=first.quintet, by=stranger)
        if number % 2:
            new_ranking((5, 4, 3, 2, 1), quintet=first.quintet, by=bot)


def train(project, admin, **values) -> Run:
    return carry_out(Run.objects.launch(project, "reward", FAST | values, admin, simulated=True))


def page(client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def unmarked(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def spaced(claim: str) -> str:
    """As `page` gives it back."""
    return " ".join(words.spaced(claim).split())


def test_the_page_shows_what_was_measured(as_admin, project, admin, start, ranked):
    run = train(project, admin, learning_curve=True)
    found = json.loads((run.directory / "evaluation.json").read_text())
    shown = page(as_admin, reverse("evaluation", args=[run.pk]))
    said = unmarked(shown)
    share = f"{100 * found['accuracy']['value']:.0f} %"
    assert f"Of two rollouts that it never saw, it puts the better one first {share}" in said
    assert f"put the same one first {100 * found['people']['value']:.0f} % of the time" in said
    for claim in [*found["claims"], found["more_labels"]]:
        assert spaced(claim) in said
    assert f"Of the {found['rankings']} rankings that it was measured on {found['simulated']} are" in said
    for table in ("By how far apart they were ranked", "By labeler", "Does it reward length?"):
        assert table in said
    assert "lena" in said and "otto" in said and "bot" in said  # an admin may see who ranked
    assert shown.count('role="img"') == 2 and shown.count("The numbers") == 1
    for probe in found["probes"]["probes"]:
        assert f"<b>{probe['name']}</b>" in shown
    assert reverse("disagreements", args=[run.pk]) in shown


def test_the_file_is_the_one_that_the_run_left(as_admin, project, admin, start, ranked):
    run = train(project, admin)
    response = as_admin.get(reverse("evaluation_file", args=[run.pk]))
    content = b"".join(response)
    assert content == (run.directory / "evaluation.json").read_bytes()
    assert f'filename="evaluation-{run.pk}.json"' in response["Content-Disposition"]
    assert json.loads(content)["quintets"] and "quintets" not in run.evaluation.found


def test_the_pages_of_the_run_and_of_its_checkpoint_say_it_in_short_and_lead_there(
    as_admin, project, admin, start, ranked
):
    run = train(project, admin)
    measured = run.evaluation.checkpoint
    assert measured.suggested
    for address in (reverse("run", args=[run.pk]), reverse("checkpoint", args=[measured.pk])):
        shown = page(as_admin, address)
        assert spaced(run.evaluation.found["claims"][0]) in shown
        assert reverse("evaluation", args=[run.pk]) in shown
        assert "It is the last one: only with the setting “Patience”" in shown


def test_two_reward_models_are_chosen_on_a_form_and_stand_side_by_side(
    as_admin, project, admin, start, ranked
):
    first = train(project, admin, epochs=6).checkpoints.get(suggested=True)
    run = train(project, admin, seed=0, epochs=0.2)
    second = run.checkpoints.get(suggested=True)
    shown = page(as_admin, reverse("evaluation", args=[first.run.pk]))
    ask = re.search(r'href="([^"]*/new/[^"]*against=[^"]*)"', shown)[1].replace("&amp;", "&")
    form = page(as_admin, ask)
    assert (
        f'<option value="{second.pk}" selected>' in form and f'<option value="{first.pk}" selected>' in form
    )
    sent = {"reward_model": first.pk, "against": second.pk, "dataset": run.dataset.pk, "simulated": "on"}
    sent |= {"unseen": "on", "seed": 0, "device": "cpu", "max_tokens": 256}
    answer = as_admin.post(ask, sent)
    asked = Run.objects.first()
    assert answer.url == reverse("run", args=[asked.pk]) and asked.against == second
    waiting = page(as_admin, reverse("evaluation", args=[asked.pk]))
    assert "It is being measured" in waiting and 'hx-trigger="every 2s"' in waiting
    asked = carry_out(asked)
    told = asked.evaluation.found["against"]
    said = unmarked(page(as_admin, reverse("evaluation", args=[asked.pk])))
    for claim in told["claims"]:
        assert spaced(claim) in said
    for share in (told["first"], told["second"]):
        assert f"{100 * share['value']:.0f} %" in said
    assert f"First: {first} . Second: {second} ." in said
    assert words.p_value(told["p"]) in said and words.p_value(told["p_sign"]) in said
    assert (
        f"{asked.evaluation.found['unseen']['left_out']} rankings of prompts that one of them was trained on"
        in said
    )
    differing = told["differing"]["first"] + told["differing"]["second"]
    assert differing and all(each["prompt"] in said for each in differing)
    assert "hx-trigger" not in page(as_admin, reverse("evaluation", args=[asked.pk]))
    short = page(as_admin, reverse("run", args=[asked.pk]))
    assert (
        spaced(told["claims"][0]) in short
        and "See all that was measured" in short
        and "Compared with" in short
    )
    assert "the second one" in page(as_admin, reverse("runs"))
    for checkpoint in (first, second):
        shown = page(as_admin, reverse("checkpoint", args=[checkpoint.pk]))
        assert f"{first} beside {second}" in shown and "What it is worth" in shown


@pytest.fixture
def judge(project) -> Checkpoint:
    dataset = Dataset.objects.create(project=project, sha256="1" * 64, path="datasets/a", lines=9)
    run = Run.objects.create(
        project=project,
        kind="reward",
        state="finished",
        dataset=dataset,
        config=config.as_dict(config.make("reward", {})),
        result={"state": "finished", "why": "Step 20 has the least loss; the last 3 were no better."},
    )
    return run.checkpoints.create(
        project=project, kind="reward", name="Judge", location="judge", step=20, suggested=True
    )


def test_a_reward_model_is_not_compared_with_itself_or_with_a_stranger(as_admin, project, judge, new_ranking):
    new_ranking()
    other = Checkpoint.objects.create(kind="policy", name="A policy", location="policy")
    address = reverse("run_new", args=[project.slug, "evaluation"])
    sent = {"reward_model": judge.pk, "dataset": "now", "seed": 0, "device": "cpu", "max_tokens": 256}
    answer = as_admin.post(address, sent | {"against": judge.pk})
    assert answer.status_code == 422 and "differs in nothing from itself" in answer.content.decode()
    assert as_admin.post(address, sent | {"against": other.pk}).status_code == 422
    assert not project.runs.filter(kind="evaluation").exists()
    assert as_admin.post(address, sent | {"against": ""}).status_code == 302
    assert project.runs.get(kind="evaluation").config["against"] == ""


def test_a_run_that_left_no_evaluation_says_so_and_what_to_do(as_admin, judge):
    shown = page(as_admin, reverse("evaluation", args=[judge.run.pk]))
    assert "Nothing was measured" in shown and "runs of older versions did not" in shown
    assert f"?reward_model={judge.pk}&amp;dataset={judge.run.dataset_id}" in shown
    assert as_admin.get(reverse("evaluation_file", args=[judge.run.pk])).status_code == 404
    assert "has not been measured" in page(as_admin, reverse("checkpoint", args=[judge.pk]))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("failed", "failed before anything was measured"),
        ("cancelled", "stopped before anything was measured"),
    ],
)
def test_why_a_run_has_none_is_said(as_admin, judge, state, said):
    Run.objects.update(state=state)
    assert said in page(as_admin, reverse("evaluation", args=[judge.run.pk]))


def test_a_live_run_is_asked_again(as_admin, judge):
    Run.objects.update(state="queued")
    shown = page(as_admin, reverse("evaluation", args=[judge.run.pk]))
    assert "is measured when its training has ended" in shown and 'hx-trigger="every 2s"' in shown
    news = as_admin.get(reverse("evaluation", args=[judge.run.pk]), headers={"HX-Request": "true"})
    assert news.content.decode().strip().startswith('<div id="measured"')


def test_why_the_suggested_checkpoint_is_not_the_last_one_is_said(as_admin, judge):
    for address in (reverse("checkpoint", args=[judge.pk]), reverse("run", args=[judge.run.pk])):
        assert "Step 20 has the least loss; the last 3 were no better." in page(as_admin, address)


def test_only_runs_that_measure_have_such_a_page(as_admin, project):
    policy = project.runs.create(kind="policy")
    assert as_admin.get(reverse("evaluation", args=[policy.pk])).status_code == 404


def test_what_postgres_cannot_hold_is_left_out_of_the_row(judge, home):
    folder = judge.run.directory
    folder.mkdir(parents=True, exist_ok=True)
    text = '{"accuracy": {"value": NaN}, "checkpoint": "judge", "claims": ["a\\u0000b"], "quintets": [1]}'
    (folder / "evaluation.json").write_text(text)
    kept = Evaluation.objects.keep(judge.run)
    kept.refresh_from_db()
    assert kept.found["accuracy"]["value"] is None and kept.found["claims"] == ["a\ufffdb"]
    assert "quintets" not in kept.found
    (folder / "evaluation.json").write_text('{"accu')
    assert read(folder / "evaluation.json") is None and Evaluation.objects.keep(judge.run) is None


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ([-40, -12], "12 to 40 shorter"),
        ([3, 9], "3 to 9 longer"),
        ([-5, 7], "5 shorter to 7 longer"),
        ([0, 0], "equally long"),
        ([-4, -4], "4 shorter"),
    ],
)
def test_a_range_of_lengths_is_said_in_words(difference, said):
    assert words.longer({"difference": difference}) == said


@pytest.mark.parametrize(
    ("value", "people", "said"),
    [
        (None, None, "Nothing can be said of length"),
        (0.05, 0.9, "next to nothing to do with length"),
        (0.2, 0.05, "leans a little towards the longer rollouts; the people who ranked lean neither way."),
        (
            -0.7,
            0.4,
            "leans strongly towards the shorter rollouts; the people who ranked lean towards the longer",
        ),
    ],
)
def test_what_length_has_to_do_with_it_is_said_in_words(value, people, said):
    assert said in words.with_length({"value": value, "people": {"value": people}})


def test_what_it_has_seen_is_said_only_as_far_as_it_is_known():
    assert words.seen({"dataset": {}}) == " that it never saw,"
    assert words.seen({"trained_on": False, "unseen": {"known": [True, True]}}) == " that it never saw,"
    assert words.seen({"trained_on": False, "unseen": {"known": [True, False]}}) == ""
    assert words.seen({"trained_on": True}) == " that it was trained on," and words.seen({}) == ""


def test_intervals_are_said_as_exactly_as_they_are_known():
    assert words.between({"low": 0.664, "high": 0.758}) == "66 to 76 %"
    assert words.between({"low": 0.701, "high": 0.703}) == "70.1 to 70.3 %"
    assert words.between({"low": None, "high": None}) == ""
    assert words.apart({"low": -0.12, "high": 0.3}) == "−0.12 to 0.30"
    assert words.chance_of(0.6931) == "50 %"
    assert words.spaced("Of 9 pairs 71.2% are right; 95 % of them.").count("\N{NO-BREAK SPACE}%") == 2
    assert (words.p_value(0.0004), words.p_value(0.04)) == ("p < 0.001", "p = 0.040")
