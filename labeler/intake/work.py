"""One import from its file to its rows: read, tell how far it is, keep all of it or nothing.

A page's import is carried out by a worker that has claimed its row, the command line's by its own process:
both come through `take_in`. While a worker works, a thread tells the row how far it is, by a connection of
its own: the transaction of the import shows nobody anything before its end."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from django.db import DatabaseError, IntegrityError, connection, transaction

from labeler import checking
from labeler.intake.columns import guessed, guessed_kind, missing, reader, with_a_look
from labeler.intake.files import Source, Unreadable
from labeler.intake.kinds import READ, LeftOut, Line
from labeler.intake.writer import Writer
from labeler.models import AuditEntry, Import, Project, Request
from labeler.models.imports import UndoRefused
from labeler.templatetags.words import count
from rlhf.data import BadLine

A_BATCH = 1000  # lines
A_LOAD = 8 * 1024 * 1024  # bytes of the file
SHOWN = 20  # errors that a page shows
A_MOMENT = 0.5  # seconds between two looks at how far it is

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """Whoever works has to go, or owns the import no longer."""


@dataclass
class Progress:
    """How far an import is, for whoever watches from another thread."""

    lines: int = 0
    bytes_read: int = 0
    phase: str = ""
    stop: Callable[[], bool] = lambda: False


@dataclass
class Outcome:
    added: int = 0
    known: int = 0
    contradicted: int = 0
    left_out: int = 0
    errors: int = 0
    first_errors: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, Any]:
        return vars(self)


@contextmanager
def opened(path: Path, name: str, format: str = "") -> Iterator[Source]:
    """Raises Unreadable, OSError."""
    with path.open("rb") as file:
        yield Source(file, name, format)


def plan(found: Import, source: Source, kind: str = "") -> None:
    """What the file looks like: its format, what it holds, and what its columns are. Not saved."""
    found.format, found.bytes = source.format, source.size
    found.kind = kind or guessed_kind(source.columns)
    found.mapping = with_a_look(guessed(source.columns, found.kind), [row for _, row in source.first])


def refusal(found: Import) -> str:
    """Why the columns as they are mapped make no lines of this kind; nothing where they do."""
    if found.format == "lines" or not (lacking := missing(found.mapping, found.kind)):
        return ""
    which = " and ".join(f"“{each}”" for each in lacking)
    return f"No column is {which}: {Import.Kind(found.kind).label.lower()} cannot do without."


def lines(found: Import, source: Source) -> Iterator[tuple[int, Line | BadLine | None]]:
    """Each row as the line that it becomes, as what is wrong with it, or as None where it says nothing."""
    line, read = reader(found.mapping, source.format), READ[found.kind]
    for number, row in source.rows():
        try:
            yield number, row if isinstance(row, BadLine) else read(line(row))
        except LeftOut:
            yield number, None
        except ValueError as error:
            yield number, BadLine(number, str(error))


def write(found: Import, source: Source, progress: Progress, errors: IO[str]) -> Outcome:
    """Keep every line of the file, in the caller's transaction, and write down what is wrong with the others:
    if that is anything, the caller rolls back. Raises Unreadable, Interrupted."""
    progress.phase = "waiting for another import into this project"
    Writer.take_turn(found.project)
    progress.phase = ""
    writer, outcome = Writer(found.project, found), Outcome()
    batch: list[tuple[int, Line]] = []
    kept = 0

    def tell(bad: BadLine) -> None:
        outcome.errors += 1
        words = f"{'Row' if source.format == 'parquet' else 'Line'} {bad.number}: {bad.reason}"
        if outcome.errors <= SHOWN:
            outcome.first_errors.append(words)
        errors.write(words + "\n")

    def keep() -> None:
        nonlocal kept
        if progress.stop():
            raise Interrupted
        for bad in writer.write(batch):
            tell(bad)
        batch.clear()
        kept = source.position

    for progress.lines, (number, line) in enumerate(lines(found, source), start=1):
        progress.bytes_read = source.position
        if isinstance(line, BadLine):
            tell(line)
        elif line is None:
            outcome.left_out += 1
        else:
            batch.append((number, line))
        if len(batch) >= A_BATCH or source.position - kept > A_LOAD:
            keep()
    keep()
    writer.finish()
    outcome.added, outcome.known, outcome.contradicted = writer.added, writer.known, writer.contradicted
    return outcome


def take_in(
    found: Import, progress: Progress, errors: IO[str], end: Callable[[str, Outcome], None]
) -> Outcome:
    """Import the file of this row, or only see whether that would go well. What becomes of the row is told to
    `end` in the same transaction as the rows. Raises Unreadable, Interrupted, OSError, DatabaseError."""
    with opened(found.file, found.name, found.format) as source, transaction.atomic():
        if words := refusal(found):
            raise Unreadable(words)
        with _part() as take_back:
            outcome = write(found, source, progress, errors)
            if not (outcome.added or outcome.known or outcome.left_out or outcome.errors):
                raise Unreadable("There is no line in it.")
            if outcome.errors or found.dry_run:
                take_back()
            else:
                _audit(found, outcome)
                Request.objects.keep_ordered(found.project)
                checking.attend(found.project)
        if outcome.errors:
            state = Import.State.REFUSED
        else:
            state = Import.State.CHECKED if found.dry_run else Import.State.FINISHED
        end(state, outcome)
    return outcome


@contextmanager
def _part() -> Iterator[Callable[[], None]]:
    """A part of a transaction that may be taken back, by calling what this gives."""
    with transaction.atomic():
        yield lambda: transaction.set_rollback(True)


def _audit(found: Import, outcome: Outcome) -> None:
    words = (
        f"{found.name[:300]}: {outcome.added:,} {found.noun} came in, {outcome.known:,} were there already."
    )
    AuditEntry.objects.write(found.created_by, found.project, "import done", words, number=found.pk)


# By a worker


def carry_out(found: Import, stop: Callable[[], bool]) -> None:
    """What was asked of this row, which this process has claimed; what becomes of it is written there."""
    progress = Progress(stop=stop)
    with _told(found, progress):
        try:
            if found.undo:
                _take_out(found)
            else:
                found.folder.mkdir(parents=True, exist_ok=True)
                with found.errors_file.open("w", encoding="utf-8", errors="replace") as errors:
                    outcome = take_in(found, progress, errors, lambda *ending: _end(found, *ending))
                if not outcome.errors and not found.dry_run:
                    found.forget_file()
        except Interrupted:
            found.give_back()
        except (Unreadable, UndoRefused) as refused:
            found.fail(str(refused))
        except FileNotFoundError:
            found.fail("The file is gone. Upload it again.")
        except OSError as error:
            found.fail(f"The file cannot be read: {error.strerror}.")
        except IntegrityError as error:
            logger.warning("Import %s met somebody else's rows: %s", found.pk, error)
            found.fail("Somebody changed the same prompts or quintets at the same moment. Try again.")


def _end(found: Import, state: str, outcome: Outcome) -> None:
    if not found.end(state, **outcome.counts):
        raise Interrupted


@transaction.atomic
def _take_out(found: Import) -> None:
    Writer.take_turn(found.project)
    gone = found.take_out()
    what = ", ".join(count(many, name.removesuffix("s")) for name, many in gone.items() if many) or "nothing"
    words = f"{found.name[:300]} was taken out again: {what}."
    AuditEntry.objects.write(found.created_by, found.project, "import undone", words, number=found.pk)
    if not found.end(Import.State.UNDONE):
        raise Interrupted


@contextmanager
def _told(found: Import, progress: Progress) -> Iterator[None]:
    """While this lasts, the row says how far it is, and stays this attempt's."""
    over, asked = threading.Event(), progress.stop
    lost = threading.Event()
    progress.stop = lambda: asked() or lost.is_set()

    def tell() -> None:
        while not over.wait(A_MOMENT):
            try:
                if not found.renew(progress.lines, progress.bytes_read, progress.phase):
                    lost.set()
            except DatabaseError as error:
                logger.warning("Import %s could not be told of: %s", found.pk, error)
            finally:
                connection.close()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# By whoever has a file and a terminal


