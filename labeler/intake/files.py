"""A file and its rows: lines of JSON, CSV, Parquet or plain text, told apart by what is in them rather than
by their names, and read a little at a time.

A row is what the file says, under the file's own names for its columns; a bad one is handed on as a BadLine,
so that all of them can be told. What a row means is decided in columns.py and kinds.py."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from rlhf import data
from rlhf.data import BadLine

FORMATS = ("lines", "csv", "parquet", "text")
MOST_ROWS = 5_000_000
A_LOOK = 64 * 1024  # bytes
A_FEW = 20  # rows
PROGRAM = Path(__file__).with_name("parquet.py")
REFUSED = 3  # the status with which it says why

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row | BadLine]]

SIGNS = {
    b"PK\x03\x04": "It is a ZIP archive or a spreadsheet. Unpack it, or save the sheet as CSV.",
    b"\x1f\x8b": "It is compressed (gzip). Unpack it first.",
    b"\x28\xb5\x2f\xfd": "It is compressed (Zstandard). Unpack it first.",
    b"BZh": "It is compressed (bzip2). Unpack it first.",
    b"\xff\xfe": "It is UTF-16 text. Save it as UTF-8.",
    b"\xfe\xff": "It is UTF-16 text. Save it as UTF-8.",
    b"\0\0\xfe\xff": "It is UTF-32 text. Save it as UTF-8.",
}


class Unreadable(ValueError):
    """What is wrong with a file as a whole, in words."""


class Lines:
    """The lines of a text file. One that is too long, or that is no UTF-8, raises BadLine; the next call goes
    on behind it. `row_bytes` is for who puts several lines together: more than a line may hold is refused."""

    def __init__(self, file: BinaryIO):
        self.file, self.number, self.position, self.row_bytes = file, 0, 0, 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        raw = self.raw()
        if not raw:
            raise StopIteration
        self.row_bytes += len(raw)
        if self.row_bytes > data.LONGEST_LINE + 2:
            raise BadLine(self.number, f"it is longer than {data.LONGEST_LINE:,} bytes.")
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise BadLine(self.number, "it is not UTF-8 text.") from None

    def raw(self) -> bytes:
        raw = self._read()
        self.number += 1
        if len(raw.rstrip(b"\r\n")) <= data.LONGEST_LINE:
            return raw
        while raw and not raw.endswith(b"\n"):
            raw = self._read()
        raise BadLine(self.number, f"it is longer than {data.LONGEST_LINE:,} bytes.")

    def _read(self) -> bytes:
        raw = self.file.readline(data.LONGEST_LINE + 2)
        self.position += len(raw)
        return raw


class Source:
    """A file that is open for reading, with its columns and its first rows. Raises Unreadable."""

    def __init__(self, file: BinaryIO, name: str, format: str = ""):
        self.file = file
        self.size = file.seek(0, 2)
        self.format = format or sniffed(self._head(), name)
        self.position = 0
        self.columns: list[str] = []
        if self.format == "csv":
            self._delimiter, self.columns = self._header()
        self.first = list(islice(self.rows(), A_FEW))
        if not self.columns:
            seen = (row for _, row in self.first if isinstance(row, dict))
            self.columns = _names(dict.fromkeys(key for row in seen for key in row))

    def rows(self) -> Rows:
        """All rows with their numbers, from the first: those of their lines, or of the rows of a table."""
        self.file.seek(0)
        read = {"lines": self._objects, "csv": self._records, "parquet": self._table, "text": self._texts}
        for count, (number, row) in enumerate(read[self.format]()):
            if count >= MOST_ROWS:
                raise Unreadable(f"It has more than {MOST_ROWS:,} rows. Split it.")
            yield number, row

    def _head(self) -> bytes:
        self.file.seek(0)
        return self.file.read(A_LOOK)

    def _objects(self) -> Rows:
        lines = Lines(self.file)
        while True:
            try:
                raw = lines.raw()
                self.position = lines.position
                if not raw:
                    return
                row = data.parse(raw)
            except ValueError as error:
                reason = error.reason if isinstance(error, BadLine) else str(error)
                yield lines.number, BadLine(lines.number, reason)
                continue
            if row is not None:
                yield lines.number, row

    def _texts(self) -> Rows:
        lines = Lines(self.file)
        while True:
            lines.row_bytes = 0
            try:
                text = next(lines).strip()
            except StopIteration:
                return
            except BadLine as bad:
                yield bad.number, bad
                continue
            self.position = lines.position
            if text:
                yield lines.number, {"prompt": text}

    def _header(self) -> tuple[str, list[str]]:
        """What separates the cells (in some countries semicolons), and the columns' names."""
        self.file.seek(0)
        csv.field_size_limit(data.LONGEST_LINE)
        try:
            header = next(Lines(self.file), "")
            split = {each: next(csv.reader([header], delimiter=each, strict=True), []) for each in ",;\t"}
        except (BadLine, csv.Error) as error:
            raise Unreadable(f"Its first line is no header of a CSV file ({error}).") from None
        delimiter = max(split, key=lambda each: len(split[each]))
        named = [name.strip() or f"column {n}" for n, name in enumerate(split[delimiter], start=1)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise Unreadable(f"Its column “{twice[0]}” is there more than once.")
        if any("\0" in name for name in named):
            raise Unreadable("The name of a column holds a NUL character.")
        return delimiter, named

    def _records(self) -> Rows:
        """Each with the number of its first line: a quoted cell may go over several."""
        lines = Lines(self.file)
        with suppress(BadLine):
            next(lines)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            lines.row_bytes, first = 0, lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (BadLine, csv.Error) as error:
                reason = error.reason if isinstance(error, BadLine) else f"it is not CSV ({error})."
                yield first, BadLine(first, reason)
                continue
            self.position = lines.position
            if any(cells[len(self.columns) :]):
                yield first, BadLine(first, "it has more fields than there are columns.")
            elif cells:
                yield first, dict(zip(self.columns, cells, strict=False))

    def _table(self) -> Rows:
        """A program of its own unpacks Parquet: how much memory that takes is the file's choice, not ours."""
        command = [sys.executable, "-I", PROGRAM, self.file.name, str(data.LONGEST_LINE), str(MOST_ROWS)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout and child.stderr
        try:
            begin = json.loads(child.stdout.readline() or "{}")
            self.columns = _names(begin.get("columns", []))
            for number, raw in enumerate(child.stdout, start=1):
                self.position = self.size * number // max(begin["rows"], 1)
                row = json.loads(raw)
                yield number, row if isinstance(row, dict) else BadLine(number, row)
            if status := child.wait():
                words = child.stderr.read(10_000).decode(errors="replace") if status == REFUSED else ""
                raise Unreadable(words or "It cannot be read as Parquet: reading it broke off.")
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stderr.close()


def _names(columns: Iterable[str]) -> list[str]:
    """Those that can be shown and kept. A line that uses another one is refused when it is read."""
    return [name for name in columns if "\0" not in name and name == in_utf8(name)]


def in_utf8(text: str) -> str:
    """With a question mark for each half of a character, which JSON can write and a page cannot."""
    return text.encode(errors="replace").decode()


def sniffed(head: bytes, name: str) -> str:
    """Which of the formats this is. Raises Unreadable."""
    if head.startswith(b"PAR1"):
        return "parquet"
    for sign, words in SIGNS.items():
        if head.startswith(sign):
            raise Unreadable(words)
    text = head.decode("utf-8-sig", errors="replace").strip()
    if not text:
        raise Unreadable("The file is empty.")
    if text.count("\0") > len(text) // 4:
        raise Unreadable("It is not UTF-8 text. Save it as UTF-8, or give JSONL, CSV or Parquet.")
    suffix, first = Path(name.lower()).suffix, text.partition("\n")[0]
    if suffix == ".txt":
        return "text"
    if text.startswith("{"):
        return "lines"
    if text.startswith("["):
        raise Unreadable("It is one JSON array. Write one object a line (JSONL) instead.")
    if suffix in (".csv", ".tsv") or any(each in first for each in ",;\t"):
        return "csv"
    return "lines" if suffix in (".jsonl", ".ndjson", ".json") else "csv"
