"""The rollouts of one step of a policy run as a page shows them, and a quintet made of some of them.

They are far too many for rows, so they stay in the run's file: beside the files of datasets and of
evaluations the only one that a page opens in the shared home. What the page needs to find them is a row: a
step's metrics say where in the file they begin and how long they are, as the trainer told it in steps.jsonl,
and that one frame is read and nothing else. Runs from before that was told are searched from their
beginning, within a bound. Everything that goes through memory has one.

Left out: which of them look like a trick (labeler/harvest.py), and how a quintet is sent and taken back
(labeler/sending.py)."""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from django.db.models import Q

from labeler import sending
from labeler.models import Project, Prompt, Quintet, Run, Step, User
from labeler.models.prompts import digest
from labeler.models.runs import storable
from labeler.sending import SendRefused
from rlhf.checkers import answer_of, thinking_of

FILE = "rollouts.jsonl.zst"
LARGEST = 16_000_000  # bytes of one step, compressed, that a page takes
UNPACKED = 8 * LARGEST  # bytes of one step, as it is read line by line
SEARCHED = 64_000_000  # bytes that are looked through where no row says where a step is
A_PIECE = 1 << 12  # of them at a time: a long one of nothing but repeats would unpack to gigabytes
SHADES = (0.1, 0.5, 1.0, 2.0, 4.0)  # nats; a token that paid less than the first is not shaded

ORDERS: dict[str, tuple[str, Callable[["Written"], float]]] = {
    "written": ("as they were written", lambda one: 0.0),
    "reward": ("reward, KL taken off", lambda one: one.reward),
    "score": ("score of the reward model", lambda one: one.score if one.score is not None else one.reward),
    "advantage": ("advantage", lambda one: one.advantage),
    "kl": ("KL", lambda one: one.kl),
    "each": ("KL per token", lambda one: one.each),
    "length": ("length", lambda one: float(one.length)),
    "finished": ("finished by itself", lambda one: float(one.finished)),
    "trained": ("trained on", lambda one: float(one.trained)),
}


class NotThere(Exception):
    """Why the rollouts of a step cannot be shown, in words."""


@dataclass(frozen=True)
class Token:
    number: int
    text: str
    kl: float

    @property
    def shade(self) -> str:
        """`up` and `down`, 1 to 5: likelier than from the start, or less; empty for next to nothing."""
        deep = sum(abs(self.kl) >= each for each in SHADES)
        return f"{'up' if self.kl > 0 else 'down'}{deep}" if deep else ""


class Thought:
    """A text as it is read: what was thought apart from what was answered."""

    text: str

    @property
    def thinking(self) -> str:
        return thinking_of(self.text)

    @property
    def answer(self) -> str:
        return answer_of(self.text)


@dataclass
class Written(Thought):
    """One rollout of a step, with all that was made of it. Tokens are read for those that a page shows."""

    group: int
    index: int
    prompt: str
    prompt_id: str
    text: str
    reward: float
    score: float | None
    parts: dict[str, float]
    advantage: float
    kl: float
    length: int
    trained: bool
    finished: bool
    correct: bool | None = None  # what a checker says, where the run had one; None where it could not tell
    checked: str = ""  # why, in words
    read: str = ""  # what it read out of the answer
    probability: float | None = None  # that it is correct, where a judge says so
    picked: bool = False  # of its prompt's, the one that the update pushed most
    log_prob: tuple[float, float] | None = None  # of that one, before the update and after
    tokens: list[Token] = field(default_factory=list)
    sent: "Quintet | None" = None

    @property
    def name(self) -> str:
        return f"{self.group}-{self.index}"

    @property
    def each(self) -> float:
        return self.kl / self.length if self.length else 0.0

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Written":
        return cls(
            group=line["group"],
            index=line["index"],
            prompt=line["prompt"],
            prompt_id=str(line.get("id") or ""),
            text=storable(line["rollout"]),
            reward=line["reward"],
            score=line.get("score"),
            parts=line.get("parts") or {},
            advantage=line["advantage"],
            kl=sum(line["kl"]),
            length=len(line["tokens"]),
            trained=line["trained"],
            finished=line["finished"],
            correct=line.get("correct"),
            checked=storable(line.get("checked") or ""),
            read=storable(line.get("read") or ""),
            probability=line.get("probability"),
            picked=bool(line.get("picked")),
            log_prob=tuple(line["log_prob"]) if line.get("log_prob") else None,
        )


# Reading


def written(run: Run, step: Step) -> list[Written]:
    """All of a step, without their tokens. Raises NotThere."""
    return [Written.of(line) for line in lines(run, step)]


def with_tokens(run: Run, step: Step, shown: Sequence[Written]) -> None:
    """Read the tokens of these. Raises NotThere."""
    wanted = {one.name: one for one in shown}
    for line in lines(run, step):
        if one := wanted.get(f"{line['group']}-{line['index']}"):
            # Runs from before the texts were kept have their numbers alone.
            pieces = line.get("pieces") or [f"#{each} " for each in line["tokens"]]
            rows = zip(line["tokens"], map(storable, pieces), line["kl"], strict=True)
            one.tokens = [Token(*row) for row in rows]


