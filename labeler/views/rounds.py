"""The rounds of a project: where the open one stands, stage by stage, and what moves it on; what is in each,
what was made of it, and closing one. Admins of the project.

What closing means is said in labeler/models/rounds.py, what the stages are in labeler/round_stages.py, and
what their buttons do in labeler/backbone.py."""

from collections import defaultdict
from dataclasses import dataclass, field

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from labeler import backbone
from labeler.access import admin_required
from labeler.models import Faceoff, Place, Project, Purpose, Ranking, Request, Round, Run
from labeler.models.faceoffs import FaceoffRefused
from labeler.models.rounds import RoundRefused
from labeler.round_stages import Backbone
from labeler.simulated import have_an_opinion
from rlhf.config import Refused


@dataclass
class Contents:
    """A round with its numbers, and the runs that belong to it by kind, the newest first."""

    round: Round
    quintets: int = 0
    left: int = 0  # places that still wait, or that nobody took before the round was closed
    people: int = 0  # rankings
    programs: int = 0
    labelers: int = 0
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    reopens: bool = False
    shipped: list[Faceoff] = field(default_factory=list)

    @property
    def chain(self) -> list[tuple[str, list[Run]]]:
        """What the loop made of it, in the loop's order."""
        kinds = (Run.Kind.ROLLOUTS, Run.Kind.SFT, Run.Kind.REWARD, Run.Kind.EVALUATION, Run.Kind.POLICY)
        return [(str(kind.label), self.runs[kind]) for kind in kinds if self.runs[kind]]


@admin_required
@require_safe
def rounds(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user).select_related("start"), slug=slug)
    round = Round.objects.current(project)  # a new project has its first round as soon as somebody looks
    round.project = project
    asked = project.requests.filter(kind=Request.Kind.SIMULATE).first()
    found = Backbone(round)
    context = {
        "project": project,
        "round": round,
        "stages": found.stages,
        "now": found.now.name,
        "simulating": asked,
        "opinions": project.simulated_labelers or have_an_opinion(project),
    }
    context["live"] = (
        round.whole
        or bool(asked and asked.is_live)
        or any(stage.state == "live" for stage in context["stages"])
    )
    if request.htmx:
        return render(request, "rounds/rounds.html#backbone", context)
    return render(request, "rounds/rounds.html", context | {"rounds": contents(project)})


@admin_required
@require_POST
def go(request: HttpRequest, slug: str, number: int, stage: str) -> HttpResponse:
    """Press a stage's button: launch it, or say that it has come to enough; `undo` takes that back."""
    round = _round(request, slug, number)
    try:
        if "undo" in request.POST:
            backbone.take_back(round, stage, request.user)
        elif "pass" in request.POST:
            backbone.decide(round, stage, request.user)
        else:
            messages.success(request, backbone.launch(round, stage, request.user))
    except (backbone.NotNow, Refused, FaceoffRefused) as refused:
        messages.error(request, str(refused))
    return redirect("rounds", slug)


@admin_required
@require_POST
def whole(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Let the round launch stage after stage by itself; or (`off`) no more."""
    round, on = _round(request, slug, number), "off" not in request.POST
    try:
        round.run_whole(request.user, on)
    except RoundRefused as refused:
        messages.error(request, str(refused))
    else:
        if on:
            backbone.advance(round)
    return redirect("rounds", slug)


@admin_required
@require_POST
def simulate(request: HttpRequest, slug: str) -> HttpResponse:
    """Switch the simulated labelers in, which lets them rank what waits; or (`off`) out."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    on = "off" not in request.POST
    project.change(request.user, simulated_labelers=on)
    if on:
        Request.objects.ask_to_simulate(project, request.user)
    return redirect("rounds", slug)


@admin_required
@require_POST
def close(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    round = _round(request, slug, number)
    try:
        following = round.close(request.user)
    except RoundRefused as refused:
        messages.error(request, str(refused))
    else:
        words = f"Round {number} is closed and round {following.number} has begun."
        messages.success(request, f"{words} You can reopen round {number} while that one is empty.")
    return redirect("rounds", slug)


@admin_required
@require_POST
def reopen(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    round = _round(request, slug, number)
    try:
        round.reopen(request.user)
    except RoundRefused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, f"Round {number} is open again: what was left in it waits for labelers.")
    return redirect("rounds", slug)


def _round(request: HttpRequest, slug: str, number: int) -> Round:
    found = Round.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    return get_object_or_404(found.select_related("project"), number=number)


def contents(project: Project) -> list[Contents]:
    """Every round of the project with what is in it, the newest first; five queries for any number."""
    found = {each.pk: Contents(each) for each in project.rounds.order_by("-number")}
    quintets = project.quintets.filter(purpose=Purpose.WORK).order_by().values("round")
    for row in quintets.annotate(quintets=Count("pk")):
        found[row["round"]].quintets = row["quintets"]
    places = Place.objects.filter(project=project, purpose=Purpose.WORK).order_by()
    # In an open round a place that is done without a labeler is one too many, closed by the settings.
    left = Q(done=False) | Q(labeler=None, quintet__round__closed_at__isnull=False)
    for each in places.filter(left).values("quintet__round").annotate(left=Count("pk")):
        found[each["quintet__round"]].left = each["left"]
    people = Q(simulated=False)
    rankings = Ranking.objects.work().filter(quintet__project=project).order_by().values("quintet__round")
    for many in rankings.annotate(
        people=Count("pk", filter=people),
        programs=Count("pk", filter=~people),
        labelers=Count("labeler", filter=people, distinct=True),
    ):
        one = found[many["quintet__round"]]
        one.people, one.programs, one.labelers = many["people"], many["programs"], many["labelers"]
    for run in project.runs.filter(round__in=found).defer("log_tail", "cursors").order_by("-pk"):
        assert run.round_id
        found[run.round_id].runs[run.kind].append(run)
    for faceoff in project.faceoffs.exclude(shipped=None).select_related("shipped").order_by("number"):
        found[faceoff.round_id].shipped.append(faceoff)
    newest, *earlier = found.values()
    if earlier and not newest.quintets and not newest.runs:
        earlier[0].reopens = True
    return list(found.values())
