"""The queue's order: which priority and arm a quintet gets, and how many places.

Set-based: a few statements order all that wait, however many they are. The arms are said with each ranking,
so that what choosing by uncertainty gains can be measured against the share drawn at random. Both that share
and the share with more labelers are spread by quintet number (multiples of an irrational number, taken modulo
1, fill 0 to 1 evenly), so that any stretch of the queue has them. Who gets what is decided in places.py."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection, models, transaction
from django.db.models import Exists, OuterRef

from labeler.models.people import User
from labeler.models.places import ASKED, Place
from labeler.models.projects import Project
from labeler.models.rankings import Purpose

A_PORTION = 2000  # quintets that are ordered in one transaction
ONE_AT_A_TIME = "SELECT {}(hashtext('quintet-order'), %s::int)"
MANY = 500  # places that are counted; beyond that it is said that there are more

Row = TypeVar("Row", bound=models.Model)

# How evenly k·x mod 1 fills the interval is best for these two; sharing one would tie arm to overlap.
WIDER, AT_RANDOM = 0.6180339887498949, 0.41421356237309515

# The chosen quintets with their new priority and arm. Of those at random the i-th comes at i/share, of the
# others at i/(1 - share): so each stretch of the queue has that share of them. Not scored: after the scored.
PLANNED = """
WITH spread AS (
    SELECT id, uncertainty,
        (id * %(at_random)s::float8) - floor(id * %(at_random)s::float8) < %(share)s AS random,
        ('x' || substr(md5(id || ' drawn'), 1, 8))::bit(32)::bigint / 4294967296.0 AS drawn
    FROM labeler_quintet WHERE id = ANY(%(numbers)s)
), numbered AS (
    SELECT *, row_number() OVER (
        PARTITION BY random ORDER BY CASE WHEN random THEN drawn ELSE -uncertainty END NULLS LAST, id
    ) - 0.5 AS number FROM spread
), planned AS (
    SELECT id,
        CASE %(queue)s
            WHEN 'imported' THEN id
            WHEN 'random' THEN drawn
            ELSE %(base)s + CASE WHEN random THEN number / nullif(%(share)s, 0)
                ELSE number / nullif(1 - %(share)s, 0) END
        END::float8 AS priority,
        CASE %(queue)s
            WHEN 'imported' THEN 'order'
            WHEN 'random' THEN 'random'
            ELSE CASE WHEN random THEN 'random' WHEN uncertainty IS NULL THEN 'order' ELSE 'uncertain' END
        END AS arm
    FROM numbered
)
"""
ORDER_QUINTETS = """
UPDATE labeler_quintet quintet SET priority = planned.priority, arm = planned.arm FROM planned
WHERE quintet.id = planned.id
    AND (quintet.priority, quintet.arm) IS DISTINCT FROM (planned.priority, planned.arm)
"""
# The same where it is another one than now, to be written a portion at a time.
CHANGES = """
SELECT planned.id, planned.priority, planned.arm FROM planned JOIN labeler_quintet quintet USING (id)
WHERE (quintet.priority, quintet.arm) IS DISTINCT FROM (planned.priority, planned.arm) ORDER BY id
"""
CHANGE_QUINTETS = """
UPDATE labeler_quintet quintet SET priority = planned.priority, arm = planned.arm
FROM unnest(%s::bigint[], %s::float8[], %s::text[]) AS planned(id, priority, arm)
WHERE quintet.id = planned.id
"""
CHANGE_PLACES = """
UPDATE labeler_place place SET priority = quintet.priority FROM labeler_quintet quintet
WHERE quintet.id = ANY(%s::bigint[]) AND place.quintet_id = quintet.id AND place.purpose = 'work'
    AND NOT place.done AND place.priority <> quintet.priority
"""
# How many labelers each of the chosen quintets wants.
WANTED = """
WITH wanted AS (
    SELECT id, priority, CASE WHEN (id * %(wider)s::float8) - floor(id * %(wider)s::float8) < %(wider_share)s
        THEN greatest(%(overlap)s, %(wider_overlap)s) ELSE %(overlap)s END AS places
    FROM labeler_quintet WHERE id = ANY(%(numbers)s)
)
"""
MORE_PLACES = """
INSERT INTO labeler_place (project_id, quintet_id, purpose, priority, number, done)
SELECT %(project)s, id, 'work', priority, series.number, false
FROM wanted, LATERAL generate_series(0, places - 1) AS series(number)
WHERE NOT EXISTS (SELECT FROM labeler_place place
    WHERE place.quintet_id = wanted.id AND place.purpose = 'work' AND place.number = series.number)
