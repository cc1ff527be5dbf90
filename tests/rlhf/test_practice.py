"""Policy runs against a checker: what judges them, what they tell, what they are refused, and that they
go on without changing a number."""

# ruff: noqa: F811
import json
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from rlhf import accuracy, checkers, checkpoint, config, train_policy
from rlhf.algorithms import Lesson
from rlhf.checkers import CannotCheck, Checked, Checker
from rlhf.data import PromptLine
from rlhf.execute import FAILED, FINISHED, execute
from rlhf.experience import Experience
from rlhf.policy import Reader
from rlhf.rewards import Group, Verdict
from rlhf.sample import Rollout
from tests.rlhf import tiny
from tests.rlhf.test_train_policy import SETTINGS as PLAIN
from tests.rlhf.test_train_policy import judge, lines, result, start, told, weights  # noqa: F401
from tests.rlhf.test_train_policy import made as plain  # noqa: F401

ASKED = [f"How much is {number}?" for number in range(10)]
HELD = {"How much is 9?", "How much is 6?", "How much is 7?"}  # whose sha256 begin with 09, 4f and 55
SETTINGS = {
    "steps": 4, "prompts_per_step": 2, "candidates": 2, "held_out": 0.36, "reward": "", "checker": "exact",
    "set_aside": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Vowel(Checker):
    """Half of what a random model writes is correct, as it were."""

    name: ClassVar[str] = "exact"

    def compare(self, prompt, answer, reference):
        right = any(each in "aeiou" for each in answer.lower())
        return Checked(right, "it holds a vowel" if right else "it holds no vowel", answer[:3])


vowel = Vowel()


@pytest.fixture
def made(plain, monkeypatch):
    """A run directory whose prompts have answers; its checker is the vowel's."""
    monkeypatch.setitem(checkers.KINDS, "exact", Vowel)

    def make(name="run", answers=True, **settings):
        return practising(plain(name), "3" if answers else None, **settings)

    return make


def practising(path, answer, **settings):
    """A run directory of test_train_policy, against a checker instead."""
    config.write(path, config.make("policy", PLAIN | SETTINGS | settings))
    given = {"answer": answer} if answer else {}
    asked = [{"prompt": each, "id": f"p{number}"} | given for number, each in enumerate(ASKED)]
    (path / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    return path


def test_every_rollout_is_told_with_what_the_checker_said_of_it(made):
    path = made(checker_weight=2.0)
    assert execute(path) == FINISHED
    for each in lines(path, "rollouts.jsonl.zst"):
        if each["finished"]:
            said = vowel("", each["rollout"], "")
            assert (each["correct"], each["checked"], each["read"]) == (said.correct, said.reason, said.read)
            assert each["parts"]["checker"] == 2.0 * each["correct"]
        else:
            assert each["correct"] is False and each["checked"] == "It was cut off before it ended."
            assert each["parts"]["unfinished"] == 0
        assert each["score"] is None


def test_a_steps_numbers_are_those_of_all_its_rollouts_and_what_is_held_out_is_never_practised(made):
    path = made(steps=6)
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    first, *steps = lines(path)
    assert first["step"] == 0 and {"held_out_accuracy", "held_out_sampled", "held_out_length"} <= set(first)
    practised = {each["prompt"] for each in kept}
    assert practised == set(ASKED) - HELD and len(kept) > 6 * 8
    for step in steps:
        rows = [each for each in kept if each["step"] == step["step"]]
        count = len({each["prompt"] for each in rows})  # fewer than four where the others are set aside
        groups = [[each for each in rows if each["group"] == group] for group in range(count)]
        shares = [sum(each["correct"] for each in group) / 4 for group in groups]
        assert step["accuracy"] == pytest.approx(sum(shares) / count)
        assert step["solved"] == sum(share > 0 for share in shares) / count
        assert step["mixed"] == sum(0 < share < 1 for share in shares) / count
        assert ("held_out_accuracy" in step) == (step["step"] % 2 == 0)
        learnt = sorted(range(count), key=lambda place: (abs(shares[place] - 0.5), place))[:2]
        for place, group in enumerate(groups):
            assert any(each["trained"] for each in group) == (place in learnt and 0 < shares[place] < 1)


def test_a_step_tells_how_each_of_its_prompts_fared(made):
    path = made(steps=2)
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    for step in lines(path)[1:]:
        rows = [each for each in kept if each["step"] == step["step"]]
        fared = {}
        for each in rows:
            written, right = fared.get(each["id"], (0, 0))
            fared[each["id"]] = (written + 1, right + each["correct"])
        assert step["practised"] == [[number, *both] for number, both in fared.items()]
        assert fared and all(number.startswith("p") for number in fared)


def test_held_out_accuracy_is_that_of_a_plain_loop_over_the_checkpoint(made):
    path = made(steps=2, learning_rate=0.03)
    execute(path)
    model, words = checkpoint.load_policy(path / result(path)["checkpoint"])
    right = sum(greedy(model, words, each) for each in HELD)
    assert lines(path)[-1]["held_out_accuracy"] == pytest.approx(right / 3, abs=1e-6)


def test_what_is_measured_is_accuracy_greedily_and_accuracy_and_length_as_it_samples():
    def answers(prompts, temperature):
        right, length = {0.0: (3, 2), 0.7: (1, 5)}[temperature]
        rollout = Rollout([1] * length, [], True)
        return [(rollout, Verdict({}, checked=Checked(number < right, ""))) for number in prompts]

    stage = SimpleNamespace(config=SimpleNamespace(temperature=0.7), answers=answers)
    assert list(accuracy.measured(stage, range(4)).values()) == [0.75, 0.25, 5.0]
    assert accuracy.measured(stage, []) == {}


def greedy(model, words, prompt):
    """Whether the likeliest answer ends and holds a vowel."""
    ids, ends = checkpoint.encode_prompt(words, prompt), checkpoint.end_ids(model, words)
    asked = len(ids)
    while len(ids) < asked + 10:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            return vowel("", checkpoint.decode_rollout(words, ids[asked:]), "").correct
    return False


def test_the_one_that_is_pushed_most_is_marked_with_its_chance_before_and_after(made, start):
    path = made(steps=1, learning_rate=0.02, warmup=0)
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    groups = {each["group"] for each in kept if each["trained"]}
    picked = [each for each in kept if each.get("picked")]
    assert groups and {each["group"] for each in picked} == groups and len(picked) == len(groups)
    first, words = checkpoint.load_policy(start)
    last, _ = checkpoint.load_policy(path / result(path)["checkpoint"])
    for each in picked:
        rivals = [one for one in kept if one["group"] == each["group"] and one["correct"]]
        assert each["correct"] and len(each["tokens"]) == min(len(one["tokens"]) for one in rivals)
        example = train_policy.Example(checkpoint.encode_prompt(words, each["prompt"]), [each["tokens"]])
        before, after = (float(Reader(model).log_probs([example], 1).sum()) for model in (first, last))
        assert each["log_prob"] == pytest.approx([before, after], abs=1e-3)
        assert after > before


def test_picked_is_a_correct_one_of_these_the_one_of_the_highest_reward_of_these_the_shortest():
    told = [(False, 9.0, 1), (True, 1.0, 2), (True, 2.0, 7), (True, 2.0, 4)]  # correct, reward, length
    verdicts = [Verdict({"model": reward}, checked=Checked(right, "")) for right, reward, _ in told]
    group = Group(PromptLine("?"), [1], [Rollout([1] * length, [], True) for *_, length in told])
    lived = Experience([group], verdicts, [], [])
    for taught, place in (([1, 1, 1, 1], 3), ([1, 1, 1, 0], 2), ([1, 1, 0, 0], 1), ([1, 0, 0, 0], 0)):
        assert lived.picked(Lesson(torch.ones(1, 4), torch.tensor([taught]).bool())) == [place]


def test_what_an_update_pushed_is_measured_more_finely_than_half_precision_rounds(made, start):
    path = made(steps=1, learning_rate=1e-6, warmup=0, precision="bf16")
    execute(path)
    first, words = checkpoint.load_policy(start)
    last, _ = checkpoint.load_policy(path / result(path)["checkpoint"])
    picked = [each for each in lines(path, "rollouts.jsonl.zst") if each.get("picked")]
    assert picked
    for each in picked:
        example = train_policy.Example(checkpoint.encode_prompt(words, each["prompt"]), [each["tokens"]])
        then, now = (Reader(model).log_probs([example], 1).double().sum().item() for model in (first, last))
        assert each["log_prob"][1] - each["log_prob"][0] == pytest.approx(now - then, abs=1e-4)
        assert 0 < now - then < 0.01


def test_by_rule_alone_there_is_no_crop_and_the_best_measured_checkpoint_is_suggested(made, monkeypatch):
    told_off = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr(
        train_policy, "measured", lambda stage, prompts: {"held_out_accuracy": next(told_off)}
    )
    path = made(steps=4, crop_kl=0.01, crop_distinct=1, crop_entropy=1, learning_rate=0.03)
    execute(path)
    ended = result(path)
    assert ended["crop"] is None and not any("crop" in line for line in lines(path))
    assert ended["suggested"] == "checkpoints/step-000002" and "90.0%" in ended["why"]


def test_the_parts_of_a_mixed_reward_are_weighted_and_told_apart(made):
    path = made(
        reward="inputs/reward", reward_weight=0.5, format_weight=0.25, format="[aeiou]", beta=0, steps=2,
        unfinished_reward=-1,
    )  # fmt: skip
    assert execute(path) == FINISHED
    kept = [each for each in lines(path, "rollouts.jsonl.zst") if each["step"] == 1]
    for each in kept:
        if each["finished"]:
            raw = math.log(each["score"] / (1 - each["score"]))
            assert each["parts"]["model"] == pytest.approx(0.5 * raw, abs=1e-3)
            assert each["parts"]["format"] == 0.25 * bool(set(each["rollout"]) & set("aeiou"))
            assert each["parts"]["checker"] == float(each["correct"])
        else:
            assert each["parts"]["unfinished"] == -1
        assert each["reward"] == pytest.approx(sum(each["parts"].values()), abs=1e-5)
    step = lines(path)[1]
    parts = [step.get(f"reward_{name}", 0.0) for name in ("model", "format", "checker", "unfinished")]
    assert step["reward"] == pytest.approx(sum(parts), abs=1e-5)
    means = [sum(each["parts"].get(name, 0) for each in kept) / 16 for name in ("model", "format")]
    assert parts[:2] == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("settings", [{"reward": "inputs/reward"}, {"checker": "judge"}])
def test_with_a_model_anywhere_in_the_reward_the_cap_is_back(settings):
    by_rule = {"checker": "number", "reward": ""}
    assert config.make("policy", by_rule | {"steps": 100_000}).steps == 100_000
    with pytest.raises(config.Refused, match="at most 500 steps, because") as refused:
        config.make("policy", by_rule | settings | {"steps": 501})
    assert refused.value.field == "steps"


def test_what_holds_a_policy_is_loosened_where_rules_alone_judge_and_nowhere_else():
    found = {
        judged: config.make("policy", values)
        for judged, values in {
            "rules": {"checker": "number", "reward": ""}, "mixed": {"checker": "number"}, "model": {},
        }.items()
    }  # fmt: skip
    assert {judged: made.judged for judged, made in found.items()} == {each: each for each in found}
    assert [found[each].beta for each in ("rules", "mixed", "model")] == [0.0, 0.1, 0.1]
    assert [found[each].held_out for each in ("rules", "mixed", "model")] == [0.1, 0.1, 0.0]
    assert config.make("policy", {"checker": "number", "reward": "", "beta": 0.3}).beta == 0.3
    assert all(config.differences(made) == {} for made in found.values())


@pytest.mark.parametrize("name", ["held_out", "candidates", "set_aside", "format_weight"])
def test_what_takes_a_checker_is_refused_without_one(name):
    with pytest.raises(config.Refused, match="takes a checker") as refused:
        config.make("policy", {name: 0.4 if name in ("held_out", "format_weight") else 2})
    assert refused.value.field == name


def test_a_form_that_is_no_pattern_is_refused():
    with pytest.raises(config.Refused, match="no regular expression") as refused:
        config.make("policy", {"checker": "number", "reward": "", "format": "(<think>"})
    assert refused.value.field == "format"
    for_the_run = {"checker": "number", "reward": "", "format": r"^\p{Lu}"}  # no pattern to Python's own re
    assert config.make("policy", for_the_run).format == r"^\p{Lu}"


def test_prompts_without_answers_are_refused_in_words(made):
    path = made(answers=False)
    assert execute(path) == FAILED
    ended = result(path)
    assert ended["field"] == "prompts"
    assert ended["reason"].startswith("10 of 10 prompts have no answer") and ASKED[0] in ended["reason"]


@pytest.mark.parametrize(
    "error", [CannotCheck("its helper has died."), ZeroDivisionError("division by zero")]
)
def test_a_checker_that_fails_to_run_fails_the_run_with_the_sample(made, monkeypatch, error):
    def broken(self, prompt, answer, reference):
        raise error

    path = made()
    monkeypatch.setattr(Vowel, "compare", broken)
    assert execute(path) == FAILED
    reason = result(path)["reason"]
    assert "No reward for rollout" in reason and "The rollout reads:" in reason
    assert str(error).rstrip(".") in reason


def test_the_options_of_a_checker_are_read_beside_the_prompts(made):
    path = made(steps=1, checker="number")
    (path / "checker.json").write_text('{"name": "number", "tolerance": 100}')
    assert execute(path) == FINISHED
    assert checkpoint.lineage(path / result(path)["checkpoint"])["checker"]["tolerance"] == 100
    other = made("other", steps=1)
    (other / "checker.json").write_text('{"name": "number"}')
    assert execute(other) == FAILED and result(other)["field"] == "checker"


def test_another_checkpoint_is_measured_on_the_same_prompts_before_the_first_step(made, start):
    path = made(against="inputs/policy", steps=1)  # the start itself, so that both lines are one
    execute(path)
    first = lines(path)[0]
    assert first["imitation_accuracy"] == first["held_out_accuracy"]
    assert first["imitation_sampled"] == first["held_out_sampled"]


def test_the_rate_falls_in_a_line(made):
    path = made(steps=5, final_rate=0.2, learning_rate=0.01, warmup=0)
    execute(path)
    found = [line["learning_rate"] for line in lines(path)[1:]]
    assert found == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])


