"""Plain documents on their way in: a file becomes a dataset at once, because there is nothing to rank or to
decide in them. Supervised runs read them in the stage "reading".

Lines of `{"text": …}`, or one plain text. What is there already is taken once. How rankings and prompts come
in is the matter of labeler/intake/."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, BinaryIO

from labeler.datasets.frozen import NothingToFreeze, freeze_documents
from labeler.models import Dataset, Project, User
from rlhf import data

PLAIN = (".txt", ".md")  # names of files that are one document each


def bring_in(project: Project, name: str, file: BinaryIO, by: User | None = None) -> tuple[Dataset, int]:
    """The dataset, and how many copies of other documents were left out. Raises NothingToFreeze."""
    read = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal read
        for line in _lines(name, file):
            read += 1
            yield line

    dataset = freeze_documents(project, lines(), by)
    return dataset, read - dataset.lines


def _lines(name: str, file: BinaryIO) -> Iterator[dict[str, Any]]:
    if PurePath(name).suffix.lower() in PLAIN:
        yield data.as_line(_plain(file))
        return
    try:
        for number, line in data.read_lines(file):
            try:
                yield data.as_line(data.document(line))
            except ValueError as error:
                raise data.BadLine(number, str(error)) from None
    except data.BadLine as bad:
        raise NothingToFreeze(f"In {bad} A line is an object with a “text”.") from None


def _plain(file: BinaryIO) -> data.Document:
    raw = file.read(data.LONGEST_LINE + 1)
    if len(raw) > data.LONGEST_LINE:
        raise NothingToFreeze(
            f"A text of more than {data.LONGEST_LINE:,} bytes is to be given in parts: JSON lines, each with "
            "a “text”."
        )
    try:
        return data.document({"text": raw.decode("utf-8-sig")})
    except UnicodeDecodeError:
        raise NothingToFreeze("The file is not UTF-8 text.") from None
    except ValueError as error:
        raise NothingToFreeze(f"The file cannot be read: {error}") from None
