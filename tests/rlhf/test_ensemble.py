"""Ensembles: one checkpoint that plain transformers opens, members that learn apart, the price of doubt."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rlhf import checkpoint, config, data, ensemble, losses, weights
from rlhf.evaluate import ranks_of
from rlhf.reward_model import RewardModel, spread
from rlhf.run import RunDirectory
from rlhf.serve import Shelf, answer
from rlhf.train_reward import train
from tests.rlhf import tiny

FAST = {"learning_rate": 3e-3, "batch": 8, "evaluate_every": 3, "checkpoint_every": 4, "sample_quintets": 2}


@pytest.fixture
def directory(policy_folder, tmp_path):
    def make(name, **values):
        dataset = tiny.rankings(tmp_path / "rankings.jsonl", 24)
        return tiny.run_directory(tmp_path / name, "reward", policy_folder, dataset, **FAST | values)

    return make


@pytest.fixture
def judge(policy_folder):
    model, tokenizer = checkpoint.start_reward_model(policy_folder, seed=0)
    ensemble.add(model, policy_folder, 3, seed=0)
    return RewardModel(model, tokenizer)


def run(path):
    return train(RunDirectory(path), config.read(path))


def steps(path):
    return [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]


def examples_of(judge, path):
    given = data.rankings(path / "dataset.jsonl")
    return given, [judge.encode(each.prompt, each.rollouts) for each in given]


def test_mean_and_spread_are_those_of_three_numbers(judge):
    members = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[6.0, 0.0]]])
    assert spread(members).tolist() == [[pytest.approx((14 / 3) ** 0.5), 0.0]]
    assert judge.together(members).tolist() == [[3.0, 0.0]]
    judge.penalty = 0.5
    assert judge.together(members).tolist() == [[pytest.approx(3 - 0.5 * (14 / 3) ** 0.5), 0.0]]


def test_every_member_is_a_model_with_that_head_alone(judge, policy_folder):
    example = judge.encode("A joke", ["a pelican", "a fish with a beak", "why"])
    [found] = judge.members_of([example])
    heads = judge.model.score.weight.detach()
    plain, _ = checkpoint.start_reward_model(policy_folder, seed=0)
    for member in range(3):
        plain.score.weight.data.copy_(heads[member : member + 1])
        alone = RewardModel(plain, judge.tokenizer).rewards_of([example])[0]
        assert found[member].tolist() == pytest.approx(alone, abs=1e-5)
    assert spread(found).min() > 0.01


def test_plain_transformers_opens_the_mean_and_we_the_members(directory):
    path = directory("run", epochs=1, members=3, ensemble_penalty=0.7)
    folder = path / run(path).checkpoint
    judge = RewardModel.load(folder)
    assert (judge.count, judge.penalty) == (3, 0.7)
    known = checkpoint.lineage(folder)
    assert (known["members"], known["penalty"]) == (3, 0.7)
    plain, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and plain.config.num_labels == 1
    example = judge.encode("A joke", ["a pelican", "a fish"])
    [members] = judge.members_of([example])
    for place, rollout in enumerate(example.rollouts):
        with torch.no_grad():
            reward = plain(torch.tensor([example.prompt + rollout])).logits.item()
        assert reward == pytest.approx(members[:, place].mean().item(), abs=1e-5)
    expected = members.mean(0) - 0.7 * members.std(0, correction=0)
    assert judge.rewards_of([example])[0] == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_first_loss_is_that_of_each_member_on_its_own_sample(directory):
    path = directory("run", epochs=1, members=2, batch=64, held_out=0)
    judge = RewardModel(*checkpoint.start_reward_model(path / "inputs/policy", seed=0))
    ensemble.add(judge.model, path / "inputs/policy", 2, seed=0)
    given, examples = examples_of(judge, path)
    both = [(ranking, each) for ranking, each in zip(given, examples, strict=True) if ranking.teaches]
    total = 0.0
    for ranking, example in both:
        [members] = judge.members_of([example])
        ranks = ranks_of([ranking], len(ranking.ranks))
        for member in range(2):
            times = weights.times_drawn(ranking.prompt, member, 0)
            total += times * losses.listwise(members[member : member + 1], ranks).item()
    run(path)
    assert steps(path)[0]["loss"] == pytest.approx(total / (2 * len(both)), abs=1e-5)
    assert len({weights.times_drawn(each.prompt, member, 0) for each, _ in both for member in (0, 1)}) > 2


def test_a_member_learns_nothing_from_a_prompt_that_it_did_not_draw(directory, monkeypatch):
    monkeypatch.setattr(weights, "times_drawn", lambda prompt, member, seed: 2 * member)
    path = directory("run", epochs=1, members=2, held_out=0, centering=0.0, weight_decay=0.0)
    judge = RewardModel(*checkpoint.start_reward_model(path / "inputs/policy", seed=0))
    ensemble.add(judge.model, path / "inputs/policy", 2, seed=0)
    before = judge.model.score.weight.detach().clone()
    after = load_file(path / run(path).checkpoint / ensemble.FILE)["weight"]
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


def test_heads_differ_and_follow_from_the_seed(policy_folder):
    drawn = []
    for seed in (0, 0, 1):
        model, _ = checkpoint.start_reward_model(policy_folder, seed=0)
        ensemble.add(model, policy_folder, 4, seed)
        drawn.append(model.score.weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert len({tuple(head.tolist()) for head in torch.cat(drawn[1:])}) == 8


def test_an_ensemble_can_be_trained_on_and_as_one_model(directory, tmp_path):
    first = directory("first", epochs=1, members=3)
    start = first / run(first).checkpoint
    for members in (3, 2, 1):
        path = tmp_path / f"second {members}"
        tiny.run_directory(path, "reward", start, first / "dataset.jsonl", **FAST | {"members": members})
        ended = run(path).checkpoint
        assert RewardModel.load(path / ended).count == members


def test_adapters_go_with_members(directory):
    path = directory("run", epochs=1, members=2, lora_rank=2)
    judge = RewardModel.load(path / run(path).checkpoint)
    assert judge.count == 2
    assert len({tuple(head) for head in judge.model.score.weight.tolist()}) == 2


def test_the_spread_is_told_with_steps_and_to_who_asks(directory):
    path = directory("run", epochs=1, members=2)
    folder = path / run(path).checkpoint
    told = [line for line in steps(path) if "held_out_loss" in line]
    assert told and all(line["spread"] > 0 for line in told)
    items = [{"prompt": "A joke", "rollouts": ["a pelican", "a fish"]}]
    question = json.dumps({"id": 1, "op": "score", "checkpoint": str(folder), "items": items})
    said = answer(Shelf(torch.device("cpu")), question)
    judge = RewardModel.load(folder)
    [members] = judge.members_of([judge.encode("A joke", ["a pelican", "a fish"])])
    assert said["spreads"][0] == pytest.approx(((members[0] - members[1]).abs() / 2).tolist(), abs=1e-6)


def test_one_member_is_no_ensemble(directory):
    path = directory("run", epochs=1)
    folder = path / run(path).checkpoint
    assert not (folder / ensemble.FILE).exists()
    assert "members" not in checkpoint.lineage(folder)
    assert all("spread" not in line for line in steps(path))
