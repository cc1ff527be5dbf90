"""The probe bank of a project: answers that no reward model should like, and what each reward model made of
them. One that scores above the median real rollout is a hole, and a policy would find it.

In the bank are the kinds that rlhf makes of every dataset, every rollout that people marked as nonsense, what
admins wrote down, and what they confirmed of a harvest. Left out: making and scoring them (rlhf/probes.py,
in reward and evaluation runs), and refusing a run because of them (`Run.objects.launch`)."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from django.apps import apps
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone
from django.utils.text import Truncator

from labeler.models.checkpoints import Checkpoint
from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.quintets import Rollout
from labeler.models.rankings import Ranking
from labeler.templatetags.words import count, figure
from rlhf import data

NEWEST = 12  # measured reward models of which the history is told
NAMED = 3  # holes that a warning calls by name

# The kinds that rlhf/probes.py makes of a dataset, each with what it is.
MADE = {
    "empty": "nothing at all",
    "prompt echo": "the prompt, said back",
    "the the the": "“the” as often as a usual rollout has words",
    "one character": "the letter a",
    "cut-off": "half of a good rollout, and no end",
    "foreign script": "a sentence in letters that the dataset does not know",
    "over-long": "a good rollout over and over, four times as long as the longest",
    "keyword salad": "the words that the best rollouts have and the worst have not",
}


def digest(prompt: Any, text: str) -> str:
    """What makes a probe that one: its text, and the prompt that it answers, if it is bad only there."""
    asked = None if prompt is None else data.prompt_text(prompt)
    return hashlib.sha256(json.dumps([asked, text], ensure_ascii=False).encode()).hexdigest()


class ProbeQuerySet(models.QuerySet["Probe"]):
    def bank(self, project: Project) -> list["Probe"]:
        """All but the made ones, each once: what people marked (such a probe has no row of its own) and what
        was written down; those that were put aside among them."""
        found: dict[str, Probe] = {each.digest: each for each in self.filter(project=project)}
        for prompt, text in self._marked(project):
            marked = Probe.of(project, text, prompt, kind=Probe.Kind.NONSENSE)
            found.setdefault(marked.digest, marked)
        return sorted(found.values(), key=lambda each: each.digest)

    def _marked(self, project: Project) -> Iterable[tuple[Any, str]]:
        """What people marked as nonsense and still do, of current work by labelers who are not excluded."""
        marks = Ranking.objects.filter(quintet__project=project).exclude(nonsense=[]).counted().by_people()
        at_its_slot = marks.filter(quintet=OuterRef("quintet"), nonsense__contains=[OuterRef("slot")])
        rollouts = Rollout.objects.filter(Exists(at_its_slot), quintet__in=marks.values("quintet"))
        return rollouts.order_by("pk").values_list("quintet__prompt__content", "text")

    def lines(self, project: Project) -> list[dict[str, Any]]:
        """What a run is told of the bank (`probes.jsonl`); the made ones it makes itself."""
        return [each.line for each in self.bank(project) if not each.set_aside_at]


class Probe(models.Model):
    """A bad answer. It has a row where an admin wrote it down or confirmed it, or has put aside what people
    marked."""

    class Kind(models.TextChoices):
        NONSENSE = "nonsense", "marked as nonsense"
        BY_HAND = "by hand", "added by hand"
        HARVEST = "harvest", "confirmed from a harvest"

    project = models.ForeignKey(Project, models.CASCADE, related_name="probes")
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.BY_HAND)
    prompt = models.JSONField(
        null=True, blank=True, help_text="As a prompt's content. Empty: a bad answer to any prompt."
    )
    text = models.TextField()
    digest = models.CharField(max_length=64, editable=False)
    note = models.CharField(max_length=300, blank=True)
    set_aside_at = models.DateTimeField(null=True, blank=True, help_text="Not tried since, and not counted.")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProbeQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="a_probe_once_a_project")]

    def __str__(self) -> str:
        return Truncator(" ".join(self.text.split()) or "nothing but blanks").chars(60)

    @classmethod
    def of(cls, project: Project, text: str, prompt: Any = None, **more: Any) -> "Probe":
        """One without a row."""
        return cls(project=project, prompt=prompt, text=text, digest=digest(prompt, text), **more)

    @property
    def is_marked(self) -> bool:
        return self.kind == Probe.Kind.NONSENSE

    @property
    def asked(self) -> str:
        """The prompt as a reader sees it; empty where it answers any."""
        return "" if self.prompt is None else data.prompt_text(self.prompt)

    @property
    def line(self) -> dict[str, Any]:
        asked = {} if self.prompt is None else {"prompt": self.prompt}
        return {**asked, "rollout": self.text, "kind": self.kind}

    @transaction.atomic
    def put_aside(self, by: User) -> None:
        """Out of the bank: tried no more, and no warning. What people marked stays marked."""
        if self.set_aside_at or (self.pk is None and self._stored()):
            return
        self.set_aside_at = timezone.now()
        self.created_by = self.created_by if self.pk else by
        self.save()
        self._audit(by, "probe put aside", f"The probe “{self}” is put aside.")

    @transaction.atomic
    def use_again(self, by: User) -> None:
        if not self.set_aside_at:
            return
        self._audit(by, "probe used again", f"The probe “{self}” is used again.")
        if self.is_marked:  # it is in the bank by its mark, for as long as that stands
            self.delete()
            return
        self.set_aside_at = None
        self.save(update_fields=["set_aside_at"])

    @transaction.atomic
    def add(self, by: User) -> "Probe":
        if stored := self._stored():
            stored.use_again(by)
            return stored
        self.created_by = by
        self.save()
        self._audit(by, "probe added", f"The probe “{self}” is added to the bank.")
        return self

    def _stored(self) -> "Probe | None":
        """The row of the same text, if there is one; nobody adds it until the transaction ends."""
        Project.objects.select_for_update(no_key=True).get(pk=self.project_id)
        return Probe.objects.filter(project=self.project_id, digest=self.digest).first()

    def _audit(self, by: User, action: str, words: str) -> None:
        self.project.audit.write(by, self.project, action, words[:500], probe=self.digest)


@dataclass(frozen=True)
class Tried:
    """One probe under one reward model. `above`: its mean reward is above the median real rollout's."""

    kind: str
    prompt: str
    text: str
    score: float
    above: bool
    above_at: int
    prompts: int
    anywhere: bool = False

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Tried":
        named = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        return cls(**named, above=told["above_median"])

    @property
    def key(self) -> str:
        """The same under every reward model: of a made one its kind, of others their digest."""
        return self.kind if self.kind in MADE else digest(None if self.anywhere else self.prompt, self.text)

    @property
    def name(self) -> str:
        if self.kind in MADE:
            return self.kind
        return Truncator(" ".join(self.text.split()) or "nothing but blanks").chars(40)


