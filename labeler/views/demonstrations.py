"""Demonstrations: writing ideal answers, one prompt a page and the next one in the answer to the last; one's
own of them; and for the project's admins all of them, those that rollouts become, and the gap between writing
and ranking.

Whose turn it is is decided in models/sheets.py, what is kept in models/demonstrations.py; what a sheet shows,
in labeler/sheets.py; which rollouts can join, in labeler/gathering.py; what the gap is, in labeler/gap.py."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler import checking, gap_pictures, gathering
from labeler import gap as measured
from labeler.access import admin_required, labeler_required
from labeler.cards import seconds, turns
from labeler.datasets import Query, only_simulated
from labeler.models import Demonstration, Origin, Project, Quintet, Request, Sheet
from labeler.models.sheets import AnswerRefused
from labeler.numbers import whole
from labeler.samples import differences
from labeler.sheets import DRAFT, about, begun, desk, source, today
from labeler.templatetags.words import count

A_PAGE = 30
LATELY = 20  # skipped prompts
LENGTHS = {"short": (0, 100), "middle": (100, 1000), "long": (1000, None)}
SHEET = "demonstrations/demonstrations.html"


def project_of(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


@labeler_required
@require_safe
def demonstrations(request: HttpRequest, slug: str) -> HttpResponse:
    """The next prompt to write for, or the one that is asked for."""
    project = project_of(request, slug)
    wanted, note = project.prompts.filter(pk=whole(request.GET.get("prompt"))).first(), ""
    sheet = Sheet.objects.next_for(request.user, project, wanted)
    if wanted and sheet is None:
        note = "You have answered or skipped that prompt, or somebody is writing for it. Here is another."
        sheet = Sheet.objects.next_for(request.user, project)
    if sheet is None and request.htmx and request.GET.get("state") == nothing_because(request, project):
        return HttpResponse(status=204)  # what the page says already
    return answer(request, project, sheet, note=note)


@labeler_required
@require_POST
def send(request: HttpRequest, slug: str) -> HttpResponse:
    project, filled = project_of(request, slug), request.POST.dict()
    ticket, made, note, status = None, None, "", 200
    try:
        ticket = Sheet.objects.redeem(filled.get("ticket", ""), request.user, project)
        if "start" in filled:
            return answer(request, project, ticket.sheet, filled=begun(ticket.sheet, filled))
        made = Demonstration.objects.write(
            ticket,
            filled.get("completion", ""),
            focus_seconds=seconds({"focus_seconds": [filled.get("focus_seconds", "")]}),
            **source(ticket.sheet.prompt, filled.get("from", "")),
        )
    except AnswerRefused as refused:
        if ticket:
            return answer(request, project, ticket.sheet, filled=filled, error=str(refused), status=422)
        note, status = str(refused), 422
    if made and (doubt := checking.doubt(ticket.sheet.prompt, made.completion)):
        note = f"Kept, though the checker finds it wrong: {doubt}"
    if made and not request.htmx:
        where = "It is in “Your answers”, where it can be changed."
        (messages.warning if note else messages.success)(request, f"{note or 'Kept.'} {where}")
        return redirect("demonstrations", slug=slug)
    sheet = Sheet.objects.next_for(request.user, project)
    return answer(request, project, sheet, note=note, status=status, undo=made)


@labeler_required
@require_POST
def draft(request: HttpRequest, slug: str) -> HttpResponse:
    """What is written so far, kept for another day or another browser; the lease begins anew."""
    project = project_of(request, slug)
    said = {name: request.POST.get(name, "").replace("\0", "") for name in DRAFT}
    try:
        sheet = Sheet.objects.redeem(request.POST.get("ticket", ""), request.user, project).sheet
        sheet.keep_draft(said if said["completion"].strip() else None)
        sheet.renew()
    except AnswerRefused as refused:
        return HttpResponse(str(refused), status=422, content_type="text/plain; charset=utf-8")
    return HttpResponse(status=204)


@labeler_required
@require_POST
def hold(request: HttpRequest, slug: str) -> HttpResponse:
    Sheet.objects.hold(request.user, project_of(request, slug))
    return HttpResponse(status=204)


@labeler_required
@require_POST
def skip(request: HttpRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    skipped, note = None, ""
    try:
        skipped = Sheet.objects.redeem(request.POST.get("ticket", ""), request.user, project).sheet
        skipped.skip(request.POST.get("reason", ""))
    except AnswerRefused as refused:
        skipped, note = None, str(refused)
    if not request.htmx and not note:
        return redirect("demonstrations", slug=slug)
    sheet, status = Sheet.objects.next_for(request.user, project), 422 if note else 200
    return answer(request, project, sheet, note=note, status=status, undo=skipped)


@labeler_required
@require_POST
def unskip(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    project = project_of(request, slug)
    back = get_object_or_404(Sheet.objects.skipped(request.user, project), pk=pk).within(project)
    note = "" if back.unskip() else "Somebody writes for that one by now. Here is your next prompt."
    if not request.htmx and not note:
        return redirect("demonstrations", slug=slug)
    return answer(request, project, Sheet.objects.next_for(request.user, project), note=note)


@labeler_required
@require_POST
def undo(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Take back what one has sent, and have it before one again."""
    project = project_of(request, slug)
    mine = mine_in(request, project).left_to(request.user).select_related("project", "prompt")
    found = get_object_or_404(mine, pk=pk)
    sheet = found.take_back(request.user).within(project)
    if not request.htmx:
        return redirect("demonstrations", slug=slug)
    return answer(request, project, sheet, note="Taken back: it counts only once you send it again.")


