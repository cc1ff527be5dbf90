"""The policy trainer on tiny models: what it writes, that it learns, how it ends and how it goes on."""

import json
import os
import shutil
import signal

import pytest
import torch
import zstandard
from safetensors.torch import load_file, save_file

from rlhf import checkpoint, config, guard, train_policy
from rlhf.execute import FAILED, FINISHED, TRY_AGAIN, execute
from rlhf.run import RunDirectory
from tests.rlhf import tiny

PROMPTS = ["A joke about a pelican.", "A joke about rain.", "And one about tea."]
ENDS = list(range(4, 60))
SETTINGS = {
    "steps": 4, "prompts_per_step": 2, "rollouts_per_prompt": 4, "max_new_tokens": 10, "learning_rate": 0.01,
    "evaluate_every": 2, "checkpoint_every": 2, "sample_prompts": 2, "warmup": 0, "device": "cpu",
}  # fmt: skip
FAST = {"beta": 0, "learning_rate": 0.03}  # and away from the start it goes


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A policy with many ending tokens: random weights would hardly ever draw the one."""
    path = tiny.policy(tmp_path_factory.mktemp("start") / "policy")
    chances = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(chances | {"eos_token_id": ENDS}))
    return path


@pytest.fixture(scope="module")
def judge(start, tmp_path_factory):
    return scorer(start, tmp_path_factory.mktemp("judge") / "reward")


@pytest.fixture
def made(tmp_path, start, judge):
    """A run directory with these settings."""

    def make(name="run", policy=start, reward=judge, **more):
        return prepared(tmp_path / name, policy, reward, **more)

    return make


def prepared(path, policy, reward, prompts=PROMPTS, **settings):
    shutil.copytree(policy, path / "inputs" / "policy")
    shutil.copytree(reward, path / "inputs" / "reward")
    (path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
    config.write(path, config.make("policy", SETTINGS | settings))
    return path


def scorer(start, path, seed=1):
    model, words = checkpoint.start_reward_model(start, seed=seed)
    checkpoint.save(path, model, words, {"kind": "reward", "mu": 0.1, "tau": 0.5}, {})
    return path


def without_taste(judge):
    """The same reward model with a head of zeros: everything is worth the same to it."""
    weights = load_file(judge / "model.safetensors")
    weights["score.weight"].zero_()
    save_file(weights, judge / "model.safetensors", {"format": "pt"})
    return judge


def lines(path, name="steps.jsonl"):
    blob = (path / name).read_bytes()
    if name.endswith(".zst"):
        blob = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()
    return [json.loads(line) for line in blob.decode().splitlines()]


def result(path):
    return json.loads((path / "result.json").read_text())


def weights(path, step):
    return (path / "checkpoints" / f"step-{step:06d}" / "model.safetensors").read_bytes()


def told(path, name="steps.jsonl"):
    """The lines without the clock."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(path, name)]


def test_no_more_is_told_to_be_scored_than_there_are_prompts_for(made):
    path = made(prompts=PROMPTS[:1], steps=1)
    assert execute(path) == FINISHED
    assert lines(path)[0]["scored"] == 4, "one prompt where a step wants two"


