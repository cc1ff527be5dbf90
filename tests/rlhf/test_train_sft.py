"""Supervised finetuning: learning, equal seeds, no dependence on how a batch is packed, what is held out."""

import json
import random

import pytest
from transformers import AutoModelForCausalLM

from rlhf import batch, checkpoint, config, data, patience, texts
from rlhf.packing import Packing
from rlhf.run import RunDirectory
from rlhf.train_sft import train
from tests.rlhf import tiny


@pytest.fixture
def sft(policy_folder, tmp_path):
    """A function that makes a run directory and trains in it."""

    def trained(name, dataset=None, **values):
        dataset = dataset or tiny.demonstrations(tmp_path / "demonstrations.jsonl")
        known = {"learning_rate": 3e-3, "max_new_tokens": 16, "sample_prompts": 2, "evaluate_every": 5}
        path = tiny.run_directory(tmp_path / name, "sft", policy_folder, dataset, **known | values)
        return path, train(RunDirectory(path), config.read(path))

    return trained


@pytest.fixture
def book(tmp_path):
    """Plain documents, one of them far longer than the others."""
    path = tmp_path / "documents.jsonl"
    lines = [{"text": f"The pelican {number} eats fish at sea."} for number in range(9)]
    data.write_lines(path, [*lines, {"text": "One two three four. " * 12}])
    return path


def read(path, name="steps.jsonl"):
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def weights(path, outcome):
    return (path / outcome.checkpoint / "model.safetensors").read_bytes()


def test_it_learns_to_write_what_people_wrote(sft):
    path, outcome = sft("run", epochs=30, held_out=0, batch=8)
    steps = read(path)
    assert steps[0]["loss"] > 5
    assert steps[-1]["loss"] < 1.0
    assert {"loss", "learning_rate", "tokens"} <= steps[3].keys()
    model, _ = checkpoint.load_policy(path / outcome.checkpoint)
    assert not model.training
    assert "texts packed in one row" in (path / "log.txt").read_text()


def test_the_first_loss_is_the_mean_over_the_batchs_answers(sft):
    path, _ = sft("run", epochs=1, batch=8)
    model, tokenizer = checkpoint.load_policy(path / "inputs/policy")
    lines = data.demonstrations(path / "dataset.jsonl")
    taught, _ = data.split_by_prompt([line.prompt for line in lines], 0.1, 0)
    total, count = 0.0, 0
    for line in (lines[taught[number]] for number in batch.drawn(len(taught), 8, 1, 0)):
        ids = checkpoint.encode_prompt(tokenizer, line.prompt)
        learnt = checkpoint.encode_rollout(tokenizer, line.completion)
        says = tiny.says(model, ids + learnt)
        total -= sum(says[len(ids) + place - 1, each].item() for place, each in enumerate(learnt))
        count += len(learnt)
    assert read(path)[0]["loss"] == pytest.approx(total / count, abs=1e-5)
    assert read(path)[0]["tokens"] == count


def test_plain_documents_are_read_to_their_last_token(sft, book):
    path, outcome = sft("run", book, stage="reading", epochs=12, held_out=0.2, max_tokens=64, batch=4)
    _, apart = data.split_by_prompt([line["text"] for _, line in data.read_lines(book)], 0.2, 0)
    assert outcome.metrics["held_out"] == len(apart) == 10 - outcome.metrics["documents"]
    assert outcome.metrics["texts"] == 10 - len(apart) + 3  # the long one, which is learnt from, is four
    losses = [line["held_out_loss"] for line in read(path) if "held_out_loss" in line]
    assert losses[-1] < losses[0] - 1
    held = {line["prompt"] for line in read(path, "samples.jsonl")}
    assert all(any(line["text"].startswith(each) for _, line in data.read_lines(book)) for each in held)
    AutoModelForCausalLM.from_pretrained(path / outcome.checkpoint)


def test_a_long_documents_rows_are_held_out_with_it_and_counted_in_words(sft, book):
    path, outcome = sft("run", book, stage="reading", epochs=1, held_out=0, max_tokens=64)
    assert outcome.metrics["texts"] == 9 + 4
    assert "10 documents are 13 texts of at most 64 tokens, in order." in (path / "log.txt").read_text()
    assert read(path)[0]["tokens"] > 64


