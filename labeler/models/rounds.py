"""A round: rollouts → rankings → reward model → policy, numbered in its project; and what closing one means.

A closed round is served to nobody any more. Whoever sits at one of its quintets may finish it, and a ranking
that comes later still is kept as surplus. The places that nobody took are done without a labeler, so that the
queue need not look at them; opening the round again gives them back. Closing one begins the next."""

from django.db import models, transaction
from django.utils import timezone

from labeler.models.audit import AuditEntry
from labeler.models.people import User
from labeler.models.projects import Project


class RoundRefused(ValueError):
    """Why a round cannot be closed or opened again, in words."""


class RoundQuerySet(models.QuerySet["Round"]):
    def current(self, project: Project) -> "Round":
        """The project's latest round that is not closed; the first one is made when it is first asked for."""
        latest = self.filter(project=project).last()
        if latest and latest.closed_at is None:
            return latest
        return self.get_or_create(project=project, number=latest.number + 1 if latest else 1)[0]

    def ranked(self, project: Project) -> "Round":
        """The latest round with rankings, to which a reward model belongs that is trained now, though the
        round may have been closed before; the current one where there are none."""
        work = {"quintets__rankings__purpose": "work", "quintets__rankings__current": True}
        return self.filter(project=project, **work).last() or self.current(project)


class Round(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    # Kept by the database, like each labeler's contribution.
    wanted = models.IntegerField(default=0, editable=False, help_text="Places that are not closed.")

    objects = RoundQuerySet.as_manager()

    class Meta:
        ordering = ["project", "number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="a_round_number_once")]

    def __str__(self) -> str:
        return f"round {self.number}"

    def save(self, *args, **kwargs):
        if not self._state.adding and kwargs.get("update_fields") is None:
            # What the database counts is never written over by what was read before.
            names = [each.name for each in self._meta.concrete_fields if not each.primary_key]
            kwargs["update_fields"] = [name for name in names if name != "wanted"]
        super().save(*args, **kwargs)

    @transaction.atomic
    def close(self, by: User | None) -> "Round":
        """Serve it no longer and begin the next, which is returned. Raises RoundRefused."""
        Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        if Round.objects.current(self.project) != self:
            raise RoundRefused(f"Round {self.number} is closed already.")
        if not self.quintets.exists():
            raise RoundRefused(f"Nothing is in round {self.number} yet, so there is nothing to close.")
        self.closed_at = timezone.now()
        self.save(update_fields=["closed_at"])
        vacant = {"leased_until": None, "opened_at": None, "key": None, "shown": None, "draft": None}
        left = self._places().filter(done=False).vacant().update(done=True, labeler=None, **vacant)
        words = f"Round {self.number} closed; {left:,} of its places stay empty."
        AuditEntry.objects.write(by, self.project, "close round", words, round=self.number, left=left)
        return Round.objects.current(self.project)

    @transaction.atomic
    def reopen(self, by: User | None) -> None:
        """Serve it again, as if it had not been closed: only while nothing has come of that. Raises
        RoundRefused."""
        Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        later = Round.objects.filter(project=self.project_id, number__gt=self.number)
        if Round.objects.filter(pk=self.pk, closed_at=None).exists():
            raise RoundRefused(f"Round {self.number} is open.")
        if later.filter(models.Q(quintets__isnull=False) | models.Q(runs__isnull=False)).exists():
            raise RoundRefused(f"Round {self.number} stays closed: the next one has begun.")
        later.delete()
        self.closed_at = None
        self.save(update_fields=["closed_at"])
        self.quintets.all().fit(self.project)
        AuditEntry.objects.write(
            by, self.project, "reopen round", f"Round {self.number} opened again.", round=self.number
        )

    def _places(self):
        from labeler.models.places import Place  # places are at quintets, which belong to rounds

        return Place.objects.filter(quintet__round=self, purpose="work")