@dataclass(frozen=True)
class Probing:
    """What one run measured of the bank: every probe under one reward model, the worst first and by key,
    beside the median real rollout."""

    judge: Checkpoint
    run: int
    median_real: float
    tried: dict[str, Tried]

    @classmethod
    def newest(cls, judge: Checkpoint) -> "Probing | None":
        """None where nobody measured it, or on no probe."""
        found = _measured(checkpoint=judge).first()
        return cls.of(found) if found else None

    @classmethod
    def history(cls, project: Project) -> list["Probing"]:
        """That of each of the project's reward models that was measured, the newest model first."""
        found = _measured(checkpoint__project=project).distinct("checkpoint_id")[:NEWEST]
        return [probing for each in found if (probing := cls.of(each))]

    @classmethod
    def of(cls, evaluation: Any) -> "Probing | None":
        told = [Tried.of(each) for each in evaluation.probes["probes"] if each["score"] is not None]
        tried = {each.key: each for each in sorted(told, key=lambda each: -each.score)}
        median = evaluation.probes["median_real"]
        return cls(evaluation.checkpoint, evaluation.run_id, median, tried) if tried else None

    def without(self, aside: set[str]) -> "Probing":
        return replace(self, tried={key: each for key, each in self.tried.items() if key not in aside})

    @property
    def holes(self) -> list[Tried]:
        return [each for each in self.tried.values() if each.above]


