"""Policy runs of every algorithm: what their updates are, how they go on, where they end, and what memory
changes about them, which is nothing."""

# ruff: noqa: F811
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from rlhf import adapters, algorithms, checkpoint, config, train_policy
from rlhf.execute import FAILED, FINISHED, execute
from rlhf.policy import Reader, Start
from rlhf.run import RunDirectory
from tests.rlhf import tiny
from tests.rlhf.test_train_policy import (  # noqa: F401
    ENDS,
    PROMPTS,
    judge,
    lines,
    made,
    result,
    scorer,
    start,
    told,
    weights,
)

KINDS = {
    "rloo": {"algorithm": "rloo", "updates_per_batch": 2, "kl_target": 0.5},
    "grpo": {"algorithm": "grpo", "updates_per_batch": 3},
    "best": {"algorithm": "best", "kl_target": 2.0, "warmup": 3},
    "adapters": {"algorithm": "grpo", "lora_rank": 2, "updates_per_batch": 2, "kl_target": 0.5},
    "adapters, plain": {"algorithm": "rloo", "lora_rank": 4},
}


def endless(path, kind):
    """A policy of this architecture that ends at many tokens."""
    tiny.policy(path, kind)
    chances = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(chances | {"eos_token_id": ENDS}))
    return path


def by_hand(path, start, kept):
    """A first step done again from what the run kept of it: one unpadded pass per rollout, plain AdamW.

    Gives the numbers of the last update, and the model after it.
    """
    asked = config.read(path)
    model, words = checkpoint.load_policy(start)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=asked.learning_rate, betas=(0.9, 0.95), weight_decay=0
    )
    learnt = [each for each in kept if each["trained"]]
    total, sampled, found = sum(len(each["tokens"]) for each in learnt), {}, {}
    for _ in range(asked.updates_per_batch):
        found = {"loss": 0.0, "clipped": 0, "drift": 0.0}
        for number, each in enumerate(learnt):
            prompt = checkpoint.encode_prompt(words, each["prompt"])
            logits = model(torch.tensor([prompt + each["tokens"]])).logits[0, len(prompt) - 1 : -1]
            own = logits.log_softmax(-1).gather(1, torch.tensor(each["tokens"])[:, None])[:, 0]
            before, advantage = sampled.setdefault(number, own.detach()), each["advantage"]
            terms = []
            for now, then in zip(own, before, strict=True):
                ratio = (now - then).exp()
                low, high = 1 - asked.clip_ratio, 1 + asked.clip_ratio
                if asked.algorithm == "best":
                    terms.append(-now * advantage)
                elif advantage > 0:
                    terms.append(-advantage * (ratio if ratio < high else ratio.new_tensor(high)))
                    found["clipped"] += bool(ratio > high)
                else:
                    terms.append(-advantage * (ratio if ratio > low else ratio.new_tensor(low)))
                    found["clipped"] += bool(ratio < low)
                found["drift"] += float(ratio.detach() - 1 - ratio.detach().log())
            part = torch.stack(terms).sum() / total
            if part.requires_grad:
                part.backward()
            found["loss"] += part.item()
        found["norm"] = float(torch.nn.utils.clip_grad_norm_(model.parameters(), asked.clip))
        optimizer.step()
        optimizer.zero_grad()
    return found | {"share": found["clipped"] / total, "a rollout": found["drift"] / len(learnt)}, model


@pytest.mark.parametrize("algorithm", algorithms.ADVANTAGES)
@pytest.mark.parametrize("updates", [1, 3])
def test_several_updates_are_those_of_a_plain_loop_over_its_rollouts(made, start, algorithm, updates):
    path = made(steps=1, algorithm=algorithm, updates_per_batch=updates, clip_ratio=0.1, micro_batch=3)
    assert execute(path) == FINISHED
    kept, step = lines(path, "rollouts.jsonl.zst"), lines(path)[0]
    expected, model = by_hand(path, start, kept)
    if updates > 1 or algorithm != "rloo":  # the loss of a single REINFORCE step is held in test_train_policy
        assert step["loss"] == pytest.approx(expected["loss"], abs=2e-3)
    assert step["grad_norm"] == pytest.approx(expected["norm"], rel=2e-2)
    if updates > 1 and algorithm != "best":
        assert step["clip_fraction"] == pytest.approx(expected["share"], abs=0.03)
        assert step["sampler_kl"] == pytest.approx(expected["a rollout"], rel=0.05)
        assert step["clip_fraction"] > 0.02 and step["sampler_kl"] > 0.001
    else:
        assert "clip_fraction" not in step and "sampler_kl" not in step
    trained, _ = checkpoint.load_policy(path / result(path)["checkpoint"])
    words = checkpoint.load_policy(start)[1]
    examples = [
        train_policy.Example(checkpoint.encode_prompt(words, each["prompt"]), [each["tokens"]])
        for each in kept
    ]
    found, hoped = (Reader(each).log_probs(examples, 8) for each in (trained, model))
    # A gradient that is nothing but rounding moves its weight either way: Adam looks at its sign.
    assert float((found - hoped).abs().mean()) < 0.01
    assert (
        float((found - Reader(checkpoint.load_policy(start)[0]).log_probs(examples, 8)).abs().mean()) > 0.03
    )


