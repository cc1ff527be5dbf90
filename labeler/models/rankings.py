"""A ranking: one labeler's ranks for one quintet, slot by slot. 1 is best, equal numbers are ties, dense.

How a ranking comes to be is said in quintets.py (`Quintet.record_ranking`); agreement and datasets live
elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Count, Exists, OuterRef, Q
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Membership
from rlhf.data import dense


class Purpose(models.TextChoices):
    """Why a quintet is shown. Only work is trained on and counted as the project's rankings."""

    WORK = "work", "Work"
    GOLD = "gold", "Hidden check against known ranks"
    REPEAT = "repeat", "Hidden check against one's own earlier ranking"
    PRACTICE = "practice", "Practice"


class Arm(models.TextChoices):
    """How a quintet came to its place in the queue, so that choosing by uncertainty can be measured."""

    ORDER = "order", "In order"
    RANDOM = "random", "At random"
    UNCERTAIN = "uncertain", "The reward model is unsure"


class RankingRefused(ValueError):
    """What was sent is no ranking of these rollouts; the message says why, in words for the labeler."""


class AlreadyRanked(RankingRefused):
    """This labeler's ranking of the quintet is stored, and stands."""

    message = "You have ranked this one already. That ranking stands."

    def __init__(self, stored: "Ranking"):
        super().__init__(self.message)
        self.stored = stored


class SentOtherwise(AlreadyRanked):
    """The same form came before, with other ranks."""

    message = "This form was sent before with other ranks. The first ones stand."


def checked_ranks(ranks: Sequence[int | None], rollouts: int, *, ties: bool) -> list[int]:
    """A rank for exactly these rollouts, dense; refused otherwise. Without ties every rank is given once."""
    if len(ranks) != rollouts:
        raise RankingRefused(f"There are {rollouts} rollouts, but {len(ranks)} ranks came.")
    if missing := sum(rank is None for rank in ranks):
        raise RankingRefused(
            f"{missing} of the {rollouts} rollouts {'has' if missing == 1 else 'have'} no rank yet."
        )
    given = [rank for rank in ranks if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0]
    if len(given) != rollouts:
        raise RankingRefused(f"A rank is a whole number from 1 to {rollouts}.")
    if ties:
        return list(dense(given))
    if max(given) > rollouts:
        raise RankingRefused(f"A rank is a whole number from 1 to {rollouts}.")
    twice = sorted({rank for rank in given if given.count(rank) > 1})
    if twice:
        which = " and ".join(str(rank) for rank in twice)
        raise RankingRefused(f"Rank {which} is given more than once. Each rank goes to one rollout.")
    return given


@dataclass(frozen=True)
class Progress:
    """What a labeler sees of how far they and the round are. Simulated rankings are a number of their own."""

    today: int
    mine: int
    done: int
    wanted: int
    simulated: int


class RankingQuerySet(models.QuerySet["Ranking"]):
    def work(self) -> "RankingQuerySet":
        """The project's own rankings: neither hidden checks nor practice, each in its newest version."""
        return self.filter(purpose=Purpose.WORK, current=True)

    def counted(self, *purposes: str) -> "RankingQuerySet":
        """Those whose labeler is not excluded. Surplus ones count unless a query says otherwise."""
        found = self.filter(purpose__in=purposes, current=True) if purposes else self.work()
        excluded = Membership.objects.filter(
            project=OuterRef("quintet__project"), user=OuterRef("labeler"), excluded_at__isnull=False
        )
        return found.exclude(Exists(excluded))

    def by_people(self) -> "RankingQuerySet":
        return self.filter(simulated=False)

    def progress(self, labeler: User, round) -> Progress:
        """How much `labeler` did in the round's project, and how full the round's places are."""
        today = Q(created_at__date=timezone.localdate())
        mine = self.filter(labeler=labeler, quintet__project=round.project_id).aggregate(
            all=Count("pk"), today=Count("pk", filter=today)
        )
        places = round.quintets.aggregate(
            wanted=Count("places"), done=Count("places", filter=Q(places__done=True))
        )
        simulated = self.filter(quintet__round=round, simulated=True).count()
        return Progress(mine["today"], mine["all"], places["done"], places["wanted"], simulated)


def _dense() -> Q:
    """Ranks are exactly {1..k} for some k: what the database itself refuses can never be trained on."""
    condition = Q()
    for top in range(1, 6):
        ranks = list(range(1, top + 1))
        condition |= Q(ranks__contains=ranks, ranks__contained_by=ranks)
    return condition


class Ranking(models.Model):
    quintet = models.ForeignKey("Quintet", models.PROTECT, related_name="rankings")
    labeler = models.ForeignKey(User, models.PROTECT, related_name="rankings")
    ranks = ArrayField(models.PositiveSmallIntegerField(), help_text="ranks[slot]: 1 is best.")
    shown = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    seconds = models.FloatField(
        null=True, blank=True, help_text="From shown to submitted, by the server's clock."
    )
    key = models.UUIDField(null=True, blank=True, unique=True)
    purpose = models.CharField(max_length=10, choices=Purpose, default=Purpose.WORK)
    # An edit is a new version; the old one is kept and is no longer current.
    version = models.PositiveSmallIntegerField(default=1)
    current = models.BooleanField(default=True)
    nonsense = ArrayField(
        models.PositiveSmallIntegerField(), default=list, blank=True, help_text="Slots marked as nonsense."
    )
    unsafe = ArrayField(
        models.PositiveSmallIntegerField(), default=list, blank=True, help_text="Slots marked as unsafe."
    )
    acceptable = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Rollouts up to this rank are acceptable; 0: none. Empty: not asked."
    )
    guidelines = models.ForeignKey(
        "Guidelines", models.SET_NULL, null=True, blank=True, related_name="rankings"
    )
    focus_seconds = models.FloatField(
        null=True, blank=True, help_text="Of these, with the page in front, by the browser's clock."
    )
    arm = models.CharField(
        max_length=10, choices=Arm, default=Arm.ORDER, help_text="How the queue chose the quintet."
    )
    returned_at = models.DateTimeField(null=True, blank=True, help_text="Sent back to be done again.")
    returned_because = models.CharField(max_length=300, blank=True)
    surplus = models.BooleanField(default=False, help_text="Came after the quintet had all it wanted; kept.")
    simulated = models.BooleanField(default=False)
    brought_by = models.ForeignKey("Import", models.SET_NULL, null=True, blank=True, related_name="rankings")
    extra = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RankingQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["quintet", "labeler", "purpose"],
                condition=Q(current=True),
                name="one_current_ranking_a_labeler",
            ),
            models.CheckConstraint(condition=_dense(), name="ranks_are_dense"),
            models.CheckConstraint(
                condition=Q(ranks__len__gte=2) & Q(ranks__len__lte=5), name="two_to_five_ranks"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.labeler} on {self.quintet}"
