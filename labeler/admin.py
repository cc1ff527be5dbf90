"""Django's own admin, for looking closely and mending by hand. The product's pages need none of it.

Signing in happens on the product's page alone, which counts wrong tries. What people did (rankings, runs) is
not to be edited, so it is not here."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from labeler.models import AuditEntry, Checkpoint, Dataset, Invitation, Membership, Project, Prompt, User
from labeler.models.projects import QUEUED


def sign_in(request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next") or request.path)


admin.site.login = sign_in  # type: ignore[method-assign]
admin.site.site_header = admin.site.site_title = "Quintet"
admin.site.index_title = "Tables"


@admin.register(User)
class PersonAdmin(UserAdmin):
    list_display = ["username", "is_staff", "simulated", "is_active", "last_login"]
    list_filter = ["is_staff", "simulated", "is_active"]


class MembershipInline(admin.TabularInline):
    model = Membership
    autocomplete_fields = ["user"]
    extra = 0
    # Pausing and excluding leave an entry behind, on the page of the project's people.
    fields = ["user", "role", "practised_at"]


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "start", "overlap", "created_at"]
    raw_id_fields = ["start", "created_by"]
    # What is versioned, or moves the queue, is changed on the project's page, which sees to both.
    readonly_fields = ["guidelines", *sorted(QUEUED)]
    inlines = [MembershipInline]


@admin.register(Prompt)
class PromptAdmin(admin.ModelAdmin):
    list_display = ["__str__", "project", "external_id"]
    list_filter = ["project"]
    raw_id_fields = ["project"]


@admin.register(Checkpoint)
class CheckpointAdmin(admin.ModelAdmin):
    list_display = ["name", "kind", "project", "location", "suggested"]
    list_filter = ["kind", "project"]
    raw_id_fields = ["project", "run"]


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "project", "kind", "lines", "simulated", "sha256", "created_at"]

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "project", "by", "action", "words"]
    list_filter = ["action", "project"]

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "project", "as_admin", "created_by", "expires_at", "used_by"]
    exclude = ["token_digest"]
