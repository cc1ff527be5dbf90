"""The two forms of taking out: which rankings a dataset is frozen from, and which file is wanted.

Both are read from an address as well, so that a count or a preview follows what is being chosen."""

from collections.abc import Mapping
from typing import Any

from django import forms

from labeler.datasets.exports import FILES, Export
from labeler.datasets.formats import FORMATS, Options
from labeler.datasets.query import Query, only_simulated
from labeler.models import Dataset, Project, Purpose, Quintet, Ranking
from labeler.templatetags.words import count


class FreezeForm(forms.Form):
    """A query. What the project has none of (rounds, labelers, gold quintets …) is not asked for."""

    since = forms.DateField(
        required=False, label="Made on or after", widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )
    until = forms.DateField(
        required=False, label="Made on or before", widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )
    agreement = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=100,
        label="Least agreement in a quintet, in %",
        help_text="Of the pairs that two labelers decide. A quintet that one labeler ranked has none.",
        widget=forms.NumberInput({"placeholder": "any"}),
    )
    rounds = forms.TypedMultipleChoiceField(
        required=False, coerce=int, label="Rounds", widget=forms.CheckboxSelectMultiple
    )
    labelers = forms.MultipleChoiceField(
        required=False, label="Labelers", widget=forms.CheckboxSelectMultiple, help_text="None chosen: all."
    )
    reviewed = forms.BooleanField(required=False, label="Reviewed quintets only")
    surplus = forms.BooleanField(required=False, initial=True, label="Surplus rankings too")
    simulated = forms.BooleanField(required=False, label="Simulated rankings too")
    gold = forms.BooleanField(required=False, label="Rankings of gold quintets too")
    practice = forms.BooleanField(required=False, label="Rankings made in practice too")
    harvest = forms.BooleanField(required=False, initial=True, label="What was confirmed of a harvest too")

    def __init__(self, project: Project, data: Mapping[str, Any] | None = None):
        super().__init__(data, label_suffix="")
        self.project = project
        numbers = list(project.rounds.values_list("number", flat=True))
        self.fields["rounds"].choices = [(number, f"Round {number}") for number in numbers]
        counted = Ranking.objects.filter(quintet__project=project).counted(*Purpose.values).order_by()
        named = counted.values_list("simulated", "labeler__username").distinct()
        names = {name: f"{name} (simulated)" if simulated else name for simulated, name in sorted(named)}
        self.fields["labelers"].choices = list(names.items())
        purposes = set(Quintet.objects.filter(project=project).values_list("purpose", flat=True).distinct())
        there = {
            "rounds": len(numbers) > 1,
            "labelers": len(names) > 1,
            "surplus": counted.filter(surplus=True).exists(),
            "simulated": counted.filter(simulated=True).exists(),
            "reviewed": project.quintets.filter(reviewed_at__isnull=False).exists(),
            **{each.value: each in purposes for each in (Purpose.GOLD, Purpose.PRACTICE, Purpose.HARVEST)},
        }
        for name in [name for name, is_there in there.items() if not is_there]:
            del self.fields[name]
        if "simulated" in self.fields:
            self.fields["simulated"].initial = only_simulated(project)

    @property
    def ticks(self) -> list[forms.BoundField]:
        return [field for field in self if isinstance(field.field, forms.BooleanField)]

    def query(self) -> Query:
        """What the form asks for; all that it offers at first while it is not filled in, or wrongly."""
        if not self.is_bound or not self.is_valid():
            return Query(simulated="simulated" in self.fields and bool(self.fields["simulated"].initial))
        said = {name: value for name, value in self.cleaned_data.items() if value not in (None, "", [])}
        for name in ("rounds", "labelers"):
            said[name] = tuple(said.get(name, ()))
        if "agreement" in said:
            said["agreement"] /= 100
        return Query(**said)


class DocumentsForm(forms.Form):
    """A file of plain documents."""

    file = forms.FileField(
        label="File of documents",
        help_text="JSON lines, each with a “text”; or one plain text, .txt or .md.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
        widget=forms.ClearableFileInput({"accept": ".jsonl,.txt,.md"}),
    )

    def __init__(self, *given: Any):
        super().__init__(*given, label_suffix="")


class TakeOutForm(forms.Form):
    """A format, a kind of file and how; of a dataset, or of all that the project has now."""

    format = forms.ChoiceField(
        choices=[(each.name, each.words) for each in FORMATS.values()],
        initial="ranked",
        required=False,
        widget=forms.RadioSelect,
    )
    file = forms.ChoiceField(
        label="File", required=False, initial="jsonl",
        choices=[("jsonl", "JSON lines (.jsonl)"), ("parquet", "Parquet"), ("csv", "CSV, for spreadsheets")],
    )  # fmt: skip
    consensus = forms.BooleanField(required=False, label="From each quintet's consensus")
    messages = forms.BooleanField(required=False, label="As messages of a chat")
    best = forms.BooleanField(required=False, label="Best-ranked rollouts instead of demonstrations")
    simulated = forms.BooleanField(required=False, label="Simulated rankings too")

    def __init__(
        self, project: Project, data: Mapping[str, Any] | None = None, dataset: Dataset | None = None
    ):
        super().__init__(data, label_suffix="")
        self.project, self.dataset = project, dataset
        if dataset:
            del self.fields["simulated"]  # it holds them or it does not
            of = [each for each in FORMATS.values() if Export(project, each, dataset=dataset).fits]
            self.fields["format"].choices = [(each.name, each.words) for each in of]
            self.fields["format"].initial = of[0].name
        if dataset and dataset.kind == Dataset.Kind.RANKINGS:
            del self.fields["best"]

    def export(self) -> Export | None:
        """None where somebody has made up an address."""
        if not self.is_bound:
            self = TakeOutForm(self.project, {}, self.dataset)
        if not self.is_valid():
            return None
        given = self.cleaned_data
        options = Options(**{name: given.get(name, False) for name in ("consensus", "messages", "best")})
        form = FORMATS[given["format"] or self.fields["format"].initial]
        query = Query(simulated=given.get("simulated", False))
        return Export(self.project, form, given["file"] or "jsonl", options, query, self.dataset)

    @property
    def ticks(self) -> list[forms.BoundField]:
        """Only those that the chosen format has."""
        chosen = self["format"].value() or self.fields["format"].initial
        mine = FORMATS[chosen].options if chosen in FORMATS else ()
        return [field for field in self if field.name in (*mine, "simulated")]


def summed(counts: Mapping[str, int]) -> str:
    """What a query would hold, in words."""
    by_people = counts["lines"] - counts["simulated"] - counts["harvested"]
    said = f"{count(by_people, 'ranking')} by people"
    if counts["harvested"]:
        said += f", {count(counts['harvested'], 'confirmed find')} of a harvest"
    if counts["simulated"]:
        said += f" and {counts['simulated']:,} simulated"
    return (
        f"{said}: {count(counts['quintets'], 'quintet')}, {count(counts['prompts'], 'prompt')}, "
        f"{count(counts['labelers'], 'labeler')}"
    )


__all__ = ["FILES", "DocumentsForm", "FreezeForm", "TakeOutForm", "summed"]
