"""Rollouts that somebody has chosen on a page, sent to the labelers as a quintet of the ordinary queue, and
taken back while nobody has ranked it. Fewer than five are put beside others of the prompt (companions.py),
because fewer cards than usual would tell a labeler that they were chosen.

Where they come from is the matter of whoever sends: the steps of a policy run (labeler/steps.py), the
playground (labeler/playground.py). `about` says it on the quintet, and the same ones are sent once."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.db import transaction

from labeler.models import Checkpoint, Project, Prompt, Quintet, Round, Run, User
from labeler.models.companions import Companion, fill, name_writers
from labeler.models.quintets import FEWEST, MOST, Stays

BESIDE = "beside"  # in a quintet's `extra`, after what was chosen: which siblings fill it up


class SendRefused(ValueError):
    """Why these rollouts cannot be sent to the labelers, or taken back, in words."""


class Chosen(Protocol):
    """What is asked of a rollout that is to be sent."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


def refuse_unrankable(chosen: Sequence[Chosen]) -> None:
    """Raises SendRefused."""
    if not FEWEST <= len(chosen) <= MOST:
        given = "1 was" if len(chosen) == 1 else f"{len(chosen)} were"
        raise SendRefused(f"Choose {FEWEST} to {MOST} rollouts of one prompt; {given} chosen.")
    if len({one.text.strip() for one in chosen}) == 1:
        raise SendRefused("All of these say the same: there is nothing to rank.")
    if any(not one.text.strip() for one in chosen):
        raise SendRefused("One of these says nothing: leave it out.")


@transaction.atomic
def send(
    project: Project,
    prompt: Prompt,
    chosen: Sequence[Chosen],
    about: Mapping[str, Any],
    origin: str,
    by: User,
    *,
    run: Run | None = None,
    checkpoints: Sequence[Checkpoint | None] | None = None,
    siblings: Mapping[str, Chosen] | None = None,
) -> tuple[Quintet, bool]:
    """A quintet of these in the ordinary queue, and whether it is new; `origin` says in words what they are.
    `siblings`: others of the prompt that may be put beside them, by name. Raises SendRefused."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    refuse_unrankable(chosen)
    for there in prompt.quintets.filter(run=run, extra__contains=dict(about)):
        if {**there.extra, BESIDE: None} == {**about, BESIDE: None}:
            return there, False
    whose = checkpoints or [None] * len(chosen)
    wrote = [Companion(one.text, its, one.finished) for one, its in zip(chosen, whose, strict=True)]
    fresh = {name: Companion(one.text, finished=one.finished) for name, one in (siblings or {}).items()}
    beside = fill(prompt, [one.text for one in chosen], fresh.values())
    wrote += beside
    named = [name for name, one in fresh.items() if one in beside]
    quintet = Quintet.objects.compose(
        project,
        Round.objects.current(project),
        prompt,
        [each.text for each in wrote],
        finished=[each.finished for each in wrote],
        checkpoints=[each.checkpoint for each in wrote],
        run=run,
        extra={**about, BESIDE: named} if named else dict(about),
    )
    name_writers(quintet, wrote)
    filled = f", and {len(beside)} more beside them," if beside else ","
    words = f"{len(chosen)} {origin}{filled} are sent to the labelers as quintet {quintet.pk}."
    said = {**about, "quintet": quintet.pk} | ({"run": run.pk} if run else {})
    project.audit.write(by, project, "send to the labelers", words, **said)
    return quintet, True


@transaction.atomic
def take_back(quintet: Quintet, origin: str, by: User) -> None:
    """Out of the queue again, as if it had not been sent: while nobody has ranked it. Raises SendRefused."""
    project, number, run = quintet.project, quintet.pk, quintet.run
    try:
        quintet.withdraw()
    except Stays as stays:
        raise SendRefused(str(stays)) from None
    words = f"Quintet {number}, {origin}, is taken back from the labelers."
    project.audit.write(by, project, "take back", words, quintet=number, run=run.pk if run else None)
