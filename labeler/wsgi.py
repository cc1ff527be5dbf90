"""What the web server loads."""

import os
from collections.abc import Callable, Iterable
from email.message import Message
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "labeler.settings")

django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A charset like `hex`, which Python knows and which is none of text, would break Django before it has a
    request to answer. It is as good as none at all."""
    said = Message()
    said["Content-Type"] = environ.get("CONTENT_TYPE", "")
    try:
        "".encode(said.get_content_charset("utf-8"))
    except (LookupError, UnicodeError):
        environ["CONTENT_TYPE"] = said.get_content_type()
    return django(environ, start_response)