def test_phrases_of_somebody_who_looks_again_are_counted_as_words():
    texts = ["Wait, 3+4 is 7.", "The waiter came.", "Let  me\ncheck: 7.", "7.", "They await it."]
    assert accuracy.rechecking(texts, "wait, let me check") == 0.4
    assert accuracy.rechecking(texts, " , ") == 0.0
    assert accuracy.rechecking(texts, "7.") == 0.6


def test_the_share_of_re_checking_rollouts_is_told_at_every_step(made):
    path = made(recheck_phrases="a, e")
    execute(path)
    kept = lines(path, "rollouts.jsonl.zst")
    for step in lines(path)[1:]:
        texts = [each["rollout"] for each in kept if each["step"] == step["step"]]
        assert step["rechecking"] == pytest.approx(accuracy.rechecking(texts, "a, e"))


def test_killed_between_any_two_steps_a_run_ends_with_the_same_bits(made):
    settings = {"steps": 5, "learning_rate": 0.02, "checkpoint_every": 2, "algorithm": "grpo"}
    whole = made("whole", **settings)
    assert execute(whole) == FINISHED
    for last in (1, 2, 3, 4):
        path = made(f"killed after {last}", **settings)
        with pytest.raises(tiny.Killed):
            train_policy.train(tiny.Doomed(path, last), config.read(path))
        assert execute(path) == FINISHED
        assert weights(path, 5) == weights(whole, 5), last
        for name in ("steps.jsonl", "samples.jsonl", "rollouts.jsonl.zst"):
            assert told(path, name) == told(whole, name)
        assert result(path) == result(whole)
        state = "checkpoints/step-000005/trainer/state.json"
        orders = [json.loads((each / state).read_text())["state"]["order"] for each in (path, whole)]
        assert orders[0] == orders[1] and orders[0]["place"] >= 20


def test_killed_by_the_kernel_a_run_against_a_real_checker_ends_with_the_same_bits(plain):
    """No signal that could be heeded, in a process of its own, at a step without a checkpoint."""
    settings = {"steps": 4, "checker": "number", "learning_rate": 0.02}
    straight, broken = (practising(plain(name), "3", **settings) for name in ("straight", "broken"))
    assert execute(straight) == FINISHED
    tiny.killed({3: broken})
    assert execute(broken) == FINISHED
    assert weights(broken, 4) == weights(straight, 4)
    for name in ("steps.jsonl", "samples.jsonl", "rollouts.jsonl.zst"):
        assert told(broken, name) == told(straight, name)
    assert result(broken) == result(straight)
