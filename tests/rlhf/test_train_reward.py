"""Training a reward model: it learns what people like, equal seeds, and a crash costs nothing but time."""

import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForSequenceClassification

from rlhf import batch, checkpoint, config, data, losses, train_reward, weights
from rlhf.evaluate import Measured, fit_tau, ranks_of
from rlhf.optimizer import Optimizer
from rlhf.reward_model import RewardModel
from rlhf.sample import sample
from rlhf.train_reward import train
from tests.rlhf import tiny
from tests.rlhf.rewarding import directory, read, run, saved

__all__ = ["directory"]  # fixtures


def test_it_learns_what_people_like(directory):
    path = directory("run", count=80, epochs=2)
    outcome = run(path)
    metrics = outcome.metrics
    assert metrics["held_out_accuracy"] > 0.75
    assert metrics["held_out_pairs"] > 40
    assert metrics["nll"] < math.log(2)
    assert 0 <= metrics["ece"] < 0.3
    assert (metrics["rankings"], metrics["labelers"], metrics["simulated"]) == (80, 3, 40)
    assert metrics["trained_on"] + metrics["held_out"] + metrics["all_tied"] == 80
    each = metrics["by_labeler"].values()
    assert len(each) > 1 and sum(told["pairs"] for told in each) == metrics["held_out_pairs"]
    assert sum(told["right"] for told in each) / metrics["held_out_pairs"] == metrics["held_out_accuracy"]
    known = checkpoint.lineage(path / outcome.checkpoint)
    assert (known["mu"], known["tau"]) == (metrics["mu"], metrics["tau"])
    assert known["sha256"]["dataset"] and known["base"]["sha256"] == checkpoint.fingerprint(
        path / "inputs/policy"
    )


def test_the_scale_is_that_of_typical_answers_and_of_what_was_held_out(directory, monkeypatch):
    drawn = []

    def remembering(policy, words, prompts, count, *rest):
        found = sample(policy, words, prompts, count, *rest)
        drawn.extend(zip([prompt for prompt in prompts for _ in range(count)], found, strict=True))
        return found

    monkeypatch.setattr(train_reward, "sample", remembering)
    path = directory("run", count=80, epochs=1)
    outcome = run(path)
    judge = RewardModel.load(path / outcome.checkpoint)
    start, _ = checkpoint.load_policy(path / "inputs/policy")
    typical = judge.rewards_of([batch.Example(prompt, [each.tokens]) for prompt, each in drawn])
    assert len(typical) == 64 and len({tuple(prompt) for prompt, _ in drawn}) > 10
    assert judge.mu == pytest.approx(sum(row[0] for row in typical) / 64, abs=1e-5)
    for prompt, each in drawn[:3]:
        with torch.no_grad():
            likely = (
                start(torch.tensor([prompt + each.tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            )
        own = likely.gather(1, torch.tensor(each.tokens)[:, None])[:, 0]
        assert each.log_probs == pytest.approx(own.tolist(), abs=1e-4)
    given = data.rankings(path / "dataset.jsonl")
    telling = [each for each in given if each.teaches]
    held = [telling[number] for number in data.split_by_prompt([each.prompt for each in telling], 0.15, 0)[1]]
    rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in held])
    assert judge.tau == pytest.approx(fit_tau(Measured(rewards, held).margins), rel=1e-3)
    assert judge.tau != pytest.approx(1, rel=0.01)


def test_all_rankings_of_a_prompt_are_held_out_together(directory):
    path = directory("run", epochs=1)
    tiny.rankings(path / "dataset.jsonl", 24, prompts=2)
    telling = [each for each in data.rankings(path / "dataset.jsonl") if each.teaches]
    of_a_prompt = {sum(each.prompt == prompt for each in telling) for prompt in {e.prompt for e in telling}}
    assert run(path).metrics["held_out"] in of_a_prompt


def test_a_rollout_that_was_cut_off_is_read_where_it_stops(directory):
    whole, cut = directory("whole", epochs=1), directory("cut", epochs=1)
    written = [line for _, line in data.read_lines(cut / "dataset.jsonl")]
    ends = [line | {"finished": [False] * len(line["rollouts"])} for line in written]
    data.write_lines(cut / "dataset.jsonl", ends)
    first = [(run(path), read(path / "steps.jsonl")[0]["loss"])[1] for path in (whole, cut)]
    assert first[0] != pytest.approx(first[1], abs=1e-4)


@pytest.mark.parametrize("loss", losses.KINDS)
def test_the_first_loss_is_that_of_the_first_batch(directory, loss):
    path = directory("run", epochs=1, loss=loss, micro_batch=3)
    judge = RewardModel(*checkpoint.start_reward_model(path / "inputs/policy", seed=0))
    telling = [each for each in data.rankings(path / "dataset.jsonl") if each.teaches]
    taught = data.split_by_prompt([each.prompt for each in telling], 0.15, 0)[0]
    chosen = [telling[taught[number]] for number in batch.drawn(len(taught), 8, 1, 0)]
    rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in chosen])
    run(path)
    expected = Measured(rewards, chosen).loss(loss)
    assert read(path / "steps.jsonl")[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_centring_holds_the_mean_of_a_quintet_near_zero(directory):
    means = []
    for centering in (0.0, 10.0):
        path = directory(f"centred {centering}", count=40, epochs=3, centering=centering)
        judge = RewardModel.load(path / run(path).checkpoint)
        given = data.rankings(path / "dataset.jsonl")
        rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in given])
        means.append(sum(abs(sum(row) / len(row)) for row in rewards) / len(rewards))
    assert means[1] < 0.5 * means[0]


