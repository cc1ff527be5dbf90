"""Keeps processes alive in the foreground: each one's lines marked with its name, a dead one started again
after a pause that grows, all of them ended in reverse order on Ctrl-C.

Each child leads a session of its own: Ctrl-C in a terminal reaches only the supervisor, which then decides
the order, and what a killed child leaves behind can be ended as one group. On Linux a child also ends when
its supervisor is killed.

Left out: which processes there are (launcher.py), and the embedded Postgres, which outlives its starter while
somebody else holds it: for that one there is `watch`."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labeler.machine import CannotStart

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
A_MOMENT = 0.5
A_GOOD_LIFE = 10.0  # a child that lived so long starts again without a pause to speak of
LONGEST_LINE = 64 * 1024
COLOURS = (36, 35, 33, 32, 34)

# Asks the kernel for SIGTERM when the supervisor dies, then becomes the child itself.
DIES_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Child:
    name: str
    command: Sequence[str | os.PathLike]
    env: dict[str, str]
    grace: float = 10.0  # seconds between being asked to end and being ended
    pass_fds: Sequence[int] = ()
    process: asyncio.subprocess.Process | None = None


@dataclass
class Supervisor:
    tiers: list[list[Child]]  # started together; the last tier ends first
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    asked_at: float = 0.0

    # What it says

    def say(self, line: str, name: str = "") -> None:
        if name and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            colour = COLOURS[sum(map(ord, name)) % len(COLOURS)]
            mark = f"\033[{colour}m{name:>11} │\033[0m "
        else:
            mark = f"{name:>11} | " if name else ""
        try:
            print(mark + line, flush=True)
        except OSError:  # whoever read along has gone, and took the terminal with them
            self.stop()

    # Living

    async def run(self, *company: Awaitable[None]) -> None:
        """Until a signal, or until `stop()`. `company` lives as long."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        tasks = [asyncio.ensure_future(keeper) for keeper in company]
        tasks += [asyncio.create_task(self._keep(child)) for tier in self.tiers for child in tier]
        for task in tasks:
            task.add_done_callback(self._look_for_fault)
        await self.stopping.wait()
        for tier in reversed(self.tiers):
            await asyncio.gather(*map(self._end, tier))
        for task in tasks:
            task.cancel()
        for ending in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ending, Exception):
                raise ending

    def _look_for_fault(self, task: asyncio.Task) -> None:
        if not task.cancelled() and task.exception():
            self.stop()

    def stop(self) -> None:
        self.stopping.set()

    def _asked_to_stop(self) -> None:
        """Once: in order. Once more: at once. The same signal to process and group counts as one."""
        now = asyncio.get_running_loop().time()
        if not self.stopping.is_set():
            self.asked_at = now
            self.say("Stopping … (once more to stop at once)")
            self.stopping.set()
        elif now - self.asked_at > A_MOMENT:
            self.hurried.set()

    async def _keep(self, child: Child) -> None:
        loop, pause = asyncio.get_running_loop(), 0.0
        while not self.stopping.is_set():
            began = loop.time()
            how = await self._live(child)
            if self.stopping.is_set():
                return
            pause = FIRST_PAUSE if loop.time() - began > A_GOOD_LIFE else next_pause(pause)
            self.say(f"{how}; starting it again in {pause:g} s", child.name)
            await asyncio.sleep(pause)

    async def _live(self, child: Child) -> str:
        """One life, from start to end; says how it ended."""
        wrapped = [*child.command]
        if sys.platform == "linux":
            wrapped = [sys.executable, "-I", "-S", "-c", DIES_WITH_PARENT, str(os.getpid()), *child.command]
        child.process = process = await asyncio.create_subprocess_exec(
            *wrapped,
            env=child.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LONGEST_LINE,
            start_new_session=True,
            pass_fds=child.pass_fds,
        )
        reading = asyncio.create_task(self._read(child.name, process.stdout))
        status = await process.wait()
        end_group(process.pid)
        # What it said last. A grandchild in a session of its own may keep the pipe open: no waiting for that.
        await asyncio.wait([reading], timeout=1)
        reading.cancel()
        return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"

    async def _read(self, name: str, lines: asyncio.StreamReader | None) -> None:
        assert lines
        while True:
            try:
                line = await lines.readline()
            except ValueError:  # longer than the limit: the stream has dropped it
                line = b"(a line too long to show)"
            if not line:
                return
            if line.strip():
                self.say(line.decode(errors="replace").rstrip(), name)

    async def _end(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        hurry = asyncio.create_task(self.hurried.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait([hurry, ended], timeout=child.grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        end_group(process.pid)
        await ended


def next_pause(pause: float) -> float:
    return min(pause * 2, LONGEST_PAUSE) if pause else FIRST_PAUSE


def end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


async def watch(
    alive: Callable[[], bool], revive: Callable[[], None], say: Callable[[str], None], seconds: float = 1.0
) -> None:
    """Starts again what is nobody's child, with the same growing pause between attempts."""
    pause = 0.0
    while True:
        await asyncio.sleep(seconds)
        if await asyncio.to_thread(alive):
            pause = 0.0
            continue
        pause = next_pause(pause)
        say(f"gone; starting it again in {pause:g} s")
        await asyncio.sleep(pause)
        try:
            await asyncio.to_thread(revive)
        except (CannotStart, OSError) as error:
            say(str(error))


async def follow(log: Path, say: Callable[[str], None], seconds: float = 0.5) -> None:
    """The lines that a log gains from now on, through its renaming too."""
    position = log.stat().st_size if log.exists() else 0
    while True:
        await asyncio.sleep(seconds)
        try:
            if log.stat().st_size < position:
                position = 0
            with log.open("rb") as file:
                file.seek(position)
                new = file.read()
        except FileNotFoundError:
            continue
        whole, end, _ = new.rpartition(b"\n")
        position += len(whole) + len(end)
        for line in whole.decode(errors="replace").splitlines():
            say(line)
