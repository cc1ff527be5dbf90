"""The harvest of a project: what its policies wrote that may have fooled a reward model, what people say of
it, and the score, round by round. For the project's admins.

A worker looks through the runs (labeler/harvest.py); what a decision does is said in models/harvests.py."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler.access import admin_required
from labeler.models import Checkpoint, Find, Harvest, Project
from labeler.models.harvests import NotHarvested, scores
from labeler.models.probes import Probing
from labeler.numbers import whole

A_PAGE = 20
PAGE = "harvests/harvests.html"
NEWEST = 12  # runs that are offered to be looked through


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user), slug=slug)


@admin_required
@require_safe
def harvests(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    context = {"project": project, **_looks(project, whole(request.GET.get("run")))}
    if request.htmx:
        if not context["looking"]:  # it has ended: the page has finds to show
            return HttpResponse(headers={"HX-Refresh": "true"})
        return render(request, f"{PAGE}#looks", context)
    shown = request.GET.get("show")
    shown = shown if shown in Find.State.values else Find.State.OFFERED
    finds = project.finds.filter(state=shown).told()
    page = Paginator(finds, A_PAGE).get_page(request.GET.get("page"))
    history = Probing.history(project)
    counts = {state: project.finds.filter(state=state).count() for state in Find.State.values}
    context |= {
        "shown": shown,
        "page": page,
        "tabs": [(state, str(label).partition(":")[0], counts[state]) for state, label in Find.State.choices],
        "scores": scores(project, history[0] if history else None),
        "measured": history[0].judge if history else None,
        "judge": Checkpoint.objects.judge_of(project),
        "said": _said(page, history[0] if history else None),
    }
    return render(request, PAGE, context)


def _looks(project: Project, chosen: int) -> dict[str, Any]:
    """The runs that can be looked through, with the newest look at each."""
    runs = list(Harvest.objects.harvestable(project).select_related("round")[:NEWEST])
    looks: dict[int, Harvest] = {}
    for each in project.harvests.filter(run__in=runs).select_related("request").order_by("pk"):
        looks[each.run_id] = each
    rows = [{"run": run, "look": looks.get(run.pk), "chosen": run.pk == chosen} for run in runs]
    live = [each for each in looks.values() if each.request and each.request.is_live]
    return {"runs": sorted(rows, key=lambda row: not row["chosen"]), "looking": live}


def _said(page: Any, newest: Probing | None) -> list[dict[str, Any]]:
    """The finds of a page, each with what people and the newest measured reward model made of it."""
    told = []
    for find in page:
        ranked = list(find.quintet.rankings.filter(current=True)) if find.quintet else []
        last = len(find.quintet.rollouts.all()) - 1 if find.quintet else 0
        asked = find.state == Find.State.ASKED
        beside = find.companions() if find.state == Find.State.OFFERED else []
        told.append(
            {
                "find": find,
                "beside": beside,
                "can_ask": bool(beside or find.beside),
                "tried": newest.tried.get(find.digest) if newest else None,
                "ranked": len(ranked) if asked else 0,
                "last": sum(each.ranks[last] == max(each.ranks) for each in ranked) if asked else 0,
                "nonsense": sum(last in each.nonsense for each in ranked) if asked else 0,
            }
        )
    return told


@admin_required
@require_POST
def look(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    run = Harvest.objects.harvestable(project).filter(pk=whole(request.POST.get("run"))).first()
    try:
        if run is None:
            raise NotHarvested("Only a policy run of this project that has ended can be looked through.")
        Harvest.objects.look_through(run, request.user)
    except NotHarvested as refused:
        messages.error(request, str(refused))
    return redirect("harvests", slug)


@admin_required
@require_POST
def decide(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Confirm a find, reject it, send it to the labelers, or take that back."""
    project = _project(request, slug)
    find = get_object_or_404(project.finds.select_related("harvest__run", "prompt"), pk=pk)
    action, back = request.POST.get("action"), request.POST.get("back")
    try:
        if action == "confirm":
            beside = find.confirm(request.user)
            words = "It is in the bank of probes, and last in a ranking of later datasets."
            alone = "It is in the bank of probes. No dataset learns from it: its prompt has no other rollout."
            messages.success(request, words if beside else alone)
        elif action == "reject":
            find.reject(request.user)
        elif action == "send":
            quintet = find.send(request.user)
            messages.success(
                request, f"It waits for the labelers in quintet {quintet.pk}, beside ordinary rollouts."
            )
        elif action == "back":
            stays = find.take_back(request.user)
            messages.success(request, f"That is taken back: it waits to be looked at again. {stays}")
    except NotHarvested as refused:
        messages.error(request, str(refused))
    show = f"?show={back}" if back in Find.State.values else ""
    return redirect(f"{reverse('harvests', args=[slug])}{show}")
