"""`manage.py seed_demo`: the demo project, in a database that has no project yet."""

from labeler.demo.seed import seed
from labeler.management import BaseCommand


class Command(BaseCommand):
    help = "Seeds the demo project “Pelican jokes” into a database that has no project yet."

    def handle(self, **options) -> None:
        project = seed()
        if project is None:
            self.stdout.write("There is a project already: nothing was seeded.")
            return
        waiting = project.quintets.waiting().count()
        ranked = project.quintets.filter(rankings__isnull=False).count()
        self.stdout.write(f"{project}: {waiting} quintets wait, {ranked} were ranked by simulated labelers.")
