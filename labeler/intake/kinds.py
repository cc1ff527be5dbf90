"""What a line becomes: a prompt, a prompt with rollouts that wait to be ranked, a ranking, a demonstration.
Pairs and WMT's five-way comparisons are rankings written in other ways.

What makes a line a bad one is decided here and in rlhf/data.py, and said in words; columns under other names
have got their right ones before (columns.py)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from labeler.intake.columns import SIGN, WORKED
from labeler.models import Arm, Import, Purpose
from labeler.models.prompts import digest
from labeler.models.sheets import LONGEST
from rlhf import data
from rlhf.data import FEWEST, MOST, Prompt, PromptLine

LONGEST_NAME = 150  # of a labeler
LONGEST_ID = 200  # of a prompt or a quintet
LONGEST_MODEL = 200
LONGEST_TIME = 1e9  # seconds at one quintet
LAST_ROUND = 10_000

Kind = Import.Kind


class LeftOut(Exception):
    """A line that is well formed and says nothing."""


@dataclass(slots=True)
class Line:
    """What comes in: a prompt; rollouts where there are any; ranks where somebody ranked them."""

    prompt: Prompt
    digest: str
    prompt_fields: dict[str, Any] = field(default_factory=dict)
    completion: str = ""  # an answer to imitate
    whole: bool = False  # and what the assistant said before it
    solution: str = ""  # how one comes to the prompt's answer
    rollouts: tuple[str, ...] = ()
    finished: tuple[bool, ...] = ()
    models: tuple[str, ...] = ()
    name: str = ""
    round: int = 0
    ranks: tuple[int, ...] = ()
    labeler: str = ""
    simulated: bool = False
    guidelines: int = 0
    # Of the ranking, as its columns have it.
    facts: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def prompt_line(row: dict[str, Any]) -> PromptLine:
    row = _parted(row) if WORKED in row else row
    if isinstance(answer := row.get("answer"), int | float) and not isinstance(answer, bool):
        row = row | {"answer": str(answer)}
    line = data.prompt_line(row)
    if len(str(line.id or "")) > LONGEST_ID:
        raise ValueError(f"“id” is longer than {LONGEST_ID} characters.")
    return line


def _parted(row: dict[str, Any]) -> dict[str, Any]:
    """“… 9 * 2 = 18\n#### 18” as its answer, 18, and its solution: all of it, because a model that learns to
    solve has to learn to say what it came to."""
    row = dict(row)
    worked = row.pop(WORKED)
    if not isinstance(worked, str) or SIGN not in worked:
        raise ValueError(f"there is no “{SIGN}” before its answer.")
    answer = worked.rpartition(SIGN)[2].strip()
    if not answer:
        raise ValueError(f"there is nothing behind its “{SIGN}”.")
    return {"answer": answer, **row, "solution": worked.strip()}


def prompt(row: dict[str, Any]) -> Line:
    return of_prompt(prompt_line(row))


def of_prompt(line: PromptLine) -> Line:
    name, extra = "" if line.id is None else str(line.id), dict(line.extra)
    solution = extra.pop("solution") if isinstance(extra.get("solution"), str) else ""
    said = {"answer": (line.answer or "").strip(), "external_id": name, "extra": extra}
    return Line(line.prompt, digest(line.prompt), said, solution=solution.strip())


def rollouts(row: dict[str, Any]) -> Line:
    """A prompt with its rollouts: read as a ranking is, but for the ranks."""
    _fits(row.get("rollouts"))
    for key in ("ranks", "labeler", "seconds", "simulated"):
        if row.get(key):
            raise ValueError(f"it says “{key}”: import it as rankings.")
    known = {key: row[key] for key in ("prompt", "rollouts") if key in row}
    unranked = [1] * len(row["rollouts"]) if isinstance(row.get("rollouts"), list) else []
    read = data.ranking(known | {"ranks": unranked, "quintet": row.get("quintet")})
    rest = {key: value for key, value in row.items() if key not in (*known, "quintet", "answer", *_UNRANKED)}
    asked = data.prompt_line({"prompt": row["prompt"], "answer": row.get("answer"), **rest})
    return _checked(
        Line(
            asked.prompt,
            digest(asked.prompt),
            {"answer": asked.answer or ""},
            rollouts=read.rollouts,
            name=read.quintet,
            extra=asked.extra | ({} if asked.id is None else {"id": asked.id}),
        )
    )


_UNRANKED = ("ranks", "labeler", "seconds", "simulated")


def ranking(row: dict[str, Any]) -> Line:
    _fits(row.get("rollouts"))
    return of_ranking(data.ranking(row))


def of_ranking(line: data.Ranking) -> Line:
    """With what the keys that exports add say of the ranking, taken only where they can mean this."""
    made = Line(
        line.prompt,
        digest(line.prompt),
        rollouts=line.rollouts,
        name=line.quintet,
        ranks=line.ranks,
        labeler=line.labeler or ("simulated" if line.simulated else "imported"),
        simulated=line.simulated,
        facts={"seconds": line.seconds},
        extra=dict(line.extra),
    )
    if (line.seconds or 0) > LONGEST_TIME:
        raise ValueError("“seconds” is longer than anybody lives.")
    for key, meant in _FACTS.items():
        if key in made.extra and meant(made.extra[key], made):
            made.facts[key] = made.extra.pop(key)
    for key, most in (("round", LAST_ROUND), ("guidelines", 2**31 - 1)):
        if _is_number(made.extra.get(key), 1, most):
            setattr(made, key, made.extra.pop(key))
    return _checked(made)


def demonstration(row: dict[str, Any]) -> Line:
    """A prompt with its answer, or a conversation that ends with it. What a file labels as bad is not to be
    imitated. Whoever wrote it there, here it was imported: another origin that it names is kept apart."""
    row = dict(row)
    if str(row.get("label")).lower() == "false":
        raise LeftOut
    row = {key: value for key, value in row.items() if value is not None}
    if isinstance(row.get("completion"), list):
        row["completion"] = _answer(row["completion"], "completion")
    if not row.get("simulated", True):
        row.pop("simulated")
    if "origin" in row:
        row["origin_there"] = row.pop("origin")
    if "rollouts" in row or "ranks" in row:
        raise ValueError("it has “rollouts” or “ranks” beside an answer: import it as rankings.")
    read = data.demonstration(row)
    if len(read.completion) > LONGEST:
        raise ValueError(f"its answer is longer than {LONGEST:,} characters.")
    if not read.completion.strip():
        raise ValueError("what the assistant says at the end is empty.")
    turns = read.prompt if isinstance(read.prompt, list) else []
    whole = read.whole and any(each["role"] == "assistant" for each in turns)
    return Line(
        read.prompt, digest(read.prompt), completion=read.completion, whole=whole, extra=dict(read.extra)
    )


def pair(row: dict[str, Any]) -> Line:
    """`chosen` before `rejected`: texts, or messages that may begin with the prompt."""
    row = dict(row)
    chosen, rejected = row.pop("chosen", None), row.pop("rejected", None)
    if isinstance(chosen, list) and isinstance(rejected, list):
        if row.get("prompt") is None:
            same = _beginning(chosen, rejected)
            if same == len(chosen) == len(rejected):
                raise ValueError("“chosen” and “rejected” are the same.")
            if not same:
                raise ValueError("“chosen” and “rejected” do not begin alike: nothing there is the prompt.")
            row["prompt"], chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
        chosen, rejected = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    elif not isinstance(chosen, str) or not isinstance(rejected, str):
        raise ValueError("“chosen” and “rejected” must both be texts, or both be lists of messages.")
    elif row.get("prompt") is None:
        raise ValueError("“prompt” is missing: where “chosen” and “rejected” are texts, it must be said.")
    if "rollouts" in row or "ranks" in row:
        raise ValueError("it has “rollouts” or “ranks” beside “chosen”: import it as rankings.")
    return ranking(row | {"rollouts": [chosen, rejected], "ranks": [1, 2]})


def _beginning(one: list, other: list) -> int:
    """How many messages both begin with."""
    alike = (left == right for left, right in zip(one, other, strict=False))
    return sum(1 for _ in takewhile(bool, alike))


def _answer(messages: list, key: str) -> str:
    last = messages[-1] if len(messages) == 1 else None
    if not isinstance(last, dict) or last.get("role") != "assistant" or "content" not in last:
        raise ValueError(f"“{key}” must be one message of the assistant's behind the prompt.")
    return last["content"]


def five_way(row: dict[str, Any]) -> Line:
    """A row of WMT's: a judge's ranks of up to five systems' translations of a segment. The texts are not in
    the file: the names of segment and systems stand for them, the systems in one order, so that judges of the
    same five meet at one quintet. A rank of -1 is missing."""
    try:
        ranked = {
            row[f"system{n}Id"]: int(row[f"system{n}rank"])
            for n in range(1, MOST + 1)
            if row.get(f"system{n}Id") and int(row[f"system{n}rank"]) != -1
        }
        pair, segment, judge = f"{row['srclang']}–{row['trglang']}", row["segmentId"], row["judgeId"]
    except KeyError as missing:
        raise ValueError(f"the column {missing} of WMT's format is missing.") from None
    except ValueError:
        raise ValueError("a rank of WMT's format is a whole number.") from None
    if len(ranked) < FEWEST:
        raise LeftOut
    own = {key: value for key, value in row.items() if value and not key.startswith("system")}
    systems = sorted(ranked)
    own.pop("judgeId")
    return ranking(
        {
            "prompt": f"{pair}, segment {segment}",
            "rollouts": systems,
            "ranks": [ranked[each] for each in systems],
            "models": systems,
            "labeler": judge,
        }
        | own
    )


READ: dict[str, Callable[[dict[str, Any]], Line]] = {
    Kind.PROMPTS: prompt,
    Kind.ROLLOUTS: rollouts,
    Kind.RANKINGS: ranking,
    Kind.DEMONSTRATIONS: demonstration,
    Kind.PAIRS: pair,
    Kind.WMT: five_way,
}


def _fits(rollouts: Any) -> None:
    if isinstance(rollouts, list) and len(rollouts) > MOST:
        raise ValueError(f"it has {len(rollouts)} rollouts, and a quintet holds five: leave some out.")


def _checked(line: Line) -> Line:
    """Names that fit, and what the line says of its rollouts."""
    if len(line.labeler) > LONGEST_NAME:
        raise ValueError(f"“labeler” is longer than {LONGEST_NAME} characters.")
    if line.labeler != line.labeler.strip() or not line.labeler.isprintable():
        raise ValueError("“labeler” begins or ends with a space, or holds what cannot be printed.")
    if len(line.name) > LONGEST_ID:
        raise ValueError(f"“quintet” is longer than {LONGEST_ID} characters.")
    count = len(line.rollouts)
    finished = data.Ranking("", line.rollouts, (), extra=line.extra).finished
    if not all(finished):
        line.finished = finished
        line.extra.pop("finished")
    models = line.extra.get("models")
    if isinstance(models, list) and all(each is None or isinstance(each, str) for each in models):
        if len(models) != count:
            raise ValueError(f"“models” must name {count} models, one per rollout.")
        if any(len(each or "") > LONGEST_MODEL for each in models):
            raise ValueError(f"the name of a model is longer than {LONGEST_MODEL} characters.")
        if any(models):
            line.models = tuple(each or "" for each in models)
            line.extra.pop("models")
    return line


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_slots(value: Any, line: Line) -> bool:
    slots = value if isinstance(value, list) else []
    inside = all(_is_number(each, 0, len(line.rollouts) - 1) for each in slots)
    return bool(slots) and inside and len(set(slots)) == len(slots)


def _is_order(value: Any, line: Line) -> bool:
    return _are_slots(value, line) and len(value) == len(line.rollouts)


def _is_time(value: Any, line: Line) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST_TIME


_FACTS: dict[str, Callable[[Any, Line], bool]] = {
    "nonsense": _are_slots,
    "unsafe": _are_slots,
    "shown": _is_order,
    "acceptable": lambda value, line: _is_number(value, 0, max(line.ranks)),
    "focus_seconds": _is_time,
    "surplus": lambda value, line: value is True,
    "arm": lambda value, line: value in (Arm.RANDOM, Arm.UNCERTAIN),
    "purpose": lambda value, line: value in (Purpose.GOLD, Purpose.REPEAT, Purpose.PRACTICE, Purpose.HARVEST),
}