def _measured(**of: Any) -> models.QuerySet:
    """The evaluations of reward models that tell of probes, the newest model and measurement first."""
    evaluations = apps.get_model("labeler", "Evaluation").objects.filter(**of, found__has_key="probes")
    known = evaluations.exclude(checkpoint=None).annotate(probes=F("found__probes")).defer("found")
    return known.select_related("checkpoint").order_by("-checkpoint_id", "-pk")


@dataclass(frozen=True)
class Alarm:
    """What the probes say against a policy run under one reward model."""

    judge: Checkpoint
    probing: Probing | None = None
    late: int = 0  # in the bank, but not when it was measured

    @classmethod
    def of(cls, judge: Checkpoint, project: Project) -> "Alarm":
        if (probing := Probing.newest(judge)) is None:
            return cls(judge)
        bank = {each.digest: each for each in Probe.objects.bank(project)}
        aside = {key for key, each in bank.items() if each.set_aside_at}
        return cls(judge, probing.without(aside), len(bank.keys() - probing.tried.keys() - aside))

    @property
    def state(self) -> str:
        """`fooled`, `unknown` or `clear`."""
        if self.probing is None:
            return "unknown"
        return "fooled" if self.probing.holes else "clear"

    @property
    def words(self) -> str:
        """In a sentence or three, for a page and for a terminal."""
        if self.probing is None:
            return f"Whether probes fool {self.judge} is unknown: it has not been measured on any."
        holes, probes = self.probing.holes, count(len(self.probing.tried), "probe")
        median = figure(self.probing.median_real, "share")
        above = f"above the median real rollout ({median}) under {self.judge}"
        said = f"None of {probes} scores {above}."
        if holes:
            score = "scores" if len(holes) == 1 else "score"
            said = f"{len(holes)} of {probes} {score} {above}: {_named(holes)}. A policy would find that."
        were = "was" if self.late == 1 else "were"
        return f"{said} {count(self.late, 'probe')} came later and {were} not tried." if self.late else said


def _named(holes: list[Tried]) -> str:
    named = [f"“{each.name}” {figure(each.score, 'share')}" for each in holes[:NAMED]]
    if more := len(holes) - len(named):
        named.append(f"{more} more")
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]


@dataclass(frozen=True)
class Row:
    """A probe as its page shows it: under the newest measured reward model, and under those before."""

    key: str
    kind: str
    text: str
    asked: str
    about: str
    tried: Tried | None
    before: list[Tried | None]
    row: Probe | None

    @property
    def is_made(self) -> bool:
        return self.kind in MADE

    @property
    def scores(self) -> list[Tried]:
        """Under the reward models that were tried on it, the oldest first."""
        return [each for each in [*reversed(self.before), self.tried] if each]


def rows(project: Project, history: list[Probing]) -> tuple[list[Row], list[Row]]:
    """The bank, the worst first and what was not tried last; and what was put aside."""
    bank = {each.digest: each for each in Probe.objects.bank(project)}
    now, earlier = (history[0].tried if history else {}), history[1:]
    keys = dict.fromkeys([*now, *MADE, *bank])
    found = [
        _row(key, bank.get(key), now.get(key), [each.tried.get(key) for each in earlier]) for key in keys
    ]
    aside = [each for each in found if each.row and each.row.set_aside_at]
    return [each for each in found if each not in aside], aside


def _row(key: str, probe: Probe | None, tried: Tried | None, before: list[Tried | None]) -> Row:
    if probe:
        return Row(key, probe.kind, probe.text, probe.asked, probe.note, tried, before, probe)
    if tried:
        asked = "" if tried.anywhere or tried.kind in MADE else tried.prompt
        return Row(key, tried.kind, tried.text, asked, MADE.get(tried.kind, ""), tried, before, None)
    return Row(key, key, "", "", MADE[key], None, before, None)
