"""A ranking: one labeler's ranks for one quintet, slot by slot. 1 is best, equal numbers are ties, dense.

How a ranking comes to be is said in quintets.py (`Quintet.record_ranking`); agreement and datasets live
elsewhere."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q, Sum
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Membership, Project
from rlhf.data import dense

REVISABLE = timedelta(hours=24)
RECENT = 20


class Purpose(models.TextChoices):
    """Why a quintet is shown. Only work is trained on and counted as the project's rankings."""

    WORK = "work", "Work"
    GOLD = "gold", "Hidden check against known ranks"
    REPEAT = "repeat", "Hidden check against one's own earlier ranking"
    PRACTICE = "practice", "Practice"
    HARVEST = "harvest", "Confirmed nonsense, below ordinary rollouts"


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


class TakenBack(AlreadyRanked):
    """The form was sent, and what it said was taken back since."""

    message = "You took that ranking back. Here is your quintet again."


def checked_ranks(
    ranks: Sequence[int | None], rollouts: int, *, ties: bool, alike: Sequence[Sequence[int]] = ()
) -> list[int]:
    """A rank for exactly these rollouts, dense; refused otherwise. Without ties every rank is given once.
    Slots that are `alike` have the same text, and so the same rank: the best that is given to any of them."""
    if len(ranks) != rollouts:
        raise RankingRefused(f"There are {rollouts} rollouts, but {len(ranks)} ranks came.")
    if any(rank is not None and not _is_rank(rank) for rank in ranks):
        raise RankingRefused(f"A rank is a whole number from 1 to {rollouts}.")
    given = list(ranks)
    for slots in alike:
        best = min((rank for slot in slots if (rank := given[slot])), default=None)
        for slot in slots:
            given[slot] = best
    if missing := sum(rank is None for rank in given):
        raise RankingRefused(
            f"{missing} of the {rollouts} rollouts {'has' if missing == 1 else 'have'} no rank yet."
        )
    whole = [rank for rank in given if rank is not None]
    if ties:
        return list(dense(whole))
    if max(whole) > rollouts:
        raise RankingRefused(f"A rank is a whole number from 1 to {rollouts}.")
    others = {slot for slots in alike for slot in slots[1:]}
    single = [rank for slot, rank in enumerate(whole) if slot not in others]
    if twice := sorted({rank for rank in single if single.count(rank) > 1}):
        which = " and ".join(str(rank) for rank in twice)
        raise RankingRefused(f"Rank {which} is given more than once. Each rank goes to one rollout.")
    return list(dense(whole))


def _is_rank(rank) -> bool:
    return isinstance(rank, int) and not isinstance(rank, bool) and rank > 0


def checked_marks(
    ranks: list[int],
    nonsense: Iterable[int],
    unsafe: Iterable[int],
    acceptable: int | None,
    focus_seconds: float | None,
) -> dict[str, Any]:
    """What else a ranking of these ranks says, as its row keeps it; refused where it says nothing of them."""
    marked = {"nonsense": sorted(set(nonsense)), "unsafe": sorted(set(unsafe))}
    if any(slot not in range(len(ranks)) for slots in marked.values() for slot in slots):
        raise RankingRefused("A mark came for a rollout that is not one of these.")
    if acceptable is not None and acceptable not in range(max(ranks) + 1):
        raise RankingRefused(f"What is acceptable goes down to a rank from 0 to {max(ranks)}.")
    if focus_seconds is not None and not 0 <= focus_seconds < 1e9:
        focus_seconds = None  # a browser's clock: not worth a refusal
    return {**marked, "acceptable": acceptable, "focus_seconds": focus_seconds}


