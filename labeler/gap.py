"""The gap between writing and ranking, measured: how long a person takes to write one answer beside how long
to rank five, and how the answers that people write fare among rollouts when nobody can tell them apart.

The reason that ranking exists, as two numbers. Times are with the page in front; simulated labelers and those
who are excluded are nobody here. Left out: drawing it (gap_pictures.py)."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef

from labeler.models import Demonstration, Origin, Project, Quintet, Ranking, Rival, Rollout, Round, User
from labeler.models.quintets import MOST
from labeler.templatetags.words import count, duration, figure

FEWEST = 5  # on fewer there is no interval
NEWEST = 1000  # times that are looked at: more would take a page's time and tell no more
REDRAWN = 400
MIDDLE = (0.025, 0.975)
A_PERSON = "a person"  # what a line of a ranking says wrote such an answer
MIXED = 20  # quintets at a time
SHOWN = 120  # single times in the picture

Interval = tuple[float, float] | None


@dataclass
class Figure:
    """A number with what it was measured on. `n` counts what was redrawn for the interval."""

    value: float | None
    n: int
    interval: Interval = None
    people: int = 0
    each: list[float] = field(default_factory=list)

    @property
    def time(self) -> str:
        """Of a figure of times."""
        return spent(self.value)

    @property
    def between(self) -> str:
        return " – ".join(map(spent, self.interval)) if self.interval else "–"


def spent(seconds: float | None) -> str:
    """Short times to the tenth: two of them that round to the same second may differ all the same."""
    return f"{seconds:.1f} s" if seconds is not None and seconds < 10 else duration(seconds)


@dataclass
class Gap:
    writing: Figure
    ranking: Figure
    won: Figure
    agreed: Figure
    quintets: int  # that hold a written answer
    rankings: int  # of these, by people
    tied: int  # pairs

    @property
    def times(self) -> float | None:
        """How many times as long writing one takes."""
        if not self.writing.value or not self.ranking.value:
            return None
        return self.writing.value / self.ranking.value

    @property
    def is_sure(self) -> bool:
        """Whether the intervals of both times lie apart."""
        one, other = self.writing.interval, self.ranking.interval
        return bool(one and other and (one[0] > other[1] or other[0] > one[1]))

    @property
    def said(self) -> list[str]:
        """What can be said, and where there is too little to say it."""
        return [self._time(), self._quality(), self._agreement()]

    def _time(self) -> str:
        lacking = [
            f"{count(figure.n, 'answer' if figure is self.writing else 'ranking')} with a time"
            for figure in (self.writing, self.ranking)
            if figure.n < FEWEST
        ]
        if lacking or self.times is None:
            return f"Too little to speak of time: {' and '.join(lacking)}; {FEWEST} of each are the least."
        told = f"Writing one answer takes {self.writing.time}, ranking five {self.ranking.time}"
        if self.times >= 1:
            told += f": {self.times:.1f} times as long."
        else:
            told += f": ranking takes {1 / self.times:.1f} times as long."
        return told if self.is_sure else f"{told} The intervals overlap, so which is longer is not shown."

    def _quality(self) -> str:
        if not self.quintets:
            return "Nobody has ranked a written answer among rollouts yet."
        if self.won.value is None or self.won.n < FEWEST:
            ranked = f"{count(self.won.n, 'such quintet')} ranked by people, of {FEWEST} at the least"
            return f"Too little to say how written answers fare: {ranked}."
        share = figure(self.won.value, "percent")
        told = f"Ranked blind, a written answer is put above a rollout {share} of the time."
        low, high = self.won.interval or (0.0, 1.0)
        if low > 0.5:
            return (
                f"{told} People write better than the model does, so demonstrations have something to teach."
            )
        if high < 0.5:
            return (
                f"{told} The model writes better than people do: judging is what people can still teach it."
            )
        return f"{told} That is no different from even, as far as these rankings can tell."

    def _agreement(self) -> str:
        if self.agreed.value is None or self.agreed.n < FEWEST:
            twice = f"{count(self.agreed.n, 'such quintet')}, of {FEWEST} at the least"
            return f"How far labelers agree on them is not known: two people ranked {twice}."
        return f"Two labelers decide {figure(self.agreed.value, 'percent')} of these pairs alike."


def of(project: Project) -> Gap:
    rivals: dict[int, set[int]] = defaultdict(set)
    for quintet, slot in Rival.objects.filter(quintet__project=project).values_list("quintet", "slot"):
        rivals[quintet].add(slot)
    ranked = Ranking.objects.counted().by_people().filter(quintet__in=list(rivals))
    by_quintet: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for quintet, labeler, ranks in ranked.values_list("quintet", "labeler", "ranks"):
        by_quintet[quintet].append((labeler, ranks))
    wins = {pk: _wins(rows, rivals[pk]) for pk, rows in by_quintet.items()}
    alike = {pk: found for pk, rows in by_quintet.items() if (found := _alike(rows, rivals[pk]))[1]}
    return Gap(
        writing=_writing(project),
        ranking=_ranking(project),
        won=shares([(won, won + lost) for won, lost, _ in wins.values() if won + lost]),
        agreed=shares(list(alike.values())),
        quintets=len(rivals),
        rankings=sum(len(rows) for rows in by_quintet.values()),
        tied=sum(tied for _, _, tied in wins.values()),
    )


def _writing(project: Project) -> Figure:
    """Of answers that began as nothing; one that began as a rollout was not written but mended."""
    found = project.demonstrations.all().counted(Origin.WRITTEN).filter(focus_seconds__gt=0)
    return medians(list(found.order_by("-pk").values_list("author", "focus_seconds")[:NEWEST]))


def _ranking(project: Project) -> Figure:
    """Of quintets of five, work alone: a hidden check is no other work, but its time may be another."""
    found = Ranking.objects.counted().by_people().filter(quintet__project=project)
    whole = found.filter(focus_seconds__gt=0, ranks__len=MOST).order_by("-pk")
    return medians(list(whole.values_list("labeler", "focus_seconds")[:NEWEST]))


def _wins(rows: Sequence[tuple[int, list[int]]], mine: set[int]) -> tuple[int, int, int]:
    """How many pairs of a written answer and a rollout the first won, lost and tied."""
    won = lost = tied = 0
    for _, ranks in rows:
        for slot in mine:
            others = [rank for other, rank in enumerate(ranks) if other not in mine]
            won += sum(ranks[slot] < rank for rank in others)
            lost += sum(ranks[slot] > rank for rank in others)
            tied += sum(ranks[slot] == rank for rank in others)
    return won, lost, tied


def _alike(rows: Sequence[tuple[int, list[int]]], mine: set[int]) -> tuple[int, int]:
    """Of such pairs that two people both decide, how many they decide alike, and how many there are."""
    alike = both = 0
    for (_, one), (_, other) in combinations(rows, 2):
        for slot in mine:
            for against in set(range(len(one))) - mine:
                first, second = one[slot] - one[against], other[slot] - other[against]
                if first and second:
                    both += 1
                    alike += (first > 0) == (second > 0)
    return alike, both


def medians(times: Sequence[tuple[Any, float | None]]) -> Figure:
    """The median of these times, each with whose it is, and its interval from redrawing them."""
    values = [seconds for _, seconds in times if seconds is not None]
    if not values:
        return Figure(None, 0)
    people = len({whose for whose, _ in times})
    return Figure(median(values), len(values), _redrawn(values, median), people, values[:SHOWN])


def shares(parts: Sequence[tuple[int, int]]) -> Figure:
    """The share that these parts of wholes come to, each a quintet's; quintets are redrawn, not pairs."""
    if not any(whole for _, whole in parts):
        return Figure(None, 0)

    def share(some: Sequence[tuple[int, int]]) -> float:
        return sum(part for part, _ in some) / sum(whole for _, whole in some)

    return Figure(share(parts), len(parts), _redrawn(parts, share))


