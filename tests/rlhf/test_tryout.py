"""A dry pass tells how fast a model is here, and leaves nothing behind."""

import io
import json
import time
from pathlib import Path

import pytest
import torch

from rlhf import checkpoint, tryout
from rlhf.serve import serve

DEMO = Path(__file__).resolve().parents[2] / "labeler" / "demo" / "checkpoint"
PROMPTS = ["Joke?", "Write a joke about a pelican that cannot swim."]


@pytest.fixture(scope="module")
def policy():
    return checkpoint.load_policy(DEMO)


def test_it_tells_both_speeds_and_the_longest_prompt_in_tokens(policy):
    model, tokenizer = policy
    found = tryout.measure(model, tokenizer, PROMPTS, longest=20, at_once=16, train=True)
    assert found["sampled"] > 0 and found["trained"] > 0 and found["rows"] == 16
    assert found["longest"] == max(len(checkpoint.encode_prompt(tokenizer, each)) for each in PROMPTS)
    assert "trained" not in tryout.measure(model, tokenizer, PROMPTS, longest=20, at_once=2, train=False)


def test_nothing_is_learnt_of_it(policy):
    model, tokenizer = policy
    before = {name: value.clone() for name, value in model.named_parameters()}
    tryout.measure(model, tokenizer, PROMPTS, longest=20, at_once=4, train=True)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())


def test_a_rollout_as_long_as_the_model_leaves_room_for_one_token_of_prompt(policy):
    model, tokenizer = policy
    assert tryout.measure(model, tokenizer, PROMPTS, longest=8192, at_once=1, train=True)["trained"] > 0


def test_a_model_that_would_keep_somebody_waiting_is_tried_with_fewer_rows(policy, monkeypatch):
    model, tokenizer = policy
    passes = []
    known = tryout._pass
    monkeypatch.setattr(tryout, "PATIENCE", 0.0)
    monkeypatch.setattr(
        tryout, "_pass", lambda model, ids, prompt: passes.append(len(ids)) or known(model, ids, prompt)
    )
    tryout.measure(model, tokenizer, PROMPTS, longest=20, at_once=32, train=True)
    assert set(passes) == {1}


def test_what_only_the_first_pass_costs_does_not_slow_a_whole_run(policy, monkeypatch):
    model, tokenizer = policy
    seconds = iter([0.01, 0.01, 0.01, 0.5, 0.01, 0.01])  # of one row three times, then of all four

    def slow(model, ids, prompt):
        time.sleep(next(seconds))
        return 400

    monkeypatch.setattr(tryout, "_pass", slow)
    assert tryout.measure(model, tokenizer, PROMPTS, longest=20, at_once=4, train=True)["trained"] > 4000


def test_the_warm_child_answers_a_try():
    asked = {"id": 1, "op": "try", "checkpoint": str(DEMO), "prompts": PROMPTS, "max_new_tokens": 12}
    lines = [json.dumps(asked | more) for more in ({"at_once": 4, "train": True}, {"at_once": 0})]
    out = io.StringIO()
    serve(io.StringIO("\n".join(lines)), out, torch.device("cpu"))
    _ready, good, bad = map(json.loads, out.getvalue().splitlines())
    assert good["device"].startswith("cpu") and good["loading"] >= 0 and good["sampled"] > 0
    assert bad["error"] == "“at_once” must be between 1 and 4,096; 0 is not."