@transaction.atomic
def by_hand(
    slug: str, path: Path, kinds: Sequence[str], how: str, dry_run: bool, progress: Progress, errors: IO[str]
) -> tuple[Import, Outcome]:
    """Import a file in this process, as one of these kinds. The project is made where there is none; it and
    the import's row are kept with what came in, and only then. Raises Unreadable, OSError, ValueError."""
    project = Project.objects.named(slug)
    found = Import.objects.create(
        project=project, name=path.name, state=Import.State.WORKING, dry_run=dry_run
    )
    found.path = str(path.resolve())
    kind = how if how in kinds else ""
    with opened(path, path.name, {"wmt": "csv", "pairs": ""}.get(how, how)) as source:
        guess = guessed_kind(source.columns)
        others = (*kinds, Import.Kind.DEMONSTRATIONS)  # which have prompts as well
        if guess not in others and Import.Kind.PROMPTS in kinds:
            raise Unreadable("It holds rankings, which `import_rankings` takes.")
        plan(found, source, kind or (guess if guess in kinds else kinds[0]))
    found.save(update_fields=["format", "kind", "mapping", "bytes"])
    outcome = take_in(found, progress, errors, lambda *ending: _end(found, *ending))
    if outcome.errors or dry_run:
        transaction.set_rollback(True)
    return found, outcome
