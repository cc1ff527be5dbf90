"""A project's prompts: the list, adding by hand or by file, deleting what nothing uses yet. Admins only.

A file or a paste is kept whole or not at all; what a line may hold is decided in rlhf/data.py."""

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import ProtectedError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import intake
from labeler.access import admin_required
from labeler.models import Project
from rlhf.data import BadLine

A_PAGE = 50
LARGEST_FILE = 64 * 1024 * 1024


class PromptsForm(forms.Form):
    """Reads what was pasted or uploaded; `lines` is all of it, every line already found to be good."""

    pasted = forms.CharField(
        required=False,
        strip=False,
        label="One prompt a line",
        widget=forms.Textarea(attrs={"rows": 10, "spellcheck": "false", "dir": "auto"}),
        help_text="Lines that are JSON objects are read as in a JSONL file.",
    )
    file = forms.FileField(
        required=False,
        label="Or a file",
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.json,.ndjson,.csv,.tsv,.txt"}),
        help_text='JSONL with {"prompt": …} and, if you like, “answer” and “id”; CSV with a column “prompt”; '
        "or plain text, a prompt a line. At most 64 MB.",
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)

    def clean(self) -> dict:
        pasted, file = self.cleaned_data.get("pasted"), self.cleaned_data.get("file")
        source = "file" if file else "pasted"
        if file and file.size > LARGEST_FILE:
            self.add_error("file", "The file is larger than 64 MB. Split it.")
        elif not self.errors:
            try:
                read = intake.read_prompts(file, file.name) if file else intake.pasted_prompts(pasted or "")
                self.lines = list(read)
            except intake.Unreadable as unreadable:
                self.add_error(source, f"{unreadable} Nothing was added.")
            except BadLine as bad:
                self.add_error(source, f"Line {bad.number}: {bad.reason} Nothing was added.")
            else:
                if not self.lines:
                    self.add_error(source, "There is no prompt in it.")
        return self.cleaned_data

    def keep_in(self, project: Project) -> intake.Imported | None:
        """What was added; None where it is not the time, as the form then says."""
        try:
            return intake.import_prompts(project, self.lines)
        except intake.Busy as busy:
            self.add_error("file" if self.cleaned_data.get("file") else "pasted", str(busy))
            return None


@admin_required
@require_safe
def prompts(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    words = request.GET.get("words", "").strip()
    page = Paginator(project.prompts.search(words).with_use(), A_PAGE).get_page(request.GET.get("page"))
    context = {"project": project, "page": page, "words": words, "total": project.prompts.count()}
    return render(request, "prompts/prompts.html#list" if request.htmx else "prompts/prompts.html", context)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    form = PromptsForm(*(request.POST, request.FILES) if request.method == "POST" else ())
    if form.is_valid() and (done := form.keep_in(project)):
        known = f", {done.known:,} were there already and left out" if done.known else ""
        messages.success(request, f"{done.added:,} prompt{'' if done.added == 1 else 's'} added{known}.")
        return redirect("prompts", slug)
    status = 422 if form.is_bound else 200
    return render(request, "prompts/add.html", {"project": project, "form": form}, status=status)


@admin_required
@require_POST
def delete(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    prompt = get_object_or_404(project.prompts, pk=pk)
    try:
        prompt.delete()
        messages.success(request, f"“{prompt}” is deleted.")
    except ProtectedError:
        messages.error(request, f"“{prompt}” stays: there are quintets or demonstrations of it.")
    return redirect("prompts", slug)
