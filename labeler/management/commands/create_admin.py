"""`bin/manage create_admin`: the first admin of an installation. Does nothing where there is one."""

import os

from django.db import IntegrityError

from labeler.management import BaseCommand, CommandError
from labeler.models import User


class Command(BaseCommand):
    help = "Makes the first admin; the password is QUINTET_ADMIN_PASSWORD, or a random one, printed once."

    def add_arguments(self, parser):
        parser.add_argument("name", nargs="?", default="admin")

    def handle(self, *, name: str, **options) -> None:
        preset = os.environ.get("QUINTET_ADMIN_PASSWORD", "")
        try:
            made = User.objects.create_first_admin(preset, name)
        except IntegrityError:
            raise CommandError(f"Somebody is called {name} already: choose another name.") from None
        if made is None:
            self.stdout.write("There is an admin already; nothing was changed.")
        elif preset:
            self.stdout.write(f"Admin {name}, password as given in QUINTET_ADMIN_PASSWORD.")
        else:
            self.stdout.write(f"Admin {name}, password {made[1]} (shown this once).")
