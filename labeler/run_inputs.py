"""What a run starts from, as fields of its launch form: checkpoints, a dataset, and which rows go into it.

Which values are good, and launching itself, is the matter of forms.py and models/launching.py."""

from typing import Any

from django import forms
from django.db.models import Case, QuerySet, Value, When

from labeler.models import Checkpoint, Dataset, Origin, Project, Ranking, Run
from labeler.models.demonstrations import DemonstrationQuerySet, told
from labeler.templatetags.words import count

NOW = "now"  # the dataset that is frozen from the project's rows at the moment of the launch

INPUTS = {
    "rollouts": ["start"],
    "sft": ["start", "dataset", "origins"],
    "reward": ["start", "dataset", "simulated"],
    "policy": ["start", "reward_model", "against"],
    "evaluation": ["reward_model", "against", "dataset", "simulated"],
}


class CheckpointField(forms.ModelChoiceField):
    """The project's checkpoints of one kind, and those that belong to every project; the likeliest first."""

    def __init__(self, project: Project, kind: str, **kwargs: Any):
        self.project = project
        first = Case(When(pk=project.start_id, then=Value(0)), default=Value(1))
        found = Checkpoint.objects.open_to([project]).filter(kind=kind)
        found = found.order_by(first, "-suggested", "-pk")
        likeliest = found.values_list("pk", flat=True).first if kwargs.get("required", True) else None
        super().__init__(found, **{"empty_label": None, "initial": likeliest} | kwargs)

    def label_from_instance(self, checkpoint: Checkpoint) -> str:
        return checkpoint.named_in(self.project)


class InputsForm(forms.Form):
    """The fields by the names in INPUTS; whoever builds on it says of which project and which kind of run."""

    project: Project
    kind: str

    @property
    def checked(self) -> bool:
        """Whether a checker says what is good of what this run writes."""
        return self.kind == Run.Kind.POLICY and self.project.is_checked

    def _start_field(self) -> forms.Field:
        helps = {
            "reward": "The model that the reward model begins as; the project's start is a good choice.",
            "rollouts": "The model that writes.",
        }
        return CheckpointField(
            self.project,
            Checkpoint.Kind.POLICY,
            label="Starting checkpoint",
            help_text=helps.get(self.kind, "The model that is trained further; it stays as it is."),
            error_messages={
                "required": "There is no checkpoint to start from: the project needs a starting model."
            },
        )

    def _reward_model_field(self) -> forms.Field:
        if self.checked:
            return CheckpointField(
                self.project,
                Checkpoint.Kind.REWARD,
                label="Reward model beside the checker",
                help_text="Its reward is added to the checker's, and with it comes the cap on the steps.",
                required=False,
                empty_label="none: the checker alone says what is good",
            )
        return CheckpointField(
            self.project,
            Checkpoint.Kind.REWARD,
            label="Reward model",
            help_text="The simulator of the people who ranked: it says what is good.",
            error_messages={"required": "There is no reward model yet: train one from rankings first."},
        )

    def _against_field(self) -> forms.Field | None:
        if self.kind == Run.Kind.POLICY:
            return self._imitation_field() if self.checked else None
        return CheckpointField(
            self.project,
            Checkpoint.Kind.REWARD,
            label="Compare it with",
            help_text="A second reward model, measured on the same rankings, with a test of the difference.",
            required=False,
            empty_label="nothing: measure it alone",
        )

    def _imitation_field(self) -> forms.Field:
        """The newest checkpoint that was shown worked solutions, unless practice begins with it anyway."""
        field = CheckpointField(
            self.project,
            Checkpoint.Kind.POLICY,
            label="Held against",
            help_text="A checkpoint that was shown worked solutions: its accuracy is drawn as a dashed line.",
            required=False,
            empty_label="nothing",
        )
        field.queryset = field.queryset.exclude(location__startswith="hub:")
        begins = self.initial.get("start") or self.project.start_id
        start = field.queryset.filter(pk=begins).first() if str(begins or "").isdecimal() else None
        imitation = Checkpoint.objects.imitation_of(self.project, start) if start else None
        field.initial = imitation.pk if imitation else None
        return field

    def _dataset_field(self) -> forms.Field:
        now = "All demonstrations now" if self.kind == "sft" else "All rankings now"
        frozen = [(str(each.pk), _described(each)) for each in self._datasets()]
        return forms.ChoiceField(
            choices=[(NOW, now), *frozen],
            initial=NOW,
            label="Dataset",
            help_text=f"A frozen one, or one that is frozen at the launch. Now: {self.supply()}.",
        )

    def _simulated_field(self) -> forms.Field:
        people, simulated = self.rankings
        return forms.BooleanField(
            required=False,
            initial=bool(simulated and not people),
            label="Include simulated rankings",
            help_text="They stay out where people have ranked, unless you ask for them; and are counted apart"
            " wherever they are used.",
        )

    def _origins_field(self) -> forms.Field | None:
        """Which demonstrations, where there are several sorts of them."""
        counts = self.demonstrations.by_origin()
        if len(counts) < 2:
            return None
        return forms.MultipleChoiceField(
            choices=[(name, f"{Origin(name).label}: {many:,}") for name, many in counts.items()],
            initial=list(counts),
            required=False,
            label="Of all demonstrations now, those that were",
            widget=forms.CheckboxSelectMultiple,
            help_text="The dataset and the run say how many of each they hold.",
        )

    @property
    def demonstrations(self) -> DemonstrationQuerySet:
        return self.project.demonstrations.all().counted()

    @property
    def origins(self) -> list[str]:
        """Those that are ticked; none of them where all are, or there is nothing to choose."""
        if "origins" not in self.fields:
            return []
        chosen, offered = self["origins"].value() or [], list(self.demonstrations.by_origin())
        return [] if set(chosen) >= set(offered) else [name for name in offered if name in chosen]

    @property
    def none_ticked(self) -> bool:
        return "origins" in self.fields and self.is_bound and not self["origins"].value()

    def _datasets(self) -> QuerySet[Dataset]:
        learnt = [Dataset.Kind.DEMONSTRATIONS, Dataset.Kind.DOCUMENTS]
        return self.project.datasets.filter(
            kind__in=learnt if self.kind == "sft" else [Dataset.Kind.RANKINGS]
        )

    def supply(self) -> str:
        """What a dataset frozen now could hold, in words."""
        if self.kind == "sft":
            counts = self.demonstrations.by_origin()
            said = count(sum(counts.values()), "demonstration")
            return f"{said}: {told(counts)}" if set(counts) - {Origin.WRITTEN} else said
        people, simulated = self.rankings
        said = f"{count(people, 'ranking')} by people"
        return f"{said} and {simulated:,} simulated" if simulated else said

    @property
    def rankings(self) -> tuple[int, int]:
        """By people, and simulated."""
        found = Ranking.objects.filter(quintet__project=self.project).counted()
        return found.by_people().count(), found.filter(simulated=True).count()


def _described(dataset: Dataset) -> str:
    if dataset.kind == Dataset.Kind.RANKINGS:
        parts = [f"{dataset.lines - dataset.simulated:,} by people", f"{dataset.simulated:,} simulated"]
    elif dataset.kind == Dataset.Kind.DOCUMENTS:
        parts = [count(dataset.lines, "document")]
    else:
        parts = [told(dataset.origins or {"demonstrations": dataset.lines})]
    parts = [f"Dataset {dataset.pk}", *parts]
    return " · ".join([*parts, dataset.sha256[:8]])
