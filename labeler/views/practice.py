"""The practice grid of a policy run: each prompt with its rollouts as tiles, green where the checker agrees.
Admins only.

What is on it is gathered in labeler/practice.py; rollouts token by token are the matter of views/steps.py."""

from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe

from labeler import practice as grid
from labeler.access import admin_required
from labeler.models import Run, Step
from labeler.steps import NotThere
from labeler.views.runs import seen_by, whole

PAGE = "practice/practice.html"


@admin_required
@require_safe
def practice(request: HttpRequest, pk: int) -> HttpResponse:
    """To the grid of the step that is asked for, or the nearest one before it; the newest where none is."""
    run = get_object_or_404(seen_by(request).filter(kind=Run.Kind.POLICY), pk=pk)
    asked, made = whole(request.GET.get("step"), 0), run.steps.filter(step__gt=0).order_by("-step")
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
    return render(request, f"{PAGE}#reading" if request.htmx and "one" in request.GET else PAGE, context)


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
    }
