"""Ranking: one quintet on one screen, and the next one in the answer to the last.

Which quintet is next, who holds it and what counts as a ranking is decided in the models (places.py,
quintets.py, rankings.py); what the page shows of it and what its form says, in labeler/cards.py. The page
knows rollouts only by the letters A to E. One's own recent rankings are here as well: they are the same page,
filled in."""

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler.access import labeler_required
from labeler.cards import Filled, cards, draft_of, filled_by, lesson, said, turns
from labeler.models import Faceoff, Place, Project, Purpose, Quintet, Ranking, Rollout, Round, Run, Skip
from labeler.models.rankings import AlreadyRanked, RankingRefused

TAKEN = "Others have taken that one meanwhile. Here is your next quintet."


def project_of(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


@labeler_required
@require_safe
def rank(request: HttpRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    place = Place.objects.next_for(request.user, project)
    if place is None and request.htmx and request.GET.get("state") == nothing_because(request, project):
        return HttpResponse(status=204)  # what the page says already: it waits on, and nothing moves
    return answer(request, project, place)


@labeler_required
@require_POST
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    project, filled = project_of(request, slug), dict(request.POST.lists())
    ticket, ranking, note, status = None, None, "", 200
    try:
        ticket = Place.objects.redeem(request.POST.get("ticket", ""), request.user, project)
        form = said(filled, ticket.place.rollouts_for(request.user), project)
        ranking = ticket.place.quintet.record_ranking(
            request.user, ticket.place, form.pop("ranks"), ticket.key, opened_at=ticket.opened_at, **form
        )
        note = (
            "Others had finished that one meanwhile. Yours is kept beside theirs." if ranking.surplus else ""
        )
    except AlreadyRanked as settled:
        note, status = str(settled), 409 if type(settled) is AlreadyRanked else 422
    except RankingRefused as refused:
        if ticket:
            return answer(request, project, ticket.place, filled=filled, error=str(refused), status=422)
        note, status = str(refused), 422
    if ranking and ranking.purpose == Purpose.PRACTICE:
        return feedback(request, project, ranking)
    if not request.htmx and not note:
        return redirect("rank", slug=slug)
    place = Place.objects.next_for(request.user, project)
    return answer(request, project, place, note=note, status=status, undo=ranking)


@labeler_required
@require_POST
def draft(request: HttpRequest, slug: str) -> HttpResponse:
    """What the labeler has done so far, kept for another day or another browser; the lease begins anew."""
    project = project_of(request, slug)
    try:
        place = Place.objects.redeem(request.POST.get("ticket", ""), request.user, project).place
        if place.keep_draft(request.user, draft_of(dict(request.POST.lists()))):
            place.renew()
    except RankingRefused as refused:
        return HttpResponse(str(refused), status=422, content_type="text/plain; charset=utf-8")
    return HttpResponse(status=204)


@labeler_required
@require_POST
def hold(request: HttpRequest, slug: str) -> HttpResponse:
    """The page is in use: the lease on what it shows begins anew."""
    Place.objects.hold(request.user, project_of(request, slug))
    return HttpResponse(status=204)


@labeler_required
@require_POST
def skip(request: HttpRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    skipped, note = None, ""
    try:
        left = Place.objects.redeem(request.POST.get("ticket", ""), request.user, project).place
        why = request.POST.get("note", "").replace("\0", "")
        skipped = left.skip(request.user, request.POST.get("reason", ""), why)
    except RankingRefused as refused:
        note = str(refused)
    if not request.htmx and not note:
        return redirect("rank", slug=slug)
    place, status = Place.objects.next_for(request.user, project), 422 if note else 200
    return answer(request, project, place, note=note, status=status, undo=skipped)


@labeler_required
@require_POST
def unskip(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Take a skip back, and show its quintet again where it still has a place for this labeler."""
    project = project_of(request, slug)
    skipped = get_object_or_404(request.user.skips.filter(quintet__project=project), pk=pk)
    return again(request, project, "" if skipped.take_back() else TAKEN)


@labeler_required
@require_POST
def undo(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Take a ranking back, and show its quintet again as it was ranked."""
    project = project_of(request, slug)
    ranking = get_object_or_404(mine_in(request, project), pk=pk)
    try:
        place = ranking.take_back(request.user)
    except RankingRefused as refused:
        return again(request, project, str(refused), status=422)
    if place:
        place.keep_draft(request.user, filled_by(ranking, place.rollouts_for(request.user)))
    if place and request.htmx:
        return again(request, project, "Taken back. Those before it are in “Your rankings”.")
    return again(request, project, "" if place else "Taken back. Others have finished that one.")


def again(request: HttpRequest, project: Project, note: str, status: int = 200) -> HttpResponse:
    """What is on the labeler's desk now, after something was put back on it."""
    if not request.htmx and not note:
        return redirect("rank", slug=project.slug)
    return answer(request, project, Place.objects.next_for(request.user, project), note=note, status=status)


@labeler_required
@require_safe
def mine(request: HttpRequest, slug: str) -> HttpResponse:
    """What one ranked lately and may still change, and what was sent back first of all."""
    project = project_of(request, slug)
    returned = Ranking.objects.returned(request.user, project).prefetch_related("quintet__rollouts")
    recent = [each for each in Ranking.objects.recent(request.user, project) if not each.returned_at]
    skipped = request.user.skips.filter(quintet__project=project).select_related("quintet__prompt")[:20]
    context = {"project": project, "skipped": skipped} | today(request, project)
    context |= {"returned": [(each, best(each)) for each in returned]}
    context |= {"recent": [(each, best(each)) for each in recent]}
    return render(request, "rank/mine.html", context)


@labeler_required
@require_http_methods(["GET", "HEAD", "POST"])
def revise(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One's own ranking as it stands, to be changed: that is a new version, and the old one is kept."""
    project = project_of(request, slug)
    ranking = get_object_or_404(mine_in(request, project), pk=pk)
    shown, filled, error = in_order(ranking), dict(request.POST.lists()), ""
    if request.method == "POST":
        try:
            form = said(filled, shown, project)
            newest = ranking.revise(request.user, form.pop("ranks"), **form)
        except RankingRefused as refused:
            error = str(refused)
        else:
            words = f"Kept as version {newest.version}." if newest.pk != ranking.pk else "Kept as it was."
            messages.success(request, words)
            there = reverse("rank_mine", args=[slug])
            return HttpResponse(headers={"HX-Redirect": there}) if request.htmx else redirect(there)
    context = about(request, project, round_of(project, ranking)) | {"error": error, "ranking": ranking}
    context |= desk(ranking.quintet, shown, filled if error else filled_by(ranking, shown))
    context |= {"to": request.path, "says": "Keep this order", "key": f"ranking {pk}"}
    return page(request, context, status=422 if error else 200)


@labeler_required
@require_POST
def practise(request: HttpRequest, slug: str) -> HttpResponse:
    """All of the practice once more."""
    project = project_of(request, slug)
    get_object_or_404(project.memberships, user=request.user, practised_at=None).practise_again()
    return redirect("rank", slug=slug)


def mine_in(request: HttpRequest, project: Project):
    neither = [Purpose.PRACTICE, Purpose.HARVEST]
    own = request.user.rankings.filter(quintet__project=project).exclude(purpose__in=neither)
    return own.select_related("quintet__prompt", "quintet__round", "quintet__project")


def best(ranking: Ranking) -> str:
    """What was ranked first: prompts may all read alike."""
    slot = ranking.ranks.index(1)
    return next(rollout.text for rollout in ranking.quintet.rollouts.all() if rollout.slot == slot)


def in_order(ranking: Ranking) -> Sequence[Rollout]:
    """The rollouts as they were shown when they were ranked."""
    by_slot = {rollout.slot: rollout for rollout in ranking.quintet.rollouts.all()}
    return [by_slot[slot] for slot in ranking.shown or ranking.quintet.order_for(ranking.labeler)]


def nothing_because(request: HttpRequest, project: Project) -> str:
    """Why nothing waits: one is paused, the practice is over and not passed, more is being written, that
    came to nothing, all is ranked, or none ever was."""
    if project.memberships.filter(user=request.user, paused_at__isnull=False).exists():
        return "paused"
    if Place.objects.practising(request.user, project):
        return "failed practice"
    # A face-off's runs keep no queue filled: they bring something together, if none of them came to nothing.
    last = project.runs.filter(kind=Run.Kind.ROLLOUTS, contenders=None).only("state").first()
    if (last and last.state in Run.LIVE) or Faceoff.objects.on_their_way(project):
        return "writing"
    kept_filled = project.judge == Project.Judge.PEOPLE and project.start_id and project.keep_waiting
    waiting = Quintet.objects.waiting().filter(project=project)[: project.keep_waiting]
    if kept_filled and waiting.count() < project.keep_waiting:
        if last and last.state in (Run.State.FAILED, Run.State.CANCELLED):
            return "failed"
        if project.prompts.exists():
            return "writing"
    return "done" if project.quintets.filter(purpose=Purpose.WORK).exists() else "empty"


def answer(
    request: HttpRequest,
    project: Project,
    place: Place | None,
    *,
    filled: Filled | None = None,
    error: str = "",
    note: str = "",
    status: int = 200,
    undo: Ranking | Skip | None = None,
) -> HttpResponse:
    """The quintet at this place, with what the labeler did so far; without a place, why there is none."""
    context = about(request, project, round_of(project, place)) | {"error": error, "note": note}
    if undo:
        context["undo"] = {
            "says": "Take the skip back" if isinstance(undo, Skip) else "Undo",
            "url": way_back(undo, project),
        }
    if place:
        context |= desk(place.quintet, place.rollouts_for(request.user), filled or place.draft or {})
        context |= {"to": reverse("rank_submit", args=[project.slug]), "says": "Submit and go on"}
        context |= {"ticket": request.POST["ticket"] if error else place.ticket(), "key": place.key}
        context |= {"place": place, "reasons": Skip.Reason.choices}
        if place.purpose == Purpose.PRACTICE:
            context |= practice(request, project) | {"says": "See how that was"}
    else:
        state = nothing_because(request, project)
        context |= {"state": state, "polled": state not in ("paused", "failed practice")}
        context["runs_it"] = request.user.may_run(project)
        if state == "paused":
            context["because"] = project.memberships.get(user=request.user).paused_because
        if state == "failed practice":
            context |= practice(request, project)
    return page(request, context, status=status)


def feedback(request: HttpRequest, project: Project, ranking: Ranking) -> HttpResponse:
    """After an example of the practice: the known ranks beside one's own, and why they are so."""
    context = about(request, project, ranking.quintet.round) | practice(request, project)
    context |= {"lesson": lesson(ranking, in_order(ranking)), "score": ranking.score(), "state": "lesson"}
    context |= {"explanation": ranking.quintet.explanation, "turns": turns(ranking.quintet.prompt)}
    return page(request, context)


def practice(request: HttpRequest, project: Project) -> dict[str, Any]:
    """How far the labeler is in the practice, and how well."""
    membership = get_object_or_404(project.memberships, user=request.user)
    result = membership.practice_result()
    of = project.quintets.filter(purpose=Purpose.PRACTICE, set_aside_at=None).count()
    progress = {
        "done": result.quintets,
        "of": of,
        "number": min(result.quintets + 1, of),
        "share": result.share,
    }
    return {"practice": progress | {"passed": bool(membership.practised_at), "needed": project.practice_pass}}


def round_of(project: Project, shown: Place | Ranking | None) -> Round | None:
    """The round that stands on the page: for a hidden check the newest one, as for the work around it,
    because the round that it was made in, or first ranked in, would give it away."""
    if shown and shown.purpose == Purpose.WORK:
        return shown.quintet.round
    return Round.objects.filter(project=project).last()


def about(request: HttpRequest, project: Project, round: Round | None) -> dict[str, Any]:
    """What stands around every quintet: how far one has come, the guidelines, and a kind word."""
    context: dict[str, Any] = {
        "project": project,
        "round": round,
        "guidelines": project.newest_guidelines,
    }
    context |= today(request, project)
    if round:
        context["progress"] = Ranking.objects.progress(request.user, round)
    if project.checks == Project.Checks.WARN:
        mine = project.memberships.filter(user=request.user).first()
        context["warned"] = bool(mine and mine.warned_because)
    return context


def today(request: HttpRequest, project: Project) -> dict[str, Any]:
    done = Ranking.objects.today(request.user, project)
    goal = project.session_goal
    return {
        "today": done,
        "goal": goal,
        "towards": min(done.ranked, goal),
        "to_go": max(0, goal - done.ranked),
    }


def desk(quintet: Quintet, shown: Sequence[Rollout], filled: Filled) -> dict[str, Any]:
    """What the page shows of a quintet, as far as it is filled in."""
    mine, asked = cards(shown, filled), turns(quintet.prompt)
    last = {name: (filled.get(name) or [""])[-1] for name in ("acceptable", "focus_seconds", "at")}
    return {
        "turns": asked,
        # On a phone only a short prompt can stay in view above the cards.
        "short": len(asked) == 1 and len(asked[0].content) < 140,
        "cards": mine,
        "ranks": range(1, len(mine) + 1),
        "acceptable": last["acceptable"],
        "focus_seconds": last["focus_seconds"] or "0",
        "drafted_at": last["at"] or "0",
    }


def way_back(done: Ranking | Skip, project: Project) -> str:
    return reverse("rank_unskip" if isinstance(done, Skip) else "rank_undo", args=[project.slug, done.pk])


def page(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    template = "rank/rank.html#quintet" if request.htmx else "rank/rank.html"
    return render(request, template, context, status=status)
