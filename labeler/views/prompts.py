"""A project's prompts: the list, adding by hand or by file, deleting what nothing uses yet; in checked
projects with their answers, and those that lack one. Admins only.

A file or a paste is kept whole or not at all; what a line may hold is decided in rlhf/data.py."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import ProtectedError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import checking, intake
from labeler.access import admin_required
from labeler.models import Project
from labeler.templatetags.words import count
from rlhf import data
from rlhf.data import BadLine, PromptLine

A_PAGE = 50
LONGEST = 100_000  # characters of a problem, its answer or its solution
SHOWN = {"": "all", "unanswered": "without an answer", "failing": "whose answer fails its own checker"}
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

    def __init__(self, project: Project, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.project = project
        if project.is_checked:
            self.fields["pasted"].label = "Or several, one a line with its answer"
            self.fields[
                "pasted"
            ].help_text = (
                "The answer stands behind => or a tab, as a sheet's cells are pasted: What is 2 + 3? => 5"
            )
            self.fields["pasted"].widget.attrs["rows"] = 5
            self.fields["file"].help_text = (
                'JSONL with {"prompt", "answer"}, or {"question", "answer"} as GSM8K has it (the worked '
                "solution, then #### and the answer); CSV with such columns. At most 64 MB."
            )
            self.fields = problem_fields() | self.fields

    def clean(self) -> dict:
        pasted, file = self.cleaned_data.get("pasted"), self.cleaned_data.get("file")
        problem = self.cleaned_data.get("prompt") or ""
        source = "file" if file else "prompt" if problem.strip() else "pasted"
        if problem.strip() and (file or (pasted or "").strip()):
            self.add_error(
                "pasted", "One problem, several lines or a file: not more than one of these at once."
            )
        elif file and file.size > LARGEST_FILE:
            self.add_error("file", "The file is larger than 64 MB. Split it.")
        elif not self.errors:
            try:
                self.lines = list(self._read(file, problem, pasted or ""))
            except intake.Unreadable as unreadable:
                self.add_error(source, f"{unreadable} Nothing was added.")
            except BadLine as bad:
                self.add_error(source, f"Line {bad.number}: {bad.reason} Nothing was added.")
            else:
                if not self.lines:
                    self.add_error(source, "There is no prompt in it.")
        return self.cleaned_data

    def _read(self, file: Any, problem: str, pasted: str) -> Iterable[tuple[int, PromptLine]]:
        if file:
            return intake.read_prompts(file, file.name)
        if not problem.strip():
            return intake.pasted_prompts(pasted, answers=self.project.is_checked)
        said = {name: self.cleaned_data.get(name) or "" for name in ("answer", "solution")}
        row = {"prompt": problem} | {name: each for name, each in said.items() if each}
        plain_ends = {name: each.replace("\r\n", "\n") for name, each in row.items()}
        return [(1, data.prompt_line(plain_ends))]

    def keep(self) -> intake.Imported | None:
        """What was added; None where it is not the time, as the form then says."""
        try:
            return intake.import_prompts(self.project, self.lines)
        except intake.Busy as busy:
            self.add_error("file" if self.cleaned_data.get("file") else "pasted", str(busy))
            return None


def problem_fields() -> dict[str, forms.Field]:
    """One problem with its answer, and how one comes to it."""

    def written(rows: int) -> forms.Textarea:
        return forms.Textarea({"rows": rows, "dir": "auto"})

    given: dict[str, Any] = {"required": False, "max_length": LONGEST}
    answer = forms.TextInput({"autocomplete": "off", "dir": "auto"})
    solution = "If you like: shown to the model before it practises, and tried on the checker."
    return {
        "prompt": forms.CharField(label="Problem", widget=written(3), **given),
        "answer": forms.CharField(
            label="Its answer", widget=answer, help_text="What the checker compares with.", **given
        ),
        "solution": forms.CharField(label="Worked solution", widget=written(3), help_text=solution, **given),
    }


@admin_required
@require_safe
def prompts(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    words, show = request.GET.get("words", "").strip(), request.GET.get("show", "")
    found = project.prompts.search(words)
    if show == "unanswered":
        found = found.unanswered()
    elif show == "failing":
        found = found.failing(project.checker_digest)
    page = Paginator(found.with_use(), A_PAGE).get_page(request.GET.get("page"))
    context = {"project": project, "page": page, "words": words, "total": project.prompts.count()}
    if project.is_checked:
        context |= {
            "show": show if show in SHOWN else "",
            "shown": SHOWN,
            "shown_as": SHOWN.get(show, ""),
            "references": checking.references(project),
            "solutions": checking.solutions(page.object_list),
        }
    return render(request, "prompts/prompts.html#list" if request.htmx else "prompts/prompts.html", context)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    form = PromptsForm(project, *(request.POST, request.FILES) if request.method == "POST" else ())
    if form.is_valid() and (done := form.keep()):
        known = f", {done.known:,} were there already and left out" if done.known else ""
        other = (
            f", {done.contradicted:,} of them with another answer, which was not taken"
            if done.contradicted
            else ""
        )
        found = checking.references(project) if project.is_checked else None
        fare = f" {found.words}." if found and found.words else ""
        messages.success(request, f"{count(done.added, 'prompt')} added{known}{other}.{fare}")
        return redirect("prompts", slug)
    status = 422 if form.is_bound else 200
    return render(request, "prompts/add.html", {"project": project, "form": form}, status=status)


@admin_required
@require_POST
def answer(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Say what is right, for a prompt that has no answer or a wrong one; its reference is tried at once."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    prompt = get_object_or_404(project.prompts, pk=pk)
    given = request.POST.get("answer", "").strip()
    if len(given) > LONGEST or "\0" in given:
        messages.error(request, "Such an answer cannot be kept: it is too long, or holds a NUL character.")
    else:
        prompt.give_answer(given, request.user)
        checking.attend(project)
        said = "has no answer now" if not given else f"has the answer “{given[:100]}” now"
        messages.success(request, f"“{prompt}” {said}.")
    kept = {name: request.POST[name] for name in ("show", "words", "page") if request.POST.get(name)}
    return redirect(f"{reverse('prompts', args=[slug])}?{urlencode(kept)}")


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
