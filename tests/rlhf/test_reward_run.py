"""A reward run from end to end: what it leaves for its page, and the curve that asks for more labels."""

import dataclasses
import json
import math

import pytest
import torch

from rlhf import batch, checkpoint, config, data, learning_curve, losses, reward_run, train_reward
from rlhf.evaluate import Measured, accuracy, fit_tau
from rlhf.execute import execute
from rlhf.optimizer import Optimizer
from rlhf.reward_model import RewardModel
from rlhf.reward_run import parts, train
from rlhf.run import Cancelled, Failed, RunDirectory, Stopped
from tests.rlhf import tiny

FAST = {"learning_rate": 3e-3, "batch": 8, "epochs": 2, "held_out": 0.3}


@pytest.fixture
def directory(policy_folder, tmp_path):
    """A function that makes a run directory."""

    def make(count=30, prompts=10, **values):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", count, prompts)
        return tiny.run_directory(tmp_path / "run", "reward", policy_folder, dataset, **FAST | values)

    return make


def told(path):
    return json.loads((path / "evaluation.json").read_text())


def test_a_finished_run_leaves_its_evaluation(directory):
    path = directory()
    marked = {"prompt": "Joke 1, please.", "rollout": "fish fish", "kind": "nonsense"}
    data.write_lines(path / "probes.jsonl", [marked])
    assert execute(path) == 0
    result, found = json.loads((path / "result.json").read_text()), told(path)
    metrics = result["metrics"]
    assert found["checkpoint"] == result["checkpoint"] and result["step"] > 0
    assert found["accuracy"]["value"] == pytest.approx(metrics["held_out_accuracy"])
    assert found["accuracy"]["pairs"] == metrics["held_out_pairs"]
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
    assert (found["tau"], found["mu"]) == (metrics["tau"], metrics["mu"])
    assert (found["nll"], found["ece"]) == (metrics["nll"], metrics["ece"])
    assert found["dataset"]["rankings"] == 30 and found["dataset"]["held_out"] == found["rankings"]
    assert {"marked 1", "empty"} <= {probe["name"] for probe in found["probes"]["probes"]}
    assert "learning_curve" not in found and not (path / "curve").exists()
    assert found["claims"][0] in (path / "log.txt").read_text()
    samples = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    last = [sample for sample in samples if sample["step"] == result["step"]]
    assert len(last) > 1
    by_index = {each["index"]: each for each in found["quintets"]}
    texts = {sample["index"]: sample["rollouts"] for sample in samples if sample["step"] == 1}
    for sample in last:
        assert texts[sample["index"]] == by_index[sample["index"]]["rollouts"]
        assert sample["quintet"] == by_index[sample["index"]]["quintet"]
        assert sample["scores"] == pytest.approx(by_index[sample["index"]]["scores"], abs=1e-4)


def test_how_sure_it_is_was_fitted_on_other_prompts_than_it_is_judged_on(directory):
    path = directory(count=60, prompts=20)
    outcome = train(RunDirectory(path), config.read(path))
    found, (_, held) = told(path), parts(data.rankings(path / "dataset.jsonl"), config.read(path))
    judge = RewardModel.load(path / outcome.checkpoint)
    prompts = sorted({data.prompt_digest(each.prompt) for each in held})
    halves = [
        [each for each in held if prompts.index(data.prompt_digest(each.prompt)) % 2 == n] for n in (0, 1)
    ]
    margins = []
    for half in halves:
        rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in half])
        margins.append(Measured(rewards, half).margins)
    taus = [fit_tau(margins[1]), fit_tau(margins[0])]
    assert found["tau_of"] == "other prompts"
    assert found["taus"] == pytest.approx(sorted(taus), rel=1e-3)
    scaled = [each for own, tau in zip(margins, taus, strict=True) for each in (own / tau).tolist()]
    assert sum(bin["pairs"] for bin in found["reliability"]) == len(scaled)
    expected = sum(math.log1p(math.exp(-each)) for each in scaled) / len(scaled)
    assert found["nll"] == pytest.approx(expected, rel=1e-3)


