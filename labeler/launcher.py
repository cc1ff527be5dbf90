"""What `bin/up` and `bin/manage` do once the packages are installed: a home, a database, the environment that
the settings read, and the processes. Nothing here imports Django; the processes it starts do.

Left out: installing packages (bin/setup), the server itself (postgres.py), keeping processes alive
(supervisor.py)."""

import contextlib
import errno
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from labeler.machine import CannotStart, make_folder, secret, silently
from labeler.postgres import Server

ROOT = Path(__file__).resolve().parent.parent
SPACE_FOR_A_NEW_HOME = 500_000_000
SPACE_TO_GO_ON = 50_000_000


def home_folder(wanted: str | os.PathLike) -> Path:
    """The folder that holds all that an installation keeps, made where it is not there yet."""
    home = Path(wanted).expanduser().resolve()
    new = not home.exists()
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        # As root, Postgres's own account passes through it to the data; nobody can list it.
        make_folder(home, 0o711 if os.geteuid() == 0 else 0o700)
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise cannot_use(home, error) from None
    if home.stat().st_uid != os.geteuid():
        owner, you = user_name(home.stat().st_uid), user_name(os.geteuid())
        raise CannotStart(
            f"The home {home} belongs to {owner} and you are {you}: start Quintet as its owner, "
            "or choose another home with --home."
        )
    if not os.access(home, os.W_OK | os.X_OK):
        raise CannotStart(f"The home {home} cannot be written to: choose another with --home.")
    if free < (SPACE_FOR_A_NEW_HOME if new else SPACE_TO_GO_ON):
        raise no_space(home)
    return home


def cannot_use(home: Path, error: OSError) -> CannotStart:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(home)
    return CannotStart(f"The home {home} cannot be used ({error.strerror}): choose another with --home.")


def no_space(home: Path) -> CannotStart:
    return CannotStart(
        f"The disk that holds {home} is full: free some space, or choose another home with --home."
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def environment(home: Path, url: str) -> dict[str, str]:
    """What the settings read. What the caller's environment says already, wins."""
    mine = {
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "labeler.settings",
        "PYTHONUNBUFFERED": "1",
        "QUINTET_HOME": str(home),
    }
    if "QUINTET_SECRET_KEY" not in os.environ:
        mine["QUINTET_SECRET_KEY"] = secret(home / "secret-key")
    return {**os.environ, **mine}


@contextlib.contextmanager
def database(home: Path, say: Callable[[str], None] = silently) -> Iterator[Server | None]:
    """The home's own Postgres for as long as somebody holds it; none where DATABASE_URL names another."""
    if os.environ.get("DATABASE_URL"):
        yield None
        return
    server = Server(home, say)
    server.hold()
    try:
        yield server
    finally:
        server.release()
