"""The harvest: what a policy wrote that may have fooled its reward model, and what people made of it.

A `Harvest` is one look through a policy run, a `Find` one rollout that stands for all that are like it.
Confirmed as nonsense, a find goes into the bank of probes for good, and into later datasets as a ranking:
last, below ordinary rollouts of its prompt. Such a ranking says no more than was confirmed (the others share
the first rank), has a purpose of its own, and is counted apart. How a run is looked through is said in
labeler/harvest.py; whether a reward model is still fooled is what the probes measure (probes.py)."""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.utils import timezone
from django.utils.text import Truncator

from labeler.models.checkpoints import Checkpoint
from labeler.models.companions import Companion, fill, name_writers, unmarked
from labeler.models.people import User
from labeler.models.probes import Probe, Probing, digest
from labeler.models.projects import Project
from labeler.models.prompts import Prompt
from labeler.models.quintets import FEWEST, MOST, Quintet, Rollout, Stays
from labeler.models.rankings import Purpose, Ranking
from labeler.models.requests import Request
from labeler.models.rounds import Round
from labeler.models.runs import Run
from rlhf import data

REASONS = {
    "far": "high reward, far from the start",
    "repeats": "repeats itself and is rewarded",
    "marked": "like what people marked as nonsense",
}
PLENTY = 9  # to choose four different ones from
LIMIT = 20.0  # of KL, where a run has none


class NotHarvested(ValueError):
    """Why a run is not looked through, or nothing done about a find, in words."""


class HarvestQuerySet(models.QuerySet["Harvest"]):
    @transaction.atomic
    def look_through(self, run: Run, by: User | None) -> "Harvest":
        """Have a worker look through what the run wrote; the look that is under way, where there is one.
        Raises NotHarvested."""
        if run.kind != Run.Kind.POLICY or not run.reward_model_id:
            raise NotHarvested("Only a policy run against a reward model has something that could be fooled.")
        if run.state in (Run.State.QUEUED, Run.State.RUNNING):
            raise NotHarvested(f"Run {run.pk} is still at work: look through it when it has ended.")
        Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        under_way = self.filter(run=run, request__state__in=Request.LIVE).first()
        if under_way:
            return under_way
        round = run.round or Round.objects.current(run.project)
        made = self.create(project=run.project, run=run, round=round, created_by=by)
        made.request = Request.objects.ask(
            run.project, Request.Kind.HARVEST, {"run": run.pk, "harvest": made.pk}, by, run
        )
        made.save(update_fields=["request"])
        return made

    def harvestable(self, project: Project) -> models.QuerySet[Run]:
        """The policy runs that could be looked through, the newest first."""
        ended = project.runs.filter(kind=Run.Kind.POLICY, reward_model__isnull=False)
        return ended.exclude(state__in=Run.LIVE).filter(step__gt=0).order_by("-pk")


class Harvest(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="harvests")
    run = models.ForeignKey(Run, models.CASCADE, related_name="harvests")
    round = models.ForeignKey(Round, models.PROTECT, related_name="harvests")
    request = models.OneToOneField(Request, models.SET_NULL, null=True, blank=True, related_name="+")
    rollouts = models.PositiveIntegerField(default=0, help_text="How many were looked at.")
    picked = models.PositiveIntegerField(default=0, help_text="Of these, how many may have fooled it.")
    known = models.PositiveIntegerField(default=0, help_text="Groups like one that was found before.")
    left_out = models.PositiveIntegerField(default=0, help_text="Groups beyond what one look offers.")
    usual = models.JSONField(default=dict, blank=True, help_text="What they were held against.")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = HarvestQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"harvest {self.pk} of {self.run}"

    @property
    def limit(self) -> float:
        """The KL beyond which a rollout is far: the one that the run's own crop is suggested by."""
        return float(self.run.config.get("crop_kl") or LIMIT)

    def marked(self) -> list[tuple[str, str]]:
        """What people marked as nonsense, each with its prompt."""
        bank = Probe.objects.bank(self.project)
        return [(each.asked, each.text) for each in bank if each.is_marked and not each.set_aside_at]

    def decided(self) -> list[tuple[str, str]]:
        """What was found before, whatever became of it."""
        found = self.project.finds.select_related("prompt")
        return [(data.prompt_text(each.prompt.content), each.text) for each in found]

    def answered(self) -> list[str]:
        """The prompts to which the project has rollouts."""
        prompts = self.project.prompts.filter(
            models.Exists(Quintet.objects.filter(prompt=models.OuterRef("pk")))
        )
        return [data.prompt_text(content) for content in prompts.values_list("content", flat=True)]

    def keep(self, looked: Any, prompts: dict[str, int]) -> int:
        """Write down what a look (`labeler.harvest.Looked`) found. The caller holds the request. How many are
        offered; the same look twice offers the same."""
        there = set(self.project.prompts.filter(pk__in=prompts.values()).values_list("pk", flat=True))
        finds = []
        for each in looked.offered:
            asked = prompts.get(each.prompt)
            if asked not in there:  # it was deleted meanwhile
                continue
            kept = ("step", "group", "index", "score", "reward", "kl", "distinct", "finished", "reasons")
            finds.append(
                Find(
                    harvest=self,
                    project=self.project,
                    prompt_id=asked,
                    text=each.text,
                    digest=digest(each.prompt, each.text),
                    alike=each.alike,
                    others=each.others,
                    beside=looked.beside.get(each.prompt, []),
                    **{name: getattr(each, name) for name in kept},
                )
            )
        Find.objects.bulk_create(finds, ignore_conflicts=True)
        for name in ("rollouts", "picked", "known", "left_out"):
            setattr(self, name, getattr(looked, name))
        self.usual = vars(looked.usual)
        self.finished_at = timezone.now()
        self.save()
        return self.finds.count()


