"""A project: one thing to get better at, with its guidelines, its starting model and the people who rank."""

import hashlib
from itertools import chain, count
from typing import Any

from django.core.validators import slug_re
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from django.utils.text import slugify

from labeler import footprint
from labeler.models.guidelines import Guidelines, reading
from labeler.models.people import User
from rlhf import config, data

# The settings by which the queue is filled and ordered.
QUEUED = {"overlap", "wider_overlap", "wider_share", "queue", "random_share"}
# Those after which every reference is held against its own solution anew.
CHECKED = {"judge", "checker", "judge_model"}
USUAL_CHECKER = "number"


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user) -> "ProjectQuerySet":
        return self if user.is_staff else self.filter(memberships__user=user)

    def reviewed_by(self, user) -> "ProjectQuerySet":
        """Where this person decides what others disagree about: as a reviewer, or as an admin."""
        return self._where(user, Membership.Role.REVIEWER, Membership.Role.ADMIN)

    def run_by(self, user) -> "ProjectQuerySet":
        """Where this person is an admin: of the project, or of all."""
        return self._where(user, Membership.Role.ADMIN)

    def _where(self, user, *roles: str) -> "ProjectQuerySet":
        # One join for both, or somebody else's role would count.
        return self if user.is_staff else self.filter(memberships__user=user, memberships__role__in=roles)

    def named(self, slug: str) -> "Project":
        """The project at this address; made where there is none yet. ValueError says why it cannot be."""
        if not slug_re.fullmatch(slug) or len(slug) > 60 or slug == "new":
            raise ValueError(f"“{slug}” cannot name a project: use letters, digits, - and _, at most 60.")
        return self.get_or_create(slug=slug, defaults={"name": slug.replace("-", " ").capitalize()})[0]

    def free_slug(self, name: str) -> str:
        """An address for a project of this name: `pelican-jokes`, or `pelican-jokes-2` if that is taken."""
        stem = slugify(name)[:50].strip("-") or "project"
        # /projects/new/ is a page.
        taken = {"new", *self.filter(slug__startswith=stem).values_list("slug", flat=True)}
        return next(slug for slug in chain([stem], (f"{stem}-{n}" for n in count(2))) if slug not in taken)


