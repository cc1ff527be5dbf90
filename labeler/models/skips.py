"""A skip: a quintet that a labeler left to others, and why.

It is not a ranking and counts towards nothing. The place is free again at once, and the labeler is not shown
the quintet again unless they take the skip back. Skips by three different people set the quintet aside: it
leaves the queue, and a reviewer decides what becomes of it. How a place is skipped is said in places.py."""

from django.db import models, transaction

from labeler.models.people import User
from labeler.models.rankings import Purpose

SKIPS_ENOUGH = 3


class Skip(models.Model):
    class Reason(models.TextChoices):
        UNCLEAR = "unclear", "The prompt or the guidelines are unclear"
        CANNOT = "cannot", "I cannot judge this: language or subject"
        ALIKE = "alike", "All are equally good or bad"
        UPSETTING = "upsetting", "I do not want to read this"
        BROKEN = "broken", "Something is broken"

    quintet = models.ForeignKey("Quintet", models.CASCADE, related_name="skips")
    labeler = models.ForeignKey(User, models.CASCADE, related_name="skips")
    reason = models.CharField(max_length=10, choices=Reason)
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["quintet", "labeler"], name="one_skip_a_labeler")]

    def __str__(self) -> str:
        return f"{self.labeler} skipped {self.quintet}"

    def weigh(self, project) -> None:
        """Set the quintet aside where this was one skip too many. The caller holds the quintet's lock."""
        several = self.quintet.skips.count()
        if several >= SKIPS_ENOUGH and not self.quintet.set_aside_at:
            self.quintet.set_aside(None, f"{several} people skipped it.")

    @transaction.atomic
    def take_back(self):
        """As if it had not been: the labeler gets the place, where one is still free. None otherwise."""
        from labeler.models.desks import Desk  # a desk is a place's matter, and a place is skipped
        from labeler.models.places import Place

        project, labeler = self.quintet.project, self.labeler
        Desk.objects.locked(labeler, project)
        quintet = self.quintet.locked()
        if not Skip.objects.filter(pk=self.pk).delete()[0]:
            return quintet.places.filter(labeler=labeler, done=False).first()
        theirs = quintet.places.filter(labeler=labeler, done=True).exclude(purpose=Purpose.WORK)
        ranked = quintet.rankings.filter(labeler=labeler, current=True)
        check = theirs.exclude(purpose__in=ranked.values("purpose")).first()
        free = quintet.places.waiting().vacant().served_to(labeler)
        place = check or free.select_for_update(no_key=True, of=("self",)).first()
        if place:
            Place.objects.filter(pk=place.pk).update(done=False)
            place.seat(labeler)
        return place
