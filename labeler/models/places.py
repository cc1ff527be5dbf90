"""The places that labelers take at quintets, and how one is claimed.

Places are made with the quintet, one for each labeler wanted, and the lease lies on the place's own locked
row: counting rankings over other tables gives two labelers the same place under load. A hidden check, or a
piece of the practice, is a place made for one labeler when it is due. A place that is done without a labeler
is closed: its round or its quintet is out of the queue.

Which priority a quintet has is decided in queue.py, what a ranking may say in rankings.py; who may see a
project is decided before anything here is asked."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.signals import user_logged_out
from django.contrib.postgres.fields import ArrayField
from django.core import signing
from django.db import connection, models, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import MD5, Cast, Concat
from django.dispatch import receiver
from django.utils import timezone

from labeler.models import claims
from labeler.models.desks import Desk
from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.rankings import Purpose, Ranking, RankingRefused
from labeler.models.skips import Skip

LEASE = timedelta(minutes=30)
APART = 10  # rankings between a quintet and its repeat
LATELY = 200  # of a labeler's rankings, from among which a repeat is drawn
DRAFT_BYTES = 2048
ASKED = 100  # places that a reviewer asked for are numbered from here
# For each of a labeler's surplus rankings: the free place that it fills, and that it is surplus no longer.
# Closed places serve where they were closed with their round or quintet.
REGAIN = """
WITH free AS (
    SELECT ranking.id AS ranking, place.id AS place
    FROM labeler_ranking ranking JOIN labeler_quintet quintet ON quintet.id = ranking.quintet_id
        JOIN labeler_round round ON round.id = quintet.round_id, LATERAL (
        SELECT id FROM labeler_place WHERE quintet_id = quintet.id AND purpose = 'work'
            AND (NOT done AND (labeler_id IS NULL OR leased_until < now()) OR done AND labeler_id IS NULL
                AND (round.closed_at IS NOT NULL OR quintet.set_aside_at IS NOT NULL))
        ORDER BY done, number LIMIT 1 FOR NO KEY UPDATE
    ) place
    WHERE quintet.project_id = %(project)s AND ranking.labeler_id = %(labeler)s
        AND ranking.purpose = 'work' AND current AND surplus
), filled AS (
    UPDATE labeler_place place SET labeler_id = %(labeler)s, done = true, leased_until = NULL, draft = NULL
    FROM free WHERE free.place = place.id
)
UPDATE labeler_ranking ranking SET surplus = false FROM free WHERE free.ranking = ranking.id
"""
EMPTY = {"labeler": None, "leased_until": None, "opened_at": None, "key": None, "shown": None, "draft": None}


def _free() -> Q:
    return Q(labeler=None) | Q(leased_until__lt=timezone.now())


@dataclass(frozen=True)
class Ticket:
    """What a shown form carries: whose place it was, under which key, since when. Signed, so that a
    ranking which comes back after the lease is still known to be from somebody who was shown the quintet."""

    place: "Place"
    key: uuid.UUID
    opened_at: datetime


class PlaceQuerySet(models.QuerySet["Place"]):
    def takeable_by(self, labeler: User) -> "PlaceQuerySet":
        """Their own ones first, then the vacant ones, whose lease was never given or has run out."""
        theirs_first = models.Case(models.When(labeler=labeler, then=0), default=1)
        return self.filter(Q(labeler=labeler) | _free()).order_by(theirs_first, "pk")

    def waiting(self) -> "PlaceQuerySet":
        """Those of the queue: open, and of use to the project."""
        return self.filter(done=False, purpose=Purpose.WORK)

    def asked_for(self) -> "PlaceQuerySet":
        """Those of the queue that a reviewer asked for besides what the project's settings want."""
        return self.waiting().filter(number__gte=ASKED)

    def vacant(self) -> "PlaceQuerySet":
        """Those that nobody has taken, or whose lease has run out."""
        return self.filter(_free())

    def served_to(self, labeler: User) -> "PlaceQuerySet":
        """Those that this labeler may be shown: what they hold, and what is vacant in an open round at a
        quintet that they neither ranked, hold nor skipped, and where they wrote nothing."""
        here: Any = {"quintet": OuterRef("quintet")}
        ranked = Ranking.objects.filter(labeler=labeler, purpose=Purpose.WORK, current=True, **here)
        seated = Place.objects.filter(labeler=labeler, purpose=Purpose.WORK, **here)
        skipped = Skip.objects.filter(labeler=labeler, **here)
        written = apps.get_model("labeler", "Rollout").objects.filter(author=labeler, **here)
        new = ~Exists(ranked) & ~Exists(seated) & ~Exists(skipped) & ~Exists(written)
        in_use = Q(quintet__round__closed_at=None, quintet__set_aside_at=None)
        return self.filter(Q(labeler=labeler) | _free() & in_use & new)

    def whole(self) -> "PlaceQuerySet":
        """With all that a ranking page shows of them."""
        return self.select_related("quintet__prompt", "quintet__round").prefetch_related("quintet__rollouts")

    @transaction.atomic
    def next_for(self, labeler: User, project: Project) -> "Place | None":
        """The place that this labeler holds in the project, else a vacant one at a quintet that they
        neither ranked nor hold; None when there is nothing for them. Either way the lease begins anew."""
        desk = Desk.objects.locked(labeler, project)
        if desk.paused_at:
            return None
        if (held := claims.held(desk)) and (mine := self.whole().get(pk=held)).renew():
            return mine.within(project)
        place = self._practice(desk) if _practising(desk) else self._due(desk)
        if place is None:
            return None
        place.within(project).seat(labeler)
        desk.served += 1
        desk.save(update_fields=["served", "priority", "place"])
        return place

    def _due(self, desk: Desk) -> "Place | None":
        """The hidden check that is due, where there is one to be had, else work."""
        check = {Purpose.GOLD: self._gold, Purpose.REPEAT: self._repeat}.get(desk.due())
        if found := check and check(desk):
            return found
        work = claims.vacant(desk)
        return self.whole().get(pk=work) if work else None

    def _gold(self, desk: Desk) -> "Place | None":
        """A gold quintet that this labeler has not had: rather one whose original they do not know either."""
        gold = desk.project.quintets.filter(purpose=Purpose.GOLD, set_aside_at=None)
        had = Place.objects.filter(quintet=OuterRef("pk"), labeler=desk.labeler)
        known = Ranking.objects.filter(quintet=OuterRef("copied_from"), labeler=desk.labeler)
        shuffled = MD5(Concat(Cast("pk", models.TextField()), models.Value(f" for {desk.labeler_id}")))
        new = gold.filter(~Exists(had)).exclude(rollouts__author=desk.labeler)
        return self._made(desk, new.order_by(Exists(known), shuffled).first(), Purpose.GOLD)

    def _repeat(self, desk: Desk) -> "Place | None":
        """One of the labeler's own, made at least so many rankings ago and not repeated yet."""
        mine = Ranking.objects.work().filter(labeler=desk.labeler).order_by("-created_at", "-pk")
        here = mine.filter(quintet__project=desk.project)
        some = list(here.values_list("quintet", flat=True)[APART:LATELY])
        repeated = Place.objects.filter(quintet__in=some, labeler=desk.labeler, purpose=Purpose.REPEAT)
        left = set(some) - set(repeated.values_list("quintet", flat=True))
        quintets = desk.project.quintets.filter(pk__in=left, set_aside_at=None)
        return self._made(desk, quintets.order_by("?").first(), Purpose.REPEAT)

    def _practice(self, desk: Desk) -> "Place | None":
        """The first piece of the practice that this labeler has not ranked, this time round."""
        ranked = Ranking.objects.filter(
            quintet=OuterRef("pk"), labeler=desk.labeler, purpose=Purpose.PRACTICE, current=True
        )
        pieces = desk.project.quintets.filter(purpose=Purpose.PRACTICE, set_aside_at=None)
        return self._made(desk, pieces.filter(~Exists(ranked)).first(), Purpose.PRACTICE)

    def _made(self, desk: Desk, quintet: Any, purpose: Purpose) -> "Place | None":
        if quintet is None:
            return None
        place, _ = self.get_or_create(
            project=desk.project, quintet=quintet, purpose=purpose, labeler=desk.labeler
        )
        self.filter(pk=place.pk).update(done=False)
        return self.whole().get(pk=place.pk)

    def practising(self, labeler: User, project: Project) -> bool:
        """Whether only the practice is served to them: they have to pass it first."""
        member = project.memberships.filter(user=labeler).first()
        return _practising(Desk(project=project, labeler=labeler).of(member))

    def hold(self, labeler: User, project: Project) -> None:
        """Keep what this labeler is reading: the page is in use."""
        for held in self.filter(project=project, labeler=labeler, done=False):
            held.renew()

    def release(self, labeler: User) -> int:
        """Give back what this labeler holds, at once instead of when the lease runs out. What was made for
        them alone waits for them."""
        held = self.filter(labeler=labeler, done=False)
        return held.filter(purpose=Purpose.WORK).update(**EMPTY)

    def fill(self, labeler: User) -> bool:
        """With this labeler's ranking."""
        return self.update(labeler=labeler, leased_until=None, done=True, draft=None) == 1

    def close(self) -> int:
        """Take those out of the queue which are open; a ranking that still comes is kept as surplus."""
        return self.waiting().update(done=True, **EMPTY)

    def reopen(self) -> int:
        """Put those back into the queue which are closed, where their round and quintet are in it."""
        closed = self.filter(purpose=Purpose.WORK, done=True, labeler=None)
        return closed.filter(quintet__round__closed_at=None, quintet__set_aside_at=None).update(done=False)

    @transaction.atomic
    def vacate(self, labeler: User) -> None:
        """Give all that this labeler filled and holds to others: their rankings are kept as surplus."""
        seats = self.filter(labeler=labeler, purpose=Purpose.WORK)
        filled = seats.filter(done=True).values_list("quintet", flat=True)
        Ranking.objects.work().filter(labeler=labeler, quintet__in=list(filled)).update(surplus=True)
        numbers = list(seats.values_list("pk", flat=True))
        seats.update(done=True, **EMPTY)
        self.filter(pk__in=numbers).reopen()

    @transaction.atomic
    def regain(self, labeler: User, project: Project) -> None:
        """Where a place is still free, it is theirs again whose rankings have become surplus."""
        with connection.cursor() as cursor:
            cursor.execute(REGAIN, {"labeler": labeler.pk, "project": project.pk})

    def redeem(self, ticket: str, labeler: User, project: Project) -> Ticket:
        """The ticket of a form that this labeler was shown in this project; refused if it is anything
        else."""
        refused = RankingRefused("This form is not one that you were shown. Here is your next quintet.")
        try:
            place, owner, key, opened = signing.loads(ticket, salt=Place.SALT)
        except signing.BadSignature:
            raise refused from None
        # Its prompt and round are asked for only where the form is shown again.
        known = self.select_related("quintet").prefetch_related("quintet__rollouts")
        shown = known.filter(pk=place, project=project).first()
        if owner != labeler.pk or shown is None:
            raise refused
        return Ticket(shown.within(project), uuid.UUID(key), datetime.fromtimestamp(opened, tz=UTC))


