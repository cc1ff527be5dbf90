"""A scripted child in the trainer's place, and a run for it; what was rung instead of ringing."""

import json
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone

from labeler import tasks
from labeler.models import Checkpoint, Prompt, Run
from labeler.trainer import Trainer

# What the child does instead of training: the last word of its command is its run directory.
CHILDREN = {
    "finishes": """
        line("steps.jsonl", step=1, loss=0.5)
        result(state="finished", step=1, checkpoint=None, metrics={"loss": 0.5})""",
    "fails": """
        result(state="failed", reason="There is no such layer.", remedy="Mend it.", field="policy")
        end(1)""",
    "breaks": 'print("ImportError: no module named torch", flush=True); end(3)',
    "dies": 'line("steps.jsonl", step=1, loss=0.5); os.kill(os.getpid(), signal.SIGKILL)',
    "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
    "tries again": "end(75)",
    "waits": """
        signal.signal(signal.SIGTERM, lambda *_: end(75))
        line("steps.jsonl", step=1, loss=0.5)
        while not (run / "cancel").exists():
            time.sleep(0.05)
        result(state="cancelled", reason="The run was cancelled.")""",
    "hangs": """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        line("steps.jsonl", step=1, loss=0.5)
        time.sleep(600)""",
    "dies once": """
        first = not (run / "been").exists()
        (run / "been").touch()
        if first: os.kill(os.getpid(), signal.SIGKILL)
        result(state="finished", step=1, checkpoint=None)""",
}
PROLOGUE = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[-1])
end = os._exit
def line(name, **line):
    with (run / name).open("a") as file: file.write(json.dumps(line) + "\\n")
def result(**result): (run / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def child(monkeypatch):
    """`child("dies")`: from now on trainers are this script."""

    def choose(name: str) -> None:
        body = CHILDREN[name].replace("\n        ", "\n")
        monkeypatch.setattr(Trainer, "COMMAND", (sys.executable, "-c", PROLOGUE + body))

    return choose


@pytest.fixture
def rung(monkeypatch) -> list[tuple[str, int]]:
    """What was rung instead of ringing."""
    heard: list[tuple[str, int]] = []
    for module in ("runs", "requests"):
        monkeypatch.setattr(f"labeler.models.{module}.ring", lambda task, pk: heard.append((task, pk)))
    return heard


@pytest.fixture
def run(project, rung, home) -> Run:
    (home / "checkpoints" / "plain").mkdir(parents=True, exist_ok=True)
    project.start = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/plain")
    project.save()
    Prompt.objects.create(project=project, content="Joke, please.")
    run = Run.objects.launch(project, "rollouts", {}, None)
    rung.clear()
    return run


def meanwhile(work) -> threading.Thread:
    def with_its_own_connection():
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=with_its_own_connection)
    thread.start()
    return thread


def until(true, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def after_the_lease(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(leased_until=timezone.now() - timedelta(seconds=1))


def is_alive(pid: int) -> bool:
    """A zombie, which has no memory left, is not."""
    try:
        return bool(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return False


def process_of(run: Run) -> int:
    until((run.directory / "process.json").exists)
    return json.loads((run.directory / "process.json").read_text())["pid"]


def executed(run: Run) -> Run:
    tasks.execute(run.pk)
    run.refresh_from_db()
    return run