ORDER BY priority, id, series.number
"""
# Of the places of a quintet, taken ones first, as many as are wanted are open or filled, the rest closed.
# What a reviewer has asked for besides stays open.
FIT_PLACES = """
, kept AS (
    SELECT place.id, row_number() OVER (PARTITION BY quintet_id
        ORDER BY labeler_id IS NULL, done, place.number) <= wanted.places AS wanted
    FROM labeler_place place JOIN wanted ON wanted.id = place.quintet_id
    WHERE place.purpose = 'work' AND place.number < %(asked)s
)
UPDATE labeler_place place SET done = NOT kept.wanted FROM kept
WHERE kept.id = place.id AND place.labeler_id IS NULL AND place.done = kept.wanted
"""


class Queueing(models.QuerySet[Row]):
    """What a set of quintets can be asked and told about the queue."""

    def waiting(self):
        """Those that somebody still has to rank."""
        places = Place.objects.waiting().filter(quintet=OuterRef("pk"))
        return self.filter(Exists(places), round__closed_at=None, set_aside_at=None)

    def awaiting(self, labeler: User):
        """Those that this labeler could rank now: the one they hold, and those with a vacant place."""
        return self.filter(Exists(Place.objects.waiting().filter(quintet=OuterRef("pk")).served_to(labeler)))

    def awaiting_counts(self, labeler: User, projects: Iterable[int]) -> dict[int, tuple[int, bool]]:
        """How many of each project this labeler could rank now, and whether that is all or at least so many:
        only so many places from the queue's end are looked at, because who ranks comes from its beginning."""
        end = Place.objects.waiting().filter(project=OuterRef("pk")).order_by("-priority", "-pk")
        looked = Project.objects.filter(pk__in=projects).annotate(end=ArraySubquery(end.values("pk")[:MANY]))
        places = dict(looked.values_list("pk", "end"))
        takeable = Place.objects.filter(pk__in=[pk for some in places.values() for pk in some])
        counts = takeable.served_to(labeler).order_by().values_list("project")
        found = dict(counts.annotate(models.Count("quintet", distinct=True)))
        return {pk: (found.get(pk, 0), len(some) < MANY) for pk, some in places.items()}

    @transaction.atomic
    def enqueue(self, project: Project) -> None:
        """Put these, which are all the project's and new, at the end of its queue, each with its places."""
        numbers = list(self.filter(purpose=Purpose.WORK, places=None).values_list("pk", flat=True))
        last = project.places.waiting().order_by("priority").last()
        base = last.priority if last and project.queue == Project.Queue.UNCERTAIN else 0.0
        about = _about(project, numbers=numbers, base=base)
        with connection.cursor() as cursor:
            cursor.execute(PLANNED + ORDER_QUINTETS, about)
            cursor.execute(WANTED + MORE_PLACES, about)

    def fit(self, project: Project) -> None:
        """Open or close places, so that each of these has as many as are wanted now. Who sits, and what is
        filled, stays; a quintet that was kept out of the queue stays out."""
        queued = Exists(Place.objects.filter(quintet=OuterRef("pk"), purpose=Purpose.WORK))
        in_use = self.filter(queued, purpose=Purpose.WORK, set_aside_at=None, round__closed_at=None)
        for numbers in _portions(list(in_use.order_by("pk").values_list("pk", flat=True))):
            about = _about(project, numbers=numbers, base=0.0)
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(WANTED + MORE_PLACES, about)
                cursor.execute(WANTED + FIT_PLACES, about)

    def reorder(self, project: Project) -> None:
        """Order all that waits by the project's settings and the uncertainties as they are now, with as many
        places as are wanted now. Whoever sits keeps their place; what is ranked out stays so. A portion at a
        time, unless the caller is in a transaction: who claims meanwhile waits for no more than that."""
        with connection.cursor() as cursor:
            if connection.in_atomic_block:
                cursor.execute(ONE_AT_A_TIME.format("pg_advisory_xact_lock"), [project.pk])
                return self._reorder(Project.objects.get(pk=project.pk), cursor)
            cursor.execute(ONE_AT_A_TIME.format("pg_advisory_lock"), [project.pk])
            try:
                self._reorder(Project.objects.get(pk=project.pk), cursor)
            finally:
                cursor.execute(ONE_AT_A_TIME.format("pg_advisory_unlock"), [project.pk])

    def _reorder(self, project: Project, cursor) -> None:
        waiting = self.filter(project=project).waiting()
        numbers = list(waiting.order_by("pk").values_list("pk", flat=True))
        cursor.execute(PLANNED + CHANGES, _about(project, numbers=numbers, base=0.0))
        for changes in _portions(cursor.fetchall()):
            changed = [list(column) for column in zip(*changes, strict=True)]
            with transaction.atomic():
                cursor.execute(CHANGE_QUINTETS, changed)
                cursor.execute(CHANGE_PLACES, changed[:1])
        self.filter(pk__in=numbers).fit(project)
        # What they have come past may be before them now.
        project.desks.update(priority=None)


def _portions(rows: list) -> Iterator[list]:
    return (rows[begin : begin + A_PORTION] for begin in range(0, len(rows), A_PORTION))


def _about(project: Project, numbers: Iterable[int], base: float) -> dict:
    settings = ("queue", "overlap", "wider_overlap", "wider_share")
    return {
        **{name: getattr(project, name) for name in settings},
        "project": project.pk,
        "numbers": numbers,
        "asked": ASKED,
        "base": base,
        "share": project.random_share,
        "wider": WIDER,
        "at_random": AT_RANDOM,
    }
