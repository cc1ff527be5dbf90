"""A face-off: people decide between checkpoints. Two to five of them, the starting model always among them,
answer the same prompts; quintets of their rollouts go into the ordinary queue, where nobody can tell them
from others, nor who wrote what.

Here is what may happen to one. Its quintets are composed in labeler/composing.py once everything is sampled;
what its rankings say is worked out in labeler/preferences.py."""

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import cycle, islice

from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Count, Exists, Max, OuterRef, Q
from django.utils import timezone

from labeler.models.checkpoints import Checkpoint
from labeler.models.people import User
from labeler.models.places import Place
from labeler.models.projects import Project
from labeler.models.quintets import MOST
from labeler.models.rankings import Purpose, Ranking
from labeler.models.rounds import Round
from labeler.models.runs import Run

FEWEST_QUINTETS, MOST_QUINTETS = 5, 500
SPARE = 2  # rollouts that each checkpoint writes more than are needed, to take where texts are equal
TWICE = timedelta(seconds=10)  # between two equal launches by one person that are one


class FaceoffRefused(ValueError):
    """Why a face-off cannot be begun, or changed, in words."""


class FaceoffQuerySet(models.QuerySet["Faceoff"]):
    @transaction.atomic
    def launch(
        self, project: Project, chosen: Iterable[Checkpoint], quintets: int, by: User | None
    ) -> "Faceoff":
        """Begin one between these checkpoints and the starting model: each of them is sampled by a run of its
        own. Raises FaceoffRefused, and Refused where a run cannot be launched."""
        project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        start, others = with_start(project, chosen)
        if not FEWEST_QUINTETS <= quintets <= MOST_QUINTETS:
            words = f"Ask for {FEWEST_QUINTETS} to {MOST_QUINTETS} quintets, not {quintets}."
            raise FaceoffRefused(words)
        prompts = list(project.prompts.order_by("pk").values_list("pk", flat=True))
        if not prompts:
            raise FaceoffRefused("The project has no prompts yet: add some first.")
        if twin := self._just_now(project, [start, *others], by):
            return twin
        number = 1 + (project.faceoffs.aggregate(last=Max("number"))["last"] or 0)
        random.Random(f"face-off {number}").shuffle(prompts)
        faceoff = self.create(
            project=project,
            number=number,
            start=start,
            round=_round(project, others),
            asked=list(islice(cycle(prompts), quintets)),
            created_by=by,
        )
        for place, checkpoint in enumerate([start, *others]):
            faceoff.contenders.create(checkpoint=checkpoint, place=place)
        faceoff.sample(by)
        named = ", ".join(str(each) for each in others)
        words = f"Face-off {number} is begun: {named} against {start}, {quintets} quintets."
        project.audit.write(by, project, "face-off begun", words[:500], faceoff=faceoff.pk)
        return faceoff

    def _just_now(self, project: Project, checkpoints: list[Checkpoint], by: User | None) -> "Faceoff | None":
        last = self.filter(project=project, created_by=by, created_at__gt=timezone.now() - TWICE).last()
        same = {each.pk for each in checkpoints}
        return last if last and {each.checkpoint_id for each in last.contenders.all()} == same else None

    def on_their_way(self, project: Project) -> bool:
        """Whether one will bring quintets that are not there yet, without anybody doing anything."""
        begun = self.filter(project=project, composed_at=None, stopped_at=None)
        return any(
            each.state in ("sampling", "composing") for each in begun.prefetch_related("contenders__run")
        )

    def sampled(self) -> "FaceoffQuerySet":
        """Those whose checkpoints have all written their rollouts, of which nothing was composed yet."""
        unfinished = Contender.objects.filter(faceoff=OuterRef("pk"))
        unfinished = unfinished.exclude(run__isnull=False, run__state=Run.State.FINISHED)
        return self.filter(~Exists(unfinished), composed_at=None, stopped_at=None)

    def unseen(self) -> list["Faceoff"]:
        """Those with other rankings than when the worker last looked; `seen` is what is there now."""
        ranked = Ranking.objects.counted().filter(quintet__faceoff__isnull=False)
        counted = ranked.order_by().values_list("quintet__faceoff").annotate(Count("pk"), Max("pk"))
        now = {pk: f"{many} rankings, the last is {last}" for pk, many, last in counted}
        known = dict(self.exclude(composed_at=None).values_list("pk", "seen"))
        other = {pk: now.get(pk, "") for pk, seen in known.items() if seen != now.get(pk, "")}
        found = list(self.told().filter(pk__in=other))
        for each in found:
            each.seen = other[each.pk]
        return found

    def fallen(self) -> list[tuple["Faceoff", str]]:
        """Where people's preference falls while the reward rises, in words; the newest first."""
        found = self.exclude(alarms={}).select_related("project", "round").order_by("-number")
        return [(faceoff, words) for faceoff in found for words in faceoff.alarms.values()]

    def told(self) -> "FaceoffQuerySet":
        """With what a page says of them; not with their runs' logs."""
        heavy = [f"{run}__{name}" for run in ("run", "checkpoint__run") for name in ("log_tail", "cursors")]
        contenders = Contender.objects.select_related("run", "checkpoint__run").defer(*heavy)
        told = self.select_related("project", "start", "shipped", "before", "created_by", "round")
        return told.prefetch_related(models.Prefetch("contenders", contenders))


