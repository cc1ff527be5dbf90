"""The three stages of a project on one page: reading, worked solutions, practice; and the same prompt
answered by all three. Admins of the project.

What each stage has come to is said in labeler/course.py."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from labeler.access import admin_required
from labeler.course import LONGEST, Course, answers, ask
from labeler.models import Project, Request
from labeler.numbers import whole
from rlhf import data

OFFERED = 60  # prompts
ASKED = 3  # at once


@admin_required
@require_safe
def stages(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    course, asked = Course(project), _asked(request, project)
    context = {
        "project": project,
        "stages": course.stages,
        "able": course.able,
        "prompts": project.prompts.all()[:OFFERED],
        "asked": asked,
        "answers": answers(course, asked),
        "waiting": any(each.is_live for each in asked),
        "question": asked[0].question if asked else {},
    }
    if asked:
        context["said"] = data.prompt_text(asked[0].question["prompts"][0])
    template = "stages/stages.html"
    return render(request, f"{template}#answers" if request.htmx else template, context)


@admin_required
@require_POST
def ask_all(request: HttpRequest, slug: str) -> HttpResponse:
    """One prompt for every stage that has a model."""
    project = _project(request, slug)
    own = request.POST.get("own", "").replace("\0", "").strip()
    chosen = project.prompts.filter(pk=whole(request.POST.get("prompt"))).first()
    prompt = own[:LONGEST] or (chosen.content if chosen else "")
    if not prompt:
        messages.error(request, "Choose a prompt, or write one.")
        return redirect("stages", slug)
    seed = max(0, whole(request.POST.get("seed")))
    temperature = 0.0 if "surely" in request.POST else 1.0
    made = ask(Course(project), prompt, request.user, seed, temperature)
    if not made:
        messages.error(request, "No stage has a model on this machine yet.")
    asked = ",".join(str(each.pk) for each in made)
    return redirect(reverse("stages", args=[slug]) + (f"?asked={asked}#answers" if asked else ""))


def _asked(request: HttpRequest, project: Project) -> list[Request]:
    """Those that the address names."""
    mine = project.requests.filter(kind=Request.Kind.SAMPLE, question__prompts__isnull=False)
    named = [whole(each) for each in request.GET.get("asked", "").split(",")[:ASKED]]
    return list(mine.filter(pk__in=named).order_by("pk"))


def _project(request: HttpRequest, slug: str) -> Project:
    mine = Project.objects.run_by(request.user).select_related("start")
    return get_object_or_404(mine, slug=slug)
