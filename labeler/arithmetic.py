"""The arithmetic that makes the point: how many rollouts a policy run had scored by the simulator of people,
how many people read for that simulator to be trained, and what it would have taken to ask people instead.

Counts and one measured time. What nobody measured is said to be unknown, not guessed."""

from dataclasses import dataclass
from math import ceil, prod
from statistics import median

from django.db.models import IntegerField, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce

from labeler.models import Project, Ranking, Run
from labeler.templatetags.words import count, duration
from rlhf.data import MOST

LATELY = 500  # rankings, of which the median says what one takes


@dataclass(frozen=True)
class Arithmetic:
    """`people` and `simulated`: rankings that the reward model learnt from; None where it is not known."""

    scored: int
    people: int | None
    simulated: int
    whole: bool  # every one of them was of five rollouts
    seconds: float | None  # that a ranking takes a person, in the median

    @classmethod
    def of(cls, run: Run) -> "Arithmetic | None":
        """Of a policy run against a reward model that has made a step; None for every other."""
        if run.kind != Run.Kind.POLICY or not run.step or not run.reward_model:
            return None
        source = run.reward_model.run.dataset if run.reward_model.run else None
        return cls(
            scored=scored(run),
            people=source.by_people if source else None,
            simulated=source.simulated if source else 0,
            whole=source is not None and source.manifest.get("partial") == 0,
            seconds=focus(run.project),
        )

    @property
    def rankings(self) -> int:
        """That it would take to show people as many rollouts, five at a time."""
        return ceil(self.scored / MOST)

    @property
    def read(self) -> str:
        """Who read how many rollouts."""
        if self.people is None:
            return "how many people read for it is not known here"
        most = "" if self.whole else "at most "
        said = f"people read {most}{MOST * self.people:,}"
        return f"{said}, simulated labelers {MOST * self.simulated:,}" if self.simulated else said

    @property
    def instead(self) -> str:
        """What asking people would have cost."""
        asked = f"Asking people instead would have taken {count(self.rankings, 'ranking')} of five"
        if self.seconds is None:
            return f"{asked}; how long is not known, for no ranking by people was timed here."
        each = duration(max(1, self.seconds))
        return f"{asked}: {duration(self.rankings * self.seconds)} at {each} each, the median here."

    def __str__(self) -> str:
        return f"The simulator scored {count(self.scored, 'rollout')}; {self.read}. {self.instead}"


def scored(run: Run) -> int:
    """Rollouts that its steps say were scored. A run from before they said so had as many prompts as its
    settings ask for, as far as one can know."""
    each = ("prompts_per_step", 0), ("rollouts_per_prompt", 0), ("candidates", 1)
    asked = prod(run.config.get(name, otherwise) for name, otherwise in each)
    told = Cast(KeyTextTransform("scored", "metrics"), IntegerField())
    return run.steps.filter(step__gt=0).aggregate(all=Sum(Coalesce(told, asked)))["all"] or 0


def focus(project: Project) -> float | None:
    """Seconds of attention that a ranking takes the project's people, in the median of the newest; None where
    none was timed."""
    timed = Ranking.objects.counted().by_people().filter(quintet__project=project, focus_seconds__gt=0)
    newest = timed.order_by("-pk").values_list("focus_seconds", flat=True)[:LATELY]
    known = [each for each in newest if each is not None]
    return median(known) if known else None
