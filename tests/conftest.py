"""The ground that every test stands on: a temporary home with the launcher's own Postgres in it, people, a
project, a real worker and a real browser. With DATABASE_URL set, that server is used instead."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labeler.launcher import environment
from labeler.postgres import Server, install_queues

pytest_plugins = ["tests.browser.fixtures", "tests.labeler.fixtures", "tests.labeler.runs"]

temporary_home = pytest.StashKey[Path]()
embedded_server = pytest.StashKey[Server]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before Django reads its settings. The server itself starts with the first test that needs it. Where
    several processes share the tests (`-n 2`), each has a home and a server of its own."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # it only hands out tests; what it set, the processes would take for somebody's wish
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    home = Path(tempfile.mkdtemp(prefix="quintet-tests-")).resolve()
    home.chmod(0o711)
    (home / "static").mkdir()
    config.stash[temporary_home] = home
    server = None if os.environ.get("DATABASE_URL") else Server(home)
    if server:
        config.stash[embedded_server] = server
    os.environ |= environment(home, server)
    # One name for the test database everywhere, so that a worker process and the broker find the same one.
    parts = urlsplit(os.environ["DATABASE_URL"])
    own = os.environ.get("PYTEST_XDIST_WORKER", "")
    os.environ["DATABASE_URL"] = parts._replace(path=f"/test_{parts.path.lstrip('/')}{own}").geturl()
    os.environ["CELERY_BROKER_URL"] = ""

    from django.conf import settings

    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick; nobody's password


def pytest_unconfigure(config: pytest.Config) -> None:
    if temporary_home not in config.stash:
        return
    if embedded_server in config.stash:
        config.stash[embedded_server].release()
    shutil.rmtree(config.stash[temporary_home])


@pytest.fixture(scope="session")
def home(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.stash[temporary_home]


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    return True  # it goes with its home


@pytest.fixture(scope="session")
def django_db_modify_db_settings(pytestconfig: pytest.Config) -> None:
    from django.db import connection

    if embedded_server in pytestconfig.stash:
        pytestconfig.stash[embedded_server].hold()
    connection.settings_dict["TEST"]["NAME"] = connection.settings_dict["NAME"]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    install_queues(os.environ["DATABASE_URL"])


@pytest.fixture(autouse=True)
def empty_queues(request: pytest.FixtureRequest):
    """Django's flush leaves the broker's schema alone: a message of one test must not reach the next."""
    yield
    if request.node.get_closest_marker("django_db") or {"db", "transactional_db"} & set(request.fixturenames):
        import psycopg

        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("SELECT pgmq.purge_queue(queue_name) FROM pgmq.list_queues()")