class Project(models.Model):
    class Judge(models.TextChoices):
        PEOPLE = "people", "People rank the answers"
        CHECKER = "checker", "A checker compares answers with the right one"

    class Queue(models.TextChoices):
        IMPORTED = "imported", "In the order in which they came"
        RANDOM = "random", "At random"
        UNCERTAIN = "uncertain", "Where the reward model is least sure first"

    class Checks(models.TextChoices):
        REPORT = "report", "Only report it"
        WARN = "warn", "Warn the labeler"
        PAUSE = "pause", "Pause the labeler"

    class Fooled(models.TextChoices):
        WARN = "warn", "Warn, and launch it"
        REFUSE = "refuse", "Refuse to launch it"

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    judge = models.CharField(max_length=10, choices=Judge, default=Judge.PEOPLE)
    checker = models.JSONField(
        default=dict, blank=True, help_text='What compares answers: {"name": "number", "tolerance": 0.01, …}.'
    )
    judge_model = models.ForeignKey(
        "Checkpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The model that is asked, where the checker is a judge.",
    )
    guidelines = models.TextField(blank=True, help_text="Markdown, shown beside every ranking.")
    start = models.ForeignKey(
        "Checkpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The policy that the first rollouts come from.",
    )
    overlap = models.PositiveSmallIntegerField(default=1, help_text="How many labelers rank each quintet.")
    wider_overlap = models.PositiveSmallIntegerField(
        default=3, help_text="How many labelers rank each quintet of the share below."
    )
    wider_share = models.FloatField(
        default=0.0, help_text="Share of the quintets that more labelers rank, so that agreement is measured."
    )
    queue = models.CharField(max_length=10, choices=Queue, default=Queue.IMPORTED)
    random_share = models.FloatField(
        default=0.2, help_text="Share of quintets drawn at random and marked so, to measure the gain by."
    )
    ties = models.BooleanField(default=False, help_text="Two rollouts may share a rank.")
    acceptable = models.BooleanField(
        default=False, help_text="Labelers also say down to which rank the rollouts are acceptable."
    )
    rendered = models.BooleanField(
        default=False, help_text="Prompts and rollouts are shown as Markdown instead of as plain text."
    )
    session_goal = models.PositiveSmallIntegerField(
        default=20, help_text="Rankings that a labeler sets out to make at a sitting. 0: no goal."
    )
    # Hidden checks, and what comes of failing them.
    gold_rate = models.FloatField(
        default=0.05, help_text="Share of what a labeler is shown that is a gold quintet."
    )
    repeat_rate = models.FloatField(
        default=0.03, help_text="Share of what a labeler is shown that they have ranked before."
    )
    checks = models.CharField(max_length=10, choices=Checks, default=Checks.REPORT)
    gold_pass = models.FloatField(
        default=0.7, help_text="Least share of the pairs of gold quintets that a labeler has to get right."
    )
    repeat_pass = models.FloatField(
        default=0.6, help_text="Least share of pairs that a labeler has to rank the same way twice."
    )
    practice = models.BooleanField(
        default=False, help_text="New labelers rank worked examples first, and are told how they did."
    )
    practice_pass = models.FloatField(
        default=0.7, help_text="Least share of the pairs of the practice that a labeler has to get right."
    )
    keep_waiting = models.PositiveSmallIntegerField(
        default=20, help_text="When fewer quintets wait, more rollouts are sampled. 0: never by themselves."
    )
    fooled = models.CharField(
        max_length=10,
        choices=Fooled,
        default=Fooled.WARN,
        help_text="What happens to a policy run whose reward model a probe fools.",
    )
    simulated_labelers = models.BooleanField(
        default=False, help_text="Programs with a hidden taste rank what waits, for the demo and research."
    )
    # {"policy": {"steps": 90, …}, …}: what a new run of this project starts from instead of the default.
    run_defaults = models.JSONField(default=dict, blank=True)
    # [{"kind": "policy", "name": "Let it run off the cliff", "help": "…", "values": {"beta": 0}}, …]
    presets = models.JSONField(default=list, blank=True)
    people = models.ManyToManyField(User, through="Membership", related_name="projects")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])

    @property
    def guidelines_html(self) -> SafeString:
        """The guidelines as a reader sees them: only what text needs gets through, and nothing is fetched."""
        return reading(self.guidelines)

    @cached_property
    def newest_guidelines(self) -> Guidelines | None:
        """The version that whoever ranks now has beside them; asked once for a page and for what it keeps."""
        return self.guideline_versions.order_by("-number").first()

    def defaults_of(self, kind: str, judged: str = "") -> dict:
        """What a run of this kind starts from here: the project's own word over the kind's. `judged`: of a
        policy, by whose word its reward is."""
        own = self.own_defaults(kind)
        return {each.name: own.get(each.name, each.default) for each in config.settings(kind, judged)}

    def own_defaults(self, kind: str) -> dict[str, Any]:
        """Where the project departs from a kind's defaults: by its own word, and because a rollout leaves to
        the prompt half of what its start can take."""
        own = dict(self.run_defaults.get(kind, {}))
        model = footprint.model(self.start.folder) if self.start else None
        longest = getattr(config.KINDS[kind], "max_new_tokens", 0)
        if model and model.context and longest > (half := model.context // 2):
            own.setdefault("max_new_tokens", half)
        return own

    @property
    def is_checked(self) -> bool:
        """Whether a checker judges here. People may rank as well; a run then mixes both."""
        return self.judge == Project.Judge.CHECKER

    @property
    def checker_name(self) -> str:
        return self.checker.get("name") or USUAL_CHECKER

    @property
    def checker_options(self) -> dict:
        return {name: value for name, value in self.checker.items() if name != "name"}

    @property
    def checked_by_rule(self) -> bool:
        """Whether no model has a say in what is correct."""
        return self.is_checked and self.checker_name in config.RULES

    def judged(self, kind: str, mixed: bool = False) -> str:
        """By whose word the reward of a run is: `rules`, `mixed` or a `model`; of runs without one, empty.
        `mixed`: a reward model has a say beside the checker."""
        if kind != config.PolicyConfig.kind:
            return ""
        if not self.is_checked:
            return "model"
        return "rules" if self.checked_by_rule and not mixed else "mixed"

    @property
    def checker_digest(self) -> str:
        """What tells this checker with its options from any other."""
        model = self.judge_model_id if self.checker_name == "judge" else None
        said = {"name": self.checker_name, **self.checker_options, "model": model}
        return hashlib.sha256(data.dumps(dict(sorted(said.items()))).encode()).hexdigest()[:16]

    def rankings_by_people(self) -> int:
        """How many there are, without looking at them."""
        from labeler.models.contributions import Contribution

        return Contribution.objects.filter(round__project=self).by_people().ranked()

    @transaction.atomic
    def admit(self, user: User, role: str, by: User) -> "Membership":
        """Let somebody in; who is in already stays what they are."""
        membership, new = self.memberships.get_or_create(user=user, defaults={"role": role})
        if new:
            self.audit.write(by, self, "let in", f"{user} is let in as {role}.", labeler=user.pk, role=role)
        return membership

    def change(self, by: User, **settings) -> None:
        """Change settings, and keep what they were. The queue follows: quintets that wait gain or lose open
        places and are put into the new order; not in the same transaction, or everybody would wait for it."""
        changed = self._change(by, settings)
        if changed & QUEUED:
            self.quintets.reorder(self)
        if "queue" in changed:
            from labeler.models.requests import Request  # requests are about projects

            Request.objects.keep_ordered(self)
        if changed & CHECKED:
            from labeler import checking  # it is built on the models

            checking.attend(self)

    @transaction.atomic
    def _change(self, by: User, settings: dict) -> set[str]:
        """Which settings are others now."""
        was = Project.objects.select_for_update(no_key=True).get(pk=self.pk)
        changed = {name: now for name, now in settings.items() if getattr(was, name) != now}
        if not changed:
            return set()
        for name, now in changed.items():
            setattr(self, name, now)
        self.save(update_fields=list(changed))
        said = {name: (_said(was, name), _said(self, name)) for name in changed}
        words = "; ".join(
            f"{name.replace('_', ' ')}: {then}, now {now}" for name, (then, now) in said.items()
        )
        self.audit.write(by, self, "settings changed", words[:500], changed=said)
        return set(changed)

    @transaction.atomic
    def revise_guidelines(self, text: str, by: User | None = None) -> Guidelines | None:
        """The newest version; a new one where `text` is another. Rankings name theirs."""
        Project.objects.select_for_update(no_key=True).get(pk=self.pk)
        newest = self.guideline_versions.order_by("-number").first()
        if text != (newest.text if newest else ""):
            number = newest.number + 1 if newest else 1
            newest = self.guideline_versions.create(number=number, text=text, created_by=by)
            words = f"The guidelines have a new version, number {number}."
            self.audit.write(by, self, "guidelines version", words, number=number)
        self.newest_guidelines = newest
        self.guidelines, self.newest_guidelines = text, newest
        self.save(update_fields=["guidelines"])
        return newest


def _said(project: Project, name: str) -> str:
    value = getattr(project, name)
    if isinstance(value, dict):
        return (
            ", ".join(str(each) if key == "name" else f"{key} {each}" for key, each in value.items()) or "-"
        )
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


class StillExcluded(ValueError):
    """Who is excluded stays in, because the exclusion would be lost with the membership."""

    def __init__(self, membership: "Membership"):
        super().__init__(
            f"The rankings of {membership.user} in {membership.project} are excluded. Count them again first,"
            " or pause them instead of taking them out."
        )


class Membership(models.Model):
    class Role(models.TextChoices):
        LABELER = "labeler", "Labeler: ranks"
        REVIEWER = "reviewer", "Reviewer: ranks, and decides where others disagree"
        ADMIN = "admin", "Admin of this project"

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.LABELER)
    practised_at = models.DateTimeField(null=True, blank=True, help_text="When the practice was passed.")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_because = models.CharField(max_length=300, blank=True)
    warned_because = models.CharField(max_length=300, blank=True, help_text="What hidden checks say, if bad.")
    checks_from = models.DateTimeField(null=True, blank=True, help_text="Older checks are forgiven.")
    # Excluded: every ranking of theirs stays out of every later dataset, until somebody takes it back.
    excluded_at = models.DateTimeField(null=True, blank=True)
    excluded_because = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership_a_project")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}"

    @transaction.atomic
    def leave(self, by: User) -> None:
        """Out of the project; the rankings stay and count."""
        if self.excluded_at:
            raise StillExcluded(self)
        self.project.places.release(self.user)
        self._audit(
            by, "taken out", f"{self.user}, {self.role}, is taken out of the project.", role=self.role
        )
        self.delete()

    @transaction.atomic
    def give_role(self, role: str, by: User) -> None:
        was, self.role = self.role, role
        self.save(update_fields=["role"])
        self._audit(by, "role change", f"{self.user} is {role} now, and was {was}.", was=was, role=role)

    @transaction.atomic
    def pause(self, because: str, by: User | None = None) -> None:
        """Serve them nothing until somebody takes it back; what they hold goes back to the queue."""
        self._set("paused", because)
        self.project.places.release(self.user)
        self._audit(by, "pause", f"{self.user} is paused: {because}", because=because)

    @transaction.atomic
    def unpause(self, by: User) -> None:
        self._set("paused", None)
        self._audit(by, "unpause", f"{self.user} ranks again.")

    @transaction.atomic
    def exclude(self, because: str, by: User) -> None:
        """Leave all that they ranked here, and will rank, out of every later dataset and of the agreement.
        Others may take the places that they filled."""
        self._set("excluded", because)
        self.project.places.vacate(self.user)
        self._audit(by, "exclude", f"The rankings of {self.user} are excluded: {because}", because=because)

    @transaction.atomic
    def take_back(self, by: User) -> None:
        """Let their rankings count again: in their places, as far as those are still free."""
        self._set("excluded", None)
        self.project.places.regain(self.user, self.project)
        self._audit(by, "take back", f"The rankings of {self.user} count again.")

    def practice_result(self):
        """How this labeler did in the practice, this time round: a score."""
        from labeler.models import checks

        return checks.practice(self)

    def practise_again(self) -> int:
        """All of the practice once more; what was ranked in it is kept, and counts no longer."""
        mine = {"labeler": self.user, "quintet__project": self.project, "purpose": "practice"}
        return self._rankings().filter(**mine, current=True).update(current=False)

    def weigh(self, purpose: str) -> None:
        """See what comes of a check, or of a piece of the practice, that was just ranked."""
        from labeler.models import checks

        checks.weigh(self, purpose)

    def _rankings(self):
        from labeler.models.rankings import Ranking

        return Ranking.objects

    def _set(self, what: str, because: str | None) -> None:
        setattr(self, f"{what}_at", None if because is None else timezone.now())
        setattr(self, f"{what}_because", because or "")
        self.save(update_fields=[f"{what}_at", f"{what}_because"])

    def _audit(self, by: User | None, action: str, words: str, **about) -> None:
        self.project.audit.write(by, self.project, action, words[:500], labeler=self.user_id, **about)
