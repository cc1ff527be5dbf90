"""`bin/manage import_prompts FILE --project SLUG`: all prompts of a file, or none of them."""

from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labeler import intake
from labeler.models import Project
from rlhf.data import BadLine


class Command(BaseCommand):
    help = "Adds the prompts of a JSONL, CSV or text file to a project, which is made if need be."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--project", required=True, metavar="SLUG")

    def handle(self, *, file: Path, project: str, **options) -> None:
        try:
            with file.open("rb") as lines, transaction.atomic():
                found = Project.objects.named(project)
                done = intake.import_prompts(found, intake.read_prompts(lines, file.name))
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
        except BadLine as bad:
            raise CommandError(f"{file}, {bad} Nothing was imported.") from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{done.added:,} prompts added; {done.known:,} were there already and left out.")
