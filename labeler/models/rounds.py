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
    whole = models.BooleanField(
        default=False, help_text="Launches stage after stage by itself, and stops where a person decides."
    )
    whole_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    halted = models.CharField(
        max_length=500, blank=True, help_text="Why it does so no more, where nobody said so."
    )
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
    def run_whole(self, by: User, on: bool) -> None:
        """Launch stage after stage from now on; or no more. What runs goes on. Raises RoundRefused."""
        Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        self.refresh_from_db(fields=["whole", "closed_at"])
        if self.closed_at:
            raise RoundRefused(f"Round {self.number} is closed.")
        if self.whole == on:
            return
        self.whole, self.whole_by, self.halted = on, by if on else None, ""
        self.save(update_fields=["whole", "whole_by", "halted"])
        how = "stage after stage by itself from now on" if on else "nothing by itself any more"
        words, action = f"Round {self.number} launches {how}.", f"whole round {'on' if on else 'off'}"
        AuditEntry.objects.write(by, self.project, action, words, round=self.number)

    @transaction.atomic
    def halt(self, because: str) -> None:
        """Launch nothing more by itself: something has to be seen to first. The caller holds the project."""
        self.whole, self.halted = False, because[:500]
        self.save(update_fields=["whole", "halted"])
        words = f"Round {self.number} launches nothing by itself any more: {because}"
        AuditEntry.objects.write(None, self.project, "whole round halted", words[:500], round=self.number)

    @transaction.atomic
    def decide(self, stage: str, by: User, words: str, **about) -> None:
        """Somebody has seen what a stage came to, and the next may begin. Decided twice is decided once."""
        _, made = self.gates.get_or_create(stage=stage, defaults={"by": by, "about": about})
        if made:
            AuditEntry.objects.write(by, self.project, "gate passed", words[:500], round=self.number, **about)

    @transaction.atomic
    def take_back(self, stage: str, by: User) -> None:
        """As if nobody had decided. The caller holds the project, and knows that nothing was made of it."""
        if self.gates.filter(stage=stage).delete()[0]:
            words = f"Round {self.number}: that “{stage}” is done is taken back."
            AuditEntry.objects.write(by, self.project, "take back", words, round=self.number)

    @transaction.atomic
    def close(self, by: User | None) -> "Round":
        """Serve it no longer and begin the next, which is returned. Raises RoundRefused."""
        Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        if Round.objects.current(self.project) != self:
            raise RoundRefused(f"Round {self.number} is closed already.")
        if not self.quintets.exists():
            raise RoundRefused(f"Nothing is in round {self.number} yet, so there is nothing to close.")
        self.closed_at, self.whole = timezone.now(), False
        self.save(update_fields=["closed_at", "whole"])
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


class Gate(models.Model):
    """That a person has decided about a stage of a round, so that the next may begin."""

    class Stage(models.TextChoices):
        RANKING = "ranking", "enough is ranked"
        REWARD = "reward", "the reward model will do"
        POLICY = "policy", "the policy goes to the face-off"

    round = models.ForeignKey(Round, models.CASCADE, related_name="gates")
    stage = models.CharField(max_length=10, choices=Stage)
    by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    about = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["round", "stage"], name="a_gate_once_a_round")]

    def __str__(self) -> str:
        return f"{self.round}: {self.get_stage_display()}"
