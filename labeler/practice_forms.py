"""How many rollouts of a prompt somebody wants to see now, and by which checkpoint."""

from typing import Any

from django import forms

from labeler.models import Checkpoint, Project, Prompt, Request, User
from rlhf import config

MOST = 10_000
OFFERED = 50  # checkpoints, the newest


class SampleForm(forms.Form):
    checkpoint = forms.ChoiceField(label="Checkpoint")
    count = forms.IntegerField(
        label="Rollouts",
        min_value=1,
        max_value=MOST,
        initial=15,
        help_text="As many as 10,000; stop any time.",
    )
    temperature = forms.FloatField(min_value=0, max_value=2, help_text="Training samples with 1.")
    longest = forms.IntegerField(
        min_value=1, max_value=config.LONGEST_ROLLOUT, help_text="Tokens of an answer."
    )
    seed = forms.IntegerField(
        min_value=0, max_value=2**31 - 1, initial=0, help_text="The same seed says the same again."
    )

    def __init__(self, prompt: Prompt, given: Any = None, **more: Any):
        usual = prompt.project.defaults_of("policy", "rules")
        initial = {"temperature": usual["temperature"], "longest": usual["max_new_tokens"]}
        super().__init__(given, initial=initial | more.pop("initial", {}), label_suffix="", **more)
        self.prompt = prompt
        self.known = offered(prompt.project)
        names = {pk: each.named_in(prompt.project) for pk, each in self.known.items()}
        chosen: Any = self.fields["checkpoint"]
        chosen.choices = [(str(pk), name) for pk, name in names.items()]
        self.fields["temperature"].widget.attrs["step"] = "any"

    def ask(self, by: User) -> Request:
        said = self.cleaned_data
        checkpoint = self.known[int(said["checkpoint"])]
        question = {
            "checkpoint": checkpoint.pk,
            "name": checkpoint.name,
            "prompt": self.prompt.pk,
            "prompts": [self.prompt.content],
            "reference": self.prompt.answer,
            "count": said["count"],
            "temperature": said["temperature"],
            "max_new_tokens": said["longest"],
            "seed": said["seed"],
            "stream": "rollouts",
        }
        return Request.objects.ask(self.prompt.project, Request.Kind.SAMPLE, question, by)


def offered(project: Project) -> dict[int, Checkpoint]:
    """The newest of the project's policies first; its start last where it is older."""
    found = Checkpoint.objects.filter(project=project, kind=Checkpoint.Kind.POLICY).order_by("-pk")[:OFFERED]
    known = {each.pk: each for each in found.select_related("run")}
    if project.start and project.start.pk not in known:
        known[project.start.pk] = project.start
    return known
