"""What each column of a file is: guessed from its name, changed by hand, applied to every row.

A row comes out with the keys of the design's lines ("prompt", "rollouts", "ranks", …). A column that is none
of these is kept beside them under its own name, or left out. Left out: whether the values are any good
(kinds.py)."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from labeler.models import Import
from rlhf.data import MOST

KEPT, LEFT = "", "-"  # what a column may be beside a field: kept under its name, or left out
# One text with both, as GSM8K has it: the solution, and behind the sign the answer.
WORKED, SIGN = "solution #### answer", "####"

Kind = Import.Kind
_MANY = ("rollout", "rank", "model")
_LISTS = {"rollout": "rollouts", "rank": "ranks", "model": "models"}
_NUMBERED = {each: [f"{each} {n}" for n in range(1, MOST + 1)] for each in _MANY}
_WHO = ["labeler", "quintet", "seconds", "simulated"]

FIELDS: dict[str, list[str]] = {
    Kind.PROMPTS: ["prompt", "answer", "solution", WORKED, "id"],
    Kind.ROLLOUTS: [
        *("prompt", "answer", "rollouts", *_NUMBERED["rollout"], "models", *_NUMBERED["model"], "quintet")
    ],
    Kind.RANKINGS: [
        *("prompt", "rollouts", *_NUMBERED["rollout"], "ranks", *_NUMBERED["rank"]),
        *("models", *_NUMBERED["model"], *_WHO),
    ],
    Kind.DEMONSTRATIONS: ["prompt", "completion", "messages"],
    Kind.PAIRS: ["prompt", "chosen", "rejected", *_WHO],
    Kind.WMT: [],
}
NEEDED: dict[str, list[tuple[str, ...]]] = {
    Kind.PROMPTS: [("prompt",)],
    Kind.ROLLOUTS: [("prompt",), ("rollouts", "rollout 2")],
    Kind.RANKINGS: [("prompt",), ("rollouts", "rollout 2"), ("ranks", "rank 2")],
    Kind.DEMONSTRATIONS: [("prompt", "messages"), ("completion", "messages")],
    Kind.PAIRS: [("chosen",), ("rejected",)],
    Kind.WMT: [],
}
# What other people's files call them.
ALSO = {
    "instruction": "prompt",
    "question": "prompt",
    "input": "prompt",
    "source": "prompt",
    "problem": "prompt",
    "solution": "answer",
    "final_answer": "answer",
    "worked_solution": "solution",
    "rationale": "solution",
    "annotator": "labeler",
    "rater": "labeler",
    "judge": "labeler",
    "user": "labeler",
    "worker": "labeler",
    "duration": "seconds",
    "responses": "rollouts",
    "completions": "rollouts",
    "response": "completion",
    "output": "completion",
    "target": "completion",
    "conversation": "messages",
    "conversations": "messages",
    "ranking": "ranks",
    "prompt_id": "id",
    "uid": "id",
}
_A_NUMBERED = re.compile(
    r"(?P<what>rollout|response|completion|output|candidate|generation|rank|model|system)s?[ _.-]?"
    r"(?P<n>[0-5])$"
)
_MEANS = {"rank": "rank", "model": "model", "system": "model"}
# Lists, numbers and the like, which a CSV file can only hold written out as JSON.
_WRITTEN_OUT = {
    *("rollouts", "ranks", "models", "finished", "nonsense", "unsafe", "acceptable", "messages"),
    *("focus_seconds", "round", "guidelines", "surplus", "seconds", "simulated", "shown", "decided"),
    "faceoff",
}
_MUST_BE_JSON = {"rollouts", "ranks", "models", "seconds", "simulated", "messages"}
_MAY_BE_CHAT = {"prompt", "chosen", "rejected", "completion"}
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def guessed_kind(columns: Iterable[str]) -> str:
    named = set(columns)
    if {"judgeId", "segmentId", "system1Id", "system1rank"} <= named:
        return Kind.WMT
    found = set(guessed(named, Kind.RANKINGS).values()) | named
    if {"chosen", "rejected"} <= found:
        return Kind.PAIRS
    if found & {"ranks", "rank 2"}:
        return Kind.RANKINGS
    if found & {"rollouts", "rollout 2"}:
        return Kind.ROLLOUTS
    wanted = set(guessed(named, Kind.DEMONSTRATIONS).values())
    return Kind.DEMONSTRATIONS if wanted & {"completion", "messages"} else Kind.PROMPTS


def guessed(columns: Iterable[str], kind: str) -> dict[str, str]:
    """Which of these columns is which field, where a name tells. What is not named here is kept as it is."""
    columns = list(columns)
    wanted = set(FIELDS[kind])
    # Some count from nought.
    start = 1 if any(_numbered(each, 0).endswith(" 0") for each in columns) else 0
    mapping: dict[str, str] = {}
    for how in (str, _known_name, lambda name: _numbered(name, start)):
        for column in columns:
            field = how(column)
            if column not in mapping and field in wanted and field not in mapping.values():
                mapping[column] = field
    if kind == Kind.PROMPTS:
        _tell_solutions(mapping, columns)
    if kind == Kind.ROLLOUTS and "id" in columns and "quintet" not in mapping.values():
        mapping["id"] = "quintet"
    return mapping


def _tell_solutions(mapping: dict[str, str], columns: list[str]) -> None:
    """A column “solution” beside an answer is how one comes to it; where it is alone, it is the answer."""
    if "answer" not in mapping.values() and "solution" in mapping:
        mapping["solution"] = "answer"
    elif "answer" in mapping.values() and "solution" not in mapping.values():
        named = [each for each in columns if each.strip().lower() == "solution" and each not in mapping]
        mapping |= dict.fromkeys(named[:1], "solution")


def with_a_look(mapping: Mapping[str, str], rows: Iterable[Any]) -> dict[str, str]:
    """The same, but where every answer among these first rows has a worked solution before it."""
    found = dict(mapping)
    for column, field in mapping.items():
        values = [row[column] for row in rows if isinstance(row, dict) and row.get(column)]
        if field == "answer" and values and all(isinstance(each, str) and SIGN in each for each in values):
            found[column] = WORKED
    return found


def _known_name(column: str) -> str:
    name = re.sub(r"[ -]+", "_", column.strip().lower())
    return ALSO.get(name, name)


def _numbered(column: str, start: int) -> str:
    found = _A_NUMBERED.match(column.strip().lower())
    if not found:
        return ""
    return f"{_MEANS.get(found['what'], 'rollout')} {int(found['n']) + start}"


def missing(mapping: Mapping[str, str], kind: str) -> list[str]:
    """Of the fields that lines of this kind need, those that no column is."""
    there = set(mapping.values())
    lacking = [each for each in NEEDED[kind] if not there & set(each)]
    several = kind != Kind.DEMONSTRATIONS  # of rollouts and ranks, which may have a column each
    return [each[0].removesuffix("s") + "s" if len(each) > 1 and several else each[0] for each in lacking]


def reader(mapping: Mapping[str, str], format: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes a line of a row. Its ValueError says in words what cannot be."""
    is_text, is_table = format in ("csv", "text"), format in ("csv", "parquet")
    fields = {column: field for column, field in mapping.items() if field}
    taken = set(fields.values()) | {_LISTS[each.split()[0]] for each in fields.values() if each[-1].isdigit()}
    if not is_table and not is_text and all(column == field for column, field in fields.items()):
        return dict

    def line(row: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for column, value in row.items():
            field = fields.get(column, column)
            if field == LEFT or (column not in fields and column in taken) or value is None:
                continue
            if is_text:
                if not value and field != "prompt" and field.split()[0] not in _MANY:
                    continue
                value = _meant(field, value)
            if field[-1:].isdigit() and field.split()[0] in _MANY and column in fields:
                parts[field] = value
            else:
                made[field] = value
        return _opened(made | _lists(parts)) if is_table else made | _lists(parts)

    return line


def _opened(line: dict[str, Any]) -> dict[str, Any]:
    """With the keys that a table of ours keeps together, as JSON, because no other row may have them."""
    more = _json(line["extra"]) if isinstance(line.get("extra"), str) else None
    if not isinstance(more, dict):
        return line
    return {key: value for key, value in line.items() if key != "extra"} | more


def _lists(parts: Mapping[str, Any]) -> dict[str, list]:
    """“rollout 1”, “rank 1” … as lists. A column that a shorter ranking leaves empty is no rollout; a text
    that is empty but has a rank is one."""
    if not parts:
        return {}
    numbers = [
        n for n in range(1, MOST + 1) if parts.get(f"rollout {n}") or parts.get(f"rank {n}") not in (None, "")
    ]
    made: dict[str, list] = {}
    for what, key in _LISTS.items():
        if any(part.startswith(what) for part in parts):
            made[key] = [parts.get(f"{what} {n}", "") for n in numbers]
    for n, rank in zip(numbers, made.get("ranks", []), strict=False):
        if rank == "":
            raise ValueError(f"rollout {n} has no rank.")
    if not any(made.get("models", [])):
        made.pop("models", None)
    return made


def _meant(field: str, text: str) -> Any:
    """What a cell of text stands for."""
    if len(text) > 1 and text[0] == "'" and text[1] in "=+-@\t\r'":
        text = text[1:]  # as a spreadsheet keeps a text from being a formula
    if field in _MAY_BE_CHAT and text.startswith("[{"):
        value = _json(text)
        return value if isinstance(value, list) else text
    if field == "simulated" and text.strip().lower() in (*_TRUE, *_FALSE):
        return text.strip().lower() in _TRUE
    if field.startswith("rank "):
        if not text.strip():
            return ""
        value = _json(text)
        if value is None:
            raise ValueError(f"“{text[:20]}” is no rank.")
        return value
    if field in _WRITTEN_OUT:
        value = _json(text)
        if value is None and field in _MUST_BE_JSON:
            raise ValueError(f"“{field}” must be written as JSON does it, not “{text[:40]}”.")
        return text if value is None else value
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
