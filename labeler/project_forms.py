"""The forms that make and change a project: its words, the model it starts from, and how it is labelled.

What is refused is refused at its field, in words. Left out: who may send them (labeler/views/projects.py) and
what a change entails (`Project.change`, `Project.revise_guidelines`)."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from labeler import intake
from labeler.models import Checkpoint, Project, User
from labeler.models.projects import USUAL_CHECKER
from labeler.project_templates import ProjectTemplate
from rlhf import config
from rlhf.data import BadLine, PromptLine

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)
PLAIN = {"spellcheck": "false", "autocapitalize": "none", "autocomplete": "off"}
LATER, HERE, FOLDER, HUB = "later", "checkpoint", "folder", "hub"


def whole(label: str, help_text: str, least: int, most: int, **more) -> forms.IntegerField:
    said = f"A whole number from {least:,} to {most:,}."
    errors = dict.fromkeys(("invalid", "min_value", "max_value"), said)
    about: dict[str, Any] = {"label": label, "help_text": help_text, "min_value": least, "max_value": most}
    return forms.IntegerField(**about, error_messages=errors, **more)


def share(label: str, help_text: str) -> forms.FloatField:
    said = "A number from 0 to 1: 0.05 is one in twenty."
    errors = dict.fromkeys(("invalid", "min_value", "max_value"), said)
    widget = forms.TextInput({"inputmode": "decimal", "autocomplete": "off"})
    about: dict[str, Any] = {"label": label, "help_text": help_text, "min_value": 0.0, "max_value": 1.0}
    return forms.FloatField(**about, error_messages=errors, widget=widget)


class ProjectForm(forms.ModelForm):
    """A project's words, and which policy it starts from: one that is here, a folder, or one from the Hub."""

    overlap = whole(
        "Labelers for each quintet",
        "Two or more show how much people agree. Quintets that wait gain or lose places when this changes.",
        1,
        20,
        initial=1,
    )
    keep_waiting = whole(
        "Quintets kept waiting",
        "When fewer wait, more are sampled by themselves. 0: never.",
        0,
        1000,
        initial=20,
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
        fields = ["name", "guidelines", "judge", "overlap", "keep_waiting"]
        widgets = {"guidelines": forms.Textarea({"rows": 12, "dir": "auto"}), "judge": forms.RadioSelect}
        labels = {"judge": "Who judges the answers"}
        help_texts = {
            "guidelines": "What makes one answer better than another. Markdown, shown beside every ranking.",
            "judge": "A checker needs prompts that have a right answer. People may rank there as well.",
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["judge"].required = False
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

    def clean_judge(self) -> str:
        """What nothing is said about stays as it is."""
        return self.cleaned_data.get("judge") or self.initial.get("judge") or Project.Judge.PEOPLE

    def clean_guidelines(self) -> str:
        """Browsers send other line ends than the ones that were there; that is no new version."""
        return self.cleaned_data["guidelines"].replace("\r\n", "\n")

    def start_of(self, project: Project) -> Checkpoint | None:
        """The chosen checkpoint, entered among the checkpoints where it is not there yet."""
        chosen, location = self.cleaned_data["start_from"], self.cleaned_data.get("location", "")
        if chosen in (HERE, LATER):
            return self.cleaned_data["checkpoint"] if chosen == HERE else None
        known = Checkpoint.objects.open_to([project]).filter(location=location).first()
        name = location.removeprefix("hub:") if chosen == HUB else Path(location).name
        return known or Checkpoint.objects.create(project=project, location=location, name=name[:200])


class NewProjectForm(ProjectForm):
    """A project with its first prompts; `lines` is all of them, every line already found to be good."""

    checker = forms.ChoiceField(
        choices=[(each, each) for each in config.CHECKERS],
        required=False,
        label="Checker",
        help_text="Which reads the answers; how it does so is settled on its own page.",
    )
    prompts = forms.CharField(
        required=False,
        label="Prompts, one a line",
        widget=forms.Textarea({"rows": 10, "dir": "auto", "spellcheck": "false"}),
        help_text="Change them as you like. A file can be added later.",
    )

    def __init__(self, *args, template: ProjectTemplate, **kwargs):
        written = {"name": template.name, "guidelines": template.guidelines}
        written |= {"judge": template.judge, "checker": template.checker}
        super().__init__(*args, initial=written | {"prompts": "\n".join(template.prompts)}, **kwargs)
        self.lines: list[tuple[int, PromptLine]] = []

    def clean_prompts(self) -> str:
        try:
            answers = self.cleaned_data.get("judge") == Project.Judge.CHECKER
            self.lines = list(intake.pasted_prompts(self.cleaned_data["prompts"], answers))
        except BadLine as bad:
            raise forms.ValidationError(f"Line {bad.number}: {bad.reason}") from None
        return self.cleaned_data["prompts"]

    @transaction.atomic
    def create(self, by: User) -> Project:
        given = {name: self.cleaned_data[name] for name in ("name", "judge", "overlap", "keep_waiting")}
        if given["judge"] == Project.Judge.CHECKER:
            given["checker"] = {"name": self.cleaned_data["checker"] or USUAL_CHECKER}
        slug = Project.objects.free_slug(given["name"])
        project = Project(slug=slug, created_by=by, **given)
        project.wider_overlap = max(project.wider_overlap, project.overlap)
        project.save()
        project.start = self.start_of(project)
        project.save(update_fields=["start"])
        project.revise_guidelines(self.cleaned_data["guidelines"], by)
        intake.import_prompts(project, self.lines)
        return project


class EditProjectForm(ProjectForm):
    """A project as it is, with all that is said about its labelling."""

    wider_overlap = whole(
        "Labelers for each quintet of that share",
        "Nobody can rank a quintet twice: it needs so many labelers.",
        1,
        20,
    )
    wider_share = share(
        "Share of quintets that more labelers rank", "To measure agreement without paying for it everywhere."
    )
    random_share = share(
        "Share drawn at random",
        "Where the reward model chooses: quintets drawn at random and marked so, to measure the gain by.",
    )
    session_goal = whole(
        "Rankings at a sitting",
        "What a labeler sets out to do, with how far they are. 0: no goal.",
        0,
        500,
    )
    gold_rate = share(
        "Share that is gold",
        "Of what a labeler is shown: quintets whose order is known. They cannot tell.",
    )
    repeat_rate = share(
        "Share that is shown again", "Quintets that the labeler has ranked before, in another order."
    )
    gold_pass = share(
        "Least share of gold pairs that are right",
        "Below it, after five of them, follows what is said below.",
    )
    repeat_pass = share(
        "Least share of pairs ranked the same way twice", "People differ from themselves; be mild."
    )
    practice_pass = share("Least share of practice pairs that are right", "Below it the work does not begin.")

    SECTIONS = (
        ("Who ranks how much", ("overlap", "wider_share", "wider_overlap")),
        ("What comes next", ("queue", "random_share", "keep_waiting")),
        ("What labelers see and may say", ("ties", "acceptable", "rendered", "session_goal")),
        ("Hidden checks", ("gold_rate", "gold_pass", "repeat_rate", "repeat_pass", "checks")),
        ("Practice", ("practice", "practice_pass")),
        ("Policy runs", ("fooled",)),
    )

    class Meta(ProjectForm.Meta):
        fields = [
            *ProjectForm.Meta.fields,
            *("wider_overlap", "wider_share", "queue", "random_share", "ties", "acceptable", "rendered"),
            *("session_goal", "gold_rate", "repeat_rate", "checks", "gold_pass", "repeat_pass"),
            *("practice", "practice_pass", "fooled"),
        ]
        labels = ProjectForm.Meta.labels | {
            "queue": "Quintets are served",
            "ties": "Ties are allowed",
            "acceptable": "Labelers draw an “acceptable above this line”",
            "rendered": "Prompts and rollouts are shown as Markdown",
            "checks": "Who falls below what is asked here",
            "practice": "New labelers practise first",
            "fooled": "A policy run whose reward model a probe fools",
        }
        help_texts = ProjectForm.Meta.help_texts | {
            "queue": "A change puts all that waits into the new order. What somebody reads stays theirs.",
            "ties": "Two rollouts may share a rank. Without ties a labeler has to decide.",
            "acceptable": "Besides the order, down to which rank the rollouts are good enough to be used.",
            "rendered": "Headings, lists and code are set, instead of shown as they were written.",
            "checks": "A pause lasts until you let them rank again. In any case you see their scores.",
            "practice": "They rank the practice quintets and are told how they did and why. Nothing is asked "
            "while there are none.",
            "fooled": "A probe is an answer known to be bad. One that scores above the median real rollout "
            "is a hole that the policy would find.",
        }

    def __init__(self, by: User, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not by.is_staff:
            # A folder of the server is a matter for those who run it.
            ways = self.fields["start_from"].choices
            self.fields["start_from"].choices = [way for way in ways if way[0] != FOLDER]

    @property
    def sections(self) -> list[tuple[str, list[forms.BoundField]]]:
        return [(title, [self[name] for name in names]) for title, names in self.SECTIONS]

    def clean(self) -> dict:
        data = super().clean()
        overlap, wider = data.get("overlap"), data.get("wider_overlap")
        if overlap and wider and wider < overlap:
            self.add_error("wider_overlap", f"At least as many as rank every other quintet: {overlap}.")
        if data.get("gold_rate", 0) + data.get("repeat_rate", 0) > 0.5:
            self.add_error("repeat_rate", "More than half of what labelers see would be checks.")
        return data

    @transaction.atomic
    def apply(self, project: Project, by: User) -> None:
        """Change `project`, which is not the instance that this form has written into already."""
        settings = {name: self.cleaned_data[name] for name in self.Meta.fields if name != "guidelines"}
        project.change(by, start=self.start_of(project), **settings)
        project.revise_guidelines(self.cleaned_data["guidelines"], by)


def location_of_folder(folder: str) -> str:
    """The location of a policy saved in `folder`, relative to the home where it lies there; refused if there
    is none. Its weights are not read: a run does that."""
    odd = any(unicodedata.category(letter).startswith("C") for letter in folder)
    if not folder or odd or ".." in Path(folder).parts or folder.startswith(("~", "hub:")):
        raise forms.ValidationError("Write the whole path of the folder, without .. or ~.")
    path = (settings.HOME / folder).resolve()
    try:
        files = {each.name for each in path.iterdir()}
        said = json.loads((path / "config.json").read_text()) if "config.json" in files else None
    except OSError:
        raise forms.ValidationError("There is no such folder on this server, or it cannot be read.") from None
    except ValueError:
        raise forms.ValidationError("Its config.json is not JSON.") from None
    if not isinstance(said, dict):
        raise forms.ValidationError("There is no config.json in it: it is not a saved model.")
    if any(name.endswith("ForSequenceClassification") for name in said.get("architectures") or ()):
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
