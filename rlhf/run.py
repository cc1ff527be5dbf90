"""One run directory: what it was given, what it writes, how it ends and how it goes on after a crash.

Line files only grow; every checkpoint remembers how long they were, and resuming cuts them back to that.
Starting a run and telling how it ended is the matter of `rlhf.execute`; what a step computes, the trainers'.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rlhf import config as configs
from rlhf import data

LINE_FILES = ("steps.jsonl", "samples.jsonl", "rollouts.jsonl.zst")
OUTPUTS = (*LINE_FILES, "evaluation.json", "curve", "result.json", "status.json", "log.txt", "checkpoints")


class Failed(Exception):
    """A run that cannot go on: why and what to do, in words, and the setting to blame if there is one."""

    def __init__(self, reason: str, remedy: str = "", field: str = ""):
        super().__init__(reason)
        self.reason, self.remedy, self.field = reason, remedy, field


class Cancelled(Exception):
    """Someone asked the run to end; its last step is in a checkpoint."""


class Stopped(Exception):
    """The process has to go; the run is to be taken up again."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its last checkpoint (relative to the run), its numbers, what else to tell."""

    checkpoint: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class LineFile:
    """An append-only file of JSON lines, optionally one zstd frame per append."""

    def __init__(self, path: Path):
        self.path = path
        self.compressed = path.suffix == ".zst"

    def append(self, lines: Sequence[dict[str, Any]]) -> list[int]:
        """Add whole lines: a reader never sees half of what one call wrote, save after a crash. Where they
        begin in the file and how many bytes they take."""
        block = "".join(data.dumps(line) + "\n" for line in lines).encode()
        if self.compressed:
            import zstandard

            block = zstandard.compress(block)
        with open(self.path, "ab", buffering=0) as file:
            at = file.seek(0, os.SEEK_END)
            file.write(block)
        return [at, len(block)]

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forget everything after the first `size` bytes."""
        if self.size > size:
            os.truncate(self.path, size)

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        if self.path.exists():
            _sync(self.path)


class RunDirectory:
    """A run as its trainer sees it: inputs by name, lines out, checkpoints, and the moment to stop."""

    def __init__(self, path: str | Path):
        self.path = Path(path).resolve()
        self.lines = {name: LineFile(self.path / name) for name in LINE_FILES}
        self.step_now, self.total = 0, 0
        self.phase, self.device = "loading", ""
        self.ending: type[Exception] | None = None
        self.terminal: TextIO | None = None
        self._stepping = False
        self._may_end_after = 0
        self._kept: tuple[int, list[int]] | None = None  # the newest step with rollouts, and where they are
        self._began = time.monotonic()

    # In

    def input(self, given: str) -> Path:
        """Where an input of the config lies; a start from the Hub is fetched first."""
        if not given.startswith("hub:"):
            return self.path / given
        from rlhf import hub

        name, revision = configs.hub_start(given) or (given, "")
        target = self.path / "inputs" / "policy"
        self.tell("downloading")
        target.parent.mkdir(exist_ok=True)
        hub.download(name, revision, into=target)
        self.tell("loading")
        return target

    def lineage(self, config: configs.Config, base: Path, **more: Any) -> dict[str, Any]:
        """Where a checkpoint of this run comes from, for its quintet.json."""
        from rlhf import checkpoint

        known = checkpoint.lineage(base)
        start = {
            "sha256": checkpoint.fingerprint(base),
            "hub": known.get("hub"),
            "revision": known.get("revision"),
        }
        given = {name: self.path / getattr(config, name, "") for name in ("dataset", "prompts")}
        hashes = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in given.items()
            if path.is_file()
        }
        return {
            "kind": "reward" if config.kind == "reward" else "policy",
            "base": {key: value for key, value in start.items() if value},
            "sha256": hashes,
            "config": configs.as_dict(config),
            "seed": config.seed,
        } | more

    # Out

    def step(self, step: int, **metrics: Any) -> None:
        """One line of steps.jsonl. A metric that was not measured is left out, one that is None as well.

        With the place of its rollouts, where they were kept before it: whoever reads one step of
        rollouts.jsonl.zst need not read the others."""
        known = {key: value for key, value in metrics.items() if value is not None}
        if self._kept and self._kept[0] == step:
            known["rollouts"] = self._kept[1]
        try:
            self.lines["steps.jsonl"].append([{"step": step, "seconds": round(self.seconds, 3), **known}])
        except ValueError:
            raise self.lost(step) from None
        self.step_now = step
        self.tell(self.phase)

    def lost(self, step: int, where: str = "") -> Failed:
        """The end of a run whose numbers have left the numbers."""
        return Failed(
            f"At step {step} the loss or its gradient stopped being a number{where}.",
            "The last checkpoint is from before that. Try a lower learning rate.",
            "learning_rate",
        )

    def exploded(self, step: int, loss: float, where: str) -> Failed:
        """The end of a run whose loss went up and stayed up."""
        return Failed(
            f"At step {step} the loss was {loss:.3g}, the third step in a row over five times what was usual"
            f"; worst{where}.",
            "The last checkpoint is from before that. Try a lower learning rate.",
            "learning_rate",
        )

    def samples(self, lines: Sequence[dict[str, Any]]) -> None:
        """Lines of samples.jsonl: the fixed prompts at an evaluated step."""
        try:
            self.lines["samples.jsonl"].append(lines)
        except ValueError:
            raise self.lost(lines[0]["step"]) from None

    def rollouts(self, lines: Sequence[dict[str, Any]]) -> None:
        """Lines of rollouts.jsonl.zst, one frame per call: those of a step in one call."""
        place = self.lines["rollouts.jsonl.zst"].append(lines)
        if lines and "step" in lines[0]:
            self._kept = lines[0]["step"], place

    def leave(self, name: str, value: dict[str, Any]) -> None:
        """A whole file of the run that is there at once or not at all."""
        _replace(self.path / name, value, durable=True)

    def tell(self, phase: str, step: int | None = None, total: int | None = None, device: str = "") -> None:
        """Keep status.json up to date: what the run is at."""
        self.phase, self.device = phase, device or self.device
        self.step_now = self.step_now if step is None else step
        self.total = self.total if total is None else total
        told = {"phase": phase, "step": self.step_now, "total": self.total, "device": self.device}
        _replace(self.path / "status.json", told)

    def log(self, text: str) -> None:
        """A line for people, in log.txt and to whoever watches the terminal."""
        line = f"{time.strftime('%H:%M:%S')} {text}\n"
        with open(self.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(line)
        if self.terminal:
            self.terminal.write(line)
            self.terminal.flush()

    @property
    def seconds(self) -> float:
        """Since the run began, the time between a crash and its resumption not counted."""
        return time.monotonic() - self._began

    # Steps and checkpoints

    def steps(self, done: int, total: int, phase: str = "training") -> Iterator[int]:
        """The steps still to do. A wish to stop takes effect between two, when a checkpoint was written:
        one that comes after `checkpoint_due` was asked waits for the end of the next step."""
        self.tell(phase, step=done, total=total)
        self._stepping = True
        try:
            for step in range(done + 1, total + 1):
                self._heed_cancel()
                yield step
                if self.ending and self._may_end_after == step:
                    raise self.ending
        finally:
            self._stepping = False

    def checkpoint_due(self, step: int, every: int) -> bool:
        """Whether this step must be saved; asks on the way whether the run has been cancelled."""
        self._heed_cancel()
        if self.ending is not None:
            self._may_end_after = step
        return step % every == 0 or step == self.total or self.ending is not None

    def _heed_cancel(self) -> None:
        if self.ending is None and (self.path / "cancel").exists():
            self.ending = Cancelled

    def save(
        self,
        step: int,
        model: Any,
        tokenizer: Any,
        optimizer: Any,
        lineage: dict[str, Any],
        metrics: dict[str, Any],
        **state: Any,
    ) -> str:
        """Write checkpoints/step-000050 with all that resuming needs; returns its relative path.

        `metrics` are its numbers so far, `state` any further plain values: `resume` finds both again.
        """
        import torch

        from rlhf import checkpoint

        for lines in self.lines.values():
            lines.sync()
        tensors = optimizer.state() | {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        values = {
            "step": step,
            "seconds": self.seconds,
            "cursors": {name: lines.size for name, lines in self.lines.items()},
            "metrics": metrics,
            "state": state,
        }
        older = self._resumable()
        path = self.path / self.checkpoint_at(step)
        trainer = checkpoint.TrainerState(tensors, values)
        checkpoint.save(path, model, tokenizer, lineage | {"step": step}, metrics, trainer)
        for other in older:
            if other != path:
                shutil.rmtree(other / checkpoint.TRAINER)
        return self.checkpoint_at(step)

    @staticmethod
    def checkpoint_at(step: int) -> str:
        """Where the checkpoint of a step lies in its run."""
        return f"checkpoints/step-{step:06d}"

    def resume(self) -> "Resumed | None":
        """Go back to the newest checkpoint that can be resumed; without one None, and an empty slate."""
        (self.path / "checkpoints").mkdir(exist_ok=True)
        for part in (self.path / "checkpoints").glob(".*.part"):
            shutil.rmtree(part)
        found = self._resumable()
        if not found:
            for path in self._checkpoints():
                shutil.rmtree(path)
            for lines in self.lines.values():
                lines.cut(0)
            return None
        resumed = Resumed(found[-1])
        for name, size in resumed.values["cursors"].items():
            if self.lines[name].size < size:
                raise Failed(
                    f"{name} is shorter than it was when step {resumed.step} was saved.",
                    "Restore the file, or run again with --afresh.",
                )
            self.lines[name].cut(size)
        self.goes_on_from(resumed.values["seconds"])
        self.log(f"Going on after step {resumed.step}.")
        return resumed

    def goes_on_from(self, seconds: float) -> None:
        """Let the clock go on from where an earlier attempt stood."""
        self._began = time.monotonic() - seconds

    def clear(self) -> None:
        """Forget everything that earlier attempts wrote."""
        for name in OUTPUTS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _checkpoints(self) -> list[Path]:
        folders = (self.path / "checkpoints").glob("step-*")
        return sorted(path for path in folders if re.fullmatch(r"step-\d{6,}", path.name))

    def _resumable(self) -> list[Path]:
        return [path for path in self._checkpoints() if (path / "trainer" / "state.json").is_file()]

    # The end

    def finish(self, state: str, outcome: Outcome | None = None, **told: Any) -> None:
        """Write result.json: how the run ended, in words where it failed."""
        outcome = outcome or Outcome(self._last())
        result = {"state": state, "reason": "", "remedy": "", "field": ""} | told
        result |= {"step": self.step_now, "checkpoint": outcome.checkpoint, "metrics": outcome.metrics}
        for lines in self.lines.values():
            lines.sync()
        _replace(self.path / "result.json", result | outcome.extra, durable=True)

    def _last(self) -> str | None:
        found = self._checkpoints()
        return str(found[-1].relative_to(self.path)) if found else None

    def stop(self, *_: Any) -> None:
        """A signal wants the process gone: between two steps if it trains, at once if it does not yet."""
        self.ending = Stopped
        if not self._stepping:
            raise Stopped


class Resumed:
    """A checkpoint to go on from: its weights' place, and what `RunDirectory.save` kept with them."""

    def __init__(self, path: Path):
        from rlhf import checkpoint

        self.path = path
        self._trainer = checkpoint.read_trainer(path)
        self.values = self._trainer.values

    @property
    def step(self) -> int:
        return self.values["step"]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.values["metrics"]

    @property
    def state(self) -> dict[str, Any]:
        return self.values["state"]

    @property
    def tensors(self) -> dict[str, Any]:
        return self._trainer.tensors

    def restore(self, optimizer: Any) -> None:
        """Put the optimizer and the random generators back where they were."""
        import torch

        tensors = self.tensors
        optimizer.restore(tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])


def _replace(path: Path, value: dict[str, Any], durable: bool = False) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    if durable:
        _sync(part)
    os.replace(part, path)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
