"""Rows become lines, in an order of their own: equal rankings give equal lines in equal order, whenever and
in whatever order they came.

How a line looks is decided in rlhf/data.py, which rankings there are in query.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from django.db import connection, transaction
from django.db.models import BinaryField, CharField, Func, Value
from django.db.models.functions import Cast, Coalesce, Collate, NullIf

from labeler.models import Arm, Demonstration, Purpose, Quintet, Ranking
from labeler.models.datasets import DemonstrationQuerySet
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
    ordered = rows.annotate(
        prompt_digest=PromptDigest("quintet__prompt__content"), name=Collate(name, "C")
    ).order_by("prompt_digest", "quintet__prompt__digest", "name")
    related = ordered.select_related(
        "quintet__prompt", "quintet__round", "labeler", "guidelines"
    ).prefetch_related("quintet__rollouts__checkpoint")
    each_quintets = groupby(
        related.iterator(chunk_size=A_BATCH), key=lambda row: (row.quintet.prompt_id, row.name)
    )
    for _, some in each_quintets:
        yield from sorted(map(_ranking_line, some), key=place_in_quintet)


def place_in_quintet(line: dict[str, Any]) -> tuple[list[str], str, str]:
    """Where a line stands among those of its quintet, or of quintets that have the same name."""
    return line["rollouts"], line["labeler"], data.dumps(line)


def _ranking_line(row: Ranking) -> dict[str, Any]:
    quintet, rollouts = row.quintet, row.quintet.rollouts.all()
    more = _of_ranking(row) | _of_quintet(quintet) | row.extra
    return data.as_line(
        data.Ranking(
            prompt=quintet.prompt.content,
            rollouts=tuple(rollout.text for rollout in rollouts),
            ranks=tuple(row.ranks),
            labeler=row.labeler.username,
            quintet=quintet.external_id or str(quintet.pk),
            seconds=row.seconds,
            simulated=row.simulated,
            extra=dict(sorted(more.items())),
        )
    )


def _of_ranking(row: Ranking) -> dict[str, Any]:
    """What is told only where there is something to tell."""
    told = {
        "nonsense": sorted(row.nonsense),
        "unsafe": sorted(row.unsafe),
        "guidelines": row.guidelines.number if row.guidelines else None,
        "shown": row.shown,
        "surplus": row.surplus,
        "arm": row.arm if row.arm != Arm.ORDER else "",
        "purpose": row.purpose if row.purpose != Purpose.WORK else "",
    }
    found = {key: value for key, value in told.items() if value}
    return found if row.acceptable is None else found | {"acceptable": row.acceptable}


def _of_quintet(quintet: Quintet) -> dict[str, Any]:
    rollouts = quintet.rollouts.all()
    models = [each.model or (each.checkpoint.name if each.checkpoint else None) for each in rollouts]
    told = {
        "finished": [] if all(each.finished for each in rollouts) else [each.finished for each in rollouts],
        "models": models if any(models) else [],
        # A line without a round is of the first one.
        "round": quintet.round.number if quintet.round.number > 1 else 0,
        "decided": quintet.decided_ranks,
    }
    return {key: value for key, value in told.items() if value}


def demonstration_lines(rows: DemonstrationQuerySet) -> Iterator[dict[str, Any]]:
    ordered = rows.annotate(prompt_digest=PromptDigest("prompt__content")).order_by(
        "prompt_digest", "prompt__digest"
    )
    related = ordered.select_related("prompt").iterator(chunk_size=A_BATCH)
    for _, some in groupby(related, key=lambda row: row.prompt_id):
        yield from sorted(map(_demonstration_line, some), key=data.dumps)


def _demonstration_line(row: Demonstration) -> dict[str, Any]:
    return data.as_line(
        data.Demonstration(row.prompt.content, row.completion, dict(sorted(row.extra.items())))
    )
