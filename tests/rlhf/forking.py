"""Runs directories, each in a process of its own, by `python -m tests.rlhf.forking RUN_DIR [STEP] …`.

They are forked off this one, which has loaded what they need, because to load it takes longer than what they
train. With a step a run dies when it is about to tell it: at once, nothing is flushed, nothing is said. On
stdout stand the number of each process as it begins and its status as it ends.
"""

import importlib
import os
import signal
import sys

from rlhf import config
from rlhf.__main__ import main
from rlhf.execute import TRAINERS
from rlhf.run import RunDirectory


def die_at(last: int) -> None:
    tell = RunDirectory.step

    def step(self, step, **metrics):
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        tell(self, step, **metrics)

    RunDirectory.step = step


if __name__ == "__main__":
    runs: list[list[str]] = []
    for argument in sys.argv[1:]:
        runs[-1].append(argument) if argument.isdigit() else runs.append([argument])
    for path, *last in runs:
        importlib.import_module(TRAINERS[config.read(path).kind].partition(":")[0])
        if not (child := os.fork()):
            if last:
                die_at(int(*last))
            os._exit(main([path]))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)  # to take down again what was loaded takes a second
