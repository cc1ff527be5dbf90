"""A checkpoint: the saved weights of a policy or a reward model, as a folder or a Hub id. Never their bytes.

Where it came from is a copy of the quintet.json beside its weights; opening it is the matter of rlhf."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.db import models

from labeler.models.people import User
from labeler.models.projects import Project


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    def open_to(self, projects: Iterable[Project]) -> "CheckpointQuerySet":
        """Those of these projects, and those that belong to every project."""
        return self.filter(models.Q(project__in=projects) | models.Q(project=None))

    def seen_by(self, user: User) -> "CheckpointQuerySet":
        """What this person may try out and start from."""
        return self.open_to(Project.objects.run_by(user))

    def judge_of(self, project: Project) -> "Checkpoint | None":
        """The project's newest reward model: of its last run that wrote any, the one that it proposes."""
        found = self.filter(project=project, kind=Checkpoint.Kind.REWARD)
        return found.order_by("-run_id", "-suggested", "-pk").first()

    def imitation_of(self, project: Project, start: "Checkpoint") -> "Checkpoint | None":
        """What supervised finetuning on answers has come to here: the newest checkpoint of it that is not the
        start itself. A policy that practises is held against it."""
        of_run = models.Q(run__kind="sft") & ~models.Q(run__config__stage="reading")
        imitated = of_run | models.Q(run=None, lineage__config__kind="sft")
        found = self.filter(imitated, project=project, kind=Checkpoint.Kind.POLICY).exclude(pk=start.pk)
        newest = models.F("run_id").desc(nulls_last=True)
        return found.exclude(location__startswith="hub:").order_by(newest, "-suggested", "-pk").first()


class Checkpoint(models.Model):
    class Kind(models.TextChoices):
        POLICY = "policy", "policy"
        REWARD = "reward", "reward model"

    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="checkpoints")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.POLICY)
    name = models.CharField(max_length=200)
    location = models.CharField(
        max_length=500,
        help_text="A folder (relative to the home, or absolute), or hub:organisation/name@revision.",
    )
    run = models.ForeignKey("Run", models.CASCADE, null=True, blank=True, related_name="checkpoints")
    step = models.PositiveIntegerField(null=True, blank=True)
    suggested = models.BooleanField(default=False, help_text="The one its run proposes to use.")
    ranked_before = models.PositiveIntegerField(
        null=True, blank=True, help_text="Rankings by people in the project when a reward model was saved."
    )
    lineage = models.JSONField(default=dict, blank=True, help_text="What quintet.json in the folder says.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="a_checkpoint_a_step")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args, **kwargs):
        if self._state.adding and self.kind == Checkpoint.Kind.REWARD and self.project:
            self.ranked_before = self.project.rankings_by_people()
        super().save(*args, **kwargs)

    @property
    def is_hub(self) -> bool:
        return self.location.startswith("hub:")

    @property
    def was_finetuned(self) -> bool:
        """Whether it comes from finetuning, here or elsewhere, as far as its folder says."""
        return self.lineage.get("config", {}).get("kind") == "sft"

    @property
    def folder(self) -> Path | None:
        """Where its files lie; None while they are still on the Hub."""
        return None if self.is_hub else settings.HOME / self.location

    def named_in(self, project: Project | None) -> str:
        """Its name in a list: with whether the project starts from it, or its run proposes it."""
        if project and self.pk == project.start_id:
            return f"{self.name} · the project's start"
        return f"{self.name} · suggested" if self.suggested else self.name

    def put_into(self, target: Path) -> None:
        """Its files at `target`, all or none of them: as hard links, or as copies where links cannot be. What
        only a resumed run needs (the optimizer's state) is in a folder of its own and stays behind."""
        if not self.folder or not self.folder.is_dir():
            raise FileNotFoundError(f"The checkpoint “{self}” is gone: there is no folder {self.folder}.")
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in self.folder.iterdir():
            if file.is_file():
                link_or_copy(file.resolve(), part / file.name)
        part.rename(target)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, another owner, or a file system without links
        shutil.copyfile(source, target)


def read_lineage(folder: Path) -> dict:
    """What a checkpoint's quintet.json says; nothing where another tool has written the checkpoint."""
    try:
        found = json.loads((folder / "quintet.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
