"""The line formats that datasets, exports and trainers share: one JSON object per line.

A line is read strictly and written so that equal lines give equal bytes. Keys that nobody here knows survive
a round trip. Knows no tensors and no database: which lines belong to a dataset is decided elsewhere.
"""

import hashlib
import json
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

LONGEST_LINE = 1_000_000  # bytes
FEWEST, MOST = 2, 5  # rollouts of a ranking
ROLES = ("system", "user", "assistant")

Prompt = str | list[dict[str, str]]
Item = TypeVar("Item")


class BadLine(ValueError):
    """A line that is not what it should be: its number in the file, and the reason in words."""

    def __init__(self, number: int, reason: str):
        super().__init__(f"line {number}: {reason}")
        self.number, self.reason = number, reason


class _Bad(ValueError):
    """A reason without a line number, which only the reader of the file knows."""


@dataclass(frozen=True)
class Ranking:
    """One labeler's order of a prompt's rollouts: `ranks[i]` is the rank of `rollouts[i]`, 1 the best."""

    prompt: Prompt
    rollouts: tuple[str, ...]
    ranks: tuple[int, ...]
    labeler: str = ""
    quintet: str = ""
    seconds: float | None = None
    simulated: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def teaches(self) -> bool:
        """Whether it says anything: a ranking in which all are equal does not."""
        return len(set(self.ranks)) > 1

    @property
    def harvested(self) -> bool:
        """Whether it says only that one rollout is nonsense, confirmed of a harvest: to be learnt from, but
        no measure of how well a reward model knows what people prefer."""
        return self.extra.get("purpose") == "harvest"

    @property
    def finished(self) -> tuple[bool, ...]:
        """Which rollouts ended by themselves: all, unless the line's own “finished” tells of some cut off."""
        return _finished(self.extra.get("finished"), len(self.rollouts))


@dataclass(frozen=True)
class PromptLine:
    """A prompt as a run takes it; checked projects give its answer."""

    prompt: Prompt
    answer: str | None = None
    id: str | int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstration:
    """An ideal answer that a person wrote; with `whole`, so are all of the assistant's turns before it."""

    prompt: Prompt
    completion: str
    extra: dict[str, Any] = field(default_factory=dict)
    whole: bool = False  # it was given as the messages of a conversation

    @property
    def messages(self) -> list[dict[str, str]]:
        """As a conversation that the answer ends."""
        said = {"role": "assistant", "content": self.completion}
        return [*(_spoken(self.prompt) if isinstance(self.prompt, str) else self.prompt), said]


@dataclass(frozen=True)
class Document:
    """A plain text to read."""

    text: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeLine:
    """An answer that people found out to be bad, whatever a reward model says of it: to this prompt, or
    without one to any."""

    prompt: Prompt | None
    rollout: str
    kind: str = "nonsense"
    extra: dict[str, Any] = field(default_factory=dict)


