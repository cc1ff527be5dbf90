"""Runs: the list, launching one, following one, and the answers before and after it. Admins only.

Pages read rows and never a run directory; what a run does is decided in labeler/models/runs.py and on the
worker."""

import csv
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler import disagreements, queueing, remedies, samples
from labeler.access import admin_required, staff_required
from labeler.charts import charts, differing, people, strip
from labeler.forms import RunForm
from labeler.models import Checkpoint, Evaluation, Project, Request, Run
from labeler.models.probes import Alarm
from labeler.numbers import whole
from labeler.templatetags import runs as words
from rlhf import config

A_PAGE = 40
STEPS_AT_ONCE = 20_000
# Of a step: where its rollouts are in the run's file, and how each of its prompts fared (difficulty.py).
NO_CURVES = ("rollouts", "practised")
OVERLAID = 4  # runs over the curves of one
OFFERED = 30  # to be so, the newest
CONTESTED = 3  # held-out rankings on a reward model run's own page; all of them have a page of their own


def seen_by(request: HttpRequest) -> QuerySet[Run]:
    related: tuple[str, ...] = ("project", "start", "reward_model__run__dataset", "against__run", "dataset")
    related += ("created_by", "round")
    return Run.objects.filter(project__in=Project.objects.run_by(request.user)).select_related(*related)


@admin_required
@require_safe
def runs(request: HttpRequest) -> HttpResponse:
    projects = Project.objects.run_by(request.user)
    slug = request.GET.get("project")
    project = get_object_or_404(projects, slug=slug) if slug else None
    found = seen_by(request).filter(project=project) if project else seen_by(request)
    found = found.defer("log_tail", "cursors")
    page = Paginator(found, A_PAGE).get_page(request.GET.get("page"))
    live = any(run.is_live for run in page)
    context = {
        "project": project,
        "projects": projects,
        "page": page,
        "live": live,
        "turns": Run.objects.turns() if live else {},
    }
    return render(request, "runs/runs.html#list" if request.htmx else "runs/runs.html", context)


