"""Rows become lines, in an order of their own: equal rankings give equal lines in equal order, whenever and
in whatever order they came.

How a line looks is decided in rlhf/data.py, which rankings there are in query.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection, transaction
from django.db.models import BinaryField, CharField, Func, OuterRef, Value
from django.db.models.functions import Cast, Coalesce, Collate, JSONObject, NullIf

from labeler.models import Arm, Demonstration, Purpose, Rollout
from labeler.models.demonstrations import DemonstrationQuerySet, Origin
from labeler.models.rankings import RankingQuerySet
from rlhf import data

A_BATCH = 1000  # rows at a time


class PromptDigest(Func):
    """`rlhf.data.prompt_digest` of a prompt's content, computed where the sorting is done."""

    template = """sha256(convert_to(CASE
        WHEN jsonb_typeof(%(expressions)s) = 'string' THEN %(expressions)s #>> '{}'
        WHEN jsonb_array_length(%(expressions)s) = 1 AND %(expressions)s -> 0 ->> 'role' = 'user'
            THEN %(expressions)s -> 0 ->> 'content'
        ELSE (
            SELECT string_agg((said ->> 'role') || ': ' || (said ->> 'content'), E'\\n\\n' ORDER BY turn)
            FROM jsonb_array_elements(%(expressions)s) WITH ORDINALITY AS turns(said, turn)
        ) END, 'UTF8'))"""
    output_field = BinaryField()


@contextmanager
def snapshot() -> Iterator[None]:
    """Everything that is read inside is as it was at one moment. Within somebody else's transaction, what is
    read by one statement is."""
    mine = not connection.in_atomic_block
    with transaction.atomic():
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def ranking_lines(rows: RankingQuerySet) -> Iterator[dict[str, Any]]:
    """A line for each, read in one statement and some at a time. Those of one quintet stand together."""
    name = Coalesce(NullIf("quintet__external_id", Value("")), Cast("quintet_id", CharField()))
    rollouts = Rollout.objects.filter(quintet=OuterRef("quintet")).order_by("slot")
    said = JSONObject(text="text", finished="finished", model="model", checkpoint="checkpoint__name")
    ordered = rows.annotate(
        prompt_digest=PromptDigest("quintet__prompt__content"),
        name=Collate(name, "C"),
        rollouts=ArraySubquery(rollouts.values(said=said)),
    ).order_by("prompt_digest", "quintet__prompt__digest", "name")
    read = ordered.values(*READ).iterator(chunk_size=A_BATCH)
    for _, some in groupby(read, key=lambda row: (row["quintet__prompt"], row["name"])):
        yield from sorted(map(_ranking_line, some), key=place_in_quintet)


READ = (
    *("ranks", "shown", "seconds", "focus_seconds", "nonsense", "unsafe", "acceptable", "arm", "purpose"),
    *("surplus", "simulated", "extra", "guidelines__number", "labeler__username", "rollouts", "name"),
    *("quintet__decided_ranks", "quintet__round__number", "quintet__prompt", "quintet__prompt__content"),
    "quintet__faceoff__number",
)


def place_in_quintet(line: dict[str, Any]) -> tuple[list[str], str, str]:
    """Where a line stands among those of its quintet, or of quintets that have the same name."""
    return line["rollouts"], line["labeler"], data.dumps(line)


def _ranking_line(row: dict[str, Any]) -> dict[str, Any]:
    return data.as_line(
        data.Ranking(
            prompt=row["quintet__prompt__content"],
            rollouts=tuple(rollout["text"] for rollout in row["rollouts"]),
            ranks=tuple(row["ranks"]),
            labeler=row["labeler__username"],
            quintet=row["name"],
            seconds=row["seconds"],
            simulated=row["simulated"],
            extra=dict(sorted((_told(row) | row["extra"]).items())),
        )
    )


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """What is told only where there is something to tell."""
    finished = [each["finished"] for each in row["rollouts"]]
    models = [each["model"] or each["checkpoint"] for each in row["rollouts"]]
    told = {
        "arm": row["arm"] if row["arm"] != Arm.ORDER else "",
        "decided": row["quintet__decided_ranks"],
        "faceoff": row["quintet__faceoff__number"],
        "finished": [] if all(finished) else finished,
        "guidelines": row["guidelines__number"],
        "models": models if any(models) else [],
        "nonsense": sorted(row["nonsense"]),
        "purpose": row["purpose"] if row["purpose"] != Purpose.WORK else "",
        # A line without a round is of the first one.
        "round": row["quintet__round__number"] if row["quintet__round__number"] > 1 else 0,
        "shown": row["shown"],
        "surplus": row["surplus"],
        "unsafe": sorted(row["unsafe"]),
    }
    measured = {name: row[name] for name in ("acceptable", "focus_seconds") if row[name] is not None}
    return {key: value for key, value in told.items() if value} | measured


def demonstration_lines(rows: DemonstrationQuerySet) -> Iterator[dict[str, Any]]:
    ordered = rows.annotate(prompt_digest=PromptDigest("prompt__content")).order_by(
        "prompt_digest", "prompt__digest"
    )
    related = ordered.select_related("prompt").iterator(chunk_size=A_BATCH)
    for _, some in groupby(related, key=lambda row: row.prompt_id):
        yield from sorted(map(_demonstration_line, some), key=data.dumps)


def _demonstration_line(row: Demonstration) -> dict[str, Any]:
    """Where it is from is told where nobody just wrote it."""
    told: dict[str, Any] = {} if row.origin == Origin.WRITTEN else {"origin": row.origin}
    if row.came_from.get("simulated"):
        told["simulated"] = True
    return data.as_line(
        data.Demonstration(
            row.prompt.content, row.completion, dict(sorted((row.extra | told).items())), whole=row.whole
        )
    )
