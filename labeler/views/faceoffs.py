"""Face-offs: people decide between checkpoints, without knowing which is which. Launching one, what people
say so far, stopping, shipping. For the project's admins.

What may happen to a face-off is said in labeler/models/faceoffs.py, what its rankings say in
labeler/preferences.py."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import faceoff_pictures, preferences
from labeler.access import admin_required
from labeler.models import Checkpoint, Faceoff, Project, Ranking, Run
from labeler.models.faceoffs import FEWEST_QUINTETS, MOST_QUINTETS, FaceoffRefused, with_start
from labeler.models.quintets import MOST
from labeler.numbers import whole
from labeler.simulated import have_an_opinion
from labeler.strengths import power
from rlhf.config import Refused

LATELY = 200  # rankings, of which the median says how long one takes


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user).select_related("start"), slug=slug)


def _faceoff(request: HttpRequest, slug: str, number: int) -> Faceoff:
    found = Faceoff.objects.told().filter(project__in=Project.objects.run_by(request.user))
    return get_object_or_404(found, project__slug=slug, number=number)


class FaceoffForm(forms.Form):
    """Which checkpoints besides the starting model, and how many quintets."""

    checkpoints = forms.ModelMultipleChoiceField(
        Checkpoint.objects.none(), error_messages={"required": "Choose a checkpoint."}
    )
    quintets = forms.IntegerField(
        required=False,
        min_value=FEWEST_QUINTETS,
        max_value=MOST_QUINTETS,
        label="Quintets",
        widget=forms.NumberInput({"inputmode": "numeric"}),
    )

    def __init__(self, project: Project, data: Any = None, run: Run | None = None):
        self.project, self.run = project, run
        super().__init__(data, label_suffix="")
        field: Any = self.fields["checkpoints"]
        policies = Checkpoint.objects.open_to([project]).filter(kind="policy")
        # What came with the project stands in by itself while the project starts from it.
        field.queryset = policies.exclude(pk=project.start_id, run=None).select_related("run__start")
        self.initial["checkpoints"] = [each.pk for each in spread(run)] if run else []

    @property
    def chosen(self) -> list[Checkpoint]:
        """What is ticked at this moment, whether or not it would do."""
        ticked = self.data.getlist("checkpoints") if self.is_bound else self.initial["checkpoints"]
        numbers = [whole(str(each)) for each in ticked]
        field: Any = self.fields["checkpoints"]
        return list(field.queryset.filter(pk__in=numbers))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The checkpoints by the run that wrote them, the newest first, with the reward at their steps."""
        field: Any = self.fields["checkpoints"]
        ticked = {each.pk for each in self.chosen}
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        runs: dict[int, Run | None] = {}
        for each in field.queryset.order_by("-run_id", "step", "pk"):
            runs[each.run_id or 0] = each.run
            reward = preferences.at_step(each.run, each.step or 0)
            found[each.run_id or 0].append(
                {"checkpoint": each, "reward": reward, "ticked": each.pk in ticked}
            )
        mine = self.run.pk if self.run else None
        groups = [{"run": runs[pk], "rows": rows, "mine": pk == mine} for pk, rows in found.items()]
        for number, group in enumerate(sorted(groups, key=lambda each: not each["mine"])):
            group["open"] = number == 0 or any(row["ticked"] for row in group["rows"])
        return sorted(groups, key=lambda each: not each["mine"])

    @property
    def sums(self) -> dict[str, Any]:
        """What the choice comes to; or what is wrong with it, in words."""
        try:
            start, others = with_start(self.project, self.chosen)
        except FaceoffRefused as refused:
            return {"refused": str(refused)}
        told = power(1 + len(others))
        wanted = max(0, whole(self.data.get("quintets"))) if self.is_bound else 0
        quintets = wanted or told.quintets()
        prompts, places = self.project.prompts.count(), quintets * self.project.overlap
        seconds = _seconds(self.project)
        return {
            "start": start,
            "others": others,
            "power": told,
            "quintets": quintets,
            "seen": told.seen(quintets) if wanted and wanted < MOST_QUINTETS * 10 else None,
            "rankings": places,
            "time": seconds and seconds * places,
            "prompts": prompts,
            "again": quintets > prompts > 0,
        }

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if self.errors:
            return given
        try:
            others = with_start(self.project, given["checkpoints"])[1]
        except FaceoffRefused as refused:
            self.add_error("checkpoints", str(refused))
            return given
        return given | {"quintets": given["quintets"] or power(1 + len(others)).quintets()}

    def launched(self, by: Any) -> Faceoff | None:
        if not self.is_valid():
            return None
        given = self.cleaned_data
        try:
            return Faceoff.objects.launch(self.project, given["checkpoints"], given["quintets"], by)
        except (FaceoffRefused, Refused) as refused:
            self.add_error(None, str(refused))
            return None


