"""A run, its steps and its samples, as the pages read them. Postgres is the truth about a run; the broker is
a doorbell. `attempt` is the fence: what an older attempt still writes is refused.

Here is what may happen to the row, and what the run directory is given. What it is launched with is chosen
in launching.py; its process, and the lines that it writes, are the matter of tasks.py and follower.py."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Case, Count, F, Max, Q, When
from django.db.models.functions import Coalesce, Now
from django.db.models.signals import post_save
from django.dispatch import receiver

from labeler.celery import ring
from labeler.models.audit import AuditEntry
from labeler.models.checkpoints import Checkpoint, link_or_copy
from labeler.models.datasets import Dataset
from labeler.models.launching import Launching
from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.quintets import Quintet
from labeler.models.rankings import Ranking
from labeler.models.rounds import Round
from rlhf import checkers, config, data

if TYPE_CHECKING:
    from labeler.preview import Preview

LEASE = timedelta(seconds=45)
TRIES = 3  # attempts that may die one after the other without having saved a checkpoint
PAUSE = timedelta(hours=1)  # after a rollouts run that failed, before another is launched by itself


logger = logging.getLogger(__name__)


class FencedOff(Exception):
    """This attempt no longer owns the run: its lease ran out and another took over, or the run has ended."""


class RunQuerySet(Launching):
    def live(self) -> "RunQuerySet":
        return self.filter(state__in=Run.LIVE)

    def claimable(self) -> "RunQuerySet":
        """Those that wait, and those whose worker has not been heard of since its lease ran out."""
        return self.filter(Q(state=Run.State.QUEUED) | Q(state=Run.State.RUNNING, leased_until__lt=Now()))

    def in_turn(self) -> "RunQuerySet":
        """The order in which a worker takes them, of all projects: what was begun and lost, what somebody
        moved to the front, then the oldest."""
        begun = Case(When(state=Run.State.RUNNING, then=0), default=1, output_field=models.IntegerField())
        return self.order_by(begun, "-ahead", "pk")

    def turns(self) -> dict[int, int]:
        """Of each that waits, how many run or are to run before it."""
        waiting = list(self.claimable().in_turn().values_list("pk", flat=True))
        running = self.live().exclude(pk__in=waiting).count()
        return {pk: running + place for place, pk in enumerate(waiting)}

    def claim_next(self, worker: str) -> "Run | None":
        """The run whose turn it is. Which one a message was sent for makes no difference: nothing passes by
        the order that the queue's page shows."""
        for pk in list(self.claimable().in_turn().values_list("pk", flat=True)):
            if run := self.claim(pk, worker):
                return run
        return None

    @transaction.atomic
    def claim(self, pk: int, worker: str) -> "Run | None":
        """The run, running from now on in a new attempt of `worker`; None when it is not there to be had.

        The lease is set in the same statement, so no run ever says "running" without one."""
        run = self.claimable().select_for_update(skip_locked=True, no_key=True).filter(pk=pk).first()
        if run is None:
            return None
        if run.state == Run.State.RUNNING:
            run.lost += 1
        if run.cancel_requested:
            run.end(Run.State.CANCELLED)
            return None
        if run.lost >= TRIES:
            run.give_up("Its worker was not heard of again.", LOST_REMEDY)
            return None
        self.filter(pk=pk).update(
            state=Run.State.RUNNING,
            attempt=F("attempt") + 1,
            leased_until=Now() + LEASE,
            lost=run.lost,
            worker=worker,
            phase="starting",
            started_at=Coalesce("started_at", Now()),
        )
        return self.select_related("project", "round", "start", "reward_model", "judge_model", "dataset").get(
            pk=pk
        )

    def top_up(self, project: Project) -> "Run | None":
        """Launch one rollouts run where fewer quintets wait than the project wants, on the prompts that have
        the fewest. None where enough wait, where one is on its way, or where it could not go well."""
        if not self._short(project):
            return None
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            lacking = self._short(project)  # by now another one may be on its way
            prompts = project.prompts.annotate(so_far=Count("quintets")).order_by("so_far", "pk")
            chosen = list(prompts[: lacking + project.keep_waiting]) if lacking else []
            if not chosen:
                return None
            # Another seed each time, or a prompt's second quintet would be its first one again.
            seed = {"seed": project.runs.filter(kind=Run.Kind.ROLLOUTS).count()}
            try:
                return self.launch(project, Run.Kind.ROLLOUTS, seed, None, prompts=chosen, again=True)
            except config.Refused as refused:
                logger.warning("No rollouts are sampled for %s: %s", project.slug, refused.message)
                return None

    def _short(self, project: Project) -> int:
        """How many quintets must be sampled, so that as many wait as the project wants."""
        if project.judge != Project.Judge.PEOPLE or not project.start_id or not project.keep_waiting:
            return 0
        runs = project.runs.filter(kind=Run.Kind.ROLLOUTS, contenders=None)
        went_wrong = Q(state__in=[Run.State.FAILED, Run.State.CANCELLED], finished_at__gt=Now() - PAUSE)
        if runs.live().exists() or runs.filter(went_wrong, start=project.start_id).exists():
            return 0
        waiting = Quintet.objects.waiting().filter(project=project)[: project.keep_waiting].count()
        return project.keep_waiting - waiting


