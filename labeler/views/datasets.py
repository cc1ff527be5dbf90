"""What people ranked, on its way out: freezing it, looking at what was frozen, and files to take away.

Admins of the project only. What goes into a line, and in which order, is decided in labeler/datasets/."""

from itertools import chain
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler.access import admin_required
from labeler.datasets import NothingToFreeze, Query
from labeler.datasets import freeze as frozen
from labeler.datasets.compare import difference
from labeler.datasets.documents import bring_in
from labeler.datasets.exports import FILES, Export
from labeler.datasets.forms import DocumentsForm, FreezeForm, TakeOutForm, summed
from labeler.datasets.frozen import Source, opened
from labeler.datasets.query import nothing_in
from labeler.intake.uploads import LARGEST, TOO_LARGE
from labeler.models import Dataset, Project
from labeler.models.demonstrations import told
from labeler.numbers import whole
from labeler.templatetags.words import count
from rlhf import data

A_LOOK = 3  # rows of a preview
A_PAGE = 6  # lines
NOTHING: dict[str, str] = {
    Dataset.Kind.RANKINGS: "No ranking here says anything of this kind.",
    Dataset.Kind.DOCUMENTS: "Documents are read as they are.",
    Dataset.Kind.DEMONSTRATIONS: "Nobody has written a demonstration yet; the best rollouts can do instead.",
}


@admin_required
@require_safe
def datasets(request: HttpRequest, slug: str) -> HttpResponse:
    return _page(request, _project(request, slug))


@admin_required
def freeze(request: HttpRequest, slug: str) -> HttpResponse:
    """What the query would hold, while it is being put together; and the dataset, once it is sent."""
    project = _project(request, slug)
    form = FreezeForm(project, request.POST if request.method == "POST" else request.GET)
    if request.method != "POST":
        if request.htmx:
            return render(request, "datasets/datasets.html#count", _counted(project, form))
        return _page(request, project, form)
    try:
        if form.is_valid():
            dataset = frozen(project, form.query(), request.user)
            return redirect("dataset", slug, dataset.pk)
    except NothingToFreeze as nothing:
        form.add_error(None, str(nothing))
    return _page(request, project, form, status=422)


@admin_required
@require_POST
def documents(request: HttpRequest, slug: str) -> HttpResponse:
    """A file of plain documents becomes a dataset."""
    project, form = _project(request, slug), DocumentsForm(request.POST, request.FILES)
    if getattr(request, TOO_LARGE, False):
        form.add_error("file", f"It is larger than {LARGEST // 1024**3} GB: split it.")
    elif form.is_valid():
        file = form.cleaned_data["file"]
        try:
            made, copies = bring_in(project, file.name, file, request.user)
        except NothingToFreeze as refused:
            form.add_error("file", str(refused))
        else:
            left_out = f", {count(copies, 'copy,copies')} of others left out" if copies else ""
            messages.success(request, f"{count(made.lines, 'document')}{left_out}.")
            return redirect("dataset", slug, made.pk)
    return _page(request, project, status=422, documents=form)