class FindQuerySet(models.QuerySet["Find"]):
    def told(self) -> "FindQuerySet":
        """With all that a page says of them, those that stand for most first."""
        related = ("prompt", "harvest__run", "decided_by", "quintet")
        return self.select_related(*related).order_by("-alike", "-score", "pk")


class Find(models.Model):
    """A rollout that may have fooled its reward model, for all that are alike."""

    class State(models.TextChoices):
        OFFERED = "offered", "to be looked at"
        CONFIRMED = "confirmed", "confirmed as nonsense"
        ASKED = "asked", "sent to the labelers"
        REJECTED = "rejected", "rejected: it is no nonsense"

    harvest = models.ForeignKey(Harvest, models.CASCADE, related_name="finds")
    project = models.ForeignKey(Project, models.CASCADE, related_name="finds")
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="finds")
    text = models.TextField()
    digest = models.CharField(max_length=64, editable=False, help_text="As of the probe that it may become.")
    finished = models.BooleanField(default=True)
    step = models.PositiveIntegerField()
    group = models.PositiveIntegerField(default=0)
    index = models.PositiveIntegerField(default=0)
    score = models.FloatField(help_text="What its own reward model gave it, from 0 to 1.")
    reward = models.FloatField(help_text="The same, less what it paid for its distance from the start.")
    kl = models.FloatField()
    distinct = models.FloatField(help_text="Share of its pairs of tokens that are different.")
    reasons = ArrayField(models.CharField(max_length=20), default=list)
    alike = models.PositiveIntegerField(
        default=1, help_text="How many rollouts it stands for, itself included."
    )
    others = models.JSONField(default=list, blank=True, help_text="Some of those that are like it.")
    beside = models.JSONField(default=list, blank=True, help_text="Ordinary ones of its run and prompt.")
    state = models.CharField(max_length=10, choices=State, default=State.OFFERED)
    decided_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    quintet = models.ForeignKey(Quintet, models.SET_NULL, null=True, blank=True, related_name="+")

    objects = FindQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="a_find_once_a_project")]

    def __str__(self) -> str:
        return Truncator(" ".join(self.text.split()) or "nothing but blanks").chars(60)

    @property
    def why(self) -> list[str]:
        return [REASONS[each] for each in self.reasons if each in REASONS]

    @property
    def origin(self) -> dict[str, Any]:
        """What a line of a dataset tells of where it was found."""
        return {"run": self.harvest.run_id, "step": self.step, "alike": self.alike}

    def companions(self) -> list[Companion]:
        """Up to four ordinary rollouts of the same prompt, to put it below: those that people ranked in the
        upper half and did not mark come first, then what the start wrote, then the run's beginning."""
        found: dict[str, Companion] = {}
        for text, checkpoint in (*self._liked(), *self._sampled()):
            found.setdefault(text, Companion(text, checkpoint))
        for each in self._written():
            found.setdefault(each.text, each)
        mine = self.text.strip()
        return [each for text, each in found.items() if text.strip() and text.strip() != mine][: MOST - 1]

    def _written(self, later: bool = False) -> list[Companion]:
        """Ordinary rollouts of its own run and prompt, from the beginning; with `later`, those after too."""
        return [
            Companion(each["text"], model=f"{self._writer}, step {each['step']}")
            for each in self.beside
            if later or not each.get("later")
        ]

    def _liked(self) -> list[tuple[str, Checkpoint | None]]:
        given = Ranking.objects.filter(quintet__prompt=self.prompt).counted().by_people()
        liked: list[tuple[str, Checkpoint | None]] = []
        for ranking in given.order_by("-pk").prefetch_related("quintet__rollouts__checkpoint")[:MOST]:
            ranks, bad = ranking.ranks, {*ranking.nonsense, *ranking.unsafe}
            for rollout in sorted(ranking.quintet.rollouts.all(), key=lambda each: ranks[each.slot]):
                if ranks[rollout.slot] <= (1 + max(ranks)) / 2 and rollout.slot not in bad:
                    liked.append((rollout.text, rollout.checkpoint))
        return liked

    def _sampled(self) -> list[tuple[str, Checkpoint | None]]:
        start = self.harvest.run.start_id
        wrote = Rollout.objects.filter(quintet__prompt=self.prompt, checkpoint=start, finished=True)
        first = unmarked(wrote).order_by("pk").select_related("checkpoint")[:PLENTY]
        return [(each.text, each.checkpoint) for each in first]

    @property
    def _writer(self) -> str:
        return f"run {self.harvest.run_id}"

    # What people decide

    @transaction.atomic
    def confirm(self, by: User) -> bool:
        """Nonsense: a probe for good, and last in a ranking of later datasets. Whether there were others to
        rank it below. Decided twice is decided once."""
        now = self._locked()
        if now.state == Find.State.CONFIRMED:
            return now.quintet is not None
        probe, _ = Probe.objects.get_or_create(
            project=self.project,
            digest=self.digest,
            defaults={"kind": Probe.Kind.HARVEST, "prompt": self.prompt.content, "text": self.text,
                      "note": f"{self._writer}, step {self.step}", "created_by": by},
        )  # fmt: skip
        if probe.kind == Probe.Kind.NONSENSE and probe.set_aside_at:
            probe.use_again(by)
        others = now.companions()
        quintet = now._composed(others, Purpose.HARVEST, places=0)
        if quintet:
            last = len(quintet.rollouts.all()) - 1
            ranks = [1] * last + [2]
            extra = {"harvest": self.origin}
            quintet.record_ranking(by, None, ranks, ties=True, nonsense=[last], extra=extra)
        now._decide(Find.State.CONFIRMED, by, quintet, probe=self.digest)
        return quintet is not None

    @transaction.atomic
    def send(self, by: User) -> Quintet:
        """Let the labelers say: into their queue, beside ordinary rollouts, told from them by nothing. What
        the labelers kept of an earlier time is asked on. Raises NotHarvested."""
        now = self._locked()
        if now.state == Find.State.ASKED and now.quintet:
            return now.quintet
        now._refuse_unless_open()
        quintet = now._asked().filter(round__closed_at=None).first()
        if quintet is None:
            others = fill(now.prompt, [now.text], now._written(later=True))
            quintet = now._composed(others, Purpose.WORK, places=None)
        if quintet is None:
            raise NotHarvested("There is no other rollout of this prompt to put beside it.")
        now._decide(Find.State.ASKED, by, quintet)
        return quintet

    @transaction.atomic
    def reject(self, by: User) -> None:
        now = self._locked()
        if now.state != Find.State.REJECTED:
            now._refuse_unless_open()
            now._decide(Find.State.REJECTED, by, None)

    @transaction.atomic
    def take_back(self, by: User) -> str:
        """As if nobody had decided: out of the bank, of later datasets, and of the labelers' queue. What they
        have ranked stays there; that is returned, in words."""
        now, stays = self._locked(), ""
        if now.state == Find.State.OFFERED:
            return stays
        if now.state == Find.State.CONFIRMED:
            Probe.objects.filter(project=self.project, digest=self.digest, kind=Probe.Kind.HARVEST).delete()
            if now.quintet:
                now.quintet.rankings.filter(purpose=Purpose.HARVEST).update(current=False)
        asked = list(now._asked())
        now._decide(Find.State.OFFERED, by, None)
        for quintet in asked:
            try:
                quintet.withdraw()
            except Stays as stay:
                stays = f"Quintet {quintet.pk} stays with the labelers: {stay}"
        return stays

    def _asked(self) -> models.QuerySet[Quintet]:
        """The quintets in which labelers were asked about it."""
        its_own = models.Q(extra__find=self.pk) | models.Q(pk=self.quintet_id)
        return Quintet.objects.filter(its_own, prompt=self.prompt_id, purpose=Purpose.WORK)

    def _locked(self) -> "Find":
        return (
            Find.objects.select_related("harvest__run", "project", "prompt", "quintet")
            .select_for_update(of=["self"], no_key=True)
            .get(pk=self.pk)
        )

    def _refuse_unless_open(self) -> None:
        if self.state == Find.State.CONFIRMED:
            raise NotHarvested("It was confirmed meanwhile: take that back first.")

    def _composed(self, others: list[Companion], purpose: str, places: int | None) -> Quintet | None:
        """A quintet of these with it in the last slot; None where there are none. Labelers see the slots
        shuffled."""
        if len(others) + 1 < FEWEST:
            return None
        found = Companion(self.text, finished=self.finished, model=f"{self._writer}, step {self.step}")
        wrote = [*others, found]
        quintet = Quintet.objects.compose(
            self.project,
            Round.objects.current(self.project),
            self.prompt,
            [each.text for each in wrote],
            checkpoints=[each.checkpoint for each in wrote],
            finished=[each.finished for each in wrote],
            extra={"find": self.pk},
            places=places,
        )
        name_writers(quintet, wrote)
        if purpose != Purpose.WORK:
            quintet.purpose = purpose
            quintet.save(update_fields=["purpose"])
        return quintet

    def _decide(self, state: str, by: User, quintet: Quintet | None, **about: Any) -> None:
        was, offered = self.state, state == Find.State.OFFERED
        self.state, self.quintet = state, quintet
        self.decided_by, self.decided_at = (None, None) if offered else (by, timezone.now())
        self.save(update_fields=["state", "quintet", "decided_by", "decided_at"])
        words = f"The find “{self}” of run {self.harvest.run_id} is {state}, and was {was}."
        about |= {"find": self.pk, "run": self.harvest.run_id}
        if quintet:
            about["quintet"] = quintet.pk
        self.project.audit.write(by, self.project, f"harvest {state}", words[:500], **about)


