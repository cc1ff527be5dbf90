"""A flag: a ranking that somebody wants reviewed, why, and what said so.

It stands on the review list until its quintet is reviewed. Setting and lowering one is said in
labeler/review.py."""

from django.db import models
from django.db.models import F, Max, Q
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.rankings import Ranking


class FlagQuerySet(models.QuerySet["Flag"]):
    def open(self) -> "FlagQuerySet":
        """Those whose quintet nobody has reviewed since."""
        quintet = "ranking__quintet__reviewed_at"
        return self.filter(Q(**{quintet: None}) | Q(created_at__gt=F(quintet)))

    def quintets(self, project: Project) -> "models.QuerySet[Flag, tuple[int, object]]":
        """The numbers of the project's quintets that have one of these, with when it was set, the last first.
        What is set aside has its own place on the list."""
        found = self.filter(ranking__quintet__project=project, ranking__quintet__set_aside_at=None)
        last = found.order_by().values_list("ranking__quintet").annotate(last=Max("created_at"))
        return last.order_by("-last", "ranking__quintet")

    def told(self) -> "FlagQuerySet":
        """With all that a page says of them."""
        return self.select_related("ranking__labeler", "by", "run").order_by("created_at", "pk")


class Flag(models.Model):
    class Reason(models.TextChoices):
        REWARD_MODEL = "reward model", "the reward model disagrees"

    ranking = models.ForeignKey(Ranking, models.CASCADE, related_name="flags")
    reason = models.CharField(max_length=20, choices=Reason)
    run = models.ForeignKey(
        "Run",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whose reward model disagrees.",
    )
    step = models.PositiveIntegerField(null=True, blank=True, help_text="At which measured step it did.")
    by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = FlagQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["ranking", "reason"], name="a_ranking_once_for_a_reason")
        ]

    def __str__(self) -> str:
        return f"{self.ranking}: {self.get_reason_display()}"
