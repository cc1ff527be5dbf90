"""An import: a file that becomes prompts, quintets or rankings, all of it or nothing, with its progress.

Here is what may happen to the row. What a file may look like, how it is read and how it is written is the
matter of labeler/intake/; who claims the row, of labeler/tasks.py."""

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from labeler.celery import ring
from labeler.models.people import User
from labeler.models.projects import Project

LEASE = timedelta(seconds=45)
TRIES = 3  # attempts that may die over one file
PATIENCE = timedelta(seconds=20)  # a worker that is there comes sooner


class UndoRefused(ValueError):
    """Why what an import brought cannot be taken out again, in words."""


class ImportQuerySet(models.QuerySet["Import"]):
    def claimable(self) -> "ImportQuerySet":
        """Those that wait, and those whose worker has not been heard of since its lease ran out."""
        return self.filter(
            Q(state=Import.State.WAITING) | Q(state=Import.State.WORKING, leased_until__lt=Now())
        )

    @transaction.atomic
    def keep(self, project: Project, name: str, file: BinaryIO, by: User | None) -> "Import":
        """A file that came from a page, kept under the home until it is imported or thrown away."""
        made = self.create(project=project, name=name[-300:], created_by=by)
        made.folder.mkdir(parents=True)
        with (made.folder / "file").open("wb") as kept:
            shutil.copyfileobj(file, kept, 1024 * 1024)
        made.path = f"imports/{made.pk}/file"
        made.bytes = made.file.stat().st_size
        made.save(update_fields=["path", "bytes"])
        return made

    @transaction.atomic
    def claim(self, pk: int) -> "Import | None":
        """The import, being worked on from now in a new attempt; None when it is not there to be had."""
        found = self.claimable().select_for_update(skip_locked=True, no_key=True).filter(pk=pk).first()
        if found is None:
            return None
        if found.state == Import.State.WORKING and found.attempt >= TRIES:
            found.fail(f"The worker died {found.attempt} times over this. Its log tells what happened.")
            return None
        self.filter(pk=pk).update(
            state=Import.State.WORKING,
            attempt=F("attempt") + 1,
            leased_until=Now() + LEASE,
            lines=0,
            bytes_read=0,
        )
        return self.select_related("project", "created_by").get(pk=pk)


