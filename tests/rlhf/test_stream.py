"""Rollouts told while they are written: the parts come to the same as what is sampled at once, in any
portions, after an interruption, and as far as they were let."""

import json
import math

import pytest
import torch

from rlhf import checkpoint, stream
from rlhf.sample import chances_of, sample
from rlhf.stream import Wish
from tests.rlhf import tiny

PROMPT = "Why, pelican?"


@pytest.fixture(scope="module")
def policy():
    """One that is surer of itself than random weights are, and ends some of its rollouts."""
    model, words = tiny.model(), tiny.tokenizer()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6)
    model.generation_config.eos_token_id = [4, *range(200, 230)]
    return model, words


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every place is a part."""
    monkeypatch.setattr(stream, "EVERY", {"tokens": 0.0, "rollouts": 0.0})


def told(policy, form="tokens", have=(), enough=lambda parts: False, how=stream.STOP, begun=(), **wish):
    parts: list = []
    wish = Wish(**{"count": 3, "longest": 8, "seed": 4} | wish)
    halted = lambda: how if enough(parts) else ""  # noqa: E731
    sums = stream.stream(*policy, PROMPT, wish, form, set(have), parts.append, halted, begun)
    return parts, sums


def whole(parts):
    """The rollouts as they were told at their ends, by their numbers."""
    ended = [each for part in parts for each in part.get("rollouts", []) if "text" in each]
    assert len({each["number"] for each in ended}) == len(ended)
    return {each["number"]: each for each in ended}


def at_once_of(policy, numbers, longest=8, seed=4, temperature=1.0):
    model, words = policy
    ids = checkpoint.encode_prompt(words, PROMPT)
    chances = chances_of(seed, [(0, number) for number in numbers], longest)
    return sample(model, words, [ids], len(numbers), longest, temperature, chances)


@pytest.mark.parametrize("form", stream.FORMS)
def test_what_is_told_in_parts_is_what_is_sampled_at_once(policy, form):
    parts, sums = told(policy, form)
    found, expected = whole(parts), at_once_of(policy, range(3))
    assert sorted(found) == [0, 1, 2] and sums["written"] == 3
    for number, rollout in enumerate(expected):
        each = found[number]
        assert each["text"] == checkpoint.decode_rollout(policy[1], rollout.tokens)
        assert (each["length"], each["finished"]) == (len(rollout.tokens), rollout.finished)
        assert each["log_prob"] == pytest.approx(sum(rollout.log_probs), abs=1e-4)
    assert sums["tokens"] == sum(len(each.tokens) for each in expected) and sums["stopped"] is False


def test_tokens_come_one_after_the_other_and_add_up(policy):
    parts, _ = told(policy)
    assert parts[0]["prompt"]["length"] == len(parts[0]["prompt"]["tokens"]) and len(parts) > 5
    for number, rollout in enumerate(at_once_of(policy, range(3))):
        mine = [each for part in parts for each in part.get("rollouts", []) if each["number"] == number]
        tokens = [token for each in mine for token in each["tokens"]]
        assert [token["id"] for token in tokens] == rollout.tokens
        assert [token["log_prob"] for token in tokens] == pytest.approx(rollout.log_probs, abs=1e-4)
        assert "".join(each["more"] for each in mine) == mine[-1]["text"]
        assert max(len(each["tokens"]) for each in mine) <= 2  # its last comes with the one before


@pytest.mark.parametrize("temperature", [0.7, 0.05])  # at the second what is said is the likeliest
def test_each_token_says_how_sure_the_model_was_and_what_else_it_might_have_said(policy, temperature):
    model, words = policy
    parts, _ = told(policy, count=1, temperature=temperature)
    mine = [token for part in parts for each in part.get("rollouts", []) for token in each["tokens"]]
    ids = checkpoint.encode_prompt(words, PROMPT)
    with torch.no_grad():
        logits = model(torch.tensor([ids + [token["id"] for token in mine]])).logits[0].double() / temperature
    for place, token in enumerate(mine):
        probs = logits[len(ids) - 1 + place].softmax(-1)
        entropy = -sum(chance * math.log(chance) for chance in probs.tolist() if chance)
        assert token["entropy"] == pytest.approx(entropy, abs=2e-3)
        likeliest = [int(each) for each in probs.argsort(descending=True) if each != token["id"]][:5]
        assert [each["id"] for each in token["others"]] == likeliest
        assert token["others"][0]["chance"] == pytest.approx(probs[likeliest[0]].item(), abs=1e-3)


def test_special_tokens_have_names_and_the_prompt_shows_its_own(policy):
    parts, _ = told(policy, count=1, longest=1)
    shown = parts[0]["prompt"]["tokens"]
    assert shown[0] == {"id": 2, "text": "<|user|>", "special": True}
    assert "".join(each["text"] for each in shown[1:-1]) == PROMPT


@pytest.mark.parametrize("portion", [1, 2, 7])
def test_portions_change_nothing(policy, portion, monkeypatch):
    expected = whole(told(policy, "rollouts", count=7)[0])
    monkeypatch.setattr(stream, "PORTION", portion)
    parts, sums = told(policy, "rollouts", count=7)
    for number, each in whole(parts).items():
        assert each == expected[number] | {"log_prob": pytest.approx(expected[number]["log_prob"], abs=1e-4)}
    assert sums["written"] == 7


def test_a_portion_is_forgotten_when_it_is_told(policy, monkeypatch):
    """So that ten thousand take no more memory than the first few."""
    monkeypatch.setattr(stream, "PORTION", 3)
    held, real = [], stream.Teller

    class Watched(real):
        def end(self):
            held.append((len(self.drafts) + len(self.ended), len(self.numbers)))
            super().end()
            held.append((len(self.drafts) + len(self.ended), len(self.numbers)))

    monkeypatch.setattr(stream, "Teller", Watched)
    parts, _ = told(policy, "rollouts", count=20)
    assert len(held) == 14 and max(rollouts for rollouts, _ in held) <= 3
    assert all(rollouts == 0 for rollouts, _ in held[1::2])
    assert max(len(part.get("rollouts", [])) for part in parts) <= 3


def test_those_that_are_there_are_not_written_again(policy):
    expected = whole(told(policy, "rollouts", count=5)[0])
    rest = whole(told(policy, "rollouts", count=5, have=[0, 3])[0])
    assert sorted(rest) == [1, 2, 4]
    assert [rest[number]["text"] for number in rest] == [expected[number]["text"] for number in rest]


def test_it_stops_between_two_tokens_and_tells_what_there_is(policy):
    parts, sums = told(policy, longest=200, enough=lambda parts: len(parts) > 4)
    assert sums["stopped"] is True and sums["tokens"] < 20
    cut = [each for each in whole(parts).values() if not each["finished"]]
    assert cut and all(each["stopped"] for each in cut)


def test_after_a_stop_no_portion_is_begun(policy, monkeypatch):
    monkeypatch.setattr(stream, "PORTION", 2)
    parts, sums = told(policy, "rollouts", count=9, enough=lambda parts: len(parts) > 2)
    assert sums["written"] == 2 == len(whole(parts))


@pytest.mark.parametrize("read", [1 << 14, 30])
@pytest.mark.parametrize("turn", [2, 3, 6])
@pytest.mark.parametrize("form", stream.FORMS)
def test_what_is_paused_is_gone_on_with_and_comes_to_the_same(policy, form, turn, read, monkeypatch):
    """However short the turns, and however few drafts can be read at once."""
    monkeypatch.setattr(stream, "PORTION", 3)
    expected, sums = told(policy, form, count=5)
    expected, written = whole(expected), sums["tokens"]
    monkeypatch.setattr(stream, "READ", read)
    parts, turns, tokens, begun = [], 0, 0, []
    while begun is not None:
        drafts = [each["number"] for each in begun]
        new, sums = told(
            policy, form, have=whole(parts), enough=lambda parts: len(parts) > turn, how=stream.PAUSE,
            begun=begun, count=5,
        )  # fmt: skip
        assert new[0]["prompt"].get("drafts", []) == sorted(drafts) and not sums["stopped"]
        parts, turns, tokens = parts + new, turns + 1, tokens + sums["tokens"]
        begun = json.loads(json.dumps(sums["drafts"])) if "drafts" in sums else None
    found = whole(parts)
    assert turns > 2 and tokens == written and sorted(found) == list(range(5))
    for number, each in found.items():
        alike = ("text", "length", "finished")
        assert [each[name] for name in alike] == [expected[number][name] for name in alike]
        assert each["log_prob"] == pytest.approx(expected[number]["log_prob"], abs=1e-4)
        mine = [one for part in parts for one in part.get("rollouts", []) if one["number"] == number]
        if form == "tokens":
            assert "".join(one["more"] for one in mine) == each["text"]
            assert sum(len(one["tokens"]) for one in mine) == each["length"]


def test_a_draft_that_is_stopped_ends_where_it_was_put_down(policy):
    _, sums = told(policy, count=2, longest=200, enough=lambda parts: len(parts) > 4, how=stream.PAUSE)
    parts, stopped = told(policy, count=2, longest=200, begun=sums["drafts"], enough=lambda parts: True)
    assert stopped["stopped"] is True and stopped["tokens"] == 0
    ended = whole(parts)
    for each in sums["drafts"]:
        assert ended[each["number"]]["stopped"] and ended[each["number"]]["length"] == len(each["tokens"])


def test_where_memory_runs_out_it_goes_on_with_smaller_portions(policy, monkeypatch):
    expected, real = whole(told(policy, count=4)[0]), stream.sample

    def small(model, words, prompts, count, *options):
        watch, places = options[-1], iter(range(100))
        if count > 1:  # some of it is told before there is no memory left

            def lacking(moment):
                if next(places) == 2:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
                return watch(moment)

            return real(model, words, prompts, count, *options[:-1], lacking)
        return real(model, words, prompts, count, *options)

    monkeypatch.setattr(stream, "sample", small)
    parts, _ = told(policy, count=4)
    found = whole(parts)
    for number in range(4):
        each = found[number]
        assert (each["text"], each["length"]) == (expected[number]["text"], expected[number]["length"])
        mine = [one for part in parts for one in part.get("rollouts", []) if one["number"] == number]
        assert "".join(one["more"] for one in mine) == each["text"]
        assert sum(len(one["tokens"]) for one in mine) == each["length"]


def test_a_character_of_several_tokens_is_told_when_it_is_whole(policy):
    words = stream.Words(tiny.tokenizer())
    teller = stream.Teller(Wish(), "tokens", words, lambda part: None)
    draft = stream.Draft(tokens=checkpoint.encode_rollout(words.tokenizer, "aé")[:2])
    assert teller._more(0, draft)["more"] == "a"
    draft.tokens = checkpoint.encode_rollout(words.tokenizer, "aé")[:3]
    assert teller._more(0, draft)["more"] == "é"


def test_a_prompt_that_is_too_long_says_how_much_was_cut(policy):
    model = tiny.model("gpt2", n_positions=16)
    parts: list = []
    wish = Wish(count=1, longest=6)
    stream.stream(model, policy[1], "x" * 30, wish, "tokens", set(), parts.append, lambda: "")
    assert parts[0]["prompt"]["length"] == 32 and parts[0]["prompt"]["cut"] == 22
    assert len(parts[0]["prompt"]["tokens"]) == 10


def test_where_the_model_takes_few_tokens_rollouts_are_shorter_than_was_asked(policy):
    model = tiny.model("gpt2", n_positions=16)
    assert [stream.room(model, 4, each) for each in (5, 12, 13, 900)] == [5, 12, 12, 12]
    assert [stream.room(model, 40, each) for each in (5, 8, 9)] == [5, 8, 8]
    assert stream.room(policy[0], 40, 900) == 900
    parts: list = []
    sums = stream.stream(model, policy[1], "xx", Wish(2, 900), "rollouts", set(), parts.append, lambda: "")
    assert parts[0]["prompt"] == {"length": 4, "cut": 0, "longest": 12} and sums["tokens"] <= 24


def test_of_very_many_tokens_the_first_are_told_one_by_one(policy, monkeypatch):
    monkeypatch.setattr(stream, "LOOKED", 6)
    parts, sums = told(policy, count=2, longest=8)
    tokens = [token for part in parts for each in part.get("rollouts", []) for token in each["tokens"]]
    assert len(tokens) <= 6 < sums["tokens"]
    assert len(whole(parts)) == 2