def _redrawn(values: Sequence[Any], measure: Callable[[Sequence[Any]], float]) -> Interval:
    """Between which values of the measure 95 of 100 redrawings lie. Without numpy, which no page loads."""
    if len(values) < FEWEST:
        return None
    chances = random.Random(0)
    drawn = sorted(measure(chances.choices(values, k=len(values))) for _ in range(REDRAWN))
    low, high = (drawn[min(int(share * REDRAWN), REDRAWN - 1)] for share in MIDDLE)
    return low, high


# Written answers among rollouts


def mixable(project: Project):
    """Answers that people wrote, to prompts that have rollouts, which stand in no quintet yet."""
    rollouts = Rollout.objects.filter(quintet__prompt=OuterRef("prompt"), author=None)
    written = project.demonstrations.all().counted(Origin.WRITTEN).filter(rivals=None)
    return written.filter(Exists(rollouts)).select_related("prompt", "author")


@transaction.atomic
def mix(project: Project, by: User, most: int = MIXED) -> tuple[int, int]:
    """Put written answers into quintets of their own among rollouts of the same prompt, into the ordinary
    queue: how many quintets, and how many answers had no rollout that says something else. Whoever wrote one
    is not shown it."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    round, made, lacking = Round.objects.current(project), 0, 0
    for each in mixable(project).order_by("pk").iterator(chunk_size=100):
        if made >= most:
            break
        texts = _beside(each)
        if not texts:
            lacking += 1
            continue
        chances = random.Random(f"the slot of demonstration {each.pk}")
        slot = chances.randrange(len(texts) + 1)
        texts.insert(slot, each.completion)
        quintet = Quintet.objects.compose(project, round, each.prompt, texts)
        wrote = Rollout.objects.filter(quintet=quintet, slot=slot)
        wrote.update(author=each.author, model=A_PERSON)
        Rival.objects.create(quintet=quintet, slot=slot, demonstration=each)
        made += 1
    words = f"{count(made, 'quintet')} of a written answer among rollouts."
    project.audit.write(by, project, "mix", words, quintets=made)
    return made, lacking


def _beside(answer: Demonstration) -> list[str]:
    """Up to four rollouts of the prompt, the newest first, that say something else; finished ones rather."""
    found = Rollout.objects.filter(quintet__prompt=answer.prompt, author=None)
    said = (rollout.text.strip() for rollout in found.order_by("-finished", "-pk")[:50])  # as answers are
    others = dict.fromkeys(each for each in said if each and each != answer.completion.strip())
    return list(others)[: MOST - 1]
