"""`manage.py worker`: the worker service, its two Celery nodes kept alive in the foreground. `bin/up` starts
the same two beside the web server."""

import asyncio
import os

from labeler.launcher import worker_nodes
from labeler.management import BaseCommand
from labeler.supervisor import Supervisor


class Command(BaseCommand):
    help = "Runs the worker: one node for runs, one for what people wait for."

    def handle(self, **options) -> None:
        asyncio.run(Supervisor([worker_nodes(dict(os.environ))]).run())
