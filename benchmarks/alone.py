"""Programs that are measured: each in a process of its own, on one thread, so that a clock tells of nothing
else; and where no clock tells, as many of them at once as there are cores."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.installation import Unexpected

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(module: str, *arguments: Any) -> str:
    """What `python -m MODULE` prints; its end has to be a good one."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if ended.returncode:
        trouble = ended.stderr.strip()[-2000:]
        raise Unexpected(f"{module} {arguments[0]} ended with {ended.returncode}: {trouble}")
    return ended.stdout


def at_once() -> ThreadPoolExecutor:
    """A pool that waits for as many of them as there are cores."""
    return ThreadPoolExecutor(CORES)
