"""Taking in: files of lines become prompts and rankings.

How a line looks and what makes it a bad one is decided in rlhf/data.py. A bad line stops an import before
anything of its file is kept."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from django.db import transaction

from labeler.models import Project, Prompt, Quintet, Ranking, Rollout, Round, User
from labeler.models.prompts import digest
from rlhf import data
from rlhf.data import BadLine, PromptLine

LONGEST_NAME = 150  # of a labeler
LONGEST_ID = 200  # of a prompt or a quintet
LONGEST_TIME = 1e9  # seconds at one quintet
A_BATCH = 1000  # rows at a time

Line = TypeVar("Line")


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