@dataclass
class Score:
    """A round in the game that cannot be won: what was found in its runs, and what of it still fools."""

    round: Round
    runs: list[int] = field(default_factory=list)
    rollouts: int = 0
    found: int = 0  # groups, those that are like an earlier one not among them
    known: int = 0
    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Find.State.values, 0))
    tried: int = 0  # of the confirmed ones, under the newest measured reward model
    fooling: int = 0
    before: float | None = None  # mean score of these under the reward model of their own run
    after: float | None = None


def scores(project: Project, newest: Probing | None) -> list[Score]:
    """Round by round, the newest first. `newest`: what the newest measured reward model made of the bank."""
    found: dict[int, Score] = {}
    own: dict[int, list[float]] = defaultdict(list)
    now: dict[int, list[float]] = defaultdict(list)
    looks = project.harvests.filter(finished_at__isnull=False).select_related("round")
    for look in looks.order_by("-round__number", "pk"):
        score = found.setdefault(look.round_id, Score(look.round))
        if look.run_id not in score.runs:
            score.runs.append(look.run_id)
            score.rollouts += look.rollouts
            score.known += look.known
    for find in project.finds.select_related("harvest__round").defer("others", "beside", "text"):
        round = find.harvest.round
        score = found.setdefault(round.pk, Score(round))
        score.found += 1
        score.states[find.state] += 1
        tried = newest.tried.get(find.digest) if newest and find.state == Find.State.CONFIRMED else None
        if tried:
            score.tried += 1
            score.fooling += tried.above
            own[score.round.pk].append(find.score)
            now[score.round.pk].append(tried.score)
    for score in found.values():
        if score.tried:
            score.before, score.after = fmean(own[score.round.pk]), fmean(now[score.round.pk])
    return list(found.values())
