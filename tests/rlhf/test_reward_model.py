"""Five scores in one pass: equal to separate rows for every architecture, in value and in gradient."""

import math
from functools import partial

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf import attention, batch, checkpoint, precision
from rlhf.batch import Example
from rlhf.reward_model import RewardModel
from tests.rlhf import tiny

QUINTETS = [
    ("Tell me a joke about a pelican.", ["why", "because it is so", "no", "one that goes on and on", "x"]),
    ([{"role": "user", "content": "And now?"}], ["something else", "bb"]),
]
PACKED = "quintets packed in one row"
PADDINGS = ["<pad>", "<|end|>", None]


def made(folder, kind, pad="<pad>", chat=True):
    model, tokenizer = checkpoint.start_reward_model(
        tiny.policy(folder / kind, kind, pad=pad, chat=chat), seed=0
    )
    return RewardModel(model, tokenizer)


def rewards_and_gradients(judge, compute, examples):
    """Rewards, and the gradient of a sum that weighs every place differently."""
    judge.model.zero_grad()
    rewards = compute(examples)
    weights = torch.arange(1, rewards.numel() + 1).view(rewards.shape) * (rewards != 0)
    (rewards * weights).sum().backward()
    gradients = [weight.grad for weight in judge.model.parameters()]
    return rewards.detach(), torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


@pytest.mark.parametrize("pad", PADDINGS)
@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_a_shared_row_equals_separate_rows_in_scores_and_gradients(kind, pad, tmp_path):
    judge = made(tmp_path, kind, pad)
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    shared, shared_gradient = rewards_and_gradients(judge, judge.rewards, examples)
    assert judge.layout == ("one row per quintet" if kind == "gemma2" else PACKED)
    apart, apart_gradient = rewards_and_gradients(judge, judge._padded, examples)
    assert (shared - apart).abs().max() < 1e-5
    assert (shared_gradient - apart_gradient).norm() < 1e-5 * apart_gradient.norm()


@pytest.mark.parametrize("kind", tiny.UNSHARED)
def test_a_model_that_cannot_share_a_row_is_found_out_by_trying(kind, tmp_path):
    judge = made(tmp_path, kind)
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    found = judge.rewards(examples)
    assert judge.layout == "one row per rollout"
    assert torch.equal(found, judge._padded(examples)[0])


@pytest.mark.parametrize("kind", tiny.UNSHARED)
def test_rollouts_without_siblings_settle_nothing(kind, tmp_path):
    """A policy run has single rollouts scored before any group: no leak between siblings shows in these."""
    judge = made(tmp_path, kind)
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    judge.rewards_of([Example(each.prompt, each.rollouts[:1]) for each in examples])
    found = judge.rewards_of(examples)
    assert judge.layout == "one row per rollout"
    expected = judge._padded(examples)[0]
    for row, theirs in zip(found, expected, strict=True):
        assert row == pytest.approx(theirs[: len(row)].tolist(), abs=1e-5)


def test_a_leak_below_what_rounding_may_come_to_is_found_out_all_the_same(tmp_path):
    """A state that runs along the row; it changes rewards by less than two ways may differ by rounding."""
    judge = made(tmp_path, "llama")
    examples = [judge.encode(*quintet) for quintet in QUINTETS]

    def leaking(layer, given, hidden):
        return hidden + 3e-5 * hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]

    judge.model.model.embed_tokens.register_forward_hook(leaking)
    judge.settle(examples)
    assert judge.layout == "one row per rollout"


