"""Files as somebody uploads them, and what became of one after a worker came."""

import json
import shutil

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile

from labeler import tasks
from labeler.models import Import

ADDRESS = "/imports/pelican-jokes/"
RANKED = {"prompt": "Write a joke.", "rollouts": list("abcde"), "ranks": [2, 1, 3, 5, 4], "labeler": "rita"}


def file_of(*rows: dict) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def upload(client, content: bytes, name: str = "rankings.jsonl"):
    return client.post(ADDRESS, {"file": SimpleUploadedFile(name, content)})


@pytest.fixture
def kept(as_admin, project):
    """`kept(content)`: the import of this file, looked at and not begun."""

    def keep(content: bytes, name: str = "rankings.jsonl") -> Import:
        response = upload(as_admin, content, name)
        assert response.status_code == 302, response.context["form"].errors
        found = Import.objects.latest("pk")
        assert response.url == f"{ADDRESS}{found.pk}/"
        return found

    return keep


@pytest.fixture
def rung(monkeypatch) -> list:
    """Who was rung for, without a broker."""
    bells: list = []
    monkeypatch.setattr("labeler.models.imports.ring", lambda *bell: bells.append(bell))
    return bells


def done(found: Import, **asked) -> Import:
    """What became of it, after a worker came."""
    assert found.ask(**asked)
    tasks.take_in(found.pk)
    found.refresh_from_db()
    return found


@pytest.fixture(autouse=True)
def no_files_left():
    yield
    shutil.rmtree(settings.HOME / "imports", ignore_errors=True)
