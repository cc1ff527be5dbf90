"""One's own account: signing in and out, the password, and joining by a link. There is no open sign-up.

Left out: resetting a forgotten password by mail; an admin makes a new link instead."""

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm, PasswordChangeForm
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from labeler.access import labeler_required
from labeler.models import Invitation, User, WrongTry

TAKEN = "That name is taken. Choose another."


class SignInForm(AuthenticationForm):
    """After six wrong passwords for a name from one address, the right one is refused too, for minutes."""

    error_messages = {
        "invalid_login": "That name and password do not belong together. Capitals count in both.",
        "inactive": "That name and password do not belong together. Capitals count in both.",
    }

    def clean(self) -> dict:
        if not {"username", "password"} <= self.cleaned_data.keys():
            return self.cleaned_data
        refused = None
        with transaction.atomic():
            tries = WrongTry.objects.locked(self.cleaned_data["username"], _address(self.request))
            if tries.is_locked:
                minutes = f"{tries.minutes_left} minute{'s' if tries.minutes_left > 1 else ''}"
                raise forms.ValidationError(f"That was wrong too often. Try again in {minutes}.")
            try:
                super().clean()
                tries.delete()
            except forms.ValidationError as error:
                refused = error
                tries.add()
        if refused:
            raise refused
        return self.cleaned_data


class JoinForm(BaseUserCreationForm):
    class Meta(BaseUserCreationForm.Meta):
        model = User

    def __init__(self, *args, **kwargs):
        super().__init__(*args, label_suffix="", **kwargs)
        self.fields["username"].label = "The name you sign in with"
        self.fields["username"].help_text = "Letters, digits and @ . + - _. Others in your projects see it."
        self.fields["password1"].help_text = "At least eight characters, and not one of the common ones."
        self.fields["password2"].label = "The password again"
        self.fields["password2"].help_text = ""

    def clean_username(self) -> str:
        """Nobody shall pass for somebody else by a capital letter."""
        name = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise forms.ValidationError(TAKEN)
        return name


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    onward = request.POST.get("next") or request.GET.get("next") or ""
    if not url_has_allowed_host_and_scheme(onward, {request.get_host()}, require_https=request.is_secure()):
        onward = resolve_url(settings.LOGIN_REDIRECT_URL)
    if request.user.is_authenticated:
        return HttpResponseRedirect(onward)
    form = SignInForm(request, request.POST or None, label_suffix="")
    if form.is_valid():
        login(request, form.get_user())
        return HttpResponseRedirect(onward)
    return render(request, "account/sign_in.html", {"form": form, "next": onward}, status=_status(form))


def _address(request: HttpRequest) -> str:
    """Where the request comes from. The last of the forwarded ones was written by the proxy itself, which is
    there where every origin is https."""
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.HTTPS_ONLY else ""
    return forwarded.split(",")[-1].strip() or request.META["REMOTE_ADDR"]


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Leases go back to the queue with the signal that Django sends (models/quintets.py)."""
    logout(request)
    messages.success(request, "You are signed out.")
    return redirect("sign_in")


@sensitive_post_parameters()
@labeler_required
@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    form = PasswordChangeForm(request.user, request.POST or None, label_suffix="")
    form.fields["new_password1"].help_text = "At least eight characters, and not one of the common ones."
    form.fields["new_password2"].label = "The new password again"
    form.fields["new_password2"].help_text = ""
    if form.is_valid():
        update_session_auth_hash(request, form.save())
        messages.success(request, "Your password is changed. Other devices are signed out.")
        return redirect("projects")
    return render(request, "account/password.html", {"form": form}, status=_status(form))


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@transaction.atomic
def join(request: HttpRequest, token: str) -> HttpResponse:
    """The link works once: its row is locked until the account is there."""
    if request.user.is_authenticated:
        return render(request, "account/join.html", status=409)
    found = Invitation.objects.by_token(token)
    invitation = (found.select_for_update(of=("self",)) if request.method == "POST" else found).first()
    if invitation is None:
        return render(request, "account/join.html", status=410)
    form = JoinForm(request.POST or None)
    if form.is_valid() and (user := _joined(invitation, form)):
        login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
        return redirect(invitation.project or "projects")
    context = {"form": form, "invitation": invitation}
    return render(request, "account/join.html", context, status=_status(form))


def _joined(invitation: Invitation, form: JoinForm) -> User | None:
    try:
        with transaction.atomic():
            return invitation.accept(form.cleaned_data["username"], form.cleaned_data["password1"])
    except IntegrityError:
        # Somebody else took the name between the question and the answer.
        form.add_error("username", TAKEN)
        return None


def _status(form: forms.BaseForm) -> int:
    return 422 if form.is_bound else 200
