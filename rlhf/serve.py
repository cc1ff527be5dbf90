"""A warm child that samples and scores for people who wait: `python -m rlhf.serve`, JSON lines in and out.

    {"id", "op": "sample", "checkpoint", "prompts": […], "count", "temperature", "top_p", "max_new_tokens",
     "seed"} -> {"id", "rollouts": [[{"text", "tokens", "finished"}]]}
        with "stream" and one prompt -> lines of {"id", "part"} while they are written (rlhf.stream), then
        {"id", "written", …}: up to 10,000 rollouts, without those of the numbers in "have"
    {"id", "op": "stop"} -> nothing: what that request streams ends where it is
    {"id", "op": "pause"} -> nothing: it ends, and its answer holds "drafts", to be gone on with as "begun"
    {"id", "op": "score", "checkpoint", "items": [{"prompt", "rollouts": […]}]}
        -> {"id", "rewards": [[…]], "scores": [[…]]}, and of an ensemble "spreads": [[…]]
    {"id", "op": "judge", "checkpoint", "options": {…}, "items": [{"prompt", "answer", "reference"}]}
        -> {"id", "said": [{"correct", "reason", "read", "probability"}]}, as `rlhf check judge` says
    {"id", "op": "try", "checkpoint", "prompts": […], "max_new_tokens", "at_once", "train"}
        -> {"id", "device", "loading", "sampled", "trained", …}: seconds, and tokens a second (rlhf.tryout)
    {"id", "op": "unload"} -> {"id", "unloaded": n}
    anything else, and whatever goes wrong -> {"id", "error", "remedy"}

The first line out is {"ready": true, "device"}. The two models used last stay in memory. The child ends when
its input closes or its parent is gone; who asks, and when memory has to go to a run, is decided there.
"""

import contextlib
import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rlhf import checkers, data
from rlhf.config import LONGEST_ROLLOUT, Refused
from rlhf.loading import loading

with loading():  # somebody waits for the first answer
    import torch

    from rlhf import checkpoint, stream, tryout
    from rlhf.reward_model import RewardModel, spread
    from rlhf.sample import chances_of, fitted, sample

KEPT = 2  # models in memory
AT_ONCE = 64  # rollouts sampled together


