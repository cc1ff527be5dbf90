"""Two datasets side by side: which lines only one of them has, and which say something else in the other.

Both are in the canonical order, so they are read in step, with a few lines of each in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labeler.datasets.frozen import Source, place
from rlhf import data

Line = dict[str, Any]


@dataclass
class Difference:
    """How many lines, and the first of each sort: of the one, of the other, and pairs of what changed."""

    same: int = 0
    only_one: int = 0
    only_other: int = 0
    changed: int = 0
    first_of_one: list[Line] = field(default_factory=list)
    first_of_other: list[Line] = field(default_factory=list)
    first_changed: list[tuple[Line, Line]] = field(default_factory=list)

    def add(self, one: list[bytes], other: list[bytes], shown: int) -> None:
        """Lines about the same: who ranked the same rollouts, or answered the same prompt."""
        in_both = [raw for raw in one if raw in other]
        self.same += len(in_both)
        left, right = ([_read(raw) for raw in some if raw not in in_both] for some in (one, other))
        pairs = list(zip(left, right, strict=False))
        self.changed += len(pairs)
        self.only_one += len(left) - len(pairs)
        self.only_other += len(right) - len(pairs)
        self.first_changed += pairs[: shown - len(self.first_changed)]
        self.first_of_one += left[len(pairs) :][: shown - len(self.first_of_one)]
        self.first_of_other += right[len(pairs) :][: shown - len(self.first_of_other)]


def difference(one: Source, other: Source, shown: int = 12) -> Difference:
    found = Difference()
    left, right = _Ahead(one.raw_lines()), _Ahead(other.raw_lines())
    while left.raw or right.raw:
        if left.raw == right.raw:
            found.same += 1
            left.step()
            right.step()
            continue
        about = min(each.about for each in (left, right) if each.raw)
        found.add(left.all_about(about), right.all_about(about), shown)
    return found


class _Ahead:
    """Lines in order, the next one seen before it is taken."""

    def __init__(self, lines: Iterator[bytes]):
        self.lines = lines
        self.step()

    def step(self) -> None:
        self.raw = next(self.lines, b"")

    @property
    def about(self) -> tuple:
        """What a line is about: its place in the order, without what it says."""
        return place(_read(self.raw))[:-1]

    def all_about(self, about: tuple) -> list[bytes]:
        found = []
        while self.raw and self.about == about:
            found.append(self.raw)
            self.step()
        return found


def _read(raw: bytes) -> Line:
    return data.parse(raw) or {}
