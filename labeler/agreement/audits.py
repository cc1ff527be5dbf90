"""What stands out in how somebody ranks, in words, and from which thresholds on.

Nobody is accused: a reason is a number with what is usual beside it, for a person to look into. Left out:
what is done about it. Pausing and excluding are decided by people, or by the project's hidden checks."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from labeler.models import Project
from labeler.templatetags.words import count, duration, figure

# Below these nothing is said: a few rankings may look like anything.
RANKINGS_ENOUGH = 20
CHECKS_ENOUGH = 3  # repeats or gold quintets
PAIRS_ENOUGH = 100

FAST = 1 / 3  # of the other labelers' usual time
BY_POSITION = 0.5  # of the differences between ranks, that the place on the page accounts for
UNCHANGED = 0.2  # of the rankings; by chance it is under 1 % with five rollouts
ALL_TIED = 0.5  # of the rankings

Told = Mapping[str, Any]


def reasons(mine: Told, usual: float | None, project: Project) -> list[str]:
    """Why to look at this labeler’s rankings; nothing where there is no reason to. `usual` is how many
    seconds the others take."""
    return [*_habits(mine, usual), *_checks(mine, project)]


def usual_times(labelers: Sequence[Told]) -> list[float | None]:
    """For each of these labelers how long the others usually take: the median of the others' medians, so that
    neither the one in question nor the busiest decides what is usual."""
    medians = [each["seconds"].get("median") for each in labelers]
    ordered = sorted(each for each in medians if each is not None)
    found: list[float | None] = []
    for own in medians:
        others = ordered.copy()
        if own is not None:
            del others[bisect_left(others, own)]
        found.append(median(others) if others else None)
    return found


def _habits(mine: Told, usual: float | None) -> Iterator[str]:
    """What their rankings show by themselves."""
    enough = mine["rankings"] >= RANKINGS_ENOUGH
    own = mine["seconds"]
    if usual and own["count"] >= RANKINGS_ENOUGH and own["median"] < FAST * usual:
        yield f"Half of their rankings took under {_time(own['median'])}; others usually take {_time(usual)}."
    if enough and (mine["by_position"] or 0) >= BY_POSITION:
        yield (
            f"The place on the page accounts for {_percent(mine['by_position'])} of the differences between "
            "their ranks; for somebody who reads it is near 0 %."
        )
    if mine["orders"] >= RANKINGS_ENOUGH and (mine["unchanged"] or 0) > UNCHANGED:
        yield (
            f"Left the order as it was shown in {_percent(mine['unchanged'])} of "
            f"{count(mine['orders'], 'ranking')}; chance gives {_percent(mine['unchanged_by_chance'])}."
        )
    if enough and mine["all_tied"] > ALL_TIED * mine["rankings"]:
        yield (
            f"Called all rollouts equal in {_percent(mine['all_tied'] / mine['rankings'])} of "
            f"{count(mine['rankings'], 'ranking')}."
        )


def _checks(mine: Told, project: Project) -> Iterator[str]:
    """What comparing them shows: with others, with themselves, with what is known."""
    decided, interval = mine["agreed"] + mine["opposed"], mine["agreement_interval"]
    if decided >= PAIRS_ENOUGH and interval and interval[0] <= 0.5:
        yield (
            f"Agrees with the others on {_percent(mine['agreement'])} of {count(decided, 'pair')}; "
            "a coin would on 50 %."
        )
    if mine["repeats"] >= CHECKS_ENOUGH and _below(mine["self_agreement"], project.repeat_pass):
        yield (
            f"Ranked {_percent(mine['self_agreement'])} of the pairs the same way when "
            f"{count(mine['repeats'], 'quintet')} came again; "
            f"the project asks for {_percent(project.repeat_pass)}."
        )
    if mine["golds"] >= CHECKS_ENOUGH and _below(mine["gold"], project.gold_pass):
        yield (
            f"Got {_percent(mine['gold'])} of the pairs of {count(mine['golds'], 'gold quintet')} right; "
            f"the project asks for {_percent(project.gold_pass)}."
        )


def _below(value: float | None, asked: float) -> bool:
    return value is not None and value < asked


def _percent(share: float | None) -> str:
    return figure(share, "percent")


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"