def test_a_run_writes_all_that_the_contract_names(made):
    path = made()
    assert execute(path) == FINISHED
    steps = lines(path)
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    wanted = {
        "reward", "raw_reward", "kl", "sqrt_kl", "entropy", "distinct_1", "distinct_2", "length", "finished",
        "zero_spread", "loss", "grad_norm", "learning_rate", "seconds",
    }  # fmt: skip
    assert all(wanted <= set(line) for line in steps)
    assert all(0 <= line["reward"] <= 1 for line in steps)
    ended = result(path)
    assert (ended["state"], ended["step"], ended["checkpoint"]) == ("finished", 4, "checkpoints/step-000004")
    assert ended["crop"] is None and ended["suggested"] == "checkpoints/step-000004"
    assert ended["metrics"]["kl"] == steps[-1]["kl"]
    folders = sorted(each.name for each in (path / "checkpoints").iterdir())
    assert folders == ["step-000002", "step-000004"]
    assert {line["scored"] for line in steps} == {len(lines(path, "rollouts.jsonl.zst")) // 4}
    assert not (path / "checkpoints/step-000002/trainer").exists()
    model, _ = checkpoint.load_policy(path / ended["checkpoint"])
    assert isinstance(model, torch.nn.Module)
    lineage = checkpoint.lineage(path / ended["checkpoint"])
    assert lineage["kind"] == "policy" and lineage["step"] == 4
    assert lineage["reward"]["sha256"] == checkpoint.fingerprint(path / "inputs/reward")


def test_every_rollout_is_kept_with_all_that_was_made_of_it(made):
    path = made()
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    assert len(kept) == 4 * 2 * 4
    first = kept[0]
    assert (first["step"], first["group"], first["index"]) == (1, 0, 0)
    assert first["prompt"] in PROMPTS and isinstance(first["rollout"], str)
    for each in kept:
        assert len(each["kl"]) == len(each["tokens"]) <= 10
        assert each["reward"] == pytest.approx(sum(each["parts"].values()), abs=1e-5)
        assert each["parts"]["kl"] == pytest.approx(-0.1 * sum(each["kl"]), abs=1e-3)
        assert each["finished"] == (each["tokens"][-1] in ENDS)
        assert ("unfinished" in each["parts"]) != each["finished"]
    for step in range(1, 5):
        for group in range(2):
            rows = [each for each in kept if (each["step"], each["group"]) == (step, group)]
            assert [each["index"] for each in rows] == [0, 1, 2, 3]
            if rows[0]["trained"]:
                others = sum(each["reward"] for each in rows[1:]) / 3
                assert rows[0]["advantage"] == pytest.approx(rows[0]["reward"] - others, abs=1e-4)
            else:
                assert {each["advantage"] for each in rows} == {0.0}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_first_step_is_that_of_a_plain_loop_over_its_rollouts(made, start, temperature):
    """Loss, entropy and KL by one unpadded forward pass a rollout, from what the run kept of them."""
    path = made(steps=1, temperature=temperature, micro_batch=3)
    execute(path)
    model, words = checkpoint.load_policy(start)
    model.get_input_embeddings().weight.requires_grad_()
    kept, step = lines(path, "rollouts.jsonl.zst"), lines(path)[0]
    count, entropy = sum(len(each["tokens"]) for each in kept), 0.0
    for each in kept:
        prompt, tokens = checkpoint.encode_prompt(words, each["prompt"]), each["tokens"]
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1] / temperature
        likely = logits.log_softmax(-1)
        entropy -= float((likely.exp() * likely).sum()) / count
        own = likely.gather(1, torch.tensor(tokens)[:, None]).sum()
        (-each["advantage"] * own / count).backward()
        each["loss"] = float(-each["advantage"] * own.detach() / count)
    norm = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
    assert step["loss"] == pytest.approx(sum(each["loss"] for each in kept), abs=1e-4)
    assert step["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    assert step["entropy"] == pytest.approx(entropy, abs=1e-4)
    assert abs(step["kl"]) < 1e-4


def test_a_steps_numbers_are_those_of_its_rollouts(made):
    path = made(steps=3, learning_rate=0.05)
    execute(path)
    for step in lines(path):
        kept = [each for each in lines(path, "rollouts.jsonl.zst") if each["step"] == step["step"]]
        kl = sum(sum(each["kl"]) for each in kept) / 8
        assert step["kl"] == pytest.approx(kl, abs=1e-3)
        assert step["sqrt_kl"] == pytest.approx(max(0.0, step["kl"]) ** 0.5)
        assert step["reward"] == pytest.approx(sum(each["score"] for each in kept) / 8, abs=1e-5)
        assert step["length"] == sum(len(each["tokens"]) for each in kept) / 8
        assert step["finished"] == sum(each["finished"] for each in kept) / 8
        for size in (1, 2):
            parts = [tuple(each["tokens"][at : at + size]) for each in kept for at in range(10)]
            whole = [part for part in parts if len(part) == size]
            assert step[f"distinct_{size}"] == pytest.approx(len(set(whole)) / len(whole))
    assert abs(kl) > 0.05


def test_every_step_and_every_seed_has_chances_of_its_own(made):
    one, other = made("one", learning_rate=1e-9), made("other", learning_rate=1e-9, seed=1)
    execute(one)
    execute(other)
    drawn = [each["tokens"] for path in (one, other) for each in lines(path, "rollouts.jsonl.zst")]
    same = [each["prompt"] for path in (one, other) for each in lines(path, "rollouts.jsonl.zst")]
    told = {(prompt, tuple(tokens)) for prompt, tokens in zip(same, drawn, strict=True) if len(tokens) > 2}
    assert len(told) == sum(len(tokens) > 2 for tokens in drawn)


def test_the_learning_rate_rises_over_the_warmup(made):
    path = made(steps=4, warmup=2, learning_rate=0.03)
    execute(path)
    assert [line["learning_rate"] for line in lines(path)] == pytest.approx([0.01, 0.02, 0.03, 0.03])


def test_normalised_advantages_have_a_spread_of_one(made):
    path = made(steps=1, algorithm="grpo")
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    assert torch.tensor([each["advantage"] for each in kept[:4]]).std().item() == pytest.approx(1, abs=1e-3)


def test_the_start_pays_no_kl_and_its_samples_come_first(made):
    path = made()
    execute(path)
    samples = lines(path, "samples.jsonl")
    assert [(each["step"], each["index"]) for each in samples] == [
        (step, index) for step in (0, 2, 4) for index in (0, 1)
    ]
    assert [each["prompt"] for each in samples[:2]] == PROMPTS[:2]
    assert all(abs(each["kl"]) < 1e-4 for each in samples[:2])
    assert all(0 <= each["score"] <= 1 for each in samples)
    assert abs(lines(path)[0]["kl"]) < 1e-4


def test_sampling_and_training_agree_before_the_first_update(made):
    path = made()
    execute(path)
    log = (path / "log.txt").read_text().splitlines()
    found = [line for line in log if "agree on every token" in line]
    assert len(found) == 1 and float(found[0].split()[-1].rstrip(".")) < 1e-4


def test_a_model_that_says_other_things_in_training_is_refused(made, monkeypatch):
    monkeypatch.setattr(train_policy, "DISAGREEMENT", 0.0)
    path = made()
    assert execute(path) == FAILED
    assert "says other things when it writes" in result(path)["reason"]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "best"])
