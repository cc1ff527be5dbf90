"""What is well with an installation, what is not, and what to do about it: for `bin/manage doctor`.

Each check asks the thing itself: the database a query, the worker an answer through the broker, the trainer's
Python what it can compute on. Left out: what a single run or import says of itself on its own page."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from labeler.celery import HEARD, QUEUES, app
from labeler.models import Checkpoint, Run
from labeler.templatetags.words import count

WELL, CARE, ILL = "well", "care", "ill"
OLDEST_POSTGRES = 14
AN_ANSWER = 8.0  # seconds for a worker that has nothing else to do
TORCH_SECONDS = 120
LITTLE_SPACE, NO_SPACE = 5_000_000_000, 500_000_000
# Beside the worker's own Python, so that no model library is ever loaded here.
ASK_TORCH = """
import json, torch
cards = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
print(json.dumps({
    "torch": torch.__version__, "threads": torch.get_num_threads(), "mps": torch.backends.mps.is_available(),
    "cards": [[card.name, card.total_memory] for card in cards],
}))
"""


@dataclass(frozen=True)
class Finding:
    about: str
    state: str
    said: str
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """One by one, as they come: some take seconds. What needs the database is left out where it is away."""
    yield python()
    yield trainer()
    yield home()
    yield disk()
    yield network()
    there = database()
    yield there
    if there.state != ILL:
        for check in (tables, broker_and_worker, models, stuck):
            yield from check()


def python() -> Finding:
    named = ("django", "psycopg", "celery")
    try:
        have = ", ".join(f"{name} {version(name)}" for name in named)
    except PackageNotFoundError as gone:
        return Finding("Python", ILL, f"{gone.name} is not installed.", "Run bin/setup.")
    return Finding("Python", WELL, f"{sys.version.split()[0]}, {have}")


def trainer() -> Finding:
    """What runs compute on."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "Training", ILL, f"torch did not load within {TORCH_SECONDS} s.", "Run bin/setup anew."
        )
    if asked.returncode:
        why = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        remedy = "Fine for a web server alone; where a worker is to train, run bin/setup worker."
        return Finding("Training", CARE, f"torch cannot be loaded here: {why}", remedy)
    said = json.loads(asked.stdout)
    cards = [f"{name} with {memory / 1e9:.0f} GB" for name, memory in said["cards"]]
    where = ", ".join(cards) or ("Apple's GPU" if said["mps"] else "")
    if where:
        return Finding("Training", WELL, f"torch {said['torch']} on {where}")
    words = f"torch {said['torch']} on the processor, {count(said['threads'], 'thread')}; no GPU is seen"
    return Finding("Training", WELL, words)


