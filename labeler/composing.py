"""The quintets of a face-off, composed of what its checkpoints wrote, each in a run of its own; and the look
that the worker takes at the rankings that come.

Done on the worker, in one transaction, once all of those runs have finished: until then a run's lines stay in
its directory. Left out: what the rankings say (preferences.py)."""

import random
from collections import defaultdict
from typing import Any

import zstandard
from django.db import transaction
from django.utils import timezone

from labeler import preferences
from labeler.follower import read_new
from labeler.models import Faceoff, Prompt, Quintet, Round, Run
from labeler.strengths import seats

Line = dict[str, Any]
Asked = tuple[str, int]  # a prompt, and the how manieth time it is asked


def attend() -> None:
    """Compose what can be composed, and look where rankings have come. Nothing is done twice."""
    for faceoff in Faceoff.objects.sampled():
        try:
            compose(faceoff)
        except (OSError, zstandard.ZstdError) as error:
            faceoff.stop(None, f"What its checkpoints wrote cannot be read: {error}.")
    for faceoff in Faceoff.objects.unseen():
        preferences.look(faceoff)


@transaction.atomic
def compose(faceoff: Faceoff) -> None:
    """Quintets of all that was written, each with a rollout of every checkpoint; those to which all wrote the
    same text are left out, for there is nothing to rank."""
    faceoff = (
        Faceoff.objects.select_for_update(no_key=True, of=["self"])
        .select_related("project")
        .get(pk=faceoff.pk)
    )
    if faceoff.composed_at or faceoff.stopped_at:
        return
    contenders = list(faceoff.contenders.select_related("checkpoint", "run"))
    written = [groups(each.run) for each in contenders if each.run]
    shared = [asked for asked in written[0] if all(asked in one for one in written)]
    if not shared:
        return faceoff.stop(
            None, "Nothing is there that all of its checkpoints wrote: the files may be gone."
        )
    prompts = Prompt.objects.in_bulk({int(pk) for pk, _ in shared})
    round, chances = (
        Round.objects.current(faceoff.project),
        random.Random(f"slots of face-off {faceoff.number}"),
    )
    for number, (pk, time) in enumerate(shared):
        prompt = prompts.get(int(pk))
        if prompt is None:  # deleted meanwhile
            continue
        players = seats(number, len(contenders))
        chances.shuffle(players)  # a slot tells nothing about who wrote it
        lines = chosen(players, [one[pk, time] for one in written])
        if len({line["rollout"].strip() for line in lines}) < 2:
            faceoff.left_out += 1
            continue
        Quintet.objects.compose(
            faceoff.project,
            round,
            prompt,
            [line["rollout"] for line in lines],
            checkpoints=[contenders[player].checkpoint for player in players],
            finished=[line["finished"] for line in lines],
            faceoff=faceoff,
        )
    faceoff.composed_at = timezone.now()
    faceoff.save(update_fields=["composed_at", "left_out"])


def groups(run: Run) -> dict[Asked, list[Line]]:
    """What a run wrote to each prompt it was asked, in the order in which it drew them."""
    found: dict[int, list[Line]] = defaultdict(list)
    cursor: list[int] | None = None
    while True:
        lines, further = read_new(run.directory / "rollouts.jsonl.zst", cursor)
        for line in lines:
            found[line["group"]].append(line)
        if further == cursor:
            break
        cursor = further
    times: dict[str, int] = defaultdict(int)
    named: dict[Asked, list[Line]] = {}
    for _, group in sorted(found.items()):
        pk = str(group[0]["id"])
        named[pk, times[pk]] = group
        times[pk] += 1
    return named


def chosen(players: list[int], written: list[list[Line]]) -> list[Line]:
    """A rollout for each seat: the first that its checkpoint drew, or where that text is there already the
    next one; a text comes twice only where a checkpoint has no other."""
    left = [list(lines) for lines in written]
    taken: set[str] = set()
    found = []
    for player in players:
        new = (each for each in left[player] if each["rollout"].strip() not in taken)
        line = next(new, left[player][0])
        left[player].remove(line)
        taken.add(line["rollout"].strip())
        found.append(line)
    return found
