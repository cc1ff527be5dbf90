"""A prompt's keys held once for its rollouts, against a cache for each of them and against plain passes."""

import pytest
import torch

from rlhf import prefix
from rlhf import sample as sampling
from tests.rlhf import tiny
from tests.rlhf.test_sample import PROMPTS, WORDS, alone, drawn, sharp

SHARED = ("llama", "qwen3", "mistral", "gemma3_text", "gpt2")


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.UNSHARED])
def test_the_architectures_that_can_hold_a_prompt_once_are_found_by_trying(kind):
    model = tiny.model(kind)
    before = model.config._attn_implementation
    found = prefix.form(model, sampling._alike)
    assert (found is not None) == (kind in SHARED)
    if found is None:
        assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", SHARED)
def test_rollouts_longer_than_a_window_are_those_of_a_cache_for_each(kind, monkeypatch):
    """Unequal prompts, rollouts that end at many places, prompts and windows of about the same length."""
    model = sharp(kind)
    model.generation_config.eos_token_id = list(range(4, 60))
    prompts = [*PROMPTS, list(range(2, 40))]
    shared = drawn(model, count=6, longest=30, prompts=prompts)
    monkeypatch.setattr(prefix, "form", lambda model, alike: None)
    apart = drawn(model, count=6, longest=30, prompts=prompts)
    assert [each.tokens for each in shared] == [each.tokens for each in apart]
    assert len({len(each.tokens) for each in shared}) > 4
    for one, other in zip(shared, apart, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_a_long_prompt_is_neither_copied_nor_forgotten():
    model = sharp()
    prompt = torch.randint(5, 200, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        writer = sampling.writer(model, [prompt], 5, 8)
    assert isinstance(writer, sampling._Sharing)
    assert {layer.asked.shape for layer in writer.prefix.layers} == {(2, 300, 8)}  # two heads, once
    for rollout in drawn(model, count=5, longest=8, prompts=[prompt]):
        assert rollout.log_probs == pytest.approx(alone(model, prompt, rollout.tokens, 1.0), abs=1e-4)


def test_prompts_whose_rollouts_have_all_ended_are_let_go():
    model = tiny.model()
    with torch.no_grad():
        writer = sampling.writer(model, PROMPTS, 2, 8)
        writer.read(torch.tensor([50, 51, 52, 53, 54, 55]))
        writer.keep(torch.tensor([4]))
        writer.read(torch.tensor([60]))
        expected = model(torch.tensor([[*PROMPTS[2], 54, 60]])).logits[0, -1]
    assert {len(layer.asked) for layer in writer.prefix.layers} == {2}
    assert torch.allclose(writer.logits[0], expected, atol=1e-5)


def test_a_model_that_says_other_things_this_way_keeps_a_cache_for_each(monkeypatch):
    model = tiny.model()
    right = prefix.Prefix.attend
    monkeypatch.setattr(prefix.Prefix, "attend", lambda *given: right(*given) * 1.01)
    assert prefix.form(model, sampling._alike) is None
    assert model.config._attn_implementation == "sdpa"


def test_it_is_tried_in_full_precision_whatever_is_written_in():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert isinstance(sampling.writer(tiny.model(), PROMPTS, 2, 4), sampling._Sharing)


def test_one_rollout_a_prompt_shares_nothing():
    with torch.no_grad():
        assert isinstance(sampling.writer(tiny.model(), PROMPTS, 1, 4), sampling._Apart)


def test_the_cache_of_a_rollout_grows_with_what_it_wrote():
    model = sharp()
    found = sampling.sample(model, WORDS, [PROMPTS[0]], 2, 150, 1.0, torch.Generator().manual_seed(3))
    assert max(len(each.tokens) for each in found) > prefix.LEAP * 2
    for rollout in found:
        assert rollout.log_probs == pytest.approx(alone(model, PROMPTS[0], rollout.tokens, 1.0), abs=1e-4)
