"""A request: something a person waits for on a page (compare, sample, score), answered by the interactive queue."""

from django.db import models

from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.runs import Run


class Request(models.Model):
    class Kind(models.TextChoices):
        COMPARE = "compare"
        SAMPLE = "sample"
        SCORE = "score"

    class State(models.TextChoices):
        WAITING = "waiting"
        WORKING = "working"
        ANSWERED = "answered"
        FAILED = "failed"

    project = models.ForeignKey(Project, models.CASCADE, related_name="requests")
    run = models.ForeignKey(Run, models.CASCADE, null=True, blank=True, related_name="requests")
    kind = models.CharField(max_length=10, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    question = models.JSONField()
    answer = models.JSONField(null=True, blank=True)
    phase = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    attempt = models.PositiveIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.kind} request {self.pk}"