@pytest.mark.parametrize("pad", PADDINGS)
@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_plain_transformers_gives_the_same_scores_on_the_same_ids(kind, pad, tmp_path):
    judge = made(tmp_path, kind, pad)
    checkpoint.save(
        tmp_path / "saved", judge.model, judge.tokenizer, {"kind": "reward", "mu": 0.5, "tau": 2.0}, {}
    )
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert plain.config.num_labels == 1
    for prompt, rollouts in QUINTETS:
        example = judge.encode(prompt, rollouts)
        ours = torch.tensor(judge.rewards_of([example])[0])
        rows = [torch.tensor(example.prompt + rollout) for rollout in example.rollouts]
        pad_id = plain.config.get_text_config().pad_token_id
        for side in ("right", "left"):
            ids = torch.nn.utils.rnn.pad_sequence(rows, True, pad_id, padding_side=side)
            there = (ids != pad_id).long()
            positions = (there.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                theirs = plain(input_ids=ids, attention_mask=there, position_ids=positions).logits[:, 0]
            assert (ours - theirs).abs().max() < 1e-5, side


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_packed_quintets_of_like_and_unlike_shapes_equal_rows_of_their_own(kind, tmp_path):
    judge = made(tmp_path, kind)
    prompt = "word " * 40
    asked = [(prompt, ["a", "bcd"]), (prompt, ["bc", "ade"]), (prompt, ["abc", "d"]), *QUINTETS]
    examples = [judge.encode(*quintet) for quintet in asked]
    packed, packed_gradient = rewards_and_gradients(judge, judge.rewards, examples)
    assert judge.layout == PACKED
    apart, apart_gradient = rewards_and_gradients(judge, judge._padded, examples)
    assert (packed - apart).abs().max() < 1e-5
    assert (packed_gradient - apart_gradient).norm() < 1e-5 * apart_gradient.norm()
    alone = torch.stack(
        [torch.tensor([*row, *[0] * (5 - len(row))]) for row in judge.rewards_of(examples, 1)]
    )
    assert (packed - alone).abs().max() < 1e-5


@pytest.mark.parametrize("window", [1, 2, 6, 40, 130, 1000])
@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_within_any_window_a_packed_row_equals_separate_rows(kind, window, tmp_path):
    """Prompt and rollouts longer than the window, about as long, and shorter; over a chunk of the prompt."""
    judge = made(tmp_path, kind)
    for each in (judge.model.config, *judge.model.modules()):
        if getattr(each, "sliding_window", None):
            each.sliding_window = window
    asked = [
        ("word " * 40, ["a rollout of its own length " * 2, "x"]),
        ("word " * 29, ["y", "z " * 70]),
        *QUINTETS,
    ]
    examples = [judge.encode(*quintet) for quintet in asked]
    packed, packed_gradient = rewards_and_gradients(judge, judge.rewards, examples)
    assert judge.layout == PACKED
    apart, apart_gradient = rewards_and_gradients(judge, judge._padded, examples)
    assert (packed - apart).abs().max() < 1e-5
    assert (packed_gradient - apart_gradient).norm() < 1e-5 * apart_gradient.norm()
    masked = rewards_and_gradients(judge, partial(judge._shared, form=batch.forms(judge.model)[0]), examples)[
        0
    ]
    assert (masked - apart).abs().max() < 1e-5


def test_each_kind_of_layer_has_a_mask_of_its_own(tmp_path):
    judge = made(tmp_path, "gemma3_text")
    examples = [judge.encode(*QUINTETS[0])]
    masks = batch.forms(judge.model)[0](
        lambda window: attention.layout(examples, torch.float32, "cpu", window)
    )
    assert {kind: each.window for kind, each in masks.items()} == {
        "full_attention": None,
        "sliding_attention": 6,
    }
    whole, windowed = (masks[kind].groups[0].mask for kind in ("full_attention", "sliding_attention"))
    assert whole.dtype == windowed.dtype == torch.float32
    assert (
        windowed.shape[-1] == whole.shape[-1] - len(examples[0].prompt) + 5
    )  # what no rollout reaches is left out
    seen = (windowed[0, 0] == 0).sum(-1)
    assert seen.max() == 6 and seen.min() == 6  # its own past, and before that the prompt's end


def test_a_window_of_another_width_than_its_mask_is_refused(tmp_path):
    judge = made(tmp_path, "mistral")
    judge.model.set_attn_implementation(attention.NAME)
    example = judge.encode(*QUINTETS[0])
    with pytest.raises(ValueError, match="Only plain causal attention"):
        judge._packed([example], form=batch.forms(judge.model)[-1])


def test_a_model_whose_attention_is_its_own_is_left_to_masks_and_is_as_it_was(tmp_path):
    judge = made(tmp_path, "gemma2")
    before = judge.model.config._attn_implementation
    judge.settle([judge.encode(*QUINTETS[0])])
    assert judge.layout == "one row per quintet"
    assert judge.model.config._attn_implementation == before != attention.NAME


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_half_precision_gives_nearly_the_same_rewards_and_gradients(kind, tmp_path):
    """Longer than one chunk of the prompt, so that every way through attention is taken."""
    judge = made(tmp_path, kind)
    long = judge.encode("word " * 40, ["one", "another one", "x"])
    examples = [long, *(judge.encode(*quintet) for quintet in QUINTETS)]
    exact, gradient = rewards_and_gradients(judge, judge.rewards, examples)
    judge.choose_precision("bf16", examples)
    half, half_gradient = rewards_and_gradients(judge, judge.rewards, examples)
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    assert (half - exact).abs().max() < 0.03 * (1 + exact.abs().max())
    assert (half_gradient - gradient).norm() < 0.1 * gradient.norm()


def test_what_is_scored_is_scored_in_full_precision(tmp_path):
    judge = made(tmp_path, "llama")
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    before = judge.rewards_of(examples)
    judge.choose_precision("bf16", examples)
    assert judge.precision == "bf16" and judge.rewards_of(examples) == before


@pytest.mark.parametrize(("half", "chosen"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32")])
def test_half_precision_is_chosen_where_it_is_clearly_faster(half, chosen, tmp_path, monkeypatch):
    judge = made(tmp_path, "llama")
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)
    tried = {"fp32": (torch.ones(1, 1, 2), 1.0), "bf16": (torch.ones(1, 1, 2), half)}
    monkeypatch.setattr(precision, "tried", lambda _, name, compute: tried[name])
    judge.choose_precision("auto", examples)
    assert judge.precision == chosen


def test_half_precision_that_gives_other_rewards_is_not_chosen(tmp_path, monkeypatch):
    judge = made(tmp_path, "llama")
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)
    tried = {"fp32": (torch.tensor([[[1.0, 2.0]]]), 1.0), "bf16": (torch.tensor([[[1.0, 2.5]]]), 0.1)}
    monkeypatch.setattr(precision, "tried", lambda _, name, compute: tried[name])
    judge.choose_precision("auto", examples)
    assert judge.precision == "fp32"


def test_the_try_costs_little_and_leaves_no_gradient(tmp_path, monkeypatch):
    judge = made(tmp_path, "llama")
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)
    monkeypatch.setattr(precision, "TRYING_SECONDS", 0.02)
    judge.choose_precision("auto", [judge.encode(*quintet) for quintet in QUINTETS])
    assert judge.precision in ("fp32", "bf16")
    assert all(weight.grad is None for weight in judge.model.parameters())


