"""Rewards of rollouts: on tokens or on text, cut off or not, and what happens where there is none."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf import checkpoint, config, rewards
from rlhf.checkers import Checked, Checker
from rlhf.data import PromptLine
from rlhf.reward_model import RewardModel
from rlhf.rewards import CheckerRewards, FormRewards, Group, ModelRewards, Reward, Verdict, same_tokens
from rlhf.run import Failed
from rlhf.sample import Rollout
from tests.rlhf import tiny

WORDS = tiny.tokenizer()
LINES = [PromptLine("A joke about a pelican."), PromptLine("Now one about rain.", answer="wet")]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.policy(tmp_path_factory.mktemp("start") / "policy")


@pytest.fixture
def judge(start):
    model, words = checkpoint.start_reward_model(start, seed=3)
    return RewardModel(model, words, mu=0.25, tau=0.5)


def written(text, finished=True):
    ids = checkpoint.encode_rollout(WORDS, text)
    return Rollout(ids if finished else ids[:-1], [0.0] * len(ids), finished)


def groups(*texts, finished=True):
    return [
        Group(line, checkpoint.encode_prompt(WORDS, line.prompt), [written(each, finished) for each in texts])
        for line in LINES
    ]


def alone(judge, prompt, text):
    """The slow reference: transformers' own pipeline on one unpadded row."""
    ids = checkpoint.encode_prompt(judge.tokenizer, prompt) + checkpoint.encode_rollout(judge.tokenizer, text)
    with torch.no_grad():
        return float(judge.model(torch.tensor([ids])).logits[0, 0])


def test_rewards_are_the_models_on_its_own_scale(judge):
    found = ModelRewards(judge, WORDS, unfinished=-1.0)(groups("Ha.", "Not at all funny."))
    for line, row in zip(LINES, found, strict=True):
        for text, verdict in zip(("Ha.", "Not at all funny."), row, strict=True):
            raw = alone(judge, line.prompt, text)
            assert verdict.raw == pytest.approx(raw, abs=1e-5)
            assert verdict.reward == pytest.approx((raw - 0.25) / 0.5, abs=1e-4)
            assert verdict.score == pytest.approx(judge.score(raw), abs=1e-5)


def test_a_rollout_that_was_cut_off_earns_what_the_config_says(judge):
    found = ModelRewards(judge, WORDS, unfinished=-1.5)(groups("Ha", finished=False))
    assert found[0][0].parts == {"unfinished": -1.5}
    assert found[0][0].score == pytest.approx(1 / (1 + math.exp(1.5)))
    assert math.isfinite(found[0][0].raw)


def test_tokens_are_scored_as_they_were_written_and_not_decoded_anew(judge):
    """Half a character decodes to a replacement character, which would be three other tokens."""
    half = WORDS("é", add_special_tokens=False)["input_ids"][:1]
    rollout = Rollout([*half, WORDS.eos_token_id], [0.0, 0.0], True)
    group = Group(LINES[0], checkpoint.encode_prompt(WORDS, LINES[0].prompt), [rollout])
    found = ModelRewards(judge, WORDS, unfinished=-1.0)([group])[0][0]
    with torch.no_grad():
        ids = torch.tensor([group.prompt + rollout.tokens])
        assert found.raw == pytest.approx(float(judge.model(ids).logits[0, 0]), abs=1e-5)
    assert found.raw != pytest.approx(alone(judge, LINES[0].prompt, "�"), abs=1e-5)


def test_whichever_token_ended_it_a_rollout_is_read_at_the_end_that_the_reward_model_knows(judge):
    prompt, words = checkpoint.encode_prompt(WORDS, LINES[0].prompt), WORDS("Ha.")["input_ids"]
    ends = (WORDS.eos_token_id, 2)
    group = Group(LINES[0], prompt, [Rollout([*words, end], [0.0] * (len(words) + 1), True) for end in ends])
    usual, other = ModelRewards(judge, WORDS, unfinished=-1.0)([group])[0]
    assert other.raw == pytest.approx(usual.raw, abs=1e-6)
    assert usual.raw == pytest.approx(alone(judge, LINES[0].prompt, "Ha."), abs=1e-5)


