"""The practice grid: prompts with their rollouts as tiles, of a step of a policy run or sampled now. What
the checker says is a tile's colour and sign, its length is its size, and what was pushed most stands out.

How a step's rollouts are read is said in labeler/steps.py; how they are listed token by token, there too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from math import ceil

from django.db.models import QuerySet
from django.utils import timezone

from labeler import steps
from labeler.models import Prompt, Request, Run, Step
from labeler.models.requests import STALE
from labeler.models.verdicts import WORDS
from labeler.verdicts import Share
from rlhf.difficulty import pass_at

LOOKS = (1, 2, 5, 15, 100)  # of which k pass@k is said
LATELY = 10
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
        picked = ", picked for training" if self.picked else ""
        tokens = f"{self.length:,} token{'' if self.length == 1 else 's'}"
        return f"{self.number + 1}: {WORDS[self.correct]}{picked}, {tokens}"


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

    def beside(self, one: steps.Written) -> steps.Written | None:
        """What to lay beside it for people to rank: a sibling that says something else, best one of the other
        verdict."""
        others = [each for each in self.rollouts if each.text.strip() not in ("", one.text.strip())]
        return min(others, key=lambda each: (each.correct == one.correct, each.index), default=None)

    @property
    def is_passed_over(self) -> bool:
        """Nothing was learnt from it: all earned the same, or other prompts had more to teach."""
        return not any(one.trained for one in self.rollouts)


def asked(run: Run, step: Step) -> list[Asked]:
    """All prompts of a step, those first that it learnt from. Raises steps.NotThere."""
    written = steps.written(run, step)
    if not written:
        raise steps.NotThere("No rollout of this step was kept.")
    if all(one.correct is None and not one.checked for one in written):
        raise steps.NotThere("No checker has judged these rollouts: there is nothing to colour.")
    groups: dict[int, list[steps.Written]] = {}
    for one in written:
        groups.setdefault(one.group, []).append(one)
    known = run.project.prompts.numbered(one.prompt_id for one in written)
    longest = max(one.length for one in written)
    found = [Asked(group, _tiles(group, longest), known.get(group[0].prompt_id)) for group in groups.values()]
    return sorted(found, key=lambda each: each.is_passed_over)


def _tiles(group: Sequence[steps.Written], longest: int) -> list[Tile]:
    return [
        Tile(one.name, one.index, one.correct, one.length, size_of(one.length, longest), one.picked)
        for one in group
    ]


def at_once(groups: Iterable[Asked]) -> int:
    """How many prompts fit on a page."""
    most = max((len(each.tiles) for each in groups), default=1)
    return max(1, min(MOST_PROMPTS, MOST_TILES // most))


# Sampled now


@dataclass
class Sample(steps.Thought):
    """A rollout that was sampled for the page, whole."""

    number: int
    text: str
    length: int
    finished: bool
    log_prob: float
    correct: bool | None = None
    checked: str = ""
    read: str = ""

    @property
    def name(self) -> str:
        return str(self.number)


@dataclass(frozen=True)
class Had:
    """How far a page has read along: up to which part, and what the rollouts before it come to. The page says
    this with every question, so that nobody reads a part twice."""

    part: int = 0
    written: int = 0
    right: int = 0
    checked: int = 0
    longest: int = 1

    @classmethod
    def of(cls, text: str) -> "Had":
        """What a page says; from the beginning where it says anything else."""
        said = text.split("-")
        good = len(said) == len(fields(cls)) and all(each.isdecimal() and len(each) < 10 for each in said)
        return cls(*map(int, said)) if good else cls()

    def __str__(self) -> str:
        return "-".join(str(getattr(self, each.name)) for each in fields(self))

    def and_(self, part: int, tiles: Iterable[tuple[int, int, bool | None]]) -> "Had":
        lengths, verdicts = [each[1] for each in tiles], [each[2] for each in tiles]
        return Had(
            part=part,
            written=self.written + len(lengths),
            right=self.right + verdicts.count(True),
            checked=self.checked + len(verdicts) - verdicts.count(None),
            longest=max(self.longest, *lengths),
        )


class Sampled:
    """Rollouts of one prompt as they come. Of those that a page `had` nothing is read, of the others number,
    length and verdict alone: ten thousand texts are never in memory together."""

    def __init__(self, request: Request, had: Had | None = None):
        self.request, self.asked, self.had = request, request.question, had or Had()
        parts = request.parts.after(self.had.part).values_list("number", "body__tiles")
        known: list[tuple[int, int, bool | None]] = []
        for part, tiles in parts:
            if tiles:
                self.had = self.had.and_(part, tiles)
                known += tiles
        best = self._best(known)
        tiles = [
            Tile(str(number), number, correct, length, size_of(length, self.had.longest), number == best)
            for number, length, correct in known
        ]
        # In the order of their numbers when all are there, before that as they came.
        self.tiles = tiles if request.is_live else sorted(tiles, key=lambda tile: tile.number)

    def _best(self, known: Iterable[tuple[int, int, bool | None]]) -> int | None:
        """What would be picked, once all are there: the shortest of the correct ones."""
        right = [(length, number) for number, length, correct in known if correct]
        return min(right)[1] if right and not self.request.is_live else None

    @property
    def written(self) -> int:
        return self.had.written

    @property
    def correct(self) -> Share:
        return Share(self.had.right, self.had.checked)

    @property
    def passes(self) -> list[tuple[int, float]]:
        """pass@k for some k that there are enough rollouts for."""
        share = self.correct
        found = ((k, pass_at(k, share.of, share.right)) for k in LOOKS)
        return [(k, value) for k, value in found if value is not None]

    @property
    def picked(self) -> Sample | None:
        found = next((tile for tile in self.tiles if tile.picked), None)
        return read(self.request, found.number) if found else None


def read(request: Request, number: int) -> Sample | None:
    """One of what was sampled, whole: the part that holds it, and of that this one."""
    part = request.parts.filter(body__contains={"rollouts": [{"number": number}]}).first()
    rollouts = part.body["rollouts"] if part else []
    names = {each.name for each in fields(Sample)}
    found = ({name: value for name, value in each.items() if name in names} for each in rollouts)
    return next((Sample(**each) for each in found if each["number"] == number), None)


def lately(prompt: Prompt) -> QuerySet[Request]:
    """What was sampled of a prompt, as long as it is kept."""
    since = timezone.now() - STALE
    of = Request.objects.filter(kind=Request.Kind.SAMPLE, project=prompt.project, created_at__gt=since)
    return of.filter(question__prompt=prompt.pk)[:LATELY]
