"""One step of a policy run: every rollout of it with its tokens, reward, advantage and KL, and from there to
the labelers. Admins only.

How a step's rollouts are found and made into a quintet is said in labeler/steps.py; the curves that lead here
are on the run's own page (views/runs.py)."""

import re
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler import sending
from labeler import steps as rollouts
from labeler.access import admin_required
from labeler.models import Run, Step
from labeler.numbers import whole
from labeler.views.runs import seen_by

MOST_SHOWN = 24  # rollouts on a page, and
MOST_TOKENS = 5_000  # tokens, of whichever there are fewer
KEPT = ("by", "low", "flat", "page", "one")
PAGE = "steps/step.html"


def _step(request: HttpRequest, pk: int, number: int) -> tuple[Run, Step]:
    run = get_object_or_404(seen_by(request).filter(kind=Run.Kind.POLICY), pk=pk)
    return run, get_object_or_404(run.steps.exclude(step=0), step=min(number, 2**31 - 1))


@admin_required
@require_safe
def steps(request: HttpRequest, pk: int) -> HttpResponse:
    """To the step that is asked for, or the nearest one before it; the newest where none is."""
    run = get_object_or_404(seen_by(request).filter(kind=Run.Kind.POLICY), pk=pk)
    asked = whole(request.GET.get("step"), -1)
    made = run.steps.exclude(step=0).order_by("-step")  # 0 is what was measured of the start
    found = made.first()
    if asked >= 0:
        found = made.filter(step__lte=asked).first() or made.last()
    return redirect("step", pk, found.step) if found else redirect("run", pk)


@admin_required
@require_safe
def step(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """The page; with `one`, that rollout alone and its tokens in a table."""
    run, row = _step(request, pk, number)
    context: dict[str, Any] = {
        "project": run.project,
        "run": run,
        "step": row,
        "before": run.steps.filter(step__lt=number, step__gt=0).order_by("-step").first(),
        "after": run.steps.filter(step__gt=number).order_by("step").first(),
        "orders": {
            name: words
            for name, (words, _) in rollouts.ORDERS.items()
            if name != "score" or run.reward_model_id or not run.checker
        },
        "kept": urlencode({name: request.GET[name] for name in KEPT if request.GET.get(name)}),
    }
    try:
        context |= _shown(run, row, request.GET)
    except rollouts.NotThere as missing:
        context["missing"] = str(missing)
    part = "#tokens" if "one" in request.GET else "#rollouts"
    return render(request, PAGE + part if request.htmx else PAGE, context)


def _shown(run: Run, step: Step, given: Any) -> dict[str, Any]:
    by = given.get("by") if given.get("by") in rollouts.ORDERS else "written"
    low, flat = bool(given.get("low")), bool(given.get("flat"))
    found = rollouts.written(run, step)
    if not found:
        raise rollouts.NotThere("No rollout of this step was kept.")
    one = next((each for each in found if each.name == given.get("one")), None)
    groups = rollouts.ordered([one] if one else found, by, low, not flat)
    longest = max(each.length for each in found) or 1
    fit = max(1, min(MOST_SHOWN, MOST_TOKENS // longest))
    if flat:  # a list of them is cut as prompts are
        groups = [groups[0][first : first + fit] for first in range(0, len(groups[0]), fit)]
    at_once = 1 if flat else max(1, fit // max(map(len, groups)))
    page = Paginator(groups, at_once).get_page(given.get("page"))
    groups = list(page)
    shown = [each for group in groups for each in group]
    rollouts.with_tokens(run, step, shown)
    rollouts.sent(run, step.step, shown)
    return {
        "groups": groups,
        "page": page,
        "by": by,
        "low": low,
        "flat": flat,
        "one": one,
        "made": len(found),
        "trained": sum(each.trained for each in found),
        "finished": sum(each.finished for each in found),
        "prompts": len({each.group for each in found}),
    }


@admin_required
@require_POST
def send(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """The chosen rollouts to the labelers, as a quintet; or that quintet back, while nobody has ranked it."""
    run, row = _step(request, pk, number)
    if quintet := request.POST.get("quintet", ""):
        return _taken_back(request, run, row, quintet)
    wanted, place = set(request.POST.getlist("rollout")), request.POST.get("place", "")
    try:
        every = rollouts.written(run, row)
        chosen = [one for one in every if one.name in wanted]
        made, new = rollouts.send(run, row, chosen, request.user, every)
    except (sending.SendRefused, rollouts.NotThere) as refused:
        messages.error(request, str(refused))
    else:
        said = "They wait for the labelers now" if new else "They were sent before"
        messages.success(request, f"{said}, as quintet {made.pk}.")
        place = chosen[0].name
    return _back(request, run, row, place)


def _taken_back(request: HttpRequest, run: Run, step: Step, number: str) -> HttpResponse:
    quintets = run.quintets.filter(extra__step=step.step)
    found = quintets.filter(pk=whole(number)).first()
    if found is None:
        raise Http404
    name = found.extra["rollouts"][0]
    try:
        sending.take_back(found, f"rollouts of {run}", request.user)
    except sending.SendRefused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, f"Quintet {number} is taken back.")
    return _back(request, run, step, name)


def _back(request: HttpRequest, run: Run, step: Step, place: str) -> HttpResponse:
    """To where on the page it was pressed."""
    kept = {name: request.POST[name] for name in KEPT if request.POST.get(name)}
    at = f"#r-{place}" if re.fullmatch(r"\d+-\d+", place) else ""
    return redirect(f"{reverse('step', args=[run.pk, step.step])}?{urlencode(kept)}{at}")
