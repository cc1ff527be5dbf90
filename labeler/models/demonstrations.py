"""A demonstration: an ideal answer to a prompt, and where it comes from. People write it on a sheet of their
own, which is theirs for as long as they are at it, so that no two write for one prompt at once.

What was acknowledged is never lost: an edit keeps what stood there before, and what is withdrawn is only left
out. How rollouts come to be demonstrations is the matter of labeler/gathering.py, and what a dataset makes of
them of labeler/datasets/."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.core import signing
from django.db import connection, models, transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.functions import Coalesce, Length
from django.dispatch import receiver
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Guidelines, Membership, Project
from labeler.models.prompts import Prompt

LEASE = timedelta(minutes=30)
LONGEST = 100_000  # characters of an answer
LATELY = 20


class AnswerRefused(ValueError):
    """Why what was sent cannot be kept, in words for whoever wrote it."""


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
        ticket: "Ticket",
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
    def take_back(self, writer: User) -> "Sheet":
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


@dataclass(frozen=True)
class Ticket:
    """What a shown form carries: whose sheet it was, under which key, since when. Signed, so that an answer
    which comes back after the lease is still known to be from somebody who was shown the prompt."""

    sheet: "Sheet"
    key: uuid.UUID
    opened_at: datetime


class SheetQuerySet(models.QuerySet["Sheet"]):
    def open(self) -> "SheetQuerySet":
        return self.filter(done=False, skipped="")

    def take_turn(self, project: Project) -> None:
        """Whoever takes a sheet in this project does so alone, until their transaction ends."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('quintet-sheets'), %s::int)", [project.pk])

    @transaction.atomic
    def next_for(self, writer: User, project: Project, prompt: Prompt | None = None) -> "Sheet | None":
        """The sheet that this writer has before them, else one for the prompt with the fewest answers that
        nobody writes for at this moment; or for this `prompt`. None where there is nothing for them."""
        if project.memberships.filter(user=writer, paused_at__isnull=False).exists():
            return None
        self.take_turn(project)
        mine = self.open().filter(project=project, writer=writer).select_related("prompt")
        for sheet in mine.filter(prompt=prompt) if prompt else mine.order_by("-opened_at", "-pk"):
            if sheet.renew():
                return sheet.within(project)
        free = self._free(writer, project)
        chosen = free.filter(pk=prompt.pk).first() if prompt else free.first()
        if chosen is None:
            return None
        sheet, _ = self.get_or_create(prompt=chosen, writer=writer, defaults={"project": project})
        return sheet.within(project).seat()

    def _free(self, writer: User, project: Project) -> models.QuerySet[Prompt]:
        """Prompts that this writer neither answered nor skipped and nobody else is at, the barest first."""
        here = self.filter(prompt=OuterRef("pk"))
        had = here.filter(writer=writer).filter(Q(done=True) | ~Q(skipped=""))
        others = here.open().exclude(writer=writer).filter(leased_until__gt=timezone.now())
        counted = Demonstration.objects.filter(prompt=OuterRef("pk"), withdrawn_at=None).order_by()
        many = counted.values("prompt").annotate(many=Count("pk")).values("many")
        free = project.prompts.filter(~Exists(had), ~Exists(others))
        return free.annotate(answers=Coalesce(models.Subquery(many), 0)).order_by("answers", "pk")

    def hold(self, writer: User, project: Project) -> None:
        """The page is in use: the lease of what it shows begins anew."""
        newest = self.open().filter(project=project, writer=writer).order_by("-opened_at").first()
        if newest:
            newest.renew()

    def skipped(self, writer: User, project: Project) -> "SheetQuerySet":
        return self.filter(writer=writer, project=project).exclude(skipped="").select_related("prompt")

    def redeem(self, ticket: str, writer: User, project: Project) -> Ticket:
        """The ticket of a form that this writer was shown in this project; refused if it is anything else."""
        refused = AnswerRefused("This form is not one that you were shown. Here is your next prompt.")
        try:
            pk, owner, key, opened = signing.loads(ticket, salt=Sheet.SALT)
        except signing.BadSignature:
            raise refused from None
        found = self.filter(pk=pk, project=project, writer=writer).select_related("prompt", "writer").first()
        if owner != writer.pk or found is None:
            raise refused
        return Ticket(found.within(project), uuid.UUID(key), datetime.fromtimestamp(opened, tz=UTC))


