"""Starting several processes for one run on this machine, by torchrun's machinery, and ending as one would.

torchrun ends with 1 whatever became of its processes. Whoever has to tell "try again" from "failed" starts
them by `python -m rlhf RUN_DIR --processes N`. What they then do is the matter of `rlhf.processes`.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf.execute import FAILED, FINISHED, TRY_AGAIN, complain, state

GRACE = 600  # seconds for a step and its checkpoint, once the run was asked to stop


def launch(path: Path, number: int, options: Sequence[str] = ()) -> int:
    """Run or resume a directory with so many processes; the exit status that one alone would end with."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # what goes wrong is told by the run
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=number, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, shutdown_timeout=GRACE,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "rlhf", str(path), *options)
    except SignalException:
        return {"finished": FINISHED, "cancelled": FINISHED, "failed": FAILED}.get(
            state(path) or "", TRY_AGAIN
        )
    except ChildFailedError as failed:
        return _status({rank: each.exitcode for rank, each in failed.failures.items()})
    return FINISHED


def _status(ended: Mapping[int, int]) -> int:
    """From the exit statuses of those that did not finish, by rank."""
    if -signal.SIGKILL in ended.values():
        return complain("One of the processes was killed, probably because there was not enough memory.")
    return TRY_AGAIN if ended.get(0) == TRY_AGAIN else FAILED
