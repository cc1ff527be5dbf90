"""How far the labelers of a project agree, and the audits of their rankings. Reviewers and admins of it.

The numbers come from sums that are kept up to date (labeler/agreement/): a page adds up no rankings, except
the few that came since somebody last looked."""

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from labeler.access import labeler_required
from labeler.agreement import report
from labeler.models import Project

A_PAGE = 50  # labelers


@labeler_required
@require_safe
def agreement(request: HttpRequest, slug: str) -> HttpResponse:
    context = _told(request, slug)
    project, simulated = context["project"], context["simulated"]
    if context["told"]:
        pages = Paginator(report.labelers(project, simulated), A_PAGE)
        page = pages.get_page(request.GET.get("page"))
        context |= {
            "comparable": any(context["told"][name] for name in ("quintets", "repeats", "golds")),
            "page": page,
            "labelers": report.named(list(page)),
            "rounds": report.of_rounds(project, simulated),
        }
    return render(request, "agreement/agreement.html", context)


@labeler_required
@require_safe
def audits(request: HttpRequest, slug: str) -> HttpResponse:
    context = _told(request, slug)
    project, simulated, told = context["project"], context["simulated"], context["told"]
    if told:
        context |= {
            "standing_out": report.standing_out(project, simulated),
            "arms": report.of_arms(project, simulated),
        }
    return render(request, "agreement/audits.html", context)


def _told(request: HttpRequest, slug: str) -> dict[str, Any]:
    """What both pages show: the numbers of all people, or of all simulated labelers, if asked for."""
    project = get_object_or_404(Project.objects.reviewed_by(request.user), slug=slug)
    simulated = "simulated" in request.GET
    left = report.catch_up(project)
    return {
        "project": project,
        "simulated": simulated,
        "told": report.of_project(project, simulated),
        "others": report.of_project(project, not simulated),
        "left": left,
        "excluded": project.memberships.filter(excluded_at__isnull=False).select_related("user"),
    }
