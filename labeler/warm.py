"""The warm child: a process (`python -m rlhf.serve`) that keeps its models in memory for the next question,
and gives that memory up after five idle minutes, and as soon as a run begins on this machine.

Also what all have in common that ask it: where a checkpoint's files are, and when they give way to others.
Which question is asked when is decided in labeler/tasks.py, what each kind asks in labeler/answers.py."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection

from labeler.celery import is_stopping
from labeler.models import Checkpoint, Request, Run
from labeler.trainer import MEMORY, kill_group, spawn

IDLE = 300.0  # seconds
LONGEST = 900.0
TICK = 0.5
DOWNLOADED = 20  # runs in whose folders a start from the Hub is looked for


class Unanswerable(Exception):
    """Why there is no answer, and the remedy, in words."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Interrupted(Exception):
    """This worker has to go; the request is another one's."""


class Later(Exception):
    """A part is done, and others come before the rest; how far it is, in words."""

    def __init__(self, words: str):
        super().__init__(f"{words}; others come first, then it goes on")


class Warm:
    """The child, started with the first question. One asks at a time."""

    COMMAND = (sys.executable, "-m", "rlhf.serve")

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.process: subprocess.Popen | None = None
        self._unread = b""
        self._used_at = 0.0
        self._asked = 0

    def ask(self, operation: str, **question: Any) -> dict[str, Any]:
        """The child's answer. Raises Unanswerable, Interrupted."""
        *_, answer = self.stream(operation, lambda: "", **question)
        return answer

    def stream(self, operation: str, enough: Callable[[], str], **question: Any) -> Generator[dict[str, Any]]:
        """What the child says, part after part, and at last its answer. As soon as it is `enough` the child
        is told that word, to "stop" or to "pause", and answers with what there is; where nobody listens any
        more it is told to stop. Raises Unanswerable, Interrupted."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        self._asked += 1
        number, ending, answered = self._asked, "", False
        self._say({"id": number, "op": operation, **question})
        try:
            while not answered:
                if not ending and (ending := enough()):
                    self._say({"id": number, "op": ending})
                said = self._hear(enough if not ending else None)
                if said is None or said.get("id") != number:  # somebody's who left before the end
                    continue
                if "error" in said:
                    answered = True
                    raise Unanswerable(said["error"], said.get("remedy", ""))
                answered = "part" not in said
                yield said if answered else said["part"]
        finally:
            if not answered and not ending and self.process:
                with contextlib.suppress(Unanswerable):
                    self._say({"id": number, "op": "stop"})

    def kill(self) -> None:
        """From another thread: whoever waits for an answer finds that there will be none."""
        if process := self.process:
            kill_group(process.pid)

    def stop(self) -> None:
        if self.process:
            kill_group(self.process.pid)
            self.process.wait()
            for pipe in filter(None, (self.process.stdin, self.process.stdout)):
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process = None

    def _start(self) -> None:
        self.stop()
        self._unread = b""
        self.process = spawn(self.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._hear()  # that it is ready
        threading.Thread(target=self._keep, args=[self.process], daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process and self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _hear(self, enough: Callable[[], str] | None = None) -> dict[str, Any] | None:
        """The next line; None as soon as it is enough, to whoever wants to know that."""
        assert self.process and self.process.stdout
        deadline, parent = time.monotonic() + LONGEST, os.getppid()
        while b"\n" not in self._unread:
            if is_stopping() or os.getppid() != parent:
                self.stop()
                raise Interrupted
            if time.monotonic() > deadline:
                self.stop()
                raise Unanswerable(f"There was no answer within {LONGEST / 60:.0f} minutes.", "Ask for less.")
            if select.select([self.process.stdout], [], [], TICK)[0]:
                new = os.read(self.process.stdout.fileno(), 65536)
                if not new:
                    raise self._died()
                self._unread += new
            elif enough and enough():
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        self._used_at = time.monotonic()
        return json.loads(line)

    def _died(self) -> Unanswerable:
        assert self.process
        status = self.process.wait()
        self.stop()
        if status == -9:
            return Unanswerable("It was killed, probably because the machine ran out of memory.", MEMORY)
        return Unanswerable(
            f"The process that answers ended with status {status}.", "The worker's log tells why."
        )

    def _keep(self, process: subprocess.Popen) -> None:
        """Let the memory go when nobody has asked for long, or a run needs it."""
        while self.process is process and process.poll() is None:
            time.sleep(1)
            if self.busy.acquire(blocking=False):
                try:
                    if self.process is process and (self._is_idle() or runs_here().exists()):
                        self.stop()
                except DatabaseError:
                    continue  # then nobody launches a run either
                finally:
                    self.busy.release()
                    connection.close()

    def _is_idle(self) -> bool:
        return time.monotonic() - self._used_at > IDLE


def runs_here():
    """The run that this machine works on."""
    return Run.objects.filter(state=Run.State.RUNNING, worker=socket.gethostname())


warm = Warm()


def what_for() -> str:
    """What an answer has to wait for, in words; nothing where it need not. A graphics card holds a run's
    models and not also ours; beside a run on the processor an answer is only slower."""
    run = runs_here().first()
    if run is None or run.device.startswith("cpu"):
        return ""
    return f"waiting for run {run.pk} to finish"


def goes_on(request: Request, words: str, begun: bool) -> bool:
    """Between two portions: tell how far it is; whether to go on, or somebody has enough. Once something is
    done in this turn, whoever waits for something short goes first. Raises Interrupted, Later."""
    if is_stopping():
        raise Interrupted
    if request.is_to_stop():
        return False
    if begun and (what_for() or Request.objects.short_ones_wait()):
        raise Later(words)
    request.tell(words)
    return True


def keep(request: Request, body: dict[str, Any], side: int | None = None) -> None:
    """One more part of its answer. Raises Interrupted where it is another worker's by now."""
    if not request.keep(body if side is None else {"side": side, **body}):
        raise Interrupted


def folder_of(pk: int | None, run: Run | None = None) -> Path:
    """Where a checkpoint's files are. A start from the Hub lies where the run has downloaded it."""
    checkpoint = Checkpoint.objects.filter(pk=pk or 0).first()
    if checkpoint is None:
        raise Unanswerable("The checkpoint is no longer known.", "Choose another.")
    began = [run] if run else checkpoint.started_runs.order_by("-pk")[:DOWNLOADED]
    there = (each.directory / "inputs" / "policy" for each in began)
    folder = checkpoint.folder or next((each for each in there if each.is_dir()), None)
    if folder is None or not folder.is_dir():
        raise Unanswerable(
            f"The files of “{checkpoint}” are not on this machine.", "Choose another checkpoint."
        )
    return folder
