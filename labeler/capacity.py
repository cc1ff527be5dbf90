"""What the machine has that runs compute on: its memory, its cards and the room on its disk.

The worker tells, in a file of the home that it shares with the web process: the two need not be on one
machine. Left out: what a run needs of it (footprint.py)."""

import json
import os
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from django.conf import settings

# A container's own limit, before the machine's memory.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
ASK_CARDS = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
SECONDS = 20


@dataclass(frozen=True)
class Capacity:
    host: str
    memory: int  # bytes
    threads: int
    cards: list[tuple[str, int]] = field(default_factory=list)  # name and bytes

    def where(self, device: str) -> tuple[str, int]:
        """What a run with this setting computes in, in words, and how many bytes that has."""
        if self.cards and device in ("auto", "cuda"):
            return self.cards[0]
        return "the worker's machine", self.memory


def told() -> Capacity | None:
    """What the worker that came last has said; None before one has come."""
    try:
        said = json.loads(_file().read_text(encoding="utf-8"))
        return Capacity(
            said["host"], said["memory"], said["threads"], [(name, size) for name, size in said["cards"]]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tell() -> None:
    """Say what this machine has, whole or not at all."""
    here = Capacity(socket.gethostname(), memory(), os.cpu_count() or 1, cards())
    part = _file().with_suffix(".part")
    part.write_text(json.dumps(asdict(here)) + "\n", encoding="utf-8")
    os.replace(part, _file())


def memory() -> int:
    """Bytes that this machine, or this container, has."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMITS:
        try:
            return min(whole, int(Path(path).read_text()))
        except (OSError, ValueError):  # another system; or "max", which is no limit
            continue
    return whole


def cards() -> list[tuple[str, int]]:
    try:
        asked = subprocess.run(ASK_CARDS, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in asked.stdout.splitlines() if not asked.returncode else []:
        name, _, size = line.rpartition(",")
        if name and size.strip().isdecimal():
            found.append((name.strip(), int(size) * 2**20))
    return found


def room() -> int:
    """Free bytes on the disk of the home."""
    there = next(path for path in (settings.HOME, *settings.HOME.parents) if path.exists())
    return shutil.disk_usage(there).free


def _file() -> Path:
    return settings.HOME / "worker.json"