# One's own


def mine_in(request: HttpRequest, project: Project):
    return project.demonstrations.written_by(request.user)


@labeler_required
@require_safe
def mine(request: HttpRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    found = mine_in(request, project).select_related("prompt").order_by("-pk")
    context = {
        "project": project,
        "page": Paginator(found, A_PAGE).get_page(request.GET.get("page")),
        "skipped": Sheet.objects.skipped(request.user, project)[:LATELY],
        **today(request.user, project),
    }
    return render(request, "demonstrations/mine.html", context)


@labeler_required
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One's own answer, to be changed: what stood there before is kept beside it."""
    project = project_of(request, slug)
    mine = project.demonstrations.changeable_by(request.user).select_related("prompt__project")
    found = get_object_or_404(mine, pk=pk)
    filled, error = request.POST.dict(), ""
    if request.method == "POST":
        try:
            spent = seconds({"focus_seconds": [filled.get("focus_seconds", "")]})
            found.rewrite(filled.get("completion", ""), spent)
        except AnswerRefused as refused:
            error = str(refused)
        else:
            doubt = checking.doubt(found.prompt, filled.get("completion", ""))
            words = "Changed. What stood there before is kept beside it."
            words += f" The checker finds it wrong: {doubt}" if doubt else ""
            (messages.warning if doubt else messages.success)(request, words)
            there = reverse("demonstrations_mine", args=[slug])
            return HttpResponse(headers={"HX-Redirect": there}) if request.htmx else redirect(there)
    context = about(request.user, project) | {"error": error, "demonstration": found}
    context |= desk(found.prompt, filled if error else {"completion": found.completion})
    context |= {"to": request.path, "says": "Keep this answer", "key": f"demonstration {pk} {found.version}"}
    return page(request, context, status=422 if error else 200)


@labeler_required
@require_POST
def withdraw(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One's own, out of every later dataset; or (`back`) in again, unless somebody else has withdrawn it."""
    project = project_of(request, slug)
    turned(request, get_object_or_404(mine_in(request, project).left_to(request.user), pk=pk))
    return redirect("demonstrations_mine", slug=slug)


def turned(request: HttpRequest, found: Demonstration) -> None:
    if "back" in request.POST:
        found.put_back(request.user)
        messages.success(request, "It counts again.")
    else:
        found.withdraw(request.user)
        messages.success(request, "Withdrawn: it is in no later dataset. It can be put back.")


# What the page of a sheet shows


def nothing_because(request: HttpRequest, project: Project) -> str:
    if project.memberships.filter(user=request.user, paused_at__isnull=False).exists():
        return "paused"
    return "done" if project.prompts.exists() else "empty"


def answer(
    request: HttpRequest,
    project: Project,
    sheet: Sheet | None,
    *,
    filled: dict[str, str] | None = None,
    error: str = "",
    note: str = "",
    status: int = 200,
    undo: Demonstration | Sheet | None = None,
) -> HttpResponse:
    """The prompt of this sheet, with what is written so far; without one, why there is none."""
    context = about(request.user, project) | {"error": error, "note": note}
    if undo:
        name = "demonstration_unskip" if isinstance(undo, Sheet) else "demonstration_undo"
        says = "Take the skip back" if isinstance(undo, Sheet) else "Take it back"
        context["undo"] = {"says": says, "url": reverse(name, args=[project.slug, undo.pk])}
    if sheet:
        context |= desk(sheet.prompt, filled or sheet.draft or {}, sheet)
        context |= {"to": reverse("demonstration_send", args=[project.slug]), "says": "Send, and the next"}
        context |= {"ticket": request.POST["ticket"] if error else sheet.ticket(), "key": str(sheet.key)}
        context |= {"sheet": sheet, "reasons": Sheet.Skipped.choices}
    else:
        context |= {"state": nothing_because(request, project), "runs_it": request.user.may_run(project)}
        if context["state"] == "paused":
            context["because"] = project.memberships.get(user=request.user).paused_because
    return page(request, context, status=status)


def page(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    return render(request, f"{SHEET}#sheet" if request.htmx else SHEET, context, status=status)


# All of them


@admin_required
@require_safe
def everything(request: HttpRequest, slug: str) -> HttpResponse:
    """All of the project, searched and sorted."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    given = {name: request.GET.get(name, "").strip() for name in ("words", "author", "origin", "length")}
    found = project.demonstrations.search(given["words"]).with_length()
    if given["author"]:
        found = found.filter(author__username=given["author"])
    if given["origin"] == "withdrawn":
        found = found.exclude(withdrawn_at=None)
    elif given["origin"] in Origin.values:
        found = found.filter(origin=given["origin"], withdrawn_at=None)
    if bounds := LENGTHS.get(given["length"]):
        low, high = bounds
        found = found.filter(characters__gte=low, **({"characters__lt": high} if high else {}))
    order = {"longest": "-characters", "shortest": "characters"}.get(request.GET.get("order", ""), "-pk")
    told = found.select_related("prompt", "author", "run").order_by(order, "-pk")
    authors = project.demonstrations.exclude(author=None).order_by("author__username")
    context = {
        "project": project,
        "page": Paginator(told, A_PAGE).get_page(request.GET.get("page")),
        "given": given,
        "order": request.GET.get("order", ""),
        "authors": authors.values_list("author__username", flat=True).distinct(),
        "origins": Origin.choices,
        "counts": project.demonstrations.all().counted().by_origin(),
        "withdrawn": project.demonstrations.exclude(withdrawn_at=None).count(),
    }
    template = "demonstrations/all.html"
    return render(request, f"{template}#list" if request.htmx else template, context)


@admin_required
@require_safe
def one(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One of them, beside what it began as and what it said before."""
    found = _found(request, slug, pk)
    context: dict[str, Any] = {"project": found.project, "demonstration": found, "turns": turns(found.prompt)}
    context["earlier"] = list(found.earlier.all())
    context["may_change"] = found.project.demonstrations.changeable_by(request.user).filter(pk=pk).exists()
    if found.origin == Origin.EDITED:
        was, now = differences(found.source, found.completion)
        context |= {"was": was, "now": now, "same": found.source.strip() == found.completion.strip()}
    quintet = found.came_from.get("quintet")
    context["quintet"] = (
        Quintet.objects.filter(project=found.project, pk=quintet).first() if quintet else None
    )
    return render(request, "demonstrations/one.html", context)


@admin_required
@require_POST
def remove(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Anybody's, out of every later dataset; or (`back`) in again."""
    turned(request, _found(request, slug, pk))
    return redirect("demonstration", slug, pk)


def _found(request: HttpRequest, slug: str, pk: int) -> Demonstration:
    mine = Demonstration.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    return get_object_or_404(mine.select_related("project", "prompt", "author", "run", "guidelines"), pk=pk)


# Those that rollouts become


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def gather(request: HttpRequest, slug: str) -> HttpResponse:
    """Rollouts that won or were right: counted, then taken in, and taken out again."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    asked = project.requests.filter(kind=Request.Kind.GATHER)
    if request.method == "POST":
        do, found = request.POST.get("do", "count"), asked.filter(pk=whole(request.POST.get("of"))).first()
        if do == "undo" and found:
            gone, stay = gathering.take_out(project, found, request.user)
            kept = f" {stay:,} stay, because people have edited or ranked them since." if stay else ""
            messages.success(request, f"{gone:,} are taken out again.{kept}")
        elif do == "take" and found:
            question = found.question | {"take": True}
            Request.objects.ask(project, Request.Kind.GATHER, question, request.user)
        elif do == "count":
            Request.objects.ask(project, Request.Kind.GATHER, _question(project, request), request.user)
        return redirect("demonstrations_gather", slug=slug)
    newest = asked.first()
    joined = [
        each for each in asked.filter(state=Request.State.ANSWERED)[:A_PAGE] if each.question.get("take")
    ]
    mine = project.demonstrations.filter(came_from__has_key="gathering")
    left = dict(mine.order_by().values_list("came_from__gathering").annotate(Count("pk")))
    runs = gathering.runs_of(project)
    practised = runs[0].pk if runs and project.is_checked else None
    context = {
        "project": project,
        "asked": newest,
        "waiting": newest is not None and newest.is_live,
        "runs": runs,
        "chosen": newest.question if newest else {"run": practised, "simulated": only_simulated(project)},
        "most": gathering.MOST,
        "counts": project.demonstrations.all().counted().by_origin(),
        "simulated": Query(simulated=True).rows(project).filter(simulated=True).exists(),
        "joined": [(each, left.get(each.pk, 0)) for each in joined],
    }
    template = "demonstrations/gather.html"
    return render(request, f"{template}#asked" if request.htmx else template, context)


def _question(project: Project, request: HttpRequest) -> dict[str, Any]:
    run = project.runs.filter(pk=whole(request.POST.get("from"))).first()
    most = min(max(whole(request.POST.get("most")) or gathering.MOST, 1), 64)
    return {"run": run.pk if run else None, "simulated": "simulated" in request.POST, "most": most}


# The gap


@labeler_required
@require_safe
def gap(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.reviewed_by(request.user), slug=slug)
    found = measured.of(project)
    context = {
        "project": project,
        "gap": found,
        "times": gap_pictures.times(found),
        "shares": gap_pictures.shares(found),
        "mixable": measured.mixable(project).count(),
        "mixed": measured.MIXED,
    }
    return render(request, "demonstrations/gap.html", context)


@admin_required
@require_POST
def mix(request: HttpRequest, slug: str) -> HttpResponse:
    """Written answers among rollouts, blind, into the ordinary queue."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    made, lacking = measured.mix(project, request.user)
    less = f" {lacking:,} had no rollout beside them that says something else." if lacking else ""
    said = (
        f"{count(made, 'quintet')} with a written answer among rollouts {'waits' if made == 1 else 'wait'}."
    )
    messages.success(request, f"{said}{less}")
    return redirect("demonstrations_gap", slug=slug)