def test_every_turn_of_a_conversation_is_learnt(sft, tmp_path):
    turns = [
        {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye."}, {"role": "assistant", "content": "Bye."},
    ]  # fmt: skip
    told = []
    for name, line in {
        "all": {"messages": turns},
        "last": {"prompt": turns[:3], "completion": "Bye."},
    }.items():
        data.write_lines(tmp_path / f"{name}.jsonl", [line])
        path, _ = sft(name, tmp_path / f"{name}.jsonl", epochs=1, batch=2)
        told.append(sum(step["tokens"] for step in read(path)))
    assert told == [5 + 5, 5]


def test_samples_are_of_the_same_prompts_each_time(sft):
    path, _ = sft("run", epochs=4, batch=8)
    samples = read(path, "samples.jsonl")
    prompts = {
        step: [s["prompt"] for s in samples if s["step"] == step] for step in {s["step"] for s in samples}
    }
    last = read(path)[-1]["step"]
    assert set(prompts) == {1, 5, last} and 5 < last <= 10
    assert len(set(map(tuple, prompts.values()))) == 1
    assert samples[0].keys() == {"step", "index", "prompt", "rollout", "score", "kl", "finished"}
    assert [step["step"] for step in read(path) if "held_out_loss" in step] == [1, 5, last]


def test_equal_seeds_give_equal_weights(sft):
    runs = [sft("one", seed=1), sft("same", seed=1), sft("other", seed=2)]
    one, same, other = (weights(*run) for run in runs)
    assert one == same != other


def test_a_batch_may_be_packed_in_any_way(sft):
    ways = {"whole": {"micro_batch": 16}, "cut": {"micro_batch": 3}, "short rows": {"tokens_per_row": 64}}
    whole, *cut = ([line["loss"] for line in read(sft(name, **values)[0])] for name, values in ways.items())
    assert all(each == pytest.approx(whole, abs=1e-4) for each in cut)


def test_what_is_held_out_is_held_out_by_prompt(tmp_path):
    lines = data.demonstrations(tiny.demonstrations(tmp_path / "demonstrations.jsonl"))
    taught, held = data.split_by_prompt([line.prompt for line in lines], 0.25, seed=0)
    assert sorted(taught + held) == list(range(24))
    assert len(held) == 2 * len({lines[n].prompt for n in held}) > 0
    assert not {lines[n].prompt for n in taught} & {lines[n].prompt for n in held}


def test_the_held_out_loss_is_that_of_the_weights_after_the_step(sft):
    path, outcome = sft("run", epochs=2, held_out=0.25)
    model, tokenizer = checkpoint.load_policy(path / outcome.checkpoint)
    lines = data.demonstrations(path / "dataset.jsonl")
    _, held = data.split_by_prompt([line.prompt for line in lines], 0.25, 0)
    found = [text for number in held for text in texts.of_demonstration(tokenizer, lines[number], 1024)]
    expected = Packing(model).mean_loss(found, 4, 512)
    assert read(path)[-1]["held_out_loss"] == pytest.approx(expected, abs=1e-5)


def test_nothing_held_out_is_nothing_measured(sft):
    path, outcome = sft("run", held_out=0, epochs=1)
    assert outcome.metrics["held_out_loss"] is None and "nothing held out" in (path / "log.txt").read_text()
    assert not any("held_out_loss" in line or "now" in line for line in read(path))


def test_adapters_learn_and_leave_the_rest_as_it_was(sft):
    path, outcome = sft("run", epochs=12, batch=8, lora_rank=8, learning_rate=3e-2)
    steps = read(path)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.3
    start, end = (
        AutoModelForCausalLM.from_pretrained(at).state_dict()
        for at in (path / "inputs/policy", path / outcome.checkpoint)
    )
    assert start.keys() == end.keys()
    changed = {name for name in start if not start[name].equal(end[name])}
    assert changed and all("_proj" in name for name in changed)


def test_computing_twice_and_half_precision_are_told(sft):
    path, outcome = sft("run", epochs=1, gradient_checkpointing=True, precision="bf16")
    assert outcome.metrics["precision"] == "bf16"
    assert "bf16" in (path / "status.json").read_text()


def test_of_equal_measurements_the_earlier_is_the_best_and_the_later_waited_for():
    best = patience.better({}, 1, {"held_out_loss": 2.0})
    assert patience.better(best, 2, {"held_out_loss": 2.0}) == best | {"waited": 1}
    assert patience.better(best, 2, {"held_out_loss": 1.9})["step"] == 2


def test_it_stops_when_it_gets_no_better_and_proposes_the_best(sft, tmp_path):
    dice = random.Random(0)  # answers that have nothing to do with their prompts
    lines = [{"prompt": f"p{n}", "completion": " ".join(dice.choices(tiny.WORDS, k=6))} for n in range(24)]
    data.write_lines(tmp_path / "dice.jsonl", lines)
    given = {"epochs": 80, "early_stop": 3, "evaluate_every": 2, "checkpoint_every": 1000, "held_out": 0.3}
    path, outcome = sft("run", tmp_path / "dice.jsonl", batch=8, learning_rate=1e-2, **given)
    steps = read(path)
    measured = [(line["held_out_loss"], line["step"]) for line in steps if "held_out_loss" in line]
    least, best = min(measured)
    assert [step for _, step in measured][-4] == best and steps[-1]["step"] == measured[-1][1] < 160
    assert outcome.extra["suggested"] == f"checkpoints/step-{best:06d}"
    assert f"Step {best} has the least loss" in outcome.extra["why"]
    assert outcome.metrics["held_out_loss"] == least
    assert checkpoint.load_policy(path / outcome.extra["suggested"])