class Import(models.Model):
    class State(models.TextChoices):
        PREVIEW = "preview"  # uploaded; the columns are being mapped
        WAITING = "waiting"
        WORKING = "working"
        CHECKED = "checked"  # a dry run has found it good
        FINISHED = "finished"
        REFUSED = "refused"  # nothing was kept; the errors say why
        FAILED = "failed"
        UNDONE = "undone"

    class Kind(models.TextChoices):
        PROMPTS = "prompts", "Prompts"
        ROLLOUTS = "rollouts", "Prompts with rollouts, to be ranked"
        RANKINGS = "rankings", "Rankings"
        DEMONSTRATIONS = "demonstrations", "Demonstrations: conversations, or prompts with answers"
        PAIRS = "pairs", "Pairs: chosen and rejected"
        WMT = "wmt", "Five-way rankings of WMT"

    LIVE = (State.WAITING, State.WORKING)
    OPEN = (State.PREVIEW, State.CHECKED, State.REFUSED, State.FAILED)  # it may be tried (again)

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports")
    state = models.CharField(max_length=10, choices=State, default=State.PREVIEW)
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.PROMPTS)
    name = models.CharField(max_length=300, help_text="Of the file, as it was uploaded.")
    path = models.CharField(max_length=300, blank=True, help_text="Relative to the home.")
    format = models.CharField(max_length=20, blank=True)
    mapping = models.JSONField(default=dict, blank=True, help_text="What each column of the file is.")
    dry_run = models.BooleanField(default=False)
    undo = models.BooleanField(default=False, help_text="What waits is not to bring in, but to take out.")
    bytes = models.PositiveBigIntegerField(default=0)
    bytes_read = models.PositiveBigIntegerField(default=0)
    lines = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    known = models.PositiveIntegerField(default=0)
    contradicted = models.PositiveIntegerField(
        default=0, help_text="Lines whose prompt was here with another answer, which stays."
    )
    left_out = models.PositiveIntegerField(default=0, help_text="Lines that say nothing, like unranked ones.")
    errors = models.PositiveIntegerField(default=0)
    first_errors = models.JSONField(default=list, blank=True)
    phase = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True)
    attempt = models.PositiveIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    asked_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = ImportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"import of {self.name}"

    @property
    def noun(self) -> str:
        """What it brings, and counts."""
        nouns = {"prompts": "prompts", "rollouts": "quintets", "demonstrations": "demonstrations"}
        return nouns.get(self.kind, "rankings")

    # Its files

    @property
    def folder(self) -> Path:
        return settings.HOME / "imports" / str(self.pk)

    @property
    def file(self) -> Path:
        return settings.HOME / self.path

    @property
    def errors_file(self) -> Path:
        """All errors, a line each; what the page shows are the first ones."""
        return self.folder / "errors.txt"

    def forget_file(self) -> None:
        """What it held is in the tables now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def throw_away(self) -> None:
        """The row and its file. For those that brought nothing: what was brought would lose its origin."""
        self.forget_file()
        self.delete()

    # What is asked

    def ask(self, *, dry_run: bool = False, undo: bool = False) -> bool:
        """Leave it to a worker; False where it is being worked on already, or cannot be asked that."""
        states = [Import.State.FINISHED] if undo else Import.OPEN
        asked = Import.objects.filter(pk=self.pk, state__in=states).update(
            state=Import.State.WAITING,
            dry_run=dry_run,
            undo=undo,
            asked_at=Now(),
            attempt=0,
            lines=0,
            bytes_read=0,
            reason="",
            phase="",
        )
        transaction.on_commit(self.ring, robust=True)
        return asked == 1

    def ring(self) -> None:
        ring("take_in", self.pk)

    @property
    def is_live(self) -> bool:
        return self.state in Import.LIVE

    @property
    def is_open(self) -> bool:
        return self.state in Import.OPEN

    @property
    def is_left_waiting(self) -> bool:
        """No worker has come for it, though one that is there would have."""
        asked = self.asked_at or self.created_at
        return self.state == Import.State.WAITING and not self.phase and timezone.now() > asked + PATIENCE

    @property
    def share_read(self) -> int:
        """Of the file, in percent."""
        return min(100, 100 * self.bytes_read // max(self.bytes, 1))

    @property
    def took(self) -> timedelta | None:
        return self.finished_at - self.asked_at if self.finished_at and self.asked_at else None

    # What becomes of it: every write of an attempt, and of no other

    def mine(self) -> ImportQuerySet:
        """The row, for as long as this attempt owns it."""
        return Import.objects.filter(pk=self.pk, attempt=self.attempt, state=Import.State.WORKING)

    def renew(self, lines: int, bytes_read: int, phase: str) -> bool:
        """Keep the row for longer, and tell whoever looks how far the attempt is."""
        told = {"lines": lines, "bytes_read": bytes_read, "phase": phase}
        return self.mine().update(leased_until=Now() + LEASE, **told) == 1

    def give_back(self) -> None:
        """To those that wait: this worker has to go."""
        self.mine().update(state=Import.State.WAITING, phase="", leased_until=None)

    def end(self, state: str, **said: Any) -> bool:
        """False where another attempt owns the import by now: then nothing of this one may stay."""
        ended = {"state": state, "phase": "", "leased_until": None, "finished_at": Now()}
        return self.mine().update(**ended, **said) == 1

    def fail(self, reason: str) -> None:
        """What was asked did not work out; an undo that did not leaves all as it was."""
        before = Import.State.FINISHED if self.undo else Import.State.FAILED
        self.end(before, reason=reason)

    # Out again

    def take_out(self) -> Mapping[str, int]:
        """Delete what this import brought, in the caller's transaction; how many of each. Raises UndoRefused.

        Its rows know it by `brought_by`. What others have come to use since stays: a prompt with other
        quintets, an account with other rankings."""
        from labeler.intake.undo import take_out  # it is built on all of the models

        return take_out(self)
