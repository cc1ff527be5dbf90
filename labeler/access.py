"""Who may see what: the decorators of every view, and the header that keeps foreign scripts out.

What a person may see is decided by the querysets (`Project.objects.visible_to(user)`, `reviewed_by`,
`run_by`), so an id from elsewhere is a 404 and never a hint; here is only the question which kind of person
is asking."""

import codecs
from collections.abc import Callable
from contextlib import suppress
from functools import wraps

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import Resolver404, resolve

CONTENT_SECURITY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)

labeler_required = login_required


def admin_required(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For those who run a project at least: its own admins, and the admins of all."""
    return _only(view, lambda user: user.runs_any)


def staff_required(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For the admins of all: they make projects and other admins, and let people in or keep them out."""
    return _only(view, lambda user: user.is_staff)


def _only(view: Callable[..., HttpResponse], may: Callable) -> Callable[..., HttpResponse]:
    """An address that names something is not there for others; a page that names nothing says whose it is."""

    @login_required
    @wraps(view)
    def guarded(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if may(request.user):
            return view(request, *args, **kwargs)
        if kwargs:
            raise Http404
        raise PermissionDenied

    return guarded


def no_nul(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Postgres holds no NUL, so one in a query can only be somebody trying: refused once, for every view. So
    is every charset but UTF-8, in which browsers send all: others would spell a NUL, or half a character,
    in ways of their own."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.encoding and codecs.lookup(request.encoding).name != "utf-8":
            raise SuspiciousOperation("The request is in another charset than UTF-8.")
        if "%00" in request.META["QUERY_STRING"]:
            raise SuspiciousOperation("There is a NUL in the query.")
        return get_response(request)

    return middleware


def to_the_page(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Whoever comes by a browser to an address that only takes forms (after signing in again, or by the
    address bar) is led to the page above it; a bare 405 tells them nothing."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        looks = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
        if response.status_code != 405 or not looks:
            return response
        above = request.path
        while above != "/":
            above = f"{above.rstrip('/').rpartition('/')[0]}/"
            with suppress(Resolver404):
                resolve(above)
                break
        return redirect(above)

    return middleware


def content_security(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY)
        # What one person saw must not come back from a shared computer's cache for the next. (Static files
        # are answered before this middleware and may be cached.)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware
