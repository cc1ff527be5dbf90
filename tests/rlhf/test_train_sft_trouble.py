"""Supervised finetuning that is killed, short of memory, or given what it cannot learn from."""

import json

import pytest
import torch

from rlhf import config, data
from rlhf.execute import FAILED, execute
from rlhf.packing import Packing
from rlhf.run import Failed, RunDirectory
from rlhf.train_sft import train
from tests.rlhf import tiny

STEPS = 9
USUAL = {
    "learning_rate": 3e-3, "batch": 8, "epochs": 3.4, "evaluate_every": 2, "checkpoint_every": 4,
    "sample_prompts": 2, "max_new_tokens": 8, "early_stop": 5,
}  # fmt: skip
WAYS = {
    "full": {},
    "adapters": {"lora_rank": 4, "learning_rate": 1e-2, "precision": "bf16"},
    "reading": {"stage": "reading", "max_tokens": 32},
}


@pytest.fixture
def directory(policy_folder, tmp_path):
    def make(name, way="full", **values):
        return made(tmp_path / name, policy_folder, way, **values)

    return make


def made(path, start, way="full", **values):
    dataset = path.with_suffix(".jsonl")
    tiny.demonstrations(dataset)
    if way == "reading":
        lines = [
            {"text": f"{line['prompt']} {line['completion']} " * 2} for _, line in data.read_lines(dataset)
        ]
        data.write_lines(dataset, lines[:12])
    return tiny.run_directory(path, "sft", start, dataset, **USUAL | WAYS[way] | values)


def run(path, kind=RunDirectory, *more):
    return train(kind(path, *more), config.read(path))


@pytest.fixture(scope="module")
def whole(policy_folder, tmp_path_factory):
    """What runs leave that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    paths = {way: made(folder / way, policy_folder, way) for way in WAYS}
    return {way: tiny.left(path, run(path)) for way, path in paths.items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("last", "saved"), [(1, False), (3, False), (4, True), (6, True)])
def test_killed_around_any_step_it_ends_with_the_same_bits(directory, whole, way, last, saved):
    path = directory(way, way)
    with pytest.raises(tiny.Killed):
        run(path, tiny.Doomed, last, saved)
    assert tiny.left(path, run(path)) == whole[way]


def test_what_does_not_fit_is_packed_by_halves_and_learns_the_same(directory, whole, monkeypatch):
    compute = Packing.losses

    def short(self, texts):
        if torch.is_grad_enabled() and len(texts) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 98 bytes.")
        return compute(self, texts)

    monkeypatch.setattr(Packing, "losses", short)
    path = directory("run", micro_batch=8)
    found = tiny.left(path, run(path))
    for one, other in zip(found[0], whole["full"][0], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
    log = (path / "log.txt").read_text()
    assert "not enough memory for 8 examples at once; from here on it is 4" in log
    assert "from here on it is 2" in log and "“Examples at once” (micro_batch)" in log
    newest = max((path / "checkpoints").iterdir()) / "trainer/state.json"
    assert json.loads(newest.read_text())["state"]["at_once"] == 2


def test_what_was_gathered_before_memory_ran_out_counts_for_nothing(directory, whole, monkeypatch):
    compute, portions = Packing.losses, iter(range(1000))

    def short(self, texts):
        if torch.is_grad_enabled() and len(texts) > 2 and next(portions):  # the first one still fits
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 98 bytes.")
        return compute(self, texts)

    monkeypatch.setattr(Packing, "losses", short)
    path = directory("run", micro_batch=4)
    run(path)
    steps = [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]
    assert "from here on it is 2" in (path / "log.txt").read_text()
    assert [each["loss"] for each in steps] == pytest.approx(
        [each["loss"] for each in whole["full"][0]], abs=1e-4
    )


def test_what_does_not_fit_at_all_names_what_helps(directory, monkeypatch):
    def never(self, texts):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Packing, "losses", never)
    with pytest.raises(Failed) as failed:
        run(directory("run"))
    assert "one example at a time" in failed.value.reason and failed.value.field == "max_tokens"


TALK = [{"role": "user", "content": "Hi."}, {"role": "user", "content": "Hello?"}]


@pytest.mark.parametrize(
    ("stage", "line", "words"),
    [
        ("answers", {"prompt": "Why?", "completion": " "}, "“completion” is empty"),
        ("answers", {"messages": TALK}, "must hold a turn of the assistant"),
        ("answers", {"text": "Once."}, "is a document, which the stage “reading” learns from"),
        ("reading", {"prompt": "Why?", "completion": "So."}, "it is a demonstration; the stage “reading”"),
        ("reading", {"text": ""}, "“text” is empty"),
        ("answers", None, "There are no demonstrations to learn from."),
        ("reading", None, "There are no documents to learn from."),
    ],
)
def test_what_cannot_be_learnt_from_is_told_in_words(directory, stage, line, words):
    path = directory("run", stage=stage)
    data.write_lines(path / "dataset.jsonl", [line] if line else [])
    assert execute(path) == FAILED
    result = json.loads((path / "result.json").read_text())
    assert words in result["reason"] and result["field"] == "dataset"


def test_a_start_whose_texts_have_no_end_is_refused(directory):
    path = directory("run")
    told = path / "inputs/policy/tokenizer_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"eos_token": None}))
    assert execute(path) == FAILED
    assert "has no end-of-text token" in json.loads((path / "result.json").read_text())["reason"]


def test_long_examples_are_cut_counted_and_said(directory):
    path = directory("run", max_tokens=12, epochs=1)
    metrics = run(path).metrics
    long = sum(len(line["completion"]) + 1 >= 12 for _, line in data.read_lines(path / "dataset.jsonl"))
    assert (metrics["prompts_cut"], metrics["rollouts_cut"]) == (24, long)
    log = (path / "log.txt").read_text()
    assert "24 prompts lose their beginning" in log and "longer than 12 tokens" in log


def test_lines_that_say_the_same_are_learnt_once_counted_and_said(directory):
    once, twice = directory("once", epochs=1), directory("twice", epochs=1)
    lines = [line for _, line in data.read_lines(once / "dataset.jsonl")]
    data.write_lines(twice / "dataset.jsonl", lines + lines[:7])
    assert run(once).metrics["copies"] == 0
    assert run(twice).metrics["copies"] == 7
    assert "7 lines say the same as others and are left out" in (twice / "log.txt").read_text()
    weights = [next(path.glob("checkpoints/*/model.safetensors")).read_bytes() for path in (once, twice)]
    assert weights[0] == weights[1]


def test_two_turns_learnt_are_no_copy_of_the_last_one_alone(directory):
    """The same tokens in the same order, of which other ones are learnt."""
    turns = [*TALK[:1], {"role": "assistant", "content": "Yes?"}, *TALK[1:]]
    path = directory("run", epochs=1, held_out=0, batch=2)
    last = {"prompt": turns, "completion": "Bye."}
    whole = {"messages": [*turns, {"role": "assistant", "content": "Bye."}]}
    data.write_lines(path / "dataset.jsonl", [last, whole, last])
    assert run(path).metrics["copies"] == 1


def test_a_run_that_has_no_step_left_still_tells_what_to_use(directory):
    path = directory("run", early_stop=50)
    first = run(path)
    assert first.extra["suggested"]
    assert run(path) == first