def test_another_tokenizer_gets_the_text(judge):
    """The same letters under other numbers, and another template."""
    other = tiny.tokenizer(chat=False)
    scorer = ModelRewards(judge, other, unfinished=-1.0)
    assert scorer.by_text
    line = LINES[0]
    group = Group(line, checkpoint.encode_prompt(other, line.prompt), [written("Ha."), written("Oh", False)])
    found = scorer([group])[0]
    assert found[0].raw == pytest.approx(alone(judge, line.prompt, "Ha."), abs=1e-5)
    ids = checkpoint.encode_prompt(judge.tokenizer, line.prompt) + WORDS("Oh")["input_ids"]
    with torch.no_grad():
        assert found[1].raw == pytest.approx(float(judge.model(torch.tensor([ids])).logits[0, 0]), abs=1e-5)
    assert scorer.cost_of_text([group]) > 0


def test_the_same_tokens_are_known_as_such():
    assert same_tokens(WORDS, tiny.tokenizer())
    assert not same_tokens(WORDS, tiny.tokenizer(chat=False))
    ended = tiny.tokenizer()
    ended.eos_token = "<|user|>"  # the same vocabulary, another end
    assert not same_tokens(WORDS, ended)
    larger = tiny.tokenizer()
    larger.add_tokens(["pelican"])
    assert not same_tokens(WORDS, larger)


@dataclass(frozen=True, kw_only=True)
class Wet(Checker):
    """Correct is what says the same as the reference; asked is kept for the test to see."""

    name: ClassVar[str] = "wet"
    asked: ClassVar[list] = []

    def compare(self, prompt, answer, reference):
        self.asked.append((prompt, answer, reference))
        if answer == "broken":
            raise ZeroDivisionError("division by zero")
        return Checked(answer == reference, "it says so", answer)


@pytest.fixture
def checker():
    Wet.asked.clear()
    return CheckerRewards(Wet(), WORDS, unfinished=-1.0)


def test_a_checker_sees_prompt_answer_and_reference_and_siblings_that_say_the_same_once(checker):
    found = checker(groups("wet", "dry", "wet"))
    asked = [(line.prompt, text, line.answer or "") for line in LINES for text in ("wet", "dry")]
    assert Wet.asked == asked
    assert [[each.parts for each in row] for row in found] == [
        [{"checker": 0.0}] * 3, [{"checker": 1.0}, {"checker": 0.0}, {"checker": 1.0}],
    ]  # fmt: skip
    assert found[1][0].checked == Checked(True, "it says so", "wet") and found[1][0].text == "wet"
    assert found[1][0].raw is None and found[1][0].score is None


def test_thinking_is_no_part_of_the_answer_that_is_checked(checker):
    found = checker(groups("<think>dry? no:</think> wet", "<think>wet</think> dry"))
    assert [each.checked.correct for each in found[1]] == [True, False]
    assert Wet.asked[-1] == (LINES[1].prompt, "dry", "wet")
    assert found[1][0].text == "<think>dry? no:</think> wet"  # and is kept


def test_a_checker_is_not_asked_about_what_was_cut_off(checker):
    found = checker(groups("wet", finished=False))[1][0]
    assert found.parts == {"unfinished": -1.0} and not Wet.asked
    assert found.checked == Checked(False, "It was cut off before it ended.")


def test_a_checker_that_raises_fails_the_run_and_names_the_sample(checker):
    with pytest.raises(Failed) as failed:
        checker(groups("wet", "broken"))
    assert "rollout 2 of the prompt “A joke about a pelican.”" in failed.value.reason
    assert "ZeroDivisionError: division by zero" in failed.value.reason
    assert "“broken”" in failed.value.reason


def test_a_form_is_looked_for_in_the_whole_rollout_thinking_included():
    form = FormRewards(config.PolicyConfig.format, WORDS, unfinished=-1.0)
    texts = {
        "<think>3+4</think>7": 1.0, " <think>3\n+4</think>\n\n7.": 1.0, "7": 0.0, "<think>3+4": 0.0,
        "<think></think>7": 0.0, "<think>3+4</think>": 0.0, "So <think>3</think>7": 0.0,
    }  # fmt: skip
    found = form(groups(*texts))[0]
    assert [each.parts["format"] for each in found] == list(texts.values())
    boxed = FormRewards(r"\\boxed\{[^}]+\}", WORDS, unfinished=-1.0)
    assert [each.parts["format"] for each in boxed(groups("\\boxed{7}", "7"))[0]] == [1.0, 0.0]
    assert form(groups("<think>3</think>7", finished=False))[0][0].parts == {"unfinished": -1.0}


