"""Looking through what a policy run wrote for rollouts that may have fooled its reward model: a worker's
matter, which reads the run directory. What people then decide about them is in labeler/models/harvests.py.

A rollout is picked for one of three reasons, each held against what the same run wrote in its beginning:
`far`: its reward is higher than nine of ten of those, and it is further from the start than the run's limit
of KL. `repeats`: it repeats itself twice as much as was usual, and is rewarded no less. `marked`: it is like
one that people marked as nonsense, and is rewarded no less. Two are alike where half of their runs of three
words are the same, or where they are of one template: as many words, seven of ten the same at the same place;
the prompt's own words count as one. Of those that are alike one is offered, with how many there are: the
best rewarded one whose prompt has ordinary rollouts to put it beside, if there is such a one.

Left out: meaning. What is alike in sense and not in words is offered twice."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import zstandard

from labeler.models.runs import storable
from rlhf import data

BEGINNING = 0.1  # of the steps
HIGH = 0.9  # of the scores in the beginning are lower
VARIETY = 0.5  # of the usual share of different pairs of tokens
ALIKE = 0.5  # Jaccard, over runs of so many words
WORDS = 3
TEMPLATE = 0.7  # of the words at their places
FEWEST_TOKENS = 4  # below which a text has nothing to repeat
MOST = 60  # that one look offers
BESIDE = 8  # ordinary rollouts that are kept for each prompt

Grams = frozenset[tuple[str, ...]]
Place = tuple[int, int, str]  # of so many words, the one at this place
Part = TypeVar("Part", tuple[str, ...], Place)


@dataclass
class Picked:
    """A rollout that may have fooled the reward model."""

    prompt: str
    text: str
    step: int
    group: int
    index: int
    score: float
    reward: float
    kl: float
    distinct: float
    finished: bool
    reasons: list[str]
    alike: int = 1
    others: list[str] = field(default_factory=list)


@dataclass
class Usual:
    """What the run was like in its beginning, and the limits that follow from it."""

    until: int
    high: float = 0.0
    middle: float = 0.0
    distinct: float = 0.0
    kl: float = 0.0
    rollouts: int = 0

    def reasons(self, seen: Picked, is_marked: Callable[[str, str], bool]) -> list[str]:
        told = []
        if seen.score > self.high and seen.kl >= self.kl:
            told.append("far")
        if seen.score >= self.middle and seen.distinct < VARIETY * self.distinct:
            told.append("repeats")
        if seen.score >= self.middle and is_marked(seen.prompt, seen.text):
            told.append("marked")
        return told


@dataclass
class Looked:
    """What one look found: the offered ones, the largest groups first."""

    usual: Usual
    rollouts: int = 0
    picked: int = 0
    known: int = 0  # groups that are like one that was decided before
    left_out: int = 0  # groups beyond what one look offers
    offered: list[Picked] = field(default_factory=list)
    beside: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def look(
    path: Path,
    steps: int,
    limit: float,
    marked: Iterable[tuple[str, str]],
    decided: Iterable[tuple[str, str]],
    answered: Iterable[str] = (),
    tell: Callable[[int], None] = lambda _: None,
) -> Looked:
    """Through the rollouts file of a run of so many steps. `marked` and `decided`: prompts and texts that
    people marked as nonsense, and that they have decided about before. `answered`: prompts to which there
    are ordinary rollouts already."""
    found = Looked(usual=Usual(max(1, round(BEGINNING * steps)), kl=limit))
    bad, ordinary, picked = Alike(marked), [], []
    later: dict[str, list[Picked]] = defaultdict(list)  # what was not picked, of each prompt
    for seen in _rollouts(path):
        found.rollouts += 1
        if found.rollouts % 2000 == 0:
            tell(found.rollouts)
        if seen.step <= found.usual.until:
            ordinary.append(seen)
            continue
        if not found.usual.rollouts:
            found.usual = _usual(found.usual, ordinary)
        if reasons := found.usual.reasons(seen, bad.has):
            seen.reasons = reasons
            picked.append(seen)
        elif seen.finished:
            _keep_plainest(later, seen)
    found.picked = len(picked)
    groups = grouped(picked, {*answered, *(each.prompt for each in ordinary if each.finished)})
    known = Alike(decided)
    fresh = [each for each in groups if not known.has(each.prompt, each.text)]
    found.known = len(groups) - len(fresh)
    found.offered, found.left_out = fresh[:MOST], max(0, len(fresh) - MOST)
    found.beside = _beside(ordinary, later, {each.prompt for each in found.offered})
    return found


def grouped(picked: list[Picked], answered: set[str]) -> list[Picked]:
    """One of each group of rollouts that are alike: the best rewarded of those whose prompt has others to put
    it beside, if there is one. The largest groups first."""
    leaders, first = Alike(), []

    def order(each: Picked) -> tuple:
        return each.prompt not in answered, -each.score, each.step, each.group, each.index

    for seen in sorted(picked, key=order):
        like = leaders.find(seen.prompt, seen.text)
        if like is None:
            leaders.add(seen.prompt, seen.text)
            first.append(seen)
            continue
        leader = first[like]
        leader.alike += 1
        leader.reasons = sorted({*leader.reasons, *seen.reasons})
        if seen.text not in (leader.text, *leader.others) and len(leader.others) < 3:
            leader.others.append(seen.text)
    return sorted(first, key=lambda each: (-each.alike, -each.score, each.step))


class Alike:
    """Texts, to find those that another is like: by the runs of words that they share, or by template.

    Two that are alike share at least half of what either has, so that a text is held only against those with
    which it shares one of its rarest parts: so many that whoever shares none of them shares too few. What a
    look takes grows about as the number of texts, however many of them begin with the same words."""

    def __init__(self, texts: Iterable[tuple[str, str]] = ()):
        self.said: list[list[str]] = []
        self.runs: list[Grams] = []
        self.holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self.places: dict[Place, list[int]] = defaultdict(list)
        for prompt, text in texts:
            self.add(prompt, text)

    def add(self, prompt: str, text: str) -> None:
        said, number = masked(prompt, text), len(self.said)
        runs = grams(said)
        self.said.append(said)
        self.runs.append(runs)
        for run in runs:
            self.holders[run].append(number)
        for place in _places(said):
            self.places[place].append(number)

    def find(self, prompt: str, text: str) -> int | None:
        """The number of the one that it is most like; None where it is like none."""
        said = masked(prompt, text)
        runs, best = grams(said), None
        for number in self._sharing(self.holders, runs, len(runs) // 2 + 1):
            both = len(runs & self.runs[number])
            share = both / (len(runs) + len(self.runs[number]) - both)
            if share >= ALIKE:
                best = max(best or (0.0, 0, 0), (share, both, -number))
        return -best[2] if best else self._of_one_template(said)

    def _of_one_template(self, said: list[str]) -> int | None:
        """The first whose words are the same at seven of ten places."""
        others = len(said) - ceil(TEMPLATE * len(said))  # places that may differ
        for number in sorted(self._sharing(self.places, _places(said), others + 1)):
            other = self.said[number]
            same = sum(one == another for one, another in zip(said, other, strict=True))
            if same >= TEMPLATE * len(said):
                return number
        return None

    @staticmethod
    def _sharing(held: dict[Part, list[int]], parts: Iterable[Part], many: int) -> set[int]:
        """Those that hold one of so many of these parts, the rarest ones."""
        rarest = nsmallest(many, (held.get(each, []) for each in parts), key=len)
        return {number for each in rarest for number in each}

    def has(self, prompt: str, text: str) -> bool:
        return self.find(prompt, text) is not None


def masked(prompt: str, text: str) -> list[str]:
    """Its words, with one sign for every one that the prompt has."""
    asked = set(_words(prompt))
    return ["·" if word in asked and len(word) > 3 else word for word in _words(text)]


def grams(said: list[str]) -> Grams:
    """The runs of three words; those of a short text are all of it."""
    if len(said) < WORDS:
        return frozenset([tuple(said)])
    return frozenset(zip(*(said[start:] for start in range(WORDS)), strict=False))


def _places(said: list[str]) -> list[Place]:
    return [(len(said), place, word) for place, word in enumerate(said)]


def _words(text: str) -> list[str]:
    return [kept for word in text.lower().split() if (kept := word.strip(".,;:!?\"'()[]“”‘’…-–—"))]


def _usual(known: Usual, ordinary: list[Picked]) -> Usual:
    if not ordinary:
        return known
    scores = sorted(each.score for each in ordinary)
    return Usual(
        until=known.until,
        high=scores[min(len(scores) - 1, int(HIGH * len(scores)))],
        middle=median(scores),
        distinct=median(each.distinct for each in ordinary),
        kl=known.kl,
        rollouts=len(ordinary),
    )


def _plainness(each: Picked) -> tuple[float, int, int, int]:
    return each.kl, each.step, each.group, each.index


def _keep_plainest(kept: dict[str, list[Picked]], seen: Picked) -> None:
    """Among the few of its prompt, as long as it is one of the plainest."""
    mine = kept[seen.prompt]
    if len(mine) == BESIDE and _plainness(seen) > _plainness(mine[-1]):
        return
    if seen.text not in [each.text for each in mine]:
        kept[seen.prompt] = sorted([*mine, seen], key=_plainness)[:BESIDE]


def _beside(
    ordinary: list[Picked], later: dict[str, list[Picked]], prompts: set[str]
) -> dict[str, list[dict[str, Any]]]:
    """Different rollouts of these prompts from the beginning, the plainest first; where those are few, some
    that were written later and not picked, which are marked so."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in sorted(ordinary, key=_plainness):
        mine = found.setdefault(each.prompt, [])
        new = each.text not in [one["text"] for one in mine]
        if each.prompt in prompts and each.finished and new and len(mine) < BESIDE:
            mine.append({"text": each.text, "step": each.step})
    for prompt in prompts:
        mine = found.setdefault(prompt, [])
        texts = {one["text"] for one in mine}
        more = [each for each in later.get(prompt, ()) if each.text not in texts]
        mine += [{"text": each.text, "step": each.step, "later": True} for each in more][: BESIDE - len(mine)]
    return {prompt: some for prompt, some in found.items() if some}


