"""The database of the tests: one server for all processes that share them, migrated once and then copied, and
emptied after every test that committed something.

With DATABASE_URL set, that server is used instead, and every process migrates a database of its own there."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from labeler.postgres import Server, install_queues

embedded_server = pytest.StashKey[Server]()
# What migrating leaves in them is the same for every test.
KEPT = {"django_content_type", "auth_permission"}


def named(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    return True  # it goes with its home


@pytest.fixture(scope="session")
def django_db_modify_db_settings(pytestconfig: pytest.Config, django_db_blocker) -> None:
    from django.db import connection

    connection.settings_dict["TEST"]["NAME"] = connection.settings_dict["NAME"]
    if server := pytestconfig.stash.get(embedded_server, None):
        server.hold()
        with django_db_blocker.unblock():
            copy_migrated(server, connection)


def copy_migrated(server: Server, connection) -> None:
    """Give this process its database: a copy of one that whoever comes first migrates."""
    from django.core.management import call_command

    own = connection.settings_dict["NAME"]
    with psycopg.connect(named(server.url, "postgres"), autocommit=True) as alone:
        alone.execute("SELECT pg_advisory_lock(0)")
        with psycopg.connect(server.url) as migrated:
            is_migrated = migrated.execute("SELECT to_regnamespace('pgmq')").fetchone() != (None,)
        if not is_migrated:
            alone.execute("ALTER SYSTEM SET fsync = off")  # nobody needs it after a power cut
            # Every test leaves dead rows, deleted or rolled back; until they are gone, queries read them.
            alone.execute("ALTER SYSTEM SET autovacuum_naptime = 5")
            alone.execute("SELECT pg_reload_conf()")
            connection.settings_dict["NAME"] = urlsplit(server.url).path.lstrip("/")
            call_command("migrate", verbosity=0)
            connection.close()
            connection.settings_dict["NAME"] = own
            install_queues(server.url)  # the last thing, so that it tells that all is there
        alone.execute(
            SQL("CREATE DATABASE {} TEMPLATE {}").format(
                Identifier(own), Identifier(urlsplit(server.url).path.lstrip("/"))
            )
        )


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker) -> None:
    from django.db import connection
    from django.test import TransactionTestCase

    install_queues(os.environ["DATABASE_URL"])
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SHOW is_superuser")
        if cursor.fetchone() == ("on",):  # only such a one may switch triggers off
            TransactionTestCase._fixture_teardown = empty_tables


def empty_tables(_case) -> None:
    """As Django's flush, but without TRUNCATE: that makes new files for every table, and takes a second."""
    from django.db import OperationalError, connection, transaction

    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    deletions = [f"DELETE FROM {connection.ops.quote_name(each)}" for each in tables if each not in KEPT]
    for left in reversed(range(5)):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("; ".join(["SET LOCAL session_replication_role = replica", *deletions]))
            return
        except OperationalError:  # a deadlock with the last request of a page that has just been closed
            if not left:
                raise


@pytest.fixture(scope="session")
def broker(django_db_setup: None) -> Iterator[psycopg.Connection]:
    """A look at the broker's tables that no test closes."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def empty_queues(request: pytest.FixtureRequest) -> Iterator[None]:
    """The broker's tables are none of Django's: a message of one test must not reach the next."""
    marked = request.node.get_closest_marker("django_db")
    if not marked and not {"db", "transactional_db"} & set(request.fixturenames):
        yield
        return
    broker = request.getfixturevalue("broker")
    yield
    for (name,) in broker.execute("SELECT queue_name FROM pgmq.meta").fetchall():
        broker.execute(SQL("DELETE FROM pgmq.{}").format(Identifier(f"q_{name}")))
