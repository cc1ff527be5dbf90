"""The practice grid: prompts with their rollouts as tiles, of one step of a policy run. What the checker
says is a tile's colour and sign, its length is the tile's size, and what the update pushed most stands out.

How a step's rollouts are read is said in labeler/steps.py; how they are listed token by token, there too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

from labeler import steps
from labeler.models import Prompt, Run, Step
from labeler.verdicts import Share

SIZES = 5
MOST_PROMPTS = 24  # on a page, and
MOST_TILES = 3_000  # of whichever there are fewer
SHOWN = {
    "": "all prompts",
    "mixed": "mixed",
    "unsolved": "none right",
    "solved": "all right",
}


@dataclass
class Tile:
    """One rollout, as small as it gets."""

    name: str
    number: int
    correct: bool | None
    length: int
    size: int
    picked: bool = False

    @property
    def state(self) -> str:
        return {True: "right", False: "wrong", None: "unclear"}[self.correct]

    @property
    def sign(self) -> str:
        return "★" if self.picked else {"right": "✓", "wrong": "✗", "unclear": "?"}[self.state]

    @property
    def words(self) -> str:
        """What its colour, its sign and its size say."""
        said = {"right": "correct", "wrong": "not correct", "unclear": "not checked"}[self.state]
        picked = ", picked for training" if self.picked else ""
        return f"{self.number + 1}: {said}{picked}, {self.length:,} token{'' if self.length == 1 else 's'}"


def size_of(length: int, longest: int) -> int:
    """From 1 to SIZES, beside the longest of all that are shown."""
    return min(SIZES, max(1, ceil(SIZES * length / max(1, longest))))


@dataclass
class Asked:
    """A prompt of a step with all that was written to it."""

    rollouts: list[steps.Written]
    tiles: list[Tile] = field(default_factory=list)
    row: Prompt | None = None

    @property
    def prompt(self) -> str:
        return self.rollouts[0].prompt

    @property
    def correct(self) -> Share:
        """Of those that were checked."""
        said = [one.correct for one in self.rollouts if one.correct is not None]
        return Share(sum(said), len(said))

    @property
    def state(self) -> str:
        right, of = self.correct.right, self.correct.of
        return "unsolved" if not right else "solved" if right == of else "mixed"

    @property
    def picked(self) -> steps.Written | None:
        return next((one for one in self.rollouts if one.picked), None)

    @property
    def is_level(self) -> bool:
        """All earned the same, so that nothing was learnt from it."""
        return not any(one.trained for one in self.rollouts)


def asked(run: Run, step: Step) -> list[Asked]:
    """All prompts of a step. Raises steps.NotThere."""
    written = steps.written(run, step)
    if not written:
        raise steps.NotThere("No rollout of this step was kept.")
    if all(one.correct is None and not one.checked for one in written):
        raise steps.NotThere("No checker has judged these rollouts: there is nothing to colour.")
    groups: dict[int, list[steps.Written]] = {}
    for one in written:
        groups.setdefault(one.group, []).append(one)
    numbers = {int(one.prompt_id) for one in written if one.prompt_id.isdecimal() and len(one.prompt_id) < 18}
    known = {str(pk): row for pk, row in run.project.prompts.in_bulk(numbers).items()}
    longest = max(one.length for one in written)
    return [Asked(group, _tiles(group, longest), known.get(group[0].prompt_id)) for group in groups.values()]


def _tiles(group: Sequence[steps.Written], longest: int) -> list[Tile]:
    return [
        Tile(one.name, one.index, one.correct, one.length, size_of(one.length, longest), one.picked)
        for one in group
    ]


def at_once(groups: Iterable[Asked]) -> int:
    """How many prompts fit on a page."""
    most = max((len(each.tiles) for each in groups), default=1)
    return max(1, min(MOST_PROMPTS, MOST_TILES // most))
