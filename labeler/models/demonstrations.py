"""A demonstration: an ideal answer to a prompt, and where it comes from. People write it on a sheet of their
own (sheets.py).

What was acknowledged is never lost: an edit keeps what stood there before, and what is withdrawn is only left
out. How rollouts come to be demonstrations is the matter of labeler/gathering.py, and what a dataset makes of
them of labeler/datasets/."""

import json
from collections.abc import Mapping
from typing import Any

from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.functions import Length
from django.utils import timezone

from labeler.models.guidelines import Guidelines
from labeler.models.people import User
from labeler.models.projects import Membership, Project
from labeler.models.prompts import Prompt
from labeler.models.sheets import LONGEST, TOO_LONG, AnswerRefused, Sheet, Ticket


class Origin(models.TextChoices):
    WRITTEN = "written", "written by a person"
    EDITED = "edited", "a rollout that a person edited"
    IMPORTED = "imported", "brought by an import"
    WON = "won", "a rollout that won its quintet"
    PASSED = "passed", "a rollout that a checker passed"
    PICKED = "picked", "a rollout that somebody picked in the playground"


BY_HAND = (Origin.WRITTEN, Origin.EDITED)


def told(counts: Mapping[str, int]) -> str:
    """How many of each origin, in words: `3 written, 40 imported`."""
    return ", ".join(f"{many:,} {origin}" for origin, many in counts.items()) or "none"


class DemonstrationQuerySet(models.QuerySet["Demonstration"]):
    def counted(self, *origins: str) -> "DemonstrationQuerySet":
        """Those that count: not withdrawn, by nobody who is excluded; where named, of these origins alone."""
        excluded = Membership.objects.filter(
            project=OuterRef("project"), user=OuterRef("author"), excluded_at__isnull=False
        )
        found = self.filter(withdrawn_at=None).exclude(Exists(excluded))
        return found.filter(origin__in=origins) if origins else found

    def by_origin(self) -> dict[str, int]:
        """How many of each origin, in the order in which origins are told; those that there are."""
        found = dict(self.order_by().values_list("origin").annotate(Count("pk")))
        return {each.value: found[each.value] for each in Origin if each.value in found}

    def written_by(self, writer: User) -> "DemonstrationQuerySet":
        return self.filter(author=writer, origin__in=BY_HAND)

    def changeable_by(self, writer: User) -> "DemonstrationQuerySet":
        """What one has written, and rollouts that one has picked, to be made what they should have been."""
        return self.filter(author=writer, origin__in=[*BY_HAND, Origin.PICKED])

    def left_to(self, writer: User) -> "DemonstrationQuerySet":
        """Without those that somebody else has withdrawn: whoever wrote one does not undo that."""
        return self.filter(Q(withdrawn_at=None) | Q(withdrawn_by=writer))

    def search(self, words: str) -> "DemonstrationQuerySet":
        """Those in whose text or prompt all of the words stand."""
        found = self.annotate(asked=models.functions.Cast("prompt__content", models.TextField()))
        for word in words.split():
            escaped = json.dumps(word, ensure_ascii=False)[1:-1]
            found = found.filter(Q(completion__icontains=word) | Q(asked__icontains=escaped))
        return found

    def with_length(self) -> "DemonstrationQuerySet":
        return self.annotate(characters=Length("completion"))

    @transaction.atomic
    def write(
        self,
        ticket: Ticket,
        completion: str,
        *,
        source: str | None = None,
        came_from: dict[str, Any] | None = None,
        focus_seconds: float | None = None,
    ) -> "Demonstration":
        """Keep what was written on a sheet, once for its key: the same form with another text is an edit, and
        after it was taken back a change of mind. `source`: the rollout that it began as. However late it
        comes, it is kept."""
        text, sheet = fit_to_keep(completion), ticket.sheet
        Sheet.objects.take_turn(sheet.project)
        if found := self.filter(key=ticket.key).first():
            if found.withdrawn_by == sheet.writer and not sheet.done:
                found.put_back(sheet.writer)
                sheet.close()
            return found if found.completion == text else found.rewrite(text, focus_seconds)
        made = self.create(
            project=sheet.project,
            prompt=sheet.prompt,
            completion=text,
            author=sheet.writer,
            origin=Origin.WRITTEN if source is None else Origin.EDITED,
            source=source or "",
            came_from=came_from or {},
            key=ticket.key,
            focus_seconds=focus_seconds,
            seconds=(timezone.now() - ticket.opened_at).total_seconds(),
            guidelines=sheet.project.newest_guidelines,
        )
        sheet.close()
        return made


