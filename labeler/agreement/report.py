"""What pages and the command tell of a project's agreement: the numbers, with the names of what they are of.

Reads rows only; numpy is loaded where there is something to fold. Left out: how the numbers come about
(figures.py) and how they look (pictures.py, templates/agreement/)."""

from typing import Any

from labeler.agreement.audits import reasons, usual_times
from labeler.models import Arm, Project, StaleQuintet, Tally, User

IN_A_VIEW = 24  # marks that a page folds while somebody waits
PROJECT, ROUND, LABELER, ARM = range(4)
ARMS = [Arm.ORDER, Arm.RANDOM, Arm.UNCERTAIN]


def catch_up(project: Project) -> int:
    """Fold what a page can while somebody waits for it; how many quintets are still to come."""
    stale = StaleQuintet.objects.of(project)
    if not stale.exists():
        return 0
    from labeler.agreement.folding import fold

    fold(project, IN_A_VIEW)
    return stale.how_many()


def of_project(project: Project, simulated: bool) -> dict[str, Any] | None:
    """The numbers of all people, or of all simulated labelers; None where none of them has ranked."""
    return Tally.objects.told_of(project, simulated, PROJECT).get(0)


def of_rounds(project: Project, simulated: bool) -> list[dict[str, Any]]:
    """Newest first."""
    told = Tally.objects.told_of(project, simulated, ROUND)
    rounds = project.rounds.filter(pk__in=told).order_by("-number")
    return [told[round.pk] | {"round": round.number} for round in rounds]


def of_arms(project: Project, simulated: bool) -> list[dict[str, Any]]:
    """By how the queue came to the quintets; nothing to compare where it always did so in one way."""
    told = Tally.objects.told_of(project, simulated, ARM)
    return [told[arm] | {"arm": ARMS[arm]} for arm in sorted(told)] if len(told) > 1 else []


def labelers(project: Project, simulated: bool) -> Any:
    """Rows of a labeler's number and numbers, the busiest first: a queryset, for pages of a page."""
    mine = Tally.objects.filter(project=project, simulated=simulated, kind=LABELER)
    return mine.order_by("-told__rankings", "ref").values_list("ref", "told")


def named(rows: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    names = dict(User.objects.filter(pk__in=[ref for ref, _ in rows]).values_list("pk", "username"))
    return [told | {"labeler": names.get(ref, "somebody deleted")} for ref, told in rows]


def standing_out(project: Project, simulated: bool) -> list[dict[str, Any]]:
    """Labelers whom there is a reason to look at, those with most reasons first."""
    rows = list(labelers(project, simulated))
    found = [
        (ref, told | {"reasons": why})
        for (ref, told), usual in zip(rows, usual_times([told for _, told in rows]), strict=True)
        if (why := reasons(told, usual, project))
    ]
    return sorted(named(found), key=lambda each: (-len(each["reasons"]), each["labeler"]))