def home() -> Finding:
    """Whose it is, and whether others could read what is secret in it."""
    folder = settings.HOME
    if not folder.is_dir():
        return Finding(
            "Home", ILL, f"There is no folder {folder}.", "Start bin/up once, or mend QUINTET_HOME."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        remedy = "Start as the user whose it is, or give it to this one."
        return Finding("Home", ILL, f"This user cannot write in {folder}.", remedy)
    names = ("secret-key", "database-password")
    open_to_all = [name for name in names if _mode(folder / name) & 0o077]
    if open_to_all:
        paths = " ".join(str(folder / name) for name in open_to_all)
        words = f"Others on this machine can read {' and '.join(open_to_all)} in {folder}."
        return Finding("Home", ILL, words, f"chmod 600 {paths}; whoever read them may sign as this server.")
    return Finding("Home", WELL, str(folder))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else 0


def disk() -> Finding:
    folder = next((path for path in (settings.HOME, *settings.HOME.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(folder).free
    words = f"{free / 1e9:,.1f} GB free on the disk of {settings.HOME}"
    remedy = "Delete runs that nobody needs, or move the home to a larger disk."
    if free < NO_SPACE:
        return Finding("Disk", ILL, words, remedy)
    return Finding(
        "Disk", CARE if free < LITTLE_SPACE else WELL, words, remedy if free < LITTLE_SPACE else ""
    )


def network() -> Finding:
    hosts = ", ".join(settings.ALLOWED_HOSTS)
    if settings.DEBUG:
        remedy = "Unset QUINTET_DEBUG wherever others come in: errors would show them its settings."
        return Finding("Web", ILL, "QUINTET_DEBUG is on.", remedy)
    plain = [origin for origin in settings.CSRF_TRUSTED_ORIGINS if origin.startswith("http://")]
    if plain:
        remedy = "Put a proxy with https before it (docs/self-hosting.md), and name that in QUINTET_ORIGINS."
        words = f"Passwords go unencrypted over the network: {', '.join(plain)}."
        return Finding("Web", CARE, words, remedy)
    return Finding("Web", WELL, f"answers to {hosts}")


def database() -> Finding:
    began = time.perf_counter()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version_num')::int, pg_database_size(current_database())"
            )
            number, size = cursor.fetchone()
    except DatabaseError as error:
        why = (str(error).strip().splitlines() or ["no answer"])[0]
        return Finding("Database", ILL, f"It does not answer: {why}", "Is it running? DATABASE_URL names it.")
    took = 1000 * (time.perf_counter() - began)
    words = f"Postgres {number // 10000}.{number % 10000}, {size / 1e6:,.0f} MB, answered in {took:.0f} ms"
    if number // 10000 < OLDEST_POSTGRES:
        return Finding("Database", ILL, words, f"Take Postgres {OLDEST_POSTGRES} or newer.")
    return Finding("Database", WELL, words)


def tables() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        words = f"The tables are {count(len(plan), 'change')} behind this version."
        yield Finding("Tables", ILL, words, "Stop the worker, then run bin/manage prepare, or start bin/up.")
    else:
        yield Finding("Tables", WELL, "up to date")


def broker_and_worker() -> Iterator[Finding]:
    """A doorbell is rung at each queue, and whoever comes says so in the database: all three are needed."""
    name = "Valkey or Redis" if settings.BROKER_URL else "the queue in Postgres"
    tokens = {queue: f"{queue} {uuid.uuid4().hex}" for queue in dict.fromkeys(QUEUES.values())}
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {HEARD}")
        try:
            for queue, token in tokens.items():
                app.send_task("hello", [token], queue=queue, retry=False, expires=AN_ANSWER)
        except (OperationalError, OSError) as error:
            remedy = "Is it running? CELERY_BROKER_URL names it. Runs and samples wait until it is."
            yield Finding("Broker", ILL, f"{name} does not answer: {error}", remedy)
            return
        yield Finding("Broker", WELL, name)
        heard = set()
        for notice in connection.connection.notifies(timeout=AN_ANSWER, stop_after=len(tokens)):
            heard.add(notice.payload)
        cursor.execute(f"UNLISTEN {HEARD}")
    for queue, token in tokens.items():
        yield _answered(queue, token in heard)


def _answered(queue: str, came: bool) -> Finding:
    about = f"Worker, {queue}"
    if came:
        return Finding(about, WELL, "came when it was called")
    busy = Run.objects.filter(state=Run.State.RUNNING, leased_until__gte=Now()).order_by("pk").first()
    if queue == QUEUES["execute"] and busy:
        return Finding(about, WELL, f"at work on run {busy.pk}")
    remedy = "bin/up starts one; with Docker it is the service worker; alone it is bin/manage worker."
    return Finding(about, ILL, f"Nobody came within {AN_ANSWER:.0f} s.", remedy)


def models() -> Iterator[Finding]:
    """Checkpoints whose files are gone, or that nobody here can read."""
    kept = [(each, folder) for each in Checkpoint.objects.all() if (folder := each.folder)]
    gone = [f"{each} ({folder})" for each, folder in kept if not (folder / "config.json").is_file()]
    if not gone:
        yield Finding("Models", WELL, f"{count(len(kept), 'checkpoint')} on the disk")
        return
    words = f"{count(len(gone), 'checkpoint')} of {len(kept)} cannot be read: {', '.join(gone[:3])}"
    yield Finding("Models", ILL, words, "Bring the folders back; runs that start from them fail until then.")


def stuck() -> Iterator[Finding]:
    """Runs that say they are at work, and whose worker has not been heard of."""
    left = Run.objects.filter(state=Run.State.RUNNING, leased_until__lt=Now())
    if left:
        numbers = ", ".join(str(each.pk) for each in left)
        words = f"Nobody has been heard of who works on run {numbers}."
        yield Finding(
            "Runs", CARE, words, "A worker takes it up again by itself: see above whether there is one."
        )
