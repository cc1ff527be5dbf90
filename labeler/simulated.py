"""Simulated labelers: programs with a hidden taste that rank what waits, so that the whole story of a project
can be seen in minutes, and research be done where the truth is known.

An admin switches them in, for a project. They take no place from anybody, every ranking of theirs is marked,
and none counts as people's. Their taste (labeler/demo/taste.py) is one in jokes about a few birds and beasts:
where a prompt asks for something else they have no opinion."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from labeler.models import Project, Purpose, Quintet, Ranking, User
from labeler.models.rankings import AlreadyRanked
from rlhf import data

LOOKED_AT = 500  # prompts, until somebody is told that they have no opinion here
A_CHUNK = 25  # quintets, between two looks whether somebody else waits


class NobodyToRank(ValueError):
    """Why simulated labelers cannot rank here, in words."""


def waiting(project: Project) -> QuerySet[Quintet]:
    """What waits for people in the open round, and no simulated labeler has ranked."""
    by_programs = Ranking.objects.filter(quintet=OuterRef("pk"), simulated=True, current=True)
    unranked = Quintet.objects.waiting().filter(project=project, purpose=Purpose.WORK)
    return unranked.filter(~Exists(by_programs))


def labelers() -> list[tuple[Any, User]]:
    """Each simulated labeler with its row. Raises NobodyToRank where a person has its name."""
    from labeler.demo.taste import LABELERS  # its corpus is read when it is first needed

    found = []
    for labeler in LABELERS:
        user = User.objects.filter(username=labeler.name).first()
        if user is None:
            user = User.objects.without_password(labeler.name, simulated=True)
        if not user.simulated:
            raise NobodyToRank(f"Somebody here is called {labeler.name}, and is no program.")
        found.append((labeler, user))
    return found


def have_an_opinion(project: Project) -> bool:
    """Whether any of the project's first prompts asks for what they have a taste in."""
    from labeler.demo.jokes import subject_of

    asked = project.prompts.values_list("content", flat=True)[:LOOKED_AT]
    return any(subject_of(data.prompt_text(each)) for each in asked)


def rank(project: Project, tell: Callable[[str], None], others_wait: Callable[[], bool]) -> dict[str, int]:
    """Every simulated labeler ranks everything that waits; how much that was. Raises NobodyToRank. It ends
    early when somebody else waits: what is left is left for the next time."""
    from labeler.demo.jokes import subject_of

    everybody = labelers()
    ranked = passed_over = 0
    last = newest = 0
    while chunk := list(_next(project, last)):
        for quintet in chunk:
            last = newest = quintet.pk
            asked = quintet.prompt.text
            if not subject_of(asked):
                passed_over += 1
                continue
            texts = [rollout.text for rollout in quintet.rollouts.all()]
            for labeler, user in everybody:
                with suppress(AlreadyRanked):  # by an attempt that was given up for lost
                    quintet.record_ranking(user, None, labeler.rank(asked, texts))
                    ranked += 1
        tell(f"simulated labelers have made {ranked:,} rankings")
        if others_wait():
            break
    left = _next(project, last).exists()
    return {"ranked": ranked, "passed_over": passed_over, "newest": newest, "left": int(left)}


def _next(project: Project, after: int) -> QuerySet[Quintet]:
    unranked = waiting(project).filter(pk__gt=after).order_by("pk")
    unranked = unranked.select_related("prompt", "project", "round")
    return unranked.prefetch_related("rollouts")[:A_CHUNK]
