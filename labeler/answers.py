"""Answers for people who wait: the warm child that samples and scores, and what each kind of request asks it.

The child (`python -m rlhf.serve`) keeps its models in memory for the next question, and gives that memory
up: after five idle minutes, and as soon as a run begins on this machine. Which request is answered when is
decided in tasks.py."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection, transaction

from labeler import gathering, harvest, judging, simulated
from labeler.celery import is_stopping
from labeler.models import Checkpoint, Harvest, Project, Purpose, Quintet, Request, Run
from labeler.trainer import MEMORY, kill_group, spawn
from labeler.uncertainty import disagreement, uncertainty
from rlhf import checkers, data
from rlhf.config import Refused

IDLE = 300.0  # seconds
LONGEST = 900.0
TICK = 0.5
ROOM = 64_000_000  # bytes of one answer's parts, at which it ends
A_FEW = 8  # answers that the reward model reads at once
A_CHUNK = 32  # quintets that the reward model reads before it looks whether somebody else waits


class Unanswerable(Exception):
    """Why there is no answer, and the remedy, in words."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Interrupted(Exception):
    """This worker has to go; the request is another one's."""


class Later(Exception):
    """A part is done, and others come before the rest; how far it is, in words."""


class Warm:
    """The child, started with the first question. One asks at a time."""

    COMMAND = (sys.executable, "-m", "rlhf.serve")

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.process: subprocess.Popen | None = None
        self._unread = b""
        self._used_at = 0.0
        self._asked = 0

    def ask(self, operation: str, **question: Any) -> dict[str, Any]:
        """The child's answer. Raises Unanswerable, Interrupted."""
        *_, answer = self.stream(operation, lambda: False, **question)
        return answer

    def stream(
        self, operation: str, enough: Callable[[], bool], **question: Any
    ) -> Generator[dict[str, Any]]:
        """What the child says, part after part, and at last its answer. As soon as it is `enough` the child
        is told to stop, and answers with what there is; so it is where nobody listens any more. Raises
        Unanswerable, Interrupted."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        self._asked += 1
        number, stopping, answered = self._asked, False, False
        self._say({"id": number, "op": operation, **question})
        try:
            while not answered:
                if not stopping and enough():
                    stopping = True
                    self._say({"id": number, "op": "stop"})
                said = self._hear(enough if not stopping else None)
                if said is None or said.get("id") != number:  # somebody's who left before the end
                    continue
                if "error" in said:
                    answered = True
                    raise Unanswerable(said["error"], said.get("remedy", ""))
                answered = "part" not in said
                yield said if answered else said["part"]
        finally:
            if not answered and not stopping and self.process:
                with contextlib.suppress(Unanswerable):
                    self._say({"id": number, "op": "stop"})

    def kill(self) -> None:
        """From another thread: whoever waits for an answer finds that there will be none."""
        if process := self.process:
            kill_group(process.pid)

    def stop(self) -> None:
        if self.process:
            kill_group(self.process.pid)
            self.process.wait()
            for pipe in filter(None, (self.process.stdin, self.process.stdout)):
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process = None

    def _start(self) -> None:
        self.stop()
        self._unread = b""
        self.process = spawn(self.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._hear()  # that it is ready
        threading.Thread(target=self._keep, args=[self.process], daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process and self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _hear(self, enough: Callable[[], bool] | None = None) -> dict[str, Any] | None:
        """The next line; None as soon as it is enough, to whoever wants to know that."""
        assert self.process and self.process.stdout
        deadline, parent = time.monotonic() + LONGEST, os.getppid()
        while b"\n" not in self._unread:
            if is_stopping() or os.getppid() != parent:
                self.stop()
                raise Interrupted
            if time.monotonic() > deadline:
                self.stop()
                raise Unanswerable(f"There was no answer within {LONGEST / 60:.0f} minutes.", "Ask for less.")
            if select.select([self.process.stdout], [], [], TICK)[0]:
                new = os.read(self.process.stdout.fileno(), 65536)
                if not new:
                    raise self._died()
                self._unread += new
            elif enough and enough():
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        self._used_at = time.monotonic()
        return json.loads(line)

    def _died(self) -> Unanswerable:
        assert self.process
        status = self.process.wait()
        self.stop()
        if status == -9:
            return Unanswerable("It was killed, probably because the machine ran out of memory.", MEMORY)
        return Unanswerable(
            f"The process that answers ended with status {status}.", "The worker's log tells why."
        )

    def _keep(self, process: subprocess.Popen) -> None:
        """Let the memory go when nobody has asked for long, or a run needs it."""
        while self.process is process and process.poll() is None:
            time.sleep(1)
            if self.busy.acquire(blocking=False):
                try:
                    if self.process is process and (self._is_idle() or runs_here().exists()):
                        self.stop()
                except DatabaseError:
                    continue  # then nobody launches a run either
                finally:
                    self.busy.release()
                    connection.close()

    def _is_idle(self) -> bool:
        return time.monotonic() - self._used_at > IDLE


warm = Warm()


def runs_here():
    """The run that this machine works on."""
    return Run.objects.filter(state=Run.State.RUNNING, worker=socket.gethostname())


def what_for() -> str:
    """What an answer has to wait for, in words; nothing where it need not. A graphics card holds a run's
    models and not also ours; beside a run on the processor an answer is only slower."""
    run = runs_here().first()
    if run is None or run.device.startswith("cpu"):
        return ""
    return f"waiting for run {run.pk} to finish"


def answer(request: Request) -> dict[str, Any]:
    """What was asked for. Raises Unanswerable, Interrupted, Later."""
    with warm.busy:
        return KINDS[request.kind](request, request.question)


def _compare(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    options = {name: asked[name] for name in ("temperature", "max_new_tokens", "seed")}
    sides = {}
    for side, words in (("before", "the starting model"), ("after", "the tuned model")):
        request.tell(f"{words} answers")
        folder = _folder(asked[side], request.run)
        said = warm.ask("sample", checkpoint=str(folder), prompts=asked["prompts"], count=1, **options)
        sides[side] = [{"text": one["text"], "finished": one["finished"]} for [one] in said["rollouts"]]
    items = [
        {"prompt": prompt, "before": before, "after": after}
        for prompt, before, after in zip(asked["prompts"], sides["before"], sides["after"], strict=True)
    ]
    if asked.get("reward_model"):
        request.tell("the reward model reads the answers")
        both = [
            {"prompt": each["prompt"], "rollouts": [each["before"]["text"], each["after"]["text"]]}
            for each in items
        ]
        said = warm.ask("score", checkpoint=str(_folder(asked["reward_model"])), items=both)
        for item, (before, after) in zip(items, said["scores"], strict=True):
            item["before"]["score"], item["after"]["score"] = before, after
    return {"items": items}


def _sample(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the model answers")
    options = {name: value for name, value in asked.items() if name != "checkpoint"}
    folder = _folder(asked["checkpoint"])
    if not asked.get("stream"):
        return {"rollouts": warm.ask("sample", checkpoint=str(folder), **options)["rollouts"]}
    if asked["stream"] == "tokens":
        request.parts.all().delete()  # an answer that is read word by word begins anew
    told: dict[str, Any] = {}
    for told in streamed(request, folder, options):
        if "written" not in told and not request.keep(told):
            raise Interrupted
    return told


def streamed(request: Request, folder: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is being written for a request, part after part, and at last how much that was: rlhf/stream.py
    says what is in them, and whoever asks keeps them. Thousands of rollouts let others pass, and go on
    afterwards with those that are missing. Raises Unanswerable, Interrupted, Later."""
    parts, many = request.parts.all(), options["stream"] == "rollouts"
    have = parts.written() if many else []
    size, told, full = parts.size(), len(have), False

    def enough() -> bool:
        return full or request.is_to_stop()

    question = options | {"checkpoint": str(folder), "have": have}
    with contextlib.closing(warm.stream("sample", enough, **question)) as talk:
        for said in talk:
            rollouts = said.get("rollouts", [])
            told += sum("text" in each for each in rollouts)
            if rollouts or "prompt" in said:
                size += len(json.dumps(said))
                full = size > ROOM
                yield said
            words = f"{told:,} of {options['count']:,} rollouts are written"
            if "written" in said:
                sums = said | {"written": told, "full": full}
                yield {name: value for name, value in sums.items() if name != "id"}
            elif many and "so_far" in said:
                request.tell(words)
                if what_for() or Request.objects.read_along():
                    raise Later(f"{words}; others come first")


