"""A policy step’s tensors: by hand, against slow references, and equal to what sampling said."""

import math

import pytest
import torch

from rlhf import adapters, algorithms, batch, policy
from rlhf.batch import Example
from rlhf.policy import Reader, Start
from rlhf.sample import sample
from tests.rlhf import tiny

PROMPTS = [[2, 70, 71, 72, 3], [2, 90, 3], [2, 100, 101, 102, 103, 104, 105, 106, 3]]


def sampled(model, temperature=1.0, count=4, longest=16):
    """Prompts with the rollouts that the model wrote, and the log-probabilities it wrote them with, flat."""
    random = torch.Generator().manual_seed(0)
    found = sample(model, tiny.tokenizer(), PROMPTS, count, longest, temperature, random)
    examples = [
        Example(prompt, [each.tokens for each in found[number * count : (number + 1) * count]])
        for number, prompt in enumerate(PROMPTS)
    ]
    return examples, torch.tensor([each for rollout in found for each in rollout.log_probs])


def gradient(model, examples, advantages, size, share=True):
    """The gradient of a whole step, computed in portions of `size` prompts."""
    reader = Reader(model)
    if not share:
        reader.worth_sharing = lambda example: False
    tokens = sum(len(one) for each in examples for one in each.rollouts)
    model.zero_grad()
    total = 0.0
    for portion in batch.portions(examples, size):
        some = [examples[number] for number in portion]
        lengths = torch.tensor([len(one) for each in some for one in each.rollouts])
        weights = torch.cat([advantages[number] for number in portion]).repeat_interleave(lengths)
        part = algorithms.loss(reader.read(some).log_probs, weights, tokens)
        part.backward()
        total += float(part)
    return total, torch.cat([each.grad.flatten() for each in model.parameters()])


@pytest.mark.parametrize("kind", tiny.CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_before_any_update_the_training_pass_agrees_with_sampling(kind, temperature):
    model = tiny.model(kind)
    examples, expected = sampled(model, temperature)
    found = Reader(model, temperature).read(examples).log_probs.detach()
    assert float((found - expected).abs().max()) < 2e-5


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_shared_rows_and_padded_rows_agree(kind):
    model = tiny.model(kind)
    examples, _ = sampled(model, longest=20)
    shared, padded = Reader(model), Reader(model)
    shared.worth_sharing, padded.worth_sharing = lambda example: True, lambda example: False
    one, other = shared.read(examples), padded.read(examples)
    assert shared._way is not None and padded._way is None
    assert torch.allclose(one.log_probs, other.log_probs, atol=2e-5)
    assert torch.allclose(one.entropies, other.entropies, atol=2e-5)


@pytest.mark.parametrize("kind", tiny.UNSHARED)
def test_a_model_that_cannot_share_a_row_is_found_out_by_trying(kind):
    examples = [Example(prompt, [[50, 51, 52, 4], [60, 61, 4], [70, 71, 72, 73, 4]]) for prompt in PROMPTS]
    model = tiny.model(kind)
    tried, padded = Reader(model), Reader(model)
    tried.worth_sharing, padded.worth_sharing = lambda example: True, lambda example: False
    assert torch.equal(tried.read(examples).log_probs, padded.read(examples).log_probs)
    assert tried._settled and tried._way is None


@pytest.mark.parametrize("share", [1e-1, 1e-3])
def test_a_leak_below_what_rounding_may_come_to_is_found_out_all_the_same(share):
    """A thousandth changes log-probabilities by less than the two ways may differ by rounding."""
    examples = [Example(prompt, [[50, 51, 52, 4], [60, 61, 4], [70, 71, 72, 73, 4]]) for prompt in PROMPTS]
    model = tiny.model()
    sound, leaking = Reader(model), Reader(model)
    sound.settle(examples)
    assert sound._way is not None
    tiny.leak(model, share)
    leaking.settle(examples)
    assert leaking._way is None
    apart = (sound._way(examples).log_probs - leaking._padded(examples).log_probs).abs().max()
    small = apart < policy.ROUNDING * (1 + leaking._padded(examples).log_probs.abs().max())
    assert small == (share == 1e-3)


def test_the_state_space_layers_of_fresh_weights_are_found_out_as_well():
    examples = [Example(prompt, [[50, 51, 52, 4], [60, 61, 4], [70, 71, 72, 73, 4]]) for prompt in PROMPTS]
    reader = Reader(tiny.model("jamba", initializer_range=0.02))
    reader.settle(examples)
    assert reader._way is None


def test_forgetting_the_temperature_would_be_seen():
    model = tiny.model()
    examples, expected = sampled(model, temperature=0.6)
    assert float((Reader(model, 1.0).read(examples).log_probs.detach() - expected).abs().max()) > 1e-3


def test_positions_matter_and_padding_moves_none():
    model = tiny.model("gpt2")
    examples, expected = sampled(model)
    for number in range(len(examples)):
        before = sum(len(one) for each in examples[:number] for one in each.rollouts)
        alone = Reader(model).read([examples[number]]).log_probs
        assert torch.allclose(alone, expected[before : before + len(alone)], atol=2e-5)
    shifted = [Example([5, *each.prompt], each.rollouts) for each in examples]
    assert float((Reader(model).read(shifted).log_probs.detach() - expected).abs().max()) > 1e-3


def test_a_short_prompt_with_long_rollouts_is_not_shared():
    reader = Reader(tiny.model())
    assert not reader.worth_sharing(Example([1, 2], [[5] * 400] * 8))
    assert reader.worth_sharing(Example([1] * 100, [[5] * 20] * 8))


@pytest.mark.parametrize("share", [True, False])
def test_every_portioning_gives_the_same_loss_and_gradient(share):
    model = tiny.model("llama")
    examples, _ = sampled(model, count=4)
    advantages = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    whole_loss, whole = gradient(model, examples, advantages, 3, share)
    for size in (1, 2):
        part_loss, parts = gradient(model, examples, advantages, size, share)
        assert part_loss == pytest.approx(whole_loss, abs=1e-6)
        assert torch.allclose(parts, whole, atol=1e-6 + 1e-5 * float(whole.abs().max()))


def test_the_gradient_is_that_of_a_plain_loop_over_rollouts():
    model = tiny.model("gpt2")
    examples, _ = sampled(model, count=2)
    advantages = torch.tensor([[1.0, -1.0], [0.5, -0.5], [0.0, 0.0]])
    _, found = gradient(model, examples, advantages, 3)
    model.zero_grad()
    tokens = sum(len(one) for each in examples for one in each.rollouts)
    for number, example in enumerate(examples):
        for place, rollout in enumerate(example.rollouts):
            logits = model(torch.tensor([example.prompt + rollout])).logits[0, len(example.prompt) - 1 : -1]
            likely = logits.log_softmax(-1).gather(1, torch.tensor(rollout)[:, None]).sum()
            (-advantages[number, place] * likely / tokens).backward()
    expected = torch.cat([each.grad.flatten() for each in model.parameters()])
    assert torch.allclose(found, expected, atol=1e-6)


def test_log_probabilities_and_entropies_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
    found = policy.token_log_probs(logits, torch.tensor([1, 0]), 1.0)
    assert found.log_probs.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 2)])
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.entropies.tolist() == pytest.approx([quarter, math.log(2)])


