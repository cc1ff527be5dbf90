"""People: admins, labelers, and the simulated labelers of a demo, who have no password. No open sign-up: an
invitation is a link that works once."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """`is_staff` is the one difference between an admin and a labeler."""

    simulated = models.BooleanField(default=False, help_text="A program that ranks by a hidden taste.")

    @property
    def is_admin(self) -> bool:
        return self.is_staff


class Invitation(models.Model):
    """Only the digest of the link's token is kept: who reads the database cannot join with it."""

    token_digest = models.CharField(max_length=64, unique=True)
    project = models.ForeignKey("Project", models.CASCADE, null=True, blank=True, related_name="invitations")
    as_admin = models.BooleanField(default=False)
    note = models.CharField(max_length=200, blank=True, help_text="Whom the link is for.")
    created_by = models.ForeignKey(User, models.CASCADE, related_name="invitations_sent")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.OneToOneField(User, models.SET_NULL, null=True, blank=True, related_name="invitation")

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.note or f"invitation {self.pk}"