def test_steps_and_samples_are_told_as_they_come(directory):
    path = directory("run", epochs=3)
    run(path)
    steps = read(path / "steps.jsonl")
    assert all({"step", "seconds", "loss", "learning_rate"} <= step.keys() for step in steps)
    measured = [step["step"] for step in steps if "held_out_accuracy" in step]
    assert measured == sorted({1, *range(3, len(steps) + 1, 3), *range(4, len(steps) + 1, 4), len(steps)})
    samples = read(path / "samples.jsonl")
    assert sorted({sample["step"] for sample in samples}) == measured
    first = [sample for sample in samples if sample["step"] == 1]
    assert [sample["index"] for sample in first] == [0, 1]
    assert all(len(s["scores"]) == len(s["ranks"]) == len(s["rollouts"]) for s in first)
    given = {each.quintet: each for each in data.rankings(path / "dataset.jsonl")}
    for line in samples:
        of = given[line["quintet"]]
        assert (tuple(line["ranks"]), line["labeler"], line["simulated"]) == (
            of.ranks,
            of.labeler,
            of.simulated,
        )
        if line["step"] == 1:
            assert (line["prompt"], line["rollouts"]) == (of.prompt, list(of.rollouts))
        else:  # the texts are the same, and they are by far the greater part of such a file
            assert not {"prompt", "rollouts"} & line.keys()
    assert all(0 <= score <= 1 for sample in samples for score in sample["scores"])


def test_every_held_out_ranking_is_followed_at_every_measurement_whatever_else_is_measured(
    directory, monkeypatch
):
    monkeypatch.setattr(train_reward, "MEASURED", 2)
    path = directory("run", count=60, held_out=0.5, epochs=2, sample_quintets=256)
    held = run(path).metrics["held_out"]
    seen = Counter(sample["step"] for sample in read(path / "samples.jsonl"))
    assert len(seen) > 3 and set(seen.values()) == {held} and held > 10


def test_plain_transformers_opens_what_it_trained_with_the_scores_of_the_page(directory):
    path = directory("run", epochs=1)
    outcome = run(path)
    samples = read(path / "samples.jsonl")
    judge = RewardModel.load(path / outcome.checkpoint)
    plain = AutoModelForSequenceClassification.from_pretrained(path / outcome.checkpoint)
    example = judge.encode(samples[0]["prompt"], samples[0]["rollouts"])
    last = next(each for each in reversed(samples) if each["index"] == samples[0]["index"])
    assert last["step"] == read(path / "steps.jsonl")[-1]["step"]
    for rollout, score in zip(example.rollouts, last["scores"], strict=True):
        with torch.no_grad():
            reward = plain(torch.tensor([example.prompt + rollout])).logits.item()
        assert judge.score(reward) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("loss", losses.KINDS)
def test_four_quintets_are_learnt_by_heart(policy_folder, tmp_path, loss):
    rankings = [each for each in data.rankings(tiny.rankings(tmp_path / "r.jsonl", 6)) if each.teaches][:4]
    model, tokenizer = checkpoint.start_reward_model(policy_folder, seed=0)
    judge = RewardModel(model, tokenizer)
    examples = [judge.encode(ranking.prompt, ranking.rollouts) for ranking in rankings]
    ranks = ranks_of(rankings)
    optimizer = Optimizer(model, 0.0, 1.0)
    for _ in range(60):
        found = losses.KINDS[loss](judge.rewards(examples), ranks).mean()
        found.backward()
        optimizer.step(3e-3)
    assert found < 0.05


DEMO = Path(__file__).parents[2] / "labeler/demo"
SCORED = [0.80, 0.10, 0.50, 0.40, 0.30]  # of five rollouts, the best first: the second is far too low


