"""What agreement and audits are read from: sums kept up to date, so that no page adds up all rankings.

A trigger marks a quintet as stale in the transaction that changes any of its rankings, or who is excluded, or
what it is checked against, whatever code does it. labeler/agreement/folding.py then takes out of the sums
what the quintet added before (`Tallied` remembers it) and puts in what it adds now. Left out: what the sums
mean (labeler/agreement/figures.py)."""

from typing import Any

from django.db import models
from django.db.models import Count

from labeler.models.projects import Project


class StaleQuintetQuerySet(models.QuerySet["StaleQuintet"]):
    def of(self, project: Project) -> "StaleQuintetQuerySet":
        return self.filter(project_id=project.pk)

    def how_many(self) -> int:
        return self.aggregate(many=Count("quintet_id", distinct=True))["many"]


class StaleQuintet(models.Model):
    """A mark: the sums lack what changed here. Written by the triggers, perhaps more than once a quintet.

    Plain numbers instead of foreign keys: a mark outlives its quintet, whose part has to be taken out."""

    project_id = models.BigIntegerField()
    quintet_id = models.BigIntegerField()

    objects = StaleQuintetQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["project_id", "id"], name="stale_quintets")]

    def __str__(self) -> str:
        return f"quintet {self.quintet_id} is stale"


class Tallied(models.Model):
    """What a quintet looked like when it was last added to the sums."""

    quintet_id = models.BigIntegerField(primary_key=True)
    project_id = models.BigIntegerField(db_index=True)
    state = models.BinaryField()
    # What a review begins with: the lowest.
    tau = models.FloatField(null=True, help_text="Mean tau-b of every two people's rankings of it.")

    class Meta:
        indexes = [models.Index(fields=["project_id", "tau"], name="least_agreement")]

    def __str__(self) -> str:
        return f"quintet {self.quintet_id}, as it was added up"


class TallyQuerySet(models.QuerySet["Tally"]):
    def told_of(self, project: Project, simulated: bool, kind: int) -> dict[int, dict[str, Any]]:
        """The numbers of each round, labeler or arm, by its own number; of the project itself by 0."""
        found = self.filter(project=project, simulated=simulated, kind=kind)
        return dict(found.values_list("ref", "told"))


class Tally(models.Model):
    """The sums of a project, or of one of its rounds, labelers or arms: people's, or simulated labelers'."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="tallies")
    simulated = models.BooleanField()
    kind = models.PositiveSmallIntegerField()
    ref = models.BigIntegerField()
    version = models.PositiveSmallIntegerField()
    sums = models.BinaryField()
    replicates = models.BinaryField()
    told = models.JSONField(help_text="What the sums mean: the numbers that pages show.")

    objects = TallyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [
            models.UniqueConstraint(fields=["project", "simulated", "kind", "ref"], name="one_tally_a_scope")
        ]

    def __str__(self) -> str:
        return f"tally {self.kind}/{self.ref} of {self.project}"
