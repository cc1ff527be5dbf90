"""Sampling, held against transformers' own generate and against plain forward passes."""

import math

import pytest
import torch
from transformers import TopPLogitsWarper

from rlhf import sample as sampling
from rlhf.config import Refused
from rlhf.sample import chances_of, choose, fitted, nucleus, sample
from tests.rlhf import tiny

PROMPTS = [
    [2, 70, 71, 72, 3],
    [2, 90, 3],
    [2, 100, 101, 102, 103, 104, 105, 106, 3],
]  # so that two are padded
WORDS = tiny.tokenizer()


def drawn(model, seed=0, count=4, longest=12, temperature=1.0, prompts=PROMPTS):
    return sample(model, WORDS, prompts, count, longest, temperature, torch.Generator().manual_seed(seed))


def sharp(kind="llama", **changes):
    """A model that is surer of itself than random weights are, and ends some of its rollouts."""
    model = tiny.model(kind, **changes)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
        if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
            model.get_output_embeddings().weight.mul_(8)
    return model


def alone(model, prompt, tokens, temperature):
    """The slow reference: one forward pass over one unpadded sequence, no cache."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0].double() / temperature
    log_probs = logits.log_softmax(-1)
    return [float(log_probs[len(prompt) - 1 + place, token]) for place, token in enumerate(tokens)]


@pytest.mark.parametrize("kind", tiny.CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_one_unpadded_pass(kind, temperature):
    model = sharp(kind)
    found = drawn(model, temperature=temperature, longest=20)
    for number, rollout in enumerate(found):
        expected = alone(model, PROMPTS[number // 4], rollout.tokens, temperature)
        assert rollout.log_probs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_greedy_rollouts_are_those_of_generate(kind):
    model = sharp(kind)
    for prompt, rollout in zip(PROMPTS, drawn(model, count=1, temperature=0, longest=15), strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=15, do_sample=False, pad_token_id=0
        )
        assert rollout.tokens == expected[0, len(prompt) :].tolist()


def test_the_same_seed_gives_the_same_rollouts_and_another_seed_others():
    model = sharp()
    assert drawn(model, seed=1) == drawn(model, seed=1)
    assert drawn(model, seed=1) != drawn(model, seed=2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_with_chances_of_its_own_a_prompt_does_not_see_which_others_are_sampled_with_it(kind):
    model = sharp(kind)

    def own(numbers):
        chances = [torch.Generator().manual_seed(number) for number in numbers]
        found = sample(model, WORDS, [PROMPTS[number] for number in numbers], 4, 12, 1.0, chances)
        return [each.tokens for each in found]

    assert own([0, 1, 2]) == own([0]) + own([1, 2]) == own([0, 1]) + own([2])


def test_dropping_finished_rollouts_changes_none_of_the_others(monkeypatch):
    model = sharp()
    model.generation_config.eos_token_id = list(range(4, 120))  # so that most rollouts end early
    dropped = drawn(model, count=8)
    monkeypatch.setattr(sampling, "WORTH_DROPPING", -1.0)
    kept = drawn(model, count=8)
    assert [each.tokens for each in dropped] == [each.tokens for each in kept]
    assert len({len(each.tokens) for each in kept}) > 3
    for one, other in zip(dropped, kept, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_any_of_several_ending_tokens_ends_a_rollout_and_stays_in_it():
    model = sharp()
    ends = set(range(4, 120))
    model.generation_config.eos_token_id = sorted(ends)
    found = drawn(model, count=8, longest=4)
    assert any(each.finished for each in found) and not all(each.finished for each in found)
    for each in found:
        assert each.finished == (each.tokens[-1] in ends)
        assert not ends & set(each.tokens[:-1])
        assert len(each.tokens) == len(each.log_probs)


def test_a_rollout_that_was_cut_off_is_not_a_finished_one():
    model = sharp()
    found = drawn(model, longest=3)
    cut = [each for each in found if not each.finished]
    assert cut and all(len(each.tokens) == 3 for each in cut)


def test_prompts_in_one_batch_do_not_touch_each_other():
    model = sharp()
    together = drawn(model, count=1, temperature=0)
    apart = [drawn(model, count=1, temperature=0, prompts=[prompt])[0] for prompt in PROMPTS]
    assert [each.tokens for each in together] == [each.tokens for each in apart]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    chances = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0])
    logits = chances.log().expand(20_000, -1)
    tokens, log_probs = choose(logits, 1.0, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    shares = tokens.bincount(minlength=5) / 20_000
    assert shares.tolist() == pytest.approx(chances.tolist(), abs=0.012)
    assert log_probs.exp().tolist() == pytest.approx(chances[tokens].tolist())


def test_the_chance_falls_on_the_token_whose_share_it_lies_in():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(6, -1)
    tokens, _ = choose(logits, 1.0, torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.999]))
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_largest_chance_never_falls_on_an_impossible_token():
    logits = torch.tensor([[0.0, 1.0, -math.inf, -math.inf]])
    tokens, log_probs = choose(logits, 1.0, torch.tensor([1 - 2**-24]))
    assert tokens.tolist() == [1] and math.isfinite(log_probs[0])
    assert choose(logits.roll(2, 1), 1.0, torch.tensor([0.0]))[0].tolist() == [2]


def nucleus_by_hand(probs, top_p):
    """The slow reference: tokens from the likeliest down, until they have `top_p` together."""
    kept, sum_ = set(), 0.0
    for token in sorted(range(len(probs)), key=lambda token: (-probs[token], token)):
        if kept and sum_ >= top_p:
            break
        kept.add(token)
        sum_ += probs[token]
    return [chance if token in kept else 0.0 for token, chance in enumerate(probs)]


@pytest.mark.parametrize("top_p", [0.0, 0.05, 0.3, 0.5, 0.9, 0.999])
def test_the_nucleus_is_that_of_a_slow_reference(top_p):
    logits = torch.randn(20, 40, generator=torch.Generator().manual_seed(3)) * 3
    probs = logits.double().softmax(-1)
    expected = [nucleus_by_hand(row, top_p) for row in probs.tolist()]
    assert nucleus(probs, top_p).tolist() == expected
    warper = TopPLogitsWarper(top_p=max(top_p, 1e-9))
    theirs = warper(None, probs.log()).isfinite()
    assert torch.equal(theirs, torch.tensor(expected) > 0)


def test_of_equal_tokens_the_earlier_one_stays_and_one_always_does():
    even = torch.tensor([[0.25, 0.25, 0.25, 0.25]])
    assert nucleus(even, 0.5).tolist() == [[0.25, 0.25, 0.0, 0.0]]
    assert nucleus(even, 0.51).tolist() == [[0.25, 0.25, 0.25, 0.0]]
    assert nucleus(torch.tensor([[0.1, 0.9]]), 0.0).tolist() == [[0.0, torch.tensor(0.9).item()]]


def test_top_p_draws_from_the_nucleus_and_tells_how_likely_the_model_finds_it():
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log().expand(20_000, -1)
    chances = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    tokens, log_probs = choose(logits, 1.0, chances, top_p=0.65)
    shares = tokens.bincount(minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([4 / 7, 0, 3 / 7, 0], abs=0.012)
    assert log_probs[tokens == 0].exp().unique().tolist() == pytest.approx([0.4])
    assert torch.equal(choose(logits, 1.0, chances, top_p=1.0)[0], choose(logits, 1.0, chances)[0])


def test_with_numbers_of_its_own_a_rollout_does_not_see_how_many_are_written_with_it():
    model = sharp()

    def own(numbers, prompt=0):
        chances = chances_of(5, [(prompt, number) for number in numbers], 12)
        found = sample(model, WORDS, PROMPTS[:1], len(numbers), 12, 1.0, chances)
        return [each.tokens for each in found]

    assert own([0, 1, 2, 3]) == own([0, 1]) + own([2, 3]) == [own([n])[0] for n in range(4)]
    assert own([0]) != own([1]) and own([0]) != own([0], prompt=1)


def test_whoever_watches_sees_every_place_and_may_end_it():
    model, moments = sharp(), []
    model.generation_config.eos_token_id = list(range(4, 60))

    def watch(moment):
        moments.append(moment)
        return len(moments) < 5

    options = (WORDS, PROMPTS, 4, 12, 1.0)
    found = sample(model, *options, torch.Generator().manual_seed(2), watch=watch)
    whole = sample(model, *options, torch.Generator().manual_seed(2))
    assert len(moments) == 5
    for row, (rollout, uncut) in enumerate(zip(found, whole, strict=True)):
        seen = [token for each in moments for token in each.tokens[each.rows == row].tolist()]
        assert rollout.tokens == uncut.tokens[:5] == seen
        assert rollout.finished == (uncut.finished and len(uncut.tokens) <= 5)
    assert any(each.finished for each in found) and not all(each.finished for each in found)


def test_temperature_divides_every_logit_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]])
    _, plain = choose(logits, 1.0, torch.tensor([0.99]))
    _, hot = choose(logits, 2.0, torch.tensor([0.99]))
    _, greedy = choose(logits, 0.0, torch.tensor([0.0]))
    assert plain.exp().item() == pytest.approx(3 / 4)
    assert hot.exp().item() == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)))
    assert greedy.exp().item() == pytest.approx(3 / 4)


def test_half_precision_is_summed_in_full():
    logits = (torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * 5).bfloat16()
    found, exact = (choose(each, 0.7, torch.rand(3, generator=torch.Generator().manual_seed(1)))
                    for each in (logits, logits.float()))  # fmt: skip
    assert found[1].dtype == torch.float32
    assert torch.equal(found[0], exact[0]) and torch.equal(found[1], exact[1])


def test_dropout_is_off_while_sampling_and_back_on_afterwards():
    model = sharp("gpt2", resid_pdrop=0.5).train()
    first, second = drawn(model), drawn(model)
    assert first == second and model.training


def test_a_long_rollout_outgrows_the_room_of_its_cache():
    model = sharp()
    rollout = drawn(model, count=1, longest=150, prompts=[PROMPTS[0]], seed=3)[0]
    expected = alone(model, PROMPTS[0], rollout.tokens, 1.0)
    assert len(rollout.tokens) == 150
    assert rollout.log_probs == pytest.approx(expected, abs=1e-4)


def test_a_prompt_that_does_not_fit_loses_its_beginning():
    model = tiny.model("gpt2", n_positions=16)
    assert fitted(list(range(20)), model, 10) == [14, 15, 16, 17, 18, 19]
    assert fitted([1, 2], model, 10) == [1, 2]


def test_rollouts_as_long_as_the_model_are_refused_in_words():
    with pytest.raises(Refused, match="leaves no room for a prompt") as refused:
        fitted([1, 2, 3], tiny.model("gpt2", n_positions=16), 16)
    assert refused.value.field == "max_new_tokens"


def test_no_prompts_give_no_rollouts():
    assert drawn(tiny.model(), prompts=[]) == []
