"""A prompt: the text given to the policy, a string or the turns of a chat. Once per project."""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from django.db import models, transaction
from django.db.models.functions import Now

from labeler.models.people import User
from labeler.models.projects import Project
from rlhf.data import PromptLine


def digest(content: str | list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class PromptQuerySet(models.QuerySet["Prompt"]):
    @transaction.atomic
    def add(self, project: Project, lines: Iterable[PromptLine]) -> int:
        """Keep the lines' prompts, each once; how many are new. What is there already stays as it is."""
        before = project.prompts.count()
        prompts = (Prompt.of(project, line) for line in lines)
        while some := list(islice(prompts, 1000)):
            Prompt.objects.bulk_create(some, ignore_conflicts=True)
        return project.prompts.count() - before

    def search(self, words: str) -> "PromptQuerySet":
        """Those whose text holds all of the words, in any order."""
        found = self.annotate(written=models.functions.Cast("content", models.TextField()))
        for word in words.split():
            # Text inside JSON is escaped; what is searched for has to be written likewise.
            found = found.filter(written__icontains=json.dumps(word, ensure_ascii=False)[1:-1])
        return found

    def numbered(self, names: Iterable[str]) -> "dict[str, Prompt]":
        """Those that a run's lines name, by that name: what a run is asked bears its prompt's number."""
        numbers = {int(name) for name in names if name.isdecimal() and len(name) < 18}
        return {str(pk): prompt for pk, prompt in self.in_bulk(numbers).items()}

    def answered(self) -> "PromptQuerySet":
        return self.exclude(answer="")

    def unanswered(self) -> "PromptQuerySet":
        """Those whose answer nobody has said: no checker can judge what is written to them."""
        return self.filter(answer="")

    def unchecked(self, digest: str) -> "PromptQuerySet":
        """Those whose reference this checker has not been tried on."""
        return self.answered().exclude(reference_by=digest)

    def failing(self, digest: str) -> "PromptQuerySet":
        """Those whose reference does not pass this checker on its own solution, or cannot be read by it."""
        troubled = [Prompt.Reference.FAILS, Prompt.Reference.UNREADABLE]
        return self.answered().filter(reference_by=digest, reference__in=troubled)

    def practised(self, digest: str) -> "PromptQuerySet":
        """Those that a run against this checker is asked: with an answer that it can read, and not set
        aside."""
        unreadable = models.Q(reference_by=digest, reference=Prompt.Reference.UNREADABLE)
        return self.answered().exclude(unreadable).filter(set_aside_at=None)

    def say(self, answer: str) -> int:
        """This is right from now on, by nobody's import; it has to be tried anew. Of how many."""
        untried = {"reference": "", "reference_by": "", "reference_said": ""}
        return self.update(answer=answer, answer_brought_by=None, **untried)

    @transaction.atomic
    def put_aside(self, project: Project, by: User, why: str) -> int:
        """Leave these out of practice from now on; how many that is. Runs that are under way keep theirs."""
        return self._moved(project, by, self.filter(set_aside_at=None), Now(), f"set aside, {why}")

    @transaction.atomic
    def bring_back(self, project: Project, by: User) -> int:
        return self._moved(project, by, self.exclude(set_aside_at=None), None, "brought back to practice")

    def _moved(self, project: Project, by: User, some: "PromptQuerySet", to: Any, words: str) -> int:
        numbers = list(some.filter(project=project).order_by("pk").values_list("pk", flat=True))
        Prompt.objects.filter(pk__in=numbers).update(set_aside_at=to)
        if numbers:
            said = f"{len(numbers):,} prompt{'' if len(numbers) == 1 else 's'} {words}."
            project.audit.write(by, project, "practice changed", said[:500], prompts=numbers[:1000])
        return len(numbers)

    def with_use(self) -> "PromptQuerySet":
        """With `quintet_count` and `demonstration_count`: a prompt that is in use cannot be deleted."""
        many = {"quintet_count": "quintets", "demonstration_count": "demonstrations"}
        counts = {name: models.Count(of, distinct=True) for name, of in many.items()}
        return self.annotate(**counts).order_by("pk")  # grouping forgets the order of the table


class Prompt(models.Model):
    class Reference(models.TextChoices):
        """What the checker said of the prompt's own answer, held against its own solution."""

        UNCHECKED = "", "not tried yet"
        PASSES = "passes"
        FAILS = "fails"
        UNREADABLE = "unreadable"

    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    content = models.JSONField(help_text="A string, or a list of {role, content}.")
    digest = models.CharField(max_length=64, editable=False)
    answer = models.TextField(blank=True, help_text="The right answer, in checked projects.")
    answer_brought_by = models.ForeignKey(
        "Import", models.SET_NULL, null=True, blank=True, related_name="answers", editable=False,
        help_text="Which gave this answer to a prompt that was here without one.",
    )  # fmt: skip
    reference = models.CharField(max_length=10, choices=Reference, blank=True, editable=False)
    reference_said = models.TextField(blank=True, editable=False, help_text="Why, in words.")
    reference_by = models.CharField(
        max_length=16, blank=True, editable=False, help_text="Which checker, with which options, said so."
    )
    external_id = models.CharField(max_length=200, blank=True)
    extra = models.JSONField(default=dict, blank=True, help_text="Keys that an import brought along.")
    brought_by = models.ForeignKey("Import", models.SET_NULL, null=True, blank=True, related_name="prompts")
    created_at = models.DateTimeField(auto_now_add=True)
    set_aside_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Left out of practice by hand since then."
    )

    objects = PromptQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="a_prompt_once_a_project")]

    def __str__(self) -> str:
        return self.text[:80]

    def save(self, *args, **kwargs):
        self.digest = digest(self.content)
        super().save(*args, **kwargs)

    @transaction.atomic
    def give_answer(self, answer: str, by: User) -> None:
        """Say what is right, or say it anew; empty where nobody knows. It has to be tried again."""
        if answer == self.answer:
            return
        was = self.answer
        Prompt.objects.filter(pk=self.pk).say(answer)
        self.refresh_from_db()
        words = f"The answer to “{self}” is “{answer[:100]}” now, and was “{was[:100]}”."
        said = {"prompt": self.pk, "was": was, "now": answer}
        self.project.audit.write(by, self.project, "answer changed", words[:500], **said)

    @classmethod
    def of(cls, project: Project, line: PromptLine) -> "Prompt":
        written = {"answer": line.answer or "", "external_id": "" if line.id is None else str(line.id)}
        return cls(
            project=project, content=line.prompt, digest=digest(line.prompt), extra=line.extra, **written
        )

    @property
    def turns(self) -> list[dict]:
        """The chat that a labeler reads; a plain prompt is one turn of the user's."""
        return [{"role": "user", "content": self.content}] if isinstance(self.content, str) else self.content

    @property
    def is_plain(self) -> bool:
        """One turn of the user's, however it is written down."""
        return [each["role"] for each in self.turns] == ["user"]

    @property
    def text(self) -> str:
        return self.turns[-1]["content"]
