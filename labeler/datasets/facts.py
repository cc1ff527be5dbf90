"""What is in a file of lines, counted as they go by: the manifest of a dataset, its card and its pages.

The lines come in the canonical order (lines.py), so that equal prompts and quintets stand together and little
has to be remembered, however many lines there are."""

import platform
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from labeler import __version__
from labeler.agreement.measures import compared
from rlhf import data

COUNTED = (
    *("rounds", "labelers", "simulated_labelers", "harvested_by", "guidelines", "purposes", "faceoffs"),
    "origins",  # of demonstrations
)
FORM = 1  # of the manifest, and of the order of the lines
A_MARK = 1000  # lines from one remembered place in the file to the next
EARLY = 8_000_000  # bytes: readers of tables guess the columns from the first 10 MB
MOST_KINDS = 1000
LENGTHS = (
    0,
    25,
    50,
    100,
    200,
    400,
    800,
    1600,
    3200,
    6400,
)  # characters: where the bars of the histogram begin


def asked(line: dict[str, Any]) -> data.Prompt:
    """What a line has in common with others about the same: its prompt, or a document itself."""
    if "prompt" in line:
        return line["prompt"]
    return line["messages"][:-1] if "messages" in line else line["text"]


def answered(line: dict[str, Any]) -> str:
    """The text that a line of demonstrations or documents teaches."""
    if "text" in line:
        return line["text"]
    return line["completion"] if "completion" in line else line["messages"][-1]["content"]


