"""What two processes do in one launch, because to start them takes longer than what they train.

`python -m tests.rlhf.by_two FOLDER "ARGUMENTS" …` does what `python -m rlhf ARGUMENTS` does, one after the
other; then each process tells in the folder what it heard of the other.
"""

import json
import os
import shlex
import sys
from pathlib import Path

import torch

from rlhf import processes
from rlhf.__main__ import main
from rlhf.memory import Memory
from rlhf.run import Failed, RunDirectory


def hear(folder: Path) -> None:
    """Run short of memory and fail at the second process alone."""
    processes.join(torch.device("cpu"))
    memory = Memory(RunDirectory(folder), 8)

    def narrow(at_once):
        if processes.rank() == 1 and at_once > 2:
            raise MemoryError
        return processes.rank()

    def wrong(at_once):
        if processes.rank() == 1:
            raise Failed("No reward for rollout 3.", "Mend it.", "reward")

    told = {"fitted": memory.fit(narrow), "at_once": memory.at_once}
    told["shared"] = memory.share("abc", lambda some, at_once: [each * 2 for each in some])
    try:
        memory.fit(wrong)
    except Failed as failed:
        told["failed"] = [failed.reason, failed.remedy, failed.field]
    (folder / f"heard-{processes.rank()}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    # They meet once and part once: without that a process may abort on leaving.
    part, processes.leave = processes.leave, lambda: None
    folder, *commands = sys.argv[1:]
    for command in commands:
        main(shlex.split(command))
    hear(Path(folder))
    part()
    os._exit(0)  # to take down again what was loaded takes a second
