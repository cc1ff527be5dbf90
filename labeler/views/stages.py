"""The three stages of a project on one page: reading, worked solutions, practice; documents to read; and the
same prompt answered by all three. Admins of the project.

What each stage has come to is said in labeler/course.py."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler.access import admin_required
from labeler.course import LONGEST, Course, answers, ask
from labeler.datasets import NothingToFreeze, freeze_documents
from labeler.models import Project, Request
from labeler.templatetags.words import count
from rlhf import data
from rlhf.data import BadLine

LARGEST = 64 * 1024 * 1024
OFFERED = 60  # prompts
ASKED = 3  # at once


class DocumentsForm(forms.Form):
    """Plain texts: a line of JSON each, or the paragraphs of a text file that empty lines part."""

    file = forms.FileField(
        label="Documents to read",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.txt,.md"}),
        help_text='JSONL of {"text": …}, or a text file: what stands between two empty lines is a document. '
        "At most 64 MB.",
        error_messages={"required": "Choose a file."},
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)

    def clean_file(self):
        file = self.cleaned_data["file"]
        if file.size > LARGEST:
            raise forms.ValidationError("The file is larger than 64 MB. Split it.")
        try:
            if file.name.lower().endswith((".jsonl", ".json", ".ndjson")):
                self.lines = [data.as_line(_read(*line)) for line in data.read_lines(file)]
            else:
                text = file.read().decode("utf-8-sig").replace("\0", "").replace("\r\n", "\n")
                self.lines = [{"text": each.strip()} for each in text.split("\n\n") if each.strip()]
        except UnicodeDecodeError:
            raise forms.ValidationError("It is not UTF-8 text. Nothing was kept.") from None
        except BadLine as bad:
            raise forms.ValidationError(f"Line {bad.number}: {bad.reason} Nothing was kept.") from None
        return file


def _read(number: int, line: dict[str, Any]) -> data.Document:
    try:
        return data.document(line)
    except ValueError as error:
        raise BadLine(number, str(error)) from None


@admin_required
@require_safe
def stages(request: HttpRequest, slug: str) -> HttpResponse:
    return _page(request, _project(request, slug), DocumentsForm())


@admin_required
@require_POST
def documents(request: HttpRequest, slug: str) -> HttpResponse:
    """Keep what is to be read, as a dataset of its own."""
    project = _project(request, slug)
    form = DocumentsForm(request.POST, request.FILES)
    if form.is_valid():
        try:
            dataset = freeze_documents(project, form.lines, request.user)
        except NothingToFreeze as nothing:
            form.add_error("file", str(nothing))
        else:
            messages.success(request, f"{count(dataset.lines, 'document')} to read are kept as {dataset}.")
            return redirect("stages", slug)
    return _page(request, project, form, status=422)


@admin_required
@require_POST
def ask_all(request: HttpRequest, slug: str) -> HttpResponse:
    """One prompt for every stage that has a model."""
    project = _project(request, slug)
    own = request.POST.get("own", "").replace("\0", "").strip()
    chosen = project.prompts.filter(pk=_whole(request.POST.get("prompt"), 0)).first()
    prompt = own[:LONGEST] or (chosen.content if chosen else "")
    if not prompt:
        messages.error(request, "Choose a prompt, or write one.")
        return redirect("stages", slug)
    seed = _whole(request.POST.get("seed"), 0)
    temperature = 0.0 if "surely" in request.POST else 1.0
    made = ask(Course(project), prompt, request.user, seed, temperature)
    if not made:
        messages.error(request, "No stage has a model on this machine yet.")
    asked = ",".join(str(each.pk) for each in made)
    return redirect(reverse("stages", args=[slug]) + (f"?asked={asked}#answers" if asked else ""))


def _page(request: HttpRequest, project: Project, form: DocumentsForm, status: int = 200) -> HttpResponse:
    course, asked = Course(project), _asked(request, project)
    context = {
        "project": project,
        "stages": course.stages,
        "able": course.able,
        "documents": course.documents,
        "form": form,
        "prompts": project.prompts.all()[:OFFERED],
        "asked": asked,
        "answers": answers(course, asked),
        "waiting": any(each.is_live for each in asked),
        "question": asked[0].question if asked else {},
    }
    if asked:
        context["said"] = data.prompt_text(asked[0].question["prompts"][0])
    template = "stages/stages.html"
    return render(request, f"{template}#answers" if request.htmx else template, context, status=status)


def _asked(request: HttpRequest, project: Project) -> list[Request]:
    """Those that the address names, else what was asked last."""
    mine = project.requests.filter(kind=Request.Kind.SAMPLE, question__prompts__isnull=False)
    named = [_whole(each, 0) for each in request.GET.get("asked", "").split(",")[:ASKED]]
    return list(mine.filter(pk__in=named).order_by("pk"))


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else otherwise


def _project(request: HttpRequest, slug: str) -> Project:
    mine = Project.objects.run_by(request.user).select_related("start")
    return get_object_or_404(mine, slug=slug)