class Demonstration(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="demonstrations")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="demonstrations")
    completion = models.TextField()
    author = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="demonstrations")
    origin = models.CharField(max_length=10, choices=Origin, default=Origin.WRITTEN)
    # Of an edited one: the rollout that it began as, word for word.
    source = models.TextField(blank=True)
    # Numbers of what it was: a quintet and a slot, or a step and a rollout's name. They may be gone by now.
    came_from = models.JSONField(default=dict, blank=True)
    run = models.ForeignKey(
        "Run", models.SET_NULL, null=True, blank=True, related_name="demonstrations",
        help_text="Whose rollout it was.",
    )  # fmt: skip
    extra = models.JSONField(default=dict, blank=True)
    whole = models.BooleanField(
        default=False, help_text="A conversation in which the assistant's earlier turns are learnt as well."
    )
    solution = models.BooleanField(
        default=False, help_text="It came with the prompt, as the worked solution of its answer."
    )
    brought_by = models.ForeignKey(
        "Import", models.SET_NULL, null=True, blank=True, related_name="demonstrations"
    )
    key = models.UUIDField(null=True, blank=True, help_text="Of the sheet that it was written on.")
    version = models.PositiveIntegerField(default=1)
    seconds = models.FloatField(null=True, blank=True, help_text="From shown to sent.")
    focus_seconds = models.FloatField(null=True, blank=True, help_text="With the page in front.")
    guidelines = models.ForeignKey(Guidelines, models.SET_NULL, null=True, blank=True, related_name="+")
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="Left out of every later dataset.")
    withdrawn_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DemonstrationQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["key"], condition=Q(key__isnull=False), name="an_answer_once_a_sheet"
            )
        ]
        indexes = [models.Index(fields=["project", "origin"], name="demonstrations_by_origin")]

    def __str__(self) -> str:
        return self.completion[:80]

    @transaction.atomic
    def rewrite(self, completion: str, focus_seconds: float | None = None) -> "Demonstration":
        """Another text in place of this one, which is kept beside it."""
        text = fit_to_keep(completion)
        was = Demonstration.objects.select_for_update(no_key=True).get(pk=self.pk)
        if was.completion != text:
            was.earlier.create(version=was.version, completion=was.completion)
            if was.origin == Origin.PICKED:
                was.origin, was.source = Origin.EDITED, was.completion
            was.completion, was.version = text, was.version + 1
        if focus_seconds:
            was.focus_seconds = (was.focus_seconds or 0.0) + focus_seconds
        was.save(update_fields=["completion", "version", "focus_seconds", "origin", "source"])
        return was

    @transaction.atomic
    def withdraw(self, by: User) -> None:
        """Out of every later dataset; the text stays, and can be put back."""
        self.withdrawn_at, self.withdrawn_by = timezone.now(), by
        self.save(update_fields=["withdrawn_at", "withdrawn_by"])
        self._audit(by, "withdraw", f"Demonstration {self.pk} is withdrawn.")

    @transaction.atomic
    def put_back(self, by: User) -> None:
        self.withdrawn_at = self.withdrawn_by = None
        self.save(update_fields=["withdrawn_at", "withdrawn_by"])
        self._audit(by, "put back", f"Demonstration {self.pk} counts again.")

    @transaction.atomic
    def take_back(self, writer: User) -> Sheet:
        """Withdraw what one has just sent, and have it before one again, as it was."""
        if self.withdrawn_at is None:
            self.withdraw(writer)
        draft = {"completion": self.completion, "focus_seconds": str(self.focus_seconds or 0)}
        draft |= (
            {"source": self.source, "from": str(self.came_from.get("rollout", ""))} if self.source else {}
        )
        Sheet.objects.take_turn(self.project)
        sheet, _ = Sheet.objects.get_or_create(
            prompt=self.prompt, writer=writer, defaults={"project": self.project}
        )
        sheet.draft, sheet.done, sheet.skipped = draft, False, ""
        sheet.save(update_fields=["draft", "done", "skipped"])
        sheet.seat()
        return sheet

    def _audit(self, by: User, action: str, words: str) -> None:
        self.project.audit.write(by, self.project, action, words, demonstration=self.pk)


class Earlier(models.Model):
    """What a demonstration said before it was edited."""

    demonstration = models.ForeignKey(Demonstration, models.CASCADE, related_name="earlier")
    version = models.PositiveIntegerField()
    completion = models.TextField()
    kept_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-version"]
        constraints = [
            models.UniqueConstraint(fields=["demonstration", "version"], name="an_earlier_version_once")
        ]

    def __str__(self) -> str:
        return f"version {self.version}"


def fit_to_keep(completion: str) -> str:
    """The text as it is kept. Raises AnswerRefused."""
    text = completion.replace("\0", "").replace("\r\n", "\n").strip()
    if not text:
        raise AnswerRefused("Write an answer first: nothing is in the field.")
    if len(text) > LONGEST:
        raise AnswerRefused(TOO_LONG)
    return text


class Rival(models.Model):
    """A written answer that stands in a quintet among rollouts, where nobody can tell it from them."""

    quintet = models.ForeignKey("Quintet", models.CASCADE, related_name="rivals")
    slot = models.PositiveSmallIntegerField()
    demonstration = models.ForeignKey(Demonstration, models.CASCADE, related_name="rivals")

    class Meta:
        ordering = ["quintet_id", "slot"]
        constraints = [models.UniqueConstraint(fields=["quintet", "slot"], name="a_rival_a_slot")]

    def __str__(self) -> str:
        return f"{self.demonstration} in {self.quintet}"