def quintet(number):
    """One of the demo's rankings without ties, the best rollout first."""
    given = [each for each in data.rankings(DEMO / "rankings.jsonl") if len(set(each.ranks)) == 5][number]
    best_first = sorted(zip(given.ranks, given.rollouts, strict=True))
    return data.Ranking(given.prompt, tuple(text for _, text in best_first), (1, 2, 3, 4, 5))


def scores_of(judge, ranking):
    rewards = judge.rewards_of([judge.encode(ranking.prompt, ranking.rollouts)])[0]
    return torch.sigmoid(torch.tensor(rewards)).tolist()


def scored(ranking, scores):
    """The demo's model with a head that gives these rollouts these scores."""
    model, tokenizer = checkpoint.start_reward_model(DEMO / "checkpoint", seed=0)
    judge, width = RewardModel(model, tokenizer), model.score.weight.shape[1]
    examples = [judge.encode(ranking.prompt, ranking.rollouts)]
    with torch.no_grad():
        model.score.weight.data = torch.eye(width)  # as many heads as there are inputs, each reads one
        ends = judge.members(examples)[:, 0].T
        head = torch.linalg.pinv(ends) @ torch.logit(torch.tensor(scores))
        model.score.weight.data = head[None]
    return model, tokenizer


@pytest.mark.parametrize("loss", losses.KINDS)
@pytest.mark.parametrize("number", [4, 5, 6])
def test_one_update_raises_the_under_scored_second_most_and_lowers_the_worst(tmp_path, number, loss):
    """What everybody draws on the board: 0.80 → 0.81, 0.10 → 0.15, and the worst one down."""
    ranking = quintet(number)
    checkpoint.save(tmp_path / "start", *scored(ranking, SCORED), {"kind": "reward"}, {})
    data.write_lines(tmp_path / "one.jsonl", [data.as_line(ranking)])
    told = {"loss": loss, "batch": 1, "epochs": 1, "held_out": 0, "warmup": 0, "precision": "fp32"}
    start = tmp_path / "start", tmp_path / "one.jsonl"
    path = tiny.run_directory(tmp_path / "run", "reward", *start, learning_rate=1e-4, **told)
    outcome = run(path)
    assert len(read(path / "steps.jsonl")) == 1
    models = (RewardModel.load(at) for at in (tmp_path / "start", path / outcome.checkpoint))
    before, after = (scores_of(judge, ranking) for judge in models)
    assert before == pytest.approx(SCORED, abs=1e-3)
    moved = [now - then for then, now in zip(before, after, strict=True)]
    assert moved[1] == max(moved) and moved[1] > 0.02
    assert moved[4] < -0.02


def test_equal_seeds_give_equal_weights(directory):
    paths = [directory("one", seed=1), directory("same", seed=1), directory("other", seed=2)]
    one, same, other = (saved(path, run(path)) for path in paths)
    assert one == same
    assert one[0] != other[0]


def test_a_copied_directory_reruns_to_the_same_end(directory, tmp_path):
    path = directory("run")
    copy = shutil.copytree(path, tmp_path / "elsewhere" / "copy")
    assert saved(path, run(path)) == saved(copy, run(copy))


def test_a_batch_may_be_cut_into_any_portions(directory):
    ways = {"whole": {}, "cut": {"micro_batch": 3}, "short rows": {"tokens_per_row": 200}}
    paths = [directory(name, **values) for name, values in ways.items()]
    whole, *cut = ([line["loss"] for line in (run(path), read(path / "steps.jsonl"))[1]] for path in paths)
    assert all(each == pytest.approx(whole, abs=1e-4) for each in cut)


def test_the_precision_is_told_and_kept_by_a_resumed_run(directory):
    """Whatever a resumed run would find faster by then."""
    told = {"precision": "bf16", "epochs": 3}
    whole = directory("whole", **told)
    end = saved(whole, run(whole))
    path = directory("killed", **told)
    with pytest.raises(tiny.Killed):
        train(tiny.Doomed(path, 5), config.read(path))
    config.write(path, config.make("reward", config.as_dict(config.read(path)) | {"precision": "auto"}))
    outcome = run(path)
    assert outcome.metrics["precision"] == "bf16"
    assert saved(path, outcome) == end
    assert "bf16" in (path / "log.txt").read_text() and "bf16" in (path / "status.json").read_text()


def test_the_gradient_of_a_batch_is_the_same_in_any_portions(policy_folder, tmp_path):
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 8))
    model, tokenizer = checkpoint.start_reward_model(policy_folder, seed=0)
    judge = RewardModel(model, tokenizer)
    examples = [judge.encode(ranking.prompt, ranking.rollouts) for ranking in rankings]
    gradients = []
    for size in (8, 3, 1):
        model.zero_grad()
        for portion in batch.portions(examples, size):
            rewards = judge.rewards([examples[number] for number in portion])
            ranks = ranks_of([rankings[number] for number in portion], rewards.shape[1])
            (losses.listwise(rewards, ranks).sum() / 8).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None]))
    assert all((each - gradients[0]).norm() < 1e-5 * gradients[0].norm() for each in gradients)


