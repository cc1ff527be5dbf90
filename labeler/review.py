"""What a reviewer decides about a quintet. Each decision leaves an audit row and can be taken back.

The rankings themselves stay as they are: a decision stands beside them, and a gold or practice quintet is a
copy. Left out: sending a ranking back (`Ranking.send_back`), setting aside and bringing back (`Quintet`)."""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from labeler.models import Flag, Place, Project, Prompt, Purpose, Quintet, Ranking, Rollout, Round, Run, User
from labeler.models.places import ASKED
from labeler.models.rankings import RankingRefused, checked_ranks

SETTLED = ["reviewed_at", "reviewed_by", "decided_ranks"]


@transaction.atomic
def accept(quintet: Quintet, by: User) -> None:
    """The disagreement is a fair one: the rankings stand as they are."""
    _settle(quintet, by, None)
    _audit(quintet, by, "accept", f"Quintet {quintet.pk} is accepted as it is.")


@transaction.atomic
def decide(quintet: Quintet, by: User, ranks: Sequence[int | None]) -> None:
    """Settle it by ranks of the reviewer's own; ties say that it cannot be decided."""
    given = checked_ranks(ranks, len(quintet.rollouts.all()), ties=True)
    was = quintet.decided_ranks
    _settle(quintet, by, given)
    words = f"Quintet {quintet.pk} is decided: {_listed(given)}."
    _audit(quintet, by, "decide", words, ranks=given, was=was)


@transaction.atomic
def reopen(quintet: Quintet, by: User) -> None:
    """Take back that it was accepted or decided."""
    if not quintet.reviewed_at:
        return
    was = quintet.decided_ranks
    quintet.reviewed_at = quintet.reviewed_by = quintet.decided_ranks = None
    quintet.save(update_fields=SETTLED)
    _audit(quintet, by, "take back", f"The decision about quintet {quintet.pk} is taken back.", was=was)


def _settle(quintet: Quintet, by: User, ranks: list[int] | None) -> None:
    quintet.reviewed_at, quintet.reviewed_by, quintet.decided_ranks = timezone.now(), by, ranks
    quintet.save(update_fields=SETTLED)


@transaction.atomic
def keep_after_all(ranking: Ranking, by: User) -> None:
    """Take back that it was sent back, as long as its labeler has not ranked anew."""
    sent = Ranking.objects.filter(pk=ranking.pk, current=True, returned_at__isnull=False)
    if sent.update(returned_at=None, returned_because=""):
        words = f"The ranking by {ranking.labeler} of quintet {ranking.quintet_id} need not be done again."
        _audit(ranking.quintet, by, "take back", words, ranking=ranking.pk, labeler=ranking.labeler_id)


@transaction.atomic
def flag(ranking: Ranking, by: User, run: Run, step: int) -> bool:
    """Put it on the review list, because the reward model of this run disagrees at this step. Once: whether
    it was not there before. What was reviewed in the meantime comes back."""
    ranking.quintet.locked()
    if ranking.flags.filter(reason=Flag.Reason.REWARD_MODEL).open().exists():
        return False
    said = {"run": run, "step": step, "by": by, "created_at": timezone.now()}
    ranking.flags.update_or_create(reason=Flag.Reason.REWARD_MODEL, defaults=said)
    words = f"The ranking by {ranking.labeler} of quintet {ranking.quintet_id} is marked for review:"
    words = f"{words} the reward model of run {run.pk} disagrees."
    about = {"ranking": ranking.pk, "labeler": ranking.labeler_id, "run": run.pk, "step": step}
    _audit(ranking.quintet, by, "mark for review", words, **about)
    return True


@transaction.atomic
def lower(ranking: Ranking, by: User) -> bool:
    """Take back that it was marked; whether it was."""
    if not ranking.flags.filter(reason=Flag.Reason.REWARD_MODEL).delete()[0]:
        return False
    words = f"The ranking by {ranking.labeler} of quintet {ranking.quintet_id} need not be reviewed any more."
    _audit(ranking.quintet, by, "take back", words, ranking=ranking.pk, labeler=ranking.labeler_id)
    return True


