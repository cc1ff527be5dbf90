"""Rollouts that somebody has picked on a page, sent to the labelers as a quintet of the ordinary queue, and
taken back while nobody has ranked it.

Where they come from is the matter of whoever sends: the steps of a policy run (labeler/steps.py), the
playground (labeler/playground.py). `about` says it on the quintet, and the same ones are sent once."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.db import transaction
from django.utils import timezone

from labeler.models import (
    Checkpoint,
    Place,
    Project,
    Prompt,
    Quintet,
    Ranking,
    Rollout,
    Round,
    Run,
    Skip,
    User,
)
from labeler.models.quintets import FEWEST, MOST


class SendRefused(ValueError):
    """Why these rollouts cannot be sent to the labelers, or taken back, in words."""


class Picked(Protocol):
    """What is asked of a rollout that is to be sent."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


def refuse_unrankable(picked: Sequence[Picked]) -> None:
    """Raises SendRefused."""
    if not FEWEST <= len(picked) <= MOST:
        raise SendRefused(f"Choose {FEWEST} to {MOST} rollouts of one prompt; {len(picked)} were chosen.")
    if len({one.text.strip() for one in picked}) == 1:
        raise SendRefused("All of these say the same: there is nothing to rank.")
    if any(not one.text.strip() for one in picked):
        raise SendRefused("One of these says nothing: leave it out.")


@transaction.atomic
def send(
    project: Project,
    prompt: Prompt,
    picked: Sequence[Picked],
    about: Mapping[str, Any],
    origin: str,
    by: User,
    *,
    run: Run | None = None,
    checkpoints: Sequence[Checkpoint | None] | None = None,
) -> tuple[Quintet, bool]:
    """A quintet of these in the ordinary queue, and whether it is new; `origin` says in words what they are.
    Raises SendRefused."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    refuse_unrankable(picked)
    if there := prompt.quintets.filter(run=run, extra=dict(about)).first():
        return there, False
    quintet = Quintet.objects.compose(
        project,
        Round.objects.current(project),
        prompt,
        [one.text for one in picked],
        finished=[one.finished for one in picked],
        checkpoints=checkpoints,
        run=run,
        extra=dict(about),
    )
    words = f"{len(picked)} {origin}, are sent to the labelers as quintet {quintet.pk}."
    said = {**about, "quintet": quintet.pk} | ({"run": run.pk} if run else {})
    project.audit.write(by, project, "send to the labelers", words, **said)
    return quintet, True


@transaction.atomic
def take_back(quintet: Quintet, origin: str, by: User) -> None:
    """Out of the queue again, as if it had not been sent: while nobody has ranked it. Raises SendRefused."""
    quintet.lock()
    if Ranking.objects.filter(quintet=quintet).exists():
        raise SendRefused("Somebody has ranked it: it stays.")
    sitting = Place.objects.filter(quintet=quintet, leased_until__gt=timezone.now(), done=False)
    if sitting.exists():
        raise SendRefused("Somebody is ranking it at this moment. Try again later.")
    if quintet.reviewed_at or quintet.copies.exists():
        raise SendRefused("It has been reviewed: it stays.")
    project, number, run = quintet.project, quintet.pk, quintet.run
    for model in (Place, Skip, Rollout):
        model._default_manager.filter(quintet=quintet).delete()
    quintet.delete()
    words = f"Quintet {number}, {origin}, is taken back from the labelers."
    project.audit.write(by, project, "take back", words, quintet=number, run=run.pk if run else None)
