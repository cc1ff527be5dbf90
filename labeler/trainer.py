"""The child process that trains: `python -m rlhf RUN_DIR`, in a session of its own and without secrets.

It ends with its parent on Linux, and the next attempt ends it where that failed. Left out: when it has to
stop (tasks.py) and what it does (rlhf)."""

import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from labeler.supervisor import DIES_WITH_PARENT

# What a trainer may know of its surroundings. The database, the broker and our keys are not among it; a token
# of the Hub is, because gated models are downloaded with it.
NAMES = {
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "TMPDIR",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
    ),
    *("DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "XDG_CACHE_HOME"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
}
PREFIXES = (
    *(
        "LC_",
        "PYTHON",
        "OMP_",
        "MKL_",
        "OPENBLAS_",
        "VECLIB_",
        "KMP_",
        "TORCH",
        "PYTORCH_",
        "CUDA_",
        "NVIDIA_",
    ),
    *(
        "CUBLAS_",
        "NCCL_",
        "ROCM_",
        "ROCR_",
        "HIP_",
        "HSA_",
        "HF_",
        "HUGGINGFACE_",
        "TRANSFORMERS_",
        "TOKENIZERS_",
    ),
)
PATIENCE = 60.0  # seconds: for a step to end, and for the checkpoint after it
FULL = 4_000_000  # bytes: less is no room for a result, a log and a status
ROOM = "Delete runs that nobody needs, or move the home to a larger disk."
MEMORY = "Compute fewer at once, take a smaller model, or give the machine more memory."


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}


def spawn(command: Sequence[str | os.PathLike], **streams: Any) -> subprocess.Popen:
    """Start a child that ends with the thread which starts it: the kernel knows no parent but that one."""
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", DIES_WITH_PARENT, str(os.getpid()), *command]
    return subprocess.Popen(
        command, cwd=settings.BASE_DIR, env=environment(), start_new_session=True, **streams
    )


def kill_group(leader: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


class Trainer:
    """The process in one run directory."""

    COMMAND = (sys.executable, "-m", "rlhf")

    def __init__(self, directory: Path):
        self.directory = directory
        self.process: subprocess.Popen | None = None
        self._term_at = self._kill_at = math.inf

    def start(self) -> None:
        """Begin, or go on from the last checkpoint, after whatever an earlier attempt left running."""
        self._end_earlier()
        with (self.directory / "log.txt").open("ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = spawn([*self.COMMAND, self.directory], **streams)
        mark = {"host": socket.gethostname(), "pid": self.process.pid}
        (self.directory / "process.json").write_text(json.dumps(mark))

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Whether it ended in that time."""
        assert self.process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.is_running()

    def signal(self, number: int) -> None:
        if self.process and self.is_running():
            kill_group(self.process.pid, number)

    # Stopping: after the step in hand, with a checkpoint; harder where that takes too long.

    def cancel(self) -> None:
        """Ask it to end for good."""
        if self._term_at == math.inf:
            (self.directory / "cancel").touch()
            self._term_at = time.monotonic() + PATIENCE

    def interrupt(self) -> None:
        """Ask it to end so that it can be taken up again."""
        self._term_at = min(self._term_at, time.monotonic())

    def press(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        if now >= self._term_at and self._kill_at == math.inf:
            self.signal(signal.SIGTERM)
            self._kill_at = now + PATIENCE
        if now >= self._kill_at:
            self.signal(signal.SIGKILL)

    def _end_earlier(self) -> None:
        """A trainer holds its directory's lock while it lives: where the lock is free, nobody is left."""
        with open(self.directory / ".lock", "a") as lock:
            deadline = time.monotonic() + 10
            while not _is_free(lock) and time.monotonic() < deadline:
                mark = _read(self.directory / "process.json")
                if mark.get("host") == socket.gethostname():
                    kill_group(mark["pid"])
                time.sleep(0.1)

    # Its end

    @property
    def status(self) -> int:
        assert self.process
        return self.process.returncode

    @property
    def was_killed(self) -> bool:
        return self.status < 0

    def result(self) -> dict[str, Any]:
        return _read(self.directory / "result.json")

    def how_it_ended(self) -> tuple[str, str]:
        """The reason in words, and the remedy, where it left no result that says so itself."""
        said = self._last_words()
        if shutil.disk_usage(self.directory).free < FULL:  # then a trainer cannot write why it failed, either
            return f"The disk is full{said}.", ROOM
        if self.status == -signal.SIGKILL:
            return f"It was killed, probably because the machine ran out of memory{said}.", MEMORY
        if self.was_killed:
            return (
                f"It crashed ({signal.Signals(-self.status).name}){said}.",
                "The log tells how far it came.",
            )
        return f"It ended with status {self.status} and without a result{said}.", "The log tells why."

    def _last_words(self) -> str:
        try:
            lines = (self.directory / "log.txt").read_bytes()[-4000:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        last = next((line.strip(" .") for line in reversed(lines) if line.strip()), "")
        return f", after it wrote “{last[:300]}”" if last else ""


def _is_free(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
