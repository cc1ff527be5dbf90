"""Files on their way in: the list with its upload, and a page per import: a preview that maps the columns,
then its progress, then what came of it. Admins of the project only.

How a file is read is decided in labeler/intake/; importing it is a worker's matter (labeler/tasks.py)."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

from django import forms
from django.contrib import messages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import checking
from labeler.access import admin_required
from labeler.intake.columns import FIELDS, KEPT, LEFT
from labeler.intake.files import Source, Unreadable, in_utf8
from labeler.intake.kinds import Line
from labeler.intake.uploads import LARGEST, TOO_LARGE
from labeler.intake.work import lines, opened, plan, refusal
from labeler.models import Import, Project
from rlhf import data
from rlhf.data import BadLine, prompt_text

A_LOOK = 5  # rows of a file that its preview shows
LATELY = 50  # imports that the list shows


class UploadForm(forms.Form):
    file = forms.FileField(
        label="A file",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.json,.ndjson,.csv,.tsv,.txt,.parquet"}),
        help_text="JSONL, CSV or Parquet, up to 1 GB: prompts, rollouts to be ranked, demonstrations or "
        "rankings. You see how it is read before anything is kept.",
        error_messages={"required": "Choose a file."},
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)


@dataclass(frozen=True)
class Column:
    """One of the file's, as the preview offers it."""

    name: str
    field: str
    values: list[str]
    choices: list[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """A row as it will be read: its rollouts best first, or in their order where nobody ranked them."""

    number: int
    line: Line | None = None
    reason: str = ""

    @property
    def prompt(self) -> str:
        return prompt_text(self.line.prompt) if self.line else ""

    @property
    def rollouts(self) -> list[tuple[int | str, str, str]]:
        assert self.line
        count = len(self.line.rollouts)
        unsaid = [""] * count
        rows = zip(self.line.ranks or unsaid, self.line.rollouts, self.line.models or unsaid, strict=True)
        return sorted(rows, key=lambda row: row[0]) if self.line.ranks else list(rows)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def imports(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    form = UploadForm(*(request.POST, request.FILES) if request.method == "POST" else ())
    if getattr(request, TOO_LARGE, False):
        form.add_error(
            "file", f"It is larger than {LARGEST // 1024**3} GB. Split it, or use bin/manage there."
        )
    elif form.is_valid():
        file = form.cleaned_data["file"]
        found = Import.objects.keep(project, file.name, file, request.user)
        try:
            with opened(found.file, found.name) as source:
                plan(found, source)
        except Unreadable as unreadable:
            found.throw_away()
            form.add_error("file", str(unreadable))
        else:
            found.save()
            return redirect("import", slug, found.pk)
    lately = project.imports.select_related("created_by")[:LATELY]
    context = {"project": project, "form": form, "imports": lately, "largest": LARGEST}
    return render(request, "imports/imports.html", context, status=422 if form.is_bound else 200)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def one(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """The import's page; a POST changes what its columns are, and may start it."""
    found = _found(request, slug, pk)
    context: dict[str, Any] = {"project": found.project, "import": found}
    do = request.POST.get("do", "look") if request.method == "POST" else ""
    if do and not found.is_open:
        messages.error(request, "This import has begun: its columns are settled.")
        return redirect("import", slug, pk)
    if found.is_open:
        context |= _look(found, request.POST)
    elif found.state == Import.State.FINISHED:
        context["answers"] = found.answers.count()
        context["solutions"] = found.demonstrations.filter(solution=True).count()
        if found.project.is_checked:
            context["references"] = checking.references(found.project)
    if do in ("check", "import") and not context["refusal"]:
        found.ask(dry_run=do == "check")
        return redirect("import", slug, pk)
    page = "imports/import.html#body" if request.htmx else "imports/import.html"
    return render(request, page, context, status=422 if do in ("check", "import") else 200)


@admin_required
@require_safe
def errors(request: HttpRequest, slug: str, pk: int) -> HttpResponseBase:
    found = _found(request, slug, pk)
    try:
        content = found.errors_file.open("rb")
    except FileNotFoundError:
        raise Http404("There are no errors of this import.") from None
    name = f"{slug}-import-{pk}-errors.txt"
    return FileResponse(content, as_attachment=True, filename=name, content_type="text/plain; charset=utf-8")


@admin_required
@require_POST
def undo(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    if not _found(request, slug, pk).ask(undo=True):
        messages.error(request, "Only what an import brought can be taken out again.")
    return redirect("import", slug, pk)


@admin_required
@require_POST
def delete(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    found = _found(request, slug, pk)
    if found.is_open:
        found.throw_away()
        messages.success(request, f"{found.name} is thrown away; nothing of it was kept.")
    else:
        messages.error(request, f"The import of {found.name} stays in the list.")
    return redirect("imports", slug)


def _found(request: HttpRequest, slug: str, pk: int) -> Import:
    mine = Import.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    return get_object_or_404(mine.select_related("project", "created_by"), pk=pk)


def _look(found: Import, posted: Any) -> dict[str, Any]:
    """The file's columns, as they are mapped now, and its first rows; or why it cannot be read."""
    try:
        with opened(found.file, found.name, found.format) as source:
            if posted:
                _map(found, source, posted)
            return _preview(found, source)
    except Unreadable as unreadable:
        return {"refusal": str(unreadable)}
    except OSError:
        return {"refusal": "The file is gone. Upload it again."}


def _map(found: Import, source: Source, posted: Any) -> None:
    """What was chosen on the page. Another kind has other fields: then the columns are guessed anew."""
    kind = posted.get("kind", found.kind)
    if kind in Import.Kind.values and kind != found.kind:
        plan(found, source, kind)
    else:
        for number, column in enumerate(source.columns):
            field = posted.get(f"column-{number}", found.mapping.get(column, KEPT))
            if field in (*FIELDS[found.kind], KEPT, LEFT):
                found.mapping[column] = field
    Import.objects.filter(pk=found.pk, state__in=Import.OPEN).update(kind=found.kind, mapping=found.mapping)


def _preview(found: Import, source: Source) -> dict[str, Any]:
    fields = [field for field in found.mapping.values() if field and field != LEFT]
    twice = sorted({field for field in fields if fields.count(field) > 1})
    said = f"Two columns are “{twice[0]}”. Choose one." if twice else refusal(found)
    rows = [] if said else [_shown(*each) for each in islice(lines(found, source), A_LOOK)]
    return {
        "refusal": said,
        "kinds": Import.Kind.choices,
        "columns": [_column(found, source, name) for name in source.columns],
        "rows": rows,
    }


def _shown(number: int, line: Line | BadLine | None) -> Shown:
    if isinstance(line, BadLine):
        return Shown(line.number, reason=line.reason)
    return Shown(number, line) if line else Shown(number, reason="it ranks fewer than two, and is left out.")


def _column(found: Import, source: Source, name: str) -> Column:
    rows = [row for _, row in source.first if isinstance(row, dict)]
    found_here = [row[name] for row in rows if row.get(name) not in (None, "")][:2]
    values = [in_utf8(each if isinstance(each, str) else data.dumps(each)) for each in found_here]
    fields = FIELDS[found.kind]
    choices = [(field, field) for field in fields]
    if name not in fields:
        choices.append((KEPT, "kept under its own name"))
    return Column(name, found.mapping.get(name, KEPT), values, [*choices, (LEFT, "left out")])
