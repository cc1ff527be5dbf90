"""Where a reward model and those who ranked disagree: the held-out rankings that its run followed, at any
measured step, the worst disagreement first.

A run follows at most 256 of them, so all are looked at; what they were made of (texts, and the rows they
came from) is looked up for the few that a page shows. Texts stand at the first measured step alone. Left out:
what becomes of one (labeler/review.py)."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from django.db.models import Q
from django.db.models.functions import MD5

from labeler.agreement.measures import tau_b
from labeler.models import Flag, Place, Purpose, Quintet, Ranking, Rollout, Run
from rlhf import data

LONG = 280  # characters, or
LINES = 7  # lines, of a text that scrolls in its card
ALIKE = 1000  # quintets looked at for those of a page, where very many begin with the same text
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th")
SAID = ("index", "line__ranks", "line__scores", "line__labeler", "line__simulated", "line__quintet")


@dataclass
class Scored:
    """One rollout of a held-out ranking: its rank, and its score now and at the measurement before."""

    rank: int
    score: float
    before: float | None
    place: int  # that the scores give it
    contested: bool  # that is none of the places that the ranks leave it
    text: str = ""

    @property
    def moved(self) -> int:
        """1 up, −1 down, 0 where what is shown of the score is the same."""
        if self.before is None:
            return 0
        now, then = round(self.score, 2), round(self.before, 2)
        return (now > then) - (now < then)

    @property
    def ordinal(self) -> str:
        return ORDINALS[self.place - 1]

    @property
    def is_long(self) -> bool:
        return is_long(self.text)


@dataclass
class Held:
    """A held-out ranking at a measured step."""

    index: int
    ranks: list[int]
    scores: list[float]
    before: list[float] | None
    labeler: str
    simulated: bool
    name: str  # of its quintet, as datasets have it
    prompt: str = ""
    texts: list[str] = field(default_factory=list)
    quintet: Quintet | None = None
    ranking: Ranking | None = None
    flag: Flag | None = None
    asked: bool = False

    @property
    def apart(self) -> float:
        """0 is the same order, 1 none in common, 2 the reverse."""
        return apart(self.ranks, self.scores)

    @property
    def pairs(self) -> int:
        """How many the ranking decides."""
        return len(list(self._decided()))

    @property
    def turned(self) -> int:
        """How many of these the scores have the other way round."""
        return sum(self.scores[better] < self.scores[worse] for better, worse in self._decided())

    def _decided(self) -> Iterator[tuple[int, int]]:
        pairs = permutations(range(len(self.ranks)), 2)
        return ((better, worse) for better, worse in pairs if self.ranks[better] < self.ranks[worse])

    @property
    def rollouts(self) -> list[Scored]:
        """In the order of whoever ranked."""
        texts = self.texts or [""] * len(self.ranks)
        before: Sequence[float | None] = self.before or [None] * len(self.ranks)
        given, rows = places(self.scores), []
        for rank, score, was, place, text in zip(self.ranks, self.scores, before, given, texts, strict=True):
            first = 1 + sum(other < rank for other in self.ranks)
            contested = not first <= place < first + self.ranks.count(rank)
            rows.append(Scored(rank, score, was, place, contested, text))
        return sorted(rows, key=lambda row: (row.rank, -row.score))

    @property
    def is_long(self) -> bool:
        return is_long(self.prompt)

    @property
    def changed(self) -> bool:
        """Its labeler has ranked it otherwise since."""
        return self.ranking is not None and self.ranking.ranks != self.ranks

    @property
    def in_use(self) -> bool:
        """Whether another labeler could be asked for it."""
        quintet = self.quintet
        if quintet is None or quintet.purpose != Purpose.WORK:
            return False
        return not (quintet.set_aside_at or quintet.round.closed_at)


def places(scores: Sequence[float]) -> list[int]:
    """Which place each has by its score; equal ones share the first of theirs."""
    return [1 + sum(other > score for other in scores) for score in scores]


def apart(ranks: Sequence[int], scores: Sequence[float]) -> float:
    """1 − τ-b; scores that are all the same have nothing in common with any order."""
    return 1 - (tau_b(ranks, places(scores)) or 0.0)


def is_long(text: str) -> bool:
    return len(text) > LONG or text.count("\n") > LINES


def measured(run: Run) -> list[int]:
    """The steps at which the run has looked at what was held out. The first ranking is always among it."""
    return list(run.samples.filter(index=0).order_by("step").values_list("step", flat=True))


def at(run: Run, step: int, before: int | None = None) -> list[Held]:
    """Everything that the run followed, as it stood at this step; `before` is the measured one before it."""
    then = {}
    if before is not None:
        then = dict(run.samples.filter(step=before).values_list("index", "line__scores"))
    return [
        Held(index, ranks, scores, then.get(index), labeler or "", bool(simulated), name or "")
        for index, ranks, scores, labeler, simulated, name in run.samples.filter(step=step)
        .order_by("index")
        .values_list(*SAID)
    ]


def worst_first(rows: Iterable[Held], by: Iterable[Held] | None = None) -> list[Held]:
    """In the order of how far they are apart, or were when `by` was measured: then they stay where they are
    while the step changes."""
    apart = {row.index: row.apart for row in (rows if by is None else by)}
    return sorted(rows, key=lambda row: (-apart.get(row.index, 0.0), row.index))


def read(run: Run, first: int, rows: Iterable[Held]) -> None:
    """The texts of these, which stand at the `first` measured step."""
    numbered = {row.index: row for row in rows}
    texts = run.samples.filter(step=first, index__in=numbered)
    for index, prompt, rollouts in texts.values_list("index", "line__prompt", "line__rollouts"):
        numbered[index].prompt, numbered[index].texts = data.prompt_text(prompt or ""), rollouts or []


def look_up(run: Run, rows: Sequence[Held]) -> None:
    """The quintets and rankings of these, whose texts are known, as far as those are still there, with what
    was asked for about them."""
    quintets = _quintets(run, rows)
    for row in rows:
        row.quintet = quintets.get((row.name, row.prompt, *row.texts))
    numbers = [row.quintet.pk for row in rows if row.quintet]
    rankings: dict[tuple[int, str], list[Ranking]] = {}
    known = Ranking.objects.filter(
        quintet__in=numbers, current=True, labeler__username__in=[row.labeler for row in rows]
    )
    for ranking in known.select_related("labeler"):
        rankings.setdefault((ranking.quintet_id, ranking.labeler.username), []).append(ranking)
    flags = {}
    for flag in Flag.objects.open().filter(ranking__quintet__in=numbers).told():
        flags[flag.ranking_id] = flag
    asked = set(Place.objects.asked_for().filter(quintet__in=numbers).values_list("quintet", flat=True))
    for row in rows:
        if row.quintet:
            theirs = rankings.get((row.quintet.pk, row.labeler), [])
            # Of several (a check repeats some work), rather the one that says the same.
            row.ranking = min(theirs, key=lambda each: (each.ranks != row.ranks, each.pk), default=None)
            row.flag = flags.get(row.ranking.pk) if row.ranking else None
            row.asked = row.quintet.pk in asked


def _quintets(run: Run, rows: Sequence[Held]) -> dict[tuple[str, ...], Quintet]:
    """The project's quintets that these may be, by name, prompt and texts; and by the latter alone where the
    run is from a time in which names were not kept."""
    digests = [
        hashlib.md5(row.texts[0].encode(), usedforsecurity=False).hexdigest() for row in rows if row.texts
    ]
    first = Rollout.objects.filter(slot=0, quintet__project=run.project_id).annotate(digest=MD5("text"))
    first = first.filter(digest__in=digests)
    names = {row.name for row in rows}
    if "" not in names:
        numbers = [int(name) for name in names if name.isdecimal() and len(name) < 18]
        first = first.filter(Q(quintet__external_id__in=names) | Q(quintet__in=numbers))
    chosen = list(first.order_by("-quintet_id").values_list("quintet_id", flat=True)[:ALIKE])
    quintets = Quintet.objects.filter(pk__in=chosen).select_related("prompt", "round")
    found: dict[tuple[str, ...], Quintet] = {}
    for quintet in quintets.prefetch_related("rollouts").order_by("pk"):
        said = (data.prompt_text(quintet.prompt.content), *(each.text for each in quintet.rollouts.all()))
        found[(quintet.external_id or str(quintet.pk), *said)] = quintet
        if "" in names:
            found[("", *said)] = quintet
    return found


def summary(rows: Sequence[Held]) -> dict[str, Any]:
    """What the whole table comes to at its step, and at the measurement before."""
    if not rows:
        return {}
    before = [apart(row.ranks, row.before) for row in rows if row.before is not None]
    return {
        "alike": sum(row.apart < 1e-9 for row in rows),
        "mean": sum(row.apart for row in rows) / len(rows),
        "mean_before": sum(before) / len(before) if len(before) == len(rows) else None,
    }
