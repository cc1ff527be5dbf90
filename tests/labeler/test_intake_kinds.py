"""Lines checked, and what they become: rankings with what exports say of them, rollouts that wait, pairs,
judges' rows. Bad ones are refused in words."""

import json

import pytest

from labeler.intake.kinds import READ, LeftOut, Line
from tests.labeler.test_intake import WMT, lines, opened, parquet


def ranked(**values) -> Line:
    return READ["rankings"]({"prompt": "p", "rollouts": ["a", "b", "c"], "ranks": [1, 2, 2]} | values)


def test_what_exports_say_of_a_ranking_is_understood():
    marks = {"nonsense": [2], "unsafe": [0, 1], "acceptable": 1, "shown": [2, 0, 1], "surplus": True}
    line = ranked(**marks, arm="random", round=3, guidelines=2, models=["m", None, "n"], note="kept")
    assert line.facts == {"seconds": None, "arm": "random"} | marks
    assert (line.round, line.guidelines, line.models) == (3, 2, ("m", "", "n"))
    assert line.extra == {"note": "kept"}


@pytest.mark.parametrize(
    "odd",
    [
        {"nonsense": "yes"},
        {"nonsense": [3]},
        {"nonsense": [True]},
        {"unsafe": [1, 1]},
        {"acceptable": 4},
        {"shown": [0, 1]},
        {"surplus": "no"},
        {"arm": "leg"},
        {"round": 0},
        {"guidelines": "2"},
        {"models": "gpt"},
        {"finished": [True, 1, 0]},
    ],
)
def test_a_key_that_somebody_uses_for_something_else_is_kept_as_it_is(odd):
    assert ranked(**odd).extra == odd


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"rollouts": list("abcdefg"), "ranks": [1] * 7}, "7 rollouts, and a quintet holds five"),
        ({"models": ["m"]}, "“models” must name 3 models"),
        ({"models": ["m" * 201, "n", "o"]}, "longer than 200 characters"),
        ({"labeler": " lena"}, "begins or ends with a space"),
        ({"labeler": "le\nna"}, "cannot be printed"),
        ({"labeler": "l" * 151}, "longer than 150"),
        ({"quintet": "q" * 201}, "longer than 200"),
        ({"rollouts": ["a", "b\0", "c"]}, "NUL"),
        ({"prompt": "\ud800"}, "lone surrogate"),
        ({"prompt": " "}, "“prompt” is empty"),
    ],
)
def test_a_bad_ranking_is_refused_in_words(row, reason):
    with pytest.raises(ValueError, match=reason):
        ranked(**row)


def test_rollouts_without_ranks_wait_and_keep_what_else_is_said():
    row = {"prompt": "p", "rollouts": ["a", "b"], "models": ["m", "n"], "answer": "4", "id": "x", "note": 1}
    line = READ["rollouts"](row | {"finished": [True, False]})
    assert (line.rollouts, line.models, line.finished) == (("a", "b"), ("m", "n"), (True, False))
    assert (line.prompt_fields, line.extra, line.ranks) == ({"answer": "4"}, {"id": "x", "note": 1}, ())
    with pytest.raises(ValueError, match="it says “ranks”: import it as rankings"):
        READ["rollouts"](row | {"ranks": [1, 2]})
    with pytest.raises(ValueError, match="2 to 5 texts"):
        READ["rollouts"](row | {"rollouts": ["a"]})


USER, HI, BYE = (
    {"role": role, "content": text}
    for role, text in [("user", "u"), ("assistant", "hi"), ("assistant", "bye")]
)


@pytest.mark.parametrize(
    "row, prompt",
    [
        ({"prompt": "u", "chosen": "hi", "rejected": "bye"}, "u"),
        ({"prompt": "u", "chosen": [HI], "rejected": [BYE]}, "u"),
        ({"prompt": [USER], "chosen": [HI], "rejected": [BYE]}, [USER]),
        ({"chosen": [USER, HI], "rejected": [USER, BYE]}, [USER]),
        ({"chosen": [USER, HI, USER, HI], "rejected": [USER, HI, USER, BYE]}, [USER, HI, USER]),
    ],
)
def test_a_pair_is_a_ranking_of_two(row, prompt):
    line = READ["pairs"](row | {"margin": 0.5})
    assert (line.prompt, line.rollouts, line.ranks) == (prompt, ("hi", "bye"), (1, 2))
    assert line.extra == {"margin": 0.5}


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"chosen": "hi", "rejected": "bye"}, "“prompt” is missing"),
        ({"prompt": "u", "chosen": "hi"}, "both be texts"),
        ({"prompt": "u", "chosen": "hi", "rejected": [BYE]}, "both be texts"),
        ({"chosen": [USER, HI], "rejected": [USER, HI]}, "are the same"),
        ({"chosen": [HI], "rejected": [BYE]}, "do not begin alike"),
        ({"chosen": [USER, HI, USER], "rejected": [USER, BYE]}, "must be one message of the assistant's"),
        ({"chosen": [USER, HI], "rejected": [USER]}, "must be one message"),
        (
            {"prompt": "u", "chosen": [{"role": "assistant", "content": 3}], "rejected": [BYE]},
            "must be a text",
        ),
    ],
)
def test_a_bad_pair_is_refused_in_words(row, reason):
    with pytest.raises(ValueError, match=reason):
        READ["pairs"](row)


def test_a_judges_row_is_a_ranking_with_ties_of_systems_that_stand_for_their_texts():
    first = lines(WMT)[0]
    assert first.prompt == "French–English, segment 556"
    assert first.labeler == "researcher_31"
    told = {text.split(".")[2]: rank for text, rank in zip(first.rollouts, first.ranks, strict=True)}
    assert told == {
        "KIT_primary": 2,
        "uedin-heafield-unconstrained": 2,
        "DCU__primary": 3,
        "MES-SimplifiedFrench-primary": 2,
        "LIMSI-Ncode-SOUL-primary": 1,
    }
    assert first.models == first.rollouts
    assert first.extra["srcIndex"] == "556"


def test_a_missing_rank_makes_a_shorter_ranking_and_fewer_than_two_say_nothing():
    header, row = WMT.decode().splitlines()[:2]
    cells = row.split(",")
    three = lines("\n".join([header, ",".join([*cells[:-2], "-1", "-1"])]))[0]
    assert len(three.rollouts) == len(three.ranks) == 3
    with pytest.raises(LeftOut):
        lines("\n".join([header, ",".join([*cells[:-4], "-1", "-1", "-1", "-1"])]))
    with pytest.raises(ValueError, match="whole number"):
        lines("\n".join([header, ",".join([*cells[:-1], "best"])]))


def test_lines_read_from_any_format_are_the_same(tmp_path):
    row = {
        "prompt": "p",
        "rollouts": ["a", "b"],
        "ranks": [2, 1],
        "labeler": "lena",
        "nonsense": [1],
        "seconds": 2.5,
    }
    as_lines = lines(json.dumps(row), "a.jsonl")
    cells = ",".join(
        '"' + (v if isinstance(v, str) else json.dumps(v)).replace('"', '""') + '"' for v in row.values()
    )
    assert lines(f"{','.join(row)}\n{cells}\n") == as_lines
    path = parquet(tmp_path / "a.parquet", {key: [value] for key, value in row.items()})
    assert [READ["rankings"](each) for each in opened(path)] == as_lines