def _play(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The playground: one checkpoint after the other answers, read word by word; then the reward model says
    what it thinks of each answer, and the checker whether it is correct."""
    request.parts.all().delete()
    names = ("prompts", "count", "temperature", "top_p", "max_new_tokens", "seed")
    options = {name: asked[name] for name in names} | {"stream": "tokens"}
    for side, (pk, name) in enumerate(zip(asked["checkpoints"], asked["names"], strict=True)):
        if request.is_to_stop():
            break
        request.tell(f"{name} is being loaded")
        texts: dict[int, str] = {}
        for said in streamed(request, _folder(pk), options):
            if "prompt" in said:
                request.tell(f"{name} answers")
            texts |= {each["number"]: each["text"] for each in said.get("rollouts", []) if "text" in each}
            _keep(request, side, {"sums": said} if "written" in said else said)
        if not request.is_to_stop():
            _judge(request, asked, side, dict(sorted(texts.items())))
    return {"stopped": request.is_to_stop()}


def _judge(request: Request, asked: dict[str, Any], side: int, texts: dict[int, str]) -> None:
    """What is thought of one side's answers. Where nothing can be said, that is told and the rest stays."""
    prompt = asked["prompts"][0]
    try:
        if asked["reward_model"]:
            request.tell("the reward model reads the answers")
            judge, numbers = str(_folder(asked["reward_model"])), list(texts)
            for first in range(0, len(texts), A_FEW):
                some = numbers[first : first + A_FEW]
                items = [{"prompt": prompt, "rollouts": [texts[number] for number in some]}]
                said = warm.ask("score", checkpoint=judge, items=items)
                found = zip(some, said["rewards"][0], said["scores"][0], strict=True)
                _keep(request, side, {"scores": [list(each) for each in found]})
    except Unanswerable as unanswerable:
        _keep(request, side, {"trouble": f"No scores: {unanswerable.reason} {unanswerable.remedy}".strip()})
    try:
        if asked["reference"]:
            request.tell("the checker reads the answers")
            text = data.prompt_text(prompt)
            items = [
                {"prompt": text, "answer": each, "reference": asked["reference"]} for each in texts.values()
            ]
            found = zip(texts, _verdicts(request.project, items), strict=True)
            _keep(request, side, {"verdicts": [list(each) for each in found]})
    except Unanswerable as unanswerable:
        _keep(request, side, {"trouble": f"No verdicts: {unanswerable.reason} {unanswerable.remedy}".strip()})


def _verdicts(project: Project, items: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What the project's checker says of answers: `correct` is None where it cannot tell."""
    try:
        checker = checkers.make(project.checker_name, project.checker_options)
    except Refused as refused:
        raise Unanswerable(refused.message, "Change the checker's options.") from None
    found = checker.each(checkers.Item(each["prompt"], each["answer"], each["reference"]) for each in items)
    return [
        {"correct": None, "reason": str(each)}
        if isinstance(each, checkers.CannotCheck)
        else {"correct": each.correct, "reason": each.reason}
        for each in found
    ]


def _keep(request: Request, side: int, body: dict[str, Any]) -> None:
    if not request.keep({"side": side, **body}):
        raise Interrupted


def _score(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the reward model reads the answers")
    said = warm.ask("score", checkpoint=str(_folder(asked["checkpoint"])), items=asked["items"])
    return {"rewards": said["rewards"], "scores": said["scores"]}


def _order(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The reward model reads what waits, chunk by chunk; then the queue is ordered by how unsure it was."""
    folder, judge = _folder(asked["checkpoint"]), Checkpoint.objects.get(pk=asked["checkpoint"])
    waiting = request.project.quintets.waiting().filter(purpose=Purpose.WORK)
    unread = waiting.exclude(scored_by=judge).order_by("pk").select_related("prompt")
    total, read, last = unread.count(), 0, 0
    while chunk := list(unread.filter(pk__gt=last).prefetch_related("rollouts")[:A_CHUNK]):
        if read and (what_for() or Request.objects.others_wait()):
            raise Later(f"read {read:,} of {total:,} quintets; others come first")
        request.tell(f"the reward model has read {read:,} of {total:,} waiting quintets")
        _read(chunk, judge, folder)
        read, last = read + len(chunk), chunk[-1].pk
    Quintet.objects.reorder(request.project)
    return {"checkpoint": judge.pk, "read": read}


def _read(quintets: list[Quintet], judge: Checkpoint, folder: Path) -> None:
    """Keep with each quintet how unsure the judge is of it."""
    texts = [[rollout.text for rollout in each.rollouts.all()] for each in quintets]
    items = [
        {"prompt": each.prompt.content, "rollouts": row} for each, row in zip(quintets, texts, strict=True)
    ]
    said = warm.ask("score", checkpoint=str(folder), items=items)
    measure, told = (disagreement, "spreads") if "spreads" in said else (uncertainty, "rewards")
    for quintet, row, numbers in zip(quintets, texts, said[told], strict=True):
        quintet.uncertainty = measure(numbers, row, judge.lineage.get("tau") or 1.0)
        quintet.scored_by = judge
    Quintet.objects.bulk_update(quintets, ["uncertainty", "scored_by"])


def _try(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """A dry pass for the launch form (preview.py): how fast the start writes and learns here."""
    request.tell("the model is tried out")
    options = {name: asked[name] for name in ("prompts", "max_new_tokens", "at_once", "train")}
    folder = _folder(asked["checkpoint"])
    said = warm.ask("try", checkpoint=str(folder), **options)
    return {name: value for name, value in said.items() if name != "id"}


def _harvest(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Look through what a policy run wrote. Nothing is sampled or scored: it has all been."""
    found = Harvest.objects.select_related("run", "project").get(pk=asked["harvest"])
    run = found.run
    wrote = run.directory / "rollouts.jsonl.zst"
    if not wrote.is_file():
        raise Unanswerable(f"What run {run.pk} wrote is not on this machine.", "Look through another run.")
    looked = harvest.look(
        wrote,
        run.step,
        found.limit,
        found.marked(),
        found.decided(),
        found.answered(),
        tell=lambda read: request.tell(f"looked at {read:,} rollouts"),
    )
    with transaction.atomic():
        if not request.mine().select_for_update(no_key=True).exists():
            raise Interrupted
        offered = found.keep(looked, harvest.prompt_numbers(run.directory / "prompts.jsonl"))
    return {"harvest": found.pk, "rollouts": looked.rollouts, "offered": offered}


def _simulate(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Simulated labelers rank what waits, in a project where an admin has switched them in."""
    request.project.refresh_from_db(fields=["simulated_labelers"])
    if not request.project.simulated_labelers:
        raise Unanswerable("Simulated labelers are switched off in this project.", "Switch them in.")
    try:
        told = simulated.rank(
            request.project, request.tell, lambda: is_stopping() or Request.objects.others_wait()
        )
    except simulated.NobodyToRank as nobody:
        raise Unanswerable(str(nobody), "Give that person another name.") from nobody
    if told["left"]:
        raise Later(f"simulated labelers have made {told['ranked']:,} rankings; others come first")
    return told


def _gather(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Count the rollouts that could be demonstrations, or make them such. Nothing is sampled or scored."""
    try:
        return gathering.answer(request, asked)
    except gathering.NotThere as gone:
        raise Unanswerable(str(gone), "Take another run.") from gone
    except gathering.Lost:
        raise Interrupted from None


KINDS = {
    "compare": _compare,
    "sample": _sample,
    "score": _score,
    "order": _order,
    "harvest": _harvest,
    "simulate": _simulate,
    "try": _try,
    "gather": _gather,
    "check": judging.check,
    "references": judging.references,
    "play": _play,
}


def _folder(pk: int | None, run: Run | None = None) -> Path:
    """Where a checkpoint's files are. A start from the Hub lies where the run has downloaded it."""
    checkpoint = Checkpoint.objects.filter(pk=pk or 0).first()
    if checkpoint is None:
        raise Unanswerable("The checkpoint is no longer known.", "Choose another.")
    folder = checkpoint.folder or (run.directory / "inputs" / "policy" if run else None)
    if folder is None or not folder.is_dir():
        raise Unanswerable(
            f"The files of “{checkpoint}” are not on this machine.", "Choose another checkpoint."
        )
    return folder