def _practising(desk: Desk) -> bool:
    project = desk.project
    if not project.practice or not desk.member or desk.practised_at or desk.labeler.is_staff:
        return False
    return project.quintets.filter(purpose=Purpose.PRACTICE, set_aside_at=None).exists()


class Place(models.Model):
    """One labeler's seat at a quintet. `key` is minted when the quintet is shown and makes a submit
    idempotent."""

    SALT = "quintet.place"

    # The project and the priority are the quintet's: an index over this table alone finds what is next.
    # Indexes are few and partial, because places change often.
    project = models.ForeignKey(Project, models.CASCADE, related_name="places", db_index=False)
    quintet = models.ForeignKey("Quintet", models.CASCADE, related_name="places")
    purpose = models.CharField(max_length=10, choices=Purpose, default=Purpose.WORK)
    priority = models.FloatField(default=0.0)
    number = models.PositiveSmallIntegerField(default=0)
    labeler = models.ForeignKey(
        User, models.SET_NULL, null=True, blank=True, related_name="places", db_index=False
    )
    leased_until = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    key = models.UUIDField(null=True, blank=True)
    # The slots in the order in which this labeler sees them.
    shown = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    # Filled; or, without a labeler, closed and not served any more.
    done = models.BooleanField(default=False)
    # What the labeler has done so far, so that it survives a reload and a crash.
    draft = models.JSONField(null=True, blank=True)

    objects = PlaceQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["quintet", "number"], condition=Q(purpose=Purpose.WORK), name="a_place_number_once"
            ),
            models.UniqueConstraint(fields=["key"], condition=Q(key__isnull=False), name="a_key_once"),
            models.UniqueConstraint(
                fields=["quintet", "labeler"],
                condition=Q(purpose=Purpose.WORK, labeler__isnull=False),
                name="one_seat_a_labeler",
            ),
            models.UniqueConstraint(
                fields=["quintet", "purpose", "labeler"],
                condition=~Q(purpose=Purpose.WORK),
                name="a_check_once_a_labeler",
            ),
        ]
        indexes = [
            models.Index(
                fields=["project", "priority", "id"],
                condition=Q(done=False, purpose=Purpose.WORK),
                name="the_queue",
            ),
            models.Index(
                fields=["labeler", "project"],
                condition=Q(done=False, labeler__isnull=False),
                name="held_places",
            ),
        ]

    def __str__(self) -> str:
        return f"place {self.number} at {self.quintet}"

    def seat(self, labeler: User) -> None:
        """Give the place to `labeler`, whose clock and lease begin now. The caller holds the row's lock."""
        self.labeler, self.opened_at, self.draft = labeler, timezone.now(), None
        self.leased_until = self.opened_at + LEASE
        self.key, self.shown = uuid.uuid4(), self.quintet.order_for(labeler, self.purpose)
        self.save(update_fields=["labeler", "opened_at", "leased_until", "key", "shown", "draft"])

    def within(self, project: Project) -> "Place":
        """The same, so that asking for its project, or its quintet's, asks the database no more."""
        self.project = self.quintet.project = project
        return self

    def renew(self) -> bool:
        """Begin the lease anew; False when somebody else has taken the place since its lease ran out. Who
        comes back after that begins a new clock as well: the hours away were no work."""
        now = timezone.now()
        if self.leased_until is None or self.leased_until < now:
            self.opened_at = now
        self.leased_until = now + LEASE
        mine = Place.objects.filter(pk=self.pk, labeler=self.labeler_id, done=False)
        return mine.update(leased_until=self.leased_until, opened_at=self.opened_at) == 1

    def fill(self, labeler: User) -> bool:
        """With a ranking, by the labeler who sits here; False where they sit here no more."""
        return Place.objects.filter(pk=self.pk, labeler=labeler, done=False).fill(labeler)

    def rollouts_for(self, labeler: User) -> list:
        """The rollouts in the order in which this labeler sees them."""
        theirs = self.shown and self.labeler_id == labeler.pk
        mine = self.shown if theirs else self.quintet.order_for(labeler, self.purpose)
        by_slot = {rollout.slot: rollout for rollout in self.quintet.rollouts.all()}
        return [by_slot[slot] for slot in mine or ()]

    def ticket(self) -> str:
        """What the form shown to the labeler who sits here carries."""
        assert self.opened_at
        return signing.dumps(
            [self.pk, self.labeler_id, str(self.key), self.opened_at.timestamp()], salt=self.SALT
        )

    def keep_draft(self, labeler: User, draft: dict | None) -> bool:
        """Keep what the labeler who sits here has done so far; False where they sit here no more. Nothing
        clears it."""
        if draft is not None and not isinstance(draft, dict):
            raise RankingRefused("A draft is a set of names and values.")
        if draft and len(json.dumps(draft)) > DRAFT_BYTES:
            raise RankingRefused(f"A draft is at most {DRAFT_BYTES} bytes long.")
        mine = Place.objects.filter(pk=self.pk, labeler=labeler, done=False)
        return mine.update(draft=draft or None) == 1

    @transaction.atomic
    def skip(self, labeler: User, reason: str, note: str = "") -> Skip:
        """Leave the quintet to others: the place is free again, and the labeler is not shown it again. After
        enough people's skips it is set aside for a review. Skipped twice is skipped once."""
        if reason not in Skip.Reason.values:
            raise RankingRefused("Say why you skip it: one of the reasons given.")
        Desk.objects.locked(labeler, self.project)
        quintet = self.quintet.locked()
        ranked = quintet.rankings.filter(labeler=labeler, purpose=self.purpose, current=True)
        if ranked.exists():
            raise RankingRefused("You have ranked this one already. That ranking stands.")
        skip, new = Skip.objects.get_or_create(
            quintet=quintet, labeler=labeler, defaults={"reason": reason, "note": note[:500]}
        )
        mine = Place.objects.filter(quintet=quintet, labeler=labeler, done=False)
        mine.exclude(purpose=Purpose.WORK).update(done=True, leased_until=None)
        mine.filter(purpose=Purpose.WORK).update(**EMPTY)
        if new:
            skip.weigh(self.project)
        return skip


@receiver(user_logged_out)
def release_places(sender, user, **kwargs) -> None:
    if user is not None:
        Place.objects.release(user)
