"""What else lines can be: one consensus a quintet, pairs, labelled answers, answers to imitate; and which
columns each of these has, so that every row of a file has the same ones, of one type.

Files of these rows are made in exports.py. The lines come with those of one quintet together (lines.py)."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, groupby
from statistics import median
from typing import Any

from labeler import aggregate
from labeler.models import Dataset
from rlhf.data import dense, dumps

Row = dict[str, Any]
Rows = Iterable[Row]

SAID = {"chosen", "rejected", "completion"}  # a text, or one turn of the assistant's
# What a line of a ranking tells only where there is something to tell; in a table there is a column for each.
TOLD = {
    "acceptable": "whole", "arm": "text", "decided": "wholes", "faceoff": "whole", "finished": "flags",
    "focus_seconds": "real", "guidelines": "whole", "models": "texts", "nonsense": "wholes",
    "purpose": "text", "round": "whole", "shown": "wholes", "surplus": "flag", "unsafe": "wholes",
}  # fmt: skip
A_RANKING = {
    "rollouts": "texts", "ranks": "wholes", "labeler": "text", "quintet": "text", "seconds": "real",
    "simulated": "flag",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How some formats may be had in more ways than one."""

    consensus: bool = False
    messages: bool = False
    best: bool = False


@dataclass(frozen=True)
class Format:
    """`columns`: name and type of each; the prompt's comes first, and is a text or messages."""

    name: str
    words: str
    task: str
    columns: dict[str, str]
    rows: Callable[[Rows, Options], Iterator[Row]]
    options: tuple[str, ...] = ()

    def kind(self, options: Options) -> str:
        """Of the lines that it is made from."""
        written = self.name == "sft" and not options.best
        return Dataset.Kind.DEMONSTRATIONS if written else Dataset.Kind.RANKINGS

    def typed(self, messages: bool) -> dict[str, str]:
        """The columns of a file: where one prompt is a chat or chats are asked for, all of them are."""
        found = {
            name: "messages" if messages and name in SAID else kind for name, kind in self.columns.items()
        }
        return {"prompt": "messages" if messages else "text", **found}

    def made(self, lines: Rows, options: Options, messages: bool) -> Iterator[Row]:
        rows = self.rows(lines, options)
        return (_as_messages(row) for row in rows) if messages else rows


def ranked(lines: Rows, options: Options) -> Iterator[Row]:
    """The lines as a table has them: what has no column of its own is one text of JSON at the end."""
    for line in lines:
        row = {name: line.get(name) for name in ("prompt", *A_RANKING)}
        rest = {name: value for name, value in line.items() if name not in row}
        told = {name: rest.pop(name) for name in TOLD if name in rest and _fits(rest[name], TOLD[name])}
        if isinstance(line["prompt"], str) and line["prompt"].startswith("[{"):
            rest["prompt"] = line["prompt"]  # in CSV it would be taken for a chat
        yield row | {name: told.get(name) for name in TOLD} | {"extra": dumps(rest) if rest else None}


def consensus(lines: Rows, options: Options) -> Iterator[Row]:
    """One line a quintet: the majority's ranks, or what a review decided. Circles and even votes are ties."""
    for pool in _pools(lines):
        first, given = pool[0], tuple(sorted(tuple(line["ranks"]) for line in pool))
        decided = _decided(pool)
        mids, lows, highs = _strengths(given)
        yield {
            "prompt": first["prompt"],
            "rollouts": first["rollouts"],
            "ranks": decided or _consensus(given),
            "quintet": first["quintet"],
            "labelers": len(pool),
            "decided": bool(decided),
            "strengths": mids,
            "low": lows,
            "high": highs,
            "simulated": first["simulated"],
        }


def pairs(lines: Rows, options: Options) -> Iterator[Row]:
    """Every two rollouts that differ in rank, the better one chosen. Ties and equal texts make no pair."""
    for line in consensus(lines, options) if options.consensus else lines:
        rollouts, ranks = line["rollouts"], line["ranks"]
        for one, other in combinations(range(len(ranks)), 2):
            if ranks[one] == ranks[other] or rollouts[one] == rollouts[other]:
                continue
            better, worse = (one, other) if ranks[one] < ranks[other] else (other, one)
            yield {
                "prompt": line["prompt"],
                "chosen": rollouts[better],
                "rejected": rollouts[worse],
                "margin": float(ranks[worse] - ranks[better]),
                "simulated": line["simulated"],
            }


def kto(lines: Rows, options: Options) -> Iterator[Row]:
    """Each rollout that somebody calls good or bad, once a ranking; or once a quintet, as most say."""
    for pool in _pools(lines):
        for some in [pool] if options.consensus else [[line] for line in pool]:
            for text, label in _voted(some).items():
                yield {
                    "prompt": pool[0]["prompt"],
                    "completion": text,
                    "label": label,
                    "simulated": pool[0]["simulated"],
                }


def sft(lines: Rows, options: Options) -> Iterator[Row]:
    """Answers to imitate: those that people wrote, or the best-ranked rollouts that are good as well."""
    if options.best:
        yield from _best(lines)
        return
    for line in lines:
        if "messages" in line:
            prompt, completion = line["messages"][:-1], line["messages"][-1]["content"]
        else:
            prompt, completion = line["prompt"], line["completion"]
        simulated = line.get("simulated") is True  # it won by what simulated labelers said
        yield {"prompt": prompt, "completion": completion, "simulated": simulated}


