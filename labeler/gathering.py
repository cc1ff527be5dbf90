"""Rollouts that become demonstrations (rejection sampling): those that won their quintet, and those of a run
that a checker passed. Counted first, each once, marked by where they are from, and taken out again as easily.

Done on the worker: a run's rollouts are too many for a page. Left out: what wins a quintet (in
datasets/formats.py) and what is correct (rlhf/checkers)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard
from django.db import transaction

from labeler.datasets.formats import winners
from labeler.datasets.lines import ranking_lines
from labeler.datasets.query import Query
from labeler.follower import read_new
from labeler.models import Demonstration, Origin, Project, Quintet, Request, Run, Sheet, User
from labeler.models.prompts import digest
from labeler.models.runs import storable

MOST = 4  # of a prompt, as long as nobody asks for others
A_BATCH = 1000
EXAMPLES = 3
RUNS = 20  # that are offered, the newest


class NotThere(Exception):
    """Why there is nothing to take, in words."""


class Lost(Exception):
    """Another worker is at this by now."""


@dataclass(frozen=True)
class Candidate:
    """A rollout that may be imitated. `digests`: of its prompt as it may stand in the project; `number`: of
    that prompt, where the run was told it."""

    digests: tuple[str, ...]
    number: int | None
    text: str
    came_from: dict[str, Any]


def won(project: Project, simulated: bool) -> Iterator[Candidate]:
    """The best of each quintet, by people; by simulated labelers as well only where that is asked for."""
    own = {str(pk) for pk in Quintet.objects.filter(project=project).values_list("pk", flat=True)}
    for line, slot, text in winners(ranking_lines(Query(simulated=simulated).rows(project))):
        about: dict[str, Any] = {"slot": slot}
        if line["quintet"] in own:
            about["quintet"] = int(line["quintet"])
        if line["simulated"]:
            about["simulated"] = True
        yield Candidate((digest(line["prompt"]),), None, text, about)


def passed(run: Run) -> Iterator[Candidate]:
    """What the run's checker found correct, as far as it was finished, in the order in which it was written.
    Raises NotThere."""
    path, cursor = run.directory / "rollouts.jsonl.zst", None
    if not path.is_file():
        raise NotThere(f"What run {run.pk} wrote is not on this machine.")
    while True:
        try:
            lines, further = read_new(path, cursor)
        except (OSError, zstandard.ZstdError) as error:
            raise NotThere(f"What run {run.pk} wrote cannot be read: {error}.") from None
        for line in lines:
            if line.get("correct") is True and line.get("finished", True):
                name = str(line.get("id") or "")
                asked = line["prompt"]
                turn = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
                about = {"step": line.get("step"), "rollout": f"{line.get('group')}-{line.get('index')}"}
                number = int(name) if name.isdecimal() and len(name) < 19 else None
                yield Candidate((digest(asked), digest(turn)), number, storable(line["rollout"]), about)
        if further == cursor:
            return
        cursor = further


def answer(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """What is asked for on the page: counted, or taken in. Looking may take minutes, for which nobody who
    writes an answer waits. Raises NotThere, Lost."""
    project, run = request.project, Run.objects.filter(pk=asked.get("run") or 0).first()
    found = passed(run) if run else won(project, bool(asked.get("simulated")))
    rows, told = _chosen(project, found, asked.get("most") or MOST, request)
    if asked.get("take"):
        with transaction.atomic():
            Sheet.objects.take_turn(project)
            if not request.mine().select_for_update(no_key=True).exists():
                raise Lost
            rows = _without_those_that_came(rows)
            origin = Origin.PASSED if run else Origin.WON
            about = {"project": project, "origin": origin, "run": run}
            for begin in range(0, len(rows), A_BATCH):
                some = rows[begin : begin + A_BATCH]
                Demonstration.objects.bulk_create(
                    Demonstration(prompt_id=pk, completion=text, came_from=came_from, **about)
                    for pk, text, came_from in some
                )
            which = "that a checker passed" if run else "that won their quintets"
            words = f"{len(rows):,} rollouts {which} are demonstrations now."
            project.audit.write(request.created_by, project, "gather", words, request=request.pk)
    examples = [text[:400] for _, text, _ in rows[:EXAMPLES]]
    return told | {"new": len(rows), "prompts": len({pk for pk, _, _ in rows}), "examples": examples}


def _without_those_that_came(rows: list[tuple[int, str, dict]]) -> list[tuple[int, str, dict]]:
    """Those that have not become demonstrations since they were looked for."""
    there = Demonstration.objects.filter(prompt__in={pk for pk, _, _ in rows})
    known = {(pk, text.strip()) for pk, text in there.values_list("prompt", "completion")}
    return [each for each in rows if each[:2] not in known]


def _chosen(
    project: Project, found: Iterator[Candidate], most: int, request: Request
) -> tuple[list[tuple[int, str, dict]], dict[str, int]]:
    """Of each prompt the first ones, each text once, without those that are demonstrations already, be they
    withdrawn; and how many there were of what."""
    numbers = dict(project.prompts.values_list("digest", "pk"))
    own = set(numbers.values())
    told = {"good": 0, "known": 0, "homeless": 0, "beyond": 0}
    known: dict[int, set[str]] = defaultdict(set)
    there = Demonstration.objects.filter(project=project).values_list("prompt", "completion")
    for pk, completion in there.iterator(chunk_size=A_BATCH):
        known[pk].add(completion.strip())
    rows: list[tuple[int, str, dict]] = []
    taken: dict[int, int] = defaultdict(int)
    for each in found:
        told["good"] += 1
        if told["good"] % 10_000 == 0:
            request.tell(f"looked at {told['good']:,} good rollouts")
        by_text = next((numbers[mark] for mark in each.digests if mark in numbers), None)
        named = each.number if each.number in own else None
        prompt = named or by_text
        text = each.text.strip()
        if prompt is None:
            told["homeless"] += 1
        elif not text or text in known[prompt]:
            told["known"] += 1
        elif taken[prompt] >= most:
            told["beyond"] += 1
        else:
            known[prompt].add(text)
            taken[prompt] += 1
            rows.append((prompt, text, each.came_from | {"gathering": request.pk}))
    return rows, told


@transaction.atomic
def take_out(project: Project, request: Request, by: User) -> tuple[int, int]:
    """What one gathering brought, out again; how many are gone, and how many stay because people have edited
    them or rank them."""
    mine = project.demonstrations.filter(came_from__gathering=request.pk)
    free = mine.filter(version=1, rivals=None)
    stay = mine.count() - free.count()
    gone, _ = Demonstration.objects.filter(pk__in=list(free.values_list("pk", flat=True))).delete()
    words = f"{gone:,} rollouts that had been made demonstrations are taken out again."
    project.audit.write(by, project, "gather undone", words, request=request.pk)
    return gone, stay


def runs_of(project: Project) -> list[Run]:
    """The newest runs whose rollouts a checker has looked at."""
    wrote = project.runs.filter(kind__in=[Run.Kind.POLICY, Run.Kind.ROLLOUTS]).exclude(step=0)
    checked = wrote.filter(config__checker__isnull=False).exclude(config__checker="")
    return list(checked.order_by("-pk")[:RUNS])
