"""Ranking: one quintet on one screen, and the next one in the answer to the last.

Which quintet is next, who holds it and what counts as a ranking is decided in labeler/models/quintets.py; the
page knows rollouts only by the letters A to E, in the order in which this labeler sees them."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from labeler.access import labeler_required
from labeler.models import Place, Project, Quintet, Ranking, Round, Run
from labeler.models.quintets import Ticket
from labeler.models.rankings import AlreadyRanked, RankingRefused

LETTERS = "abcde"
RANKS = {str(rank): rank for rank in range(1, len(LETTERS) + 1)}


@dataclass(frozen=True)
class Card:
    """A rollout as the page shows it: nothing here tells which slot, model or run it is from."""

    letter: str
    text: str
    rank: int | None


@labeler_required
@require_safe
def rank(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    place = Place.objects.next_for(request.user, project)
    if place is None and request.htmx and request.GET.get("state") == nothing_because(project):
        return HttpResponse(status=204)  # what the page says already: it waits on, and nothing moves
    return answer(request, project, place)


@labeler_required
@require_POST
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    ticket, note, status = None, "", 200
    try:
        ticket = Place.objects.redeem(request.POST.get("ticket", ""), request.user, project)
        ranking = ticket.place.quintet.record_ranking(
            request.user, ticket.place, ranks_sent(request, ticket), ticket.key, opened_at=ticket.opened_at
        )
        if ranking.surplus:
            note = "Others had finished that one meanwhile. Yours is kept beside theirs."
    except AlreadyRanked as settled:
        note, status = str(settled), 409 if type(settled) is AlreadyRanked else 422
    except RankingRefused as refused:
        if ticket:
            return answer(request, project, ticket.place, error=str(refused), status=422)
        note, status = str(refused), 422
    if not request.htmx and not note:
        return redirect("rank", slug=slug)
    return answer(request, project, Place.objects.next_for(request.user, project), note=note, status=status)


@labeler_required
@require_POST
def hold(request: HttpRequest, slug: str) -> HttpResponse:
    """The page is in use: the lease on what it shows begins anew."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    Place.objects.hold(request.user, project)
    return HttpResponse(status=204)


def ranks_sent(request: HttpRequest, ticket: Ticket) -> list[int | None]:
    """The ranks of a form, slot by slot; None where it gave none."""
    shown = ticket.place.rollouts_for(request.user)
    known = {f"rank-{letter}" for letter, _ in zip(LETTERS, shown, strict=False)}
    if any(name.startswith("rank-") and name not in known for name in request.POST):
        raise RankingRefused("A rank came for a rollout that is not one of these.")
    if any(request.POST[name] not in RANKS for name in known & request.POST.keys()):
        raise RankingRefused(f"A rank is a whole number from 1 to {len(shown)}.")
    ranks: list[int | None] = [None] * len(shown)
    for letter, rollout in zip(LETTERS, shown, strict=False):
        ranks[rollout.slot] = RANKS.get(request.POST.get(f"rank-{letter}", ""))
    return ranks


def nothing_because(project: Project) -> str:
    """Why nothing waits: it is being written, that came to nothing, all is ranked, or none ever was."""
    last = project.runs.filter(kind=Run.Kind.ROLLOUTS).first()
    if last and last.state in Run.LIVE:
        return "writing"
    kept_filled = project.judge == Project.Judge.PEOPLE and project.start_id and project.keep_waiting
    if kept_filled and Quintet.objects.waiting().filter(project=project).count() < project.keep_waiting:
        if last and last.state in (Run.State.FAILED, Run.State.CANCELLED):
            return "failed"
        if project.prompts.exists():
            return "writing"
    return "done" if project.quintets.exists() else "empty"


def answer(
    request: HttpRequest,
    project: Project,
    place: Place | None,
    *,
    error: str = "",
    note: str = "",
    status: int = 200,
) -> HttpResponse:
    """The page, or only its quintet for htmx; with `error`, what the labeler did stays as it was sent."""
    context: dict[str, Any] = {"project": project, "place": place, "error": error, "note": note}
    round = place.quintet.round if place else Round.objects.filter(project=project).last()
    if round:
        context |= {"round": round, "progress": Ranking.objects.progress(request.user, round)}
    if place:
        shown = place.rollouts_for(request.user)
        chosen = [RANKS.get(request.POST.get(f"rank-{letter}", "")) if error else None for letter in LETTERS]
        context["ticket"] = request.POST["ticket"] if error else place.ticket()
        context["cards"] = [
            Card(letter.upper(), rollout.text, rank)
            for letter, rollout, rank in zip(LETTERS, shown, chosen, strict=False)
        ]
        context["ranks"] = range(1, len(shown) + 1)
    else:
        context["state"] = nothing_because(project)
    template = "rank/rank.html#quintet" if request.htmx else "rank/rank.html"
    return render(request, template, context, status=status)
