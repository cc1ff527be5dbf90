"""Health: what a load balancer and a container ask."""

import logging
import sys
from wsgiref.util import setup_testing_defaults

import pytest
from django.db import OperationalError, connection

from labeler.wsgi import application

pytestmark = pytest.mark.django_db


def test_it_answers_anybody(client):
    response = client.get("/health/")
    assert response.status_code == 200
    assert response.json() == {"ok": True}


def test_it_says_when_the_database_does_not_answer(client):
    def broken(execute, sql, params, many, context):
        raise OperationalError("the server closed the connection")

    with connection.execute_wrapper(broken):
        response = client.get("/health/")
    assert response.status_code == 503
    assert response.json() == {"ok": False, "reason": "The database does not answer."}


def test_it_rejects_post(client):
    assert client.post("/health/").status_code == 405


def test_a_foreign_host_is_refused_with_one_line_in_the_log(client, capfd):
    handlers = logging.getLogger("django.security").handlers
    (handler,) = (each for each in handlers if type(each) is logging.StreamHandler)  # pytest adds its own
    handler.setStream(sys.stderr)
    assert client.get("/projects/", headers={"host": "elsewhere.example"}).status_code == 400
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "elsewhere.example" in said and "Traceback" not in said


@pytest.mark.parametrize("charset", ["hex", "rot13", "base64", "zlib", "undefined", "nonsense", "\xff", ""])
def test_no_charset_breaks_the_server(charset):
    """By the way that the web server takes: Django's test client is none of it."""
    environ = {"PATH_INFO": "/nowhere/", "QUERY_STRING": "a=b", "HTTP_HOST": "localhost"}
    environ["CONTENT_TYPE"] = f"application/x-www-form-urlencoded; charset={charset}"
    setup_testing_defaults(environ)
    statuses = []
    list(application(environ, lambda status, headers: statuses.append(status)))
    assert statuses == ["404 Not Found"]
