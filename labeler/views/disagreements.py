"""The disagreement table of a reward run: each held-out ranking beside the model's scores, at any measured
step, the worst disagreement first; and what a reviewer asks for there. For reviewers and admins.

How the table is put together is said in labeler/disagreements.py, what marking and asking do in
labeler/review.py."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler import disagreements as table
from labeler import review as decisions
from labeler.access import labeler_required
from labeler.models import Project, Quintet, Run
from labeler.models.rankings import RankingRefused

A_PAGE = 25
PAGE = "disagreements/disagreements.html"
GONE = "Its ranking is not here any more: it was taken back, or taken out with its import."


def _run(request: HttpRequest, pk: int) -> Run:
    projects = Project.objects.reviewed_by(request.user)
    found = Run.objects.filter(kind=Run.Kind.REWARD, project__in=projects).select_related("project")
    return get_object_or_404(found, pk=pk)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


def _look(given: Any, measured: list[int]) -> int:
    """Which measurement is asked for: by its number from 0 (the slider), or by its step (a link); the newest
    where none is."""
    look, step = _number(given.get("look")), _number(given.get("step"))
    if look is None and step is not None:
        look = sum(each <= step for each in measured) - 1
    newest = len(measured) - 1
    return newest if look is None else max(0, min(look, newest))


@labeler_required
@require_safe
def disagreements(request: HttpRequest, pk: int) -> HttpResponse:
    run = _run(request, pk)
    measured = table.measured(run)
    context = {"project": run.project, "run": run, "measured": measured}
    if measured:
        context |= _shown(run, measured, request.GET)
    context["checkpoint"] = run.checkpoints.filter(step=context.get("step")).first()
    return render(request, f"{PAGE}#said" if request.htmx else PAGE, context)


def _shown(run: Run, measured: list[int], given: Any) -> dict[str, Any]:
    """A page of the table at the measured step that is asked for."""
    look = _look(given, measured)
    rows = table.at(run, measured[look], measured[look - 1] if look else None)
    quintet = _quintet(run, given.get("quintet"))
    alone = [row for row in rows if quintet and row.name == (quintet.external_id or str(quintet.pk))]
    # In the order of the last step the cards stay where they are while the slider moves.
    still = given.get("order") == "last"
    order = table.at(run, measured[-1]) if still and look < len(measured) - 1 else None
    page = Paginator(table.worst_first(alone or rows, order), A_PAGE).get_page(given.get("page"))
    table.read(run, measured[0], page.object_list)
    table.look_up(run, page.object_list)
    return {
        "look": look,
        "step": measured[look],
        "before": measured[look - 1] if look else None,
        "after": measured[look + 1] if look + 1 < len(measured) else None,
        "order": "last" if still else "",
        "page": page,
        "page_number": page.number,
        "followed": len(rows),
        "alone": quintet if alone else None,
        "sums": table.summary(rows),
        "held_out": run.result.get("metrics", {}).get("held_out") or 0,
    }


def _quintet(run: Run, given: str | None) -> Quintet | None:
    """The one whose scores alone are asked for."""
    number = _number(given)
    return run.project.quintets.filter(pk=number).first() if number else None


@labeler_required
@require_POST
def review(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    """Mark the ranking for review, or take that back."""
    run, row, step = _row(request, pk, index)
    if row.ranking is None:
        return _answered(request, run, index, refused=GONE)
    who = row.ranking.labeler
    if "undo" in request.POST:
        decisions.lower(row.ranking, request.user)
        return _answered(request, run, index, f"The ranking by {who} is not marked for review any more.")
    decisions.flag(row.ranking, request.user, run, step)
    return _answered(request, run, index, f"The ranking by {who} stands on the review list now.")


@labeler_required
@require_POST
def another(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    """Ask one more labeler, or take that back."""
    run, row, _ = _row(request, pk, index)
    if row.quintet is None:
        return _answered(request, run, index, refused=GONE)
    if "undo" in request.POST:
        if not decisions.ask_no_more(row.quintet, request.user, only_asked=True) and row.asked:
            return _answered(request, run, index, refused="Somebody is ranking it at this moment.")
        return _answered(request, run, index, "Nobody more is asked for it.")
    try:
        decisions.ask_another(row.quintet, request.user, unless_asked=True)
    except RankingRefused as refused:
        return _answered(request, run, index, refused=str(refused))
    return _answered(request, run, index, "One more labeler is asked for it: somebody who has not ranked it.")


def _row(request: HttpRequest, pk: int, index: int) -> tuple[Run, table.Held, int]:
    """One held-out ranking at the step that was looked at, with its quintet and ranking."""
    run = _run(request, pk)
    measured = table.measured(run)
    if not measured:
        raise Http404
    step = measured[_look(request.POST, measured)]
    row = next((each for each in table.at(run, step) if each.index == index), None)
    if row is None:
        raise Http404
    table.read(run, measured[0], [row])
    table.look_up(run, [row])
    return run, row, step


def _answered(request: HttpRequest, run: Run, index: int, said: str = "", refused: str = "") -> HttpResponse:
    """The buttons as they are now with what was done; without htmx the page again, at the same card."""
    if not request.htmx:
        (messages.error if refused else messages.success)(request, said or refused)
        kept = {name: request.POST[name] for name in ("look", "order", "page") if request.POST.get(name)}
        return redirect(f"{reverse('disagreements', args=[run.pk])}?{urlencode(kept)}#held-{index}")
    row = _row(request, run.pk, index)[1]
    context = {"project": run.project, "run": run, "row": row, "said": said, "refused": refused}
    kept = {name: request.POST.get(name, "") for name in ("look", "order")}
    return render(request, f"{PAGE}#acts", context | kept | {"page_number": request.POST.get("page", "")})