def _rollouts(path: Path) -> Iterator[Picked]:
    """Every rollout that a reward model scored, as far as the file is whole."""
    for line in _lines(path):
        if line.get("score") is None or "rollout" not in line:
            continue
        yield Picked(
            prompt=line["prompt"],
            text=storable(line["rollout"]),
            step=line["step"],
            group=line["group"],
            index=line["index"],
            score=line["score"],
            reward=line["reward"],
            kl=sum(line["kl"]),
            distinct=_distinct(line["tokens"]),
            finished=line["finished"],
            reasons=[],
        )


def _distinct(tokens: list[int]) -> float:
    pairs = list(pairwise(tokens))
    return len(set(pairs)) / len(pairs) if len(tokens) >= FEWEST_TOKENS else 1.0


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a compressed file, some at a time; what is still being written at its end is left."""
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        left = b""
        while True:
            try:
                block = reader.read(1 << 20)
            except zstandard.ZstdError:
                return
            if not block:
                return
            *whole, left = (left + block).split(b"\n")
            for raw in whole:
                yield json.loads(raw)


def prompt_numbers(path: Path) -> dict[str, int]:
    """The rows of a run's prompts, by what the model was asked."""
    return {
        data.prompt_text(line.prompt): int(line.id)
        for line in data.prompt_lines(path)
        if line.id is not None and str(line.id).isdecimal()
    }
