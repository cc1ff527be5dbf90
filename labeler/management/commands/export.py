"""`bin/manage export SLUG --format ranked|pairs`: a project's rankings as lines, to a file or to stdout."""

import os
import sys
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from labeler import datasets
from labeler.models import Project


class Command(BaseCommand):
    help = "Writes the rankings of a project, one JSON object a line; simulated ones only when asked for."

    def add_arguments(self, parser):
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("--format", choices=sorted(datasets.FORMS), default="ranked")
        parser.add_argument("--output", metavar="FILE", help="Instead of stdout; whole or not at all.")
        parser.add_argument("--include-simulated", action="store_true")

    def handle(
        self, *, project: str, format: str, output: str | None, include_simulated: bool, **options
    ) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project {project}.")
        lines = datasets.export(found, format, include_simulated)
        if not output:
            try:
                sys.stdout.buffer.writelines(lines)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                # Whoever reads has had enough, as `head` does; Python must not try to flush the rest.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        part = Path(f"{output}.part")
        try:
            with part.open("wb") as file:
                file.writelines(lines)
            os.replace(part, output)
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}.") from None
