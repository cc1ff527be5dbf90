"""A dataset: a frozen, hashed file of rankings, demonstrations or documents."""

from django.db import models

from labeler.models.demonstrations import Origin
from labeler.models.people import User
from labeler.models.projects import Project

CHARACTERS = 3.5  # of a token, as a rule


class Dataset(models.Model):
    class Kind(models.TextChoices):
        RANKINGS = "rankings"
        DEMONSTRATIONS = "demonstrations"
        DOCUMENTS = "documents"

    project = models.ForeignKey(Project, models.CASCADE, related_name="datasets")
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.RANKINGS)
    sha256 = models.CharField(max_length=64)
    path = models.CharField(max_length=300, help_text="Relative to the home.")
    lines = models.PositiveIntegerField()
    simulated = models.PositiveIntegerField(default=0, help_text="How many of the lines are simulated.")
    # Which rankings it was frozen from, and what is in it: counts, agreement, lengths, splits.
    query = models.JSONField(default=dict, blank=True)
    manifest = models.JSONField(default=dict, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["project", "sha256"], name="a_dataset_once")]

    def __str__(self) -> str:
        return f"dataset {self.pk}"

    @property
    def origins(self) -> dict[str, int]:
        """Of demonstrations: how many lines of each origin."""
        found = self.manifest.get("origins", {})
        return {each.value: found[each.value] for each in Origin if each.value in found}

    def examples(self, longest: int) -> int:
        """How many a run has of it: its lines; of documents about as many pieces of so many tokens."""
        characters = self.lines * self.manifest.get("lengths", {}).get("mean", 0)
        if self.kind != self.Kind.DOCUMENTS or characters <= longest * CHARACTERS:
            return self.lines
        return max(self.lines, round(characters / (longest * CHARACTERS) + self.lines / 2))

    @property
    def noun(self) -> str:
        """Of one line."""
        return self.kind.removesuffix("s")

    @property
    def by_people(self) -> int:
        return self.lines - self.simulated - self.harvested

    @property
    def harvested(self) -> int:
        """Lines that say of a policy's find that it is nonsense: by people, but no rankings of theirs."""
        return self.manifest.get("harvested", 0)
