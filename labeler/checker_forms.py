"""The forms of a checker: which one, with which options; and answers to try it on.

What a checker's options are, and which values it takes, is said by rlhf; what was typed comes back as it was
typed. Left out: what a change entails (`Project.change`)."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.db.models import Q

from labeler import checking
from labeler.models import Checkpoint, Project, Prompt, User
from labeler.numbers import whole
from labeler.setting_fields import field_of
from labeler.templatetags.words import plain
from rlhf import checkers, config, data

LONGEST = 100_000  # characters of what is tried
MOST = 100  # answers that are tried at once
OFFERED = 100  # prompts to choose from
ITS_MODEL = "judge_model"


class CheckerForm(forms.Form):
    """The checker's name, its options under their own names, and of a judge its model."""

    def __init__(self, project: Project, name: str, data: Mapping[str, Any] | None = None):
        self.project, self.name = project, name
        self.options = checkers.options(name)
        known = project.checker_options if name == project.checker_name else {}
        usual = {each.name: each.default for each in self.options} | known
        said = {key: plain(value) if isinstance(value, float) else value for key, value in usual.items()}
        super().__init__(data, initial=said | {ITS_MODEL: project.judge_model_id}, label_suffix="")
        for option in self.options:
            self.fields[option.name] = field_of(option)
        if name not in config.RULES:
            self.fields[ITS_MODEL] = forms.ModelChoiceField(
                judges(project),
                empty_label=None if judges(project).exists() else "there is none in this project yet",
                label="Model that judges",
                help_text="Any language model that is a folder here, best one that is none of the policy's.",
                error_messages={"required": "A judge needs a model: there is none in this project yet."},
            )

    def clean(self) -> dict[str, Any]:
        given = {each.name: self.cleaned_data.get(each.name) for each in self.options}
        refused: set[str] = set()
        while True:  # every refusal at once
            try:
                self.made = checkers.make(
                    self.name, {key: each for key, each in given.items() if key not in refused}
                )
                break
            except config.Refused as bad:
                field = bad.field if bad.field in self.fields else None
                self.add_error(field, bad.message)
                if bad.field not in given or bad.field in refused:
                    break
                refused.add(bad.field)
        return self.cleaned_data

    def save(self, by: User) -> None:
        """Change the project's checker; what was is in the audit, and every reference is tried again."""
        options = {each.name: getattr(self.made, each.name) for each in self.options}
        usual = {each.name: each.default for each in self.options}
        differing = {name: value for name, value in options.items() if value != usual[name]}
        model = self.cleaned_data.get(ITS_MODEL, self.project.judge_model)
        changes = {"checker": {"name": self.name, **differing}, ITS_MODEL: model}
        self.project.change(by, judge=Project.Judge.CHECKER, **changes)

    @property
    def simple(self) -> list[forms.BoundField]:
        named = [each.name for each in self.options if not each.advanced]
        return [self[name] for name in ([ITS_MODEL] if ITS_MODEL in self.fields else []) + named]

    @property
    def advanced(self) -> list[forms.BoundField]:
        return [self[each.name] for each in self.options if each.advanced]


def judges(project: Project):
    """The language models that may judge here: policies that lie in a folder."""
    found = Checkpoint.objects.open_to([project]).filter(kind=Checkpoint.Kind.POLICY)
    return found.exclude(location__startswith="hub:").order_by("-suggested", "-pk")


class TryForm(forms.Form):
    """Answers to try the checker on, to a prompt of the project or against a reference of one's own."""

    prompt = forms.ModelChoiceField(
        Prompt.objects.none(), required=False, label="Prompt", empty_label="none: against the reference below"
    )
    reference = forms.CharField(
        required=False,
        max_length=LONGEST,
        label="Right answer",
        help_text="Empty: the answer of the prompt.",
        widget=forms.TextInput({"autocomplete": "off", "dir": "auto"}),
    )
    answers = forms.CharField(
        strip=False,
        max_length=LONGEST,
        label="Answer",
        widget=forms.Textarea({"rows": 5, "dir": "auto", "spellcheck": "false"}),
        error_messages={"required": "Paste an answer to try it on."},
    )
    each_line = forms.BooleanField(required=False, label="Each line is an answer of its own")

    def __init__(self, project: Project, *args: Any, **kwargs: Any):
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["answers"].error_messages["max_length"] = (
            f"That is more than {LONGEST:,} characters: try fewer answers at once."
        )
        offered = project.prompts.answered().order_by("pk")
        first = offered.values_list("pk", flat=True)[:OFFERED]
        chosen = whole(str(self.data.get("prompt") or self.initial.get("prompt")))
        self.fields["prompt"].queryset = offered.filter(Q(pk__in=list(first)) | Q(pk=chosen))
        self.fields["prompt"].label_from_instance = lambda each: f"{str(each)[:70]} ({each.answer[:20]})"

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        prompt, reference = given.get("prompt"), given.get("reference") or ""
        if not reference and not prompt and not self.errors:
            self.add_error("reference", "Say the right answer, or choose a prompt that has one.")
        text = (given.get("answers") or "").replace("\r\n", "\n")
        found = [each for each in text.split("\n") if each.strip()] if given.get("each_line") else [text]
        if len(found) > MOST:
            self.add_error("answers", f"These are {len(found):,} answers: try at most {MOST} at once.")
        asked = data.prompt_text(prompt.content) if prompt else ""
        right = reference or (prompt.answer if prompt else "")
        self.items = [{"prompt": asked, "answer": each, "reference": right} for each in found]
        return given

    def verdicts(self, project: Project) -> list[dict[str, Any]]:
        """What the checker says at once; only where it is quick. Raises Refused."""
        return checking.rule(project)(self.items)
