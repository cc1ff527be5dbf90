"""The practice grid of a policy run: each prompt with its rollouts as tiles, green where the checker agrees.
Admins only.

What is on it is gathered in labeler/practice.py; rollouts token by token are the matter of views/steps.py."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import difficulty as hard
from labeler import practice as grid
from labeler import verdicts
from labeler.access import admin_required
from labeler.models import Project, Prompt, Request, Run, Step
from labeler.numbers import whole
from labeler.playground import waits_for
from labeler.practice_forms import SampleForm
from labeler.steps import NotThere
from labeler.templatetags.words import count
from labeler.views.runs import seen_by

PAGE = "practice/practice.html"
READING = "practice/_reading.html"
SAMPLED = "practice/prompt.html"
MOST_K = 10_000
A_PAGE = 50  # prompts of a list
KEPT = ("run", "k", "kind", "order", "words", "page")


@admin_required
@require_safe
def practice(request: HttpRequest, pk: int) -> HttpResponse:
    """To the grid of the step that is asked for, or the nearest one before it; the newest where none is."""
    run = get_object_or_404(seen_by(request).filter(kind=Run.Kind.POLICY), pk=pk)
    asked, made = whole(request.GET.get("step")), run.steps.filter(step__gt=0).order_by("-step")
    found = made.filter(step__lte=asked).first() or made.last() if asked > 0 else made.first()
    return redirect("practice_step", pk, found.step) if found else redirect("run", pk)


@admin_required
@require_safe
def step(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """The page; with `one`, that rollout is read beside the tiles."""
    run = get_object_or_404(seen_by(request).filter(kind=Run.Kind.POLICY), pk=pk)
    row = get_object_or_404(run.steps, step=min(number, 2**31 - 1))
    context: dict[str, Any] = {"project": run.project, "run": run, "step": row}
    if not request.htmx:
        context["before"] = run.steps.filter(step__lt=number, step__gt=0).order_by("-step").first()
        context["after"] = run.steps.filter(step__gt=number).order_by("step").first()
    try:
        context |= _shown(run, row, request.GET)
    except NotThere as missing:
        context["missing"] = str(missing)
    return render(request, READING if request.htmx and "one" in request.GET else PAGE, context)


def _shown(run: Run, step: Step, given: Any) -> dict[str, Any]:
    every = grid.asked(run, step)
    show = given.get("show") if given.get("show") in grid.SHOWN else ""
    states = [each.state for each in every]
    chosen = [each for each in every if not show or each.state == show]
    page = Paginator(chosen, grid.at_once(every)).get_page(given.get("page"))
    read, of = None, None
    for group in every:
        for one in group.rollouts:
            if one.name == given.get("one"):
                read, of = one, group
    kept = {name: value for name, value in (("show", show), ("page", page.number)) if value and value != 1}
    return {
        "at": f"?{urlencode(kept | {'one': ''})}",
        "groups": list(page),
        "page": page,
        "show": show,
        "shown": [
            (name, words, states.count(name) if name else len(every)) for name, words in grid.SHOWN.items()
        ],
        "one": read,
        "of": of,
        "to_overrule": read and read.correct is not None and verdicts.newest_run(run.project) == run,
        "beside": of.beside(read) if of and read and read.text.strip() else None,
    }


# How hard each prompt is


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user), slug=slug)


@admin_required
@require_safe
def difficulty(request: HttpRequest, slug: str) -> HttpResponse:
    """The prompts as a run fared on them: pass@1 and pass@k over its steps."""
    project, given = _project(request, slug), request.GET
    runs = hard.runs(project)
    run = next((each for each in runs if str(each.pk) == given.get("run")), runs[0] if runs else None)
    context: dict[str, Any] = {"project": project, "runs": runs, "run": run}
    if run:
        context |= _listed(run, given)
    part = "#list" if request.htmx else ""
    return render(request, f"practice/difficulty.html{part}", context)


def _listed(run: Run, given: Any) -> dict[str, Any]:
    k = min(MOST_K, max(1, whole(given.get("k"), run.config.get("rollouts_per_prompt", 8))))
    kind = given.get("kind") if given.get("kind") in hard.KINDS else ""
    order = given.get("order") if given.get("order") in hard.ORDERS else "mixed"
    words = given.get("words", "").strip()[:200]
    rows = hard.of(run, k)
    counts = hard.counts(rows)
    kinds = [("", "all", counts[""]), *((name, said, counts[name]) for name, said in hard.KINDS.items())]
    return {
        "page": Paginator(hard.chosen(rows, kind, order, words), A_PAGE).get_page(given.get("page")),
        "kinds": kinds,
        "orders": hard.ORDERS,
        "k": k,
        "kind": kind,
        "order": order,
        "words": words,
        "never": counts["never"],
        "kept": {name: given[name] for name in KEPT if given.get(name)},
        "asked_none": max(0, run.project.prompts.answered().count() - len(rows)),
    }


@admin_required
@require_POST
def aside(request: HttpRequest, slug: str) -> HttpResponse:
    """A prompt, or all of a kind, out of practice by hand; or back."""
    project, said = _project(request, slug), request.POST
    numbers = [whole(each) for each in said.getlist("prompt")]
    why = "one by one"
    if (kind := said.get("all", "")) in ("never", "always"):
        run = get_object_or_404(project.runs, pk=whole(said.get("run")))
        numbers = [one.prompt.pk for one in hard.of(run, 1) if one.kind == kind]
        why = f"as {hard.KINDS[kind]} in {run}"
    some = project.prompts.filter(pk__in=numbers)
    if back := said.get("back"):
        some = project.prompts.all() if back == "all" else project.prompts.filter(pk=whole(back))
        moved = some.bring_back(project, request.user)
        messages.success(request, f"{count(moved, 'prompt')} practised again from the next run on.")
    else:
        moved = some.put_aside(project, request.user, why)
        words = f"{count(moved, 'prompt')} set aside from the next run on, and listed as such."
        messages.success(request, words)
    kept = {name: said[name] for name in KEPT if said.get(name)}
    one = said.get("prompt") or said.get("back", "")
    there = f"#p-{one}" if one.isdecimal() else ""  # the row that was pressed stays in sight
    return redirect(f"{reverse('practice_difficulty', args=[slug])}?{urlencode(kept)}{there}")


# Sampled now


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def prompt(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One prompt, and rollouts of it to be sampled now."""
    row = get_object_or_404(_project(request, slug).prompts.select_related("project__start"), pk=pk)
    chosen = {"checkpoint": request.GET["checkpoint"]} if "checkpoint" in request.GET else {}
    form = SampleForm(row, request.POST if request.method == "POST" else None, initial=chosen)
    if request.method == "POST" and form.is_valid():
        return redirect("practice_sampled", form.ask(request.user).pk)
    context = {"project": row.project, "prompt": row, "form": form, "lately": grid.lately(row)}
    return render(request, SAMPLED, context, status=422 if request.method == "POST" else 200)