def with_start(project: Project, chosen: Iterable[Checkpoint]) -> tuple[Checkpoint, list[Checkpoint]]:
    """The starting model, and the others in the order of their steps. It is the one that the others' runs
    started from, where that is one; else the project's. Raises FaceoffRefused."""
    others = {each.pk: each for each in chosen}
    starts = {each.run.start for each in others.values() if each.run and each.run.start}
    start = starts.pop() if len(starts) == 1 else project.start
    if start is None:
        raise FaceoffRefused("The project has no starting model yet: say which in its settings.")
    others.pop(start.pk, None)
    for each in [start, *others.values()]:
        if each.kind != Checkpoint.Kind.POLICY or each.project_id not in (None, project.pk):
            raise FaceoffRefused(f"“{each}” is no policy of this project.")
    if not others:
        raise FaceoffRefused("Choose a checkpoint to set against the starting model.")
    if len(others) >= MOST:
        raise FaceoffRefused(f"Choose {MOST - 1} checkpoints at most: a quintet has five rollouts.")
    return start, sorted(others.values(), key=lambda each: (each.run_id or 0, each.step or 0, each.pk))


def _round(project: Project, others: Sequence[Checkpoint]) -> Round:
    """That of the newest run whose checkpoints are in it."""
    rounds = [each.run.round for each in others if each.run and each.run.round]
    return max(rounds, key=lambda each: each.number) if rounds else Round.objects.current(project)


