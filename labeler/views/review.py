"""Review: what was set aside, what was marked because the reward model disagrees, then where people disagree
most; one quintet with everybody's ranks side by side; and the gold and practice quintets. For a project's
reviewers and admins.

What a decision does is said in labeler/review.py. Left out: how far labelers agree in all (agreement.py), and
who wrote which rollout, because reviewers rank as well."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from labeler import aggregate
from labeler import review as decisions
from labeler.access import labeler_required
from labeler.agreement import of_quintet
from labeler.agreement.report import catch_up
from labeler.models import Flag, Project, Prompt, Purpose, Quintet, Ranking, Tallied
from labeler.models.checks import scores
from labeler.models.rankings import RankingRefused
from rlhf.data import PromptLine

A_PAGE = 20
SHOWN_ASIDE = 50
LETTERS = "ABCDE"
CHECKS = {"gold": Purpose.GOLD, "practice": Purpose.PRACTICE}


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.reviewed_by(request.user), slug=slug)


def _quintet(request: HttpRequest, slug: str, pk: int, **of: str) -> Quintet:
    found = Quintet.objects.select_related("project", "prompt", "round", "reviewed_by")
    return get_object_or_404(found.prefetch_related("rollouts"), pk=pk, project=_project(request, slug), **of)


def disagreements(project: Project) -> QuerySet[Tallied]:
    """Those that nobody has reviewed, the least agreement first: read from an index, not worked out. Not
    what stands above them, because it was marked."""
    quintets = Quintet.objects.filter(pk=OuterRef("quintet_id"), reviewed_at=None, set_aside_at=None)
    marked = Flag.objects.open().filter(ranking__quintet=OuterRef("quintet_id"))
    found = Tallied.objects.filter(project_id=project.pk, tau__lt=1).filter(Exists(quintets), ~Exists(marked))
    return found.order_by("tau", "quintet_id")


@labeler_required
@require_safe
def review(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    number = request.GET.get("page", "1")
    page = int(number) if number.isdecimal() and 0 < len(number) < 7 else 1
    start = (max(page, 1) - 1) * A_PAGE
    show = request.GET.get("show", "")
    if show != "decided":
        catch_up(project)
    pairs = _pairs(project, show, start)
    marked = [] if show or page > 1 else _pairs(project, "model", 0)
    aside = project.quintets.filter(set_aside_at__isnull=False, purpose=Purpose.WORK)
    aside = aside.select_related("prompt").prefetch_related("skips__labeler").order_by("-set_aside_at")
    context = {
        "project": project,
        "show": show,
        "rows": _rows(dict(pairs[:A_PAGE])),
        "marked": _rows(dict(marked[:A_PAGE])),
        "more_marked": len(marked) > A_PAGE,
        "aside": [] if show or page > 1 else aside[:SHOWN_ASIDE],
        "page": page,
        "earlier": page - 1 if page > 1 else None,
        "later": page + 1 if len(pairs) > A_PAGE else None,
    }
    return render(request, "review/review.html", context)


def _pairs(project: Project, show: str, start: int) -> list[tuple[int, float | None]]:
    """The numbers of the quintets of a page and one more, each with its tau where that is why it is here."""
    end = start + A_PAGE + 1
    if show == "decided":
        settled = project.quintets.filter(reviewed_at__isnull=False).order_by("-reviewed_at")
        return [(pk, None) for pk in settled.values_list("pk", flat=True)[start:end]]
    if show == "model":
        return [(pk, None) for pk, _ in Flag.objects.open().quintets(project)[start:end]]
    return list(disagreements(project).values_list("quintet_id", "tau")[start:end])


def _rows(taus: dict[int, float | None]) -> list[Quintet]:
    """The quintets of these numbers in this order, each with its tau, how many ranked it, and its flags."""
    people = Q(rankings__current=True, rankings__purpose=Purpose.WORK, rankings__simulated=False)
    marked = people & (Q(rankings__nonsense__len__gt=0) | Q(rankings__unsafe__len__gt=0))
    found = Quintet.objects.filter(pk__in=taus).select_related("prompt", "reviewed_by")
    counted = found.annotate(
        people=Count("rankings", filter=people), marked=Count("rankings", filter=marked)
    ).in_bulk()
    for pk, quintet in counted.items():
        quintet.tau, quintet.flags = taus[pk], []
    for flag in Flag.objects.open().filter(ranking__quintet__in=counted).told():
        counted[flag.ranking.quintet_id].flags.append(flag)
    return [counted[pk] for pk in taus if pk in counted]


@labeler_required
@require_safe
def quintet(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    quintet = _quintet(request, slug, pk)
    marked = Flag.objects.open().quintets(quintet.project).exclude(ranking__quintet=pk).first()
    following = disagreements(quintet.project).exclude(quintet_id=pk).values_list("quintet_id", flat=True)
    copies = quintet.copies.filter(set_aside_at=None)
    waiting = quintet.places.waiting().count()
    context: dict[str, Any] = {
        "project": quintet.project,
        "quintet": quintet,
        "next": marked[0] if marked else following.first(),
        "flags": Flag.objects.open().filter(ranking__quintet=quintet).told(),
        "copies": copies,
    }
    context |= {"waiting": waiting, "ranks": range(1, len(quintet.rollouts.all()) + 1)}
    return render(request, "review/quintet.html", context | _seen(quintet))


def _seen(quintet: Quintet) -> dict[str, Any]:
    """Everybody's newest ranking with the older versions behind it, and what they come to together: of the
    people who are not excluded, or of simulated labelers where no person has ranked it."""
    found = quintet.rankings.filter(purpose__in=[quintet.purpose, Purpose.REPEAT])
    found = found.select_related("labeler", "guidelines").order_by("simulated", "labeler__username", "-pk")
    memberships = quintet.project.memberships.filter(excluded_at__isnull=False)
    excluded = set(memberships.values_list("user", flat=True))
    rankings = [each for each in found if each.current]
    for ranking in rankings:
        ranking.excluded = ranking.labeler_id in excluded
        ranking.earlier = [
            each
            for each in found
            if not each.current and (each.labeler_id, each.purpose) == (ranking.labeler_id, ranking.purpose)
        ]
    counted = [each for each in rankings if not each.excluded and each.purpose == quintet.purpose]
    people = [each.ranks for each in counted if not each.simulated]
    together = people or [each.ranks for each in counted]
    about: dict[str, Any] = {
        "rankings": rankings,
        "together": len(together),
        "simulated_only": bool(together) and not people,
    }
    known: list[int] | None = quintet.decided_ranks or quintet.known_ranks
    if together:
        about |= {"consensus": aggregate.consensus(together), "tau": of_quintet(together)}
        known = known or about["consensus"]
    return about | {
        "all_tied": known is not None and len(set(known)) == 1,
        "rollouts": _rollouts(quintet, together, known),
        "skips": quintet.skips.select_related("labeler"),
    }


def _rollouts(quintet: Quintet, together: list[list[int]], known: list[int] | None) -> list[dict]:
    """The rollouts under their letters, the best first where anything is known: with the consensus and the
    strengths, whose intervals are drawn on one common line of 100 steps."""
    rows: list[dict[str, Any]] = [
        {"letter": letter, "rollout": rollout, "rank": known[rollout.slot] if known else None}
        for letter, rollout in zip(LETTERS, quintet.rollouts.all(), strict=False)
    ]
    if together:
        strengths = aggregate.strengths(together)
        least, most = min(low for _, low, _ in strengths), max(high for _, _, high in strengths)
        scale = 100 / ((most - least) or 1)
        for row, (mid, low, high) in zip(rows, strengths, strict=True):
            row |= {"strength": mid, "low": low, "high": high}
            row |= {"from": (low - least) * scale, "wide": (high - low) * scale, "at": (mid - least) * scale}
    return sorted(rows, key=lambda row: row["rank"] or 0)


@labeler_required
@require_POST
def settle(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Accept it as it is, decide it by ranks of one's own, or take either back."""
    quintet = _quintet(request, slug, pk, purpose=Purpose.WORK)
    if "undo" in request.POST:
        decisions.reopen(quintet, request.user)
        messages.success(request, "It is open again.")
    elif "accept" in request.POST:
        decisions.accept(quintet, request.user)
        messages.success(request, "It is accepted as it is.")
    else:
        try:
            decisions.decide(quintet, request.user, _ranks(request, quintet))
            messages.success(request, "It is decided by your ranks.")
        except RankingRefused as refused:
            messages.error(request, str(refused))
    return redirect("review_quintet", slug, pk)


