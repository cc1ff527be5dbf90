"""What people ranked, on its way out: the counts, the exports, and the frozen datasets that runs learnt from.

Admins only. What goes into a line, and in which order, is decided in labeler/datasets.py."""

from itertools import islice

from django.conf import settings
from django.db.models import Count
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from labeler.access import admin_required
from labeler.datasets import FORMS
from labeler.datasets import export as exported
from labeler.models import Dataset, Project, Ranking
from rlhf import data

A_LOOK = 5  # lines of a dataset that its page shows


@admin_required
@require_safe
def datasets(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    context = {
        "project": project,
        "counts": _counts(project),
        "datasets": project.datasets.prefetch_related("runs").select_related("created_by"),
    }
    return render(request, "datasets/datasets.html", context)


@admin_required
@require_safe
def dataset(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    found = _found(request, slug, pk)
    try:
        look = [line for _, line in islice(data.read_lines(settings.HOME / found.path), A_LOOK)]
    except FileNotFoundError:
        look = None
    context = {"project": found.project, "dataset": found, "look": look and [_shown(line) for line in look]}
    return render(request, "datasets/dataset.html", context)


@admin_required
@require_safe
def file(request: HttpRequest, slug: str, pk: int) -> HttpResponseBase:
    found = _found(request, slug, pk)
    try:
        content = (settings.HOME / found.path).open("rb")
    except FileNotFoundError:
        raise Http404("The file of this dataset is gone.") from None
    name = f"{slug}-{found.kind}-{found.sha256[:8]}.jsonl"
    return FileResponse(content, as_attachment=True, filename=name, content_type="application/jsonl")


@admin_required
@require_safe
def export(request: HttpRequest, slug: str, form: str) -> HttpResponseBase:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    if form not in FORMS:
        raise Http404
    lines = exported(project, form, include_simulated="simulated" in request.GET)
    name = f"{slug}-{form}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return StreamingHttpResponse(lines, content_type="application/jsonl", headers=headers)


def _found(request: HttpRequest, slug: str, pk: int) -> Dataset:
    mine = Dataset.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    return get_object_or_404(mine.select_related("project", "created_by"), pk=pk)


def _counts(project: Project) -> dict[str, int]:
    """Of people's rankings, and how many simulated ones there are beside them."""
    rankings = Ranking.objects.filter(quintet__project=project)
    many = {"people": Count("pk"), "labelers": Count("labeler", distinct=True)}
    people = rankings.filter(simulated=False).aggregate(**many, quintets=Count("quintet", distinct=True))
    return people | {"simulated": rankings.filter(simulated=True).count()}


def _shown(line: dict) -> dict:
    """A line as a page shows it: the rollouts best first, with their ranks."""
    asked = line.get("prompt") or line.get("messages", [])[:-1]
    if "ranks" in line:
        order = sorted(zip(line["ranks"], line["rollouts"], strict=True), key=lambda row: row[0])
    else:
        order = [("", line.get("completion") or line["messages"][-1]["content"])]
    return {"prompt": data.prompt_text(asked), "order": order, "line": line}
