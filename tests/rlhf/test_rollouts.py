"""The run that samples rollouts to be ranked: what it writes, equal answers, and going on after a crash."""

import json
import shutil

import pytest
import torch
import zstandard

from rlhf import checkpoint, config, rollouts
from rlhf.execute import FAILED, FINISHED, execute
from rlhf.run import RunDirectory
from rlhf.sample import Rollout
from tests.rlhf import tiny

PROMPTS = [
    {"prompt": "A joke about a pelican.", "id": 7},
    {"prompt": [{"role": "user", "content": "A joke about rain."}], "id": "rain"},
    {"prompt": "And one about tea."},
]
SETTINGS = {"count": 3, "max_new_tokens": 6, "batch": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.policy(tmp_path_factory.mktemp("start") / "policy")


@pytest.fixture
def made(tmp_path, start):
    def make(name="run", prompts=PROMPTS, **settings):
        path = tmp_path / name
        shutil.copytree(start, path / "inputs" / "policy")
        (path / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
        config.write(path, config.make("rollouts", SETTINGS | settings))
        return path

    return make


def written(path):
    blob = (path / "rollouts.jsonl.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()
    return [json.loads(line) for line in plain.decode().splitlines()]


def steps(path):
    return [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]


def test_every_prompt_gets_its_rollouts_with_its_own_id_beside_them(made):
    path = made()
    assert execute(path) == FINISHED
    lines = written(path)
    assert [line["group"] for line in lines] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [line["id"] for line in lines[::3]] == [7, "rain", None]
    assert [line["prompt"] for line in lines[::3]] == [each["prompt"] for each in PROMPTS]
    words = tiny.tokenizer()
    for line in lines:
        assert line["rollout"] == checkpoint.decode_rollout(words, line["tokens"])
        assert line["finished"] == (line["tokens"][-1] == words.eos_token_id)
    assert [(each["step"], each["prompts"], each["rollouts"]) for each in steps(path)] == [
        (1, 2, 6),
        (2, 3, 9),
    ]
    ended = json.loads((path / "result.json").read_text())
    assert ended["metrics"] == {"prompts": 3, "rollouts": 9, "repeated": 0} and ended["checkpoint"] is None
    assert json.loads((path / "status.json").read_text())["total"] == 2


def test_a_killed_run_goes_on_with_the_very_same_rollouts(made, subtests):
    prompts = PROMPTS * 2
    straight, broken = (
        made("straight", prompts),
        {step: made(f"broken at {step}", prompts) for step in (1, 2, 3)},
    )
    execute(straight)
    tiny.killed(broken)
    for step, path in broken.items():
        with subtests.test(killed_at=step):
            with open(path / "steps.jsonl", "a") as file:
                file.write('{"step": 9, "by')  # half a line, as a crash may leave it
            assert execute(path) == FINISHED
            assert written(path) == written(straight)
            assert [each["step"] for each in steps(path)] == [1, 2, 3]
            assert steps(path)[-1]["seconds"] >= steps(path)[0]["seconds"]


def test_a_cancelled_run_keeps_what_it_has(made, monkeypatch):
    path = made()
    tell = RunDirectory.step

    def cancelling(self, step, **metrics):
        tell(self, step, **metrics)
        (self.path / "cancel").touch()

    monkeypatch.setattr(RunDirectory, "step", cancelling)
    assert execute(path) == FINISHED
    assert json.loads((path / "result.json").read_text())["state"] == "cancelled"
    assert len(written(path)) == 6


def test_no_prompts_fail_in_words(made):
    path = made(prompts=[])
    assert execute(path) == FAILED
    assert json.loads((path / "result.json").read_text())["reason"] == "There are no prompts to answer."


@pytest.fixture
def drawing(monkeypatch):
    """Lets `sample` draw what a test says, and tells what it was asked for."""
    asked = []

    def draw(*rounds):
        remaining = [list(each) for each in rounds]

        def sample(model, tokenizer, prompts, count, *rest):
            asked.append((len(prompts), count))
            texts = remaining.pop(0) if remaining else ["same"] * (len(prompts) * count)
            ids = [checkpoint.encode_rollout(tiny.tokenizer(), each) for each in texts]
            return [Rollout(each, [0.0] * len(each), True) for each in ids]

        monkeypatch.setattr(rollouts, "sample", sample)
        groups = rollouts.different(
            None, tiny.tokenizer(), [[1], [2]], config.make("rollouts", SETTINGS), torch.Generator()
        )
        return [rollouts.texts(tiny.tokenizer(), group) for group in groups], asked

    return draw


def test_equal_rollouts_are_drawn_again_for_their_prompt_alone(drawing):
    groups, asked = drawing(["a", "a", " a ", "x", "y", "z"], ["a", "b"], ["c"])
    assert groups == [["a", "b", "c"], ["x", "y", "z"]]
    assert asked == [(2, 3), (1, 2), (1, 1)]


def test_after_a_few_tries_equal_rollouts_stay(drawing):
    groups, asked = drawing(["a", "a", "a", "x", "y", "z"], ["a", "b"])
    assert groups == [["a", "b", "same"], ["x", "y", "z"]]
    groups, asked = drawing()
    assert groups == [["same"] * 3] * 2 and len(asked) == 3 + 1 + rollouts.TRIES