@labeler_required
@require_POST
def send_back(request: HttpRequest, slug: str, pk: int, ranking: int) -> HttpResponse:
    quintet = _quintet(request, slug, pk)
    work = Ranking.objects.work().by_people().select_related("labeler", "quintet__project")
    found = get_object_or_404(work, pk=ranking, quintet=quintet)
    if "undo" in request.POST:
        decisions.keep_after_all(found, request.user)
    elif because := request.POST.get("because", "").replace("\0", "").strip():
        found.send_back(request.user, because)
        messages.success(request, f"{found.labeler} is asked to do it again. Until then it counts as it is.")
    else:
        messages.error(request, "Nothing is sent back: say why, so that they know what to look at.")
    return redirect("review_quintet", slug, pk)


@labeler_required
@require_POST
def another(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    quintet = _quintet(request, slug, pk, purpose=Purpose.WORK)
    try:
        ask = decisions.ask_no_more if "undo" in request.POST else decisions.ask_another
        ask(quintet, request.user)
    except RankingRefused as refused:
        messages.error(request, str(refused))
    return redirect("review_quintet", slug, pk)


@labeler_required
@require_POST
def queue(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Set it aside, or put it back into the queue."""
    quintet = _quintet(request, slug, pk, purpose=Purpose.WORK)
    if "undo" in request.POST:
        quintet.bring_back(request.user)
        messages.success(request, "It is in the queue again, for those who did not skip it.")
    elif because := request.POST.get("because", "").replace("\0", "").strip():
        quintet.set_aside(request.user, because)
        messages.success(request, "It is out of the queue.")
    else:
        messages.error(request, "Nothing is changed: say why, so that others can understand it later.")
    return redirect("review_quintet", slug, pk)


@labeler_required
@require_POST
def make_check(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """A gold or practice quintet, copied from this one."""
    quintet = _quintet(request, slug, pk, purpose=Purpose.WORK)
    purpose = CHECKS.get(request.POST.get("purpose", ""), Purpose.GOLD)
    explanation = request.POST.get("explanation", "").replace("\0", "").strip()
    try:
        ranks = _ranks(request, quintet)
        made = decisions.make_check(quintet, request.user, purpose, ranks, explanation)
        messages.success(request, f"Quintet {made.pk} is a {purpose} quintet now, copied from this one.")
    except RankingRefused as refused:
        messages.error(request, str(refused))
    return redirect("review_quintet", slug, pk)


def _ranks(request: HttpRequest, quintet: Quintet) -> list[int | None]:
    """The ranks of a form, slot by slot; None where it gave none."""
    sent = [request.POST.get(f"rank-{slot}", "") for slot in range(len(quintet.rollouts.all()))]
    return [int(rank) if rank in set("12345") else None for rank in sent]


# Gold and practice


class CheckForm(forms.Form):
    """A check by hand: a prompt, two to five rollouts with their ranks, and why."""

    purpose = forms.ChoiceField(choices=[("gold", "Gold"), ("practice", "Practice")], label="For")
    prompt = forms.CharField(label="Prompt", widget=forms.Textarea({"rows": 2, "dir": "auto"}))
    explanation = forms.CharField(
        required=False,
        label="Why these ranks",
        widget=forms.Textarea({"rows": 2, "dir": "auto"}),
        help_text="Told after the practice. Of a gold quintet labelers never hear.",
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        text = forms.Textarea({"rows": 2, "dir": "auto"})
        ranks = [("", "–"), *((str(rank), str(rank)) for rank in range(1, 6))]
        for letter in LETTERS:
            self.fields[f"text_{letter}"] = forms.CharField(
                required=False, label=f"Rollout {letter}", widget=text
            )
            self.fields[f"rank_{letter}"] = forms.ChoiceField(
                required=False, label=f"Rank of {letter}", choices=ranks
            )

    def clean(self) -> dict:
        data = self.cleaned_data
        given = [letter for letter in LETTERS if data.get(f"text_{letter}")]
        for letter in LETTERS:
            if bool(data.get(f"text_{letter}")) != bool(data.get(f"rank_{letter}")):
                self.add_error(f"rank_{letter}", "A rollout and its rank belong together.")
        if len(given) < 2:
            self.add_error(None, "At least two rollouts are needed, each with its rank.")
        if not self.errors:
            self.texts = [data[f"text_{letter}"] for letter in given]
            self.ranks = [int(data[f"rank_{letter}"]) for letter in given]
            if len(set(self.ranks)) == 1:
                self.add_error(None, "All ranks are equal: there would be nothing to check against.")
        return data

    @property
    def rollouts(self) -> list[tuple[forms.BoundField, forms.BoundField]]:
        return [(self[f"text_{letter}"], self[f"rank_{letter}"]) for letter in LETTERS]

    def save(self, project: Project, by) -> Quintet:
        line = PromptLine(self.cleaned_data["prompt"])
        Prompt.objects.add(project, [line])
        prompt = project.prompts.get(digest=Prompt.of(project, line).digest)
        purpose, words = CHECKS[self.cleaned_data["purpose"]], self.cleaned_data["explanation"]
        return decisions.compose_check(project, by, purpose, prompt, self.texts, self.ranks, words)


@labeler_required
def checks(request: HttpRequest, slug: str) -> HttpResponse:
    """The gold and practice quintets, and how the labelers do on them."""
    project = _project(request, slug)
    form = CheckForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        made = form.save(project, request.user)
        messages.success(request, f"Quintet {made.pk} is a {made.purpose} quintet.")
        return redirect("checks", slug)
    known = project.quintets.filter(purpose__in=[Purpose.GOLD, Purpose.PRACTICE]).select_related("prompt")
    ranked = Count("rankings", filter=Q(rankings__current=True))
    known = (
        known.annotate(ranked=ranked).prefetch_related("rollouts").order_by("-set_aside_at", "purpose", "-pk")
    )
    context = {
        "project": project,
        "form": form,
        "page": Paginator(known, A_PAGE).get_page(request.GET.get("page")),
        "people": _checked(project),
    }
    return render(request, "review/checks.html", context, status=422 if form.is_bound else 200)


def _checked(project: Project) -> list[dict]:
    """Everybody in the project with what the checks say of them."""
    found = scores(project)
    members = project.memberships.filter(user__simulated=False, user__in=found).select_related("user")
    rows = [{"membership": each, **found[each.user_id]} for each in members]
    return sorted(rows, key=lambda row: row["gold"].share if row["gold"].share is not None else 2.0)


@labeler_required
@require_POST
def check_remove(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    quintet = _quintet(request, slug, pk, purpose__in=[Purpose.GOLD, Purpose.PRACTICE])
    if "undo" in request.POST:
        decisions.restore_check(quintet, request.user)
    else:
        decisions.remove_check(quintet, request.user)
    return redirect("checks", slug)