class Facts:
    """Of rankings, or of demonstrations: `add` every line with its place in the file, then ask `manifest`."""

    def __init__(self, share: float) -> None:
        """`share`: how much of it a run holds out, to measure on."""
        self.share = share
        self.counts: Counter[str] = Counter()
        self.by: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
        self.lengths, self.characters, self.longest = [0] * len(LENGTHS), 0, 0
        self.agreement: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self.longer: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self.best_at = {False: [0] * data.MOST, True: [0] * data.MOST}
        self.prompt: str | None = None
        self.quintet: tuple | None = None
        self.ranks: list[tuple[bool, list[int]]] = []
        # Of every prompt: where its lines begin, whether one of them teaches anything, and where it stands
        # among those that could be held out.
        self.begins, self.offsets, self.teaches = array("Q"), array("Q"), bytearray()
        self.places = array("d")
        self.marks = array("Q")
        self.kinds: set[str] = set()
        self.early: list[int] = []

    def add(self, line: dict[str, Any], offset: int) -> None:
        prompt = asked(line)
        text = data.prompt_text(prompt)
        if text != self.prompt:
            self.prompt = text
            self.begins.append(self.counts["lines"])
            self.offsets.append(offset)
            self.teaches.append(0)
            self.places.append(data.place(data.prompt_digest(prompt)))
        if self.counts["lines"] % A_MARK == 0:
            self.marks.append(offset)
        self.counts["lines"] += 1
        self.counts["chats"] += not isinstance(prompt, str)
        if "ranks" in line:
            self._ranking(line)
        else:
            self.teaches[-1] = 1
            self._length(answered(line))
            if "text" not in line:
                self.by["origins"][str(line.get("origin", "written"))] += 1
                self.counts["simulated"] += line.get("simulated") is True
        self._kinds(line, offset)

    def _ranking(self, line: dict[str, Any]) -> None:
        rollouts, ranks = line["rollouts"], line["ranks"]
        simulated, levels = line.get("simulated", False), len(set(ranks))
        key = (line["prompt"], line["quintet"], rollouts)
        if key != self.quintet:
            self._close_quintet()
            self.quintet = key
            self.counts["quintets"] += 1
            for text in rollouts:
                self._length(text)
        self.ranks.append((simulated, ranks))
        self.teaches[-1] |= levels > 1
        counts = self.counts
        counts["simulated"] += simulated
        counts["ties"] += levels < len(ranks)
        counts["all_tied"] += levels == 1
        counts["partial"] += len(ranks) < data.MOST
        for mark in ("surplus", "nonsense", "unsafe", "decided"):
            counts[mark] += bool(line.get(mark))
        counts["acceptable"] += line.get("acceptable") is not None
        counts["unfinished"] += isinstance(line.get("finished"), list) and not all(line["finished"])
        self.by["rounds"][str(line.get("round", 1))] += 1
        harvested = line.get("purpose") == "harvest"  # confirmed by somebody, and ranked by nobody
        whose = "harvested_by" if harvested else "simulated_labelers" if simulated else "labelers"
        self.by[whose][line["labeler"]] += 1
        self.by["purposes"][str(line.get("purpose", "work"))] += 1
        if "guidelines" in line:
            self.by["guidelines"][str(line["guidelines"])] += 1
        if isinstance(line.get("faceoff"), int):
            self.by["faceoffs"][str(line["faceoff"])] += 1
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j] and rollouts[i] != rollouts[j]:
                counts["pairs"] += 1
                further = (len(rollouts[i]) - len(rollouts[j])) * (ranks[j] - ranks[i])
                self.longer[simulated]["decided"] += further != 0
                self.longer[simulated]["longer_first"] += further > 0
        shown = line.get("shown")
        if isinstance(shown, list) and sorted(shown) == [*range(data.MOST)] and ranks.count(1) == 1:
            self.best_at[simulated][shown.index(ranks.index(1))] += 1

    def _length(self, text: str) -> None:
        self.lengths[bisect_right(LENGTHS, len(text)) - 1] += 1
        self.characters += len(text)
        self.longest = max(self.longest, len(text))

    def _close_quintet(self) -> None:
        """People are compared with people, simulated labelers with each other."""
        for simulated in (False, True):
            mine = [ranks for whose, ranks in self.ranks if whose == simulated]
            self.agreement[simulated]["quintets"] += len(mine) > 1
            for one, other in combinations(mine, 2):
                self.agreement[simulated].update(compared(one, other))
        self.ranks = []

    def _kinds(self, line: dict[str, Any], offset: int) -> None:
        """Lines that bring a column, or a kind of value, which nobody guesses from the file's beginning."""
        if len(self.kinds) > MOST_KINDS:
            return
        found = set(_kinds("", line)) - self.kinds
        self.kinds |= found
        if found and offset > EARLY:
            self.early.append(offset)

    def manifest(self) -> dict[str, Any]:
        self._close_quintet()
        counts = self.counts
        texts = sum(self.lengths)
        return {
            "form": FORM,
            **{name: counts[name] for name in ("lines", "simulated", "quintets", "chats", "pairs")},
            **{name: counts[name] for name in ("ties", "all_tied", "partial", "surplus", "unfinished")},
            **{name: counts[name] for name in ("nonsense", "unsafe", "acceptable", "decided")},
            "harvested": self.by["purposes"]["harvest"],
            "prompts": len(self.begins),
            **{name: dict(found.most_common()) for name, found in self.by.items()},
            "agreement": {
                "people": _agreement(self.agreement[False]),
                "simulated": _agreement(self.agreement[True]),
            },
            "lengths": {
                "edges": list(LENGTHS),
                "counts": self.lengths,
                "mean": self.characters / texts if texts else 0.0,
                "longest": self.longest,
            },
            "bias": {"people": self._bias(False), "simulated": self._bias(True)},
            "split": self._split(),
            "marks": list(self.marks),
            "early": self.early,
            "versions": {"quintet": __version__, "python": platform.python_version()},
        }

    def _bias(self, simulated: bool) -> dict[str, Any]:
        longer = self.longer[simulated]
        return {
            **{name: longer[name] for name in ("decided", "longer_first")},
            "best_at": self.best_at[simulated],
        }

    def _split(self) -> dict[str, Any]:
        """Where a run with the settings as they come divides the file: what it holds out stands first."""
        telling = [number for number, teaches in enumerate(self.teaches) if teaches]
        held = data.held_out([self.places[number] for number in telling], self.share)
        after = telling[held - 1] + 1 if held else 0
        return {
            "share": self.share,
            "seed": 0,
            "prompts": len(telling),
            "held_out": held,
            "line": self.begins[after] if self.begins else 0,
            "offset": self.offsets[after] if self.begins else 0,
        }


def _agreement(counted: Counter[str]) -> dict[str, Any]:
    names = ("quintets", "agreed", "opposed", "one_tied", "both_tied")
    decided = counted["agreed"] + counted["opposed"]
    share = counted["agreed"] / decided if decided else None
    return {name: counted[name] for name in names} | {"agreement": share}


def _kinds(path: str, value: Any) -> Iterator[str]:
    """Every place in a value that JSON has named, with what stands there."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _kinds(f"{path}.{key}", each)
    elif isinstance(value, list):
        yield f"{path}[]"
        for each in value:
            yield from _kinds(f"{path}[]", each)
    elif value is not None:
        yield f"{path}:{type(value).__name__}"
