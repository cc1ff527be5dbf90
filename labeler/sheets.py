"""What a sheet shows whoever writes on it: the prompt, how far they have come, and the rollouts that they may
begin with; and what its form says of such a beginning. Who may write, and what is kept, is decided in
models/demonstrations.py."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from labeler.cards import turns
from labeler.models import Demonstration, Project, Prompt, Rollout, Sheet, User

OFFERED = 5  # rollouts to begin with
DRAFT = ("completion", "from", "focus_seconds", "at")


def offered(prompt: Prompt) -> QuerySet[Rollout]:
    """The rollouts of this prompt: whatever models wrote, but for those that stand beside a written answer,
    whose labelers could tell it by them."""
    wrote = Rollout.objects.filter(quintet__prompt=prompt, author=None)
    return wrote.filter(quintet__rivals=None).order_by("-pk")


def source(prompt: Prompt, rollout: str) -> dict[str, Any]:
    """What an answer began as, where it did."""
    number = int(rollout) if rollout.isdecimal() and len(rollout) < 19 else 0
    found = offered(prompt).filter(pk=number).first()
    if found is None:
        return {}
    about = {"rollout": found.pk, "quintet": found.quintet_id, "slot": found.slot}
    return {"source": found.text, "came_from": about}


def begun(sheet: Sheet, filled: dict[str, str]) -> dict[str, str]:
    """The form with a rollout in it; what was written already stays above it."""
    rollout = filled.get("start", "")
    text = source(sheet.prompt, rollout).get("source", "")
    written = filled.get("completion", "").strip()
    return filled | {"completion": f"{written}\n\n{text}" if written else text, "from": rollout}


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
    for rollout in offered(prompt)[: 3 * OFFERED] if sheet else ():
        texts.setdefault(rollout.text.strip(), rollout)
    others = Demonstration.objects.filter(prompt=prompt, withdrawn_at=None)
    return {
        "prompt": prompt,
        "turns": asked,
        "short": len(asked) == 1 and len(asked[0].content) < 140,
        "completion": filled.get("completion", ""),
        "from": filled.get("from", ""),
        "focus_seconds": filled.get("focus_seconds", "") or "0",
        "drafted_at": filled.get("at", "") or "0",
        "rollouts": [each for text, each in texts.items() if text][:OFFERED],
        "others": others.count() if sheet else 0,
    }