class Faceoff(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="faceoffs")
    number = models.PositiveIntegerField()
    round = models.ForeignKey(
        Round, models.PROTECT, related_name="faceoffs", help_text="Whose checkpoints these are."
    )
    start = models.ForeignKey(Checkpoint, models.PROTECT, related_name="+", help_text="The starting model.")
    asked = ArrayField(
        models.BigIntegerField(), default=list, help_text="The prompts, one a quintet; they may come again."
    )
    composed_at = models.DateTimeField(null=True, blank=True)
    left_out = models.PositiveIntegerField(default=0, help_text="Prompts to which all wrote the same.")
    stopped_at = models.DateTimeField(null=True, blank=True)
    stopped_because = models.CharField(max_length=500, blank=True)
    went_on = models.BooleanField(default=False, help_text="A person went on: it is not stopped by itself.")
    # What the worker saw when it last looked, so that pages about something else need not work it out.
    seen = models.CharField(max_length=60, blank=True, help_text="Which rankings there were.")
    looked = models.PositiveIntegerField(default=0, help_text="Rankings by people at the last look.")
    found = models.JSONField(default=dict, blank=True)
    alarms = models.JSONField(default=dict, blank=True, help_text="Of each run by its number, in words.")
    shipped = models.ForeignKey(Checkpoint, models.PROTECT, null=True, blank=True, related_name="shipped_by")
    shipped_at = models.DateTimeField(null=True, blank=True)
    before = models.ForeignKey(
        Checkpoint,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The project's start until one was shipped.",
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = FaceoffQuerySet.as_manager()

    class Meta:
        ordering = ["project", "number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="a_faceoff_number_once"),
        ]

    def __str__(self) -> str:
        return f"face-off {self.number}"

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """In their order, the starting model first."""
        return [each.checkpoint for each in self.contenders.all()]

    @property
    def said(self) -> dict:
        """What people said when the worker last looked; without any, what simulated labelers did."""
        return self.found.get("people") or self.found.get("simulated") or {}

    @property
    def state(self) -> str:
        """`sampling`, `stuck` (a run came to nothing), `composing`, `asking`, `stopped` or `done`."""
        if self.stopped_at:
            return "stopped"
        if self.composed_at:
            return "asking" if self.places().waiting().exists() else "done"
        states = {each.run.state if each.run else Run.State.FAILED for each in self.contenders.all()}
        if states & {Run.State.FAILED, Run.State.CANCELLED}:
            return "stuck"
        return "sampling" if states & set(Run.LIVE) else "composing"

    def places(self):
        return Place.objects.filter(quintet__faceoff=self, purpose=Purpose.WORK)

    def progress(self) -> dict[str, int]:
        """How many places are filled and how many are open, and quintets in all."""
        told = self.places().aggregate(
            filled=Count("pk", filter=Q(done=True, labeler__isnull=False)),
            open=Count("pk", filter=Q(done=False)),
        )
        return told | {"wanted": told["filled"] + told["open"], "quintets": self.quintets.count()}

    def sample(self, by: User | None) -> None:
        """Launch a run for each checkpoint that has none, or one that came to nothing."""
        contenders = list(self.contenders.select_related("checkpoint", "run"))
        known = self.project.prompts.in_bulk(self.asked)
        prompts = [known[pk] for pk in self.asked if pk in known]
        each_writes = -(-MOST // len(contenders)) + SPARE
        for contender in contenders:
            if contender.run and contender.run.state not in (Run.State.FAILED, Run.State.CANCELLED):
                continue
            # Seeds of their own: with one, two checkpoints that differ little would write the same.
            values = {"count": each_writes, "seed": 10 * self.number + contender.place}
            contender.run = Run.objects.launch(
                self.project,
                Run.Kind.ROLLOUTS,
                values,
                by,
                start=contender.checkpoint,
                prompts=prompts,
                again=True,
            )
            contender.save(update_fields=["run"])

    # What a person, or the worker, decides about it

    @transaction.atomic
    def again(self, by: User | None) -> None:
        """Sample anew what came to nothing; of two who ask at once, only the first does. Raises Refused."""
        self._lock()
        now = Faceoff.objects.get(pk=self.pk)
        if now.state == "stuck":
            now.sample(by)

    @transaction.atomic
    def stop(self, by: User | None, because: str) -> None:
        """Ask no further: the places that nobody sits at are closed. Stopped twice is stopped once."""
        self._lock()
        if self.stopped_at:
            return
        self.stopped_at = timezone.now()
        open_ones = self.places().waiting().vacant()
        closed = open_ones.close()
        for contender in self.contenders.select_related("run"):
            if contender.run and contender.run.is_live:
                contender.run.cancel(by)
        were = f" {closed} open {'place was' if closed == 1 else 'places were'} closed." if closed else ""
        self.stopped_because = f"{because}{were}"[:500]
        self.save(update_fields=["stopped_at", "stopped_because"])
        words = f"Face-off {self.number} is stopped. {self.stopped_because}"
        self.project.audit.write(by, self.project, "face-off stopped", words[:500], faceoff=self.pk)

    @transaction.atomic
    def go_on(self, by: User) -> None:
        """Ask on after it was stopped; from now on it does not stop by itself."""
        self._lock()
        if not self.stopped_at:
            return
        self.stopped_at, self.stopped_because, self.went_on = None, "", True
        self.save(update_fields=["stopped_at", "stopped_because", "went_on"])
        self.quintets.all().fit(self.project)
        if not self.composed_at:
            self.sample(by)
        words = f"Face-off {self.number} goes on."
        self.project.audit.write(by, self.project, "face-off goes on", words, faceoff=self.pk)

    @transaction.atomic
    def ship(self, checkpoint: Checkpoint, by: User) -> None:
        """Make it the project's starting model: what the next round begins with. Raises FaceoffRefused."""
        self._lock()
        if not self.contenders.filter(checkpoint=checkpoint).exists():
            raise FaceoffRefused(f"“{checkpoint}” is not in this face-off.")
        project = Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        if project.start_id == checkpoint.pk:
            raise FaceoffRefused(f"The project starts from {checkpoint} already.")
        self.before, self.shipped, self.shipped_at = project.start, checkpoint, timezone.now()
        self.save(update_fields=["before", "shipped", "shipped_at"])
        self._start_from(project, checkpoint)
        words = f"{checkpoint} is shipped by face-off {self.number}: the project starts from it now."
        about = {"faceoff": self.pk, "checkpoint": checkpoint.pk, "was": self.before_id}
        project.audit.write(by, project, "ship", words[:500], **about)

    @transaction.atomic
    def unship(self, by: User) -> None:
        """Take that back, as long as the project starts from it. Raises FaceoffRefused."""
        self._lock()
        project = Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        if not self.shipped_id:
            return
        if project.start_id != self.shipped_id or self.before is None:
            raise FaceoffRefused("The project starts from another model by now: change that in its settings.")
        words = f"The shipping of {self.shipped} is taken back: the project starts from {self.before} again."
        about = {"faceoff": self.pk, "checkpoint": self.before_id, "was": self.shipped_id}
        self._start_from(project, self.before)
        self.before = self.shipped = self.shipped_at = None
        self.save(update_fields=["before", "shipped", "shipped_at"])
        project.audit.write(by, project, "take back", words[:500], **about)

    def _start_from(self, project: Project, checkpoint: Checkpoint) -> None:
        project.start = checkpoint
        project.save(update_fields=["start"])
        self.project.start = checkpoint

    def _lock(self) -> None:
        """As it is now, this transaction's alone."""
        Faceoff.objects.select_for_update(no_key=True).get(pk=self.pk)
        self.refresh_from_db(fields=["stopped_at", "composed_at", "shipped", "before"])


class Contender(models.Model):
    """A checkpoint in a face-off, and the run in which it wrote its rollouts."""

    faceoff = models.ForeignKey(Faceoff, models.CASCADE, related_name="contenders")
    checkpoint = models.ForeignKey(Checkpoint, models.PROTECT, related_name="contenders")
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, related_name="contenders")
    place = models.PositiveSmallIntegerField(help_text="0 is the starting model.")

    class Meta:
        ordering = ["faceoff", "place"]
        constraints = [
            models.UniqueConstraint(fields=["faceoff", "checkpoint"], name="a_contender_once"),
            models.UniqueConstraint(fields=["faceoff", "place"], name="a_contender_a_place"),
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint} in {self.faceoff}"