def test_a_reward_model_can_be_trained_on(directory):
    first = directory("first")
    start = first / run(first).checkpoint
    path = directory("second", start=start, epochs=1)
    assert run(path).metrics["held_out_accuracy"] is not None


def test_it_stops_when_it_gets_no_better_and_proposes_the_best(directory):
    path = directory("run", epochs=30, early_stop=3, evaluate_every=2, checkpoint_every=1000)
    lines = [line for _, line in data.read_lines(path / "dataset.jsonl")]
    dice = random.Random(0)  # people who throw dice: there is nothing to learn but by heart
    for line in lines:
        dice.shuffle(line["ranks"])
    data.write_lines(path / "dataset.jsonl", lines)
    outcome = run(path)
    steps = read(path / "steps.jsonl")
    measured = [(line["held_out_loss"], line["step"]) for line in steps if "held_out_loss" in line]
    least, best = min(measured)
    assert [step for _, step in measured][-4] == best and steps[-1]["step"] == measured[-1][1]
    assert outcome.extra["suggested"] == f"checkpoints/step-{best:06d}"
    assert (
        f"Step {best} has the least loss" in outcome.extra["why"] and "3 measurements" in outcome.extra["why"]
    )
    assert outcome.metrics["held_out_loss"] == least
    judge = RewardModel.load(path / outcome.extra["suggested"])
    assert judge.tau == outcome.metrics["tau"]


def test_rankings_of_one_quintet_share_its_row_and_teach_as_if_apart(directory, monkeypatch):
    path = directory("run", epochs=1, held_out=0, batch=64, centering=0.5)
    lines = [line for _, line in data.read_lines(path / "dataset.jsonl")][:4]
    turned = [line | {"labeler": "another", "ranks": line["ranks"][::-1]} for line in lines[:2]]
    data.write_lines(path / "dataset.jsonl", [*lines, *turned])
    rows = []
    compute = RewardModel.members
    monkeypatch.setattr(
        RewardModel, "members", lambda self, given: rows.append(len(given)) or compute(self, given)
    )
    together = saved(path, run(path))
    first = read(path / "steps.jsonl")[0]["loss"]
    assert sum(rows) == 4
    monkeypatch.setattr(weights, "same_quintets", lambda rankings: [[each] for each in range(len(rankings))])
    path.joinpath("result.json").unlink(missing_ok=True)
    shutil.rmtree(path / "checkpoints")
    assert sum(rows) == 4 and rows.clear() is None
    apart = saved(path, run(path))
    assert sum(rows) == 6
    assert read(path / "steps.jsonl")[0]["loss"] == pytest.approx(first, abs=1e-6)
    one, other = (safetensors.torch.load(each[0]) for each in (together, apart))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_the_agreement_of_labelers_weighs_their_losses(directory):
    path = directory("run", epochs=1, held_out=0, batch=64, labeler_weights="agreement")
    lines = [line for _, line in data.read_lines(path / "dataset.jsonl")][:9]
    lines = [line for line in lines if len(set(line["ranks"])) > 1]
    told = [line | {"labeler": name} for line in lines for name in ("ann", "ben", "cat")]
    for line in told[2::3]:
        line["ranks"] = list(data.dense([-rank for rank in line["ranks"]]))
    data.write_lines(path / "dataset.jsonl", told)
    metrics = run(path).metrics
    expected = weights.by_agreement(data.rankings(path / "dataset.jsonl"))
    assert metrics["labeler_weights"] == {name: vars(each) for name, each in expected.items()}
    judge = RewardModel(*checkpoint.start_reward_model(path / "inputs/policy", seed=0))
    given = data.rankings(path / "dataset.jsonl")
    each = [
        expected[one.labeler].weight
        * Measured(judge.rewards_of([judge.encode(one.prompt, one.rollouts)]), [one]).loss()
        for one in given
    ]
    assert read(path / "steps.jsonl")[0]["loss"] == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_answers_of_the_start_are_drawn_in_portions_and_all_of_them_count():
    def told(prompts, longest=40, tokens=4096):
        given = [(number,) * 100 for number in range(prompts)]
        return [(len(some), count) for some, count in train_reward._portions(given, longest, tokens)]

    assert told(100) == [(29, 1), (29, 1), (6, 1)]
    assert told(64, tokens=10**6) == [(64, 1)]
    assert told(12) == [(4, 6), (5, 5), (3, 5)]
    assert told(1) == [(1, 64)]
    for prompts in (1, 5, 12, 63, 64, 65, 100):
        assert sum(some * count for some, count in told(prompts)) == train_reward.REFERENCES
