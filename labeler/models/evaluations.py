"""What a run measured of a reward model: evaluation.json as a row, so that pages read no run directory.

Its quintets are many and stay in the file. What the numbers mean is the matter of rlhf and of
docs/evaluation.md, how they are drawn that of labeler/evaluation_pictures.py."""

import json
from pathlib import Path
from typing import Any

from django.db import models

from labeler.models.checkpoints import Checkpoint
from labeler.models.runs import Run, storable

FILE = "evaluation.json"


class EvaluationQuerySet(models.QuerySet["Evaluation"]):
    def keep(self, run: Run) -> "Evaluation | None":
        """The row of what a run has left; None where it has left nothing. The caller holds the run's row."""
        found = read(run.directory / FILE)
        if found is None:
            return None
        measured = run.reward_model
        if run.kind == Run.Kind.REWARD:
            name = f"{run.directory.name}/{found.get('checkpoint', '')}"
            measured = run.checkpoints.filter(location__endswith=name).first()
        kept = {name: storable(value) for name, value in found.items() if name != "quintets"}
        return self.update_or_create(run=run, defaults={"checkpoint": measured, "found": kept})[0]

    def comparing(self, checkpoint: Checkpoint) -> "EvaluationQuerySet":
        """Those that set it beside another reward model."""
        beside = self.filter(models.Q(checkpoint=checkpoint) | models.Q(run__against=checkpoint))
        return beside.exclude(run__against=None).select_related("checkpoint", "run__against")


class Evaluation(models.Model):
    run = models.OneToOneField(Run, models.CASCADE, related_name="evaluation")
    checkpoint = models.ForeignKey(
        Checkpoint, models.CASCADE, null=True, blank=True, related_name="evaluations"
    )
    found = models.JSONField(help_text="What evaluation.json says, without its quintets.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = EvaluationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"evaluation of {self.checkpoint} by {self.run}"

    @property
    def file(self) -> Path:
        return self.run.directory / FILE


def read(path: Path) -> dict[str, Any] | None:
    """An evaluation.json; None where there is none that could be read. Postgres holds no NaN."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "accuracy" in found else None
