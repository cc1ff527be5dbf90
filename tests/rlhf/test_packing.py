"""Texts packed in one row against each in a row of its own: losses, gradients, and what must not leak."""

import pytest
import torch

from rlhf import adapters, apart, attention, batch, packing, precision
from rlhf.packing import Packing
from rlhf.texts import Text
from tests.rlhf import tiny

IN_ONE_ROW = ("llama", "qwen3", "mistral", "gemma3_text", "gpt2")


def text(length, seed, learnt=None):
    ids = torch.randint(5, 250, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Text(ids, learnt or [*range(length // 2, length)])


# Shorter and longer than the window of six, of one bunch and of several, two learnt spans in one of them.
TEXTS = [text(4, 1), text(9, 2), text(9, 3, [2, 3, 7, 8]), text(13, 4), text(40, 5), text(41, 6)]


def alone(model, texts):
    """Every learnt token's loss by a plain pass over its text, with nothing before, behind or beside it."""
    found = []
    for each in texts:
        says = model(torch.tensor([each.ids])).logits[0].log_softmax(-1)
        found += [-says[place - 1, each.ids[place]] for place in each.learnt]
    return torch.stack(found)


def gradients(model, losses):
    model.zero_grad()
    losses.mean().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.UNSHARED])
def test_packed_texts_cost_what_they_cost_alone(kind):
    model = tiny.model(kind)
    packed = Packing(model)
    expected = alone(model, TEXTS)
    wanted = gradients(model, expected)
    found = packed.losses(TEXTS)
    given = gradients(model, found)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert (given - wanted).norm() < 1e-5 * wanted.norm()
    ways = {True: "texts packed in one row", False: "texts packed in one row by a mask"}
    if kind in tiny.UNSHARED:
        assert packed.layout == "one padded row per text"
    else:
        assert packed.layout == ways[kind in IN_ONE_ROW]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text", "gpt2"])
def test_the_way_by_a_mask_costs_the_same(kind):
    model = tiny.model(kind)
    expected = alone(model, TEXTS)
    form = next(each for each in batch.forms(model) if _takes(model, each))
    found = Packing(model)._packed(TEXTS, mask=form, dense=True)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def _takes(model, form):
    try:
        Packing(model)._packed(TEXTS, mask=form, dense=True)
    except batch.UNABLE:
        return False
    return True


def leaking(lengths, device):
    """All texts as one."""
    return apart.Texts(((1, sum(lengths)),), None)


def seen_by_all(rows, dtype, window=None):
    order = torch.arange(rows.ids.shape[1])
    hidden = order[:, None] < order[None, :]
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)[None, None]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2"])
def test_what_leaks_from_one_text_into_another_is_seen_and_not_done(kind, monkeypatch):
    model = tiny.model(kind)
    expected = alone(model, TEXTS)
    monkeypatch.setattr(apart, "texts", leaking)
    packed = Packing(model)
    packed.settle(TEXTS)
    assert packed.layout == "texts packed in one row by a mask"
    monkeypatch.setattr(batch, "block_mask", seen_by_all)
    packed = Packing(model)
    packed.settle(TEXTS)
    assert packed.layout == "one padded row per text"
    assert model.config._attn_implementation != attention.NAME
    found = packed._packed(TEXTS, mask=batch.forms(model)[0], dense=True)
    assert (found - expected).abs().max() > 1e-3  # the first text is the same, the others are not
    assert torch.allclose(found[: len(TEXTS[0].learnt)], expected[: len(TEXTS[0].learnt)], atol=1e-4)


@pytest.mark.parametrize("share", [1e-1, 1e-3])
def test_a_leak_below_what_rounding_may_come_to_is_found_out_all_the_same(share):
    """A thousandth changes losses by less than two ways to compute them may differ by rounding."""
    model = tiny.model()
    sound, leaking = Packing(model), Packing(model)
    sound.settle(TEXTS)
    assert sound.layout == "texts packed in one row"
    tiny.leak(model, share)
    expected = alone(model, TEXTS)
    leaking.settle(TEXTS)
    assert leaking.layout == "one padded row per text"
    apart = (sound._way(TEXTS) - expected).abs().max()
    assert (apart < packing.ROUNDING * (1 + expected.abs().max())) == (share == 1e-3)


def test_positions_that_go_on_instead_of_beginning_anew_are_seen(monkeypatch):
    made = packing._row

    def going_on(texts):
        row = made(texts)
        return batch.SharedRows(row.ids, torch.arange(row.ids.shape[1])[None], row.segments, row.ends)

    model = tiny.model("gpt2")  # whose positions are absolute
    monkeypatch.setattr(packing, "_row", going_on)
    packed = Packing(model)
    packed.settle(TEXTS)
    assert packed.layout == "one padded row per text"


def test_rows_are_of_few_shapes_whatever_lies_in_them(monkeypatch):
    """Of every shape a library keeps something: 60 rows of as many shapes took 860 MB."""
    model, seen = tiny.model(), []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **given: seen.append(given["input_ids"].shape[1]) or forward(**given)
    )
    packed = Packing(model)
    packed.keeps_logits = True
    for length in (23, 64, 65, 100, 128):
        texts = [text(length - 12, length), text(12, 1)]
        expected = alone(tiny.model(), texts)
        seen.clear()
        assert packed._packed(texts, batch.forms(model)[-1], True).tolist() == pytest.approx(
            expected.tolist(), abs=2e-5
        )
        assert seen == [-(-length // batch.SHAPES) * batch.SHAPES]


def test_a_single_text_is_tried_beside_itself(monkeypatch):
    packed = Packing(tiny.model())
    monkeypatch.setattr(apart, "texts", leaking)
    packed.settle(TEXTS[:1])
    assert packed.layout == "texts packed in one row by a mask"


def test_any_portions_give_the_same_gradient():
    model = tiny.model()
    packed, found = Packing(model), []
    for size, tokens in ((6, None), (2, None), (1, None), (6, 50)):
        model.zero_grad()
        for some in batch.portions(TEXTS, size, tokens):
            packed.losses([TEXTS[number] for number in some]).sum().backward()
        found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert all((each - found[0]).norm() < 1e-5 * found[0].norm() for each in found)


@pytest.mark.parametrize("kind", IN_ONE_ROW)
def test_half_precision_costs_nearly_the_same(kind):
    model = tiny.model(kind)
    packed = Packing(model)
    exact = packed.losses(TEXTS)
    wanted = gradients(model, exact)
    packed.precision = "bf16"
    half = packed.losses(TEXTS)
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    assert (half - exact).abs().max() < 0.03 * (1 + exact.abs().max())
    assert (gradients(model, half) - wanted).norm() < 0.1 * wanted.norm()


def test_the_faster_precision_is_tried_on_rows_of_texts(monkeypatch):
    packed = Packing(tiny.model())
    packed.settle(TEXTS)
    monkeypatch.setattr(precision, "WEIGHTS_WORTH_IT", 0)
    took = {"fp32": 1.0, "bf16": 0.5}
    monkeypatch.setattr(precision, "tried", lambda _, name, compute: (compute().detach(), took[name]))
    packed.choose_precision("auto", TEXTS)
    assert packed.precision == "bf16"
    packed.choose_precision("fp32", TEXTS)
    assert packed.precision == "fp32"


@pytest.mark.parametrize("precise", ["fp32", "bf16"])
def test_computing_twice_changes_no_gradient(precise):
    found = []
    for twice in (False, True):
        model = tiny.model("gemma3_text")
        if twice:
            adapters.compute_twice(model)
        packed = Packing(model)
        packed.precision = precise
        found.append(gradients(model, packed.losses(TEXTS)))
    assert torch.equal(*found)


def test_the_mean_is_over_tokens_however_many_are_computed_at_once():
    model = tiny.model()
    packed = Packing(model)
    expected = alone(model, TEXTS).mean().item()
    for at_once, tokens in ((1, 1), (4, 30), (64, 4096)):
        assert packed.mean_loss(TEXTS, at_once, tokens) == pytest.approx(expected, abs=1e-5)
    assert packed.mean_loss([], 4, 4096) is None


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 6, 30, 31, 90], [90], [3, 200]])
def test_texts_are_bunched_with_neighbours_of_their_length(lengths):
    found = apart.texts(lengths, torch.device("cpu"))
    assert sum(count for count, _ in found.bunches) == len(lengths)
    assert found.padded <= sum(lengths) / apart.ALIKE + len(lengths) * (apart.NEAR + apart.SEVERAL)
    assert all(longest % apart.FEW == 0 for _, longest in found.bunches)
    if found.places is None:
        assert found.padded == sum(lengths)
    else:
        assert len(found.places) == len(set(found.places.tolist())) == sum(lengths)
