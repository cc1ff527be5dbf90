"""Whether this process can do its work: it asks the database, and nothing else."""

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        words = {"ok": False, "reason": "The database does not answer."}
        return JsonResponse(words, status=503)
    return JsonResponse({"ok": True})
