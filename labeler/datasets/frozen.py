"""A dataset is frozen: its lines go to a file that is named by its hash and never changes, and what is in
them to its row. A `Source` is such a file opened for reading, or one made for the moment from the rows as
they are now.

Lines are written as they are read, in one snapshot of the database: memory does not grow with them."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from django.conf import settings

from labeler.datasets.facts import A_MARK, Facts, asked
from labeler.datasets.lines import demonstration_lines, place_in_quintet, ranking_lines, snapshot
from labeler.datasets.query import Query, nothing_in
from labeler.models import AuditEntry, Dataset, Project, User
from labeler.models.prompts import digest
from labeler.templatetags.words import count
from rlhf import config, data

A_FEW = 20  # quintets, or demonstrations

Lines = Iterable[dict[str, Any]]
LEARNT_BY: dict[str, type[config.RewardConfig] | type[config.SftConfig]] = {
    Dataset.Kind.RANKINGS: config.RewardConfig,
    Dataset.Kind.DEMONSTRATIONS: config.SftConfig,
    Dataset.Kind.DOCUMENTS: config.SftConfig,
}


class NothingToFreeze(ValueError):
    """A dataset without a line would teach nothing; the message says what is missing."""


@dataclass
class Source:
    """A file of lines in canonical order, and its manifest."""

    file: IO[bytes]
    manifest: dict[str, Any]

    def lines(self, part: str = "") -> Iterator[dict[str, Any]]:
        """All of them, or those of one part of the split: `train` or `validation`."""
        return (data.parse(raw) or {} for raw in self.raw_lines(part))

    def raw_lines(self, part: str = "") -> Iterator[bytes]:
        split = self.manifest["split"]
        self.file.seek(split["offset"] if part == "train" else 0)
        return islice(self.file, split["line"]) if part == "validation" else iter(self.file)

    def page(self, first: int, count: int) -> list[dict[str, Any]]:
        """So many lines from one on, found without reading all that stand before them."""
        marks = self.manifest["marks"]
        if first >= self.manifest["lines"]:
            return []
        self.file.seek(marks[first // A_MARK])
        return [data.parse(raw) or {} for raw in islice(self.file, first % A_MARK, first % A_MARK + count)]


def freeze(project: Project, query: Query | None = None, by: User | None = None) -> Dataset:
    """The rankings that are asked for, all by people where nothing is, as they are now. Raises
    NothingToFreeze."""
    query = query or Query()
    with _part() as part:
        with snapshot():
            manifest, sha = _written(project, Dataset.Kind.RANKINGS, ranking_lines(query.rows(project)), part)
        if not manifest["lines"]:
            raise NothingToFreeze(nothing_in(project, query))
        return _kept(project, Dataset.Kind.RANKINGS, part, sha, manifest, query.as_dict(), by)


def freeze_demonstrations(project: Project, by: User | None = None, origins: Sequence[str] = ()) -> Dataset:
    """The demonstrations as they are now; of these origins alone, where any are named. Raises
    NothingToFreeze."""
    kind = Dataset.Kind.DEMONSTRATIONS
    with _part() as part:
        with snapshot():
            written = project.demonstrations.all().counted(*origins)
            manifest, sha = _written(project, kind, demonstration_lines(written), part)
        if not manifest["lines"]:
            none = "No demonstration is of these origins." if origins else ""
            raise NothingToFreeze(none or "The project has no demonstrations yet.")
        query = {"origins": sorted(origins)} if origins else {}
        return _kept(project, kind, part, sha, manifest, query, by)


def freeze_documents(project: Project, lines: Iterable[dict[str, Any]], by: User | None = None) -> Dataset:
    """Plain documents to read, each once, as a dataset of their own: they belong to no prompt. Raises
    NothingToFreeze."""
    kind, found = Dataset.Kind.DOCUMENTS, dict[str, tuple[int, int]]()  # by their hash, where they lie
    with _for_the_moment() as kept, _part() as part:
        for line in lines:
            if (of := data.prompt_digest(line["text"])) not in found:
                raw = data.dumps(line).encode()
                found[of] = kept.tell(), len(raw)
                kept.write(raw)
        if not found:
            raise NothingToFreeze("There is no document in it.")
        manifest, sha = _written(project, kind, _in_order(kept, found), part)
        return _kept(project, kind, part, sha, manifest, {}, by)


def _in_order(file: IO[bytes], found: dict[str, tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for _, (start, size) in sorted(found.items()):
        file.seek(start)
        yield data.parse(file.read(size)) or {}


@contextmanager
def opened(dataset: Dataset) -> Iterator[Source]:
    """A frozen dataset for reading. Raises FileNotFoundError."""
    with (settings.HOME / dataset.path).open("rb") as file:
        if dataset.manifest:
            yield Source(file, dataset.manifest)
            return
        # From before datasets had a manifest and an order of their own.
        lines = sorted((line for _, line in data.read_lines(file)), key=place)
    with _for_the_moment() as file:
        yield Source(file, _written(dataset.project, dataset.kind, lines, file)[0])


@contextmanager
def now(project: Project, kind: str, query: Query | None = None, few: bool = False) -> Iterator[Source]:
    """The rows as they are now, in a file that is gone afterwards: who reads slowly holds no snapshot. Of the
    oldest quintets or demonstrations alone, where only a few are to be looked at."""
    with _for_the_moment() as file:
        with snapshot():
            if kind == Dataset.Kind.RANKINGS:
                rows = (query or Query()).rows(project)
                oldest = rows.order_by("quintet_id").values("quintet_id").distinct()[:A_FEW]
                lines: Lines = ranking_lines(rows.filter(quintet__in=oldest) if few else rows)
            else:
                written = project.demonstrations.all().counted()
                lines = demonstration_lines(written.filter(pk__in=written[:A_FEW]) if few else written)
            manifest, _ = _written(project, kind, lines, file)
        yield Source(file, manifest)


def place(line: dict[str, Any]) -> tuple:
    """Where a line stands in the canonical order, which the database sorts by (lines.py)."""
    prompt = asked(line)
    of_prompt = (data.prompt_digest(prompt), digest(prompt))
    if "ranks" not in line:
        return *of_prompt, data.dumps(line)
    return *of_prompt, line["quintet"], *place_in_quintet(line)


def _for_the_moment() -> IO[bytes]:
    return tempfile.TemporaryFile(dir=_folder())


def _written(project: Project, kind: str, lines: Lines, file: IO[bytes]) -> tuple[dict[str, Any], str]:
    """The manifest of the lines, and the hash of their bytes, once they are in the file."""
    run_kind = LEARNT_BY[kind]
    share = project.run_defaults.get(run_kind.kind, {}).get("held_out", run_kind.held_out)
    facts, sha, offset = Facts(share), hashlib.sha256(), 0
    for line in lines:
        raw = f"{data.dumps(line)}\n".encode()
        file.write(raw)
        sha.update(raw)
        facts.add(line, offset)
        offset += len(raw)
    file.flush()
    return facts.manifest() | {"bytes": offset, "split_by": run_kind.kind}, sha.hexdigest()


def _kept(
    project: Project, kind: str, part: IO[bytes], sha: str, manifest: dict, query: dict, by: User | None
) -> Dataset:
    """The row, with the file at its place; the one that is there already where nothing has changed since."""
    os.fchmod(part.fileno(), 0o444)
    os.fsync(part.fileno())
    path = _folder() / f"{sha}.jsonl"
    os.replace(part.name, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too has to outlast a power cut
    finally:
        os.close(folder)
    facts = {"path": f"datasets/{sha}.jsonl", "lines": manifest["lines"], "simulated": manifest["simulated"]}
    more = {"kind": kind, "query": query, "manifest": manifest, "created_by": by}
    dataset, made = Dataset.objects.get_or_create(project=project, sha256=sha, defaults={**facts, **more})
    if made:
        said = f"Froze {count(dataset.lines, dataset.get_kind_display().removesuffix('s'))} as {dataset}."
        AuditEntry.objects.write(by, project, "dataset frozen", said, dataset=dataset.pk, sha256=sha)
    return dataset


def _folder() -> Path:
    folder: Path = settings.HOME / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _part() -> Iterator[IO[bytes]]:
    """A new file beside the datasets, gone again unless it has become one."""
    with tempfile.NamedTemporaryFile(dir=_folder(), prefix=".", suffix=".part", delete=False) as part:
        try:
            yield part
        finally:
            Path(part.name).unlink(missing_ok=True)