def test_a_tiny_model_stays_in_full_precision(tmp_path):
    judge = made(tmp_path, "llama")
    judge.choose_precision("auto", [judge.encode(*QUINTETS[0])])
    assert judge.precision == "fp32"


def test_a_rollouts_end_counts(tmp_path):
    judge = made(tmp_path, "llama", pad="<|end|>")
    example = judge.encode("Go on.", ["and so"])
    cut_off = judge.encode("Go on.", ["and so"], finished=[False])
    assert cut_off == Example(example.prompt, [example.rollouts[0][:-1]])
    assert judge.rewards_of([example]) != judge.rewards_of([cut_off])
    assert judge.encode("Go on.", [""], finished=[False]).rollouts == [[judge.tokenizer.eos_token_id]]


def test_neighbours_do_not_matter(tmp_path):
    judge = made(tmp_path, "gemma3_text")
    first, second = (judge.encode(*quintet) for quintet in QUINTETS)
    together = judge.rewards_of([first, second])
    assert together[0] == pytest.approx(judge.rewards_of([first])[0], abs=1e-6)
    turned = judge.rewards_of([Example(first.prompt, first.rollouts[::-1])])[0]
    assert together[0] == pytest.approx(turned[::-1], abs=1e-6)


def test_any_number_of_quintets_keeps_its_order(tmp_path):
    judge = made(tmp_path, "llama")
    examples = [judge.encode("word " * number, ["a" * number, "b"]) for number in (5, 1, 9, 3, 7)]
    alone = [judge.rewards_of([example])[0] for example in examples]
    assert judge.rewards_of(examples, at_once=2) == [pytest.approx(each, abs=1e-6) for each in alone]


def test_the_score_is_the_chance_to_beat_a_typical_answer(tmp_path):
    judge = made(tmp_path, "llama")
    judge.mu, judge.tau = 1.0, 2.0
    assert judge.score(1.0) == 0.5
    assert judge.score(1.0 + 2 * math.log(3)) == pytest.approx(0.75)
    assert 0 <= judge.score(-1e6) < 1e-9 and judge.score(1e6) == 1


def test_a_long_prompt_is_cut_to_the_positions_of_the_model(tmp_path):
    judge = made(tmp_path, "gpt2")
    assert judge.limit == 256
    example = judge.encode("a long story " * 100, ["short", "also short"])
    assert example.prompt_cut and not example.rollouts_cut
    assert len(judge.rewards_of([example])[0]) == 2


def test_a_config_may_take_fewer_tokens_than_the_model(tmp_path):
    whole = made(tmp_path, "gpt2")
    judge = RewardModel(whole.model, whole.tokenizer, max_tokens=30)
    assert (judge.limit, RewardModel(whole.model, whole.tokenizer, max_tokens=9000).limit) == (30, 256)
    example = judge.encode("a story of some length " * 3, ["short"])
    assert example.prompt_cut and len(example.prompt) + len(example.rollouts[0]) == 30


def test_rewards_are_in_full_precision_whatever_the_weights_are(tmp_path):
    judge = made(tmp_path, "llama")
    judge.model.bfloat16()
    assert judge.rewards([judge.encode(*QUINTETS[0])]).dtype == torch.float32


def test_a_trained_reward_model_opens_with_its_scale(tmp_path):
    judge = made(tmp_path, "llama")
    checkpoint.save(
        tmp_path / "saved", judge.model, judge.tokenizer, {"kind": "reward", "mu": 0.5, "tau": 2.0}, {}
    )
    opened = RewardModel.load(tmp_path / "saved")
    examples = [judge.encode(*quintet) for quintet in QUINTETS]
    assert (opened.mu, opened.tau) == (0.5, 2.0)
    assert opened.rewards_of(examples) == judge.rewards_of(examples)
