"""What hidden checks and the practice say about a labeler, and what comes of it.

A pair of rollouts counts where the known ranks decide it; it is right where the labeler decided it the same
way. For a repeat, the labeler's own first ranking is what is known. Which quintet is a check, and when one is
due, is decided in places.py and desks.py; chance-corrected measures are the agreement's matter."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from django.db.models import F, OuterRef, Subquery, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from labeler.models.projects import Membership, Project
from labeler.models.rankings import Purpose, Ranking

ENOUGH = 5  # checks of a kind, before anything comes of them
NEWEST = 100  # of a kind, that are looked at: what somebody did a year ago says little


@dataclass
class Score:
    """Of the pairs that are decided, how many somebody got right; over so many quintets."""

    right: int = 0
    decided: int = 0
    quintets: int = 0

    @property
    def share(self) -> float | None:
        return self.right / self.decided if self.decided else None

    def add(self, known: Sequence[int], given: Sequence[int]) -> None:
        self.quintets += 1
        for i, j in combinations(range(len(known)), 2):
            if known[i] != known[j]:
                self.decided += 1
                self.right += (given[i] - given[j]) * (known[i] - known[j]) > 0


Scores = dict[str, Score]


def scores(project: Project, labelers: Iterable[int] | None = None, since=None) -> dict[int, Scores]:
    """Each labeler's gold and repeat scores, over their newest checks: two queries for any number of them."""
    known = {Purpose.GOLD: F("quintet__known_ranks"), Purpose.REPEAT: Subquery(_first_ranks())}
    found: dict[int, Scores] = {}
    for purpose, ranks in known.items():
        checks = Ranking.objects.filter(quintet__project=project, purpose=purpose, current=True)
        if labelers is not None:
            checks = checks.filter(labeler__in=labelers)
        if since:
            checks = checks.filter(created_at__gt=since)
        newest = Window(RowNumber(), partition_by="labeler", order_by="-pk")
        checks = checks.annotate(known=ranks, newest=newest).filter(newest__lte=NEWEST, known__isnull=False)
        for labeler, first, given in checks.values_list("labeler", "known", "ranks"):
            both = found.setdefault(labeler, {"gold": Score(), "repeat": Score()})
            both[purpose.value].add(first, given)
    return found


def _first_ranks():
    first = Ranking.objects.work().filter(quintet=OuterRef("quintet"), labeler=OuterRef("labeler"))
    return first.values("ranks")[:1]


def practice(membership: Membership) -> Score:
    """How the labeler did in the practice, this time round."""
    result = Score()
    ranked = Ranking.objects.filter(
        quintet__project=membership.project, labeler=membership.user, purpose=Purpose.PRACTICE, current=True
    )
    pieces = ranked.filter(quintet__set_aside_at=None, quintet__known_ranks__isnull=False)
    for known, given in pieces.values_list("quintet__known_ranks", "ranks"):
        result.add(known or given, given)
    return result


def weigh(membership: Membership, purpose: str) -> None:
    """Do what is to come of a check, or of a piece of the practice, that was just ranked."""
    if purpose == Purpose.PRACTICE:
        _weigh_practice(membership)
    elif membership.project.checks != Project.Checks.REPORT and not membership.paused_at:
        _weigh_checks(membership)


def _weigh_practice(membership: Membership) -> None:
    pieces = membership.project.quintets.filter(purpose=Purpose.PRACTICE, set_aside_at=None)
    result = practice(membership)
    passed = result.share is None or result.share >= membership.project.practice_pass
    if passed and result.quintets >= pieces.exclude(known_ranks=None).count():
        membership.practised_at = timezone.now()
        membership.save(update_fields=["practised_at"])


def _weigh_checks(membership: Membership) -> None:
    """Warn or pause whose checks are below the project's marks. After a pause counting begins anew, or the
    next check would pause again whom an admin has just let go on."""
    project = membership.project
    mine = scores(project, [membership.user_id], membership.checks_from).get(membership.user_id, {})
    because = " ".join(_failed(project, mine))
    if project.checks == Project.Checks.PAUSE and because:
        membership.checks_from = timezone.now()
        membership.save(update_fields=["checks_from"])
        membership.pause(because)
    elif project.checks == Project.Checks.WARN and because != membership.warned_because:
        new = because and not membership.warned_because
        membership.warned_because = because
        membership.save(update_fields=["warned_because"])
        if new:
            words = f"{membership.user} is warned: {because}"
            project.audit.write(None, project, "warn", words[:500], labeler=membership.user_id)


def _failed(project: Project, scores: Scores) -> Iterable[str]:
    gold = "Of the pairs whose order is known, {0:.0%} were right; {1:.0%} is asked."
    repeat = "Of the pairs ranked twice, {0:.0%} went the same way; {1:.0%} is asked."
    marks = {"gold": (project.gold_pass, gold), "repeat": (project.repeat_pass, repeat)}
    for name, score in scores.items():
        mark, words = marks[name]
        if score.quintets >= ENOUGH and score.share is not None and score.share < mark:
            yield words.format(score.share, mark)
