"""A verdict: what a person says of an answer that a checker has judged. It confirms the checker or overrules
it, and so measures it.

The answer, the reference and what the checker said of both are kept as they were read, so that another
checker can be held against the same people. Left out: the verdicts of checkers themselves, which are as many
as there are rollouts and stay in a run's file (labeler/verdicts.py lists them)."""

from typing import Any

from django.db import models, transaction

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.prompts import Prompt
from labeler.models.runs import Run

WORDS = {True: "correct", False: "incorrect", None: "not checked"}


class VerdictQuerySet(models.QuerySet["Verdict"]):
    @transaction.atomic
    def say(self, run: Run, step: int, name: str, right: bool, by: User, **judged: Any) -> "Verdict":
        """Keep what `by` says of a rollout; whoever said something of it before is overwritten, and named in
        the audit."""
        project = Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
        told = {"project": project, "right": right, "by": by, "checker": run.checker, **judged}
        said, _ = self.update_or_create(run=run, step=step, name=name, defaults=told)
        action = "verdict confirmed" if said.confirms else "verdict overruled"
        checker, whom = run.checker.get("name", "checker"), f"rollout {name} of {run}, step {step}"
        words = f"The {checker} checker says {said.its_word} of {whom}; {by} says {said.word}."
        project.audit.write(by, project, action, words[:500], verdict=said.pk, run=run.pk, step=step)
        return said


class Verdict(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="verdicts")
    run = models.ForeignKey(Run, models.CASCADE, related_name="verdicts")
    step = models.PositiveIntegerField()
    name = models.CharField(max_length=24, help_text="Of the rollout in its step: group and index.")
    prompt = models.ForeignKey(Prompt, models.SET_NULL, null=True, blank=True, related_name="verdicts")
    asked = models.TextField(help_text="The prompt as a reader sees it.")
    answer = models.TextField()
    reference = models.TextField(blank=True)
    checker = models.JSONField(default=dict, blank=True)
    correct = models.BooleanField(help_text="What the checker said.")
    reason = models.TextField(blank=True)
    read = models.TextField(blank=True, help_text="What the checker read out of the answer.")
    right = models.BooleanField(help_text="What the person says.")
    by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now=True)

    objects = VerdictQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["run", "step", "name"], name="a_verdict_once_a_rollout")
        ]

    def __str__(self) -> str:
        return f"verdict on rollout {self.name} of step {self.step}"

    @property
    def confirms(self) -> bool:
        return self.right == self.correct

    @property
    def word(self) -> str:
        return WORDS[self.right]

    @property
    def its_word(self) -> str:
        return WORDS[self.correct]

    @transaction.atomic
    def take_back(self, by: User) -> None:
        """As if nobody had said anything."""
        words = f"{by} takes back that rollout {self.name} of {self.run}, step {self.step}, is {self.word}."
        about = {"run": self.run_id, "step": self.step, "name": self.name, "right": self.right}
        self.project.audit.write(by, self.project, "verdict taken back", words[:500], **about)
        self.delete()
