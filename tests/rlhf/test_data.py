"""Line formats: what is read, what is refused and in which words, and that writing is reproducible."""

import hashlib
import itertools
import json

import pytest

from rlhf import data

RANKED = {"prompt": "Tell me a joke.", "rollouts": ["a", "b", "c"], "ranks": [2, 1, 2]}


def lines(tmp_path, *texts):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
    return path


def test_a_ranking_line_is_read_with_its_extra_keys():
    found = data.ranking(
        RANKED | {"labeler": "ann", "simulated": True, "seconds": 3.5, "mood": {"of": ["day"]}}
    )
    assert (found.rollouts, found.ranks, found.labeler) == (("a", "b", "c"), (2, 1, 2), "ann")
    assert found.simulated
    assert found.extra == {"mood": {"of": ["day"]}}


@pytest.mark.parametrize(
    ("given", "stored"),
    [([1, 2, 3], (1, 2, 3)), ([10, 30, 20], (1, 3, 2)), ([1, 1, 3], (1, 1, 2)), ([0.5, -1, 0.5], (2, 1, 2))],
)
def test_any_weak_order_is_made_dense(given, stored):
    assert data.ranking(RANKED | {"ranks": given}).ranks == stored


def test_a_ranking_of_equals_is_kept_but_teaches_nothing():
    assert not data.ranking(RANKED | {"ranks": [4, 4, 4]}).teaches
    assert data.ranking(RANKED).teaches


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rollouts": ["a"], "ranks": [1]}, "2 to 5"),
        ({"rollouts": list("abcdef"), "ranks": [1] * 6}, "2 to 5"),
        ({"rollouts": "abc"}, "2 to 5"),
        ({"rollouts": ["a", 2, "c"]}, "rollout 2 must be a text"),
        ({"ranks": [1, 2]}, "3 numbers"),
        ({"ranks": [1, 2, None]}, "numbers only"),
        ({"ranks": [1, True, 2]}, "numbers only"),
        ({"prompt": None}, "“prompt” must be a text"),
        ({"prompt": " \n"}, "“prompt” is empty"),
        ({"prompt": []}, "list of messages"),
        ({"prompt": [{"role": "user"}]}, "“role”"),
        ({"prompt": [{"role": "poet", "content": "x"}]}, "“role”"),
        (
            {"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "must not end",
        ),
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": "a\ud800b"}, "half a character"),
        ({"rollouts": ["a", "b\0", "c"]}, "rollout 2 holds a NUL"),
        ({"labeler": "\udfff"}, "half a character"),
        ({"extra": {"deep": ["\0"]}}, "NUL"),
        ({"extra\ud800": 1}, "half a character"),
        ({"seconds": -1}, "not negative"),
        ({"simulated": "yes"}, "true or false"),
    ],
)
def test_what_is_no_ranking_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        data.ranking(RANKED | change)


@pytest.mark.parametrize(
    ("told", "finished"),
    [
        (None, (True, True, True)),
        ([True, False, True], (True, False, True)),
        ([True, False], (True, True, True)),
        ("yesterday", (True, True, True)),
    ],
)
def test_a_line_may_tell_which_rollouts_were_cut_off(told, finished):
    line = RANKED | ({} if told is None else {"finished": told})
    assert data.ranking(line).finished == finished
    assert data.as_line(data.ranking(line)).get("finished") == told


def test_a_backslash_in_an_extra_key_is_no_nul():
    assert data.ranking(RANKED | {"path": "C:\\u0000"}).extra == {"path": "C:\\u0000"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"prompt": NaN}', "NaN is not a JSON number"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"prompt": "' + b"x" * 1_000_001 + b'"}', "longer than 1,000,000 bytes"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({"prompt": "a\0"}).encode(), "NUL"),
        (json.dumps({"prompt": "\ud800"}).encode(), "half a character"),
    ],
)
def test_a_bad_line_names_its_number_and_reason(tmp_path, bad, words):
    path = lines(tmp_path, json.dumps({"prompt": "fine"}), "", bad)
    with pytest.raises(data.BadLine) as caught:
        data.prompt_lines(path)
    assert caught.value.number == 3
    assert words in caught.value.reason


def test_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = lines(tmp_path, "\ufeff" + json.dumps({"prompt": "one"}), "  ", json.dumps({"prompt": "two"}), "")
    assert [line.prompt for line in data.prompt_lines(path)] == ["one", "two"]


