"""Starting a run and telling how it ended: in result.json, by the exit status and in one line of words.

It ends in one of four ways: finished, failed, cancelled (the file `cancel`), or stopped by a signal and to be
tried again, which alone leaves no result. Everything that is printed on the way goes to log.txt.
"""

import contextlib
import fcntl
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from rlhf import config as configs
from rlhf import data, processes
from rlhf.loading import loading
from rlhf.run import Cancelled, Failed, Outcome, RunDirectory, Stopped

FINISHED, FAILED, TRY_AGAIN = 0, 1, 75
TRAINERS = {
    "sft": "rlhf.train_sft:train",
    "reward": "rlhf.reward_run:train",
    "policy": "rlhf.train_policy:train",
    "rollouts": "rlhf.rollouts:write",
    "evaluation": "rlhf.evaluation_run:measure",
}


def execute(path: str | Path, afresh: bool = False) -> int:
    """Run or resume a directory to its end; the exit status."""
    run = processes.directory(path)
    try:
        config = configs.read(run.path)
    except configs.Refused as refused:
        if run.path.is_dir():
            run.finish("failed", reason=refused.message, field=refused.field)
        return complain(refused.message)
    if processes.rank():
        return _follow(run, config, afresh)
    with _alone(run.path) as alone:
        if not alone:
            return complain("Another process is at work in this run directory.", TRY_AGAIN)
        if afresh:
            run.clear()
        before = state(run.path)
        if before == "finished":
            return complain("This run has finished; --afresh runs it again.", FINISHED)
        if before == "cancelled":  # that wish was granted; whoever starts it again wants it to go on
            (run.path / "cancel").unlink(missing_ok=True)
        (run.path / "result.json").unlink(missing_ok=True)
        with _logged(run):
            status, words = _attempt(run, config)
        return complain(words, status) if words else status


def _follow(run: RunDirectory, config: configs.Config, afresh: bool) -> int:
    """Take part as one of several processes, of which the first tells how it ended."""
    if config.kind not in processes.KINDS or (state(run.path) == "finished" and not afresh):
        return FINISHED
    return _attempt(run, config)[0]


def complain(text: str, status: int = FAILED) -> int:
    """One line of words on stderr; gives back the exit status to end with."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)
    return status


def _attempt(run: RunDirectory, config: configs.Config) -> tuple[int, str]:
    """Train, and write down how it ended; the exit status and what to say on the terminal."""
    try:
        with _signals(run):
            outcome = _train(run, config)
    except Cancelled:
        run.finish("cancelled", reason="The run was cancelled.")
        run.tell("cancelled")
        return FINISHED, ""
    except (Stopped, KeyboardInterrupt):
        run.log("Stopped by a signal; started again, the run goes on from its last checkpoint.")
        return TRY_AGAIN, "Stopped; the same command goes on from the last checkpoint."
    except Failed as failed:
        run.log(f"Failed: {failed.reason}")
        run.finish("failed", reason=failed.reason, remedy=failed.remedy, field=failed.field)
        run.tell("failed")
        return FAILED, f"{failed.reason} {failed.remedy}".strip()
    run.finish("finished", outcome)
    run.tell("finished")
    run.log(f"Finished at step {run.step_now}.")
    return FINISHED, ""


def _train(run: RunDirectory, config: configs.Config) -> Outcome:
    """Call the trainer of this kind; whatever goes wrong comes out as Failed, in words."""
    module, _, function = TRAINERS[config.kind].partition(":")
    try:
        with loading():
            from rlhf import memory
            from rlhf.checkpoint import Unloadable

            train = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise Failed(f"{error.name or error} is not installed.", "Install the worker's packages.") from error
    try:
        run.tell("loading")
        memory.keep_what_is_freed()
        return train(run, config)
    except (Cancelled, Stopped, Failed):
        raise
    except configs.Refused as refused:
        raise Failed(refused.message, field=refused.field) from refused
    except data.BadLine as bad:
        raise Failed(f"In the data, {bad}", "Mend that line.", "dataset") from bad
    except Unloadable as unloadable:
        raise Failed(unloadable.reason, unloadable.remedy, unloadable.field) from unloadable
    except OSError as error:
        words = f"{error.strerror or error} {error.filename or ''}".strip()
        raise Failed(words, "See whether the disk is full and the files may be read.") from error
    except Exception as error:  # the last door: no run may end without a result
        traceback.print_exc()
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise Failed("There is not enough memory.", "Compute fewer at once.", "micro_batch") from error
        raise Failed(f"{type(error).__name__}: {error}", "The log tells where it happened.") from error
    finally:
        processes.leave()


def state(path: Path) -> str | None:
    """How the directory's last attempt ended, None where it has not."""
    try:
        return json.loads((path / "result.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this process is the only one in the directory: two would write over each other."""
    with open(path / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _logged(run: RunDirectory) -> Iterator[None]:
    """Send what is printed to log.txt: by file descriptor, for the last words of a dying library."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    log = os.open(run.path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in kept:
        os.dup2(log, number)
    os.close(log)
    if os.isatty(kept[2]):
        run.terminal = os.fdopen(os.dup(kept[2]), "w")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)
        if run.terminal:
            run.terminal.close()


@contextlib.contextmanager
def _signals(run: RunDirectory) -> Iterator[None]:
    """SIGTERM and Ctrl-C stop the run where it can be taken up again."""
    before = {number: signal.signal(number, run.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
