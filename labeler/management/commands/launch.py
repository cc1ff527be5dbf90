"""`manage.py launch`: queue a run as the launch form does; with --wait, follow it to its end."""

import time

from django.db import OperationalError, connection

from labeler.management import BaseCommand, CommandError
from labeler.models import Checkpoint, Project, Run
from labeler.models.launching import LaunchedBefore
from labeler.models.probes import Alarm
from labeler.preview import UNKNOWN
from rlhf import config

A_LOOK = 1.0  # seconds


class Command(BaseCommand):
    help = "Launches a run in a project. With --wait it ends with 0 only when the run has finished."

    def add_arguments(self, parser):
        either_way = {"action": "store_true", "default": None, "dest": "simulated"}
        parser.add_argument("kind", choices=list(config.KINDS), help="What the run does.")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="values",
            help="May be repeated.",
        )
        parser.add_argument(
            "--from", type=int, metavar="ID", dest="start", help="A checkpoint to start from."
        )
        parser.add_argument("--reward", type=int, metavar="ID", help="A reward model; else the newest.")
        parser.add_argument("--against", type=int, metavar="ID", help="A second reward model to compare.")
        parser.add_argument("--dataset", type=int, metavar="ID", help="A frozen dataset; else one made now.")
        parser.add_argument("--include-simulated", help="Simulated rankings too.", **either_way)
        parser.add_argument(
            "--people-only", help="No simulated rankings.", **(either_way | {"action": "store_false"})
        )
        parser.add_argument("--again", action="store_true", help="Even if an equal run was launched before.")
        parser.add_argument("--wait", action="store_true", help="Tell how it goes, until it ends.")

    def handle(self, *, kind: str, project: str, wait: bool, **given) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project “{project}”.")
        try:
            run = Run.objects.launch(
                found,
                kind,
                config.assignments(given["values"]),
                None,
                start=self.known(Checkpoint.objects, given["start"], "checkpoint"),
                reward_model=self.known(Checkpoint.objects, given["reward"], "checkpoint"),
                against=self.known(Checkpoint.objects, given["against"], "checkpoint") or ...,
                dataset=self.known(found.datasets, given["dataset"], "dataset"),
                simulated=given["simulated"],
                again=given["again"],
            )
        except LaunchedBefore as before:
            raise CommandError(f"{before.message} Launch it once more with --again.") from None
        except config.Refused as refused:
            raise CommandError(refused.message) from None
        if run.kind == Run.Kind.POLICY and run.reward_model:
            self.stderr.write(Alarm.of(run.reward_model, found).words)
        for warning in run.foreseen.warnings if run.foreseen else []:
            self.stderr.write(warning)
        for each in run.foreseen.estimates if run.foreseen else []:
            if each.said != UNKNOWN:
                self.stderr.write(f"{each.label}: {each.said} ({each.how})")
        self.stdout.write(f"Run {run.pk} is queued.")
        if wait:
            self.follow(run)

    def known(self, rows, pk: int | None, what: str):
        found = rows.filter(pk=pk).first() if pk is not None else None
        if pk is not None and found is None:
            raise CommandError(f"There is no {what} {pk}.")
        return found

    def follow(self, run: Run) -> None:
        said = ""
        while run.is_live:
            if (line := self.look(run)) != said:
                said = line
                self.stdout.write(line)
            time.sleep(A_LOOK)
        if run.state != Run.State.FINISHED:
            how = "was cancelled" if run.state == Run.State.CANCELLED else "failed"
            raise CommandError(" ".join(f"Run {run.pk} {how}. {run.reason} {run.remedy}".split()))
        self.stdout.write(f"Run {run.pk} has finished.")

    def look(self, run: Run) -> str:
        try:
            run.refresh_from_db()
            return self.progress(run)
        except OperationalError:  # the run can do without it for a while, so this can too
            connection.close()
            return "The database does not answer at the moment."

    def progress(self, run: Run) -> str:
        """One line, the same for as long as nothing has changed."""
        newest = run.steps.last()
        numbers = newest.metrics if newest else {}
        words = [f"{name} {numbers[name]:.3g}" for name in ("loss", "reward", "kl") if name in numbers]
        if run.state == Run.State.QUEUED:
            return f"Run {run.pk} waits for the worker."
        where = f"{run.phase} {run.step}/{run.total}".strip() if run.total else run.phase or run.state
        return ", ".join([f"Run {run.pk}: {where}", *words])
