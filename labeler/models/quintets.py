"""Quintets and their rollouts, and how a ranking of one is kept.

What a ranking may say is checked in rankings.py; which quintet is next is decided in queue.py, and who gets
it in places.py."""

import random
import uuid
from collections.abc import Sequence
from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import connection, models, transaction
from django.db.models import Q
from django.db.models.functions import MD5
from django.utils import timezone

from labeler.models.desks import Desk
from labeler.models.people import User
from labeler.models.places import EMPTY, Place
from labeler.models.projects import Project
from labeler.models.prompts import Prompt
from labeler.models.queue import Queueing
from labeler.models.rankings import (
    AlreadyRanked,
    Arm,
    Purpose,
    Ranking,
    SentOtherwise,
    TakenBack,
    checked_marks,
    checked_ranks,
)
from labeler.models.rounds import Round

FEWEST, MOST = 2, 5


class Stays(ValueError):
    """Why a quintet is not taken out of the queue again, in words."""


class QuintetQuerySet(Queueing["Quintet"]):
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
        faceoff=None,
    ) -> "Quintet":
        """A quintet with its rollouts, slot by slot, and one place for each labeler wanted (the project's
        overlap, unless `places` says otherwise; 0 keeps it out of the queue). `checkpoints` is the one
        that wrote them all, or one per rollout. A group of a run is composed once, however often its line
        is read."""
        if not FEWEST <= len(texts) <= MOST:
            raise ValueError(f"A quintet has {FEWEST} to {MOST} rollouts, not {len(texts)}.")
        fields = {"project": project, "round": round, "prompt": prompt, "external_id": external_id}
        fields |= {"faceoff": faceoff}
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
        if places is None:
            self.filter(pk=quintet.pk).enqueue(project)
        else:
            Place.objects.bulk_create(
                Place(project=project, quintet=quintet, priority=quintet.pk, number=number)
                for number in range(places)
            )
        return quintet