def test_a_prompt_line_keeps_its_answer_and_id():
    line = {"prompt": "2 + 2", "answer": "4", "id": 17, "source": "school"}
    assert data.as_line(data.prompt_line(line)) == line


def test_both_forms_of_a_demonstration_say_the_same():
    plain = data.demonstration({"prompt": "Why?", "completion": "Because."})
    spoken = data.demonstration(
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    )
    assert data.prompt_text(plain.prompt) == data.prompt_text(spoken.prompt) == "Why?"
    assert plain.completion == spoken.completion == "Because."


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "Why?"},
        {"prompt": "Why?", "completion": ""},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "Because."}]},
        {"messages": [{"role": "user", "content": "Why?"}]},
    ],
)
def test_half_a_demonstration_is_refused(line):
    with pytest.raises(ValueError, match=r"“|must"):
        data.demonstration(line)


def test_a_conversation_reads_as_one_text():
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    assert data.prompt_text(prompt) == "system: Be kind.\n\nuser: Hello"


def test_what_was_read_is_written_back_byte_for_byte(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    line = RANKED | {"labeler": "ann", "quintet": "7", "note": "fünf ✓ <b>"}
    data.write_lines(first, [data.as_line(data.ranking(line))])
    data.write_lines(second, [data.as_line(ranking) for ranking in data.rankings(first)])
    assert first.read_bytes() == second.read_bytes()
    assert "fünf ✓ <b>" in first.read_text()


# The split


JOKES = [f"Joke {number}" for number in range(400)]


def apart(prompts, share, seed=0):
    return {prompts[number] for number in data.split_by_prompt(prompts, share, seed)[1]}


def test_what_is_held_out_are_the_first_prompts_by_their_digest():
    """One in sixteen of all digests begins with 0."""
    held = {each for each in JOKES if hashlib.sha256(each.encode()).hexdigest().startswith("0")}
    assert apart(JOKES, 1 / 16) == held and len(held) > 9
    order = sorted(JOKES, key=data.prompt_digest)
    assert held == set(order[: len(held)])
    taught, both = data.split_by_prompt(JOKES + JOKES, 1 / 16, 0)
    assert len(both) == 2 * len(held) and sorted(taught + both) == list(range(800))


def test_a_prompt_that_was_learnt_from_is_never_held_out_later():
    """However many are added and in whichever order: only new ones change sides, from both to one."""
    for share in (0.02, 0.1, 0.3):
        for seed in (0, 5):
            learnt: set[str] = set()
            for count in (2, 3, 5, 10, 40, 150, 400):
                held = apart(JOKES[:count], share, seed)
                assert held and not held & learnt
                learnt |= set(JOKES[:count]) - held


def test_a_larger_share_holds_out_what_a_smaller_one_does_and_about_as_much_as_was_asked():
    shares = (0.03, 0.1, 0.15, 0.5)
    for seed in range(4):
        parts = [apart(JOKES, share, seed) for share in shares]
        assert all(one < other for one, other in itertools.pairwise(parts))
        for share, part in zip(shares, parts, strict=True):
            assert abs(len(part) - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


def test_another_seed_holds_out_others():
    parts = [frozenset(apart(JOKES, 0.1, seed)) for seed in range(5)]
    assert len(set(parts)) == 5 and sum(len(each) for each in parts) > len(parts[0])
    order = sorted(JOKES, key=lambda each: data.place(data.prompt_digest(each), 3))
    assert parts[3] == set(order[: len(parts[3])])
    begin = int(hashlib.sha256(b"held out 3").hexdigest(), 16)
    turned = [(int(data.prompt_digest(each), 16) - begin) % 2**256 for each in JOKES]
    assert parts[3] == {each for each, at in zip(JOKES, turned, strict=True) if at < 0.1 * 2**256}


def test_one_at_least_is_held_out_and_one_learnt_from():
    for share in (0.001, 0.999):
        for count in (2, 3, 20):
            taught, held = data.split_by_prompt(JOKES[:count], share, 0)
            assert taught and held
    assert data.split_by_prompt(JOKES[:1], 0.5, 0) == ([0], [])
    assert data.split_by_prompt(JOKES[:3], 0, 0) == ([0, 1, 2], [])


def test_a_prompt_and_the_same_words_as_a_chat_stay_on_one_side():
    chats = [[{"role": "user", "content": f"Joke {number}"}] for number in range(20)]
    prompts = [f"Joke {number}" for number in range(20)] + chats
    _, held = data.split_by_prompt(prompts, 0.3, 0)
    assert sorted(number - 20 for number in held if number >= 20) == [n for n in held if n < 20]
