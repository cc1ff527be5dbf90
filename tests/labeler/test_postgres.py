"""The embedded server: it opens to nobody else, its last holder stops it, and what a killed one left behind
is no hindrance."""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from labeler.machine import CannotStart, serves
from labeler.postgres import LONGEST_SOCKET_FOLDER, SYSTEM_FOLDER, Server

ROOT_USER = os.geteuid() == 0


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, and open to the account that runs Postgres for root."""
    home = Path("/tmp") / f"quintet-pg-{os.getpid()}-{time.monotonic_ns()}"
    yield home
    shutil.rmtree(home)


@pytest.fixture
def make_server() -> Iterator[Callable[[Path], Server]]:
    servers: list[Server] = []

    def make(home: Path) -> Server:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711)
        server = Server(home)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.release()
        if SYSTEM_FOLDER in server.folder.parents:
            shutil.rmtree(server.folder, ignore_errors=True)
        if server.socket.parent == Path("/tmp"):
            shutil.rmtree(server.socket)


def test_the_database_opens_to_nobody_else(home: Path, make_server):
    server = make_server(home)
    server.hold()
    with psycopg.connect(server.url) as connection:
        settings = ("listen_addresses", "fsync", "password_encryption", "server_encoding")
        found = [connection.execute(f"SHOW {name}").fetchone()[0] for name in settings]
    assert found == ["", "on", "scram-sha-256", "UTF8"]
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://quintet@/quintet?host={server.socket}")
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "database-password").stat().st_mode) == 0o600
    # The account that runs it has nothing that the programs run with.
    owner = server.data.stat().st_uid
    assert (owner != 0) if ROOT_USER else (owner == os.geteuid())


def test_the_last_one_out_stops_the_server(home: Path, make_server):
    first, second = make_server(home), make_server(home)
    first.hold()
    second.hold()
    first.release()
    assert second.is_running()
    second.release()
    assert not second.is_running()


def test_a_home_that_the_servers_account_cannot_reach_is_left_as_it_is(home: Path, make_server):
    home.mkdir(mode=0o700)
    server = make_server(home / "inner")
    server.hold()
    assert server.is_running()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    if ROOT_USER:
        assert server.folder.parent == SYSTEM_FOLDER
        server.release()
        assert make_server(home / "inner").folder == server.folder
    else:
        assert server.folder == home / "inner/postgres"


def test_a_long_path_with_spaces_gets_a_short_private_socket_folder(home: Path, make_server):
    server = make_server(home / "with spaces and ümläuts" / ("deep" * 20))
    server.hold()
    assert len(str(server.socket)) <= LONGEST_SOCKET_FOLDER
    assert " " not in str(server.socket)
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_process_id_of_a_dead_server_is_no_hindrance(home: Path, make_server):
    server = make_server(home)
    server.hold()
    server.process.kill()
    server.process.wait()
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text(
        "\n".join([str(os.getpid()), *lines[1:]]) + "\n"
    )  # the number went to another program
    assert not serves(os.getpid(), server.data)
    server.revive()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_cut_short_while_it_was_made_is_made_again(home: Path, make_server):
    server = make_server(home)
    (server.folder / "data.new").mkdir()
    (server.folder / "data.new/PG_VERSION").write_text("18\n")
    server.hold()
    assert server.is_running()


def test_a_database_of_another_version_is_not_touched(home: Path, make_server):
    server = make_server(home)
    server.hold()
    server.release()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(CannotStart, match="made by Postgres 9"):
        server.hold()
