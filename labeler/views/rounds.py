"""The rounds of a project: what is in each, what was made of it, and closing one. Admins of the project.

What closing means is said in labeler/models/rounds.py."""

from collections import defaultdict
from dataclasses import dataclass, field

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from labeler.access import admin_required
from labeler.models import Place, Project, Purpose, Ranking, Round, Run
from labeler.models.rounds import RoundRefused


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

    @property
    def chain(self) -> list[tuple[str, list[Run]]]:
        """What the loop made of it, in the loop's order."""
        kinds = (Run.Kind.ROLLOUTS, Run.Kind.SFT, Run.Kind.REWARD, Run.Kind.EVALUATION, Run.Kind.POLICY)
        return [(str(kind.label), self.runs[kind]) for kind in kinds if self.runs[kind]]


@admin_required
@require_safe
def rounds(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    Round.objects.current(project)  # a new project has its first round as soon as somebody looks
    return render(request, "rounds/rounds.html", {"project": project, "rounds": contents(project)})


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
    newest, *earlier = found.values()
    if earlier and not newest.quintets and not newest.runs:
        earlier[0].reopens = True
    return list(found.values())
