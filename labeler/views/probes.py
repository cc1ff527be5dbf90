"""The probe bank of a project: bad answers, how each fares under the reward models, and adding one. For the
project's admins.

Scoring them is a run's matter; what is done about one that scores too high, that of `Run.objects.launch`."""

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from labeler.access import admin_required
from labeler.models import Checkpoint, Probe, Project
from labeler.models.probes import Probing, rows

A_PAGE = 40
LONGEST = 20_000


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.run_by(request.user), slug=slug)


class ProbeForm(forms.Form):
    """A bad answer, as it was written: blanks at its ends may be what fools a reward model."""

    text = forms.CharField(
        strip=False,
        max_length=LONGEST,
        label="Answer",
        widget=forms.Textarea({"rows": 3, "dir": "auto", "spellcheck": "false"}),
        help_text="One that no reward model should like, letter by letter.",
    )
    prompt = forms.CharField(
        required=False,
        max_length=LONGEST,
        label="Only to this prompt",
        widget=forms.Textarea({"rows": 2, "dir": "auto"}),
        help_text="Empty: it is bad anywhere, and tried at a few of the dataset's prompts.",
    )
    note = forms.CharField(
        required=False, max_length=300, label="Note", help_text="Where it was found, or what it is a case of."
    )

    def __init__(self, project: Project, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.project = project

    def clean(self) -> dict:
        given = {name: value.replace("\r\n", "\n") for name, value in self.cleaned_data.items()}
        if self.errors:
            return given
        self.probe = Probe.of(self.project, given["text"], given["prompt"] or None, note=given["note"])
        known = {each.digest: each for each in Probe.objects.bank(self.project)}.get(self.probe.digest)
        if known and known.set_aside_at:
            self.add_error("text", "It was put aside. Below it can be used again.")
        elif known:
            self.add_error("text", f"It is in the bank already, {known.get_kind_display()}.")
        return given


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def probes(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project(request, slug)
    form = ProbeForm(project, request.POST if request.method == "POST" else None)
    if form.is_valid():
        form.probe.add(request.user)
        messages.success(request, "The probe is in the bank. The next reward model is tried on it.")
        return redirect("probes", slug)
    history, judge = Probing.history(project), Checkpoint.objects.judge_of(project)
    bank, put_aside = rows(project, history)
    history = [each.without({row.key for row in put_aside}) for each in history]
    context = {
        "project": project,
        "form": form,
        "judge": judge,
        "now": history[0] if history else None,
        "history": history,
        "untried": sum(not row.tried and not row.is_made for row in bank),
        "page": Paginator(bank, A_PAGE).get_page(request.GET.get("page")),
        "aside": put_aside,
    }
    return render(request, "probes/probes.html", context, status=422 if form.is_bound else 200)


@admin_required
@require_POST
def aside(request: HttpRequest, slug: str, digest: str) -> HttpResponse:
    """Put a probe aside, or (`undo`) use it again. What rlhf makes cannot be put aside."""
    project = _project(request, slug)
    bank, put = rows(project, Probing.history(project))
    found = next((each for each in [*bank, *put] if each.key == digest and not each.is_made), None)
    if found is None:
        raise Http404
    probe = found.row or Probe.of(project, found.text, found.asked or None, kind=Probe.Kind.NONSENSE)
    if "undo" in request.POST:
        probe.use_again(request.user)
    else:
        probe.put_aside(request.user)
    return redirect("probes", slug)
