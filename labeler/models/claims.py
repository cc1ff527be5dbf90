"""What every claim asks the database, in SQL: it is asked after each ranking, and putting such questions
together anew each time costs more than answering them.

The same conditions are `PlaceQuerySet.served_to`, for all that is asked more seldom."""

from typing import Any

import psycopg
from django.db import connection
from django.utils import timezone

HEAD = 64  # free places at the head of the queue that are looked at first

FREE = "NOT {0}.done AND {0}.purpose = 'work' AND ({0}.labeler_id IS NULL OR {0}.leased_until < %(now)s)"

# Of the places named by {among}, the first that this labeler may take, locked. Whatever the planner believes
# of tables that grow by the minute, it is to look each place's own quintet up and nothing else: OFFSET 0 is
# against joining, + 0 against going through all that a labeler ever did.
TAKEABLE = f"""
SELECT place.id, place.priority
FROM {{among}}
    JOIN labeler_quintet quintet ON quintet.id = place.quintet_id
    JOIN labeler_round round ON round.id = quintet.round_id
WHERE {FREE.format("place")} AND round.closed_at IS NULL AND quintet.set_aside_at IS NULL
    AND NOT EXISTS (SELECT FROM labeler_ranking ranking WHERE ranking.quintet_id = place.quintet_id
        AND ranking.labeler_id + 0 = %(labeler)s AND ranking.purpose = 'work' AND ranking.current OFFSET 0)
    AND NOT EXISTS (SELECT FROM labeler_place seat WHERE seat.quintet_id = place.quintet_id
        AND seat.labeler_id + 0 = %(labeler)s AND seat.purpose = 'work' OFFSET 0)
    AND NOT EXISTS (SELECT FROM labeler_skip skip WHERE skip.quintet_id = place.quintet_id
        AND skip.labeler_id + 0 = %(labeler)s OFFSET 0)
    AND NOT EXISTS (SELECT FROM labeler_rollout rollout WHERE rollout.quintet_id = place.quintet_id
        AND rollout.author_id + 0 = %(labeler)s OFFSET 0)
    {{but}}
ORDER BY {{first}} LIMIT 1 FOR NO KEY UPDATE OF place
"""
AT_THE_HEAD = TAKEABLE.format(
    among=f"""(
        SELECT id, priority FROM labeler_place free
        WHERE project_id = %(project)s AND {FREE.format("free")} ORDER BY priority, id LIMIT {HEAD}
    ) head JOIN labeler_place place ON place.id = head.id""",
    but="",
    first="head.priority, head.id",
)
ANYWHERE = TAKEABLE.format(
    among="labeler_place place", but="AND place.project_id = %(project)s", first="place.priority, place.id"
)
BEYOND = TAKEABLE.format(
    among="labeler_place place",
    but="""AND place.project_id = %(project)s AND place.priority >= %(priority)s
        AND (place.priority, place.id) > (%(priority)s, %(place)s)""",
    first="place.priority, place.id",
)
HELD = """
SELECT id FROM labeler_place WHERE labeler_id = %(labeler)s AND project_id = %(project)s AND NOT done
ORDER BY opened_at DESC NULLS LAST, id LIMIT 1
"""


def held(desk) -> int | None:
    """The place that the labeler holds; the one they opened last, where a ranking was taken back."""
    found = _asked(HELD, desk)
    return found[0] if found else None


def vacant(desk) -> int | None:
    """A place of the queue for this labeler: at its head, where what others gave back turns up; else from
    where they have come to; else anywhere. The last look waits for rows that others have locked, so that
    nobody is sent away while there is any. Moves the desk on."""
    if found := _asked(f"{AT_THE_HEAD} SKIP LOCKED", desk):
        return found[0]
    found = _asked(f"{BEYOND} SKIP LOCKED", desk) if desk.priority is not None else None
    if found := found or _asked(f"{ANYWHERE} SKIP LOCKED", desk) or _asked(ANYWHERE, desk):
        desk.place, desk.priority = found
    return found[0] if found else None


def _asked(question: str, desk) -> tuple[Any, ...] | None:
    about = {"labeler": desk.labeler_id, "project": desk.project_id, "now": timezone.now()}
    return asked(question, about | {"priority": desk.priority, "place": desk.place})


def asked(question: str, about: dict[str, Any]) -> tuple[Any, ...] | None:
    """The first row of the answer. The question is planned once for a connection: planning it takes several
    times as long as answering it, and Django's own cursors have each one planned anew."""
    connection.ensure_connection()
    session = connection.connection
    with psycopg.Cursor(session) as cursor:
        session.prepare_threshold = 0
        try:
            return cursor.execute(question, about).fetchone()
        finally:
            session.prepare_threshold = None  # as Django wants it
