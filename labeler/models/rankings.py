"""A ranking: one labeler's ranks for one quintet, slot by slot. 1 is best, equal numbers are ties, dense."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from labeler.models.people import User
from labeler.models.quintets import Quintet


def _dense() -> Q:
    """Ranks are exactly {1..k} for some k: what the database itself refuses can never be trained on."""
    condition = Q()
    for top in range(1, 6):
        ranks = list(range(1, top + 1))
        condition |= Q(ranks__contains=ranks, ranks__contained_by=ranks)
    return condition


class Ranking(models.Model):
    quintet = models.ForeignKey(Quintet, models.PROTECT, related_name="rankings")
    labeler = models.ForeignKey(User, models.PROTECT, related_name="rankings")
    ranks = ArrayField(models.PositiveSmallIntegerField(), help_text="ranks[slot]: 1 is best.")
    shown = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True, help_text="From shown to submitted, by the server's clock.")
    key = models.UUIDField(null=True, blank=True, unique=True)
    surplus = models.BooleanField(default=False, help_text="Came after the quintet had all it wanted; kept.")
    simulated = models.BooleanField(default=False)
    extra = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["quintet", "labeler"], name="one_ranking_a_labeler"),
            models.CheckConstraint(condition=_dense(), name="ranks_are_dense"),
            models.CheckConstraint(
                condition=Q(ranks__len__gte=2) & Q(ranks__len__lte=5), name="two_to_five_ranks"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.labeler} on {self.quintet}"
