"""What was done to a project and its rankings, by whom and why: one row an action, never changed.

Rankings, runs and datasets keep their own history; here is what people decided about them."""

from django.db import models

from labeler.models.people import User
from labeler.models.projects import Project


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def write(
        self, by: User | None, project: Project | None, action: str, words: str, **about
    ) -> "AuditEntry":
        """Keep that `by` did `action`: a sentence in `words`, the numbers of the rows in `about`."""
        return self.create(by=by, project=project, action=action, words=words, about=about)


class AuditEntry(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="audit")
    by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    action = models.CharField(max_length=40)
    words = models.CharField(max_length=500)
    about = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["project", "id"], name="audit_by_age")]

    def __str__(self) -> str:
        return self.words
