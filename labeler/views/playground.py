"""The playground: a prompt, a checkpoint or two, and what they answer, as they write it. Admins only.

What can be asked is in labeler/playground_forms.py, what there is of an answer in labeler/playground.py. The
page asks for what is new twice a second; without JavaScript it shows on every load what is there by then."""

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler import checking
from labeler import playground as play
from labeler.access import admin_required
from labeler.models import Checkpoint, Project, Quintet, Request
from labeler.models.sheets import AnswerRefused
from labeler.numbers import whole
from labeler.playground import Sitting
from labeler.playground_forms import PlayForm, filled_from, handed_on
from labeler.sending import SendRefused

PAGE = "playground/playground.html"
EXAMPLES = 5  # prompts of the project, where none is typed
AT_ONCE = 5_000  # tokens of all rollouts that are shown as chips together


def _asked(request: HttpRequest) -> QuerySet[Request]:
    projects = Project.objects.run_by(request.user)
    found = Request.objects.filter(kind=Request.Kind.PLAY, project__in=projects)
    return found.select_related("project", "created_by")


def _sitting(request: HttpRequest, pk: int) -> Sitting:
    """One question that this person may see: of their projects, and of checkpoints that they may see. What
    was said by one that is gone stays readable."""
    sitting = Sitting(get_object_or_404(_asked(request), pk=pk))
    there = Checkpoint.objects.filter(pk__in=sitting.asked["checkpoints"])
    if there.exclude(pk__in=Checkpoint.objects.seen_by(request.user).values("pk")).exists():
        raise Http404
    return sitting


@admin_required
def playground(request: HttpRequest) -> HttpResponse:
    """A new question, with what stands in the address filled in; or what was asked, on its way."""
    slug = request.POST.get("project") or request.GET.get("project")
    mine = Project.objects.run_by(request.user).distinct()
    project = get_object_or_404(mine, slug=slug) if slug else None
    if project is None and mine.count() == 1:
        project = mine.get()
    if "turns" in request.POST:  # one more turn, and nothing is asked yet
        longer = request.POST.copy()
        longer.appendlist("role", "user" if _said_last(request) == "assistant" else "assistant")
        longer.appendlist("content", "")
        form = PlayForm(request.user, project, longer)
        return render(request, PAGE, _context(request, project, form))
    given = request.POST if request.method == "POST" else request.GET
    form = PlayForm(request.user, project, given, asked=request.method == "POST")
    if request.method == "POST" and form.is_valid():
        return redirect("play", form.ask(another_seed="again" in request.POST).pk)
    status = 422 if request.method == "POST" else 200
    return render(request, PAGE, _context(request, project, form), status=status)


def _said_last(request: HttpRequest) -> str:
    return (request.POST.getlist("role") or ["user"])[-1]


@admin_required
@require_safe
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """A question with what there is of its answer; with `after`, what came since that part."""
    sitting = _sitting(request, pk)
    if request.htmx and "after" in request.GET:
        return _news(request, sitting, whole(request.GET["after"]))
    sitting.read().mark()
    for face in ("tokens", "text"):
        if request.htmx and face in request.GET:
            context = {"each": _named(sitting, request.GET[face]), "chips": face == "tokens"}
            return render(request, f"{PAGE}#face", context | {"asked": sitting.request})
    project = sitting.request.project
    form = PlayForm(request.user, project, filled_from(sitting.asked))
    return render(request, PAGE, _context(request, project, form, **_shown(request, sitting)))


def _context(request: HttpRequest, project: Project | None, form: PlayForm, **more: Any) -> dict[str, Any]:
    context = {"project": project, "form": form, "lately": play.lately(request.user), **more}
    if project and not any(turn["content"].strip() for turn in form.turns):
        context["examples"] = [each for each in project.prompts.order_by("?")[:EXAMPLES] if each.is_plain]
    return context


def _shown(request: HttpRequest, sitting: Sitting) -> dict[str, Any]:
    """Which rollouts stand in chips: the one that is asked for, or all where they are not too many."""
    wanted = request.GET.get("tokens", "")
    fit = sum(min(one.length, play.CHIPS) for one in sitting.rollouts) <= AT_ONCE
    chips = [one.name for one in sitting.rollouts if one.name == wanted or (wanted == "all" and fit)]
    return {
        "sitting": sitting,
        "asked": sitting.request,
        "chips": chips,
        "fit": fit,
        "waits": play.waits_for(sitting.request),
        "beside": play.computes_beside(request.user) if sitting.request.is_live else None,
        "address": handed_on(sitting.asked),
    }


def _named(sitting: Sitting, name: str) -> play.Said:
    found = next((one for one in sitting.rollouts if one.name == name), None)
    if found is None:
        raise Http404
    return found


def _news(request: HttpRequest, sitting: Sitting, after: int) -> HttpResponse:
    """What came since; all of it where it is complete by now, or somebody began to write anew."""
    bodies = list(sitting.request.parts.after(after).values_list("number", "body"))
    anew = any("prompt" in body for number, body in bodies if number > 1)
    if anew or not sitting.request.is_live:
        context = {"project": sitting.request.project, **_shown(request, sitting.read().mark())}
        return render(request, f"{PAGE}#renewed", context)
    more = [
        (f"{body['side']}-{each['number']}", each["more"])
        for _, body in bodies
        for each in body.get("rollouts", [])
        if each.get("more")
    ]
    sitting.last = max([after, *(number for number, _ in bodies)])
    context = {
        "sitting": sitting,
        "asked": sitting.request,
        "more": more,
        "beside": play.computes_beside(request.user),
    }
    context |= {"waits": play.waits_for(sitting.request), "had": request.GET.get("had", "")}
    return render(request, f"{PAGE}#news", context)


@admin_required
@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    sitting = _sitting(request, pk)
    sitting.request.stop()
    return redirect("play", pk)


@admin_required
@require_POST
def send(request: HttpRequest, pk: int) -> HttpResponse:
    """The chosen ones to the labelers, or that quintet back; one of them among the demonstrations, or out."""
    sitting = _sitting(request, pk).read()
    said, there = request.POST, ""  # what is said stands at the head of the page
    try:
        if number := said.get("quintet"):
            sitting.take_back(whole(number), request.user)
            words = f"Quintet {number} is taken back."
        elif name := said.get("demonstrate"):
            made, there = sitting.demonstrate(name, request.user), f"#r-{name}"
            doubt = checking.doubt(made.prompt, made.completion)
            words = f"It is kept as demonstration {made.pk}" + (f", though wrong: {doubt}" if doubt else ".")
        elif number := said.get("withdraw"):
            kept = get_object_or_404(sitting.demonstrations(), pk=whole(number))
            kept.withdraw(request.user)
            there = f"#r-{kept.came_from['rollout']}"
            words = f"Demonstration {number} is withdrawn."
        else:
            quintet, new = sitting.send(said.getlist("rollout"), request.user)
            came = "They wait for the labelers now" if new else "They were sent before"
            words = f"{came}, as quintet {quintet.pk}."
        messages.success(request, words)
    except Quintet.DoesNotExist:
        raise Http404 from None
    except (SendRefused, AnswerRefused) as refused:
        messages.error(request, str(refused))
    return redirect(f"{reverse('play', args=[pk])}{there}")


@admin_required
@require_safe
def text(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """The whole of a rollout, however long, as a file."""
    found = _named(_sitting(request, pk).read(), name)
    answer = HttpResponse(found.text, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="playground-{pk}-{name}.txt"'
    return answer
