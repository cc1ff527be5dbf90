"""An import: a file that becomes prompts, quintets or rankings, all of it or nothing, with its progress.

What a file may look like and how it is read is the matter of labeler/intake/."""

from django.db import models

from labeler.models.people import User
from labeler.models.projects import Project


class Import(models.Model):
    class State(models.TextChoices):
        PREVIEW = "preview"  # uploaded; the columns are being mapped
        WAITING = "waiting"
        WORKING = "working"
        FINISHED = "finished"
        REFUSED = "refused"  # nothing was kept; the errors say why
        FAILED = "failed"

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports")
    state = models.CharField(max_length=10, choices=State, default=State.PREVIEW)
    name = models.CharField(max_length=300, help_text="Of the file, as it was uploaded.")
    path = models.CharField(max_length=300, help_text="Relative to the home.")
    format = models.CharField(max_length=20, blank=True)
    mapping = models.JSONField(default=dict, blank=True)
    dry_run = models.BooleanField(default=False)
    bytes = models.PositiveBigIntegerField(default=0)
    bytes_read = models.PositiveBigIntegerField(default=0)
    lines = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    known = models.PositiveIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)
    reason = models.TextField(blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"import of {self.name}"