def tens(done: int, wanted: int) -> int:
    return 10 * (10 * min(done, wanted) // wanted) if wanted else 0


@dataclass(frozen=True)
class Progress:
    """What a labeler sees of how far they and the round are. Simulated rankings are a number of their own."""

    today: int
    mine: int
    done: int
    wanted: int
    simulated: int

    @property
    def tens(self) -> int:
        """Percent, in tens: a number that rose with each ranking of work would tell which was a check."""
        return tens(self.done, self.wanted)


@dataclass(frozen=True)
class Today:
    """What a labeler did today, in rankings and in seconds with the page in front."""

    ranked: int
    seconds: float

    @property
    def minutes(self) -> int:
        return int(self.seconds // 60)


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
        from labeler.models.contributions import Contribution  # a round's matter, and rounds know of rankings

        # One query, because this is asked after every ranking: the round's rows, and all of the labeler's.
        theirs = Q(round__project=round.project_id, labeler=labeler)
        rows = Contribution.objects.filter(theirs | Q(round=round)).select_related("round")
        found = list(rows.annotate(by_program=F("labeler__simulated")))
        mine = [each for each in found if each.labeler_id == labeler.pk]
        here = [each for each in found if each.round_id == round.pk]
        if here:
            wanted = here[0].round.wanted
        else:
            wanted = type(round).objects.values_list("wanted", flat=True).get(pk=round.pk)
        return Progress(
            sum(each.ranked_today for each in mine),
            sum(each.ranked for each in mine),
            sum(each.filled for each in here),
            wanted,
            sum(each.ranked for each in here if each.by_program),
        )

    def today(self, labeler: User, project: Project) -> Today:
        """What `labeler` did in the project since midnight, hidden checks included: nobody is to tell them
        from work by a number that stays as it is."""
        return self.todays(labeler).get(project.pk, Today(0, 0.0))

    def todays(self, labeler: User) -> dict[int, Today]:
        """The same for every project in which `labeler` did anything today, by the project's number."""
        from labeler.models.contributions import Contribution

        mine = Contribution.objects.filter(labeler=labeler, day=timezone.localdate())
        sums = mine.order_by().values_list("round__project").annotate(Sum("today"), Sum("seconds"))
        return {project: Today(ranked, seconds) for project, ranked, seconds in sums if ranked}

    def recent(self, labeler: User, project: Project) -> "RankingQuerySet":
        """Their last ones, newest first, which they may still revise or take back. A quintet that came again
        is here once. What was a check goes with the work around it (`Ranking.in_a_closed_round`)."""
        since = timezone.now() - REVISABLE
        mine = self.filter(labeler=labeler, quintet__project=project, current=True, created_at__gt=since)
        later = mine.filter(quintet=OuterRef("quintet"), pk__gt=OuterRef("pk"))
        closed = {"project": OuterRef("quintet__project"), "closed_at__gte": OuterRef("created_at")}
        settled = Q(purpose=Purpose.WORK, quintet__round__closed_at__isnull=False)
        closed_since = apps.get_model("labeler", "Round").objects.filter(**closed)
        settled |= Q(~Q(purpose=Purpose.WORK), Exists(closed_since))
        open_ones = mine.filter(~Exists(later)).exclude(settled)
        neither = [Purpose.PRACTICE, Purpose.HARVEST]
        work = open_ones.exclude(purpose__in=neither).order_by("-created_at", "-pk")
        return work.select_related("quintet__prompt").prefetch_related("quintet__rollouts")[:RECENT]

    def returned(self, labeler: User, project: Project) -> "RankingQuerySet":
        """Those that a reviewer sent back to them, the oldest first."""
        sent = self.filter(labeler=labeler, current=True, returned_at__isnull=False)
        return sent.filter(quintet__project=project).select_related("quintet__prompt").order_by("returned_at")


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
        indexes = [
            models.Index(fields=["labeler", "created_at"], condition=Q(current=True), name="recent_rankings"),
            models.Index(fields=["quintet"], condition=~Q(nonsense=[]), name="marked_nonsense"),
        ]

    def __str__(self) -> str:
        return f"{self.labeler} on {self.quintet}"

    def score(self):
        """How a check or a piece of the practice went, against the ranks that are known."""
        from labeler.models.checks import Score

        result = Score()
        if self.quintet.known_ranks:
            result.add(self.quintet.known_ranks, self.ranks)
        return result

    def send_back(self, by: User, because: str) -> None:
        """Ask its labeler to do it again. It counts as it is until they have."""
        self.returned_at, self.returned_because = timezone.now(), because[:300]
        with transaction.atomic():
            self.save(update_fields=["returned_at", "returned_because"])
            words = f"A ranking by {self.labeler} of quintet {self.quintet_id} is sent back: {because}"
            about = {"ranking": self.pk, "quintet": self.quintet_id, "labeler": self.labeler_id}
            self.quintet.project.audit.write(by, self.quintet.project, "send back", words[:500], **about)

    @transaction.atomic
    def take_back(self, labeler: User):
        """As if it had not been sent: no longer current, and its place open and held by the labeler. None
        where it had no place, or the quintet is out of the queue. Taken back twice is taken back once."""
        now = self._locked(labeler)
        place = now.quintet.places.filter(labeler=labeler, purpose=now.purpose).first()
        if not now.current:
            if place is None or place.done:
                raise RankingRefused("You have changed this ranking since.")
            return place
        now._refuse_if_settled()
        Ranking.objects.filter(pk=now.pk).update(current=False)
        if place is None:
            return None
        type(place).objects.filter(pk=place.pk).update(done=False)
        if now.quintet.set_aside_at:
            now.quintet.places.filter(pk=place.pk).close()
            return None
        place.seat(labeler)
        return place

    @transaction.atomic
    def revise(
        self,
        labeler: User,
        ranks: Sequence[int | None],
        key: uuid.UUID | None = None,
        *,
        ties: bool = False,
        nonsense: Iterable[int] = (),
        unsafe: Iterable[int] = (),
        acceptable: int | None = None,
        focus_seconds: float | None = None,
    ) -> "Ranking":
        """A new version; this one stays beside it and is no longer current. The same again, by key or in what
        it says, is the same version; another one for a version that is no longer current is refused."""
        now = self._locked(labeler)
        quintet = now.quintet
        given = checked_ranks(ranks, len(quintet.rollouts.all()), ties=ties, alike=quintet.alike())
        marks = checked_marks(given, nonsense, unsafe, acceptable, focus_seconds)
        said = {"ranks": given, **marks}
        said.pop("focus_seconds")
        versions = Ranking.objects.filter(quintet=quintet, labeler=labeler, purpose=now.purpose)
        if newest := versions.filter(current=True).first():
            same = all(getattr(newest, name) == value for name, value in said.items())
            again = newest.pk != now.pk or not newest.returned_at
            if (same and again) or (key and newest.key == key):
                return newest
        if not now.current or newest is None:
            raise RankingRefused("You have changed or taken back this ranking elsewhere since.")
        now._refuse_if_settled()
        versions.filter(pk=now.pk).update(current=False)
        kept = ("shown", "seconds", "arm", "surplus", "simulated", "extra", "purpose")
        later = Ranking.objects.create(
            quintet=quintet,
            labeler=labeler,
            ranks=given,
            key=key,
            version=now.version + 1,
            guidelines=quintet.project.newest_guidelines,
            **{name: getattr(now, name) for name in kept},
            **marks | {"focus_seconds": marks["focus_seconds"] or now.focus_seconds},
        )
        membership = quintet.project.memberships.filter(user=labeler).first()
        if membership and later.purpose != Purpose.WORK:
            membership.weigh(later.purpose)
        return later

    def _locked(self, labeler: User) -> "Ranking":
        """As it is now, with its labeler's desk and its quintet locked; refused to everybody else."""
        from labeler.models.desks import Desk

        if self.labeler_id != labeler.pk:
            raise RankingRefused("This ranking is somebody else's.")
        Desk.objects.locked(labeler, self.quintet.project)
        self.quintet.locked()
        return Ranking.objects.select_related("quintet__project", "quintet__round").get(pk=self.pk)

    @property
    def in_a_closed_round(self) -> bool:
        """A check is served in later rounds than its quintet's: it is of the round in which it was ranked, or
        it could be told from work by what can be changed."""
        if self.purpose == Purpose.WORK:
            return self.quintet.round.closed_at is not None
        return self.quintet.project.rounds.filter(closed_at__gte=self.created_at).exists()

    def _refuse_if_settled(self) -> None:
        if self.returned_at:
            return
        if self.in_a_closed_round:
            raise RankingRefused("Its round is closed. This ranking stands.")
        if self.created_at < timezone.now() - REVISABLE:
            raise RankingRefused("A ranking can be changed for a day. This one stands.")
