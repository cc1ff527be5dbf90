"""What a reward model is worth: the page of a run's evaluation, and its file. Admins only.

A reward run leaves an evaluation, and a run of kind evaluation does, which may set two models side by side;
it is launched like any other run (views/runs.py)."""

from typing import Any

from django.db.models import Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from labeler.access import admin_required
from labeler.models import Checkpoint, Evaluation, Project, Run
from labeler.views.runs import seen_by


def _run(request: HttpRequest, pk: int) -> Run:
    kinds = (Run.Kind.REWARD, Run.Kind.EVALUATION)
    return get_object_or_404(seen_by(request).filter(kind__in=kinds), pk=pk)


@admin_required
@require_safe
def evaluation(request: HttpRequest, pk: int) -> HttpResponse:
    """Everything that was measured; while the run is at it, how far it is."""
    run = _run(request, pk)
    found = Evaluation.objects.filter(run=run).select_related("checkpoint").first()
    made = run.checkpoints.order_by("-suggested", "-step").first()
    measured = found.checkpoint if found else run.reward_model or made
    elsewhere = Evaluation.objects.filter(Q(checkpoint=measured) | Q(run__against=measured))
    elsewhere = elsewhere.filter(run__project__in=Project.objects.run_by(request.user))
    context = {
        "project": run.project,
        "run": run,
        "evaluation": found,
        "found": found.found if found else None,
        "measured": measured,
        "elsewhere": elsewhere.exclude(run=run).select_related("run") if measured else [],
        "rival": rival(measured) if measured else None,
        "sides": sides(found) if found else [],
    }
    return render(request, f"evaluations/evaluation.html{'#measured' if request.htmx else ''}", context)


@admin_required
@require_safe
def file(request: HttpRequest, pk: int) -> HttpResponseBase:
    """evaluation.json as the run left it, every quintet in it."""
    run = _run(request, pk)
    try:
        content = Evaluation(run=run).file.open("rb")
    except FileNotFoundError:
        raise Http404("This run has left no evaluation.") from None
    return FileResponse(
        content, as_attachment=True, filename=f"evaluation-{run.pk}.json", content_type="application/json"
    )


def sides(evaluation: Evaluation) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rankings that one of two models has right and the other wrong."""
    differing = evaluation.found.get("against", {}).get("differing", {})
    return [(f"Where the {side} is right about more", each) for side, each in sorted(differing.items())]


def rival(checkpoint: Checkpoint) -> Checkpoint | None:
    """The newest other reward model of the project, to compare this one with."""
    others = Checkpoint.objects.filter(project=checkpoint.project, kind=Checkpoint.Kind.REWARD)
    others = others.exclude(pk=checkpoint.pk)
    if checkpoint.run_id:
        others = others.exclude(run=checkpoint.run_id, suggested=False)
    return others.order_by("-run_id", "-suggested", "-pk").first()
