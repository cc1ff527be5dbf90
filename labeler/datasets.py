"""Rows and lines: files of lines become prompts and rankings, rankings become frozen datasets and exports.

How a line looks and what makes it a bad one is decided in rlhf/data.py. A bad line stops an import before
anything of its file is kept. Left out: rankings in formats other than lines, and choosing them by date, round
or labeler."""

import csv
import hashlib
import os
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import CharField, Func

from labeler.models import Dataset, Project, Prompt, Quintet, Ranking, Rollout, Round, User
from labeler.models.prompts import digest
from rlhf import data
from rlhf.data import BadLine, PromptLine

LONGEST_NAME = 150  # of a labeler
LONGEST_ID = 200  # of a prompt or a quintet
LONGEST_TIME = 1e9  # seconds at one quintet
A_BATCH = 1000  # rows at a time
A_CHUNK = 100  # lines at a time

Line = TypeVar("Line")


class NothingToFreeze(ValueError):
    """A dataset without a line would teach nothing; the message says what is missing."""


@dataclass(frozen=True)
class Imported:
    """How many lines were new, and how many were there already and left out."""

    added: int
    known: int


# Prompts


def read_prompts(file: BinaryIO, name: str) -> Iterator[tuple[int, PromptLine]]:
    """The prompts of a CSV, plain text or JSONL file with their line numbers. Raises BadLine."""
    kind = Path(name.lower()).suffix
    if kind in (".csv", ".tsv"):
        return _checked(_csv_rows(file), _prompt)
    if kind == ".txt":
        rows = ((number, {"prompt": text.strip()}) for number, text in _texts(file) if text.strip())
        return _checked(rows, _prompt)
    return _checked(data.read_lines(file), _prompt)


def pasted_prompts(text: str) -> Iterator[tuple[int, PromptLine]]:
    """One prompt a line; lines of JSON are what they are in a JSONL file. Raises BadLine."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and lines[0][1].startswith('{"'):
        return _checked(lines, lambda line: _prompt(data.parse(line.encode("utf-8", "replace")) or {}))
    return _checked(lines, lambda line: _prompt({"prompt": line}))


@transaction.atomic
def import_prompts(project: Project, lines: Iterable[tuple[int, PromptLine]]) -> Imported:
    """Keep every prompt of `lines`, or none of them when one is bad. Duplicates are counted and left out."""
    read = [line for _, line in lines]
    added = Prompt.objects.add(project, read)
    return Imported(added, len(read) - added)


def _prompt(row: dict[str, Any]) -> PromptLine:
    line = data.prompt_line(row)
    if len(str(line.id or "")) > LONGEST_ID:
        raise ValueError(f"“id” is longer than {LONGEST_ID} characters.")
    return line


def _checked(rows: Iterable[tuple[int, Any]], read: Callable[[Any], Line]) -> Iterator[tuple[int, Line]]:
    """Each row as `read` understands it; what it refuses is a BadLine of that row's number."""
    for number, row in rows:
        try:
            line = read(row)
        except ValueError as error:
            raise BadLine(number, str(error)) from None
        yield number, line


