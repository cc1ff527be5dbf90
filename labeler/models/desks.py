"""A labeler's desk in a project: how far they have come in its queue, and when a hidden check is due.

Its row is what the labeler's claims and submits take turns on, so that two tabs never do one thing twice.
Which place comes next is decided in places.py; what a check says about a labeler, in checks.py."""

import math
import random
from datetime import datetime

from django.db import models

from labeler.models.people import User
from labeler.models.projects import Membership, Project
from labeler.models.rankings import Purpose

# In SQL, because it is asked twice for each ranking.
LOCKED = """
SELECT desk.*, member.id AS member, member.paused_at, member.excluded_at, member.practised_at
FROM labeler_desk desk LEFT JOIN labeler_membership member
    ON member.project_id = desk.project_id AND member.user_id = desk.labeler_id
WHERE desk.project_id = %(project)s AND desk.labeler_id = %(labeler)s FOR NO KEY UPDATE OF desk
"""


class DeskQuerySet(models.QuerySet["Desk"]):
    def locked(self, labeler: User, project: Project) -> "Desk":
        """The labeler's desk, theirs alone until the transaction ends, with what their membership says."""
        about = {"labeler": labeler.pk, "project": project.pk}
        desk = next(iter(self.raw(LOCKED, about)), None)
        if desk is None:
            self.get_or_create(project=project, labeler=labeler)
            desk = self.raw(LOCKED, about)[0]
        desk.project, desk.labeler = project, labeler
        return desk


class Desk(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="desks")
    labeler = models.ForeignKey(User, models.CASCADE, related_name="desks")
    # How far the labeler has come: what they ranked and others still have to is not looked at every time.
    priority = models.FloatField(null=True, blank=True)
    place = models.BigIntegerField(default=0)
    served = models.PositiveIntegerField(default=0, help_text="Quintets given to them, checks included.")

    # Their membership's number, if they are a member, and what it says of them.
    member: int | None = None
    paused_at: datetime | None = None
    excluded_at: datetime | None = None
    practised_at: datetime | None = None

    objects = DeskQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "labeler"], name="one_desk_a_project")]

    def __str__(self) -> str:
        return f"the desk of {self.labeler}"

    def of(self, member: Membership | None) -> "Desk":
        """The same, of this member."""
        if member:
            self.member, self.practised_at = member.pk, member.practised_at
            self.paused_at, self.excluded_at = member.paused_at, member.excluded_at
        return self

    def due(self) -> Purpose:
        """What to serve next. Checks come once in every stretch as long as their rate says, at a spot in it
        that differs by labeler and stretch: exact shares, no clumps, and nothing to count on."""
        gold, repeat = self.project.gold_rate, self.project.repeat_rate
        rate = min(gold + repeat, 1.0)
        if rate <= 0 or (number := self._check_at(self.served, rate)) is None:
            return Purpose.WORK
        # Of the checks, the share that is gold, spread as evenly.
        share = gold / (gold + repeat)
        is_gold = math.floor((number + 1) * share + 1e-9) > math.floor(number * share + 1e-9)
        return Purpose.GOLD if is_gold else Purpose.REPEAT

    def _check_at(self, serving: int, rate: float) -> int | None:
        """The number of the check that falls on this serving, if one does."""
        stretch = math.floor(serving * rate)
        for number in (stretch - 1, stretch, stretch + 1):
            if number >= 0 and math.floor((number + self._spot(number)) / rate) == serving:
                return number
        return None

    def _spot(self, number: int) -> float:
        return random.Random(f"project {self.project_id}, labeler {self.labeler_id}, check {number}").random()
