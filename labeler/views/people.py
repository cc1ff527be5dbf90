"""Who may come in, and to which projects. Admins only.

Left out: other people's passwords. Whoever runs the server can set one: bin/manage changepassword NAME."""

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler.access import admin_required
from labeler.models import Invitation, Place, Project, User


class InvitationForm(forms.Form):
    note = forms.CharField(
        max_length=200, required=False, label="Whom it is for", help_text="Only a note for you, on this page."
    )
    project = forms.ModelChoiceField(
        Project.objects.none(), required=False, label="Project", empty_label="None yet"
    )
    as_admin = forms.BooleanField(
        required=False,
        label="As an admin",
        help_text="Admins see every project, launch runs and invite people.",
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["project"].queryset = Project.objects.all()
        self.fields["project"].help_text = "A labeler ranks in the projects that you put them into."


class ProjectsForm(forms.Form):
    projects = forms.ModelMultipleChoiceField(
        Project.objects.none(), required=False, widget=forms.CheckboxSelectMultiple, label="Projects"
    )

    def __init__(self, person: User, *args, **kwargs):
        member_of = Project.objects.filter(memberships__user=person)
        super().__init__(*args, initial={"projects": member_of}, label_suffix="", **kwargs)
        self.fields["projects"].queryset = Project.objects.all()


@admin_required
@require_safe
def people(request: HttpRequest) -> HttpResponse:
    return render(request, "people/people.html", _listed(InvitationForm()))


@admin_required
@require_POST
def invite(request: HttpRequest) -> HttpResponse:
    """The link is shown in the answer to this request and nowhere again: only its digest is kept."""
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return render(request, "people/people.html", _listed(form), status=422)
    invitation, token = Invitation.objects.issue(request.user, **form.cleaned_data)
    link = request.build_absolute_uri(reverse("join", args=[token]))
    return render(request, "people/people.html", _listed(InvitationForm(), invitation=invitation, link=link))


@admin_required
@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    get_object_or_404(Invitation.objects.filter(used_at=None), pk=pk).delete()
    messages.success(request, "The invitation is withdrawn: its link leads nowhere now.")
    return redirect("people")


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def person_projects(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User.objects.filter(simulated=False), pk=pk)
    form = ProjectsForm(person, request.POST if request.method == "POST" else None)
    if form.is_valid():
        person.projects.set(form.cleaned_data["projects"])
        Place.objects.release(person)
        messages.success(request, f"The projects of {person} are saved.")
        return redirect("people")
    status = 422 if form.is_bound else 200
    return render(request, "people/person.html", {"person": person, "form": form}, status=status)


@admin_required
@require_POST
def active(request: HttpRequest, pk: int) -> HttpResponse:
    """Let somebody in again, or keep them out: their rankings stay, what they held goes back to the queue."""
    others = User.objects.filter(simulated=False).exclude(pk=request.user.pk)
    person = get_object_or_404(others, pk=pk)
    person.is_active = "on" in request.POST
    person.save(update_fields=["is_active"])
    if person.is_active:
        messages.success(request, f"{person} can sign in again.")
    else:
        Place.objects.release(person)
        messages.success(request, f"{person} can no longer sign in. Their rankings stay.")
    return redirect("people")


def _listed(form: InvitationForm, **more) -> dict:
    """Everybody, people and simulated labelers apart, and the invitations that nobody has used yet."""
    everybody = User.objects.annotate(ranking_count=Count("rankings")).prefetch_related("projects")
    return {
        "people": everybody.filter(simulated=False).order_by("-is_active", "-is_staff", "username"),
        "simulated": everybody.filter(simulated=True).order_by("username"),
        "pending": Invitation.objects.open().select_related("project", "created_by"),
        "form": form,
        **more,
    }