class Quintet(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="quintets")
    round = models.ForeignKey(Round, models.PROTECT, related_name="quintets")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="quintets")
    run = models.ForeignKey("Run", models.SET_NULL, null=True, blank=True, related_name="quintets")
    # The follower of a run may see a line twice: (run, group) is what makes a quintet of it once.
    group = models.PositiveIntegerField(null=True, blank=True)
    # Where its rollouts are of several checkpoints, for people to decide between: labelers are not told.
    faceoff = models.ForeignKey(
        "Faceoff", models.SET_NULL, null=True, blank=True, related_name="quintets", db_index=False
    )
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
        indexes = [
            models.Index(fields=["faceoff"], condition=Q(faceoff__isnull=False), name="of_a_faceoff"),
            models.Index(
                fields=["project", "purpose"], condition=~Q(purpose=Purpose.WORK), name="gold_and_practice"
            ),
            models.Index(
                fields=["project", "reviewed_at"], condition=Q(reviewed_at__isnull=False), name="reviewed"
            ),
            models.Index(
                fields=["project", "set_aside_at"], condition=Q(set_aside_at__isnull=False), name="set_aside"
            ),
        ]

    def __str__(self) -> str:
        return f"quintet {self.pk}"

    @transaction.atomic
    def record_ranking(
        self,
        labeler: User,
        place: Place | None,
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
        acceptable (0: none is; None: not asked). `place` is where they sat; None for imports and simulated
        labelers, who take no place from anybody. The same key and ranks again give the same ranking; other
        ranks under a used key are refused. A ranking that comes after its lease is kept: in a vacant place
        if there is one, else as surplus."""
        given = checked_ranks(ranks, len(self.rollouts.all()), ties=ties, alike=self.alike())
        marks = checked_marks(given, nonsense, unsafe, acceptable, focus_seconds)
        desk = Desk.objects.locked(labeler, self.project) if place else None
        # Submits to one quintet take turns too, so that its last place is filled once.
        self.lock()
        purpose = place.purpose if place else self.purpose
        known = list(Ranking.objects.filter(Q(quintet=self, labeler=labeler) | Q(key=key, key__isnull=False)))
        if stored := self._stored(known, labeler, purpose, key, given):
            return stored
        filled = place is not None and desk is not None and self._fill(labeler, place, desk)
        guidelines = None if labeler.simulated else self.project.newest_guidelines
        ranking = self.rankings.create(
            labeler=labeler,
            ranks=given,
            shown=[rollout.slot for rollout in place.rollouts_for(labeler)] if place else None,
            seconds=(timezone.now() - opened_at).total_seconds() if opened_at else None,
            key=key,
            surplus=place is not None and purpose == Purpose.WORK and not filled,
            simulated=labeler.simulated,
            purpose=purpose,
            version=1 + max((each.version for each in known if each.purpose == purpose), default=0),
            guidelines=guidelines,
            arm=self.arm,
            extra=extra or {},
            **marks,
        )
        if desk and desk.member and purpose != Purpose.WORK:
            self.project.memberships.get(pk=desk.member).weigh(purpose)
        return ranking

    def _stored(
        self, known: list[Ranking], labeler: User, purpose: str, key: uuid.UUID | None, ranks: list[int]
    ) -> Ranking | None:
        """The ranking that this one is, where it came before."""
        mine = [each for each in known if each.labeler_id == labeler.pk and each.quintet_id == self.pk]
        if found := next((each for each in known if key and each.key == key), None):
            if found not in mine or found.ranks != ranks:
                raise SentOtherwise(found)
            versions = [each.version for each in mine if each.purpose == found.purpose]
            if not found.current and found.version == max(versions):
                raise TakenBack(found)
            return found
        if current := next((each for each in mine if each.current and each.purpose == purpose), None):
            raise AlreadyRanked(current)
        return None

    def _fill(self, labeler: User, place: Place, desk: Desk) -> bool:
        """Whether this labeler's ranking fills a place: theirs, or else a vacant one."""
        if place.purpose == Purpose.WORK and desk.excluded_at:
            self.places.waiting().filter(labeler=labeler).update(**EMPTY)
            return False
        if place.fill(labeler):
            return True
        if place.purpose != Purpose.WORK:
            return False
        self.skips.filter(labeler=labeler).delete()  # they came back to it after all
        seat = self.places.waiting().takeable_by(labeler).select_for_update(no_key=True).first()
        return seat is not None and self.places.filter(pk=seat.pk).fill(labeler)

    def lock(self) -> None:
        """This transaction's alone. Always locked after a desk, before a place."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM labeler_quintet WHERE id = %s FOR NO KEY UPDATE", [self.pk])

    def locked(self) -> "Quintet":
        """The quintet as it is now, locked."""
        return Quintet.objects.select_for_update(no_key=True).get(pk=self.pk)

    def order_for(self, labeler: User, purpose: str = Purpose.WORK) -> list[int]:
        """The slots as this labeler sees them: shuffled, and the same for them whenever they come back. When
        it is served again as a check, in another order."""
        slots, who = list(range(len(self.rollouts.all()))), f"quintet {self.pk}, labeler {labeler.pk}"
        first = reshuffled(slots, who)
        return reshuffled(slots, f"{who} again", first) if purpose == Purpose.REPEAT else first

    def alike(self) -> list[list[int]]:
        """The slots whose texts are equal but for the space around them, in groups of two or more."""
        groups: dict[str, list[int]] = {}
        for rollout in self.rollouts.all():
            groups.setdefault(rollout.text.strip(), []).append(rollout.slot)
        return [slots for slots in groups.values() if len(slots) > 1]

    @transaction.atomic
    def set_aside(self, by: User | None, because: str) -> None:
        """Take it out of the queue until somebody has looked at it. What is still sent counts as surplus."""
        self.set_aside_at = timezone.now()
        self.save(update_fields=["set_aside_at"])
        self.places.all().close()
        words = f"Quintet {self.pk} is set aside: {because}"[:500]
        self.project.audit.write(by, self.project, "set aside", words, quintet=self.pk)

    @transaction.atomic
    def bring_back(self, by: User) -> None:
        """Put it back into the queue, for those who did not skip it."""
        self.set_aside_at = None
        self.save(update_fields=["set_aside_at"])
        Quintet.objects.filter(pk=self.pk).fit(self.project)
        words = f"Quintet {self.pk} is in the queue again."
        self.project.audit.write(by, self.project, "bring back", words, quintet=self.pk)

    @transaction.atomic
    def withdraw(self) -> None:
        """Out of the queue, as if it had not been composed: while nobody has ranked it. Raises Stays."""
        self.lock()
        if self.rankings.exists():
            raise Stays("Somebody has ranked it: it stays.")
        if self.places.filter(leased_until__gt=timezone.now(), done=False).exists():
            raise Stays("Somebody is ranking it at this moment: it stays for now.")
        if self.reviewed_at or self.copies.exists():
            raise Stays("It has been reviewed: it stays.")
        self.delete()


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
        ordering = ["quintet_id", "slot"]  # by number: to order by quintets would be to look them up
        constraints = [
            models.UniqueConstraint(fields=["quintet", "slot"], name="a_slot_once_a_quintet"),
            models.CheckConstraint(condition=models.Q(slot__lte=4), name="five_slots_at_most"),
        ]
        indexes = [  # by which an import finds the quintets that are there already
            models.Index(MD5("text"), condition=models.Q(slot=0), name="first_rollouts")
        ]

    def __str__(self) -> str:
        return self.text[:80]


def reshuffled(slots: list[int], seed: str, other_than: list[int] | None = None) -> list[int]:
    """The slots in an order that follows from the seed alone; never in the one that it is to differ from."""
    chances, order = random.Random(seed), list(slots)
    chances.shuffle(order)
    while order == other_than:
        chances.shuffle(order)
    return order
