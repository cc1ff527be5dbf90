"""The checker of a project: what judges here, how it fares on its own references, answers to try it on, and
its verdicts on the newest run for people to confirm or to overrule. For the project's admins.

What it says is asked in labeler/checking.py, what people say of it is counted in labeler/verdicts.py."""

import re
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import checking, steps, verdicts
from labeler.access import admin_required
from labeler.checker_forms import CheckerForm, TryForm
from labeler.models import Project, Request, Run, Step, Verdict
from labeler.numbers import whole
from rlhf import checkers as rules
from rlhf import config

A_PAGE = 20
TOLD = 20  # references that fail, as many as the page shows
KEPT = ("step", "show", "words", "mixed", "page", "beside")
PAGE = "checkers/checkers.html"


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user), slug=slug)


@admin_required
@require_safe
def checkers(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    if request.htmx and request.GET.get("look") == "references":
        return render(request, PAGE + "#references", {"project": project, **_references(project)})
    context = {"project": project, **_verdicts(project, request.GET)}
    if request.htmx:
        return render(request, PAGE + "#verdicts", context)
    return _page(request, project, context)


def _page(request: HttpRequest, project: Project, context: dict[str, Any], status: int = 200) -> HttpResponse:
    form = TryForm(project, initial={"prompt": request.GET.get("prompt", "")})
    context = {"form": form, **_verdicts(project, request.GET), **context}
    context |= {
        "project": project,
        "described": checking.DESCRIBED.get(project.checker_name, ""),
        "options": _options(project),
        "measure": verdicts.measure(project),
        **_references(project),
    }
    return render(request, PAGE, context, status=status)


def _options(project: Project) -> list[tuple[config.Setting, Any]]:
    """Each with its value here."""
    own = project.checker_options
    return [(each, own.get(each.name, each.default)) for each in rules.options(project.checker_name)]


def _references(project: Project) -> dict[str, Any]:
    asked = project.requests.filter(kind=Request.Kind.REFERENCES).first()
    failing = project.prompts.failing(project.checker_digest)
    return {
        "references": checking.references(project),
        "failing": failing[:TOLD],
        "asked": asked,
        "solutions": checking.solutions(failing[:TOLD]),
    }


def _verdicts(project: Project, given: Any) -> dict[str, Any]:
    """The chosen step of the newest run that was checked, as far as it is asked for."""
    run = verdicts.newest_run(project)
    row = _step(run, given.get("step", "")) if run else None
    show = given.get("show") if given.get("show") in verdicts.SHOWN else ""
    words, mixed = given.get("words", "").strip()[:200], bool(given.get("mixed"))
    context: dict[str, Any] = {"run": run, "step": row, "shown": verdicts.SHOWN, "show": show}
    context |= {"words": words, "mixed": mixed}
    context["kept"] = {name: given[name] for name in KEPT if given.get(name)}
    if run is None or row is None:
        return context
    try:
        found = verdicts.judged(run, row)
    except steps.NotThere as missing:
        return context | {"missing": str(missing)}
    rows = verdicts.chosen(found, show, words, mixed)
    states = [each.state for each in found]
    context["counts"] = {name: states.count(name) for name in ("correct", "incorrect", "unclear")}
    if project.checker_name not in config.RULES:
        name = given.get("beside") if given.get("beside") in checking.QUICK else checking.QUICK[0]
        context |= {"beside": verdicts.beside(found, name), "rules": checking.QUICK}
    return context | {
        "page": Paginator(rows, A_PAGE).get_page(given.get("page") or _page_of(rows, given.get("one"))),
        "before": run.steps.filter(step__lt=row.step).order_by("-step").first(),
        "after": run.steps.filter(step__gt=row.step).order_by("step").first(),
    }


def _page_of(rows: list[verdicts.Judged], name: str | None) -> int:
    """The page on which the rollout of this name stands."""
    at = next((index for index, each in enumerate(rows) if each.one.name == name), 0)
    return at // A_PAGE + 1


def _step(run: Run, asked: str) -> Step | None:
    """The one that is asked for, or the nearest before it; else the newest."""
    made = run.steps.order_by("-step")
    number = whole(asked, -1)
    return (made.filter(step__lte=number).first() or made.last()) if number >= 0 else made.first()


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Which checker, and its options; with another `name` in the address, that one's."""
    project = _project(request, slug)
    name = request.GET.get("name", "")
    name = name if name in config.CHECKERS else project.checker_name
    form = CheckerForm(project, name, request.POST if request.method == "POST" else None)
    if form.is_valid():
        form.save(request.user)
        messages.success(request, "The checker is changed. Every reference is held against it.")
        return redirect("checkers", slug)
    context = {
        "project": project,
        "form": form,
        "name": name,
        "known": [(each, checking.DESCRIBED.get(each, "")) for each in config.CHECKERS],
    }
    return render(request, "checkers/settings.html", context, status=422 if form.is_bound else 200)


@admin_required
@require_POST
def references(request: HttpRequest, slug: str) -> HttpResponse:
    """Try all of them anew."""
    project = _project(request, slug)
    project.prompts.update(reference_by="")
    checking.attend(project)
    return redirect(reverse("checkers", args=[slug]) + "#references")


@admin_required
@require_POST
def try_it(request: HttpRequest, slug: str) -> HttpResponse:
    """What the checker says of pasted answers: at once, or when the worker has come to it."""
    project = _project(request, slug)
    form = TryForm(project, request.POST)
    context: dict[str, Any] = {"project": project, "form": form}
    if form.is_valid():
        if checking.is_quick(project):
            context["told"] = list(zip(form.items, form.verdicts(project), strict=True))
        else:
            asked = Request.objects.ask_to_check(project, form.items, request.user)
            if not request.htmx:
                return redirect("checkers_tried", slug, asked.pk)
            context["trying"] = asked
    if request.htmx:
        return render(request, PAGE + "#try", context)
    return _page(request, project, context, status=200 if form.is_valid() else 422)


@admin_required
@require_safe
def tried(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """What came of answers that the worker was asked about."""
    project = _project(request, slug)
    asked = get_object_or_404(project.requests.filter(kind=Request.Kind.CHECK), pk=pk)
    context: dict[str, Any] = {"project": project, "trying": asked}
    if asked.answer:
        context["told"] = list(zip(asked.question["items"], asked.answer["verdicts"], strict=True))
    if request.htmx:
        return render(request, PAGE + "#told", context)
    items = asked.question["items"]
    said = {"answers": "\n".join(each["answer"] for each in items), "reference": items[0]["reference"]}
    context["form"] = TryForm(project, initial=said | {"each_line": len(items) > 1})
    return _page(request, project, context)


@admin_required
@require_POST
def say(request: HttpRequest, slug: str) -> HttpResponse:
    """A person's verdict on a rollout (`right`: yes or no), or (`undo`) none any more."""
    project, given = _project(request, slug), request.POST
    number, step = (whole(given.get(each), -1) for each in ("run", "step"))
    if number < 0 or step < 0:
        messages.error(request, "Which rollout was meant is not known. Press the button beside it.")
        return redirect("checkers", slug)
    run = get_object_or_404(project.runs.exclude(checker={}), pk=number)
    row = get_object_or_404(run.steps, step=step)
    name = given.get("name", "")
    one = _one(run, row, name)
    if one.verdict and "undo" in given:
        one.verdict.take_back(request.user)
        one.verdict = None
    elif given.get("right") in ("yes", "no") and one.one.correct is not None:
        right = given["right"] == "yes"
        one.verdict = Verdict.objects.say(run, row.step, name, right, request.user, **one.said)
    if request.htmx:
        context = {"project": project, "run": run, "step": row, "each": one, "now": True}
        return render(request, PAGE + "#verdict", context | {"measure": verdicts.measure(project)})
    kept = {each: given[each] for each in KEPT if given.get(each)}
    return redirect(f"{reverse('checkers', args=[slug])}?{urlencode(kept)}#r-{name}")


def _one(run: Run, row: Step, name: str) -> verdicts.Judged:
    try:
        found = verdicts.judged(run, row) if re.fullmatch(r"\d{1,9}-\d{1,9}", name) else []
    except steps.NotThere:
        found = []
    one = next((each for each in found if each.one.name == name), None)
    if one is None:
        raise Http404
    return one
