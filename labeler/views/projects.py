"""Projects: one's own with what waits in them, a page for each, making one from a template, editing it.

Where a project stands in the loop is read in labeler/loop.py. Left out: deleting a project, because its
rankings are people's work."""

from difflib import SequenceMatcher

from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from labeler.access import admin_required, labeler_required, staff_required
from labeler.loop import standings
from labeler.models import Contribution, Guidelines, Origin, Project, User
from labeler.project_forms import EditProjectForm, NewProjectForm
from labeler.project_templates import BLANK, TEMPLATES

RUNS_SHOWN = 6


@labeler_required
@require_safe
def projects(request: HttpRequest) -> HttpResponse:
    found = Project.objects.visible_to(request.user).select_related("start")
    return render(request, "projects/projects.html", {"standings": standings(found, request.user)})


@labeler_required
@require_safe
def project(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user).select_related("start"), slug=slug)
    context = {"project": project, "standing": standings([project], request.user)[0]}
    if request.user.may_run(project):
        context |= {"runs": project.runs.all()[:RUNS_SHOWN], **_labelers(project)}
        counts = project.demonstrations.all().counted().by_origin()
        context["demonstrated"] = [
            {"label": Origin(name).label, "many": many} for name, many in counts.items()
        ]
    context["version"] = project.guideline_versions.last()
    return render(request, "projects/project.html", context)


def _labelers(project: Project) -> dict[str, list[User]]:
    """Who may rank here, and who has ranked, each with how much; people and programs apart."""
    theirs = Contribution.objects.filter(labeler=OuterRef("pk"), round__project=project)
    members = project.memberships.filter(user=OuterRef("pk"))
    everybody = User.objects.filter(Exists(members) | Exists(theirs))
    counted = list(everybody.annotate(ranking_count=theirs.total()).order_by("-ranking_count", "username"))
    return {
        "people": [each for each in counted if not each.simulated],
        "programs": [each for each in counted if each.simulated],
    }


@staff_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    template = TEMPLATES.get(request.GET.get("template", ""), BLANK if request.method == "POST" else None)
    form = NewProjectForm(request.POST if request.method == "POST" else None, template=template or BLANK)
    if form.is_valid():
        project = form.create(by=request.user)
        messages.success(request, f"{project} is made, with {project.prompts.count():,} prompts.")
        return redirect(project)
    context = {"form": form, "templates": TEMPLATES.values(), "template": template}
    return render(request, "projects/new.html", context, status=422 if form.is_bound else 200)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    # A form writes into its instance even where it refuses; the page goes on with the project as it is.
    sent, edited = request.POST if request.method == "POST" else None, Project.objects.get(pk=project.pk)
    form = EditProjectForm(request.user, sent, instance=edited)
    if form.is_valid():
        form.apply(project, request.user)
        messages.success(request, f"{project} is saved.")
        return redirect(project)
    context = {"project": project, "form": form}
    return render(request, "projects/edit.html", context, status=422 if form.is_bound else 200)


@labeler_required
@require_safe
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """The versions, and what the chosen one changed: against the one before it, or any other."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    versions = list(project.guideline_versions.select_related("created_by").order_by("-number"))
    by_number = {str(each.number): each for each in versions}
    to = by_number.get(request.GET.get("to", ""), versions[0] if versions else None)
    before = by_number.get(str(to.number - 1)) if to else None
    against = by_number.get(request.GET.get("against", ""), before)
    context = {"project": project, "versions": versions, "to": to, "against": against}
    context["lines"] = compared(against, to) if to and against else None
    return render(request, "projects/guidelines.html", context)


def compared(before: Guidelines, after: Guidelines) -> list[tuple[str, str]]:
    """The lines of both, each with what became of it: `same`, `gone` or `new`."""
    old, new = before.text.splitlines(), after.text.splitlines()
    lines: list[tuple[str, str]] = []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            lines += [("same", line) for line in old[i:j]]
        else:
            lines += [("gone", line) for line in old[i:j]] + [("new", line) for line in new[k:m]]
    return lines
