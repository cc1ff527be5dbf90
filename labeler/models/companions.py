"""What a rollout is put beside when labelers are asked about it, so that nothing tells which one it is: five
cards as in any quintet, and texts that nobody has ranked as long as there are some.

What a confirmed find is ranked below is another question: it asks for good ones (harvests.py)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet

from labeler.models.checkpoints import Checkpoint
from labeler.models.prompts import Prompt
from labeler.models.quintets import MOST, Quintet, Rollout
from labeler.models.rankings import Purpose, Ranking

LOOKED_AT = 100  # of a prompt's rollouts


@dataclass(frozen=True)
class Companion:
    text: str
    checkpoint: Checkpoint | None = None
    finished: bool = True
    model: str = ""
    author_id: int | None = None


def fill(prompt: Prompt, texts: Sequence[str], fresh: Iterable[Companion]) -> list[Companion]:
    """What these answers to the prompt are put beside, to be five together. `fresh`: of the same run. What no
    person has ranked comes first, the fresh ones before what waits in the project."""
    taken, found = {text.strip() for text in texts} | {""}, []
    for each in (*fresh, *_of_the_project(prompt)):
        if each.text.strip() not in taken:
            taken.add(each.text.strip())
            found.append(each)
    known = Rollout.objects.filter(quintet__prompt=prompt, text__in=[each.text for each in found])
    known = known.exclude(quintet__purpose=Purpose.HARVEST).annotate(ranked=_ranked_by_people())
    seen: dict[str, int] = defaultdict(int)
    for text, ranked in known.values_list("text", "ranked"):
        seen[text] = max(seen[text], 1 + ranked)
    found.sort(key=lambda each: seen[each.text])
    return found[: max(0, MOST - len(texts))]


def name_writers(quintet: Quintet, wrote: Sequence[Companion]) -> None:
    """Keep who wrote each slot of a composed quintet, where it was none of our checkpoints."""
    for slot, each in enumerate(wrote):
        if each.model or each.author_id:
            about = {"model": each.model, "author": each.author_id}
            quintet.rollouts.filter(slot=slot).update(**about)


def _of_the_project(prompt: Prompt) -> list[Companion]:
    """Whole rollouts of the prompt that nobody has marked: those that nobody has ranked, then the newest."""
    wrote = Rollout.objects.filter(quintet__prompt=prompt, quintet__purpose=Purpose.WORK, finished=True)
    found = unmarked(wrote).alias(ranked=_ranked_by_people()).order_by("ranked", "-pk")
    return [
        Companion(each.text, each.checkpoint, True, each.model, each.author_id)
        for each in found.select_related("checkpoint")[:LOOKED_AT]
    ]


def unmarked(rollouts: QuerySet[Rollout]) -> QuerySet[Rollout]:
    """Those that stand in no ranking as nonsense or unsafe."""
    marked = Ranking.objects.filter(quintet=OuterRef("quintet"), current=True)
    for mark in ("nonsense__contains", "unsafe__contains"):
        rollouts = rollouts.exclude(Exists(marked.filter(**{mark: [OuterRef("slot")]})))
    return rollouts


def _ranked_by_people() -> Exists:
    given = Ranking.objects.filter(quintet=OuterRef("quintet"), simulated=False)
    return Exists(given.exclude(purpose=Purpose.HARVEST))
