"""Health: what a load balancer and a container ask."""

import pytest
from django.db import OperationalError, connection

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
