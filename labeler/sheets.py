"""What a sheet shows whoever writes on it: the prompt, how far they have come, and the rollouts that they may
begin with; and what its form says of such a beginning. Who may write, and what is kept, is decided in
models/sheets.py."""

from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from labeler.cards import turns
from labeler.models import (
    Demonstration,
    Place,
    Project,
    Prompt,
    Purpose,
    Ranking,
    Rollout,
    Sheet,
    User,
)
from labeler.numbers import whole

OFFERED = 5  # rollouts to begin with
DRAFT = ("completion", "from", "focus_seconds", "at")


def wrote(prompt: Prompt) -> QuerySet[Rollout]:
    """What models wrote to this prompt, but for what stands beside a written answer, whose labelers could
    tell it by that."""
    return Rollout.objects.filter(quintet__prompt=prompt, author=None, quintet__rivals=None).order_by("-pk")


def waits_for(writer: User) -> Exists:
    """Whether a rollout stands in a quintet that this person may come to rank, and is not to know before."""
    ranked = Ranking.objects.filter(labeler=writer, purpose=Purpose.WORK, current=True)
    places = Place.objects.waiting().filter(~Exists(ranked.filter(quintet=OuterRef("quintet"))))
    return Exists(places.filter(quintet=OuterRef("quintet")))


def offered(prompt: Prompt, writer: User) -> QuerySet[Rollout]:
    """What an answer may begin with. Hidden checks and practice are not for being read elsewhere."""
    return wrote(prompt).filter(~waits_for(writer), quintet__purpose=Purpose.WORK)


def source(prompt: Prompt, rollout: str) -> dict[str, Any]:
    """What an answer began as, where it did."""
    found = wrote(prompt).filter(pk=whole(rollout)).first()
    if found is None:
        return {}
    about = {"rollout": found.pk, "quintet": found.quintet_id, "slot": found.slot}
    return {"source": found.text, "came_from": about}


def begun(sheet: Sheet, filled: dict[str, str]) -> dict[str, str]:
    """The form with a rollout in it; what was written already stays above it."""
    rollout = filled.get("start", "")
    found = offered(sheet.prompt, sheet.writer).filter(pk=whole(rollout)).first()
    text, written = found.text if found else "", filled.get("completion", "").strip()
    begun_as = rollout if found else filled.get("from", "")
    return filled | {"completion": "\n\n".join(filter(None, [written, text])), "from": begun_as}


def about(user: User, project: Project) -> dict[str, Any]:
    prompts = project.prompts.count()
    counted = project.demonstrations.filter(withdrawn_at=None).order_by()
    answered = counted.values("prompt").distinct().count()
    context = {"project": project, "guidelines": project.newest_guidelines, "prompts": prompts}
    return context | {"answered": answered} | today(user, project)


def today(user: User, project: Project) -> dict[str, Any]:
    begin = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = project.demonstrations.written_by(user).filter(withdrawn_at=None, created_at__gte=begin)
    spent = list(mine.values_list("focus_seconds", flat=True))
    return {"today": len(spent), "minutes": round(sum(filter(None, spent)) / 60)}


def desk(prompt: Prompt, filled: dict[str, str], sheet: Sheet | None = None) -> dict[str, Any]:
    asked = turns(prompt)
    texts: dict[str, Rollout] = {}
    for rollout in offered(prompt, sheet.writer)[: 3 * OFFERED] if sheet else ():
        texts.setdefault(rollout.text.strip(), rollout)
    unread = wrote(prompt).filter(waits_for(sheet.writer)) if sheet and not texts else Rollout.objects.none()
    others = Demonstration.objects.filter(prompt=prompt, withdrawn_at=None)
    return {
        "prompt": prompt,
        "turns": asked,
        "short": len(asked) == 1 and len(asked[0].content) < 140,
        "completion": filled.get("completion", ""),
        "from": filled.get("from", ""),
        "focus_seconds": filled.get("focus_seconds", "") or "0",
        "drafted_at": filled.get("at", "") or "0",
        "unread": unread.count(),
        "rollouts": [each for text, each in texts.items() if text][:OFFERED],
        "others": others.count() if sheet else 0,
    }
