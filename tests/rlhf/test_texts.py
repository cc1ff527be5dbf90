"""Lines as tokens: what of them is learnt, what never is, and what becomes of long ones."""

from itertools import pairwise

import pytest

from rlhf import checkpoint, data, texts
from tests.rlhf import tiny

TURNS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As chat models have it that think: what was thought is left out of the past.
FORGETFUL = TURNS.replace("{{ m['content'] }}<|end|>", "{{ m['content'].split('</think>')[-1] }}<|end|>")
SAID = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "<think>Who?</think>Hi!"},
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "<think>Well.</think>Fine."},
]


@pytest.fixture
def spoken():
    return data.demonstration({"messages": SAID})


def tokenizer(template=TURNS):
    made = tiny.tokenizer()
    made.chat_template = template
    return made


def told(words, text):
    """What is learnt of it, run by run."""
    runs, before = [], None
    for place in text.learnt:
        if place - 1 != before:
            runs.append([])
        runs[-1].append(text.ids[place])
        before = place
    return [words.decode(run) for run in runs]


def test_of_a_prompt_and_its_completion_the_completion_is_learnt_with_its_end():
    words = tokenizer()
    line = data.demonstration({"prompt": "Why?", "completion": "Because."})
    (found,) = texts.of_demonstration(words, line, 100)
    assert told(words, found) == ["Because.<|end|>"]
    assert words.decode(found.ids) == "<|user|>Why?<|assistant|>Because.<|end|>"
    assert found.ids == checkpoint.encode_prompt(words, "Why?") + checkpoint.encode_rollout(words, "Because.")


def test_of_a_conversation_every_turn_of_the_assistant_is_learnt_and_nobody_elses(spoken):
    words = tokenizer()
    (found,) = texts.of_demonstration(words, spoken, 200)
    assert told(words, found) == ["<think>Who?</think>Hi!<|end|>", "<think>Well.</think>Fine.<|end|>"]
    assert words.decode(found.ids).startswith("<|user|>Be kind.<|user|>Hello?<|assistant|><think>")


def test_turns_before_a_completion_are_somebody_elses():
    words = tokenizer()
    line = data.demonstration({"prompt": SAID[:-1], "completion": "Fine."})
    (found,) = texts.of_demonstration(words, line, 200)
    assert told(words, found) == ["Fine.<|end|>"]


def test_a_turn_whose_past_its_template_tells_otherwise_is_a_text_of_its_own(spoken):
    words = tokenizer(FORGETFUL)
    first, second = texts.of_demonstration(words, spoken, 200)
    assert told(words, first) == ["<think>Who?</think>Hi!<|end|>"]
    assert told(words, second) == ["<think>Well.</think>Fine.<|end|>"]
    assert "<think>Who" not in words.decode(second.ids)
    assert "<|assistant|>Hi!<|end|><|user|>How" in words.decode(second.ids)


def test_without_a_template_each_turn_is_learnt_once(spoken):
    words = tokenizer(None)
    found = texts.of_demonstration(words, spoken, 200)
    assert [run for each in found for run in told(words, each)] == [
        "<think>Who?</think>Hi!<|end|>",
        "<think>Well.</think>Fine.<|end|>",
    ]


def test_of_a_conversation_that_is_too_long_no_answer_is_lost(spoken):
    words = tokenizer()
    found = texts.of_demonstration(words, spoken, 50)
    assert [run for each in found for run in told(words, each)] == [
        "<think>Who?</think>Hi!<|end|>",
        "<think>Well.</think>Fine.<|end|>",
    ]
    assert [each.tokens <= 50 for each in found] == [True, True]
    assert [each.prompt_cut for each in found] == [False, True]


def test_an_answer_that_is_too_long_loses_its_end_and_says_so():
    (found,) = texts.of_demonstration(
        tokenizer(), data.demonstration({"prompt": "p", "completion": "x" * 50}), 20
    )
    assert found.tokens == 20 and found.answer_cut and found.prompt_cut
    assert len(found.learnt) == 19


@pytest.mark.parametrize("limit", [8, 10, 13, 100])
def test_a_document_is_cut_into_rows_in_order_and_every_token_learnt_once(limit):
    words = tokenizer()
    line = data.document({"text": "It was a dark and stormy night; the pelican fell."})
    found = texts.of_document(words, line, limit)
    ids = checkpoint.encode_document(words, line.text)
    assert [each.ids[place] for each in found for place in each.learnt] == ids[1:]
    assert found[0].ids[0] == ids[0] and ids[-1] == words.eos_token_id
    assert all(each.tokens <= limit for each in found)
    assert all(one.ids[-1] == other.ids[0] for one, other in pairwise(found))
    assert (len(found) == 1) == (limit == 100)


def test_the_name_of_a_special_token_in_a_document_is_mere_text():
    words = tokenizer()
    ids = checkpoint.encode_document(words, "<|end|>")
    assert len(ids) == 8 and ids.count(words.eos_token_id) == 1


def test_a_document_is_gone_on_with_from_its_beginning():
    words, line = tokenizer(), data.document({"text": "abcdefgh"})
    assert words.decode(texts.beginning(words, line, 3)) == "abc"
    assert words.decode(texts.beginning(words, line, 30)) == "abcd"
