"""A reward model's training with little to learn from, or gone wrong: counted, said, stopped."""

import json

import pytest

from rlhf import checkpoint, data, losses, train_reward
from rlhf.execute import execute
from rlhf.reward_model import RewardModel
from rlhf.run import Failed
from tests.rlhf.rewarding import directory, read, run

__all__ = ["directory"]  # fixtures


def test_rankings_of_equals_are_kept_counted_and_not_trained_on(directory):
    path = directory("run")
    lines = [line for _, line in data.read_lines(path / "dataset.jsonl")]
    equal = lines[0] | {"ranks": [1] * len(lines[0]["ranks"])}
    data.write_lines(path / "dataset.jsonl", [*lines, equal, equal])
    before = sum(not data.ranking(line).teaches for line in lines)
    metrics = run(path).metrics
    assert (metrics["rankings"], metrics["all_tied"]) == (26, before + 2)


def test_only_equals_teach_nothing_and_the_run_says_so(directory):
    path = directory("run")
    data.write_lines(path / "dataset.jsonl", [{"prompt": "p", "rollouts": ["a", "b"], "ranks": [1, 1]}])
    with pytest.raises(Failed, match="better than another") as failed:
        run(path)
    assert failed.value.field == "dataset"


def test_with_nothing_held_out_nothing_is_claimed(directory):
    metrics = run(directory("run", held_out=0, epochs=1)).metrics
    assert (metrics["held_out_accuracy"], metrics["held_out_pairs"], metrics["nll"]) == (None, 0, None)
    assert metrics["tau"] == 1.0


def test_a_loss_that_is_no_number_names_its_quintets(directory):
    path = directory("run")
    model, tokenizer = checkpoint.start_reward_model(path / "inputs/policy", seed=0)
    model.score.weight.data.fill_(3e38)
    checkpoint.save(path / "inputs/policy", model, tokenizer, {"kind": "reward"}, {})
    with pytest.raises(Failed, match=r"At step 1 .* on the quintets \d+, \d+"):
        run(path)
    assert not list((path / "checkpoints").iterdir())


def test_a_loss_that_explodes_stops_the_run_at_its_last_good_checkpoint(directory, monkeypatch):
    path = directory("run", epochs=8, checkpoint_every=1)
    monkeypatch.setattr(train_reward, "rate", lambda step, *_: 3e-3 if step < 8 else 30.0)
    with pytest.raises(Failed, match=r"At step \d+ the loss was .* worst on the quintets \d+, ") as failed:
        run(path)
    told = [line["loss"] for line in read(path / "steps.jsonl")]
    step = int(failed.value.reason.split()[2])
    assert len(told) == step - 1  # the third step in a row was not even taken
    assert losses.exploding(told) == 2
    newest = max((path / "checkpoints").iterdir())
    # The first of the three losses was that of the weights which the step before it had left.
    assert newest.name == f"step-{step - 4:06d}"
    known = json.loads((newest / "trainer/state.json").read_text())["metrics"]
    assert known["held_out_loss"] < 2


@pytest.mark.parametrize("size", [1e12, 1e36])  # no number at all, or the same one for everything
def test_weights_that_are_lost_in_a_step_are_not_kept(directory, monkeypatch, size):
    """Its own loss was fine: it is the next one that would tell."""
    path = directory("run", epochs=8, checkpoint_every=1)
    monkeypatch.setattr(train_reward, "rate", lambda step, *_: 3e-3 if step < 5 else size)
    assert execute(path) == 1
    result = json.loads((path / "result.json").read_text())
    assert result["checkpoint"] == "checkpoints/step-000004" and result["field"] == "learning_rate"
    assert "At step 5 the loss" in result["reason"] and " on the quintets " in result["reason"]
    assert RewardModel.load(path / result["checkpoint"])
    assert [line["step"] for line in read(path / "steps.jsonl")] == [1, 2, 3, 4]


def test_one_prompt_alone_is_trained_on_and_not_held_out():
    assert data.split_by_prompt(["a", "a", "a"], 0.2, 0) == ([0, 1, 2], [])
    taught, held = data.split_by_prompt(["a", "b"], 0.01, 0)
    assert (len(taught), len(held)) == (1, 1)


def test_a_run_that_has_no_step_left_still_tells_what_to_use(directory):
    """Its judging was interrupted, so that it is started again."""
    path = directory("run", early_stop=50)
    first = run(path)
    assert first.extra["suggested"]
    assert run(path) == first


def test_the_little_that_may_be_given_is_trained_on_and_nothing_is_claimed(directory):
    """Five rankings by one labeler on one prompt: nothing can be held out."""
    path = directory("run", epochs=1, early_stop=1)
    lines = [line for _, line in data.read_lines(path / "dataset.jsonl")][:5]
    given = [line | {"prompt": "Joke.", "labeler": "ann", "simulated": False} for line in lines]
    data.write_lines(path / "dataset.jsonl", given)
    assert execute(path) == 0
    result, found = (json.loads((path / name).read_text()) for name in ("result.json", "evaluation.json"))
    assert result["metrics"]["held_out_accuracy"] is None and found["accuracy"]["value"] is None
    claims = " ".join(found["claims"])
    for words in ("Nothing was held out", "by one labeler", "fewer than 20"):
        assert words in claims and words in (path / "log.txt").read_text()
