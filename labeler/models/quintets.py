"""Quintets, their rollouts, and the places that labelers take.

Places are made with the quintet, one for each labeler wanted, and the lease lies on the place's own locked
row: counting rankings over other tables gives two labelers the same place under load. What a ranking may
say is checked in rankings.py; who may see a project is decided before anything here is asked."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.contrib.auth.signals import user_logged_out
from django.contrib.postgres.fields import ArrayField
from django.core import signing
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import MD5
from django.dispatch import receiver
from django.utils import timezone

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.prompts import Prompt
from labeler.models.rankings import (
    AlreadyRanked,
    Arm,
    Purpose,
    Ranking,
    RankingRefused,
    SentOtherwise,
    checked_ranks,
)
from labeler.models.rounds import Round

LEASE = timedelta(minutes=30)
FEWEST, MOST = 2, 5


class QuintetQuerySet(models.QuerySet["Quintet"]):
    @transaction.atomic
    def compose(
        self,
        project: Project,
        round: Round,
        prompt: Prompt,
        texts: Sequence[str],
        *,
        checkpoints=None,
        finished: Sequence[bool] | None = None,
        rollout_extras: Sequence[dict] | None = None,
        run=None,
        group: int | None = None,
        external_id: str = "",
        extra: dict | None = None,
        places: int | None = None,
    ) -> "Quintet":
        """A quintet with its rollouts, slot by slot, and one place for each labeler wanted (the project's
        overlap, unless `places` says otherwise; 0 keeps it out of the queue). `checkpoints` is the one
        that wrote them all, or one per rollout. A group of a run is composed once, however often its line
        is read."""
        if not FEWEST <= len(texts) <= MOST:
            raise ValueError(f"A quintet has {FEWEST} to {MOST} rollouts, not {len(texts)}.")
        fields = {"project": project, "round": round, "prompt": prompt, "external_id": external_id}
        if run is None or group is None:
            quintet = self.create(run=run, group=group, extra=extra or {}, **fields)
        else:
            quintet, made = self.get_or_create(
                run=run, group=group, defaults={**fields, "extra": extra or {}}
            )
            if not made:
                return quintet
        wrote = checkpoints if isinstance(checkpoints, Sequence) else [checkpoints] * len(texts)
        Rollout.objects.bulk_create(
            Rollout(
                quintet=quintet,
                slot=slot,
                # A model may sample a NUL, which Postgres cannot hold.
                text=text.replace("\0", "\ufffd"),
                finished=finished[slot] if finished else True,
                checkpoint=wrote[slot],
                extra=rollout_extras[slot] if rollout_extras else {},
            )
            for slot, text in enumerate(texts)
        )
        wanted = project.overlap if places is None else places
        Place.objects.bulk_create(
            Place(project=project, quintet=quintet, priority=quintet.priority, number=number)
            for number in range(wanted)
        )
        return quintet

    def waiting(self) -> "QuintetQuerySet":
        """Those that somebody still has to rank."""
        open_places = Place.objects.filter(quintet=OuterRef("pk"), done=False)
        return self.filter(Exists(open_places), round__closed_at=None)

    def unread(self, project: Project, judge) -> "QuintetQuerySet":
        """Those that wait in the project and that this reward model has not scored yet."""
        return self.waiting().filter(project=project, purpose=Purpose.WORK).exclude(scored_by=judge)

    def awaiting(self, labeler: User) -> "QuintetQuerySet":
        """Those that this labeler could rank now: the one they hold, and those with a vacant place."""
        seats = Place.objects.filter(quintet=OuterRef("pk"), done=False).served_to(labeler)
        return self.filter(Exists(seats)).exclude(rankings__labeler=labeler)


class Quintet(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="quintets")
    round = models.ForeignKey(Round, models.PROTECT, related_name="quintets")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="quintets")
    run = models.ForeignKey("Run", models.SET_NULL, null=True, blank=True, related_name="quintets")
    # The follower of a run may see a line twice: (run, group) is what makes a quintet of it once.
    group = models.PositiveIntegerField(null=True, blank=True)
    external_id = models.CharField(max_length=200, blank=True)
    purpose = models.CharField(max_length=10, choices=Purpose, default=Purpose.WORK)
    # The queue serves small priorities first; equal ones in the order in which they came.
    priority = models.FloatField(default=0.0)
    arm = models.CharField(max_length=10, choices=Arm, default=Arm.ORDER)
    uncertainty = models.FloatField(null=True, blank=True, help_text="1: the scores say nothing; 0: sure.")
    scored_by = models.ForeignKey(
        "Checkpoint",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The reward model that is so unsure of it.",
    )
    known_ranks = ArrayField(
        models.PositiveSmallIntegerField(),
        null=True,
        blank=True,
        help_text="What a gold or practice quintet is checked against, slot by slot.",
    )
    explanation = models.TextField(blank=True, help_text="Why these ranks: told after the practice.")
    copied_from = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="copies",
        help_text="The quintet of which this gold or practice one was made.",
    )
    set_aside_at = models.DateTimeField(null=True, blank=True, help_text="Out of the queue, for a review.")
    reviewed_at = models.DateTimeField(null=True, blank=True)
    reviewed_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    decided_ranks = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    brought_by = models.ForeignKey("Import", models.SET_NULL, null=True, blank=True, related_name="quintets")
    extra = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = QuintetQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["run", "group"], name="a_sampled_group_once")]

    def __str__(self) -> str:
        return f"quintet {self.pk}"

    @transaction.atomic
    def record_ranking(
        self,
        labeler: User,
        place: "Place | None",
        ranks: Sequence[int | None],
        key: uuid.UUID | None = None,
        *,
        opened_at: datetime | None = None,
        ties: bool = False,
        nonsense: Sequence[int] = (),
        unsafe: Sequence[int] = (),
        acceptable: int | None = None,
        focus_seconds: float | None = None,
        extra: dict | None = None,
    ) -> Ranking:
        """Keep `ranks` (slot by slot) as this labeler's ranking, once.

        `nonsense` and `unsafe` are the slots marked so; down to the rank `acceptable` the rollouts are
        acceptable (0: none is; None: not asked).
        The same key and ranks again give the same ranking; other ranks under a used key are refused. A
        ranking that comes after its lease is kept: in a vacant place if there is one, else as surplus."""
        given = checked_ranks(ranks, self.rollouts.count(), ties=ties)
        if place:
            _take_turns(labeler)
        # Submits to one quintet take turns too, so that its last place is filled once.
        Quintet.objects.select_for_update(no_key=True).get(pk=self.pk)
        if stored := self._stored(labeler, key, given):
            return stored
        seat = (
            self.places.filter(done=False).takeable_by(labeler).select_for_update(no_key=True).first()
            if place
            else None
        )
        if seat:
            seat.fill(labeler)
        return self.rankings.create(
            labeler=labeler,
            ranks=given,
            shown=[rollout.slot for rollout in place.rollouts_for(labeler)] if place else None,
            seconds=(timezone.now() - opened_at).total_seconds() if opened_at else None,
            key=key,
            surplus=bool(place) and seat is None,
            simulated=labeler.simulated,
            purpose=place.purpose if place else self.purpose,
            nonsense=sorted(set(nonsense)),
            unsafe=sorted(set(unsafe)),
            acceptable=acceptable,
            focus_seconds=focus_seconds,
            guidelines=None if labeler.simulated else self.project.guideline_versions.last(),
            arm=self.arm,
            extra=extra or {},
        )

    def _stored(self, labeler: User, key: uuid.UUID | None, ranks: list[int]) -> Ranking | None:
        found = Ranking.objects.filter(Q(quintet=self, labeler=labeler) | Q(key=key, key__isnull=False))
        for ranking in found:
            same = ranking.quintet_id == self.pk and ranking.labeler_id == labeler.pk
            if key is None or ranking.key != key:
                raise AlreadyRanked(ranking)
            if not same or ranking.ranks != ranks:
                raise SentOtherwise(ranking)
            return ranking
        return None

    def order_for(self, labeler: User) -> list[int]:
        """The slots as this labeler sees them: shuffled, and the same for them whenever they come back."""
        slots = list(range(self.rollouts.count()))
        random.Random(f"quintet {self.pk}, labeler {labeler.pk}").shuffle(slots)
        return slots


class Rollout(models.Model):
    quintet = models.ForeignKey(Quintet, models.CASCADE, related_name="rollouts")
    slot = models.PositiveSmallIntegerField()
    text = models.TextField()
    finished = models.BooleanField(default=True, help_text="False: cut off at the greatest length.")
    checkpoint = models.ForeignKey(
        "Checkpoint", models.PROTECT, null=True, blank=True, related_name="rollouts"
    )
    # Who wrote it, where it was not one of our checkpoints: a person here, or a model named by an import.
    author = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="rollouts")
    model = models.CharField(
        max_length=200, blank=True, help_text="Named by an import; hidden from labelers."
    )
    extra = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["quintet", "slot"]
        constraints = [
            models.UniqueConstraint(fields=["quintet", "slot"], name="a_slot_once_a_quintet"),
            models.CheckConstraint(condition=models.Q(slot__lte=4), name="five_slots_at_most"),
        ]
        indexes = [  # by which an import finds the quintets that are there already
            models.Index(MD5("text"), condition=models.Q(slot=0), name="first_rollouts")
        ]

    def __str__(self) -> str:
        return self.text[:80]


def _free() -> Q:
    return Q(labeler=None) | Q(leased_until__lt=timezone.now())


def _take_turns(labeler: User) -> None:
    """One claim or submit of a person at a time: two tabs must not take both places of one quintet."""
    User.objects.select_for_update(no_key=True).only("pk").get(pk=labeler.pk)


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

    def vacant(self) -> "PlaceQuerySet":
        """Those that nobody has taken, or whose lease has run out."""
        return self.filter(_free())

    def served_to(self, labeler: User) -> "PlaceQuerySet":
        """Those that this labeler may be shown: what they hold, and what is vacant in an open round."""
        return self.filter(Q(labeler=labeler) | _free() & Q(quintet__round__closed_at=None))

    def whole(self) -> "PlaceQuerySet":
        """With all that a ranking page shows of them."""
        return self.select_related("quintet__prompt", "quintet__round").prefetch_related("quintet__rollouts")

    @transaction.atomic
    def next_for(self, labeler: User, project: Project) -> "Place | None":
        """The place that this labeler holds in the project, else a vacant one at a quintet that they
        neither ranked nor hold; None when there is nothing for them. Either way the lease begins anew."""
        _take_turns(labeler)
        places = self.whole().filter(quintet__project=project, done=False)
        held = places.filter(labeler=labeler).first()
        if held and held.renew():
            return held
        vacant = (
            places.filter(_free(), quintet__round__closed_at=None)
            .exclude(quintet__rankings__labeler=labeler)
            .exclude(quintet__places__labeler=labeler)
            .order_by("quintet", "number")  # an index has this order: no sorting
            .select_for_update(skip_locked=True, no_key=True, of=("self",))
            .first()
        )
        if vacant:
            vacant.seat(labeler)
        return vacant

    def hold(self, labeler: User, project: Project) -> None:
        """Keep what this labeler is reading: the page is in use."""
        for held in self.filter(quintet__project=project, labeler=labeler, done=False):
            held.renew()

    def release(self, labeler: User) -> int:
        """Give back what this labeler holds, at once instead of when the lease runs out."""
        return self.filter(labeler=labeler, done=False).update(
            labeler=None, leased_until=None, opened_at=None, key=None, shown=None
        )

    def redeem(self, ticket: str, labeler: User, project: Project) -> Ticket:
        """The ticket of a form that this labeler was shown in this project; refused if it is anything
        else."""
        refused = RankingRefused("This form is not one that you were shown. Here is your next quintet.")
        try:
            place, owner, key, opened = signing.loads(ticket, salt=Place.SALT)
        except signing.BadSignature:
            raise refused from None
        shown = self.whole().filter(pk=place, quintet__project=project).first()
        if owner != labeler.pk or shown is None:
            raise refused
        return Ticket(shown, uuid.UUID(key), datetime.fromtimestamp(opened, tz=UTC))


class Place(models.Model):
    """One labeler's seat at a quintet. `key` is minted when the quintet is shown and makes a submit
    idempotent."""

    SALT = "quintet.place"

    # The project and the priority are the quintet's: an index over this table alone finds what is next.
    project = models.ForeignKey(Project, models.CASCADE, related_name="places")
    quintet = models.ForeignKey(Quintet, models.CASCADE, related_name="places")
    purpose = models.CharField(max_length=10, choices=Purpose, default=Purpose.WORK)
    priority = models.FloatField(default=0.0)
    number = models.PositiveSmallIntegerField(default=0)
    labeler = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="places")
    leased_until = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    key = models.UUIDField(null=True, blank=True, unique=True)
    # The slots in the order in which this labeler sees them.
    shown = ArrayField(models.PositiveSmallIntegerField(), null=True, blank=True)
    # Filled; or, without a labeler, closed with its round and not served any more.
    done = models.BooleanField(default=False)
    # What the labeler has done so far, so that it survives a reload and a crash.
    draft = models.JSONField(null=True, blank=True)

    objects = PlaceQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["quintet", "purpose", "number"], name="a_place_number_once"),
        ]
        indexes = [
            models.Index(fields=["quintet"], condition=models.Q(done=False), name="open_places"),
            models.Index(
                fields=["project", "priority", "id"],
                condition=models.Q(done=False, purpose=Purpose.WORK),
                name="the_queue",
            ),
            models.Index(fields=["labeler", "project"], condition=models.Q(done=False), name="held_places"),
        ]

    def __str__(self) -> str:
        return f"place {self.number} at {self.quintet}"

    def seat(self, labeler: User) -> None:
        """Give the place to `labeler`, whose clock and lease begin now. The caller holds the row's lock."""
        self.labeler, self.opened_at = labeler, timezone.now()
        self.leased_until = self.opened_at + LEASE
        self.key, self.shown = uuid.uuid4(), self.quintet.order_for(labeler)
        self.save(update_fields=["labeler", "opened_at", "leased_until", "key", "shown"])

    def renew(self) -> bool:
        """Begin the lease anew; False when somebody else has taken the place since its lease ran out. Who
        comes back after that begins a new clock as well: the hours away were no work."""
        now = timezone.now()
        if self.leased_until is None or self.leased_until < now:
            self.opened_at = now
        self.leased_until = now + LEASE
        mine = Place.objects.filter(pk=self.pk, labeler=self.labeler_id, done=False)
        return mine.update(leased_until=self.leased_until, opened_at=self.opened_at) == 1

    def fill(self, labeler: User) -> None:
        self.labeler, self.leased_until, self.done = labeler, None, True
        self.save(update_fields=["labeler", "leased_until", "done"])

    def rollouts_for(self, labeler: User) -> list[Rollout]:
        """The rollouts in the order in which this labeler sees them."""
        mine = self.shown if self.shown and self.labeler_id == labeler.pk else self.quintet.order_for(labeler)
        by_slot = {rollout.slot: rollout for rollout in self.quintet.rollouts.all()}
        return [by_slot[slot] for slot in mine]

    def ticket(self) -> str:
        """What the form shown to the labeler who sits here carries."""
        assert self.opened_at
        return signing.dumps(
            [self.pk, self.labeler_id, str(self.key), self.opened_at.timestamp()], salt=self.SALT
        )


class Skip(models.Model):
    """A quintet that a labeler left for others, and why. What it counts as is said in the queue."""

    class Reason(models.TextChoices):
        UNCLEAR = "unclear", "The prompt or the guidelines are unclear"
        CANNOT = "cannot", "I cannot judge this: language or subject"
        ALIKE = "alike", "All are equally good or bad"
        UPSETTING = "upsetting", "I do not want to read this"
        BROKEN = "broken", "Something is broken"

    quintet = models.ForeignKey(Quintet, models.CASCADE, related_name="skips")
    labeler = models.ForeignKey(User, models.CASCADE, related_name="skips")
    reason = models.CharField(max_length=10, choices=Reason)
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["quintet", "labeler"], name="one_skip_a_labeler")]

    def __str__(self) -> str:
        return f"{self.labeler} skipped {self.quintet}"


@receiver(user_logged_out)
def release_places(sender, user, **kwargs) -> None:
    if user is not None:
        Place.objects.release(user)
