"""Rounds, quintets, their rollouts, and the places that labelers take.

Places are made with the quintet, one for each labeler wanted, and the lease lies on the place's own locked row:
counting rankings over other tables gives two labelers the same place under load."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.prompts import Prompt


class Round(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["project", "number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="a_round_number_once")]

    def __str__(self) -> str:
        return f"round {self.number}"


class Quintet(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="quintets")
    round = models.ForeignKey(Round, models.PROTECT, related_name="quintets")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="quintets")
    run = models.ForeignKey("Run", models.SET_NULL, null=True, blank=True, related_name="quintets")
    # The follower of a run may see a line twice: (run, group) is what makes a quintet of it once.
    group = models.PositiveIntegerField(null=True, blank=True)
    external_id = models.CharField(max_length=200, blank=True)
    extra = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["run", "group"], name="a_sampled_group_once")]

    def __str__(self) -> str:
        return f"quintet {self.pk}"


class Rollout(models.Model):
    quintet = models.ForeignKey(Quintet, models.CASCADE, related_name="rollouts")
    slot = models.PositiveSmallIntegerField()
    text = models.TextField()
    finished = models.BooleanField(default=True, help_text="False: cut off at the greatest length.")
    checkpoint = models.ForeignKey("Checkpoint", models.PROTECT, null=True, blank=True, related_name="rollouts")
    extra = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["quintet", "slot"]
        constraints = [
            models.UniqueConstraint(fields=["quintet", "slot"], name="a_slot_once_a_quintet"),
            models.CheckConstraint(condition=models.Q(slot__lte=4), name="five_slots_at_most"),
        ]

    def __str__(self) -> str:
        return self.text[:80]


class Place(models.Model):
    """One labeler's seat at a quintet. `key` is minted when the quintet is shown and makes a submit idempotent."""

    quintet = models.ForeignKey(Quintet, models.CASCADE, related_name="places")
    number = models.PositiveSmallIntegerField(default=0)
    labeler = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="places")
    leased_until = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    key = models.UUIDField(null=True, blank=True, unique=True)
    # The slots in the order in which this labeler sees them.
    shown = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["quintet", "number"], name="a_place_number_once")]
        indexes = [models.Index(fields=["quintet"], condition=models.Q(done=False), name="open_places")]

    def __str__(self) -> str:
        return f"place {self.number} at {self.quintet}"
