"""Turns what a trainer writes into its run directory into rows, under the fence of the attempt that follows.

A cursor per line file says how far it has been read: its place, and a fingerprint of the block before it,
since a resumed trainer cuts its files back and may write other lines over the same bytes. Then the file is
read again from its beginning, which is harmless: every row has a key that its line names.
Left out: starting and ending the process (trainer.py), and what its end means for the run (tasks.py)."""

import json
import logging
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from django.conf import settings

from labeler.models import Checkpoint, Prompt, Quintet, Round, Run, Sample, Step
from labeler.models.checkpoints import read_lineage
from labeler.models.runs import storable

AT_ONCE = 2_000_000  # bytes of a line file that one transaction takes
LOG_TAIL = 64 * 1024
TAIL_EVERY = 3.0  # seconds: it is a large field to write anew
A_BATCH = 500

logger = logging.getLogger(__name__)


@dataclass
class News:
    """What was found since the last look, and the cursors to keep with it."""

    cursors: dict[str, list[int] | None]
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    fields: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines or self.fields or self.checkpoints)


class Follower:
    """Follows one attempt of a run, from its claim to its end."""

    def __init__(self, run: Run):
        self.run = run
        self.cursors: dict[str, list[int] | None] = run.cursors
        self.known: dict[str, Any] = {}  # the fields as they were last written
        self.checkpoints: set[str] = set()  # those that have their rows
        self.earlier = {path.name for path in self._folders()}
        self._next_tail = 0.0
        self.files = {"steps.jsonl", "samples.jsonl"}
        # Of a face-off the rollouts of several runs meet in one quintet, when all are there (composing.py).
        if run.kind == Run.Kind.ROLLOUTS and not run.contenders.exists():
            self.files.add("rollouts.jsonl.zst")

    def catch_up(self, to_the_end: bool = False) -> bool:
        """Write what is new; whether there was anything. Raises FencedOff."""
        news = self._look(to_the_end)
        if news:
            with self.run.held() as row:
                self._write(row, news)
            self.cursors = news.cursors
            self.known |= news.fields
            self.checkpoints |= {path.name for path in news.checkpoints}
        return bool(news)

    # Looking

    def _look(self, to_the_end: bool) -> News:
        news = News(dict(self.cursors))
        for name in self.files:
            lines, cursor = read_new(self.run.directory / name, self.cursors.get(name))
            if cursor != self.cursors.get(name):
                news.lines[name], news.cursors[name] = lines, cursor
        fields = self._status()
        if to_the_end or time.monotonic() >= self._next_tail:
            fields["log_tail"] = tail(self.run.directory / "log.txt")
            self._next_tail = time.monotonic() + TAIL_EVERY
        news.fields = {name: value for name, value in fields.items() if self.known.get(name) != value}
        news.checkpoints = [path for path in self._folders() if path.name not in self.checkpoints]
        return news

    def _folders(self) -> list[Path]:
        return sorted((self.run.directory / "checkpoints").glob("step-*"))

    def _status(self) -> dict[str, Any]:
        try:
            said = json.loads((self.run.directory / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not written yet
            return {}
        return {
            "phase": storable(said["phase"])[:60],
            "device": storable(said["device"])[:200],
            "step": said["step"],
            "total": said["total"],
        }

    # Writing: the caller's transaction holds the run's row.

    def _write(self, row: Run, news: News) -> None:
        self._write_steps(news.lines["steps.jsonl"])
        self._write_samples(news.lines["samples.jsonl"])
        self._write_quintets(news.lines["rollouts.jsonl.zst"])
        for folder in news.checkpoints:
            self._write_checkpoint(folder)
            if folder.name not in self.earlier:
                row.lost = 0  # it got somewhere, so whatever killed it may be tried again
        for name, value in news.fields.items():
            setattr(row, name, value)
        row.cursors = news.cursors
        row.save(update_fields=["cursors", "lost", *news.fields])

    def _write_steps(self, lines: list[dict[str, Any]]) -> None:
        rows = {line.pop("step"): storable(line) for line in lines}  # the last one of equal steps
        Step.objects.bulk_create(
            [Step(run=self.run, step=step, metrics=metrics) for step, metrics in rows.items()],
            A_BATCH,
            update_conflicts=True,
            unique_fields=["run", "step"],
            update_fields=["metrics"],
        )

    def _write_samples(self, lines: list[dict[str, Any]]) -> None:
        rows = {(line["step"], line["index"]): storable(line) for line in lines}
        Sample.objects.bulk_create(
            [Sample(run=self.run, step=step, index=index, line=line) for (step, index), line in rows.items()],
            A_BATCH,
            update_conflicts=True,
            unique_fields=["run", "step", "index"],
            update_fields=["line"],
        )

    def _write_quintets(self, lines: list[dict[str, Any]]) -> None:
        """A group of rollouts is appended whole, so it is never spread over two looks."""
        groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            groups[line["group"]].append(line)
        prompts = Prompt.objects.in_bulk({int(group[0]["id"]) for group in groups.values()})
        if not groups:
            return
        round = Round.objects.current(self.run.project)  # the run's own may have been closed meanwhile
        for number, group in sorted(groups.items()):
            prompt = prompts.get(int(group[0]["id"]))
            if prompt:  # or it was deleted meanwhile
                Quintet.objects.compose(
                    self.run.project,
                    round,
                    prompt,
                    [line["rollout"] for line in group],
                    checkpoints=self.run.start,
                    finished=[line["finished"] for line in group],
                    run=self.run,
                    group=number,
                )

    def _write_checkpoint(self, folder: Path) -> None:
        step = int(folder.name.removeprefix("step-"))
        of_reward = self.run.kind == Run.Kind.REWARD
        Checkpoint.objects.update_or_create(
            run=self.run,
            step=step,
            defaults={
                "project": self.run.project,
                "kind": Checkpoint.Kind.REWARD if of_reward else Checkpoint.Kind.POLICY,
                "name": f"{'reward model' if of_reward else self.run.kind} {self.run.pk}, step {step}",
                "location": str(folder.relative_to(settings.HOME)),
                "lineage": storable(read_lineage(folder)),
            },
        )


def read_new(path: Path, cursor: list[int] | None) -> tuple[list[dict[str, Any]], list[int] | None]:
    """The whole lines after the cursor, and the cursor after them."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            at, length, check = cursor or (0, 0, 0)
            file.seek(at - length)
            if at > size or zlib.crc32(file.read(length)) != check:
                at = length = check = 0
            file.seek(at)
            limit = AT_ONCE
            blocks: list[bytes] = []
            raw = b""
            while not blocks and len(raw) < size - at:
                raw += file.read(limit)
                blocks = list(frames(raw) if path.suffix == ".zst" else whole_lines(raw))
                limit *= 4
    except FileNotFoundError:
        return [], None
    if not blocks:
        return [], [at, length, check] if at or cursor else None
    last = blocks[-1]
    cursor = [at + sum(map(len, blocks)), len(last), zlib.crc32(last)]
    texts = (zstandard.decompress(block) for block in blocks) if path.suffix == ".zst" else blocks
    return [line for text in texts for line in parsed(text, path)], cursor


def whole_lines(raw: bytes) -> Iterator[bytes]:
    end = raw.rfind(b"\n") + 1
    yield from raw[:end].splitlines(keepends=True)


def frames(raw: bytes) -> Iterator[bytes]:
    """The whole zstd frames at the beginning of `raw`."""
    while raw:
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(raw)
        if not frame.eof:
            return
        length = len(raw) - len(frame.unused_data)
        yield raw[:length]
        raw = raw[length:]


def parsed(text: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except (
            ValueError
        ):  # only a broken disk or a foreign hand writes such a line: the run need not end for it
            logger.warning("%s holds a line that is no JSON; it is passed over.", path)


def tail(log: Path) -> str:
    """The last lines of the log, as much as is kept in the row."""
    try:
        with log.open("rb") as file:
            begin = max(0, file.seek(0, 2) - LOG_TAIL)
            file.seek(begin)
            text = file.read(LOG_TAIL).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return storable(text.partition("\n")[2] if begin else text)
