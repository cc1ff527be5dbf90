"""A Redis or Valkey of the machine's own, for the one test that needs it. Where there is none, root on a
Debian installs the distribution's."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("redis-server", "valkey-server")


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def find_or_install() -> str | None:
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # A policy that starts nothing: only the program is wanted, no service of the machine's.
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], env=env, **quiet)
        subprocess.run(
            ["apt-get", "install", "-qq", "--no-install-recommends", "redis-server"], env=env, **quiet
        )
    return find()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(program: str, folder: Path) -> Iterator[str]:
    """Its address, for as long as it is needed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    with subprocess.Popen([program, "--port", str(port), *options], stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while not listens(port):
                assert time.monotonic() < deadline, f"{program} did not start"
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