def test_temperature_two_takes_the_root_of_the_odds():
    found = policy.token_log_probs(torch.tensor([[0.0, math.log(9)]]), torch.tensor([1]), 2.0)
    assert found.log_probs.exp().item() == pytest.approx(3 / 4)


def test_half_precision_is_summed_in_full():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 5
    tokens = torch.tensor([0, 1, 2, 3])
    found = policy.token_log_probs(logits.bfloat16(), tokens, 1.0)
    exact = policy.token_log_probs(logits.bfloat16().double().float(), tokens, 1.0)
    assert found.log_probs.dtype == torch.float32
    assert torch.equal(found.log_probs, exact.log_probs)


def test_kl_is_positive_where_the_policy_is_surer_than_its_start():
    now, start = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.5, -1.0])
    found = policy.kl(now, start)
    assert found.tolist() == [0.5, -1.0] and not found.requires_grad


def test_kl_sampled_from_the_policy_approaches_the_true_one():
    policy_logits, start_logits = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 0.0, 0.5])
    chances = policy_logits.softmax(-1)
    true = float((chances * (policy_logits.log_softmax(-1) - start_logits.log_softmax(-1))).sum())
    drawn = torch.multinomial(chances, 50_000, True, generator=torch.Generator().manual_seed(0))
    now = policy.token_log_probs(policy_logits.expand(50_000, -1), drawn, 1.0)
    start = policy.token_log_probs(start_logits.expand(50_000, -1), drawn, 1.0)
    assert float(policy.kl(now.log_probs, start.log_probs).mean()) == pytest.approx(true, abs=0.01)


def test_sums_per_rollout_by_hand():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert policy.per_rollout(values, [3, 1]).tolist() == [7.0, 8.0]


def test_an_update_makes_the_better_rollout_likelier():
    model = tiny.model()
    examples = [Example(PROMPTS[0], [[50, 51, 4], [60, 61, 62, 4]])]
    before = policy.per_rollout(Reader(model).read(examples).log_probs.detach(), [3, 4])
    gradient(model, examples, torch.tensor([[1.0, -1.0]]), 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.05 * weight.grad
    after = policy.per_rollout(Reader(model).read(examples).log_probs.detach(), [3, 4])
    assert after[0] > before[0] and after[1] < before[1]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_with_its_adapters_off_a_policy_says_what_it_said_at_the_start(kind):
    model = tiny.model(kind)
    examples, _ = sampled(model)
    before = Reader(model).log_probs(examples, 8)
    adapters.add(model, 2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    adapted = Reader(model).log_probs(examples, 8)
    assert float((adapted - before).abs().max()) > 0.01
    assert torch.allclose(Start(model).log_probs(examples, 8), before, atol=1e-6)
    assert torch.equal(Reader(model).log_probs(examples, 8), adapted)
    assert {name.split(".")[-2] for name, weight in model.named_parameters() if weight.requires_grad} == {
        "default"
    }


def test_portions_can_leave_rollouts_out():
    examples = [Example([1], [[2], [3], [4]]), Example([5], [[6], [7], [8]])]
    wanted = [False, True, True, False, False, True]
    found = {
        number: (example.prompt, tokens)
        for some, numbers in policy.portions(examples, 2, wanted)
        for number, (example, tokens) in zip(
            numbers, [(each, one) for each in some for one in each.rollouts], strict=True
        )
    }
    assert found == {1: ([1], [3]), 2: ([1], [4]), 5: ([5], [8])}
    assert list(policy.portions(examples, 2, [False] * 6)) == []
