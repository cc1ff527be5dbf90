"""Rollouts that become demonstrations (rejection sampling): those that won their quintet, and those of a run
that a checker passed. Counted first, each once, marked by where they are from, and taken out again as easily.

Done on the worker: a run's rollouts are too many for a page, and their texts for its memory. What is chosen
waits in a file; of all else that is known, a digest is. Left out: what wins a quintet (in
datasets/formats.py) and what is correct (rlhf/checkers)."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import IO, Any

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
A_BATCH = 200  # texts in memory
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


@dataclass
class Joining:
    """What becomes demonstrations, or would: how many, and the first of them."""

    new: int = 0
    prompts: set[int] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def note(self, prompt: int, text: str) -> None:
        self.new += 1
        self.prompts.add(prompt)
        if len(self.examples) < EXAMPLES:
            self.examples.append(text[:400])

    @property
    def told(self) -> dict[str, Any]:
        return {"new": self.new, "prompts": len(self.prompts), "examples": self.examples}


def answer(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """What is asked for on the page: counted, or taken in. Looking may take minutes, for which nobody who
    writes an answer waits. Raises NotThere, Lost."""
    run = Run.objects.filter(pk=asked.get("run") or 0).first()
    found = passed(run) if run else won(request.project, bool(asked.get("simulated")))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as chosen:
        joining, told = _choose(found, asked.get("most") or MOST, request, chosen)
        if asked.get("take"):
            chosen.seek(0)
            joining = _take_in(request, run, chosen)
    return {**told, **joining.told}


def _choose(
    found: Iterator[Candidate], most: int, request: Request, chosen: IO[str]
) -> tuple[Joining, Counter[str]]:
    """Of each prompt the first ones, each text once, without those that are demonstrations already, be they
    withdrawn, as lines of a file; and how many there were of what."""
    numbers = dict(request.project.prompts.values_list("digest", "pk"))
    own = set(numbers.values())
    told, taken, joining = Counter(good=0, known=0, homeless=0, beyond=0), Counter[int](), Joining()
    there = Demonstration.objects.filter(project=request.project).values_list("prompt", "completion")
    known = {_mark(*each) for each in there.iterator(chunk_size=A_BATCH)}
    for each in found:
        told["good"] += 1
        if told["good"] % 10_000 == 0:
            request.tell(f"looked at {told['good']:,} good rollouts")
        by_text = next((numbers[mark] for mark in each.digests if mark in numbers), None)
        prompt = each.number if each.number in own else by_text
        text = each.text.strip()
        if prompt is None:
            told["homeless"] += 1
        elif not text or _mark(prompt, text) in known:
            told["known"] += 1
        elif taken[prompt] >= most:
            told["beyond"] += 1
        else:
            known.add(_mark(prompt, text))
            taken[prompt] += 1
            joining.note(prompt, text)
            chosen.write(json.dumps([prompt, text, each.came_from | {"gathering": request.pk}]) + "\n")
    return joining, told


def _mark(prompt: int, text: str) -> bytes:
    """Stands for a prompt's text, however long that is."""
    return blake2b(f"{prompt} {text.strip()}".encode(), digest_size=16).digest()


@transaction.atomic
def _take_in(request: Request, run: Run | None, chosen: IO[str]) -> Joining:
    """What was chosen, without what has become a demonstration since it was looked for."""
    project, joining = request.project, Joining()
    Sheet.objects.take_turn(project)
    if not request.mine().select_for_update(no_key=True).exists():
        raise Lost
    about = {"project": project, "origin": Origin.PASSED if run else Origin.WON, "run": run}
    while some := [json.loads(line) for line in islice(chosen, A_BATCH)]:
        there = Demonstration.objects.filter(prompt__in={prompt for prompt, _, _ in some})
        came = {_mark(*each) for each in there.values_list("prompt", "completion").iterator(A_BATCH)}
        new = [each for each in some if _mark(*each[:2]) not in came]
        Demonstration.objects.bulk_create(
            Demonstration(prompt_id=prompt, completion=text, came_from=came_from, **about)
            for prompt, text, came_from in new
        )
        for prompt, text, _ in new:
            joining.note(prompt, text)
    which = "that a checker passed" if run else "that won their quintets"
    words = f"{joining.new:,} rollouts {which} are demonstrations now."
    project.audit.write(request.created_by, project, "gather", words, request=request.pk)
    return joining


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
