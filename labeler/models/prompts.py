"""A prompt: the text given to the policy, a string or the turns of a chat. Once per project."""

import hashlib
import json

from django.db import models

from labeler.models.projects import Project


def digest(content: str | list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Prompt(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    content = models.JSONField(help_text="A string, or a list of {role, content}.")
    digest = models.CharField(max_length=64, editable=False)
    answer = models.TextField(blank=True, help_text="The right answer, in checked projects.")
    external_id = models.CharField(max_length=200, blank=True)
    extra = models.JSONField(default=dict, blank=True, help_text="Keys that an import brought along.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="a_prompt_once_a_project")]

    def __str__(self) -> str:
        return self.text[:80]

    def save(self, *args, **kwargs):
        self.digest = digest(self.content)
        super().save(*args, **kwargs)

    @property
    def turns(self) -> list[dict]:
        """The chat that a labeler reads; a plain prompt is one turn of the user's."""
        return [{"role": "user", "content": self.content}] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        return self.turns[-1]["content"]
