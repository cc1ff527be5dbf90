"""Supervised finetuning: the loss by hand, learning, equal seeds, and no dependence on how a batch is cut."""

import json

import pytest
import torch

from rlhf import batch, checkpoint, config, data
from rlhf.batch import Example
from rlhf.run import RunDirectory
from rlhf.train_sft import held_out_loss, token_losses, train
from tests.rlhf import tiny

PAIRS = [Example([2, 70, 3], [[80, 81, 4]]), Example([2, 70, 71, 72, 3], [[90, 4]])]


@pytest.fixture
def sft(policy_folder, tmp_path):
    """A function that makes a run directory and trains in it."""

    def trained(name, **values):
        dataset = tiny.demonstrations(tmp_path / "demonstrations.jsonl")
        known = {"learning_rate": 3e-3, "max_new_tokens": 16, "sample_prompts": 2, "evaluate_every": 5}
        path = tiny.run_directory(tmp_path / name, "sft", policy_folder, dataset, **known | values)
        return path, train(RunDirectory(path), config.read(path))

    return trained


def weights(path, outcome):
    return (path / outcome.checkpoint / "model.safetensors").read_bytes()


def test_the_loss_is_that_of_the_rollouts_tokens_alone():
    model = tiny.model()
    found = token_losses(model, PAIRS, pad=0).tolist()
    expected = []
    for example in PAIRS:
        ids = example.prompt + example.rollouts[0]
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected += [-log_probs[at - 1, ids[at]].item() for at in range(len(example.prompt), len(ids))]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_padding_changes_no_loss(kind):
    model = tiny.model(kind)
    together = token_losses(model, PAIRS, pad=0).tolist()
    apart = [loss for example in PAIRS for loss in token_losses(model, [example], pad=0).tolist()]
    assert together == pytest.approx(apart, abs=1e-5)


def test_nothing_held_out_is_nothing_measured():
    assert held_out_loss(tiny.model(), [], 4, 0) is None


def test_it_learns_to_write_what_people_wrote(sft):
    path, outcome = sft("run", epochs=30, held_out=0, batch=8)
    steps = [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]
    assert steps[0]["loss"] > 5
    assert steps[-1]["loss"] < 1.0
    assert {"loss", "learning_rate", "tokens"} <= steps[3].keys()
    model, _ = checkpoint.load_policy(path / outcome.checkpoint)
    assert not model.training


def test_samples_are_of_the_same_prompts_each_time(sft):
    path, _ = sft("run", epochs=4, batch=8)
    samples = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    prompts = {
        step: [s["prompt"] for s in samples if s["step"] == step] for step in {s["step"] for s in samples}
    }
    assert set(prompts) == {1, 5, 10, 11}
    assert len(set(map(tuple, prompts.values()))) == 1
    assert samples[0].keys() == {"step", "index", "prompt", "rollout", "score", "kl", "finished"}
    steps = [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps if "held_out_loss" in step] == [1, 5, 10, 11]


def test_equal_seeds_give_equal_weights(sft):
    runs = [sft("one", seed=1), sft("same", seed=1), sft("other", seed=2)]
    one, same, other = (weights(*run) for run in runs)
    assert one == same != other


def test_a_batch_may_be_cut_into_any_portions(sft):
    models = [
        checkpoint.load_policy(path / outcome.checkpoint)[0]
        for path, outcome in (sft("whole", micro_batch=16), sft("cut", micro_batch=3))
    ]
    for whole, cut in zip(*(model.parameters() for model in models), strict=True):
        # Adam divides by a gradient's own size, so rounding shows most where the gradient is next to nothing.
        assert (whole - cut).abs().mean() < 1e-5


def test_what_is_held_out_is_held_out_by_prompt(policy_folder, tmp_path):
    lines = data.demonstrations(tiny.demonstrations(tmp_path / "demonstrations.jsonl"))
    taught, held = data.split_by_prompt([line.prompt for line in lines], 0.25, seed=0)
    assert sorted(taught + held) == list(range(24))
    assert len(held) == 6
    assert not {lines[n].prompt for n in taught} & {lines[n].prompt for n in held}


def test_long_examples_are_cut_and_counted(sft):
    _, outcome = sft("run", max_tokens=12, epochs=1)
    assert outcome.metrics["prompts_cut"] == 24
    assert outcome.metrics["rollouts_cut"] == 24 - sum(len(f"pelican {n % 12}") + 1 < 12 for n in range(24))
    assert batch.fit([1] * 50, [[2] * 50], 12).tokens == 12
