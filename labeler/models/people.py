"""People: admins, labelers, and the simulated labelers of a demo, who have no password. No open sign-up: an
invitation is a link that works once. Wrong passwords are counted here too, so that nobody tries for ever.

Left out: what a person may see (`Project.objects.visible_to`) and what they ranked (rankings.py)."""

import hashlib
import secrets
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.sessions.models import Session
from django.db import connection, models, transaction
from django.utils import timezone

VALID_FOR = timedelta(days=7)
TRIES = 6
LOCKED_FOR = timedelta(minutes=10)


class People(UserManager["User"]):
    use_in_migrations = False

    @transaction.atomic
    def create_first_admin(self, password: str = "", name: str = "admin") -> tuple["User", str] | None:
        """The first admin and the password, a random one if none is given; None when there is an admin."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('quintet-first-admin'))")
        if self.filter(is_staff=True, is_active=True).exists():
            return None
        password = password or secrets.token_urlsafe(12)
        return self.create_user(name, password=password, is_staff=True, is_superuser=True), password

    def without_password(self, name: str, *, simulated: bool = False) -> "User":
        """One whose rankings are here though nobody signs in by this name: simulated, or from an import."""
        user = self.model(username=name, simulated=simulated, is_active=False)
        user.set_unusable_password()
        user.save()
        return user


class User(AbstractUser):
    """`is_staff` makes somebody an admin of all; what others are is said project by project."""

    simulated = models.BooleanField(default=False, help_text="A program that ranks by a hidden taste.")

    objects: ClassVar[People] = People()

    @property
    def is_from_elsewhere(self) -> bool:
        """Nobody ever signed in by this name: an import brought it, and no account was made of it since."""
        return not (self.simulated or self.is_active or self.last_login or self.has_usable_password())

    @property
    def is_admin(self) -> bool:
        return self.is_staff

    @cached_property
    def roles(self) -> dict[int, str]:
        """What this person is in which project; one query a request, however many projects a page names."""
        return dict(self.memberships.values_list("project_id", "role"))

    def may_review(self, project) -> bool:
        return self.is_staff or self.roles.get(project.pk) in ("reviewer", "admin")

    def may_run(self, project) -> bool:
        return self.is_staff or self.roles.get(project.pk) == "admin"

    @property
    def runs_any(self) -> bool:
        return self.is_staff or "admin" in self.roles.values()

    @transaction.atomic
    def deactivate(self, by: "User") -> None:
        """Out on every device at once. What they held goes back to the queue; their rankings stay."""
        self.is_active = False
        self.save(update_fields=["is_active"])
        # Or an old session would work again on the day that they are let in again.
        open_ones = Session.objects.filter(expire_date__gt=timezone.now()).iterator()
        theirs = [each.pk for each in open_ones if each.get_decoded().get(SESSION_KEY) == str(self.pk)]
        Session.objects.filter(pk__in=theirs).delete()
        for project in self.projects.all():
            project.places.release(self)
        self._audit(by, "deactivate", f"{self} can no longer sign in.")

    @transaction.atomic
    def let_in_again(self, by: "User") -> None:
        self.is_active = True
        self.save(update_fields=["is_active"])
        self._audit(by, "let in again", f"{self} can sign in again.")

    def _audit(self, by: "User", action: str, words: str) -> None:
        """An account is no project's: each project of theirs is told of it, or with none nobody's."""
        from labeler.models.audit import AuditEntry  # its rows name people and projects

        projects = self.projects.all()
        for project in projects or (None,):
            AuditEntry.objects.write(by, project, action, words, labeler=self.pk)


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def issue(
        self, by: User, *, project=None, role: str = "labeler", as_admin: bool = False, note: str = ""
    ) -> tuple["Invitation", str]:
        """A new invitation and the token of its link, which is told this once and stored nowhere."""
        token = secrets.token_urlsafe(32)
        expires = timezone.now() + VALID_FOR
        fields = {"project": project, "role": role, "as_admin": as_admin, "note": note}
        return self.create(token_digest=digest(token), created_by=by, expires_at=expires, **fields), token

    def open(self) -> "InvitationQuerySet":
        return self.filter(used_at=None, expires_at__gt=timezone.now())

    def by_token(self, token: str) -> "InvitationQuerySet":
        return self.open().filter(token_digest=digest(token))


class Invitation(models.Model):
    """Only the digest of the link's token is kept: who reads the database cannot join with it."""

    token_digest = models.CharField(max_length=64, unique=True)
    project = models.ForeignKey("Project", models.CASCADE, null=True, blank=True, related_name="invitations")
    role = models.CharField(max_length=10, default="labeler", help_text="In the project.")
    as_admin = models.BooleanField(default=False)
    note = models.CharField(max_length=200, blank=True, help_text="Whom the link is for.")
    created_by = models.ForeignKey(User, models.CASCADE, related_name="invitations_sent")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.OneToOneField(User, models.SET_NULL, null=True, blank=True, related_name="invitation")

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.note or f"invitation {self.pk}"

    def accept(self, username: str, password: str) -> User:
        """The new account. The caller holds the row's lock, so that a link works once."""
        user = User.objects.create_user(
            username, password=password, is_staff=self.as_admin, is_superuser=self.as_admin
        )
        if self.project:
            self.project.admit(user, self.role, self.created_by)
        self.used_at, self.used_by = timezone.now(), user
        self.save(update_fields=["used_at", "used_by"])
        return user


class WrongTryQuerySet(models.QuerySet["WrongTry"]):
    def locked(self, username: str, address: str) -> "WrongTry":
        """The row of this name and address, locked: tries take turns, or many at once would slip through."""
        row = WrongTry(digest=digest(f"{username.casefold()}\n{address}"))
        # An update of nothing locks the row that is there already, in the same statement that looks for it.
        self.model.objects.bulk_create(
            [row], update_conflicts=True, unique_fields=["digest"], update_fields=["digest"]
        )
        return self.get(digest=row.digest)


class WrongTry(models.Model):
    """Wrong passwords for one name from one address. After six even the right one is refused for a while."""

    digest = models.CharField(max_length=64, unique=True)
    count = models.PositiveSmallIntegerField(default=0)
    last_at = models.DateTimeField(default=timezone.now)

    objects = WrongTryQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["last_at"], name="wrong_tries_by_age")]

    def __str__(self) -> str:
        return f"{self.count} wrong tries"

    @property
    def is_locked(self) -> bool:
        return self.count >= TRIES and timezone.now() < self.last_at + LOCKED_FOR

    @property
    def minutes_left(self) -> int:
        return max(1, round((self.last_at + LOCKED_FOR - timezone.now()).total_seconds() / 60))

    def add(self) -> None:
        """One more; the old ones are forgotten after the time of a lock."""
        now = timezone.now()
        self.count = 1 if now >= self.last_at + LOCKED_FOR else self.count + 1
        self.last_at = now
        self.save()
        old = WrongTry.objects.filter(last_at__lt=now - LOCKED_FOR).select_for_update(skip_locked=True)
        WrongTry.objects.filter(pk__in=[row.pk for row in old]).delete()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
