"""A run, its steps and its samples, as the pages read them. Postgres is the truth about a run; the broker is a
doorbell. `attempt` is the fence: what an older attempt still writes is refused."""

from django.db import models

from labeler.models.checkpoints import Checkpoint
from labeler.models.datasets import Dataset
from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.quintets import Round


class Run(models.Model):
    class Kind(models.TextChoices):
        ROLLOUTS = "rollouts", "rollouts"
        SFT = "sft", "supervised finetuning"
        REWARD = "reward", "reward model"
        POLICY = "policy", "policy (RLHF)"
        EVALUATION = "evaluation", "evaluation"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        FINISHED = "finished"
        FAILED = "failed"
        CANCELLED = "cancelled"

    project = models.ForeignKey(Project, models.CASCADE, related_name="runs")
    round = models.ForeignKey(Round, models.PROTECT, null=True, blank=True, related_name="runs")
    kind = models.CharField(max_length=12, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    config = models.JSONField(default=dict, help_text="The config that ran, not the one being edited.")
    start = models.ForeignKey(Checkpoint, models.PROTECT, null=True, blank=True, related_name="started_runs")
    reward_model = models.ForeignKey(Checkpoint, models.PROTECT, null=True, blank=True, related_name="judged_runs")
    dataset = models.ForeignKey(Dataset, models.PROTECT, null=True, blank=True, related_name="runs")

    attempt = models.PositiveIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    cancel_requested = models.BooleanField(default=False)

    device = models.CharField(max_length=200, blank=True)
    phase = models.CharField(max_length=60, blank=True)
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    cursors = models.JSONField(default=dict, blank=True, help_text="How far each line file has been followed.")
    result = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    field = models.CharField(max_length=60, blank=True)
    log_tail = models.TextField(blank=True)

    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            # A run that says "running" always has a lease that can run out.
            models.CheckConstraint(
                condition=~models.Q(state="running") | models.Q(leased_until__isnull=False), name="running_is_leased"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} run {self.pk}"


class Step(models.Model):
    run = models.ForeignKey(Run, models.CASCADE, related_name="steps")
    step = models.PositiveIntegerField()
    metrics = models.JSONField()

    class Meta:
        ordering = ["run", "step"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="a_step_once")]

    def __str__(self) -> str:
        return f"step {self.step} of {self.run}"


class Sample(models.Model):
    """What the model says to one of the run's fixed prompts at an evaluated step: the line as it was written."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="samples")
    step = models.PositiveIntegerField()
    index = models.PositiveIntegerField()
    line = models.JSONField()

    class Meta:
        ordering = ["run", "step", "index"]
        constraints = [models.UniqueConstraint(fields=["run", "step", "index"], name="a_sample_once")]

    def __str__(self) -> str:
        return f"sample {self.index} at step {self.step} of {self.run}"
