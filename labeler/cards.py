"""The cards of a quintet: what a labeler sees of it, and what their form says about it.

A card is a rollout under the letter that it has for this labeler; nothing on it tells which slot, model or
run it is from. Rollouts that read the same are one card, whose rank they share. What a ranking may be is
checked in models/rankings.py; forms with a ticket, and who may send them, are views/rank.py's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from django.utils.safestring import SafeString

from labeler.models import Project, Prompt, Ranking, Rollout
from labeler.models.rankings import RankingRefused, checked_ranks
from labeler.reading import rendered

LETTERS = "abcde"
RANKS = {str(rank): rank for rank in range(1, len(LETTERS) + 1)}
MARKS = ("nonsense", "unsafe")
DRAFT = (*(f"rank-{letter}" for letter in LETTERS), *MARKS, "acceptable", "focus_seconds", "at")
# A form, or a draft of one: the values under each name.
Filled = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Card:
    letter: str
    text: str
    slots: list[int] = field(default_factory=list)
    rank: int | None = None
    nonsense: bool = False
    unsafe: bool = False

    @property
    def name(self) -> str:
        return self.letter.upper()

    @property
    def html(self) -> SafeString:
        return rendered(self.text)


@dataclass(frozen=True)
class Turn:
    role: str
    content: str

    @property
    def html(self) -> SafeString:
        return rendered(self.content)


def turns(prompt: Prompt) -> list[Turn]:
    return [Turn(turn["role"], turn["content"]) for turn in prompt.turns]


def cards(shown: Sequence[Rollout], filled: Filled | None = None) -> list[Card]:
    """One for each text, in the order in which the labeler sees them, as far as `filled` has ranked them."""
    slots: dict[str, list[int]] = {}
    texts: dict[str, str] = {}
    for rollout in shown:  # alike as `Quintet.alike` has it: but for the space around them
        slots.setdefault(rollout.text.strip(), []).append(rollout.slot)
        texts.setdefault(rollout.text.strip(), rollout.text)
    filled = filled or {}
    return [
        Card(
            letter,
            texts[same],
            mine,
            rank=RANKS.get((filled.get(f"rank-{letter}") or [""])[-1]),
            **{mark: letter in filled.get(mark, ()) for mark in MARKS},
        )
        for letter, (same, mine) in zip(LETTERS, slots.items(), strict=False)
    ]


def filled_by(ranking: Ranking, shown: Sequence[Rollout]) -> dict[str, list[str]]:
    """The form as it would be with this ranking in it."""
    values: dict[str, list[str]] = {}
    for card in cards(shown):
        values[f"rank-{card.letter}"] = [str(ranking.ranks[card.slots[0]])]
        for mark in MARKS:
            if card.slots[0] in getattr(ranking, mark):
                values.setdefault(mark, []).append(card.letter)
    if ranking.acceptable is not None:
        values["acceptable"] = [str(ranking.acceptable)]
    return values


def said(filled: Filled, shown: Sequence[Rollout], project: Project) -> dict[str, Any]:
    """What `Quintet.record_ranking` wants of a form; refused where it says no ranking of these cards."""
    mine = cards(shown, filled)
    letters = {card.letter for card in mine}
    given = {
        name.removeprefix("rank-"): values[-1] for name, values in filled.items() if name.startswith("rank-")
    }
    if given.keys() - letters or any(set(filled.get(mark, ())) - letters for mark in MARKS):
        raise RankingRefused("A rank or a mark came for a rollout that is not one of these.")
    if any(value not in RANKS for value in given.values()):
        raise RankingRefused(f"A rank is a whole number from 1 to {len(mine)}.")
    raw = [card.rank for card in mine]
    ranks: list[int | None] = [None] * len(shown)
    for card, rank in zip(mine, checked_ranks(raw, len(mine), ties=project.ties), strict=True):
        for slot in card.slots:
            ranks[slot] = rank
    return {
        "ranks": ranks,
        "ties": project.ties,
        "acceptable": acceptable(filled, raw) if project.acceptable else None,
        "focus_seconds": seconds(filled),
    } | {mark: [slot for card in mine if getattr(card, mark) for slot in card.slots] for mark in MARKS}


def acceptable(filled: Filled, ranks: Sequence[int | None]) -> int | None:
    """Down to which rank, counted as the ranks are kept: without gaps. None where nothing was said."""
    value = (filled.get("acceptable") or [""])[-1]
    if value == "":
        return None
    if value != "0" and value not in RANKS:
        raise RankingRefused("What is acceptable ends at a rank, or at none.")
    return len({rank for rank in ranks if rank is not None and rank <= int(value)})


def seconds(filled: Filled) -> float | None:
    try:
        spent = float((filled.get("focus_seconds") or [""])[-1])
    except ValueError:
        return None
    return spent if isfinite(spent) and spent >= 0 else None


def draft_of(filled: Filled) -> dict[str, list[str]] | None:
    """The part of a form that a draft keeps; None where nothing was done yet."""
    kept = {name: [value.replace("\0", "") for value in filled[name]] for name in filled if name in DRAFT}
    return kept if kept.keys() - {"focus_seconds", "at"} else None


@dataclass(frozen=True)
class Taught:
    """A card of a worked example once it is ranked: where it stands there, and where one put it."""

    card: Card
    known: int
    given: int


def lesson(ranking: Ranking, shown: Sequence[Rollout]) -> list[Taught]:
    """The cards best first, as the example has them."""
    known = ranking.quintet.known_ranks or ranking.ranks
    mine = [Taught(card, known[card.slots[0]], ranking.ranks[card.slots[0]]) for card in cards(shown)]
    return sorted(mine, key=lambda each: (each.known, each.given))
