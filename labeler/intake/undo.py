"""What an import brought, out again: as long as nobody has built on it here.

All or nothing, in the caller's transaction. Datasets that were frozen meanwhile keep their lines: they never
change."""

from collections.abc import Mapping

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from labeler.models import Flag, Import, Place, Prompt, Quintet, Ranking, Rollout, Sheet, Skip, User
from labeler.models.imports import UndoRefused


def take_out(found: Import) -> Mapping[str, int]:
    """How many of each are gone. Raises UndoRefused."""
    quintets = found.quintets.all()
    # Locked as a submit locks its quintet: nobody ranks one of them from here on.
    list(quintets.order_by("pk").select_for_update().values_list("pk"))
    _refuse_what_is_in_use(found)
    labelers = set(found.rankings.values_list("labeler", flat=True).distinct())
    many = {"rankings": _gone(found.rankings.all()), "quintets": quintets.count()}
    for model in (Place, Skip, Rollout):
        _gone(model._default_manager.filter(quintet__brought_by=found))
    _gone(quintets)
    if answers := _gone(found.demonstrations.filter(solution=False)):
        many["demonstrations"] = answers
    if solutions := _gone(found.demonstrations.all()):
        many["worked solutions"] = solutions
    # A prompt that was here without its answer is so again, unless somebody has said it anew since.
    if answers := found.answers.say(""):
        many["answers"] = answers
    unused = found.prompts.filter(answer_brought_by=None)  # what another import said of it stays, and so it
    unused = unused.filter(~Exists(Quintet.objects.filter(prompt=OuterRef("pk"))), demonstrations=None)
    drafts = Sheet.objects.filter(prompt=OuterRef("pk"), draft__isnull=False)
    unused = unused.filter(~Exists(drafts), verdicts=None)  # what somebody has begun to write stays
    _gone(Sheet.objects.filter(prompt__in=unused.values("pk")))
    many["prompts"] = _gone(Prompt.objects.filter(pk__in=unused.values("pk")))
    # Accounts that only this import made: nobody can sign in with them, and nothing is theirs any more.
    nobody = User.objects.filter(pk__in=labelers, is_active=False, last_login=None, rankings=None)
    nobody.filter(date_joined__gte=found.created_at, password__startswith="!").delete()
    return many


def _refuse_what_is_in_use(found: Import) -> None:
    others = Ranking.objects.filter(quintet__brought_by=found).exclude(brought_by=found)
    if many := others.values("quintet").distinct().count():
        raise UndoRefused(f"{_quintets(many)} of this import {_has(many)} been ranked here since. It stays.")
    edited = found.rankings.filter(Q(current=False) | Q(returned_at__isnull=False))
    if edited.exists():
        raise UndoRefused("A ranking of this import has been edited or sent back since. It stays.")
    if Flag.objects.filter(ranking__brought_by=found).exists():
        raise UndoRefused("A ranking of this import has been marked for review since. It stays.")
    if many := found.quintets.filter(reviewed_at__isnull=False).count():
        raise UndoRefused(f"{_quintets(many)} of this import {_has(many)} been reviewed since. It stays.")
    rivals = found.demonstrations.filter(Q(version__gt=1) | Q(rivals__isnull=False))
    if rivals.exists():
        raise UndoRefused("A demonstration of this import was edited here, or stands in a quintet. It stays.")
    checks = found.quintets.exclude(purpose="work")
    if many := checks.count():
        raise UndoRefused(
            f"{_quintets(many)} of this import {_has(many)} become a check or practice. It stays."
        )
    sitting = Place.objects.filter(quintet__brought_by=found, leased_until__gt=timezone.now(), done=False)
    if sitting.exists():
        raise UndoRefused("Somebody is ranking one of its quintets at this moment. Try again later.")


def _quintets(many: int) -> str:
    return "One quintet" if many == 1 else f"{many:,} quintets"


def _has(many: int) -> str:
    return "has" if many == 1 else "have"


def _gone(rows) -> int:
    """Deleted by one statement: what refers to them has gone before."""
    return rows._raw_delete(rows.db)
