"""What the import commands have in common: their arguments, their words, and the line that says how far
they are. The work is done in work.py."""

import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from django.db import IntegrityError

from labeler import checking
from labeler.intake.files import Unreadable
from labeler.intake.work import SHOWN, Outcome, Progress, by_hand
from labeler.management import BaseCommand, CommandError
from labeler.models import Import


class ImportCommand(BaseCommand):
    kinds: Sequence[str] = ()
    formats: Sequence[str] = ()

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--format", choices=self.formats, default="", help="Else the file tells.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would come in, and keep nothing."
        )
        parser.add_argument(
            "--errors", type=Path, metavar="FILE", help="Where to write what is wrong with each line."
        )

    def handle(self, *, file: Path, project: str, format: str, dry_run: bool, **options) -> None:
        progress = Progress()
        with _writable(options["errors"]) as errors, _shown(progress):
            try:
                found, outcome = by_hand(project, file, self.kinds, format, dry_run, progress, errors)
            except OSError as error:
                raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
            except Unreadable as unreadable:
                raise CommandError(f"{file}: {unreadable} Nothing was imported.") from None
            except IntegrityError:
                raise CommandError("Somebody changed the same rows at this moment. Try again.") from None
            except ValueError as error:
                raise CommandError(str(error)) from None
            if outcome.errors:
                raise CommandError(self.refusal(file, outcome, errors, bool(options["errors"])))
        self.tell(found, outcome)

    def refusal(self, file: Path, outcome: Outcome, errors: IO[str], kept: bool) -> str:
        """One sentence for one error, a list for more; all of them where a file was named for them."""
        if outcome.errors == 1:
            first = outcome.first_errors[0]
            return f"{file}, {first[0].lower()}{first[1:]} Nothing was imported."
        errors.seek(0)
        shown = [line.rstrip("\n") for line in islice(errors, SHOWN)]
        if outcome.errors > SHOWN and not kept:
            shown.append(f"… and {outcome.errors - SHOWN:,} more: --errors FILE writes all of them.")
        return "\n".join([f"{file}: {outcome.errors:,} lines are wrong. Nothing was imported.", *shown])

    def tell(self, found: Import, outcome: Outcome) -> None:
        would, were = ("would be added", "are") if found.dry_run else ("added", "were")
        known = f"{outcome.known:,} {were} there already and left out"
        self.stdout.write(f"{outcome.added:,} {found.noun} {would}; {known}.")
        if outcome.left_out:
            self.stdout.write(f"{outcome.left_out:,} lines rank fewer than two and say nothing: left out.")
        if found.project.is_checked and not found.dry_run:
            fare = checking.references(found.project)
            for words in filter(None, (fare.left_out, fare.words)):
                self.stdout.write(f"{words}.")
            if fare.waiting:
                self.stdout.write(f"{fare.waiting:,} references wait for the worker to try them.")


@contextmanager
def _writable(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as unnamed:
            yield unnamed
        return
    try:
        path.touch()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
    with path.open("w+", encoding="utf-8", errors="replace") as file:
        yield file


@contextmanager
def _shown(progress: Progress) -> Iterator[None]:
    """Says every second how far it is: over itself in a terminal, and seldom elsewhere."""
    over, terminal = threading.Event(), sys.stderr.isatty()

    def tell() -> None:
        while not over.wait(1 if terminal else 10):
            words = f"{progress.lines:,} lines read, {progress.bytes_read / 1e6:,.1f} MB"
            sys.stderr.write(f"\r{words} " if terminal else f"{words}\n")
            sys.stderr.flush()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if terminal:
            sys.stderr.write("\r\033[K")