class Bad(ValueError):
    """A request that cannot be answered: why and what to do, in words."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Shelf:
    """The models used last, loaded when they are asked for."""

    def __init__(self, device: torch.device):
        self.device = device
        self.models: OrderedDict[tuple[str, Path], Any] = OrderedDict()

    def policy(self, path: str) -> tuple[Any, Any]:
        return self._take("policy", path, lambda folder: checkpoint.load_policy(folder, self.device))

    def reward_model(self, path: str) -> RewardModel:
        return self._take("reward", path, lambda folder: RewardModel.load(folder, self.device))

    def unload(self) -> int:
        """Forget all of them, and give the memory back; how many there were."""
        count = len(self.models)
        self.models.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return count

    def _take(self, kind: str, path: str, load: Callable[[Path], Any]) -> Any:
        key = (kind, Path(path).resolve())
        if key not in self.models:
            while len(self.models) >= KEPT:  # before loading, so that there are never three
                self.models.popitem(last=False)
                gc.collect()
            self.models[key] = load(key[1])
        self.models.move_to_end(key)
        return self.models[key]


class Post:
    """The lines that come in, read by a thread of their own: who says stop or pause overtakes what is being
    answered."""

    def __init__(self, lines: TextIO):
        self.waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.halted: tuple[Any, str] = (object(), "")  # the request that was to end last, and how; none yet
        threading.Thread(target=self._read, args=[lines], daemon=True).start()

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            try:
                said = json.loads(line) if '"stop"' in line or '"pause"' in line else None
            except ValueError:
                said = None
            if isinstance(said, dict) and said.get("op") in (stream.STOP, stream.PAUSE):
                self.halted = said.get("id"), said["op"]
            elif line.strip():
                self.waiting.put(line)
        self.waiting.put(None)

    def __iter__(self) -> Iterator[str]:
        while (line := self.waiting.get()) is not None:
            yield line

    def how(self, number: Any) -> str:
        """How a request is to end; an empty word as long as it may go on."""
        which, how = self.halted
        return how if which == number else ""


def serve(lines: TextIO, out: TextIO, device: torch.device) -> None:
    """Answer line by line until there are no more."""
    shelf, post = Shelf(device), Post(lines)
    _say(out, {"ready": True, "device": checkpoint.describe(device)})
    for line in post:
        _say(out, answer(shelf, line, lambda said: _say(out, said), post.how))


def answer(
    shelf: Shelf,
    line: str,
    say: Callable[[dict[str, Any]], None] = lambda said: None,
    how: Callable[[Any], str] = lambda number: "",
) -> dict[str, Any]:
    """One request's answer; whatever goes wrong is told in words and ends nothing. A part of it is said as
    soon as it is there."""
    number = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise Bad("A request is a JSON object.")
        number = request.get("id")
        operation = OPERATIONS.get(str(request.get("op")))
        if operation is None:
            raise Bad(f"There is no operation “{request.get('op')}”; there are {', '.join(OPERATIONS)}.")
        if request.get("stream"):
            if operation is not _sample:
                raise Bad("Only what is sampled can be streamed.")

            def tell(part: dict[str, Any]) -> None:
                say({"id": number, "part": part})

            return {"id": number, **_stream(shelf, request, tell, lambda: how(number))}
        return {"id": number, **operation(shelf, request)}
    except json.JSONDecodeError as error:
        return _error(number, f"This is not JSON: {error}.")
    except (Bad, checkpoint.Unloadable) as error:
        return _error(number, error.reason, error.remedy)
    except Refused as error:
        return _error(number, error.message)
    except Exception as error:  # the child must outlive what one checkpoint or request does to it
        traceback.print_exc()
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            shelf.unload()
            return _error(number, "There is not enough memory.", "Ask for fewer or shorter rollouts.")
        return _error(number, f"{type(error).__name__}: {error}", "The worker's log tells where it happened.")


def _sample(shelf: Shelf, request: dict[str, Any]) -> dict[str, Any]:
    wish = _wish(request, most=64)
    prompts = [_prompt({"prompt": each}) for each in _list(request, "prompts")]
    model, tokenizer = shelf.policy(_text(request, "checkpoint"))
    asked = [checkpoint.encode_prompt(tokenizer, each) for each in prompts]
    longest = stream.room(model, max(map(len, asked)), wish.longest)
    ids = [fitted(each, model, longest) for each in asked]
    rollouts = []
    size = max(1, AT_ONCE // wish.count)
    for first in range(0, len(ids), size):
        some = ids[first : first + size]
        numbers = [(first + prompt, number) for prompt in range(len(some)) for number in range(wish.count)]
        chances = chances_of(wish.seed, numbers, longest)
        rollouts += sample(model, tokenizer, some, wish.count, longest, wish.temperature, chances, wish.top_p)
    told = [
        {
            "text": checkpoint.decode_rollout(tokenizer, each.tokens),
            "tokens": each.tokens,
            "finished": each.finished,
        }
        for each in rollouts
    ]
    return {"rollouts": [told[first : first + wish.count] for first in range(0, len(told), wish.count)]}


def _stream(
    shelf: Shelf,
    request: dict[str, Any],
    say: Callable[[dict[str, Any]], None],
    halted: stream.Halted,
) -> dict[str, Any]:
    wish, form = _wish(request, most=stream.MOST), _text(request, "stream")
    if form not in stream.FORMS:
        raise Bad(f"“stream” must be {' or '.join(stream.FORMS)}.")
    prompts = [_prompt({"prompt": each}) for each in _list(request, "prompts")]
    if len(prompts) > 1:
        raise Bad("Only one prompt at a time can be streamed.")
    have = request.get("have") or []
    if not isinstance(have, list) or not all(isinstance(each, int) for each in have):
        raise Bad("“have” must be a list of numbers.")
    begun = request.get("begun") or []
    if not isinstance(begun, list) or not all(isinstance(each, dict) for each in begun):
        raise Bad("“begun” must be a list of drafts.")
    began = time.perf_counter()
    model, tokenizer = shelf.policy(_text(request, "checkpoint"))
    loading = time.perf_counter() - began
    told = stream.stream(model, tokenizer, prompts[0], wish, form, set(have), say, halted, begun)
    return {"loading": loading, **told}


def _wish(request: dict[str, Any], most: int) -> stream.Wish:
    return stream.Wish(
        count=_number(request, "count", 1, 1, most),
        longest=_number(request, "max_new_tokens", 256, 1, LONGEST_ROLLOUT),
        temperature=_number(request, "temperature", 1.0, 0, 2),
        top_p=_number(request, "top_p", 1.0, 0, 1),
        seed=_number(request, "seed", 0, 0, 2**63 - 1),
    )


def _score(shelf: Shelf, request: dict[str, Any]) -> dict[str, Any]:
    items = _list(request, "items")
    prompts = [_prompt(each) for each in items]
    rollouts = [_list(each, "rollouts") for each in items]
    if not all(isinstance(text, str) for row in rollouts for text in row):
        raise Bad("“rollouts” must hold texts.")
    model = shelf.reward_model(_text(request, "checkpoint"))
    examples = [model.encode(prompt, row) for prompt, row in zip(prompts, rollouts, strict=True)]
    members = model.members_of(examples)
    rewards = [model.together(each).tolist() for each in members]
    told = {"rewards": rewards, "scores": [[model.score(each) for each in row] for row in rewards]}
    return told | {"spreads": [spread(each).tolist() for each in members]} if model.count > 1 else told


def _judge(shelf: Shelf, request: dict[str, Any]) -> dict[str, Any]:
    options = request.get("options") or {}
    if not isinstance(options, dict):
        raise Bad("“options” must be an object.")
    judge = checkers.make("judge", options)
    assert isinstance(judge, checkers.Judge)
    items = [_item(each) for each in _list(request, "items")]
    model, tokenizer = shelf.policy(_text(request, "checkpoint"))
    return {"said": [checkers.line_of(each) for each in judge.verdicts(model, tokenizer, items)]}


def _item(line: Any) -> checkers.Item:
    texts = {key: line.get(key) if isinstance(line, dict) else None for key in checkers.Item._fields}
    if not all(isinstance(text, str) for text in texts.values()):
        raise Bad("Each of “items” must have a “prompt”, an “answer” and a “reference”.")
    return checkers.Item(**{key: str(text) for key, text in texts.items()})


def _try(shelf: Shelf, request: dict[str, Any]) -> dict[str, Any]:
    longest = _number(request, "max_new_tokens", 256, 1, LONGEST_ROLLOUT)
    at_once = _number(request, "at_once", 1, 1, 4096)
    prompts = [_prompt({"prompt": each}) for each in _list(request, "prompts")]
    began = time.perf_counter()
    model, tokenizer = shelf.policy(_text(request, "checkpoint"))
    loading = time.perf_counter() - began
    found = tryout.measure(model, tokenizer, prompts, longest, at_once, bool(request.get("train")))
    return {"device": checkpoint.describe(shelf.device), "loading": loading, **found}


def _unload(shelf: Shelf, request: dict[str, Any]) -> dict[str, Any]:
    return {"unloaded": shelf.unload()}


OPERATIONS = {"sample": _sample, "score": _score, "judge": _judge, "try": _try, "unload": _unload}


def _number(request: dict[str, Any], name: str, default: Any, low: float, high: float) -> Any:
    value = request.get(name, default)
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise Bad(f"“{name}” must be a {'whole ' if whole else ''}number.")
    if not low <= value <= high:
        raise Bad(f"“{name}” must be between {low:,} and {high:,}; {value} is not.")
    return value


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise Bad(f"“{name}” must be a text.")
    return value


def _list(request: Any, name: str) -> list[Any]:
    value = request.get(name) if isinstance(request, dict) else None
    if not isinstance(value, list) or not value:
        raise Bad(f"“{name}” must be a list that is not empty.")
    return value


def _prompt(line: Any) -> data.Prompt:
    try:
        return data.prompt(line if isinstance(line, dict) else {})
    except ValueError as error:
        raise Bad(str(error)) from None


def _error(number: Any, reason: str, remedy: str = "") -> dict[str, Any]:
    return {"id": number, "error": reason, "remedy": remedy}


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message, ensure_ascii=False) + "\n")
    out.flush()


def _die_with(parent: int) -> None:
    """End this process soon after its parent, even in the middle of an answer."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    _die_with(os.getppid())
    # Only answers may go to stdout; what a library prints goes where logs go.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C in its parent's terminal reaches it as well
        serve(sys.stdin, out, checkpoint.choose_device())


if __name__ == "__main__":
    main()