def test_the_reward_rises_where_nothing_holds_it(made, algorithm):
    path = made(
        steps=40, beta=0, prompts_per_step=3, rollouts_per_prompt=8, learning_rate=0.02, algorithm=algorithm,
        unfinished_reward=0.6,
    )  # fmt: skip
    execute(path)
    rewards = [line["raw_reward"] for line in lines(path)]
    means = [sum(rewards[first : first + 5]) / 5 for first in range(0, 40, 5)]
    assert max(means) > means[0] + 0.05
    kls = [line["kl"] for line in lines(path)]
    assert kls[-1] > kls[1] and kls[-1] > 0.5


def test_a_large_beta_holds_the_policy_where_it_started(made):
    same = {"steps": 15, "prompts_per_step": 3, "rollouts_per_prompt": 8}
    free, held = made("free", beta=0, **same), made("held", beta=10, **same)
    execute(free)
    execute(held)
    assert lines(held)[-1]["kl"] < 0.5 * lines(free)[-1]["kl"]


def test_portions_of_any_size_give_the_same_run(made):
    whole, parts = made("whole", micro_batch=8), made("parts", micro_batch=3)
    execute(whole)
    execute(parts)
    for one, other in zip(lines(whole), lines(parts), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)


def test_a_killed_run_goes_on_to_the_very_same_end(made, subtests):
    """The process dies at once when it is about to tell a step: nothing is flushed, nothing is said."""
    straight, broken = (
        made("straight", steps=6),
        {at: made(f"broken at {at}", steps=6) for at in (1, 3, 4, 5)},
    )
    assert execute(straight) == FINISHED
    tiny.killed(broken)
    for step, path in broken.items():
        with subtests.test(killed_at=step):
            assert execute(path) == FINISHED
            assert weights(path, 6) == weights(straight, 6)
            for name in ("steps.jsonl", "samples.jsonl", "rollouts.jsonl.zst"):
                assert told(path, name) == told(straight, name)
            assert result(path) == result(straight)


def test_sigterm_stops_between_two_steps_and_the_run_goes_on(made, monkeypatch):
    straight, stopped = made("straight"), made("stopped")
    execute(straight)
    tell = RunDirectory.step

    def interrupted(self, step, **metrics):
        tell(self, step, **metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "step", interrupted)
        assert execute(stopped) == TRY_AGAIN
    assert not (stopped / "result.json").exists()
    assert (stopped / "checkpoints/step-000003/trainer").is_dir()
    assert execute(stopped) == FINISHED
    assert weights(stopped, 4) == weights(straight, 4)
    assert told(stopped) == told(straight)


def test_a_cancelled_run_ends_with_a_checkpoint_of_its_last_step(made, monkeypatch):
    path = made(steps=50)
    tell = RunDirectory.step

    def cancelling(self, step, **metrics):
        tell(self, step, **metrics)
        if step == 3:
            (self.path / "cancel").touch()

    monkeypatch.setattr(RunDirectory, "step", cancelling)
    assert execute(path) == FINISHED
    assert result(path)["state"] == "cancelled"
    assert result(path)["checkpoint"] == "checkpoints/step-000003"


