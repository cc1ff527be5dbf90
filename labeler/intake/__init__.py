"""Taking in: files become prompts, prompts with rollouts that wait, or rankings; all of a file or nothing.

files.py reads the formats, columns.py says which column is what, kinds.py what a line must hold, writer.py
keeps it, work.py does all of that for one import. Here is the short way, for little that is in hand."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, TypeVar

from django.db import transaction

from labeler import checking
from labeler.intake.columns import guessed, reader, with_a_look
from labeler.intake.files import Source, Unreadable
from labeler.intake.kinds import Line, of_prompt, of_ranking, prompt_line
from labeler.intake.writer import Busy, Writer
from labeler.models import Import, Project, Round
from rlhf import data
from rlhf.data import BadLine, PromptLine

__all__ = [
    "Busy",
    "Imported",
    "Unreadable",
    "import_prompts",
    "import_rankings",
    "pasted_prompts",
    "read_prompts",
    "read_rankings",
]

A_BATCH = 1000  # lines

Read = TypeVar("Read")


@dataclass(frozen=True)
class Imported:
    """How many lines were new, how many were there already and left out, and how many of these with another
    answer."""

    added: int
    known: int
    contradicted: int = 0


def read_prompts(file: BinaryIO, name: str) -> Iterator[tuple[int, PromptLine]]:
    """The prompts of a CSV, plain text or JSONL file with their line numbers. Raises BadLine, Unreadable."""
    source = Source(file, name)
    mapping = guessed(source.columns, Import.Kind.PROMPTS)
    mapping = with_a_look(mapping, [row for _, row in source.first])
    if source.format == "csv" and "prompt" not in mapping.values():
        raise BadLine(1, "a CSV file begins with the names of its columns, one of which is “prompt”.")
    line = reader(mapping, source.format)
    return _checked(source.rows(), lambda row: prompt_line(line(row)))


def pasted_prompts(text: str, answers: bool = False) -> Iterator[tuple[int, PromptLine]]:
    """One prompt a line; lines of JSON are what they are in a JSONL file. With `answers`, a line may have its
    answer behind a tab (as cells of a sheet are pasted) or behind “=>”. Raises BadLine."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and lines[0][1].startswith('{"'):
        return _checked(lines, lambda line: prompt_line(data.parse(line.encode("utf-8", "replace")) or {}))
    return _checked(lines, lambda line: prompt_line(_pair(line) if answers else {"prompt": line}))


def _pair(line: str) -> dict[str, str]:
    sign = next((each for each in ("\t", "=>") if each in line), "")
    if not sign:
        return {"prompt": line}
    prompt, _, answer = line.rpartition(sign)
    if not prompt.strip():
        raise ValueError("there is no prompt before its answer.")
    return {"prompt": prompt.strip(), "answer": answer.strip()}


def read_rankings(file: BinaryIO) -> Iterator[tuple[int, data.Ranking]]:
    """The rankings of a file of lines with their line numbers. Raises BadLine."""
    return _checked(data.read_lines(file), data.ranking)


def import_prompts(project: Project, lines: Iterable[tuple[int, PromptLine]]) -> Imported:
    """Keep every prompt of `lines`, or none of them when one is bad. Duplicates are counted and left out.
    Raises BadLine, and Busy while another import is going on."""
    return _import(project, _checked(lines, of_prompt))


def import_rankings(
    project: Project, lines: Iterable[tuple[int, data.Ranking]], round: Round | None = None
) -> Imported:
    """Keep every ranking of `lines`, or none of them when one is bad. Raises BadLine, Busy."""
    return _import(project, _checked(lines, of_ranking), round)


@transaction.atomic
def _import(project: Project, lines: Iterator[tuple[int, Line]], round: Round | None = None) -> Imported:
    Writer.take_turn(project, wait=False)
    writer = Writer(project, round=round)
    while some := list(islice(lines, A_BATCH)):
        for bad in writer.write(some):
            raise bad
    writer.finish()
    checking.attend(project)
    return Imported(writer.added, writer.known, writer.contradicted)


def _checked(rows: Iterable[tuple[int, Any]], read: Callable[[Any], Read]) -> Iterator[tuple[int, Read]]:
    """Each row as `read` understands it; what it refuses is a BadLine of that row's number."""
    for number, row in rows:
        if isinstance(row, BadLine):
            raise row
        try:
            line = read(row)
        except ValueError as error:
            raise BadLine(number, str(error)) from None
        yield number, line