def read_lines(source: str | Path | BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every line of a file as `(number, object)`; empty lines are passed over. Raises BadLine."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            yield from read_lines(file)
        return
    for number, raw in enumerate(iter(lambda: source.readline(LONGEST_LINE + 2), b""), start=1):
        try:
            line = parse(raw)
        except _Bad as error:
            raise BadLine(number, str(error)) from None
        if line is not None:
            yield number, line


def parse(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of one line, None for an empty one. Raises ValueError with the reason."""
    if len(raw.rstrip(b"\r\n")) > LONGEST_LINE:
        raise _Bad(f"it is longer than {LONGEST_LINE:,} bytes.")
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _Bad("it is not UTF-8 text.") from None
    if not text:
        return None
    try:
        line = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise _Bad("its JSON is nested too deeply.") from None
    except _Bad:
        raise
    except ValueError as error:
        raise _Bad(f"it is not JSON ({error}).") from None
    if not isinstance(line, dict):
        raise _Bad("it is not a JSON object.")
    return line


def ranking(line: dict[str, Any]) -> Ranking:
    """A ranking line, checked. Any weak order is taken and made dense. Raises ValueError with the reason."""
    rollouts, ranks = line.get("rollouts"), line.get("ranks")
    if not isinstance(rollouts, list) or not FEWEST <= len(rollouts) <= MOST:
        raise _Bad(f"“rollouts” must be a list of {FEWEST} to {MOST} texts.")
    texts = tuple(_text(each, f"rollout {number}") for number, each in enumerate(rollouts, start=1))
    if not isinstance(ranks, list) or len(ranks) != len(texts):
        raise _Bad(f"“ranks” must be a list of {len(texts)} numbers, one per rollout.")
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in ranks):
        raise _Bad("“ranks” must hold numbers only.")
    seconds = line.get("seconds")
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0
    ):
        raise _Bad("“seconds” must be a number that is not negative.")
    if not isinstance(line.get("simulated", False), bool):
        raise _Bad("“simulated” must be true or false.")
    return Ranking(
        prompt=prompt(line),
        rollouts=texts,
        ranks=dense(ranks),
        labeler=_name(line, "labeler"),
        quintet=_name(line, "quintet"),
        seconds=seconds,
        simulated=line.get("simulated", False),
        extra=_extra(line, "prompt", "rollouts", "ranks", "labeler", "quintet", "seconds", "simulated"),
    )


def prompt_line(line: dict[str, Any]) -> PromptLine:
    """A prompt line, checked. Raises ValueError with the reason."""
    answer, number = line.get("answer"), line.get("id")
    if answer is not None:
        answer = _text(answer, "“answer”")
    if isinstance(number, bool) or not isinstance(number, (str, int, type(None))):
        raise _Bad("“id” must be text or a whole number.")
    return PromptLine(prompt(line), answer, number, _extra(line, "prompt", "answer", "id"))


def demonstration(line: dict[str, Any]) -> Demonstration:
    """A demonstration line in either of its two forms, checked. Raises ValueError with the reason."""
    if "messages" in line:
        messages = _messages(line["messages"], "messages")
        if not any(each["role"] == "assistant" for each in messages):
            raise _Bad("“messages” must hold a turn of the assistant: there is nothing to learn from.")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise _Bad("“messages” must hold a prompt and end with what the assistant says.")
        asked: Prompt = messages[:-1]
        return Demonstration(asked, messages[-1]["content"], _extra(line, "messages"), whole=True)
    if "text" in line and "completion" not in line:
        raise _Bad("a line of “text” is a document, which the stage “reading” learns from.")
    completion = _filled(_text(line.get("completion"), "“completion”"), "“completion”")
    return Demonstration(prompt(line), completion, _extra(line, "prompt", "completion"))


def document(line: dict[str, Any]) -> Document:
    """A line of plain text, checked. Raises ValueError with the reason."""
    if "text" not in line and ("completion" in line or "messages" in line):
        raise _Bad("it is a demonstration; the stage “reading” learns from lines of “text”.")
    return Document(_filled(_text(line.get("text"), "“text”"), "“text”"), _extra(line, "text"))


def probe_line(line: dict[str, Any]) -> ProbeLine:
    """A probe line, checked. Raises ValueError with the reason."""
    kind = _filled(_text(line.get("kind", "nonsense"), "“kind”"), "“kind”")
    rollout = _text(line.get("rollout"), "“rollout”")
    asked = None if line.get("prompt") is None else prompt(line)
    return ProbeLine(asked, rollout, kind, _extra(line, "prompt", "rollout", "kind"))


def rankings(path: str | Path) -> list[Ranking]:
    """Every ranking of a file. Raises BadLine."""
    return list(_each(path, ranking))


def prompt_lines(path: str | Path) -> list[PromptLine]:
    """Every prompt of a file. Raises BadLine."""
    return list(_each(path, prompt_line))


def demonstrations(path: str | Path) -> list[Demonstration]:
    """Every demonstration of a file. Raises BadLine."""
    return list(_each(path, demonstration))


def documents(path: str | Path) -> list[Document]:
    """Every document of a file. Raises BadLine."""
    return list(_each(path, document))


def probe_lines(path: str | Path) -> list[ProbeLine]:
    """Every probe of a file. Raises BadLine."""
    return list(_each(path, probe_line))


def scorable(source: str | Path | BinaryIO) -> Iterator[tuple[Prompt, list[str], tuple[bool, ...]]]:
    """Of every line, as they come: its prompt, its rollouts and which finished. Raises BadLine."""
    return _each(source, _scorable)


def _scorable(line: dict[str, Any]) -> tuple[Prompt, list[str], tuple[bool, ...]]:
    rollouts = line.get("rollouts")
    if not isinstance(rollouts, list) or not rollouts:
        raise _Bad("“rollouts” must be a list of texts.")
    texts = [_text(each, f"rollout {number}") for number, each in enumerate(rollouts, start=1)]
    return prompt(line), texts, _finished(line.get("finished"), len(texts))


def checkable(source: str | Path | BinaryIO) -> Iterator[tuple[str, str, str]]:
    """Of every line, as they come: its prompt if it has one, its answer and its reference. Raises BadLine."""
    return _each(source, _checkable)


def _checkable(line: dict[str, Any]) -> tuple[str, str, str]:
    for key in ("answer", "reference"):
        if not isinstance(line.get(key), str):
            raise _Bad(f"“{key}” must be a text.")
    asked = prompt_text(prompt(line)) if line.get("prompt") else ""
    return asked, line["answer"], line["reference"]


def _finished(told: Any, count: int) -> tuple[bool, ...]:
    """A key that other tools may use for something of their own is taken only where it can mean this."""
    fits = isinstance(told, list) and len(told) == count and all(isinstance(each, bool) for each in told)
    return tuple(told) if fits else (True,) * count


def prompt(line: dict[str, Any]) -> Prompt:
    """The prompt of a line: a text, or messages of a conversation. Raises ValueError with the reason."""
    value = line.get("prompt")
    if isinstance(value, list):
        messages = _messages(value, "prompt")
        if messages[-1]["role"] == "assistant":
            raise _Bad("“prompt” must not end with what the assistant says.")
        return messages
    return _filled(_text(value, "“prompt”"), "“prompt”")


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text: what a person reads, and what two equal prompts have in common."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def dense(ranks: Iterable[float]) -> tuple[int, ...]:
    """The same order in the numbers 1, 2, 3 … without gaps; equal ranks stay equal."""
    given = list(ranks)
    place = {rank: number for number, rank in enumerate(sorted(set(given)), start=1)}
    return tuple(place[rank] for rank in given)


def prompt_digest(prompt: Prompt) -> str:
    """A hash of what equal prompts have in common. Frozen datasets are ordered by it, and split along it."""
    return _sha256(prompt_text(prompt))


def split_by_prompt(prompts: Sequence[Prompt], share: float, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the items to train on and of those held out: all of a prompt's, or none.

    A prompt is held out for what it says, whatever else is there: one that was learnt from is not held out
    later because prompts were added, and what a larger share holds out includes what a smaller one does. Of a
    frozen dataset it is the first ones, with another seed those from another place on.
    """
    places = [place(prompt_digest(prompt), seed) for prompt in prompts]
    order = sorted(set(places))
    apart = set(order[: held_out(order, share)])
    taught = [number for number, each in enumerate(places) if each not in apart]
    return taught, [number for number, each in enumerate(places) if each in apart]


def place(digest: str, seed: int = 0) -> float:
    """Where a prompt of this digest stands, from 0 to 1: any place is as likely as any other."""
    begin = _sha256(f"held out {seed}") if seed else "0"
    return (int(digest[:13], 16) - int(begin[:13], 16)) % 16**13 / 16**13  # 52 bits, which a float holds


def held_out(places: Sequence[float], share: float) -> int:
    """How many of the prompts at these places, in order: those before the share, but one at least where a
    share is asked for and two are there, and never all."""
    return max(0, min(len(places) - 1, max(1, bisect_left(places, share)))) if share else 0


def as_line(item: Ranking | PromptLine | Demonstration | Document) -> dict[str, Any]:
    """The JSON object that `ranking`, `prompt_line` and the others here would read back as this."""
    if isinstance(item, Ranking):
        known: dict[str, Any] = {
            "prompt": item.prompt,
            "rollouts": list(item.rollouts),
            "ranks": list(item.ranks),
        }
        known |= {"labeler": item.labeler, "quintet": item.quintet, "seconds": item.seconds}
        return known | {"simulated": item.simulated} | item.extra
    if isinstance(item, Document):
        return {"text": item.text} | item.extra
    if isinstance(item, Demonstration) and item.whole:
        return {"messages": item.messages} | item.extra
    if isinstance(item, Demonstration):
        return {"prompt": item.prompt, "completion": item.completion} | item.extra
    known = {"prompt": item.prompt, "answer": item.answer, "id": item.id}
    return {key: value for key, value in known.items() if value is not None} | item.extra


def dumps(line: dict[str, Any]) -> str:
    """One line without its newline; equal objects give equal bytes, and NaN is refused."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def write_lines(path: str | Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a file of lines, whole or not at all."""
    part = Path(f"{path}.part")
    with open(part, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(dumps(line) + "\n")
    os.replace(part, path)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _each(source: str | Path | BinaryIO, read: Callable[[dict[str, Any]], Item]) -> Iterator[Item]:
    for number, line in read_lines(source):
        try:
            yield read(line)
        except _Bad as error:
            raise BadLine(number, str(error)) from None


def _text(value: Any, what: str) -> str:
    """A text that every part of the way can carry: Postgres takes no NUL, UTF-8 no lone surrogate."""
    if not isinstance(value, str):
        raise _Bad(f"{what} must be a text.")
    if "\0" in value:
        raise _Bad(f"{what} holds a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Bad(f"{what} holds half a character (a lone surrogate).") from None
    return value


def _filled(text: str, what: str) -> str:
    if not text.strip():
        raise _Bad(f"{what} is empty.")
    return text


def _spoken(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _name(line: dict[str, Any], key: str) -> str:
    value = line.get(key)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, f"“{key}”")


def _messages(value: Any, key: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise _Bad(f"“{key}” must be a list of messages.")
    for message in value:
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or message["role"] not in ROLES
        ):
            raise _Bad(f"each of “{key}” must have a “role” ({', '.join(ROLES)}) and a “content”.")
        _filled(_text(message["content"], "a message"), "a message")
    return value


def _extra(line: dict[str, Any], *known: str) -> dict[str, Any]:
    """The keys that only their writer understands, checked for what no database could hold."""
    extra = {key: value for key, value in line.items() if key not in known}
    open_values: list[Any] = [extra]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            _text(value, "one of its other keys")
        elif isinstance(value, dict):
            open_values += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            open_values += value
    return extra


def _no_constant(name: str) -> float:
    raise _Bad(f"{name} is not a JSON number.")


def _finite(digits: str) -> float:
    """`1e999` would be read as infinity, which no JSON may hold when it is written again."""
    number = float(digits)
    return number if math.isfinite(number) else _no_constant(digits)
