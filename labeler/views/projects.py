"""Projects: one's own with what waits in them, a page for each, making one from a template, editing it.

Where a project stands in the loop is read in labeler/loop.py. Left out: deleting a project, because its
rankings are people's work."""

import json
import re
import unicodedata
from pathlib import Path

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from labeler import intake
from labeler.access import admin_required, labeler_required, staff_required
from labeler.loop import standings
from labeler.models import Checkpoint, Project, User
from labeler.project_templates import BLANK, TEMPLATES, ProjectTemplate
from rlhf.data import BadLine, PromptLine

RUNS_SHOWN = 6
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)
PLAIN = {"spellcheck": "false", "autocapitalize": "none", "autocomplete": "off"}
LATER, HERE, FOLDER, HUB = "later", "checkpoint", "folder", "hub"


class ProjectForm(forms.ModelForm):
    """A project's words, and which policy it starts from: one that is here, a folder, or one from the Hub."""

    overlap = forms.IntegerField(
        min_value=1,
        max_value=20,
        initial=1,
        label="Labelers for each quintet",
        help_text="Two or more show how much people agree. Holds for quintets made from now on.",
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), "From 1 to 20."),
    )
    keep_waiting = forms.IntegerField(
        min_value=0,
        max_value=1000,
        initial=20,
        label="Quintets kept waiting",
        help_text="When fewer wait, more are sampled by themselves. 0: never.",
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), "From 0 to 1,000."),
    )
    start_from = forms.ChoiceField(
        choices=[
            (HERE, "One that is here"),
            (FOLDER, "A folder on this server"),
            (HUB, "A model from the Hugging Face Hub"),
            (LATER, "Choose later"),
        ],
        widget=forms.RadioSelect,
        label="Starting model",
    )
    checkpoint = forms.ModelChoiceField(
        Checkpoint.objects.none(), required=False, empty_label=None, label="Checkpoint"
    )
    folder = forms.CharField(
        required=False,
        max_length=400,
        label="Folder",
        widget=forms.TextInput(PLAIN),
        help_text="As save_pretrained writes it: config.json, the tokenizer and safetensors weights.",
    )
    hub = forms.CharField(
        required=False,
        max_length=200,
        label="Name on the Hub",
        widget=forms.TextInput(PLAIN | {"placeholder": "organisation/name"}),
        help_text="The first run downloads its safetensors weights, and no code.",
    )
    revision = forms.CharField(
        required=False,
        max_length=100,
        label="Revision",
        widget=forms.TextInput(PLAIN | {"placeholder": "main"}),
        help_text="A tag or, best, a commit: a branch may be another model tomorrow.",
    )

    class Meta:
        model = Project
        fields = ["name", "guidelines", "overlap", "keep_waiting"]
        widgets = {"guidelines": forms.Textarea({"rows": 12, "dir": "auto"})}
        help_texts = {
            "guidelines": "What makes one answer better than another. Markdown, shown beside every ranking."
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        here = Checkpoint.objects.filter(kind=Checkpoint.Kind.POLICY)
        here = here.filter(Q(project=None) | Q(project=self.instance.pk, project__isnull=False))
        self.fields["checkpoint"].queryset = here.order_by("-suggested", "-pk")
        shipped = here.filter(project=None).values_list("pk", flat=True).first()
        start = self.instance.start_id or (None if self.instance.pk else shipped)
        if not here:
            self.fields["start_from"].choices = self.fields["start_from"].choices[1:]
        self.initial = {"checkpoint": start, "start_from": HERE if start else LATER} | self.initial

    def clean(self) -> dict:
        """Only the chosen one of the four ways has to be filled in, and only it is looked at."""
        data = super().clean() or self.cleaned_data
        chosen = data.get("start_from")
        try:
            if chosen == HERE and not data.get("checkpoint") and "checkpoint" not in self.errors:
                raise forms.ValidationError("Choose one.")
            if chosen == FOLDER and "folder" in data:
                data["location"] = location_of_folder(data["folder"])
            if chosen == HUB and "hub" in data and "revision" in data:
                data["location"] = location_on_hub(data["hub"], data["revision"])
        except forms.ValidationError as error:
            self.add_error(chosen, error)
        return data

    @transaction.atomic
    def save(self, commit: bool = True) -> Project:
        project = super().save()
        project.start = self._start(project)
        project.save(update_fields=["start"])
        return project

    def _start(self, project: Project) -> Checkpoint | None:
        """The chosen checkpoint, entered among the checkpoints where it is not there yet."""
        chosen, location = self.cleaned_data["start_from"], self.cleaned_data.get("location", "")
        if chosen in (HERE, LATER):
            return self.cleaned_data["checkpoint"] if chosen == HERE else None
        known = Checkpoint.objects.filter(Q(project=project) | Q(project=None), location=location).first()
        name = location.removeprefix("hub:") if chosen == HUB else Path(location).name
        return known or Checkpoint.objects.create(project=project, location=location, name=name[:200])


class NewProjectForm(ProjectForm):
    """A project with its first prompts; `lines` is all of them, every line already found to be good."""

    prompts = forms.CharField(
        required=False,
        label="Prompts, one a line",
        widget=forms.Textarea({"rows": 10, "dir": "auto", "spellcheck": "false"}),
        help_text="Change them as you like. A file can be added later.",
    )

    def __init__(self, *args, template: ProjectTemplate, **kwargs):
        written = {"name": template.name, "guidelines": template.guidelines}
        super().__init__(*args, initial=written | {"prompts": "\n".join(template.prompts)}, **kwargs)
        self.lines: list[tuple[int, PromptLine]] = []

    def clean_prompts(self) -> str:
        try:
            self.lines = list(intake.pasted_prompts(self.cleaned_data["prompts"]))
        except BadLine as bad:
            raise forms.ValidationError(f"Line {bad.number}: {bad.reason}") from None
        return self.cleaned_data["prompts"]

    @transaction.atomic
    def create(self, by: User) -> Project:
        self.instance.created_by = by
        self.instance.slug = Project.objects.free_slug(self.cleaned_data["name"])
        project = self.save()
        intake.import_prompts(project, self.lines)
        return project


def location_of_folder(folder: str) -> str:
    """The location of a policy saved in `folder`, relative to the home where it lies there; refused if there
    is none. Its weights are not read: a run does that."""
    odd = any(unicodedata.category(letter).startswith("C") for letter in folder)
    if not folder or odd or ".." in Path(folder).parts or folder.startswith(("~", "hub:")):
        raise forms.ValidationError("Write the whole path of the folder, without .. or ~.")
    path = (settings.HOME / folder).resolve()
    try:
        files = {each.name for each in path.iterdir()}
        config = json.loads((path / "config.json").read_text()) if "config.json" in files else None
    except OSError:
        raise forms.ValidationError("There is no such folder on this server, or it cannot be read.") from None
    except ValueError:
        raise forms.ValidationError("Its config.json is not JSON.") from None
    if not isinstance(config, dict):
        raise forms.ValidationError("There is no config.json in it: it is not a saved model.")
    if any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        raise forms.ValidationError("It holds a reward model. A project starts from a policy.")
    if not any(name.endswith(".safetensors") for name in files):
        raise forms.ValidationError("It has no safetensors weights. Pickled ones are refused.")
    return str(path.relative_to(settings.HOME) if path.is_relative_to(settings.HOME) else path)


def location_on_hub(name: str, revision: str) -> str:
    name = name.removeprefix("https://huggingface.co/").strip("/")
    if ".." in name or "--" in name or not HUB_NAME.fullmatch(name):
        raise forms.ValidationError("A name on the Hub is organisation/name.")
    revision = revision or "main"
    if ".." in revision or not REVISION.fullmatch(revision):
        raise forms.ValidationError("The revision must be a branch, a tag or a commit.")
    return f"hub:{name}@{revision}"


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
    return render(request, "projects/project.html", context)


def _labelers(project: Project) -> dict[str, list[User]]:
    """Who may rank here, and who has ranked, each with how much; people and programs apart."""
    here = Count("rankings", filter=Q(rankings__quintet__project=project), distinct=True)
    everybody = User.objects.filter(Q(projects=project) | Q(rankings__quintet__project=project))
    counted = list(everybody.distinct().annotate(ranking_count=here).order_by("-ranking_count", "username"))
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
    edited = Project.objects.get(pk=project.pk)
    form = ProjectForm(request.POST if request.method == "POST" else None, instance=edited)
    if form.is_valid():
        messages.success(request, f"{form.save()} is saved.")
        return redirect(project)
    context = {"project": project, "form": form}
    return render(request, "projects/edit.html", context, status=422 if form.is_bound else 200)