def lines(run: Run, step: Step) -> Iterator[dict[str, Any]]:
    """The lines of a step, one after the other. Raises NotThere."""
    place, path = step.metrics.get("rollouts"), run.directory / FILE
    try:
        with path.open("rb") as file:
            frame = _at(file, place) if place else _searched(file, step.step)
    except FileNotFoundError:
        raise NotThere("The file of this run's rollouts is not here any more.") from None
    try:
        yield from _unpacked(frame, step.step)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError):
        raise NotThere("This step is being written anew, or its file is broken. Look again soon.") from None


def _at(file: io.BufferedReader, place: Sequence[int]) -> bytes:
    at, length = place
    if length > LARGEST:
        size = f"{length / 1e6:,.0f} MB"
        raise NotThere(f"The rollouts of this step are {size}, packed: too much for a page. Read {FILE}.")
    file.seek(at)
    return file.read(length)


def _unpacked(frame: bytes, step: int) -> Iterator[dict[str, Any]]:
    """A resumed run may have written another step over the same bytes: then it is none of these."""
    reader = Bounded(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame)), UNPACKED)
    for raw in io.TextIOWrapper(io.BufferedReader(reader), encoding="utf-8", newline="\n"):
        line = json.loads(raw)
        if line["step"] != step:
            raise ValueError
        yield line


class Bounded(io.RawIOBase):
    """What a reader says, as long as it is no more than so many bytes. Raises NotThere."""

    def __init__(self, source: Any, most: int):
        self.source, self.left = source, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        said = self.source.read(len(buffer))
        self.left -= len(said)
        if self.left < 0:
            size = f"{UNPACKED / 1e6:,.0f} MB"
            raise NotThere(f"The rollouts of this step are over {size}: too much for a page. Read {FILE}.")
        buffer[: len(said)] = said
        return len(said)


def _searched(file: io.BufferedReader, step: int) -> bytes:
    """The frame of a step, looked for from the beginning."""
    kept, size = b"", 0
    while size < SEARCHED:
        frame, first, kept, took = _next_frame(file, kept)
        if not frame:
            raise NotThere("The rollouts of this step are not in the run's file.")
        size += took
        found = re.match(rb'\{"step": ?(\d+)', first)
        if found and int(found[1]) == step:
            return frame
    bound = f"{SEARCHED / 1e6:.0f} MB"
    raise NotThere(f"This run did not note where its steps are; this one is not among its first {bound}.")


def _next_frame(file: io.BufferedReader, kept: bytes) -> tuple[bytes, bytes, bytes, int]:
    """A whole frame, the beginning of what it says, what was read beyond it, and its length."""
    frame, first, parts = zstandard.ZstdDecompressor().decompressobj(), b"", []
    piece = kept or file.read(A_PIECE)
    while piece:
        said = frame.decompress(piece)
        first = first or said[:40]
        parts.append(piece)
        if frame.eof:
            beyond = frame.unused_data
            whole = b"".join(parts)
            whole = whole[: len(whole) - len(beyond)]
            return whole, first, beyond, len(whole)
        if sum(map(len, parts)) > LARGEST:
            break
        piece = file.read(A_PIECE)
    return b"", b"", b"", 0


# Ordering


def ordered(rows: Iterable[Written], by: str, low: bool, grouped: bool) -> list[list[Written]]:
    """In groups of a prompt, each group where its first rollout belongs; or all in one."""
    key = ORDERS[by][1]

    def place(one: Written) -> tuple[float, int, int]:
        return (key(one) if low else -key(one), one.group, one.index)

    found = sorted(rows, key=place)
    if not grouped:
        return [found]
    groups: dict[int, list[Written]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(one)
    return list(groups.values())


# Sending to the labelers


def sent(run: Run, step: int, rows: Iterable[Written]) -> None:
    """Which of these are in a quintet already."""
    quintets = run.quintets.filter(extra__step=step)
    holding = {
        name: each
        for each in quintets
        for key in ("rollouts", sending.BESIDE)
        for name in each.extra.get(key, [])
    }
    for one in rows:
        one.sent = holding.get(one.name)


def send(
    run: Run, step: Step, chosen: Sequence[Written], by: User, every: Iterable[Written] = ()
) -> tuple[Quintet, bool]:
    """A quintet of these in the ordinary queue, and whether it is new: the same ones are sent once. Fewer
    than five stand beside others of `every` one that answers their prompt. Raises SendRefused."""
    if len({one.prompt for one in chosen}) > 1:
        raise SendRefused(
            "These answer different prompts. A quintet has one prompt: choose among its rollouts."
        )
    sending.refuse_unrankable(chosen)
    prompt = _prompt(run.project, chosen[0])
    if prompt is None:
        raise SendRefused("This prompt is not in the project any more: add it again, then send them.")
    about = {"step": step.step, "rollouts": sorted(one.name for one in chosen)}
    origin = f"rollouts of {run}, step {step.step}"
    siblings = {one.name: one for one in every if one.prompt == chosen[0].prompt}
    return sending.send(run.project, prompt, chosen, about, origin, by, run=run, siblings=siblings)


def _prompt(project: Project, one: Written) -> Prompt | None:
    """The project's prompt that it answers: by its number, else by its text."""
    if found := project.prompts.numbered([one.prompt_id]).get(one.prompt_id):
        return found
    as_turn = [{"role": "user", "content": one.prompt}]
    same = Q(digest=digest(one.prompt)) | Q(digest=digest(as_turn))
    return project.prompts.filter(same).first()
