"""What each labeler has put into each round: what pages count with, however many rankings there are.

The database keeps these rows itself, by the triggers of migration 0009: whoever writes rankings and places,
one by one, in bulk or by COPY, is counted in the same transaction. Every labeler has rows of their own, so
that nobody waits for anybody at one counter."""

from django.db import models
from django.db.models import Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from labeler.models.people import User
from labeler.models.rounds import Round


class ContributionQuerySet(models.QuerySet["Contribution"]):
    def by_people(self) -> "ContributionQuerySet":
        return self.filter(labeler__simulated=False)

    def total(self) -> Coalesce:
        """How much these come to, in a query about whose they are."""
        # Grouped by nothing, so that there is one row.
        sums = self.order_by().annotate(none=Value(1)).values("none").annotate(sum=Sum("ranked"))
        return Coalesce(Subquery(sums.values("sum")), 0)

    def ranked(self) -> int:
        return self.aggregate(all=Sum("ranked"))["all"] or 0


class Contribution(models.Model):
    round = models.ForeignKey(Round, models.CASCADE, related_name="contributions")
    labeler = models.ForeignKey(User, models.CASCADE, related_name="contributions")
    ranked = models.IntegerField(default=0, help_text="Work, in its newest version; surplus included.")
    filled = models.IntegerField(default=0, help_text="Places of the round.")
    day = models.DateField()
    # Hidden checks included: nobody is to tell them from work by a number that stays as it is.
    today = models.IntegerField(default=0, help_text="Rankings of that day, without practice.")
    seconds = models.FloatField(default=0.0, help_text="With the page in front, for these.")

    objects = ContributionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "labeler"], name="one_contribution_a_round")]

    def __str__(self) -> str:
        return f"{self.ranked} rankings by {self.labeler}"

    @property
    def ranked_today(self) -> int:
        return self.today if self.is_of_today else 0

    @property
    def is_of_today(self) -> bool:
        return self.day == timezone.localdate()