@admin_required
def new(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    if kind not in config.KINDS:
        raise Http404
    source = project.runs.filter(pk=whole(request.GET.get("from")), kind=kind).first()
    sent = request.POST if request.method == "POST" else request.GET if request.htmx else None
    form = RunForm(
        project, kind, sent, source=source, preset=request.GET.get("preset", ""), chosen=request.GET
    )
    if request.method == "POST" and (run := form.launched(request.user)):
        return redirect("run", run.pk)
    context = {"project": project, "kind": kind, "form": form, "source": source, "title": words.TITLES[kind]}
    context["missing"] = None if request.htmx else form.missing()
    template = "runs/new.html#sums" if request.htmx and request.method == "GET" else "runs/new.html"
    return render(request, template, context, status=422 if form.is_bound and sent is request.POST else 200)


@admin_required
@require_POST
def try_out(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    """Have the worker try for some seconds what the form describes, to know how long it would take."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    if kind not in config.KINDS:
        raise Http404
    form = RunForm(project, kind, request.POST)
    form.try_out(request.user)
    context = {"project": project, "kind": kind, "form": form, "title": words.TITLES[kind], "missing": None}
    return render(request, "runs/new.html#sums" if request.htmx else "runs/new.html", context)


@admin_required
@require_safe
def queue(request: HttpRequest) -> HttpResponse:
    """What runs and what waits, of all projects, in the order in which it is taken. Of a project that one
    does not run, only that something is there."""
    mine = set(Project.objects.run_by(request.user).values_list("pk", flat=True))
    found = queueing.lines(Run.objects.live(), mine, request.GET.get("page"))
    context = {"lines": found.lines, "page": found.page, "staff": request.user.is_staff}
    return render(request, "runs/queue.html#lines" if request.htmx else "runs/queue.html", context)


@staff_required
@require_POST
def front(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(seen_by(request), pk=pk)
    if not run.move_to_front(request.user):
        messages.info(request, f"{words.title(run)} does not wait any more.")
    return redirect("run_queue")


@admin_required
@require_safe
def run(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(seen_by(request), pk=pk)
    context = {"project": run.project, "run": run, **_shown(run), **_samples(run, request.GET)}
    if request.htmx:
        return render(request, "runs/run.html#said", context)
    context |= {"alarm": _alarm(run), "chart_spec": _chart_spec(run, context["charts"])}
    return render(request, "runs/run.html", context)


@admin_required
@require_safe
def live(request: HttpRequest, pk: int) -> HttpResponse:
    """What has changed on the page of a live run; once it has ended, for the last time."""
    return _news(request, get_object_or_404(seen_by(request), pk=pk))


def _news(request: HttpRequest, run: Run) -> HttpResponse:
    said = _samples(run, request.GET, had=request.GET.get("had"))
    context = {"project": run.project, "run": run, "oob": True, **_shown(run), **said}
    context |= {} if run.is_live else {"alarm": _alarm(run)}
    return render(request, "runs/run.html#update", context)


@admin_required
@require_safe
def steps(request: HttpRequest, pk: int) -> HttpResponse:
    """Every step after `after`, for the charts; all of them, as CSV, for other tools."""
    run = get_object_or_404(seen_by(request), pk=pk)
    if request.GET.get("form") == "csv":
        return _csv(run, _beside(run, request.GET.get("with", "")))
    after = whole(request.GET.get("after"), -1)
    rows = list(run.steps.filter(step__gt=after).values_list("step", "metrics")[:STEPS_AT_ONCE])
    for _, metrics in rows:
        for name in NO_CURVES:
            metrics.pop(name, None)
    checkpoints = run.checkpoints.exclude(step=None).order_by("step").values("step", "suggested")
    return JsonResponse(
        {
            "attempt": run.attempt,
            "total": run.total if run.is_live else run.step,
            "steps": [metrics | {"step": step} for step, metrics in rows],
            "more": len(rows) == STEPS_AT_ONCE,
            "marks": {"crop": words.crop(run), "checkpoints": list(checkpoints), "people": people(run)},
        }
    )


def _csv(run: Run, others: list[Run]) -> HttpResponse:
    """With other runs beside it, each line begins with the number of its own."""
    rows = [
        {"run": each.pk, **metrics, "step": step}
        for each in [run, *others]
        for step, metrics in each.steps.values_list("step", "metrics")
    ]
    first = ["run", "step", "seconds"] if others else ["step", "seconds"]
    # The database keeps no order of keys.
    found = {name for row in rows for name in row} - {"run", "step", "seconds", *NO_CURVES}
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    names = "-".join(str(each.pk) for each in [run, *others])
    response["Content-Disposition"] = f'attachment; filename="run-{names}-steps.csv"'
    writer = csv.DictWriter(response, [*first, *sorted(found)], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return response


def _beside(run: Run, given: str) -> list[Run]:
    """Other runs of the same project and kind, by their numbers: to be drawn over its curves."""
    wanted = [whole(each) for each in given.split(",")[:OVERLAID]]
    found = run.project.runs.filter(kind=run.kind).exclude(pk=run.pk).in_bulk(wanted)
    return [found[pk] for pk in dict.fromkeys(wanted) if pk in found]


def _chart_spec(run: Run, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    """What chart.js is told: the charts, where their numbers are, and which runs may be drawn over them."""
    others = run.project.runs.filter(kind=run.kind).exclude(pk=run.pk).exclude(step=0).order_by("-pk")
    others = others.only("project", "kind", "config")
    return {
        "source": reverse("run_steps", args=[run.pk]),
        **_openable(run),
        "charts": drawn,
        "most": OVERLAID,
        "others": [
            {
                "pk": each.pk,
                "name": words.title(each),
                "differs": differing(run, each),
                "source": reverse("run_steps", args=[each.pk]),
            }
            for each in others[:OFFERED]
        ],
    }


def _openable(run: Run) -> dict[str, str]:
    """What a press on a curve opens, and what the link to it says."""
    if run.kind != Run.Kind.POLICY:
        return {"open": "", "opens": ""}
    if run.checker:
        return {"open": reverse("practice", args=[run.pk]), "opens": "See the practice grid of"}
    return {"open": reverse("steps", args=[run.pk]), "opens": "Read the rollouts of"}


@admin_required
@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(seen_by(request), pk=pk)
    run.cancel(request.user)
    if request.POST.get("from") == "queue":
        return redirect("run_queue")
    return _news(request, run) if request.htmx else redirect("run", pk)


@admin_required
def compare(request: HttpRequest, pk: int) -> HttpResponse:
    """The same prompts answered before and after the run, side by side."""
    run = get_object_or_404(seen_by(request), pk=pk)
    choices = run.checkpoints.filter(kind=Checkpoint.Kind.POLICY).order_by("-suggested", "-step")
    if request.method == "POST":
        after = get_object_or_404(choices, pk=whole(request.POST.get("after")))
        Request.objects.ask_to_compare(
            run, after, seed=max(0, whole(request.POST.get("seed"))), by=request.user
        )
        return redirect("run_compare", pk)
    asked = run.requests.filter(kind=Request.Kind.COMPARE).first()
    context: dict = {
        "project": run.project,
        "run": run,
        "choices": choices,
        "asked": asked,
        "after": choices.filter(pk=asked.question["after"]).first() if asked else choices.first(),
        "waiting": asked is not None and asked.is_live,
        "oob": bool(request.htmx),
        "said": _compared(asked),
        "judge": run.reward_model or Checkpoint.objects.judge_of(run.project),
    }
    return render(request, "runs/compare.html#news" if request.htmx else "runs/compare.html", context)


def _compared(asked: Request | None) -> dict[str, Any]:
    """What the verdicts and the scores of an answered comparison come to."""
    items = asked.answer["items"] if asked and asked.answer else []
    checked = [each for each in items if "correct" in each["before"] and "correct" in each["after"]]
    right = {
        "checked": len(checked),
        "right_before": sum(each["before"]["correct"] is True for each in checked),
        "right_after": sum(each["after"]["correct"] is True for each in checked),
    }
    pairs = [(each["before"].get("score"), each["after"].get("score")) for each in items]
    pairs = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not pairs:
        return {"items": items, **right}
    before, after = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    better = sum(after > before for before, after in pairs)
    scores = {"before": before, "after": after, "better": better, "scored": len(pairs)}
    return {"items": items, **right, **scores}


def _next_steps(run: Run) -> list[dict[str, str]]:
    """What a person may want to do now that the run has finished, the likeliest first."""
    best = run.checkpoints.order_by("-suggested", "-step").first()

    def launch(kind: str, words: str, **given: int) -> dict[str, str]:
        return {
            "words": words,
            "url": reverse("run_new", args=[run.project.slug, kind]) + f"?{urlencode(given)}",
        }

    if run.state != Run.State.FINISHED:
        return []
    if contender := run.contenders.select_related("faceoff").first():
        url = reverse("faceoff", args=[run.project.slug, contender.faceoff.number])
        return [{"words": "See the face-off", "url": url}]
    if run.kind == Run.Kind.ROLLOUTS:
        return [{"words": "Rank the quintets", "url": reverse("rank", args=[run.project.slug])}]
    if run.kind == Run.Kind.EVALUATION:
        return [{"words": "See all that was measured", "url": reverse("evaluation", args=[run.pk])}]
    if not best:
        return []
    if run.kind == Run.Kind.REWARD:
        return [launch("policy", "Run RLHF with this reward model", reward_model=best.pk)]
    compare = {"words": "Compare before and after", "url": reverse("run_compare", args=[run.pk])}
    sample = launch("rollouts", "Sample quintets from it", start=best.pk)
    harvest = {
        "words": "Look for what fooled the reward model",
        "url": f"{reverse('harvests', args=[run.project.slug])}?run={run.pk}",
    }
    decide = {
        "words": "Let people decide",
        "url": f"{reverse('faceoff_new', args=[run.project.slug])}?run={run.pk}",
    }
    further = launch("policy", "Train it further", start=best.pk)
    more = [decide] if run.kind == Run.Kind.POLICY else []
    more += [harvest] if run.reward_model_id else []
    if run.checker:
        look = f"{reverse('checkers', args=[run.project.slug])}#verdicts"
        more.insert(0, {"words": "Look at what the checker said", "url": look})
    tried = {"project": run.project.slug, "checkpoint": best.pk, "beside": run.start_id or ""}
    play = {"words": "Try it in the playground", "url": f"{reverse('playground')}?{urlencode(tried)}"}
    stood = run.project.faceoffs.filter(contenders__checkpoint__run=run).order_by("-number").first()
    if stood:
        url = reverse("faceoff", args=[run.project.slug, stood.number])
        return [{"words": f"See {stood}", "url": url}, compare, *more, play, sample, further]
    if run.requests.filter(kind=Request.Kind.COMPARE, state=Request.State.ANSWERED).exists():
        return [*more[:1], compare, *more[1:], play, sample, further]
    return [compare, *more, play, sample, further]


def _shown(run: Run) -> dict[str, Any]:
    known = run.is_live or run.steps.exists() or "metrics" in run.result
    drawn, settings = charts(run) if known else [], _settings(run)
    numbers = strip(run)
    return {
        "strip": numbers if run.is_live or any(value is not None for _, value, _ in numbers) else [],
        "charts": drawn,
        "settings": settings,
        "differing": any(row["differs"] for row in settings),
        "made": run.checkpoints.order_by("-step"),
        "suggested": run.checkpoints.filter(suggested=True).first(),
        "next": _next_steps(run),
        "remedy": remedies.of(run),
        "evaluation": Evaluation.objects.filter(run=run).first(),
        "last_words": "\n".join(run.log_tail.splitlines()[-12:]),
    }


def _alarm(run: Run) -> Alarm | None:
    """What the probes say of the reward model that the run made, or had."""
    judge = run.reward_model
    if run.kind == Run.Kind.REWARD and run.state == Run.State.FINISHED:
        judge = run.checkpoints.order_by("-suggested", "-step").first()
    return Alarm.of(judge, run.project) if judge else None


def _settings(run: Run) -> list[dict[str, Any]]:
    """The config that ran: each setting with the project's default, those that differ first."""
    judged = run.judged
    usual, own = run.project.defaults_of(run.kind, judged), run.project.own_defaults(run.kind)
    known = [each for each in config.settings(run.kind, judged) if each.name in run.config]
    rows = [{"setting": each, "value": run.config[each.name], "own": each.name in own} for each in known]
    for row in rows:
        row["default"] = usual[row["setting"].name]
        row["differs"] = row["value"] != row["default"]
    return sorted(rows, key=lambda row: not row["differs"])


def _samples(run: Run, given: QueryDict, had: str | None = None) -> dict[str, Any]:
    """The samples of one measured step; `look` counts the measured steps from 0, the newest without it.

    A reader at the newest one (of the `had` that the page knew of) moves along with the run; others stay."""
    measured = list(run.samples.order_by("step").values_list("step", flat=True).distinct())
    newest = len(measured) - 1
    look = whole(given.get("look"), newest)
    if had is not None and look >= whole(had) - 1:
        look = newest
    look = max(0, min(look, newest))
    followed, against = 0, None
    if not measured:
        lines: list[Any] = []
    elif run.kind == Run.Kind.REWARD:
        held = disagreements.worst_first(disagreements.at(run, measured[look]))
        lines, followed = held[:CONTESTED], len(held)
        disagreements.read(run, measured[0], lines)
    else:
        against = samples.chosen(measured, look, given.get("against", ""))
        lines = samples.at(run, measured[look], against)
    return {
        "measured": measured,
        "look": look,
        "look_step": measured[look] if measured else None,
        "look_before": measured[look - 1] if look else None,
        "look_after": measured[look + 1] if look < newest else None,
        "against": given.get("against", ""),
        "held_against": against,
        "samples": lines,
        "followed": followed,
        "written": list(run.quintets.select_related("prompt").prefetch_related("rollouts")[:4]),
        "newer": had is not None and len(measured) != whole(had),
    }
