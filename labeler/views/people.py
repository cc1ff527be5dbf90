"""Who may come in, and what they are in which project: everybody, and the people of one project.

A project's admins see and invite their projects' people; who may come in at all, and who is an admin of all,
is for those to say. Left out: other people's passwords. Whoever runs the server can set one: bin/manage
changepassword NAME."""

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeler.access import admin_required, staff_required
from labeler.models import Contribution, Invitation, Membership, Project, User
from labeler.models.projects import StillExcluded

A_PAGE = 50
ROLES = [("labeler", "Labeler"), ("reviewer", "Reviewer"), ("admin", "Admin of the project")]


class InvitationForm(forms.Form):
    note = forms.CharField(
        max_length=200, required=False, label="Whom it is for", help_text="Only a note for you, on this page."
    )
    project = forms.ModelChoiceField(
        Project.objects.none(), required=False, label="Project", empty_label="None yet"
    )
    role = forms.ChoiceField(
        choices=ROLES,
        required=False,
        label="As",
        help_text="Labelers rank; reviewers also decide where others disagree.",
    )
    as_admin = forms.BooleanField(
        required=False,
        label="As an admin of all projects",
        help_text="Such admins see every project, make new ones and invite people.",
    )

    def __init__(self, by: User, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["project"].queryset = Project.objects.run_by(by)
        if not by.is_staff:
            self.fields["project"].required, self.fields["project"].empty_label = True, None
            del self.fields["as_admin"]

    def clean_role(self) -> str:
        return self.cleaned_data["role"] or Membership.Role.LABELER


class ProjectsForm(forms.Form):
    """The projects, of those that `by` runs, that a person is in."""

    projects = forms.ModelMultipleChoiceField(
        Project.objects.none(), required=False, widget=forms.CheckboxSelectMultiple, label="Projects"
    )

    def __init__(self, person: User, by: User, *args, **kwargs):
        self.person, self.by, self.mine = person, by, Project.objects.run_by(by)
        self.before = list(person.memberships.filter(project__in=self.mine).select_related("project", "user"))
        initial = {"projects": [each.project_id for each in self.before]}
        super().__init__(*args, initial=initial, label_suffix="", **kwargs)
        self.fields["projects"].queryset = self.mine

    def clean_projects(self) -> QuerySet[Project]:
        chosen = self.cleaned_data["projects"]
        for each in self.before:
            if each.excluded_at and each.project not in chosen:
                raise forms.ValidationError(str(StillExcluded(each)))
        return chosen

    @transaction.atomic
    def save(self) -> None:
        chosen = self.cleaned_data["projects"]
        for each in self.before:
            if each.project not in chosen:
                each.leave(self.by)
        for project in chosen:
            project.admit(self.person, Membership.Role.LABELER, self.by)


def _seen_by(user: User) -> QuerySet[User]:
    """Those whose account this person may see: all, or the people of the projects that they run."""
    if user.is_staff:
        return User.objects.all()
    mine = Membership.objects.filter(project__in=Project.objects.run_by(user), user=OuterRef("pk"))
    return User.objects.filter(Exists(mine))


def _with_rankings(people: QuerySet[User], projects: QuerySet[Project] | None = None) -> QuerySet[User]:
    """With `ranking_count`: what they ranked, in these projects or in all."""
    theirs = Contribution.objects.filter(labeler=OuterRef("pk"))
    if projects is not None:
        theirs = theirs.filter(round__project__in=projects)
    return people.annotate(ranking_count=theirs.total())


@admin_required
@require_safe
def people(request: HttpRequest) -> HttpResponse:
    fresh = request.session.pop("fresh_invitation", None)
    shown = {}
    if fresh:
        shown = {"invitation": _invitations(request.user).filter(pk=fresh[0]).first(), "link": fresh[1]}
    return render(request, "people/people.html", _listed(request, InvitationForm(request.user), **shown))


@admin_required
@require_POST
def invite(request: HttpRequest) -> HttpResponse:
    """The link is shown once, on the page that comes next, and nowhere again: only its digest is kept. Until
    then it lies in the session, so that reloading that page makes no second invitation."""
    form = InvitationForm(request.user, request.POST)
    if not form.is_valid():
        return render(request, "people/people.html", _listed(request, form), status=422)
    invitation, token = Invitation.objects.issue(request.user, **form.cleaned_data)
    link = request.build_absolute_uri(reverse("join", args=[token]))
    request.session["fresh_invitation"] = [invitation.pk, link]
    return redirect("people")


def _invitations(user: User) -> QuerySet[Invitation]:
    every = Invitation.objects.select_related("project", "created_by")
    return every if user.is_staff else every.filter(project__in=Project.objects.run_by(user), as_admin=False)


@admin_required
@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    get_object_or_404(_invitations(request.user).filter(used_at=None), pk=pk).delete()
    messages.success(request, "The invitation is withdrawn: its link leads nowhere now.")
    return redirect("people")


@admin_required
@require_http_methods(["GET", "HEAD", "POST"])
def person_projects(request: HttpRequest, pk: int) -> HttpResponse:
    others = _seen_by(request.user).filter(simulated=False)
    if not request.user.is_staff:
        others = others.exclude(pk=request.user.pk)  # or one would shut oneself out
    person = get_object_or_404(others, pk=pk)
    form = ProjectsForm(person, request.user, request.POST if request.method == "POST" else None)
    if form.is_valid():
        form.save()
        messages.success(request, f"The projects of {person} are saved.")
        return redirect("people")
    status = 422 if form.is_bound else 200
    return render(request, "people/person.html", {"person": person, "form": form}, status=status)


@staff_required
@require_POST
def active(request: HttpRequest, pk: int) -> HttpResponse:
    """Let somebody in again, or keep them out: their rankings stay, what they held goes back to the queue."""
    others = User.objects.filter(simulated=False).exclude(pk=request.user.pk)
    person = get_object_or_404(others, pk=pk)
    if "on" in request.POST:
        person.let_in_again(request.user)
        messages.success(request, f"{person} can sign in again.")
    else:
        person.deactivate(request.user)
        messages.success(request, f"{person} can no longer sign in. Their rankings stay.")
    return redirect("people")


def _listed(request: HttpRequest, form: InvitationForm, **more) -> dict:
    """Everybody, people and simulated labelers apart, and the invitations that nobody has used yet."""
    mine = Project.objects.run_by(request.user)
    theirs = Prefetch("memberships", Membership.objects.filter(project__in=mine).select_related("project"))
    here = None if request.user.is_staff else mine
    found = _with_rankings(_seen_by(request.user), here).prefetch_related(theirs)
    ordered = found.filter(simulated=False).order_by("-is_active", "-is_staff", "username")
    return {
        "people": Paginator(ordered, A_PAGE).get_page(request.GET.get("page")),
        "simulated": found.filter(simulated=True).order_by("username")[:A_PAGE],
        "pending": _invitations(request.user).open(),
        "form": form,
        **more,
    }


# The people of one project


class MemberForm(forms.Form):
    name = forms.CharField(max_length=150, label="Name", help_text="The one that they sign in with.")
    role = forms.ChoiceField(choices=ROLES, label="As")

    def __init__(self, *args, **kwargs):
        # The form of an invitation stands beside it.
        super().__init__(*args, label_suffix="", auto_id="member_%s", **kwargs)

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        self.user = User.objects.filter(username__iexact=name, is_active=True, simulated=False).first()
        if not self.user:
            raise forms.ValidationError("Nobody of this name can sign in. Somebody new needs an invitation.")
        return name


@admin_required
@require_safe
def members(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    return render(request, "people/members.html", _gathered(request, project, MemberForm()))


@admin_required
@require_POST
def member_add(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    form = MemberForm(request.POST)
    if not form.is_valid():
        return render(request, "people/members.html", _gathered(request, project, form), status=422)
    membership = project.admit(form.user, form.cleaned_data["role"], request.user)
    messages.success(request, f"{membership.user} is in the project as {membership.role}.")
    return redirect("members", slug)


@admin_required
@require_POST
def member_role(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    membership = _membership(request, slug, pk, others=True)
    role = request.POST.get("role", "")
    if role in Membership.Role.values and role != membership.role:
        membership.give_role(role, request.user)
        messages.success(request, f"{membership.user} is {membership.role} now.")
    return redirect("members", slug)


@admin_required
@require_POST
def member_remove(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    membership = _membership(request, slug, pk, others=True)
    try:
        membership.leave(request.user)
        messages.success(request, f"{membership.user} is out of the project. Their rankings stay.")
    except StillExcluded as refused:
        messages.error(request, str(refused))
    return redirect("members", slug)


@admin_required
@require_POST
def member_pause(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    membership = _membership(request, slug, pk)
    if "undo" in request.POST:
        membership.unpause(request.user)
    elif because := _reason(request):
        membership.pause(because, request.user)
    return redirect("members", slug)


@admin_required
@require_POST
def member_exclude(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Also those who never came in: rankings of an import may have to be left out too."""
    project = get_object_or_404(Project.objects.run_by(request.user), slug=slug)
    person = get_object_or_404(_people_of(project), pk=pk)
    if "undo" in request.POST:
        get_object_or_404(project.memberships, user=person).take_back(request.user)
    elif because := _reason(request):
        membership, _ = project.memberships.get_or_create(user=person)
        membership.exclude(because, request.user)
    return redirect("members", slug)


def _membership(request: HttpRequest, slug: str, pk: int, *, others: bool = False) -> Membership:
    """The membership of a person in a project of the asker's; with `others`, not the asker's own, so that no
    project's admin locks themselves out."""
    found = Membership.objects.filter(project__in=Project.objects.run_by(request.user), project__slug=slug)
    if others and not request.user.is_staff:
        found = found.exclude(user=request.user)
    return get_object_or_404(found.select_related("user", "project"), user=pk)


def _reason(request: HttpRequest) -> str:
    because = request.POST.get("because", "").replace("\0", "").strip()[:300]
    if not because:
        messages.error(request, "Nothing is changed: say why, so that others can understand it later.")
    return because


def _people_of(project: Project) -> QuerySet[User]:
    """Who is in the project, or has ranked in it."""
    members = Membership.objects.filter(project=project, user=OuterRef("pk"))
    ranked = Contribution.objects.filter(labeler=OuterRef("pk"), round__project=project)
    return User.objects.filter(Exists(members) | Exists(ranked))


def _gathered(request: HttpRequest, project: Project, form: MemberForm) -> dict:
    """The people, each with their membership as `here`, if they have one."""
    here = Prefetch("memberships", Membership.objects.filter(project=project), to_attr="here")
    found = _with_rankings(_people_of(project), Project.objects.filter(pk=project.pk)).prefetch_related(here)
    ordered = found.order_by("simulated", "-is_active", "username")
    return {
        "project": project,
        "page": Paginator(ordered, A_PAGE).get_page(request.GET.get("page")),
        "form": form,
        "invitation": InvitationForm(request.user, initial={"project": project}),
        "roles": ROLES,
    }