def spread(run: Run) -> list[Checkpoint]:
    """As many of a run's checkpoints as fit beside the starting model: the suggested one, the last one, and
    others evenly between."""
    steps = list(run.checkpoints.filter(kind=Checkpoint.Kind.POLICY).order_by("step"))
    if len(steps) < MOST:
        return steps
    wanted = [each for each in steps if each.suggested][-1:]
    wanted += [each for each in steps[-1:] if each not in wanted]
    left, more = [each for each in steps if each not in wanted], MOST - 1 - len(wanted)
    return wanted + [left[round((number + 0.5) * len(left) / more - 0.5)] for number in range(more)]


def _seconds(project: Project) -> float | None:
    """What a ranking by a person takes here, by the clock."""
    lately = Ranking.objects.work().by_people().filter(quintet__project=project, seconds__isnull=False)
    took = lately.order_by("-pk").values_list("seconds", flat=True)[:LATELY]
    return median(known) if (known := [each for each in took if each is not None]) else None


@admin_required
@require_safe
def faceoffs(request: HttpRequest, slug: str) -> HttpResponse:
    """Every face-off of the project, and what people said: the project's history as they see it."""
    project = _project(request, slug)
    found = project.faceoffs.told().order_by("-number")
    could = Checkpoint.objects.filter(project=project, kind="policy").exclude(pk=project.start_id).exists()
    context = {"project": project, "faceoffs": found, "could": could}
    return render(request, "faceoffs/faceoffs.html", context)


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    sent = request.POST if request.method == "POST" else request.GET if request.htmx else None
    run = project.runs.filter(pk=whole(request.GET.get("run"))).first()
    form = FaceoffForm(project, sent, run)
    if request.method == "POST" and (faceoff := form.launched(request.user)):
        return redirect("faceoff", slug, faceoff.number)
    context = {"project": project, "form": form, "most": MOST - 1}
    template = "faceoffs/new.html#sums" if request.htmx and request.method == "GET" else "faceoffs/new.html"
    return render(request, template, context, status=422 if request.method == "POST" else 200)


@admin_required
@require_safe
def faceoff(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    found = _faceoff(request, slug, number)
    told = preferences.of(found)
    shown = [each for each in told.values() if each.rankings]
    context = {
        "project": found.project,
        "faceoff": found,
        "state": found.state,
        "progress": found.progress(),
        "told": [(each, faceoff_pictures.strengths(each.rows)) for each in shown],
        "people": told["people"],
        "proposed": _proposed(found, shown),
        "alarms": preferences.alarms(found, told).values(),
        "power": power(len(found.checkpoints)),
        "opinions": have_an_opinion(found.project),
        "live": found.state in ("sampling", "composing", "asking"),
    }
    template = "faceoffs/faceoff.html"
    return render(request, f"{template}#live" if request.htmx else template, context)


def _proposed(found: Faceoff, told: Iterable[preferences.Preferences]) -> preferences.Row | None:
    """What the button ships: the one that people like best; that simulated labelers do, where no person
    ranked. None where that is what the project starts from."""
    best = next((each.best for each in told), None)
    return best if best and best.checkpoint.pk != found.project.start_id else None


@admin_required
@require_POST
def stop(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Ask no further; or (`undo`) ask on."""
    found = _faceoff(request, slug, number)
    if "undo" in request.POST:
        try:
            found.go_on(request.user)
            messages.success(request, "It goes on, and does not stop by itself any more.")
        except Refused as refused:
            messages.error(request, str(refused))
    else:
        found.stop(request.user, f"Stopped by {request.user}.")
        messages.success(request, "Nobody more is asked. You can go on with it.")
    return redirect("faceoff", slug, number)


@admin_required
@require_POST
def again(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Sample anew what came to nothing."""
    found = _faceoff(request, slug, number)
    try:
        found.again(request.user)
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("faceoff", slug, number)


@admin_required
@require_POST
def ship(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Make a checkpoint of it the project's starting model; or (`undo`) take that back."""
    found = _faceoff(request, slug, number)
    pk = whole(request.POST.get("checkpoint"))
    try:
        if "undo" in request.POST:
            found.unship(request.user)
            messages.success(request, f"Taken back: the project starts from {found.project.start} again.")
        else:
            chosen = next((each for each in found.checkpoints if each.pk == pk), None)
            if chosen is None:
                raise FaceoffRefused("Choose one of the checkpoints of this face-off.")
            found.ship(chosen, request.user)
            messages.success(request, f"Shipped: the next round starts from {chosen}. You can take it back.")
    except FaceoffRefused as refused:
        messages.error(request, str(refused))
    return redirect("faceoff", slug, number)