def test_with_nothing_held_out_it_claims_nothing_and_still_tries_probes(directory):
    path = directory(held_out=0, epochs=1)
    train(RunDirectory(path), config.read(path))
    found = told(path)
    assert found["accuracy"]["value"] is None and found["quintets"] == []
    assert found["claims"][0].startswith("Nothing was held out")
    assert found["probes"]["median_real"] is not None


def test_what_is_judged_is_the_checkpoint_that_is_proposed(directory, monkeypatch):
    path = directory(checkpoint_every=2)
    first = train(RunDirectory(path), config.read(path))
    assert first.checkpoint != "checkpoints/step-000002"
    reward_run.judge(
        RunDirectory(path),
        config.read(path),
        type(first)(first.checkpoint, {}, {"suggested": "checkpoints/step-000002"}),
    )
    found = told(path)
    known = checkpoint.lineage(path / "checkpoints/step-000002")
    assert (found["checkpoint"], found["tau"]) == ("checkpoints/step-000002", known["tau"])


def test_what_was_confirmed_of_a_harvest_is_learnt_from_and_measures_nothing(directory):
    path = directory()
    given = data.rankings(path / "dataset.jsonl")
    taught, held = parts(given, config.read(path))
    found = [
        dataclasses.replace(each, ranks=(1,) * (len(each.rollouts) - 1) + (2,), extra={"purpose": "harvest"})
        for each in (taught[0], held[0])
    ]
    data.write_lines(path / "dataset.jsonl", [data.as_line(each) for each in [*given, *found]])
    more, same = parts(data.rankings(path / "dataset.jsonl"), config.read(path))
    assert (len(more), len(same)) == (len(taught) + 1, len(held))
    outcome = train(RunDirectory(path), config.read(path))
    assert (outcome.metrics["trained_on"], outcome.metrics["held_out"]) == (len(taught) + 1, len(held))
    assert outcome.metrics["all_tied"] == sum(not each.teaches for each in given)
    assert told(path)["rankings"] == len(held)


def test_the_parts_of_a_curve_are_nested_and_of_whole_prompts(tmp_path):
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 40, prompts=8))
    found = learning_curve.nested(rankings, seed=3)
    assert [len({each.prompt for each in part}) for part in found] == [2, 4, 6]
    for part, wider in zip(found, [*found[1:], rankings], strict=True):
        names = {each.quintet for each in part}
        assert names < {each.quintet for each in wider}
        assert names == {each.quintet for each in rankings if each.prompt in {e.prompt for e in part}}
    assert learning_curve.nested(rankings, seed=3) == found != learning_curve.nested(rankings, seed=4)
    assert learning_curve.nested([each for each in rankings if each.prompt == rankings[0].prompt], 0) == []


def test_the_curve_is_that_of_models_trained_on_the_parts_alone(directory, tmp_path, policy_folder):
    path = directory(learning_curve=True, epochs=1)
    assert execute(path) == 0
    found, settings = told(path), config.read(path)
    taught, held = parts(data.rankings(path / "dataset.jsonl"), settings)
    expected = learning_curve.nested(taught, settings.seed)
    assert [point["rankings"] for point in found["learning_curve"]] == [*map(len, expected), len(taught)]
    assert found["learning_curve"][-1]["accuracy"] == found["accuracy"]
    assert not (path / "curve").exists()
    result = json.loads((path / "result.json").read_text())
    assert (path / result["checkpoint"]).is_dir() and result["step"] == int(result["checkpoint"][-6:])
    # By hand: a run on the second part, measured on the same held-out rankings.
    data.write_lines(tmp_path / "part.jsonl", map(data.as_line, expected[1]))
    alone = tiny.run_directory(tmp_path / "alone", "reward", policy_folder, tmp_path / "part.jsonl",
                               **FAST | {"epochs": 1, "held_out": 0})  # fmt: skip
    judge = RewardModel.load(alone / train_reward.train(RunDirectory(alone), config.read(alone)).checkpoint)
    rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in held])
    by_hand = accuracy(Measured(rewards, held).margins)
    assert found["learning_curve"][1]["accuracy"]["value"] == pytest.approx(by_hand)


