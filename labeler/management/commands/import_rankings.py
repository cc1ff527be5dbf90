"""`bin/manage import_rankings FILE --project SLUG`: all rankings of a file, or none of them."""

from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labeler import intake
from labeler.models import Project
from rlhf.data import BadLine


class Command(BaseCommand):
    help = "Adds the rankings of a file of lines to a project, which is made where it does not exist."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--format", choices=["lines"], default="lines")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would come in, and keep nothing."
        )

    def handle(self, *, file: Path, project: str, dry_run: bool, **options) -> None:
        try:
            with file.open("rb") as lines, transaction.atomic():
                found = Project.objects.named(project)
                done = intake.import_rankings(found, intake.read_rankings(lines))
                transaction.set_rollback(dry_run)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
        except BadLine as bad:
            raise CommandError(f"{file}, {bad} Nothing was imported.") from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        added, were = ("would be added", "are") if dry_run else ("added", "were")
        known = f"{done.known:,} {were} there already and left out"
        self.stdout.write(f"{done.added:,} rankings {added}; {known}.")
