"""`manage.py prepare`: everything between an empty database and one that serves, each step only where it is
needed. One process for all of it, because starting Django is what a second start spends its time on.

Its last line on stdout says what is new, as JSON, for the launcher; what it is doing goes to stderr."""

import io
import json
import os
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from labeler.management import BaseCommand, CommandError
from labeler.models import Project, User
from labeler.postgres import install_queues


class Command(BaseCommand):
    help = "Brings the database and the static files up to date, and seeds what an empty one lacks."
    requires_system_checks = ()

    def add_arguments(self, parser):
        parser.add_argument(
            "--demo", action="store_true", help="Seed the demo project into an empty database."
        )

    def handle(self, *, demo: bool, **options) -> None:
        # Two starts at once (two containers, two terminals) take turns.
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(hashtext('quintet-prepare'))")
        except OperationalError as error:
            raise CommandError(f"The database does not answer: {error}") from None
        migrated = self.migrate()
        if not settings.BROKER_URL:
            install_queues(os.environ["DATABASE_URL"])
        self.collect_static()
        admin = self.create_admin()
        seeded = demo and self.seed_demo()
        print(json.dumps({"migrated": migrated, "admin": admin, "seeded": seeded}))

    def migrate(self) -> bool:
        executor = MigrationExecutor(connection)
        if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return False
        self.stderr.write("Bringing the database up to date …")
        call_command("migrate", verbosity=0, interactive=False)
        return True

    def collect_static(self) -> None:
        """Only when a file is newer than the last collection: it hashes and compresses them all."""
        manifest = settings.STATIC_ROOT / "staticfiles.json"
        newest = max(
            Path(storage.path(path)).stat().st_mtime
            for finder in get_finders()
            for path, storage in finder.list([])
        )
        if manifest.exists() and manifest.stat().st_mtime > newest:
            return
        self.stderr.write("Collecting the static files …")
        call_command("collectstatic", verbosity=0, interactive=False, clear=True)

    def create_admin(self) -> str:
        """The first admin's name, when there was none and a password for one is given."""
        if not os.environ.get("QUINTET_ADMIN_PASSWORD") or User.objects.filter(is_staff=True).exists():
            return ""
        call_command("create_admin", "admin", stdout=io.StringIO())  # the launcher says it
        return "admin"

    def seed_demo(self) -> bool:
        if Project.objects.exists():
            return False
        self.stderr.write("Seeding the demo project …")
        call_command("seed_demo", stdout=self.stderr)
        return True