def test_the_parts_are_trained_as_long_as_the_checkpoint_that_patience_chose(directory, monkeypatch):
    """They hold nothing out to stop by: trained on, they would have learnt their rankings by heart."""
    path = directory(learning_curve=True, epochs=20, early_stop=1, evaluate_every=2)
    asked = []

    def points(run, settings, *others):
        asked.append(settings)
        return []

    monkeypatch.setattr(learning_curve, "points", points)
    assert execute(path) == 0
    result = json.loads((path / "result.json").read_text())
    chosen = int(result["suggested"].rpartition("-")[2])
    total = batch.steps_of(len(parts(data.rankings(path / "dataset.jsonl"), config.read(path))[0]), 8, 20)
    assert 0 < chosen < total
    assert asked[0].epochs == pytest.approx(20 * chosen / total) and asked[0].early_stop == 0


def test_a_curve_that_is_interrupted_goes_on_and_the_evaluation_is_there_meanwhile(directory):
    path = directory(learning_curve=True, epochs=1)
    run, settings, asked = RunDirectory(path), config.read(path), []

    def dying(part, of_part):
        asked.append(len(data.rankings(part.path / "dataset.jsonl")))
        if len(asked) == 2:
            raise Stopped
        return train_reward.train(part, of_part)

    outcome = train_reward.train(run, settings)
    taught, held = parts(data.rankings(path / "dataset.jsonl"), settings)
    step = run.step_now
    with pytest.raises(Stopped):
        learning_curve.points(run, settings, dying, taught, held)
    assert (run.step_now, run.total) == (step, step)  # not those of the part
    found = learning_curve.points(run, settings, dying, taught, held)
    assert asked == [
        found[0]["rankings"],
        *[point["rankings"] for point in found[1:2]] * 2,
        found[2]["rankings"],
    ]
    assert outcome.checkpoint == f"checkpoints/step-{step:06d}"


def test_whoever_cancels_the_run_cancels_its_curve(directory):
    path = directory(learning_curve=True, epochs=1)
    run, settings = RunDirectory(path), config.read(path)
    train_reward.train(run, settings)
    taught, held = parts(data.rankings(path / "dataset.jsonl"), settings)
    (path / "cancel").touch()
    with pytest.raises(Cancelled):
        learning_curve.points(run, settings, train_reward.train, taught, held)


def test_a_part_that_cannot_be_trained_is_told_and_costs_nothing_else(directory):
    path = directory(learning_curve=True, epochs=1)
    run, settings = RunDirectory(path), config.read(path)
    taught, held = parts(data.rankings(path / "dataset.jsonl"), settings)

    def failing(part, of_part):
        raise Failed("The loss stopped being a number.")

    found = learning_curve.points(run, settings, failing, taught, held)
    assert [point["failed"] for point in found] == ["The loss stopped being a number."] * 3
    assert {point["accuracy"]["value"] for point in found} == {None}


def test_one_update_raises_the_second_best_that_was_scored_low_and_lowers_the_worst(policy_folder):
    """As the table of disagreements shows it: the best stays up, the second best was seen last."""
    model, words = checkpoint.start_reward_model(policy_folder, 0)
    judge = RewardModel(model, words)
    example = judge.encode("A joke?", ["pelican fish", "why", "a bird", "road road road", "big beak"])
    before = judge.rewards_of([example])[0]
    seen = sorted(range(5), key=lambda place: -before[place])  # the model's own order
    ranks = torch.zeros(1, 5, dtype=torch.long)
    ranks[0, [seen[0], seen[4], seen[3], seen[2], seen[1]]] = torch.tensor([1, 2, 3, 4, 5])
    found = losses.listwise(judge.rewards([example]), ranks)
    found.mean().backward()
    Optimizer(model, 0.0, 1.0).step(1e-4)
    after = judge.rewards_of([example])[0]
    assert judge.score(after[seen[4]]) > judge.score(before[seen[4]])
    assert judge.score(after[seen[1]]) < judge.score(before[seen[1]])
    assert losses.listwise(torch.tensor([after]), ranks) < found