@transaction.atomic
def ask_another(quintet: Quintet, by: User, *, unless_asked: bool = False) -> bool:
    """One more place, for a labeler who has not ranked it; or none, `unless_asked`, while one that was asked
    for before is still open. Whether there is one more."""
    locked = quintet.locked()
    if unless_asked and quintet.places.asked_for().exists():
        return False
    if locked.set_aside_at or locked.round.closed_at or locked.purpose != Purpose.WORK:
        raise RankingRefused("It is out of the queue: nobody would be served it.")
    last = quintet.places.filter(purpose=Purpose.WORK).aggregate(last=Max("number"))["last"]
    number = max(ASKED, (last or 0) + 1)  # beyond those that the project's settings ask for
    place = Place.objects.create(
        project=quintet.project, quintet=quintet, priority=quintet.priority, number=number
    )
    _audit(quintet, by, "ask another", f"One more labeler is asked for quintet {quintet.pk}.", place=place.pk)
    return True


@transaction.atomic
def ask_no_more(quintet: Quintet, by: User, *, only_asked: bool = False) -> int:
    """Close the places that nobody sits at; a ranking that still comes is kept as surplus. All of them, or
    `only_asked` those that a reviewer asked for. How many there were."""
    quintet.locked()
    places = quintet.places.asked_for() if only_asked else quintet.places.all()
    if closed := places.filter(labeler=None).close():
        words = f"Nobody more is asked for quintet {quintet.pk}."
        _audit(quintet, by, "ask no more", words, places=closed)
    return closed


# Gold and practice


@transaction.atomic
def make_check(quintet: Quintet, by: User, purpose: str, ranks: Sequence[int], explanation: str) -> Quintet:
    """A gold or practice quintet of the same prompt and rollouts; this one stays as it is."""
    texts = [rollout.text for rollout in quintet.rollouts.all()]
    made = compose_check(quintet.project, by, purpose, quintet.prompt, texts, ranks, explanation)
    for rollout in made.rollouts.all():
        origin = quintet.rollouts.all()[rollout.slot]
        kept = ("finished", "checkpoint_id", "author_id", "model", "extra")
        Rollout.objects.filter(pk=rollout.pk).update(**{name: getattr(origin, name) for name in kept})
    Quintet.objects.filter(pk=made.pk).update(copied_from=quintet)
    return made


@transaction.atomic
def compose_check(
    project: Project,
    by: User,
    purpose: str,
    prompt: Prompt,
    texts: Sequence[str],
    ranks: Sequence[int],
    explanation: str,
) -> Quintet:
    """A gold or practice quintet with known ranks. It has no places: one is made for whom it is due."""
    given = checked_ranks(ranks, len(texts), ties=True)
    if len(set(given)) == 1:
        raise RankingRefused("All ranks are equal: there would be nothing to check against.")
    made = Quintet.objects.compose(project, Round.objects.current(project), prompt, texts, places=0)
    made.purpose, made.known_ranks, made.explanation = purpose, given, explanation
    made.save(update_fields=["purpose", "known_ranks", "explanation"])
    _audit(made, by, f"{purpose} made", f"Quintet {made.pk} is a {purpose} quintet: {_listed(given)}.")
    return made


@transaction.atomic
def remove_check(quintet: Quintet, by: User) -> None:
    """Serve it to nobody from now on. What was ranked of it stays, and counts in the scores."""
    quintet.set_aside_at = timezone.now()
    quintet.save(update_fields=["set_aside_at"])
    quintet.places.filter(done=False).update(done=True)
    words = f"Quintet {quintet.pk} is no {quintet.purpose} quintet any more."
    _audit(quintet, by, f"{quintet.purpose} unmade", words)


@transaction.atomic
def restore_check(quintet: Quintet, by: User) -> None:
    quintet.set_aside_at = None
    quintet.save(update_fields=["set_aside_at"])
    words = f"Quintet {quintet.pk} is a {quintet.purpose} quintet again."
    _audit(quintet, by, f"{quintet.purpose} made", words)


def _listed(ranks: Sequence[int]) -> str:
    return "ranks " + ", ".join(str(rank) for rank in ranks)


def _audit(quintet: Quintet, by: User, action: str, words: str, **about) -> None:
    quintet.project.audit.write(by, quintet.project, action, words[:500], quintet=quintet.pk, **about)
