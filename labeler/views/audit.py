"""What was done to a project, by whom and why, newest first. For the project's admins; nothing here changes
anything.

Left out: what rankings, runs and datasets say of their own history."""

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from labeler.access import admin_required
from labeler.models import Project, User

A_PAGE = 50


@admin_required
@require_safe
def audit(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    action, name = request.GET.get("action", ""), request.GET.get("person", "")
    found = project.audit.select_related("by")
    if action:
        found = found.filter(action=action)
    if name:
        person = User.objects.filter(username=name).first()
        pk = person.pk if person else 0
        found = found.filter(Q(by=pk) | Q(about__labeler=pk))
    context = {
        "project": project,
        "page": Paginator(found, A_PAGE).get_page(request.GET.get("page")),
        "action": action,
        "actions": project.audit.order_by("action").values_list("action", flat=True).distinct(),
        "person": name,
        "people": _named(project),
    }
    return render(request, "audit/audit.html", context)


def _named(project: Project) -> list[str]:
    """Who did something here, and who is in the project to have had something done about them."""
    did = User.objects.filter(pk__in=project.audit.order_by().values("by"))
    names = did | User.objects.filter(pk__in=project.memberships.values("user"))
    return list(names.order_by("username").values_list("username", flat=True))