def _best(lines: Rows) -> Iterator[Row]:
    for first, _, text in winners(lines):
        yield {"prompt": first["prompt"], "completion": text, "simulated": first["simulated"]}


def winners(lines: Rows) -> Iterator[tuple[Row, int, str]]:
    """Of every quintet, a line of it and each rollout that is best by most, good by most and not cut off:
    its slot and its text."""
    for pool in _pools(lines):
        good, first = _voted(pool), pool[0]
        ranks = _decided(pool) or _consensus(tuple(sorted(tuple(line["ranks"]) for line in pool)))
        told: Any = first.get("finished")
        ended = told if _fits(told, "flags") and len(told) == len(ranks) else [True] * len(ranks)
        rows = enumerate(zip(first["rollouts"], ranks, ended, strict=True))
        texts = {text: slot for slot, (text, rank, end) in rows if rank == 1 and end and good.get(text)}
        for text, slot in texts.items():
            yield first, slot, text


def labels(line: Row) -> list[bool | None]:
    """Which rollouts one ranking calls good or bad. Nonsense and unsafe ones are bad. The labeler's own line
    of what is acceptable decides; without one, what is above the middle rank is good, what is below it bad,
    and what is on it neither."""
    ranks: list[int] = line["ranks"]
    line_at: Any = line.get("acceptable")
    marked = {
        slot for mark in ("nonsense", "unsafe") if _fits(line.get(mark), "wholes") for slot in line[mark]
    }
    middle = median(ranks)

    def label(slot: int, rank: int) -> bool | None:
        if slot in marked:
            return False
        if _fits(line_at, "whole"):
            return rank <= line_at
        return None if rank == middle else rank < middle

    return [label(slot, rank) for slot, rank in enumerate(ranks)]


def _voted(lines: list[Row]) -> dict[str, bool]:
    """The texts that most of these rankings of one quintet call good, and those that most call bad."""
    votes: Counter[str] = Counter()
    for line in lines:
        for text, label in zip(line["rollouts"], labels(line), strict=True):
            votes[text] += {True: 1, False: -1, None: 0}[label]
    return {text: number > 0 for text, number in votes.items() if number}


def _pools(lines: Rows) -> Iterator[list[Row]]:
    """The rankings of each quintet by people, and those by simulated labelers: never both in one."""
    for _, some in groupby(lines, key=lambda line: (line["prompt"], line["quintet"], line["rollouts"])):
        together = list(some)
        for simulated in (False, True):
            pool = [line for line in together if line["simulated"] == simulated]
            if pool:
                yield pool


def _decided(pool: list[Row]) -> list[int]:
    ranks: Any = pool[0].get("decided")
    fits = _fits(ranks, "wholes") and len(ranks) == len(pool[0]["rollouts"])
    return list(dense(ranks)) if fits else []


# Few rank vectors are ever given: most quintets are ranked by one or two.
@lru_cache(maxsize=4096)
def _strengths(given: tuple[tuple[int, ...], ...]) -> tuple[list[float], ...]:
    found = aggregate.strengths(given)
    return tuple([round(each[n], 4) for each in found] for n in range(3))


@lru_cache(maxsize=4096)
def _consensus(given: tuple[tuple[int, ...], ...]) -> list[int]:
    return aggregate.consensus(given)


def _as_messages(row: Row) -> Row:
    """The same as turns of a chat. A ranking's rollouts stay texts, and it is told where its prompt was."""
    prompt = row["prompt"]
    said: Row = {name: [{"role": "assistant", "content": row[name]}] for name in row if name in SAID}
    if isinstance(prompt, list):
        return row | said
    if "extra" in row:
        said["extra"] = dumps(json.loads(row["extra"] or "{}") | {"prompt": prompt})
    return row | {"prompt": [{"role": "user", "content": prompt}]} | said


_IS = {"text": str, "whole": int, "real": float, "flag": bool}


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of a column's type: a key that other tools use for something of their own is not."""
    if kind in _IS:
        return isinstance(value, _IS[kind]) and (kind == "flag" or not isinstance(value, bool))
    return isinstance(value, list) and all(
        _fits(each, kind[:-1]) or (each is None and kind == "texts") for each in value
    )


FORMATS = {
    each.name: each
    for each in (
        Format(
            "ranked",
            "A line for each ranking: the prompt, its rollouts, their ranks, who ranked them.",
            "text-ranking",
            {**A_RANKING, **TOLD, "extra": "text"},
            ranked,
        ),
        Format(
            "consensus",
            "A line for each quintet: the ranks that most agree on, circles as ties.",
            "text-ranking",
            {
                "rollouts": "texts", "ranks": "wholes", "quintet": "text", "labelers": "whole",
                "decided": "flag", "strengths": "reals", "low": "reals", "high": "reals", "simulated": "flag",
            },
            consensus,
        ),
        Format(
            "pairs",
            "A line for each decided pair: prompt, chosen, rejected, as trainers of preferences take it.",
            "text-generation",
            {"chosen": "text", "rejected": "text", "margin": "real", "simulated": "flag"},
            pairs,
            ("consensus", "messages"),
        ),
        Format(
            "kto",
            "A line for each rollout that is good or bad: prompt, completion, label.",
            "text-generation",
            {"completion": "text", "label": "flag", "simulated": "flag"},
            kto,
            ("consensus", "messages"),
        ),
        Format(
            "sft",
            "A line for each answer to imitate: what people wrote, or the best-ranked rollouts.",
            "text-generation",
            {"completion": "text", "simulated": "flag"},
            sft,
            ("best", "messages"),
        ),
    )
}  # fmt: skip
