"""Adapters: few weights trained, merged checkpoints, exact resumption; and layers that are computed twice."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf import adapters, checkpoint, config
from rlhf.reward_model import RewardModel
from rlhf.run import RunDirectory
from rlhf.train_reward import train
from tests.rlhf import tiny
from tests.rlhf.test_reward_model import QUINTETS, rewards_and_gradients

FAST = {"learning_rate": 3e-3, "batch": 8, "evaluate_every": 3, "checkpoint_every": 4}
KINDS = ["llama", "qwen3", "gpt2", "gemma3_text"]


def judge_of(folder, kind):
    return RewardModel(*checkpoint.start_reward_model(tiny.policy(folder / kind, kind), seed=0))


def directory(folder, name, **values):
    start, dataset = tiny.policy(folder / "start"), tiny.rankings(folder / "rankings.jsonl", 24)
    return tiny.run_directory(folder / name, "reward", start, dataset, **FAST | values)


def saved(path, outcome):
    folder = path / outcome.checkpoint
    return [(folder / name).read_bytes() for name in ("model.safetensors", "trainer/state.safetensors")]


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_and_head_are_trained_and_nothing_is_changed_at_first(kind, tmp_path):
    judge = judge_of(tmp_path, kind)
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    before = judge.rewards_of(examples)
    total = sum(weight.numel() for weight in judge.model.parameters())
    adapters.add(judge.model, 2)
    trained = {
        name: weight.numel() for name, weight in judge.model.named_parameters() if weight.requires_grad
    }
    assert "score.weight" in trained and all("lora" in name for name in trained if name != "score.weight")
    assert sum(trained.values()) < total / 4
    assert judge.rewards_of(examples) == [pytest.approx(row, abs=1e-6) for row in before]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_checkpoint_is_merged_and_opens_plainly(kind, tmp_path):
    judge = judge_of(tmp_path, kind)
    adapters.add(judge.model, 2)
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    untrained = judge.rewards_of(examples)
    with torch.no_grad():
        for name, weight in judge.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    found = judge.rewards_of(examples)
    assert found != [pytest.approx(row, abs=1e-3) for row in untrained]
    checkpoint.save(tmp_path / "saved", judge.model, judge.tokenizer, {"kind": "reward"}, {})
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert type(plain) is type(judge.model) and not any("lora" in name for name in plain.state_dict())
    opened = RewardModel.load(tmp_path / "saved").rewards_of(examples)
    assert opened == [pytest.approx(row, abs=1e-5) for row in found]


def test_killed_after_any_step_an_adapted_run_ends_with_the_same_bits(tmp_path):
    whole = directory(tmp_path, "whole", lora_rank=2, epochs=3)
    end = saved(whole, train(RunDirectory(whole), config.read(whole)))
    for last in (1, 5, 6):
        path = directory(tmp_path, f"killed after {last}", lora_rank=2, epochs=3)
        with pytest.raises(tiny.Killed):
            train(tiny.Doomed(path, last), config.read(path))
        assert saved(path, train(RunDirectory(path), config.read(path))) == end, last


def test_adapters_learn(tmp_path):
    path = directory(tmp_path, "run", lora_rank=8, epochs=4, learning_rate=1e-2)
    tiny.rankings(path / "dataset.jsonl", 80)
    assert train(RunDirectory(path), config.read(path)).metrics["held_out_accuracy"] > 0.7


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_computing_twice_changes_neither_rewards_nor_gradients(kind, precision, tmp_path):
    once, twice = judge_of(tmp_path, kind), judge_of(tmp_path, kind)
    adapters.compute_twice(twice.model)
    calls = []
    inner = next(
        each for each in twice.model.modules() if isinstance(each, adapters.GradientCheckpointingLayer)
    )
    next(inner.children()).register_forward_hook(lambda *_: calls.append(1))
    examples = [once.encode(*quintet) for quintet in QUINTETS]
    found = []
    for judge in (once, twice):
        judge.settle(examples)
        judge.choose_precision(precision, examples)
        calls.clear()
        found.append(rewards_and_gradients(judge, judge.rewards, examples))
    assert len(calls) == 2
    assert torch.equal(found[0][0], found[1][0]) and torch.allclose(found[0][1], found[1][1], atol=1e-6)