def test_a_crop_is_told_once_and_names_the_last_checkpoint_with_half_of_the_kl(made):
    path = made(steps=9, checkpoint_every=1, crop_kl=0.1, crop_distinct=0, crop_entropy=1, **FAST)
    execute(path)
    crops = [(line["step"], line["crop"]) for line in lines(path) if "crop" in line]
    assert len(crops) == 1
    step, signs = crops[0]
    assert signs == ["kl", "entropy"]
    crop = result(path)["crop"]
    assert crop["step"] == step and len(crop["rules"]) == 2
    kl = [line["kl"] for line in lines(path)]
    around = [(end - min(end, 5) // 2, guard.mean(kl[max(0, end - 5) : end])) for end in range(1, step + 1)]
    safe = max(middle for middle, mean in around if mean <= 0.1 / 2)
    assert 0 < safe < step - 2
    assert crop["checkpoint"] == f"checkpoints/step-{safe:06d}" == result(path)["suggested"]


def test_a_crop_before_any_checkpoint_suggests_none(made):
    path = made(steps=9, checkpoint_every=9, crop_kl=0.01, crop_distinct=0, crop_entropy=1, **FAST)
    execute(path)
    assert result(path)["crop"]["checkpoint"] is None and result(path)["suggested"] is None


def test_a_group_whose_rollouts_are_all_worth_the_same_is_counted_and_not_trained_on(made, tmp_path):
    path = made(steps=2, policy=tiny.policy(tmp_path / "endless"), max_new_tokens=1)  # all are cut off
    execute(path)
    assert [line["zero_spread"] for line in lines(path)] == [1.0, 1.0]
    assert not any(each["trained"] for each in lines(path, "rollouts.jsonl.zst"))
    assert [line["grad_norm"] for line in lines(path)] == [0.0, 0.0]


def test_rounding_teaches_nothing(made, start, tmp_path):
    blank = without_taste(scorer(start, tmp_path / "blank"))
    path = made(reward=blank, steps=1, beta=10, unfinished_reward=-0.2, algorithm="grpo")
    execute(path)
    assert lines(path)[0]["grad_norm"] == 0
    assert not any(each["trained"] for each in lines(path, "rollouts.jsonl.zst"))


def test_where_all_earn_the_same_what_they_paid_still_pulls_them_back(made, start, tmp_path, monkeypatch):
    """A policy that has moved, and a reward model to which everything is equal."""
    blank = without_taste(scorer(start, tmp_path / "blank"))
    moved = checkpoint.load_policy(tiny.policy(tmp_path / "moved", seed=1))[0]
    moved.get_input_embeddings().weight.data.mul_(4)  # surer of itself than random weights are
    opened = iter([moved])  # the policy is loaded first, then its start
    load = checkpoint.load_policy

    def load_moved(path, device=None):
        model, words = load(path, device)
        for other in opened:
            model.load_state_dict(other.state_dict())
        return model, words

    monkeypatch.setattr(checkpoint, "load_policy", load_moved)
    path = made(reward=blank, steps=1, beta=0.5, unfinished_reward=-0.2)
    assert execute(path) == FINISHED
    assert lines(path)[0]["zero_spread"] == 1.0 and lines(path)[0]["grad_norm"] > 0.001
    kept = lines(path, "rollouts.jsonl.zst")
    assert all(each["trained"] for each in kept)
    for group in (kept[:4], kept[4:]):
        paid = [0.5 * sum(each["kl"]) for each in group]
        expected = [sum(paid) / 3 - 4 / 3 * own for own in paid]
        assert [each["advantage"] for each in group] == pytest.approx(expected, abs=1e-3)
        assert max(expected) > 0.01


def test_another_tokenizer_is_scored_by_text_and_the_log_says_so(made, tmp_path):
    other = scorer(tiny.policy(tmp_path / "other", chat=False), tmp_path / "other-judge")
    path = made(reward=other, steps=1)
    assert execute(path) == FINISHED
    assert "another tokenizer" in (path / "log.txt").read_text()


def test_a_reward_model_that_is_none_fails_in_words(made, start):
    path = made(reward=start)
    assert execute(path) == FAILED
    assert "is no reward model" in result(path)["reason"] and result(path)["field"] == "reward"


def test_no_prompts_fail_in_words(made):
    path = made(prompts=[])
    assert execute(path) == FAILED
    assert result(path)["reason"] == "There are no prompts to answer."


def test_rollouts_longer_than_the_model_are_refused_before_any_step(made):
    path = made(max_new_tokens=8000)
    assert execute(path) == FAILED
    assert result(path)["field"] == "max_new_tokens"
    assert not (path / "steps.jsonl").exists()
