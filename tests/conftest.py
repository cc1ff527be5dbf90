"""The ground that every test stands on: a temporary home with the launcher's own Postgres in it, people, a
project, a real worker and a real browser. With DATABASE_URL set, that server is used instead."""

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labeler.launcher import environment
from labeler.postgres import Server

pytest_plugins = ["tests.database", "tests.browser.fixtures", "tests.labeler.fixtures", "tests.labeler.runs"]

temporary_home = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before Django reads its settings. The server itself starts with the first test that needs it. Where
    several processes share the tests (`-n 2`), each has a home of its own and a database on one server, in
    the home of whoever hands out the tests."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    home = Path(tempfile.mkdtemp(prefix="quintet-tests-")).resolve()
    home.chmod(0o711)
    config.stash[temporary_home] = home
    given = getattr(config, "workerinput", {})
    if config.getoption("numprocesses", None) and not given:
        return  # it only hands out tests; what it set, the processes would take for somebody's wish
    # Small products gain nothing from a second thread, and others want the core.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    (home / "static").mkdir()
    server = None if os.environ.get("DATABASE_URL") else Server(Path(given.get("home", home)))
    if server:
        from tests.database import embedded_server

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


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Of pytest-xdist: what it tells the process that it is about to start."""
    node.workerinput["home"] = str(node.config.stash[temporary_home])


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Whatever loading all tests makes is there to stay: nobody looks for garbage in it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if temporary_home not in config.stash:
        return
    from tests.database import embedded_server

    if embedded_server in config.stash:
        config.stash[embedded_server].release()
    home, until = config.stash[temporary_home], time.monotonic() + 60
    while home.exists() and time.monotonic() < until:  # the last of several may be stopping the server in it
        shutil.rmtree(home, ignore_errors=True)
        time.sleep(0.1)


@pytest.fixture(scope="session")
def home(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.stash[temporary_home]