LOST_REMEDY = "Look at the log and at the machine's memory, then launch the run again: it begins anew."


class Run(models.Model):
    class Kind(models.TextChoices):
        ROLLOUTS = "rollouts", "rollouts"
        SFT = "sft", "supervised finetuning"
        REWARD = "reward", "reward model"
        POLICY = "policy", "policy (RLHF)"
        EVALUATION = "evaluation", "evaluation"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        FINISHED = "finished"
        FAILED = "failed"
        CANCELLED = "cancelled"

    LIVE = (State.QUEUED, State.RUNNING)

    project = models.ForeignKey(Project, models.CASCADE, related_name="runs")
    round = models.ForeignKey(Round, models.PROTECT, null=True, blank=True, related_name="runs")
    kind = models.CharField(max_length=12, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    config = models.JSONField(default=dict, help_text="The config that ran, not the one being edited.")
    fingerprint = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="Of all that it was given, to find an equal run by.",
    )
    start = models.ForeignKey(Checkpoint, models.PROTECT, null=True, blank=True, related_name="started_runs")
    reward_model = models.ForeignKey(
        Checkpoint, models.PROTECT, null=True, blank=True, related_name="judged_runs"
    )
    against = models.ForeignKey(
        Checkpoint,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="compared_runs",
        help_text="The second reward model, where an evaluation compares two.",
    )
    dataset = models.ForeignKey(Dataset, models.PROTECT, null=True, blank=True, related_name="runs")
    checker = models.JSONField(
        default=dict, blank=True, help_text="What compares the answers of a policy run, with its options."
    )
    judge_model = models.ForeignKey(
        Checkpoint, models.PROTECT, null=True, blank=True, related_name="judging_runs"
    )

    attempt = models.PositiveIntegerField(default=0)
    lost = models.PositiveSmallIntegerField(
        default=0, help_text="Attempts that died since the last checkpoint was saved."
    )
    leased_until = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    cancel_requested = models.BooleanField(default=False)
    ahead = models.PositiveIntegerField(
        default=0, help_text="Above 0 it was moved to the front of the queue; the largest goes first."
    )

    device = models.CharField(max_length=200, blank=True)
    phase = models.CharField(max_length=60, blank=True)
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    cursors = models.JSONField(
        default=dict, blank=True, help_text="How far each line file has been followed."
    )
    result = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    field = models.CharField(max_length=60, blank=True)
    log_tail = models.TextField(blank=True)

    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = RunQuerySet.as_manager()
    foreseen: "Preview | None" = None  # what was said of it as it was launched; not kept

    class Meta:
        ordering = ["-pk"]
        constraints = [
            # A run that says "running" always has a lease that can run out.
            models.CheckConstraint(
                condition=~models.Q(state="running") | models.Q(leased_until__isnull=False),
                name="running_is_leased",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} run {self.pk}"

    @property
    def is_live(self) -> bool:
        return self.state in Run.LIVE

    @property
    def judged(self) -> str:
        """By whose word its reward is: `rules`, `mixed` or a `model`; empty for runs without a reward."""
        if self.kind != Run.Kind.POLICY:
            return ""
        checker, reward = self.config.get("checker", ""), self.config.get("reward", "")
        return config.PolicyConfig(checker=checker, reward=reward).judged

    @property
    def directory(self) -> Path:
        return settings.HOME / "runs" / str(self.pk)

    def ring(self) -> None:
        ring("execute", self.pk)

    def cancel(self, by: User | None = None) -> None:
        """Take it off the queue, or ask the one that works on it to stop after its step."""
        waiting = Run.objects.filter(pk=self.pk, state=Run.State.QUEUED)
        reason = f"Taken off the queue by {by}." if by else ""
        ended = {
            "state": Run.State.CANCELLED,
            "finished_at": Now(),
            "cancel_requested": True,
            "reason": reason,
        }
        stopped = waiting.update(**ended)
        if not stopped:
            running = Run.objects.filter(pk=self.pk, state=Run.State.RUNNING, cancel_requested=False)
            stopped = running.update(cancel_requested=True)
        if stopped and by:
            AuditEntry.objects.write(by, self.project, "run stopped", f"Stopped {self}.", run=self.pk)
        self.refresh_from_db()

    @transaction.atomic
    def move_to_front(self, by: User | None) -> bool:
        """Before all others that wait, whosever they are; False where it does not wait any more."""
        waiting = Run.objects.filter(state=Run.State.QUEUED)
        first = waiting.aggregate(most=Max("ahead"))["most"] or 0
        if not waiting.filter(pk=self.pk).update(ahead=first + 1):
            return False
        words = f"Moved {self} to the front of the queue."
        AuditEntry.objects.write(by, self.project, "run moved", words, run=self.pk)
        self.refresh_from_db()
        return True

    # What the directory is given

    def keep_inputs(self, lines: Mapping[str, list[dict[str, Any]]]) -> None:
        """The directory of a new run, with its prompts and probes as they are now."""
        if self.directory.exists():  # from a database that was put back to an earlier day
            self.directory.rename(self.directory.with_name(f"{self.pk}.before-{time.time_ns()}"))
        self.directory.mkdir(parents=True)
        for name, each in lines.items():
            if each:
                data.write_lines(self.directory / f"{name}.jsonl", each)

    def prepare_directory(self) -> None:
        """Everything that the trainer asks for, config.json last: where that is, an earlier attempt was here.
        Raises OSError."""
        if (self.directory / "config.json").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        given = {"policy": self.start, "reward": self.reward_model, "against": self.against}
        given["judge"] = self.judge_model
        for name, checkpoint in given.items():
            target = self.directory / "inputs" / name
            if checkpoint and not checkpoint.is_hub and not target.exists():
                checkpoint.put_into(target)
        if self.dataset:
            lines = self.directory / "dataset.jsonl"
            lines.unlink(missing_ok=True)
            link_or_copy(settings.HOME / self.dataset.path, lines)
        if self.checker:
            (self.directory / checkers.FILE).write_text(data.dumps(self.checker) + "\n", encoding="utf-8")
        if self.kind == Run.Kind.EVALUATION:
            self._put_what_was_learnt()
        config.write(self.directory, config.make(self.kind, self.config))

    def _put_what_was_learnt(self) -> None:
        """The datasets of the reward models that are measured: what they taught can then be left out."""
        models = [each for each in (self.reward_model, self.against) if each and each.run]
        for dataset in {each.run.dataset for each in models if each.run and each.run.dataset}:
            source = settings.HOME / dataset.path
            target = self.directory / "inputs" / "learnt" / f"{dataset.sha256}.jsonl"
            if source.exists() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                link_or_copy(source, target)

    # What the attempt that owns it does with it

    def mine(self) -> RunQuerySet:
        """The row, for as long as this attempt owns it."""
        return Run.objects.filter(pk=self.pk, attempt=self.attempt, state=Run.State.RUNNING)

    def renew(self) -> bool:
        """Begin the lease anew; False when the run is no longer this attempt's."""
        return self.mine().update(leased_until=Now() + LEASE) == 1

    @contextlib.contextmanager
    def held(self) -> Iterator["Run"]:
        """The row as it is now, locked: all that is written inside is this attempt's, or nothing is."""
        with transaction.atomic():
            row = self.mine().select_for_update(no_key=True).first()
            if row is None:
                raise FencedOff
            yield row

    def give_back(self, *, lost: bool = False, because: str = "", remedy: str = "") -> None:
        """To the queue again. An attempt that was lost counts: after too many the run has failed."""
        with self.held() as row:
            row.lost += lost
            if row.cancel_requested:
                row.end(Run.State.CANCELLED)
            elif row.lost >= TRIES:
                row.give_up(because, remedy)
            else:
                row.state, row.leased_until, row.phase = Run.State.QUEUED, None, ""
                row.save(update_fields=["state", "leased_until", "phase", "lost"])
                if lost:
                    transaction.on_commit(row.ring, robust=True)

    def give_up(self, because: str, remedy: str) -> None:
        """The end, after attempts that died. The caller holds the row."""
        times = f"{self.lost} times in a row the run ended before it could save a checkpoint."
        self.end(Run.State.FAILED, reason=f"{times} {because}", remedy=remedy)

    def end(self, state: str, **said: Any) -> None:
        """The end, whichever: `said` are reason, remedy, field and result. The caller holds the row."""
        for name, value in said.items():
            setattr(self, name, value)
        self.state, self.leased_until, self.phase = state, None, ""
        self.save(update_fields=["state", "leased_until", "phase", "lost", *said])
        Run.objects.filter(pk=self.pk).update(finished_at=Now())


def storable(value: Any) -> Any:
    """The same without NUL characters, which a model may well write and Postgres cannot hold."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(name): storable(each) for name, each in value.items()}
    return value


@receiver(post_save, sender=Ranking)
def _one_less_waits(instance: Ranking, created: bool, **_: Any) -> None:
    """A ranking may have taken the last quintet but nineteen: then more are sampled."""
    if created and not instance.simulated:
        project = instance.quintet.project
        transaction.on_commit(lambda: Run.objects.top_up(project), robust=True)


class Step(models.Model):
    run = models.ForeignKey(Run, models.CASCADE, related_name="steps")
    step = models.PositiveIntegerField()
    metrics = models.JSONField()

    class Meta:
        ordering = ["run", "step"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="a_step_once")]

    def __str__(self) -> str:
        return f"step {self.step} of {self.run}"


class Sample(models.Model):
    """What the model says to one of the run's fixed prompts at an evaluated step: the line as written."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="samples")
    step = models.PositiveIntegerField()
    index = models.PositiveIntegerField()
    line = models.JSONField()

    class Meta:
        ordering = ["run", "step", "index"]
        constraints = [models.UniqueConstraint(fields=["run", "step", "index"], name="a_sample_once")]

    def __str__(self) -> str:
        return f"sample {self.index} at step {self.step} of {self.run}"
