"""A checkpoint: the saved weights of a policy or a reward model, as a folder or a Hub id. Never their bytes."""

from django.db import models

from labeler.models.projects import Project


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
    lineage = models.JSONField(default=dict, blank=True, help_text="What quintet.json in the folder says.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="a_checkpoint_a_step")]

    def __str__(self) -> str:
        return self.name