@admin_required
@require_safe
def dataset(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    found = _found(request, slug, pk)
    others = found.project.datasets.filter(kind=found.kind).exclude(pk=pk)
    context = {"project": found.project, "dataset": found, "facts": found.manifest, "others": others}
    context["query"] = Query.of(found.query).words() if found.kind == Dataset.Kind.RANKINGS else []
    try:
        with opened(found) as source:
            context |= {"facts": source.manifest, **_lines(source, request.GET.get("page"))}
    except FileNotFoundError:
        context["gone"] = True
    lines_only = request.htmx and not request.htmx.history_restore_request  # which wants the page
    documents = found.kind == Dataset.Kind.DOCUMENTS  # which are in no other form
    if not lines_only and "gone" not in context and not documents:
        context["take_out"] = TakeOutForm(found.project, dataset=found)
        context |= _previewed(context["take_out"])
    return render(request, "datasets/dataset.html#lines" if lines_only else "datasets/dataset.html", context)


@admin_required
@require_safe
def against(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Two datasets side by side."""
    found = _found(request, slug, pk)
    other = _chosen(found.project, request.GET.get("other"), documents=True)
    if other is None or other.kind != found.kind:
        return redirect("dataset", slug, pk)
    try:
        with opened(found) as one, opened(other) as another:
            result = difference(one, another)
    except FileNotFoundError:
        raise Http404("The file of one of these datasets is gone.") from None
    context = {
        "project": found.project,
        "dataset": found,
        "other": other,
        "difference": result,
        "only": [
            (found, result.only_one, [_shown(line) for line in result.first_of_one]),
            (other, result.only_other, [_shown(line) for line in result.first_of_other]),
        ],
        "changed": [(_shown(before), _shown(after)) for before, after in result.first_changed],
    }
    return render(request, "datasets/against.html", context)


@admin_required
@require_safe
def file(request: HttpRequest, slug: str, pk: int) -> HttpResponseBase:
    """The very bytes that were frozen."""
    found = _found(request, slug, pk)
    try:
        content = (settings.HOME / found.path).open("rb")
    except FileNotFoundError:
        raise Http404("The file of this dataset is gone.") from None
    name = f"{slug}-{found.kind}-{found.sha256[:8]}.jsonl"
    return FileResponse(content, as_attachment=True, filename=name, content_type=FILES["jsonl"])


@admin_required
@require_safe
def preview(request: HttpRequest, slug: str) -> HttpResponse:
    """The first rows of what the form asks for."""
    project = _project(request, slug)
    form = TakeOutForm(project, request.GET, _chosen(project, request.GET.get("dataset")))
    context = {"project": project, "dataset": form.dataset, "take_out": form, **_previewed(form)}
    return render(request, "datasets/_take.html" if request.htmx else "datasets/preview.html", context)


@admin_required
@require_safe
def export(request: HttpRequest, slug: str, form: str = "") -> HttpResponseBase:
    """A file in any format, alone or with its card; written while it is sent."""
    project = _project(request, slug)
    asked = request.GET.dict() | ({"format": form} if form else {})
    wanted = TakeOutForm(project, asked, _chosen(project, request.GET.get("dataset"))).export()
    if wanted is None:
        raise Http404
    carded = "card" in request.GET
    try:
        if wanted.is_empty():
            messages.error(request, f"There is nothing to download. {_nothing(wanted)}")
            return redirect(f"{reverse('dataset_preview', args=[slug])}?{urlencode(asked)}")
        content = wanted.zipped() if carded else wanted.stream()
        first = next(content, b"")  # what cannot be had is said before there is an answer
    except FileNotFoundError:
        raise Http404("The file of this dataset is gone.") from None
    name = f"{wanted.stem}.{'zip' if carded else wanted.file}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    kind = "application/zip" if carded else FILES[wanted.file]
    return StreamingHttpResponse(chain([first], content), content_type=kind, headers=headers)


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user), slug=slug)


def _found(request: HttpRequest, slug: str, pk: int) -> Dataset:
    mine = Dataset.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    return get_object_or_404(mine.select_related("project", "created_by").prefetch_related("runs"), pk=pk)


def _chosen(project: Project, number: str | None, documents: bool = False) -> Dataset | None:
    if not number:
        return None
    offered = project.datasets.all() if documents else project.datasets.exclude(kind=Dataset.Kind.DOCUMENTS)
    return get_object_or_404(offered, pk=whole(number))


def _page(
    request: HttpRequest,
    project: Project,
    form: FreezeForm | None = None,
    status: int = 200,
    documents: DocumentsForm | None = None,
) -> HttpResponse:
    form, people = form or FreezeForm(project), Query().counts(project)
    simulated = Query(simulated=True).rows(project).filter(simulated=True).count()
    only_simulated = {"format": "ranked", "file": "jsonl", "simulated": "on"}
    take_out = TakeOutForm(project, only_simulated if simulated and not people["lines"] else None)
    context = {
        "project": project,
        "counts": people | {"simulated": simulated, "lines": people["lines"] - people["harvested"]},
        "take_out": take_out,
        "documents": documents or DocumentsForm(),
        "datasets": project.datasets.prefetch_related("runs").select_related("created_by"),
        **_counted(project, form, people),
    }
    by_origin = project.demonstrations.all().counted().by_origin()
    context["demonstrated"] = told(by_origin) if by_origin else ""
    if any(context["counts"].values()) or project.demonstrations.exists():
        context |= _previewed(take_out)
    return render(request, "datasets/datasets.html", context, status=status)


def _counted(project: Project, form: FreezeForm, people: dict[str, int] | None = None) -> dict[str, Any]:
    """What the query on the form would hold; `people`: what the empty one does, where that is known."""
    query = form.query()
    counts = people if people and query == Query() else query.counts(project)
    words = f"{summed(counts)}." if counts["lines"] else nothing_in(project, query)
    return {"project": project, "form": form, "sums": words}


def _previewed(form: TakeOutForm) -> dict[str, Any]:
    """The first rows, each as what its file would say."""
    wanted = form.export()
    if wanted is None:
        raise Http404
    try:
        with wanted.source(few=True) as source:
            columns = list(wanted.columns(source))
            rows = [[_said(row.get(name)) for name in columns] for row in wanted.first(source, A_LOOK)]
    except FileNotFoundError:
        raise Http404("The file of this dataset is gone.") from None
    some = [name for number, name in enumerate(columns) if any(row[number] for row in rows)]
    rows = [[cell for name, cell in zip(columns, row, strict=True) if name in some] for row in rows]
    return {"columns": some, "rows": rows, "nothing": _nothing(wanted)}


def _nothing(wanted: Export) -> str:
    return NOTHING[wanted.format.kind(wanted.how)]


def _said(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else data.dumps(value)


def _lines(source: Source, number: str | None) -> dict[str, Any]:
    page = Paginator(range(source.manifest["lines"]), A_PAGE).get_page(number)
    return {"page": page, "look": [_shown(line) for line in source.page(page.start_index() - 1, A_PAGE)]}


def _shown(line: dict) -> dict:
    """A line as a page shows it: the rollouts best first, with their ranks."""
    if "text" in line:
        return {"prompt": "", "order": [("", line["text"])], "line": line}
    asked = line.get("prompt") or line.get("messages", [])[:-1]
    if "ranks" in line:
        order = sorted(zip(line["ranks"], line["rollouts"], strict=True), key=lambda row: row[0])
    else:
        order = [("", line.get("completion") or line["messages"][-1]["content"])]
    return {"prompt": data.prompt_text(asked), "order": order, "line": line}