def _texts(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of a file as text, with their numbers. Raises BadLine."""
    raw_lines = iter(lambda: file.readline(data.LONGEST_LINE + 2), b"")
    for number, raw in enumerate(raw_lines, start=1):
        if len(raw.rstrip(b"\r\n")) > data.LONGEST_LINE:
            raise BadLine(number, f"it is longer than {data.LONGEST_LINE:,} bytes.")
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise BadLine(number, "it is not UTF-8 text.") from None


def _csv_rows(file: BinaryIO) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file by column name, each with the number of its first line. Raises BadLine."""
    csv.field_size_limit(data.LONGEST_LINE)
    texts = (text for _, text in _texts(file))
    header = next(texts, "")
    split = _delimiter(header)
    columns = next(csv.reader([header], delimiter=split), [])
    reader = csv.DictReader(texts, columns, delimiter=split)
    if "prompt" not in columns:
        raise BadLine(1, "a CSV file begins with the names of its columns, one of which is “prompt”.")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadLine(reader.line_num + 1, f"it is not CSV ({error}).") from None
        # The reader counts from behind the header to the end of the row, which may be several lines long.
        number = reader.line_num + 1 - sum(str(cell).count("\n") for cell in row.values())
        if None in row:
            raise BadLine(number, "it has more fields than there are columns.")
        # An empty cell says nothing, but an empty prompt is a mistake.
        yield number, {name: cell for name, cell in row.items() if cell or name == "prompt"}


def _delimiter(header: str) -> str:
    """Spreadsheets of some countries write semicolons where others write commas."""
    return next((each for each in ",;\t" if "prompt" in next(csv.reader([header], delimiter=each), [])), ",")


# Rankings


def read_rankings(file: BinaryIO) -> Iterator[tuple[int, data.Ranking]]:
    """The rankings of a file of lines with their line numbers. Raises BadLine."""
    return _checked(data.read_lines(file), _ranking)


@transaction.atomic
def import_rankings(
    project: Project, lines: Iterable[tuple[int, data.Ranking]], round: Round | None = None
) -> Imported:
    """Keep every ranking of `lines`, or none of them when one is bad.

    Their quintets take no places in the queue: they come ranked. A line that is there already, from the same
    labeler with the same ranks, is left out; with other ranks it is a second look at a quintet of its own."""
    read = list(lines)
    people = _labelers(read)
    Prompt.objects.add(project, (PromptLine(line.prompt) for _, line in read))
    digests = {digest(line.prompt) for _, line in read}
    prompts = dict(project.prompts.filter(digest__in=digests).values_list("digest", "pk"))
    stored = _stored(project, prompts.values())
    round = round or Round.objects.current(project)
    quintets: list[tuple[Quintet, data.Ranking]] = []
    rankings: list[Ranking] = []
    for _, line in read:
        prompt, labeler = prompts[digest(line.prompt)], people[_labeler(line)]
        alike = stored[prompt, line.quintet, line.rollouts]
        if any(ranks.get(labeler.pk) == line.ranks for _, ranks in alike):
            continue
        quintet, ranks = next((each for each in alike if labeler.pk not in each[1]), (None, {}))
        if quintet is None:
            quintet = Quintet(project=project, round=round, prompt_id=prompt, external_id=line.quintet)
            quintets.append((quintet, line))
            alike.append((quintet, ranks))
        ranks[labeler.pk] = line.ranks
        kept = {"ranks": list(line.ranks), "seconds": line.seconds, "simulated": line.simulated}
        rankings.append(Ranking(quintet=quintet, labeler=labeler, extra=line.extra, **kept))
    Quintet.objects.bulk_create([quintet for quintet, _ in quintets], A_BATCH)
    Rollout.objects.bulk_create(
        [
            Rollout(quintet=quintet, slot=slot, text=text, finished=line.finished[slot])
            for quintet, line in quintets
            for slot, text in enumerate(line.rollouts)
        ],
        A_BATCH,
    )
    Ranking.objects.bulk_create(rankings, A_BATCH)
    return Imported(len(rankings), len(read) - len(rankings))


def _ranking(row: dict[str, Any]) -> data.Ranking:
    line = data.ranking(row)
    if len(line.labeler) > LONGEST_NAME:
        raise ValueError(f"“labeler” is longer than {LONGEST_NAME} characters.")
    if len(line.quintet) > LONGEST_ID:
        raise ValueError(f"“quintet” is longer than {LONGEST_ID} characters.")
    if (line.seconds or 0) > LONGEST_TIME:
        raise ValueError("“seconds” is longer than anybody lives.")
    return line


def _labeler(line: data.Ranking) -> str:
    return line.labeler or ("simulated" if line.simulated else "imported")


def _labelers(lines: list[tuple[int, data.Ranking]]) -> dict[str, User]:
    """The account of each labeler of the file. Who is new here gets one that nobody can sign in with."""
    names = {_labeler(line) for _, line in lines}
    people = {user.username: user for user in User.objects.filter(username__in=names)}
    for number, line in lines:
        name = _labeler(line)
        if name not in people:
            people[name] = User.objects.without_password(name, simulated=line.simulated)
        if people[name].simulated != line.simulated:
            kinds = ("simulated", "a person") if people[name].simulated else ("a person", "simulated")
            raise BadLine(number, f"the labeler {name} is {kinds[0]} elsewhere, and {kinds[1]} here.")
    return people


def _stored(project: Project, prompts: Iterable[int]) -> dict[tuple, list[tuple[Quintet, dict]]]:
    """The quintets of these prompts, each with its ranks by labeler, under what a line says of a quintet. One
    that was sampled here is known to a line by its number."""
    found: dict[tuple, list[tuple[Quintet, dict]]] = defaultdict(list)
    quintets = project.quintets.filter(prompt__in=list(prompts)).prefetch_related("rollouts", "rankings")
    for quintet in quintets:
        texts = tuple(rollout.text for rollout in quintet.rollouts.all())
        entry = (quintet, {each.labeler_id: tuple(each.ranks) for each in quintet.rankings.all()})
        for name in {quintet.external_id, quintet.external_id or str(quintet.pk)}:
            found[quintet.prompt_id, name, texts].append(entry)
    return found


def ranking_lines(project: Project, include_simulated: bool = False) -> Iterator[dict[str, Any]]:
    """The project's rankings in their one order, read in one statement, so that none is half in."""
    rankings = Ranking.objects.filter(quintet__project=project).order_by("quintet", "labeler__username", "pk")
    if not include_simulated:
        rankings = rankings.filter(simulated=False)
    related = rankings.select_related("quintet__prompt", "labeler").prefetch_related("quintet__rollouts")
    for each in related.iterator(chunk_size=A_BATCH):
        rollouts = each.quintet.rollouts.all()
        finished = [rollout.finished for rollout in rollouts]
        told = {} if all(finished) or "finished" in each.extra else {"finished": finished}
        yield data.as_line(
            data.Ranking(
                prompt=each.quintet.prompt.content,
                rollouts=tuple(rollout.text for rollout in rollouts),
                ranks=tuple(each.ranks),
                labeler=each.labeler.username,
                quintet=each.quintet.external_id or str(each.quintet_id),
                seconds=each.seconds,
                simulated=each.simulated,
                extra=told | each.extra,
            )
        )


def demonstration_lines(project: Project) -> Iterator[dict[str, Any]]:
    written = project.demonstrations.select_related("prompt").order_by("pk")
    for each in written.iterator(chunk_size=A_BATCH):
        yield data.as_line(data.Demonstration(each.prompt.content, each.completion, each.extra))


# Datasets


def freeze_rankings(project: Project, include_simulated: bool = False, by: User | None = None) -> Dataset:
    """The rankings as they are now, as a file that never changes. Raises NothingToFreeze."""
    lines = ranking_lines(project, include_simulated)
    return _freeze(project, Dataset.Kind.RANKINGS, lines, "The project has no rankings yet.", by)


def freeze_demonstrations(project: Project, by: User | None = None) -> Dataset:
    """The demonstrations as they are now, as a file that never changes. Raises NothingToFreeze."""
    lines = demonstration_lines(project)
    return _freeze(project, Dataset.Kind.DEMONSTRATIONS, lines, "The project has no demonstrations yet.", by)


def _freeze(
    project: Project, kind: str, lines: Iterable[dict[str, Any]], missing: str, by: User | None
) -> Dataset:
    folder = settings.HOME / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{uuid.uuid4()}.part"
    sha, count, simulated = hashlib.sha256(), 0, 0
    try:
        with part.open("wb") as file:
            for line in lines:
                written = f"{data.dumps(line)}\n".encode()
                file.write(written)
                sha.update(written)
                count += 1
                simulated += bool(line.get("simulated"))
            file.flush()
            os.fsync(file.fileno())
        if not count:
            raise NothingToFreeze(missing)
        name = f"{sha.hexdigest()}.jsonl"
        part.rename(folder / name)
    finally:
        part.unlink(missing_ok=True)
    facts = {"path": f"datasets/{name}", "lines": count, "simulated": simulated, "created_by": by}
    return Dataset.objects.get_or_create(
        project=project, sha256=sha.hexdigest(), defaults={"kind": kind, **facts}
    )[0]


# Exports


def export(project: Project, form: str, include_simulated: bool = False) -> Iterator[bytes]:
    """The lines of an export, some at a time, however many there are."""
    lines = FORMS[form](project, include_simulated)
    while some := list(islice(lines, A_CHUNK)):
        yield "".join(f"{data.dumps(line)}\n" for line in some).encode()


def pairs(project: Project, include_simulated: bool = False) -> Iterator[dict[str, Any]]:
    """Every pair that a ranking decides, as trainers of preferences take it: the prompt is always a field of
    its own, a tie is no pair, and neither is a text against itself."""
    # A table has one type per column: where one prompt is a conversation, all of them are.
    kind = Func("content", function="jsonb_typeof", output_field=CharField())
    as_messages = project.prompts.annotate(kind=kind).filter(kind="array").exists()
    for line in ranking_lines(project, include_simulated):
        prompt, rollouts, ranks = line["prompt"], line["rollouts"], line["ranks"]
        if as_messages:
            prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        for better, worse in permutations(range(len(ranks)), 2):
            if ranks[better] < ranks[worse] and rollouts[better] != rollouts[worse]:
                chosen, rejected = rollouts[better], rollouts[worse]
                if as_messages:
                    chosen, rejected = (
                        [{"role": "assistant", "content": text}] for text in (chosen, rejected)
                    )
                yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


FORMS: dict[str, Callable[[Project, bool], Iterator[dict[str, Any]]]] = {
    "ranked": ranking_lines,
    "pairs": pairs,
}
