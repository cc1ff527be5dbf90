"""A run of kind evaluation: what a model learnt from stays out of what it is measured on, and two are set
side by side."""

import json
import shutil

import pytest

from rlhf import config, data, reward_run
from rlhf.evaluation_run import LEARNT
from rlhf.execute import execute
from tests.rlhf import tiny

FAST = {"learning_rate": 3e-3, "batch": 8, "epochs": 1, "held_out": 0.3}


@pytest.fixture(scope="module")
def taught(policy_folder, tmp_path_factory):
    """Two reward runs of the same rankings, which hold out other prompts; a function that looks one up."""
    home = tmp_path_factory.mktemp("taught")
    dataset = tiny.rankings(home / "rankings.jsonl", 40, prompts=20)
    settings = {"first": {"epochs": 3}, "second": {"seed": 2, "held_out": 0.5}, "greedy": {"held_out": 0},
                "patient": {"epochs": 6, "early_stop": 2, "evaluate_every": 2}}  # fmt: skip
    for name, values in settings.items():
        path = tiny.run_directory(home / name, "reward", policy_folder, dataset, **FAST | values)
        assert execute(path) == 0

    def look_up(name):
        path = home / name
        settings = config.read(path)
        held = reward_run.parts(data.rankings(dataset), settings)[1]
        result = json.loads((path / "result.json").read_text())
        return path / (result.get("suggested") or result["checkpoint"]), {
            data.prompt_digest(each.prompt) for each in held
        }

    look_up.dataset = dataset
    return look_up


@pytest.fixture
def evaluation(taught, tmp_path):
    """A function that makes and runs an evaluation; how it ended, and what it found."""

    def measure(reward, against="", dataset=taught.dataset, learnt=(), **values):
        path = tmp_path / "run"
        shutil.rmtree(path, ignore_errors=True)
        config.write(
            path,
            config.make(
                "evaluation", {"device": "cpu", "against": config.AGAINST if against else ""} | values
            ),
        )
        for name, place in ((reward, "reward"), (against, "against")):
            if name:
                shutil.copytree(
                    taught(name)[0], path / "inputs" / place, ignore=shutil.ignore_patterns("trainer")
                )
        shutil.copyfile(dataset, path / "dataset.jsonl")
        for file in learnt:
            (path / LEARNT).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path / LEARNT / file.name)
        status = execute(path)
        found = path / "evaluation.json"
        result = json.loads((path / "result.json").read_text())
        return status, result, json.loads(found.read_text()) if found.exists() else None

    return measure


def digests(found):
    return {data.prompt_digest(each["prompt"]) for each in found["quintets"]}


def test_what_a_model_was_trained_on_is_left_out(taught, evaluation):
    status, _, found = evaluation("first")
    assert status == 0
    assert digests(found) <= taught("first")[1] and len(taught("first")[1]) > 4
    assert found["unseen"]["known"] == [True] and found["unseen"]["left_out"] == 40 - found["rankings"]
    assert found["trained_on"] is False
    assert any(each.startswith("Left out") for each in found["claims"])


def test_tau_is_never_judged_by_the_pairs_that_it_was_fitted_on(taught, evaluation, tmp_path):
    """What it held out is what is left of its own dataset: the same numbers as at its training's end."""
    own = json.loads((taught("first")[0].parent.parent / "evaluation.json").read_text())
    _, _, found = evaluation("first")
    assert found["tau_of"] == own["tau_of"] == "other prompts"
    assert (found["nll"], found["ece"]) == pytest.approx((own["nll"], own["ece"]), rel=1e-4)
    other = tiny.rankings(tmp_path / "other.jsonl", 30, prompts=10, seed=5)
    moved = [line | {"prompt": f"Anew: {line['prompt']}"} for _, line in data.read_lines(other)]
    data.write_lines(other, moved)
    _, _, found = evaluation("first", dataset=other, learnt=[taught.dataset])
    assert found["rankings"] == 30 and found["unseen"]["known"] == [True]
    assert found["tau_of"] == "elsewhere"


def test_it_is_told_where_patience_chose_a_model_by_what_it_is_measured_on(taught, evaluation):
    for name, chosen in (("patient", True), ("first", False)):
        path = taught(name)[0].parent.parent
        _, _, found = evaluation(name)
        for told in (found, json.loads((path / "evaluation.json").read_text())):
            assert told["chosen_here"] is chosen
            assert any("Patience chose it" in each for each in told["claims"]) is chosen


def test_two_models_are_measured_on_what_neither_was_trained_on(taught, evaluation):
    one, other = taught("first"), taught("second")
    status, result, found = evaluation("first", "second")
    assert status == 0
    assert digests(found) and digests(found) <= one[1] & other[1] < one[1]
    told = found["against"]
    assert told["first"] == found["accuracy"] and told["second"] == told["other"]["accuracy"]
    assert told["rankings"] == len(found["quintets"]) and "quintets" not in told["other"]
    assert told["other"]["tau"] != found["tau"] and told["claims"]
    metrics = result["metrics"]
    assert (metrics["accuracy"], metrics["other_accuracy"]) == (
        told["first"]["value"],
        told["second"]["value"],
    )
    assert metrics["p"] == told["p"]


def test_rankings_that_came_later_are_measured_on_without_the_prompts_that_taught(
    taught, evaluation, tmp_path
):
    """The dataset that the model learnt from is another file, which lies in inputs/learnt."""
    later = tmp_path / "later.jsonl"
    lines = [json.loads(line) for line in taught.dataset.read_text().splitlines()]
    data.write_lines(later, [*lines, lines[0] | {"prompt": "A new one, please.", "quintet": "new"}])
    _, _, found = evaluation("first", dataset=later, learnt=[taught.dataset])
    assert "A new one, please." in {each["prompt"] for each in found["quintets"]}
    assert digests(found) <= taught("first")[1] | {data.prompt_digest("A new one, please.")}
    assert found["unseen"]["known"] == [True]


def test_where_nobody_knows_what_taught_it_everything_counts_and_it_is_said(taught, evaluation, tmp_path):
    other = tiny.rankings(tmp_path / "other.jsonl", 30, prompts=10, seed=5)
    _, _, found = evaluation("first", dataset=other)
    assert found["rankings"] == 30 and found["unseen"] == {"left_out": 0, "known": [False]}
    assert any("What it was trained on is not known" in each for each in found["claims"])


def test_with_nothing_unseen_the_run_fails_in_words_unless_memory_is_wanted(evaluation):
    status, result, found = evaluation("greedy")
    assert (status, result["state"], found) == (1, "failed", None)
    assert "taught a reward model" in result["reason"] and result["field"] == "dataset"


def test_memory_can_be_measured_and_is_called_so(evaluation):
    _, _, found = evaluation("greedy", unseen=False)
    assert found["rankings"] == 40 and found["trained_on"] and "unseen" not in found
