"""A sheet: one person's page for one prompt, theirs for as long as they write an answer, so that no two write
for one prompt at once. What becomes of it is a demonstration (demonstrations.py).

What is written so far stays with the sheet when its lease runs out, and when it is skipped."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.contrib.auth.signals import user_logged_out
from django.core import signing
from django.db import connection, models, transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.functions import Coalesce
from django.dispatch import receiver
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.prompts import Prompt

LEASE = timedelta(minutes=30)
LONGEST = 100_000  # characters of an answer
TOO_LONG = f"An answer is at most {LONGEST:,} characters long."


class AnswerRefused(ValueError):
    """Why what was sent cannot be kept, in words for whoever wrote it."""


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
        from labeler.models.demonstrations import Demonstration  # they are built on this

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