class Sheet(models.Model):
    """One person's page for one prompt: leased while they write, done when they have sent it, or skipped."""

    SALT = "quintet.sheet"

    class Skipped(models.TextChoices):
        UNCLEAR = "unclear", "The prompt or the guidelines are unclear"
        CANNOT = "cannot", "I cannot answer this: language or subject"
        UPSETTING = "upsetting", "I do not want to write about this"
        BROKEN = "broken", "Something is broken"

    project = models.ForeignKey(Project, models.CASCADE, related_name="sheets")
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="sheets")
    writer = models.ForeignKey(User, models.CASCADE, related_name="sheets")
    key = models.UUIDField(default=uuid.uuid4)
    opened_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    # What the writer has so far, so that it survives a reload and a crash.
    draft = models.JSONField(null=True, blank=True)
    done = models.BooleanField(default=False)
    skipped = models.CharField(max_length=10, choices=Skipped, blank=True)

    objects = SheetQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["prompt", "writer"], name="one_sheet_a_writer")]

    def __str__(self) -> str:
        return f"the sheet of {self.writer}"

    def within(self, project: Project) -> "Sheet":
        """The same, so that asking for its project asks the database no more."""
        self.project = project
        return self

    def seat(self) -> "Sheet":
        """Give it to its writer anew: another key, another clock."""
        self.key, self.opened_at = uuid.uuid4(), timezone.now()
        self.leased_until = self.opened_at + LEASE
        self.save(update_fields=["key", "opened_at", "leased_until"])
        return self

    def renew(self) -> bool:
        """Begin the lease anew; False where somebody else is at this prompt since it ran out."""
        now = timezone.now()
        others = Sheet.objects.open().filter(prompt=self.prompt_id, leased_until__gt=now)
        if others.exclude(pk=self.pk).exists():
            return False
        if self.leased_until is None or self.leased_until < now:
            self.opened_at = now  # the hours away were no work
        self.leased_until = now + LEASE
        mine = Sheet.objects.open().filter(pk=self.pk)
        return mine.update(leased_until=self.leased_until, opened_at=self.opened_at) == 1

    def ticket(self) -> str:
        assert self.opened_at
        return signing.dumps(
            [self.pk, self.writer_id, str(self.key), self.opened_at.timestamp()], salt=self.SALT
        )

    def close(self) -> None:
        """What was written on it is sent."""
        Sheet.objects.filter(pk=self.pk).update(done=True, draft=None, leased_until=None, skipped="")

    def keep_draft(self, draft: dict[str, str] | None) -> None:
        """Keep what is written so far; nothing clears it. Raises AnswerRefused."""
        if draft and len(draft.get("completion", "")) > LONGEST:
            raise AnswerRefused(TOO_LONG)
        Sheet.objects.open().filter(pk=self.pk).update(draft=draft)

    def skip(self, reason: str) -> None:
        """Leave the prompt to others: it is not shown to this writer again unless they take that back."""
        if reason not in Sheet.Skipped.values:
            raise AnswerRefused("Say why you skip it: one of the reasons given.")
        Sheet.objects.filter(pk=self.pk, done=False).update(skipped=reason, leased_until=None)

    @transaction.atomic
    def unskip(self) -> bool:
        """As if it had not been skipped; False where somebody else writes for it by now."""
        Sheet.objects.take_turn(self.project)
        Sheet.objects.filter(pk=self.pk).update(skipped="", opened_at=timezone.now())
        self.refresh_from_db()
        return self.renew()


@receiver(user_logged_out)
def release_sheets(sender, user, **kwargs) -> None:
    """Who leaves is at no prompt any more; what they wrote so far waits for them."""
    if user is not None:
        Sheet.objects.open().filter(writer=user).update(leased_until=None)


TOO_LONG = f"An answer is at most {LONGEST:,} characters long."


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