def test_only_the_best_rollout_of_a_prompt_is_learnt_from(made):
    path = made(algorithm="best")
    execute(path)
    for step in range(1, 5):
        for group in range(2):
            rows = [
                each
                for each in lines(path, "rollouts.jsonl.zst")
                if (each["step"], each["group"]) == (step, group)
            ]
            top = max(each["reward"] for each in rows)
            assert [each["trained"] for each in rows].count(True) == 1
            assert all(each["advantage"] == each["trained"] for each in rows)
            assert next(each["reward"] for each in rows if each["trained"]) == pytest.approx(top, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_between_any_two_steps_a_run_ends_with_the_same_bits(made, kind):
    settings = {"steps": 5, "learning_rate": 0.02} | KINDS[kind]
    whole = made("whole", **settings)
    assert execute(whole) == FINISHED
    for last in (1, 2, 3, 4):
        path = made(f"killed after {last}", **settings)
        with pytest.raises(tiny.Killed):
            train_policy.train(tiny.Doomed(path, last), config.read(path))
        assert execute(path) == FINISHED
        assert weights(path, 5) == weights(whole, 5), last
        state = "checkpoints/step-000005/trainer/state.safetensors"
        assert (path / state).read_bytes() == (whole / state).read_bytes()
        for name in ("steps.jsonl", "samples.jsonl", "rollouts.jsonl.zst"):
            assert told(path, name) == told(whole, name)
        assert result(path) == result(whole)


def test_beta_follows_the_kl_and_is_told(made):
    path = made(steps=6, kl_target=0.3, beta=0.2, learning_rate=0.03)
    execute(path)
    steps, beta = lines(path), 0.2
    for step in steps:
        assert step["beta"] == pytest.approx(beta, rel=1e-6)
        beta = algorithms.adapted(beta, step["kl"], 0.3)
    assert len({step["beta"] for step in steps}) == 6
    for each in lines(path, "rollouts.jsonl.zst"):
        cost = -steps[each["step"] - 1]["beta"] * sum(each["kl"])
        assert each["parts"]["kl"] == pytest.approx(cost, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_sampling_and_training_agree_to_a_thousandth_before_the_first_update(made, tmp_path, kind):
    path = made(steps=1, policy=endless(tmp_path / kind, kind), temperature=0.7)
    assert execute(path) == FINISHED
    found = [line for line in (path / "log.txt").read_text().splitlines() if "agree on every token" in line]
    assert len(found) == 1 and float(found[0].split()[-1].rstrip(".")) < 1e-3


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_adapters_hold_no_second_model_and_their_checkpoints_open_plainly(made, tmp_path, kind, monkeypatch):
    base, loaded, kept = endless(tmp_path / kind, kind), [], []
    load = checkpoint.load_policy

    def counted(path, device=None):
        loaded.append(path)
        model, words = load(path, device)
        kept.append(model)
        return model, words

    monkeypatch.setattr(checkpoint, "load_policy", counted)
    path = made(policy=base, lora_rank=2, beta=0, learning_rate=0.03)
    assert execute(path) == FINISHED
    assert len(loaded) == 1
    plain = AutoModelForCausalLM.from_pretrained(path / result(path)["checkpoint"])
    assert not any("lora" in name for name in plain.state_dict())
    examples = [
        train_policy.Example(checkpoint.encode_prompt(load(base)[1], each["prompt"]), [each["tokens"]])
        for each in lines(path, "rollouts.jsonl.zst")[-8:]
    ]
    first, adapted = Reader(load(base)[0]).log_probs(examples, 8), Reader(kept[0]).log_probs(examples, 8)
    assert float((adapted - first).abs().max()) > 0.01
    assert torch.allclose(Reader(plain).log_probs(examples, 8), adapted, atol=1e-4)
    assert torch.allclose(Start(kept[0]).log_probs(examples, 8), first, atol=1e-6)
    assert all(abs(step["kl"]) < 1e-4 for step in lines(path)[:1])
    assert any(abs(step["kl"]) > 1e-3 for step in lines(path)[1:])


def test_with_adapters_the_kl_is_counted_against_the_start(made, start):
    path = made(lora_rank=4, learning_rate=0.05)
    execute(path)
    begun, words = checkpoint.load_policy(start)
    before, _ = checkpoint.load_policy(path / "checkpoints/step-000002")
    for each in lines(path, "rollouts.jsonl.zst"):
        if each["step"] == 3:
            asked = [train_policy.Example(checkpoint.encode_prompt(words, each["prompt"]), [each["tokens"]])]
            expected = Reader(before).log_probs(asked, 1) - Reader(begun).log_probs(asked, 1)
            assert each["kl"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert not [name for name, _ in begun.named_parameters() if "lora" in name]
    assert adapters.state(begun) == {}


def test_a_run_ends_at_its_kl_limit_in_words(made):
    path = made(steps=40, kl_limit=0.4, beta=0, learning_rate=0.05, evaluate_every=50, checkpoint_every=50)
    assert execute(path) == FINISHED
    ended, kls = result(path), [step["kl"] for step in lines(path)]
    last = len(kls)
    assert ended["state"] == "finished" and ended["step"] == last < 40
    means = [sum(kls[max(0, end - 5) : end]) / min(5, end) for end in range(1, last + 1)]
    assert means[-1] > 0.4 and all(mean <= 0.4 for mean in means[:-1])
    assert "the KL to the start is" in ended["stopped"] and "above the limit of 0.4" in ended["stopped"]
    assert ended["checkpoint"] == f"checkpoints/step-{last:06d}"
    assert (path / ended["checkpoint"] / "model.safetensors").exists()
    assert "Stopped early, because the KL to the start" in (path / "log.txt").read_text()
    assert lines(path, "samples.jsonl")[-1]["step"] == last


def test_a_run_ends_when_its_time_is_over(made, monkeypatch):
    path = made(steps=40, time_limit_minutes=3)
    # The clock is looked at before a step is told, when the run still stands at the one before.
    monkeypatch.setattr(RunDirectory, "seconds", property(lambda run: 61.0 * (2 + run.step_now)))
    assert execute(path) == FINISHED
    assert result(path)["step"] == 2 and result(path)["state"] == "finished"
    assert result(path)["stopped"] == "the time limit of 3 minutes is over"


def test_a_run_without_limits_says_that_it_was_not_stopped(made):
    path = made()
    execute(path)
    assert result(path)["stopped"] is None


def test_a_run_that_died_after_it_had_decided_to_end_does_not_go_on(made):
    path = made(steps=40, kl_limit=0.4, beta=0, learning_rate=0.05)
    execute(path)
    ended = result(path)
    (path / "result.json").unlink()
    assert execute(path) == FINISHED
    assert result(path) == ended


def small_memory(monkeypatch, tokens, error, times=None):
    """A model that cannot take more than so many tokens at once where gradients are kept."""
    forward, raised = LlamaForCausalLM.forward, []

    def hungry(self, input_ids=None, **more):
        if torch.is_grad_enabled() and input_ids.numel() > tokens and len(raised) != times:
            raised.append(input_ids.numel())
            raise error
        return forward(self, input_ids=input_ids, **more)

    hungry.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(LlamaForCausalLM, "forward", hungry)
    return raised


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 98304 bytes."),
    ],
)
def test_where_memory_runs_out_the_run_goes_on_by_halves_and_ends_alike(made, monkeypatch, error):
    roomy, narrow = made("roomy"), made("narrow")
    execute(roomy)
    raised = small_memory(monkeypatch, 70, error)
    assert execute(narrow) == FINISHED
    assert raised
    for one, other in zip(lines(roomy), lines(narrow), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)
    log = (narrow / "log.txt").read_text()
    assert "not enough memory for 8 rollouts at once; from here on it is 4" in log


def test_what_was_found_to_fit_is_remembered_by_a_resumed_run(made, monkeypatch):
    whole, killed = made("whole"), made("killed")
    for path in (whole, killed):
        small_memory(monkeypatch, 70, MemoryError(), times=1)  # memory that is short only once
        if path is whole:
            execute(path)
        else:
            with pytest.raises(tiny.Killed):
                train_policy.train(tiny.Doomed(path, 3), config.read(path))
        monkeypatch.undo()
    assert execute(killed) == FINISHED
    assert weights(killed, 4) == weights(whole, 4)
    values = json.loads((killed / "checkpoints/step-000004/trainer/state.json").read_text())
    assert values["state"]["at_once"] == 4


def test_what_does_not_fit_at_all_fails_and_names_what_to_turn(made, monkeypatch):
    small_memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    path = made()
    assert execute(path) == FAILED
    ended = result(path)
    assert ended["field"] == "max_new_tokens" and "not enough memory for one rollout" in ended["reason"]
    assert "LoRA rank" in ended["remedy"]


def test_another_tokenizer_costs_what_the_log_says(made, tmp_path):
    other = scorer(tiny.policy(tmp_path / "other", chat=False), tmp_path / "other-judge")
    path = made(reward=other, steps=2)
    assert execute(path) == FINISHED
    log = (path / "log.txt").read_text()
    assert "Spelling a step's rollouts anew for the reward model takes" in log and " ms of it." in log


def test_a_reward_model_whose_template_refuses_a_prompt_is_refused(made, start, tmp_path):
    strict = scorer(start, tmp_path / "strict")
    template = "{{ raise_exception('no rain here') if 'rain' in messages[0]['content'] }}"
    (strict / "chat_template.jinja").write_text(template + tiny.CHAT)
    path = made(reward=strict)
    assert execute(path) == FAILED
    ended = result(path)
    assert ended["field"] == "reward" and not (path / "steps.jsonl").exists()
    assert "does not take the prompt “A joke about rain.”: no rain here" in ended["reason"]
