"""Checkpoints: what the runs have saved, where each comes from and how to open it. Admins only.

The weights are never read here: the lineage is the row's copy of quintet.json."""

import json

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe

from labeler.access import admin_required, labeler_required
from labeler.charts import STRIP
from labeler.lineage import Lineage
from labeler.models import Checkpoint, Evaluation, Project, Quintet, Request
from labeler.models.checkpoints import CheckpointQuerySet
from labeler.models.probes import Alarm
from rlhf.config import hub_start


def seen_by(request: HttpRequest) -> CheckpointQuerySet:
    return Checkpoint.objects.seen_by(request.user).select_related("project", "run__project")


@admin_required
@require_safe
def checkpoints(request: HttpRequest) -> HttpResponse:
    slug = request.GET.get("project")
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug) if slug else None
    found = seen_by(request).order_by("-run_id", "step", "-pk")
    if project:
        found = found.open_to([project])
    kinds = [
        ("Policies", "What writes the rollouts.", found.filter(kind=Checkpoint.Kind.POLICY)),
        ("Reward models", "What says how good a rollout is.", found.filter(kind=Checkpoint.Kind.REWARD)),
    ]
    return render(request, "checkpoints/checkpoints.html", {"project": project, "kinds": kinds})


@admin_required
def checkpoint(request: HttpRequest, pk: int) -> HttpResponse:
    """One checkpoint; a POST makes it the one that its project's runs start from."""
    checkpoint = get_object_or_404(seen_by(request), pk=pk)
    project = checkpoint.project
    may_start = bool(project) and checkpoint.kind == Checkpoint.Kind.POLICY and project.start != checkpoint
    if request.method == "POST" and may_start:
        project.start = checkpoint
        project.save(update_fields=["start"])
        messages.success(request, f"{project} now starts from {checkpoint}.")
        return redirect("checkpoint", pk)
    hub = hub_start(checkpoint.location)
    # A checkpoint may belong to every project: what others did with it is theirs.
    mine = Project.objects.run_by(request.user)
    uses = checkpoint.started_runs.all() | checkpoint.judged_runs.all() | checkpoint.compared_runs.all()
    measured = checkpoint.evaluations.filter(run__project__in=mine)
    context = {
        "project": project,
        "checkpoint": checkpoint,
        "may_start": may_start,
        "opened": hub[0] if hub else str(checkpoint.folder),
        "revision": hub[1] if hub else "",
        "metrics": _measured(checkpoint),
        "evaluation": measured.filter(run__against=None).select_related("run").first(),
        "compared": Evaluation.objects.comparing(checkpoint).filter(run__project__in=mine),
        "alarm": Alarm.of(checkpoint, project) if project and checkpoint.kind == "reward" else None,
        "uses": uses.filter(project__in=mine),
        "lineage": json.dumps(checkpoint.lineage, indent=2, ensure_ascii=False) if checkpoint.lineage else "",
        **_queue(checkpoint),
    }
    return render(request, "checkpoints/checkpoint.html", context)


@admin_required
def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Order the project's queue by what this reward model is least sure of; while it reads, how far it is."""
    judges = seen_by(request).filter(kind=Checkpoint.Kind.REWARD, project__isnull=False)
    judge = get_object_or_404(judges, pk=pk)
    if request.method == "POST":
        with transaction.atomic():
            judge.project.change(request.user, queue=Project.Queue.UNCERTAIN)
            Request.objects.ask_to_order(judge.project, judge, request.user)
    if not request.htmx:
        return redirect("checkpoint", pk)
    return render(request, "checkpoints/checkpoint.html#queue", {"checkpoint": judge, **_queue(judge)})


@labeler_required
@require_safe
def lineage(request: HttpRequest, pk: int) -> HttpResponse:
    """Everything that it rests on. Reviewers read it too; whose rankings they are is told to admins."""
    checkpoint = _reviewed(request, pk)
    project = checkpoint.project
    context = {
        "project": project,
        "checkpoint": checkpoint,
        "lineage": Lineage(checkpoint, request.user),
        "may_run": request.user.may_run(project) if project else request.user.runs_any,
    }
    return render(request, "checkpoints/lineage.html", context)


@labeler_required
@require_safe
def lineage_file(request: HttpRequest, pk: int) -> HttpResponse:
    """The same as JSON; with `names=no` to publish it, without the names of those who ranked."""
    checkpoint = _reviewed(request, pk)
    found = Lineage(checkpoint, request.user, names=request.GET.get("names") != "no")
    response = JsonResponse(found.as_json(), json_dumps_params={"indent": 2, "ensure_ascii": False})
    response["Content-Disposition"] = f'attachment; filename="lineage-{pk}.json"'
    return response


def _reviewed(request: HttpRequest, pk: int) -> Checkpoint:
    projects = Project.objects.reviewed_by(request.user)
    theirs = Checkpoint.objects.open_to(projects) if projects.exists() else Checkpoint.objects.none()
    return get_object_or_404(theirs.select_related("project"), pk=pk)


def _queue(checkpoint: Checkpoint) -> dict:
    """How the project's queue is ordered, for the page of a reward model that could order it."""
    project = checkpoint.project
    if not project or checkpoint.kind != Checkpoint.Kind.REWARD:
        return {}
    asked = project.requests.filter(kind=Request.Kind.ORDER).first()
    waiting = Quintet.objects.waiting().filter(project=project)
    return {
        "asked": asked,
        "asked_here": asked is not None and asked.question["checkpoint"] == checkpoint.pk,
        "reading": asked is not None and asked.is_live,
        "waiting": waiting.count(),
        "read": waiting.filter(scored_by=checkpoint).count(),
        "by_uncertainty": project.queue == Project.Queue.UNCERTAIN,
        "random": f"{project.random_share:.0%}".replace("%", " %"),
    }


def _measured(checkpoint: Checkpoint) -> list[tuple[str, float, str]]:
    """What was measured at the step at which it was saved; for a reward model, also when it was finished."""
    run = checkpoint.run
    if not run:
        return []
    step = run.steps.filter(step__lte=checkpoint.step or 0).last()
    known = step.metrics if step else {}
    if checkpoint.suggested and checkpoint.kind == Checkpoint.Kind.REWARD:
        known |= run.result.get("metrics", {})
    return [(label, known[key], form) for key, label, form in STRIP.get(run.kind, []) if key in known]
