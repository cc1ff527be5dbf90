"""The warm child: what it answers, what it keeps, and when it goes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rlhf import checkpoint, serve
from rlhf.reward_model import RewardModel
from rlhf.serve import Shelf, answer
from tests.rlhf import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.policy(tmp_path_factory.mktemp("start") / "policy")


@pytest.fixture(scope="module")
def judge(start, tmp_path_factory):
    path = tmp_path_factory.mktemp("judge") / "reward"
    model, words = checkpoint.start_reward_model(start, seed=1)
    checkpoint.save(path, model, words, {"kind": "reward", "mu": 0.1, "tau": 0.5}, {})
    return path


@pytest.fixture
def shelf():
    return Shelf(torch.device("cpu"))


def ask(shelf, op, **request):
    return answer(shelf, json.dumps({"id": 5, "op": op, **request}))


def test_it_samples_for_several_prompts(shelf, start):
    request = {"checkpoint": str(start), "prompts": ["A pelican.", "Rain."], "count": 3, "max_new_tokens": 6}
    found = ask(shelf, "sample", seed=1, **request)
    assert found["id"] == 5
    assert [len(row) for row in found["rollouts"]] == [3, 3]
    for each in (each for row in found["rollouts"] for each in row):
        assert set(each) == {"text", "tokens", "finished"} and 1 <= len(each["tokens"]) <= 6
    assert ask(shelf, "sample", seed=1, **request) == found
    assert ask(shelf, "sample", seed=2, **request) != found


def test_where_the_model_takes_less_an_answer_ends_sooner(shelf, tmp_path):
    """The prompt keeps its room, half of all 256 tokens at the most."""
    small, lengths = str(tiny.policy(tmp_path / "small", "gpt2")), []
    for prompt in ("A pelican.", "A pelican. " * 100):
        said = ask(shelf, "sample", checkpoint=small, prompts=[prompt], count=8, max_new_tokens=2000)
        lengths.append(max(len(one["tokens"]) for one in said["rollouts"][0]))
    whole, half = lengths
    assert 128 == half < whole < 256


def test_a_conversation_is_a_prompt_too(shelf, start):
    said = [{"role": "user", "content": "A pelican."}]
    one = ask(shelf, "sample", checkpoint=str(start), prompts=[said], max_new_tokens=4)
    assert one == ask(shelf, "sample", checkpoint=str(start), prompts=["A pelican."], max_new_tokens=4)


def test_it_scores_as_the_reward_model_does(shelf, judge):
    items = [{"prompt": "A pelican.", "rollouts": ["Ha.", "Oh."]}, {"prompt": "Rain.", "rollouts": ["Wet."]}]
    found = ask(shelf, "score", checkpoint=str(judge), items=items)
    model = RewardModel.load(judge)
    for item, rewards, scores in zip(items, found["rewards"], found["scores"], strict=True):
        expected = model.rewards_of([model.encode(item["prompt"], item["rollouts"])])[0]
        assert rewards == pytest.approx(expected, abs=1e-5)
        assert scores == pytest.approx([model.score(each) for each in expected], abs=1e-5)


def test_it_keeps_the_two_models_used_last(shelf, start, judge, tmp_path):
    other = tiny.policy(tmp_path / "other", seed=2)
    for path in (start, other):
        ask(shelf, "sample", checkpoint=str(path), prompts=["A"], max_new_tokens=1)
    kept = shelf.policy(str(start))
    ask(shelf, "score", checkpoint=str(judge), items=[{"prompt": "A", "rollouts": ["B"]}])
    assert [path.name for _, path in shelf.models] == ["policy", "reward"]
    assert shelf.policy(str(start)) is kept


def test_unload_gives_everything_back(shelf, start):
    ask(shelf, "sample", checkpoint=str(start), prompts=["A"], max_new_tokens=1)
    assert ask(shelf, "unload") == {"id": 5, "unloaded": 1}
    assert not shelf.models and ask(shelf, "unload")["unloaded"] == 0


@pytest.mark.parametrize(
    ("op", "request_", "words"),
    [
        ("dance", {}, "There is no operation “dance”"),
        ("sample", {"prompts": []}, "“prompts” must be a list"),
        ("sample", {"prompts": ["A"]}, "“checkpoint” must be a text"),
        ("sample", {"prompts": [" "], "checkpoint": "x"}, "“prompt” is empty"),
        ("sample", {"prompts": ["A\0"], "checkpoint": "x"}, "NUL"),
        ("sample", {"prompts": ["A"], "count": 65}, "“count” must be between 1 and 64"),
        ("sample", {"prompts": ["A"], "count": "3"}, "“count” must be a whole number"),
        ("sample", {"prompts": ["A"], "temperature": 9}, "“temperature” must be between 0 and 2"),
        ("sample", {"prompts": ["A"], "checkpoint": "/nowhere"}, "is not a checkpoint"),
        ("sample", {"prompts": ["A"], "top_p": 1.5}, "“top_p” must be between 0 and 1"),
        ("sample", {"prompts": ["A"], "stream": "slowly"}, "“stream” must be tokens or rollouts"),
        ("sample", {"prompts": ["A", "B"], "stream": "tokens"}, "Only one prompt"),
        ("sample", {"prompts": ["A"], "stream": "tokens", "have": "all"}, "a list of numbers"),
        ("sample", {"prompts": ["A"], "stream": "tokens", "begun": [3]}, "a list of drafts"),
        ("score", {"items": [{}], "stream": "tokens"}, "Only what is sampled"),
        ("score", {"items": [3]}, "must be a text"),
        ("score", {"items": [{"prompt": "A", "rollouts": [3]}], "checkpoint": "x"}, "must hold texts"),
    ],
)
def test_what_cannot_be_answered_is_told_in_words(shelf, op, request_, words):
    found = ask(shelf, op, **request_)
    assert found["id"] == 5 and words in found["error"] and "remedy" in found


def test_lines_that_are_no_request_are_told_in_words(shelf):
    assert "not JSON" in answer(shelf, "{")["error"]
    assert "a JSON object" in answer(shelf, "[1]")["error"]


def test_a_policy_is_no_reward_model(shelf, start):
    found = ask(shelf, "score", checkpoint=str(start), items=[{"prompt": "A", "rollouts": ["B"]}])
    assert "is no reward model" in found["error"] and found["remedy"]


def test_what_breaks_one_answer_does_not_break_the_next(shelf, start, monkeypatch, capfd):
    request = {"checkpoint": str(start), "prompts": ["A"], "max_new_tokens": 1}

    def broken(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(serve, "sample", broken)
        assert ask(shelf, "sample", **request)["error"] == "There is not enough memory."
    assert not shelf.models
    assert "rollouts" in ask(shelf, "sample", **request)


def child(**options):
    return subprocess.Popen(
        [sys.executable, "-m", "rlhf.serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def test_the_child_answers_and_ends_with_its_input(start):
    served = child()
    ready = json.loads(served.stdout.readline())
    assert ready["ready"] is True and ready["device"]
    request = {"id": "a", "op": "sample", "checkpoint": str(start), "prompts": ["A"], "max_new_tokens": 2}
    served.stdin.write(json.dumps(request) + "\n")
    served.stdin.flush()
    found = json.loads(served.stdout.readline())
    assert found["id"] == "a" and len(found["rollouts"]) == 1
    rest, _ = served.communicate(timeout=30)
    assert rest == "" and served.returncode == 0


def test_the_child_streams_and_is_stopped_while_it_writes(start):
    served = child()
    served.stdout.readline()
    request = {"checkpoint": str(start), "prompts": ["A"], "stream": "tokens", "max_new_tokens": 2000}
    say(served, id=1, op="sample", temperature=0.01, **request)
    assert "prompt" in json.loads(served.stdout.readline())["part"]
    assert json.loads(served.stdout.readline())["part"]["rollouts"]
    say(served, id=7, op="stop")  # somebody else's
    say(served, id=1, op="stop")
    said = [json.loads(served.stdout.readline())]
    while "part" in said[-1]:
        said.append(json.loads(served.stdout.readline()))
    assert said[-1]["stopped"] is True and said[-1]["written"] == 1 and said[-1]["tokens"] < 2000
    say(served, id=3, op="sample", temperature=0.01, **request)
    assert "prompt" in json.loads(served.stdout.readline())["part"]
    assert json.loads(served.stdout.readline())["part"]["rollouts"]
    say(served, id=3, op="pause")
    said = [json.loads(served.stdout.readline())]
    while "part" in said[-1]:
        said.append(json.loads(served.stdout.readline()))
    assert said[-1]["written"] == 0 and not said[-1]["stopped"]
    say(served, id=4, op="sample", temperature=0.01, begun=said[-1]["drafts"], **request)
    say(served, id=4, op="stop")
    said = [json.loads(served.stdout.readline())]
    while "part" in said[-1]:
        said.append(json.loads(served.stdout.readline()))
    assert said[0]["part"]["prompt"]["drafts"] == [0] and said[-1]["stopped"] is True
    say(served, id=2, op="sample", **request | {"max_new_tokens": 3, "stream": "rollouts", "count": 100})
    said = [json.loads(served.stdout.readline())]
    while "part" in said[-1]:
        said.append(json.loads(served.stdout.readline()))
    assert said[-1]["written"] == 100 and said[-1]["stopped"] is False
    served.communicate(timeout=30)


def say(served, **line):
    served.stdin.write(json.dumps(line) + "\n")
    served.stdin.flush()


def test_the_child_dies_with_its_parent_though_its_input_stays_open(tmp_path):
    """Its input is a named pipe that this test holds open, so only the parent's death can end it."""
    os.mkfifo(tmp_path / "in")
    code = (
        "import subprocess, sys, time\n"
        "served = subprocess.Popen([sys.executable, '-m', 'rlhf.serve'], stdin=open(sys.argv[1]),"
        " stdout=subprocess.PIPE)\n"
        "served.stdout.readline()\nprint(served.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "in")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with open(tmp_path / "in", "w"):
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
        deadline = time.monotonic() + 10
        while running(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not running(pid)


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