def _asked(request: HttpRequest, pk: int) -> Request:
    mine = Request.objects.filter(kind=Request.Kind.SAMPLE, project__in=Project.objects.run_by(request.user))
    return get_object_or_404(mine.filter(question__has_key="prompt").select_related("project__start"), pk=pk)


@admin_required
@require_safe
def sampled(request: HttpRequest, pk: int) -> HttpResponse:
    """The grid of what is being sampled; `one` is what is read beside it. A page that reads along says what
    it `had`, and is told what came since; at the end all of it."""
    asked, given = _asked(request, pk), request.GET
    row = get_object_or_404(Prompt, pk=asked.question["prompt"], project=asked.project)
    context: dict[str, Any] = {"project": asked.project, "asked": asked, "prompt": row, "at": "?one="}
    context |= {"waits": waits_for(asked), "reference": asked.question["reference"]}
    if request.htmx and asked.is_live and "had" in given:
        context["sampled"] = grid.Sampled(asked, grid.Had.of(given["had"]))
        return render(request, f"{SAMPLED}#news", context)
    if given.get("one"):
        context["one"] = grid.read(asked, whole(given["one"], -1))
        if context["one"] is None:
            raise Http404
    if request.htmx and "one" in given and "had" not in given:
        return render(request, READING, context)
    context["sampled"] = grid.Sampled(asked)
    context |= _again(asked, row)
    return render(request, f"{SAMPLED}#renewed" if request.htmx else SAMPLED, context)


def _again(asked: Request, row: Prompt) -> dict[str, Any]:
    """The form as it was filled, and what else was sampled."""
    said = asked.question
    initial = {"checkpoint": str(said["checkpoint"]), "count": said["count"], "seed": said["seed"]}
    initial |= {"temperature": said["temperature"], "longest": said["max_new_tokens"]}
    return {"form": SampleForm(row, initial=initial), "lately": grid.lately(row)}


@admin_required
@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    _asked(request, pk).stop()
    return redirect("practice_sampled", pk)