def test_a_form_that_backtracks_for_ever_fails_the_run_with_the_sample(monkeypatch):
    monkeypatch.setattr(rewards, "PATIENCE", 0.05)
    with pytest.raises(Failed, match=r"looking for its form took longer than 0\.05 s"):
        FormRewards("(a|aa)+$", WORDS, unfinished=-1.0)(groups("a" * 60 + "!"))


def test_a_mixed_reward_is_the_weighted_sum_of_its_parts_by_hand(judge, checker):
    form = FormRewards("e", WORDS, unfinished=-1.0)
    model = ModelRewards(judge, WORDS, unfinished=-1.0)
    found = Reward((2.0, checker), (0.25, form), (0.5, model))(groups("wet", "dry"))[1]
    for text, verdict, right, formed in zip(("wet", "dry"), found, (1, 0), (1, 0), strict=True):
        raw = alone(judge, LINES[1].prompt, text)
        told = (raw - 0.25) / 0.5
        assert verdict.parts == pytest.approx(
            {"checker": 2.0 * right, "format": 0.25 * formed, "model": 0.5 * told}, abs=1e-4
        )
        assert verdict.reward == pytest.approx(2 * right + 0.25 * formed + 0.5 * told, abs=1e-4)
        assert verdict.score == pytest.approx(judge.score(raw), abs=1e-5)  # the model's own, unweighted
        assert verdict.raw == pytest.approx(raw, abs=1e-5) and verdict.checked.correct == bool(right)


def test_what_was_cut_off_earns_the_same_however_many_have_a_say(judge, checker):
    parts = (2.0, checker), (0.5, ModelRewards(judge, WORDS, unfinished=-1.0))
    found = Reward(*parts)(groups("wet", finished=False))[0][0]
    assert found.parts == {"unfinished": -1.0} and found.reward == -1.0 and math.isfinite(found.raw)


def test_a_reward_model_that_answers_nan_fails_the_run_and_names_the_sample(judge):
    judge.model.score.weight.data.fill_(math.nan)
    with pytest.raises(Failed, match=r"rollout 1 of .* pelican\.”: the reward model"):
        ModelRewards(judge, WORDS, unfinished=-1.0)(groups("wet"))


def test_a_verdict_is_the_sum_of_its_parts():
    assert Verdict({"model": 1.5, "length": -0.5}).reward == 1.0
    assert rewards.score(1.0) == pytest.approx(1 / (1 + math.exp(-1)))


def test_templates_that_differ_in_some_prompts_only_are_found_out():
    """Two templates that agree on a single turn, and not on what an assistant has said before."""
    other = tiny.tokenizer()
    other.chat_template = tiny.CHAT.replace(
        "{{ message['content'] }}", "{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}"
    )
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert same_tokens(WORDS, other) and not same_tokens(WORDS, other, ["A prompt.", turns])


def test_a_prompt_that_the_reward_models_tokenizer_cannot_write_is_refused(judge):
    narrow = only_ascii(judge)
    with pytest.raises(Failed, match="has no tokens for a part of the prompt “Ein Pelikan übt") as failed:
        ModelRewards(narrow, WORDS, unfinished=-1.0, prompts=["A joke.", "Ein Pelikan übt"])
    assert failed.value.field == "reward"


def test_a_rollout_that_it_cannot_write_is_scored_and_marked(judge):
    scorer = ModelRewards(only_ascii(judge), WORDS, unfinished=-1.0)
    assert scorer.by_text
    found = scorer(groups("Ha.", "Übel."))
    assert [[each.unknown for each in row] for row in found] == [[False, True], [False, True]]


def only_ascii(judge):
    """The same reward model with a tokenizer that knows plain letters alone."""
    letters = {chr(code): 4 + code for code in range(32, 127)}
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "<|end|>": 4} | letters, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    judge.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|end|>", pad_token="<pad>", unk_token="<unk>"
    )
    return judge
