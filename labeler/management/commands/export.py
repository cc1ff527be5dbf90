"""`bin/manage export SLUG --format …`: rankings or demonstrations as a file, on stdout, or in a folder with a
card."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from labeler.datasets.exports import FILES, Export
from labeler.datasets.formats import FORMATS, Options
from labeler.datasets.query import Query
from labeler.management import BaseCommand, CommandError
from labeler.models import Project


class Command(BaseCommand):
    help = "Writes the rankings of a project for other tools; simulated ones only when asked for."

    def add_arguments(self, parser):
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("--format", choices=list(FORMATS), default="ranked")
        parser.add_argument("--file-format", choices=list(FILES), default="jsonl", help="The kind of file.")
        parser.add_argument("--dataset", metavar="N", type=int, help="A frozen one; else the project now.")
        parser.add_argument("--simulated", "--include-simulated", action="store_true")
        parser.add_argument(
            "--consensus", action="store_true", help="pairs, kto: of each quintet's consensus."
        )
        parser.add_argument("--messages", action="store_true", help="pairs, kto, sft: as messages of a chat.")
        parser.add_argument("--best", action="store_true", help="sft: best-ranked rollouts.")
        parser.add_argument(
            "--output",
            metavar="FILE",
            help="Instead of stdout; whole or not at all. A folder (or a name that ends in / or .zip) is "
            "given the file for each part of the split, with a card.",
        )

    def handle(self, *, project: str, output: str | None, **options) -> None:
        wanted = self.wanted(project, **options)
        try:
            if wanted.is_empty():
                self.stderr.write("There is nothing of this kind to take out: the file has no rows.")
            if not output:
                self.to_stdout(wanted.stream())
            elif output.endswith("/") or Path(output).is_dir():
                Path(output, "data").mkdir(parents=True, exist_ok=True)
                with wanted.source() as source:
                    for name, chunks in wanted.folder(source):
                        write(Path(output) / name, chunks)
            else:
                write(Path(output), wanted.zipped() if output.endswith(".zip") else wanted.stream())
        except FileNotFoundError as error:
            if wanted.dataset and error.filename and Path(error.filename).suffix == ".jsonl":
                raise CommandError(f"The file of dataset {wanted.dataset.pk} is gone.") from None
            raise CommandError(f"{output} cannot be written: {error.strerror}.") from None
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror or error}.") from None

    def wanted(
        self, slug: str, *, format: str, file_format: str, dataset: int | None, simulated: bool, **options
    ) -> Export:
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            raise CommandError(f"There is no project {slug}.")
        found = project.datasets.filter(pk=dataset).first() if dataset is not None else None
        if dataset is not None and found is None:
            raise CommandError(f"The project has no dataset {dataset}.")
        how = Options(**{name: options[name] for name in ("consensus", "messages", "best")})
        wanted = Export(project, FORMATS[format], file_format, how, Query(simulated=simulated), found)
        if found and not wanted.fits:
            raise CommandError(f"Dataset {dataset} holds {found.kind}: it cannot be exported as {format}.")
        return wanted

    def to_stdout(self, chunks: Iterable[bytes]) -> None:
        try:
            sys.stdout.buffer.writelines(chunks)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Whoever reads has had enough, as `head` does; Python must not try to flush the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(path: Path, chunks: Iterable[bytes]) -> None:
    """A file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(chunks)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
