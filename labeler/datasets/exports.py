"""Files to take away: JSON lines, Parquet or CSV of any format, from a frozen dataset or from the rows as
they are now, some bytes at a time however long they are; alone, or as a folder with a card.

What the rows say is decided in formats.py, what the card says in card.py."""

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from labeler.datasets import card
from labeler.datasets.formats import FORMATS, TOLD, Format, Options
from labeler.datasets.frozen import Source, now, opened
from labeler.datasets.query import Query
from labeler.models import Dataset, Project
from rlhf import data

FILES = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet", "csv": "text/csv"}
PARTS = ("train", "validation")
A_CHUNK = 100  # rows
BYTES = 256 * 1024
PARQUET = Path(__file__).with_name("parquet.py")
NUMBERED = {"rollouts": "rollout", "ranks": "rank"}  # in CSV, which has no lists
# What begins a formula, and what would be taken for a text that was kept from being one.
FORMULA = re.compile(r"[=+\-@\t\r]|'[=+\-@\t\r']")


@dataclass(frozen=True)
class Export:
    """What is wanted: a format in a kind of file, from a dataset or from a query of the project now."""

    project: Project
    format: Format = FORMATS["ranked"]
    file: str = "jsonl"
    options: Options = field(default_factory=Options)
    query: Query = field(default_factory=Query)
    dataset: Dataset | None = None

    @property
    def stem(self) -> str:
        of = f"-{self.dataset.pk}" if self.dataset else ""
        return f"{self.project.slug}{of}-{self.format.name}"

    @property
    def how(self) -> Options:
        """The options that the format has. Of a dataset of rankings, the best rollouts can be imitated."""
        wanted = {name for name, on in vars(self.options).items() if on}
        if self.dataset and self.dataset.kind == Dataset.Kind.RANKINGS:
            wanted.add("best")
        return Options(**{name: name in wanted for name in self.format.options})

    @property
    def fits(self) -> bool:
        """Whether the dataset holds lines that this can be made from."""
        return self.dataset is None or self.dataset.kind == self.format.kind(self.how)

    def source(self, few: bool = False) -> AbstractContextManager[Source]:
        """What it is made from; few lines of what is not frozen, for a look. Raises FileNotFoundError where
        the file of a dataset is gone."""
        if self.dataset:
            return opened(self.dataset)
        return now(self.project, self.format.kind(self.how), self.query, few)

    def rows(self, source: Source, part: str = "") -> Iterator[dict[str, Any]]:
        return self.format.made(source.lines(part), self.how, self.as_messages(source))

    def as_messages(self, source: Source) -> bool:
        return self.how.messages or source.manifest["chats"] > 0

    def columns(self, source: Source) -> dict[str, str]:
        """Name and type of each column of the file."""
        columns = self.format.typed(self.as_messages(source))
        return _in_csv(columns) if self.file == "csv" else columns

    def first(self, source: Source, count: int) -> list[dict[str, Any]]:
        """The first rows as the file has them."""
        if self.format.name == "ranked" and self.file == "jsonl":
            return source.page(0, count)
        rows = list(islice(self.rows(source), count))
        if self.file == "csv":
            return [dict(zip(self.columns(source), _cells(row), strict=True)) for row in rows]
        return rows

    def chunks(self, source: Source, part: str = "") -> Iterator[bytes]:
        """The bytes of the file, or of the file of one part (`train`, `validation`) of the split."""
        return {"jsonl": self._jsonl, "csv": self._csv, "parquet": self._parquet}[self.file](source, part)

    def is_empty(self) -> bool:
        """Whether no row comes of what there is. A look at a few lines mostly tells."""
        for few in (True, False):
            with self.source(few) as source:
                if self._some(source):
                    return False
        return True

    def stream(self) -> Iterator[bytes]:
        with self.source() as source:
            yield from self.chunks(source)

    def zipped(self) -> Iterator[bytes]:
        """The folder as one file."""
        with tempfile.TemporaryFile() as file:
            with self.source() as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as folder:
                for name, chunks in self.folder(source):
                    with folder.open(f"{self.stem}/{name}", "w", force_zip64=True) as member:
                        for chunk in chunks:
                            member.write(chunk)
            file.seek(0)
            yield from iter(lambda: file.read(BYTES), b"")

    def folder(self, source: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The files of the folder that `datasets.load_dataset` and the Hub understand: a card, and a file for
        each part of the split by prompt."""
        parts = {name: f"data/{name}.{self.file}" for name in PARTS if self._some(source, name)}
        for name, path in parts.items():
            yield path, self.chunks(source, name)
        yield "README.md", iter([card.written(self, source, parts).encode()])

    def _some(self, source: Source, part: str = "") -> bool:
        return next(self.rows(source, part), None) is not None

    # The three kinds of file

    def _jsonl(self, source: Source, part: str) -> Iterator[bytes]:
        if self.format.name == "ranked" and not part:
            lines = _as_they_are(source)
        else:
            lines = (f"{data.dumps(_told(row))}\n".encode() for row in self.rows(source, part))
        while some := list(islice(lines, A_CHUNK)):
            yield b"".join(some)

    def _csv(self, source: Source, part: str) -> Iterator[bytes]:
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow(self.columns(source))
        rows = self.rows(source, part)
        while True:
            some = list(islice(rows, A_CHUNK))
            writer.writerows(_cells(row) for row in some)
            yield out.getvalue().encode()
            if not some:
                return
            out.seek(0)
            out.truncate()

    def _parquet(self, source: Source, part: str) -> Iterator[bytes]:
        columns = json.dumps(self.columns(source))
        with tempfile.TemporaryFile() as file:
            command = [sys.executable, "-I", str(PARQUET), columns]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as child:
                assert child.stdin
                with suppress(BrokenPipeError):  # it has ended, and says how
                    for row in self.rows(source, part):
                        child.stdin.write(f"{json.dumps(row)}\n".encode())
                    child.stdin.close()
                if child.wait():
                    raise OSError(f"the program that makes Parquet ended with {child.returncode}")
            file.seek(0)
            yield from iter(lambda: file.read(BYTES), b"")


def _as_they_are(source: Source) -> Iterator[bytes]:
    """The lines byte by byte. Those late ones come first that bring a column, or a kind of value, which who
    reads the file as a table has to meet at its beginning."""
    early = source.manifest["early"]
    for offset in early:
        source.file.seek(offset)
        yield source.file.readline()
    known, offset = set(early), 0
    for raw in source.raw_lines():
        if offset not in known:
            yield raw
        offset += len(raw)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """In lines, a column that is empty is left out: the card says which there are."""
    return {name: value for name, value in row.items() if value is not None}


def _in_csv(columns: dict[str, str]) -> dict[str, str]:
    """A list of rollouts or ranks is a column for each; other lists are texts of JSON, and what may be empty
    is no whole number."""
    found: dict[str, str] = {}
    for name, kind in columns.items():
        if name in NUMBERED:
            one = "text" if kind == "texts" else "real"
            found |= {f"{NUMBERED[name]}_{n}": one for n in range(1, data.MOST + 1)}
        elif name in TOLD:
            found[name] = "real" if kind in ("real", "whole") else "text"
        else:
            found[name] = kind if kind in ("real", "whole", "flag") else "text"
    return found


def _cells(row: dict[str, Any]) -> Iterator[str]:
    for column, value in row.items():
        if column in NUMBERED:
            yield from map(_cell, [*value, *[None] * (data.MOST - len(value))])
        else:
            yield _cell(value)


def _cell(value: Any) -> str:
    """A text as it is, but no formula: a spreadsheet shows what has an apostrophe before it. The rest is
    JSON."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return data.dumps(value)
    return f"'{value}" if FORMULA.match(value) else value
