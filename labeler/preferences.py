"""What the rankings of a face-off say: how strong each checkpoint is among people, what can be told apart and
what cannot, whether to ask further, and where people fall away from what the reward model likes.

A strength is told as the chance that a rollout is ranked above one of the starting model's: the same thing
that a reward model's score from 0 to 1 claims to be, so both can stand on one axis. People and simulated
labelers are never counted together. The arithmetic is in strengths.py and docs/face-off.md."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import exp
from statistics import NormalDist
from typing import Any

from django.db import transaction

from labeler.models import Checkpoint, Faceoff, Ranking, Rollout, Run
from labeler.strengths import WITHIN, Stage, Strengths, fit, stages
from labeler.templatetags.words import count

# Looking often finds luck: while people rank, asking ends and anything is called sure only at 99.7 of 100,
# which leaves the last look its 95.
SURELY = 3.0
LEVEL, LEVEL_ON_THE_WAY = 0.95, 0.997
A_LOOK = 10  # of the wanted rankings, from one look to the next; and rankings before the first
NEAR = 5  # steps whose mean reward is the reward at the last of them
RISES = 0.02  # in reward: less is what a step's mean moves by itself


@dataclass
class Row:
    """A checkpoint of the face-off as people see it. `share` is its chance against the starting model, with
    an interval of 95 %; `against_best` its chance against the best one; `level`: not told apart from that."""

    checkpoint: Checkpoint
    is_start: bool
    share: float
    low: float
    high: float
    against_best: float
    level: bool
    is_best: bool = False
    reward: float | None = None

    @property
    def name(self) -> str:
        return "the starting model" if self.is_start else named(self.checkpoint)


@dataclass
class Preferences:
    """Of people, or of simulated labelers."""

    simulated: bool
    going: bool = False  # people still rank
    rankings: int = 0
    labelers: int = 0
    prompts: int = 0
    rows: list[Row] = field(default_factory=list)
    parted: bool = False  # the best one and all others, surely enough to stop early
    strengths: Strengths | None = None

    @property
    def whose(self) -> str:
        return "simulated labelers" if self.simulated else "people"

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if row.is_best), None)

    @property
    def level(self) -> list[Row]:
        """Those that the evidence cannot tell from the best."""
        return [row for row in self.rows if row.level and not row.is_best]

    @property
    def verdict(self) -> str:
        """What can be said, in a sentence or two."""
        best, whose = self.best, self.whose
        if best is None:
            return f"No ranking by {whose} yet, so nothing is known."
        if not self.level:
            if best.is_start:
                return f"{whose.capitalize()} like the starting model best, surely: there is nothing to ship."
            return f"{whose.capitalize()} like {best.name} best, surely."
        others = listed([row.name for row in self.level])
        said = f"{whose} rank {best.name} highest, but the evidence cannot tell it from {others}."
        said = f"So far {said}" if self.going else said[0].upper() + said[1:]
        if best.is_start or any(row.is_start for row in self.level):
            said += " That shipping anything would be better than what there is, is not shown."
        return said


def named(checkpoint: Checkpoint) -> str:
    if checkpoint.step is None or checkpoint.run_id is None:
        return str(checkpoint)
    return f"step {checkpoint.step} of run {checkpoint.run_id}"


def listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def of(faceoff: Faceoff) -> dict[str, Preferences]:
    """What people say now, and what simulated labelers do."""
    checkpoints = faceoff.checkpoints
    place = {each.pk: number for number, each in enumerate(checkpoints)}
    players: dict[int, dict[int, int]] = defaultdict(dict)
    wrote = Rollout.objects.filter(quintet__faceoff=faceoff)
    for quintet, slot, checkpoint in wrote.values_list("quintet", "slot", "checkpoint"):
        players[quintet][slot] = place[checkpoint]
    rankings = Ranking.objects.counted().filter(quintet__faceoff=faceoff)
    read = rankings.values_list("simulated", "quintet", "quintet__prompt", "labeler", "ranks")
    rewards = {each.pk: reward(each, faceoff) for each in checkpoints}
    found, going = {}, faceoff.state == "asking"
    for name, simulated in (("people", False), ("simulated", True)):
        mine = [row[1:] for row in read if row[0] == simulated]
        found[name] = _preferences(checkpoints, simulated, mine, players, going and not simulated)
        for row in found[name].rows:
            row.reward = rewards[row.checkpoint.pk]
    return found


def _preferences(
    checkpoints: list[Checkpoint],
    simulated: bool,
    rankings: Iterable[tuple[int, int, int, list[int]]],
    players: Mapping[int, Mapping[int, int]],
    going: bool = False,
) -> Preferences:
    found, labelers = Preferences(simulated, going), set()
    prompts: dict[int, Counter[Stage]] = defaultdict(Counter)
    for quintet, prompt, labeler, ranks in rankings:
        whose = [players[quintet][slot] for slot in range(len(ranks))]
        prompts[prompt].update(stages(ranks, whose, len(checkpoints)))
        labelers.add(labeler)
        found.rankings += 1
    found.labelers, found.prompts = len(labelers), len(prompts)
    if not found.rankings:
        return found
    counted: Counter[Stage] = Counter()
    for each in prompts.values():
        counted.update(each)
    strengths = found.strengths = fit(counted, len(checkpoints), prompts.values())
    best = max(range(len(checkpoints)), key=lambda number: strengths.at[number])
    others = [number for number in range(len(checkpoints)) if number != best]
    sure = {number: strengths.sure(best, number) for number in others}
    for number, checkpoint in enumerate(checkpoints):
        low, high = strengths.between(number, 0) if number else (0.0, 0.0)
        found.rows.append(
            Row(
                checkpoint,
                is_start=number == 0,
                share=chance(strengths.at[number] - strengths.at[0]),
                low=chance(low),
                high=chance(high),
                against_best=chance(strengths.at[number] - strengths.at[best]),
                level=number == best or sure[number] <= (SURELY if going else WITHIN),
                is_best=number == best,
            )
        )
    found.parted = all(each > SURELY for each in sure.values())
    return found


def chance(difference: float) -> float:
    """That one is ranked above the other, by the difference of their strengths."""
    return 1 / (1 + exp(-max(-700.0, min(700.0, difference))))


# The reward at the same steps


def reward(checkpoint: Checkpoint, faceoff: Faceoff) -> float | None:
    """What the reward model said when the checkpoint was saved: the mean of a few steps. Of the starting
    model, what it said at the first step of the run that the others are of."""
    run = checkpoint.run
    if checkpoint.pk == faceoff.start_id:
        runs = {each.run_id: each.run for each in faceoff.checkpoints if each != checkpoint}
        return at_step(next(iter(runs.values())), 0) if len(runs) == 1 else None
    return at_step(run, checkpoint.step or 0) if run else None


def at_step(run: Run | None, step: int) -> float | None:
    if run is None or run.kind != Run.Kind.POLICY:
        return None
    here = run.steps.filter(step__lte=max(step, 1), step__gt=step - NEAR)
    said = [each for each in here.values_list("metrics__reward", flat=True) if each is not None]
    return sum(said) / len(said) if said else None


# Alarms: people fall away from what the reward model likes


def alarms(faceoff: Faceoff, found: Mapping[str, Preferences]) -> dict[str, str]:
    """Of each policy run of which the face-off has checkpoints, by its number: where people's preference
    falls, interval and all, while the reward rises. Simulated labelers are asked where no person ranked."""
    said = found["people"] if found["people"].rankings else found["simulated"]
    if said.strengths is None:
        return {}
    runs: dict[int, list[int]] = defaultdict(list)
    for number, checkpoint in enumerate(faceoff.checkpoints):
        if number and checkpoint.run and checkpoint.run.kind == Run.Kind.POLICY:
            runs[checkpoint.run.pk].append(number)
    told = {}
    for pk, numbers in runs.items():
        run = faceoff.checkpoints[numbers[0]].run
        assert run
        line = [0, *numbers] if run.start_id == faceoff.start_id else numbers
        if words := _alarm(run, line, said):
            told[str(pk)] = words
    return told


def _alarm(run: Run, line: list[int], said: Preferences) -> str:
    """`line`: the numbers of its checkpoints in the order of their steps, the starting model before them."""
    strengths, rows = said.strengths, said.rows
    assert strengths
    if len(line) < 2:
        return ""
    rewards = {number: at_step(run, rows[number].checkpoint.step or 0 if number else 0) for number in line}
    pairs, falls = list(combinations(line, 2)), []
    # Of many pairs some one looks like a fall by luck: each has to be the surer of it.
    level = LEVEL_ON_THE_WAY if said.going else LEVEL
    surely = NormalDist().inv_cdf(1 - (1 - level) / 2 / len(pairs))
    for before, after in pairs:
        then, now = rewards[before], rewards[after]
        rises = then is not None and now is not None and now - then > RISES
        if rises and strengths.sure(before, after) > surely:
            falls.append((strengths.at[before] - strengths.at[after], before, after, then, now))
    if not falls:
        return ""
    worse, before, after, then, now = max(falls)
    one, other = rows[before], rows[after]
    ends = strengths.between(before, after, surely)
    low, mid, high = (_percent(chance(each)) for each in sorted([worse, *ends]))
    who = said.whose.capitalize()
    return (
        f"{who} prefer {one.name} to {other.name}: a rollout of the earlier one is ranked higher {mid} of "
        f"the time ({low} to {high}), though the reward went up from {then:.2f} to {now:.2f}. The run has "
        "found what fools its reward model."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# What the worker does about it


@transaction.atomic
def look(faceoff: Faceoff) -> None:
    """Keep what is there to be seen, for the pages; and ask no further where people's favourite is sure."""
    found = of(faceoff)
    faceoff.found = {name: _kept(each) for name, each in found.items() if each.rankings}
    faceoff.alarms = alarms(faceoff, found)
    people = found["people"]
    due = max(A_LOOK, round(faceoff.progress()["wanted"] / A_LOOK))
    looks = people.rankings - faceoff.looked >= due
    if looks:
        faceoff.looked = people.rankings
    faceoff.save(update_fields=["found", "alarms", "seen", "looked"])
    best = people.best
    if looks and people.parted and best and not faceoff.went_on and not faceoff.stopped_at:
        ranked = count(people.rankings, "ranking")
        faceoff.stop(None, f"After {ranked} people prefer {best.name} to every other one, at 99.7 %.")


def _kept(found: Preferences) -> dict[str, Any]:
    rows = [
        {"checkpoint": each.checkpoint.pk, "name": each.name, "share": each.share, "low": each.low}
        | {"high": each.high, "best": each.is_best}
        for each in found.rows
    ]
    return {"rankings": found.rankings, "verdict": found.verdict, "rows": rows}
