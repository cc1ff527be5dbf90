"""What `bin/up` and `bin/manage` do once the packages are installed: a home, a database, the environment that
the settings read, and the processes. Nothing here imports Django; the processes that it starts do.

Left out: installing packages (bin/setup), the server itself (postgres.py), keeping processes alive
(supervisor.py), and what an empty database needs (management/commands/prepare.py)."""

import argparse
import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from labeler.machine import CannotStart, make_folder, secret, silently, write_whole
from labeler.postgres import Server
from labeler.supervisor import Child, Supervisor, follow, watch

ROOT = Path(__file__).resolve().parent.parent
SPACE_FOR_A_NEW_HOME = 500_000_000
SPACE_TO_GO_ON = 50_000_000
READY_SECONDS = 60
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PLAIN_HTTP = (
    "This is plain HTTP: whoever shares the network can read passwords and rankings. "
    "docs/self-hosting.md says how to put TLS before it."
)


def home_folder(wanted: str | os.PathLike) -> Path:
    """The folder that holds all that an installation keeps, made where it is not there yet."""
    home = Path(wanted).expanduser().resolve()
    new = not (home / "database-password").exists()
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


def no_space(home: Path | str) -> CannotStart:
    return CannotStart(
        f"The disk that holds {home} is full: free some space, or choose another home with --home."
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def environment(home: Path, server: Server | None) -> dict[str, str]:
    """What the settings read, beside all that this process was given."""
    mine = {
        "DATABASE_URL": server.url if server else os.environ["DATABASE_URL"],
        "DJANGO_SETTINGS_MODULE": "labeler.settings",
        "PYTHONUNBUFFERED": "1",
        "QUINTET_HOME": str(home),
        "QUINTET_SECRET_KEY": os.environ.get("QUINTET_SECRET_KEY") or secret(home / "secret-key"),
    }
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


def web_server(env: dict[str, str], listener: socket.socket, processes: int = 2) -> Child:
    """Gunicorn on a socket that is open already: while it starts again, browsers wait instead of failing."""
    command = [sys.executable, "-m", "gunicorn", "labeler.wsgi", "--bind", f"fd://{listener.fileno()}"]
    command += ["--worker-class", "gthread", "--workers", str(processes), "--threads", "8", "--preload"]
    command += ["--graceful-timeout", "8", "--no-control-socket", "--log-level", "warning"]
    return Child("web", command, env, pass_fds=[listener.fileno()])


def worker_nodes(env: dict[str, str]) -> list[Child]:
    """Two nodes of one process each, so that nobody who waits for a sample waits for a run to end."""
    # TERM lets the task in hand end in order, which it does soon (labeler/celery.py); hence the long grace.
    # Celery warns of root because of pickle, which is not accepted here.
    celery = [sys.executable, "-W", "ignore:You're running the worker", "-m", "celery", "--quiet"]
    celery += ["--app", "labeler.celery", "worker", "--loglevel", "warning"]
    celery += ["--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "1"]
    celery += ["--without-mingle", "--without-gossip", "--without-heartbeat"]
    return [
        Child(name, [*celery, "--queues", name, "--hostname", f"{name}@quintet"], env, grace=75)
        for name in ("runs", "interactive")
    ]


def open_port(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"Port {port} is taken by another program: stop it, or choose another port with --port."
        elif error.errno == errno.EACCES:
            why = f"Port {port} is for root alone: choose one above 1023 with --port."
        else:
            why = f"Quintet cannot listen on {host} ({error.strerror}): name an address of this machine."
        raise CannotStart(why) from None
    return listener


def reachable_addresses(host: str) -> list[str]:
    """The names under which others on the network find this machine, the likeliest first."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    addresses = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address the way out has
        addresses.append(probe.getsockname()[0])
    return [*addresses, socket.gethostname()]


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def on_the_network(host: str, port: int) -> dict[str, str]:
    """What the settings must allow where others than this machine may come in."""
    names = [in_url(name) for name in reachable_addresses(host)]
    return {
        "QUINTET_ALLOWED_HOSTS": ",".join(["127.0.0.1", "localhost", "[::1]", *names]),
        "QUINTET_ORIGINS": ",".join(f"http://{name}:{port}" for name in names),
    }


async def say_when_ready(supervisor: Supervisor, host: str, port: int, lines: Sequence[str]) -> None:
    """As soon as the web server answers. The listening socket holds the one question until then."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    question = f"GET /health/ HTTP/1.0\r\nHost: {in_url(loopback)}:{port}\r\n\r\n"
    answer = ""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while " 200 " not in answer:
                if answer:
                    supervisor.say(f"/health/ says {answer}", "web")
                    await asyncio.sleep(2)
                with contextlib.suppress(OSError):  # it died with our question: ask again
                    reader, writer = await asyncio.open_connection(loopback, port)
                    writer.write(question.encode())
                    answer = (await reader.readline()).decode(errors="replace").strip()
                    writer.close()
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise CannotStart(
            f"The web server was not ready within {READY_SECONDS} s: its lines above say why."
        ) from None
    for line in lines:
        supervisor.say(line)


def fingerprint() -> str:
    """Changes when the database's tables would."""
    names = sorted(path.name for path in (ROOT / "labeler/migrations").glob("*.py"))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def prepare(home: Path, env: dict[str, str], *arguments: str) -> dict:
    """Runs `manage.py prepare` and gives what it says is new."""
    command: list[str | Path] = [sys.executable, ROOT / "manage.py", "prepare", *arguments]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise CannotStart("The database could not be brought up to date: the lines above say why.")
    write_whole(home / "prepared", fingerprint())
    return json.loads(done.stdout.strip().splitlines()[-1])


def is_prepared(home: Path) -> bool:
    stamp = home / "prepared"
    return stamp.exists() and stamp.read_text() == fingerprint()


def only_one(home: Path) -> int:
    """Two of them on one home would run everything twice. The lock lasts as long as this process."""
    handle = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(
            f"Quintet runs already on {home}: stop it first, or choose another home with --home."
        ) from None
    return handle


def up(options: argparse.Namespace) -> int:
    home = home_folder(options.home)
    only_one(home)
    listener = open_port(options.host, options.port)
    port = listener.getsockname()[1]
    with database(home, print) as server:
        env = environment(home, server)
        address = f"http://{in_url(options.host)}:{port}"
        if options.host not in LOOPBACK:
            env = on_the_network(options.host, port) | env
            address = f"http://{in_url(reachable_addresses(options.host)[0])}:{port}"
            print(f"Others on the network reach Quintet at {address}. {PLAIN_HTTP}", flush=True)
        welcome = [f"Quintet is ready at {address}", *begin(home, env, demo=not options.no_demo)]
        supervisor = Supervisor([[web_server(env, listener)], worker_nodes(env)])
        company = [say_when_ready(supervisor, options.host, port, welcome)]
        if server:
            say = partial(supervisor.say, name="postgres")
            company += [watch(server.is_running, server.revive, say), follow(server.log, say)]
        asyncio.run(supervisor.run(*company))
    return 0


def begin(home: Path, env: dict[str, str], demo: bool) -> list[str]:
    """Brings the database up to date; gives the lines that the first admin needs, the first time."""
    preset = env.pop("QUINTET_ADMIN_PASSWORD", "")
    password = preset or secrets.token_urlsafe(12)
    new = prepare(home, env | {"QUINTET_ADMIN_PASSWORD": password}, *(["--demo"] if demo else []))
    if not new["admin"]:
        return []
    return [f"  name:     {new['admin']}", f"  password: {'the one you set' if preset else password}"]


def manage(arguments: list[str]) -> int:
    """manage.py on the home's database, which is started for it where nobody runs it."""
    home = home_folder(default_home())
    with database(home, partial(print, file=sys.stderr)) as server:
        env = environment(home, server)
        if server and not is_prepared(home):
            prepare(home, env)
        # Ctrl-C reaches the command by itself; here it would only leave the database running.
        signal.signal(signal.SIGINT, lambda *_: None)
        command = subprocess.Popen([sys.executable, ROOT / "manage.py", *arguments], env=env)
        signal.signal(signal.SIGTERM, lambda *_: command.terminate())
        status = command.wait()
    return 128 - status if status < 0 else status


def default_home() -> str:
    return os.environ.get("QUINTET_HOME") or str(ROOT / "var")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/up", description="Quintet, all of it, in the foreground.")
    parser.add_argument("--home", default=default_home(), help="The folder that keeps everything (./var).")
    parser.add_argument("--host", default="127.0.0.1", help="The address to listen on (this machine alone).")
    parser.add_argument("--port", type=int, default=8000, help="The port to listen on (8000).")
    parser.add_argument("--no-demo", action="store_true", help="Leave an empty database empty.")
    return parser


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if words[0] == "manage":
            return manage(words[1:])
        return up(arguments().parse_args(words[1:]))
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(no_space(error.filename or "the home"), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
