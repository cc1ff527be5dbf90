"""Keeps the sums of a project up to date: what a stale quintet added is taken out, what it adds now put in.

The rankings that changed were committed together with their marks, so who takes the marks first and reads the
rankings after that misses nothing. Two at a project at once take turns. Left out: who asks (a page for a few,
the worker's sweep for the rest) and what is added (tallies.py)."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Length

from labeler.agreement.figures import figures
from labeler.agreement.layout import A_LABELERS, REPLICATED, VERSION, Kind, column
from labeler.agreement.tallies import GOLD, HEAD, REPEAT, ROW, WORK, Delta, Entry, Scope, changes
from labeler.models import Arm, Project, Purpose, Quintet, Ranking, StaleQuintet, Tallied, Tally

A_BATCH = 4000  # quintets
ARMS = {arm: number for number, arm in enumerate([Arm.ORDER, Arm.RANDOM, Arm.UNCERTAIN])}
PURPOSES = {Purpose.WORK: WORK, Purpose.GOLD: GOLD, Purpose.REPEAT: REPEAT}


def fold(project: Project, most: int = A_BATCH, *, wait: bool = False) -> int:
    """Bring up to `most` marks into the sums; how many there were. 0 as well while somebody else is
    at it, unless told to `wait` for them."""
    with transaction.atomic():
        if not _our_turn(project, wait):
            return 0
        if project.tallies.exclude(version=VERSION).exists():
            _begin_anew(project)
        stale = StaleQuintet.objects.of(project).order_by("pk")
        ids = list(stale.values_list("pk", "quintet_id")[:most])
        if ids:
            StaleQuintet.objects.filter(pk__in=[pk for pk, _ in ids]).delete()
            _bring_in(project, sorted({quintet for _, quintet in ids}))
        return len(ids)


def fold_all(projects: Iterable[Project] | None = None, *, wait: bool = False) -> None:
    """Until no mark is left: of these projects, or of all that have any."""
    if projects is None:
        projects = Project.objects.filter(pk__in=StaleQuintet.objects.values("project_id").distinct())
    for project in projects:
        while fold(project, wait=wait):
            pass


def _our_turn(project: Project, wait: bool) -> bool:
    lock = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {lock}(hashtext('quintet-agreement'), %s)", [project.pk])
        return wait or cursor.fetchone()[0]


def _begin_anew(project: Project) -> None:
    """Sums of another version are of no use."""
    project.tallies.all().delete()
    known = Tallied.objects.filter(project_id=project.pk)
    StaleQuintet.objects.bulk_create(
        StaleQuintet(project_id=project.pk, quintet_id=pk) for pk in known.values_list("pk", flat=True)
    )
    known.delete()


def _bring_in(project: Project, quintets: list[int]) -> None:
    then = {
        pk: bytes(state) for pk, state in Tallied.objects.filter(pk__in=quintets).values_list("pk", "state")
    }
    now = states(quintets)
    changed = [pk for pk in quintets if then.get(pk, b"") != now.get(pk, b"")]
    entries = [Entry(pk, -1, then.get(pk, b"")) for pk in changed]
    entries += [Entry(pk, 1, now.get(pk, b"")) for pk in changed]
    found = changes(entries)
    _write(project, found.scopes)
    Tallied.objects.filter(pk__in=[pk for pk in changed if pk not in now]).delete()
    Tallied.objects.bulk_create(
        [
            Tallied(quintet_id=pk, project_id=project.pk, state=now[pk], tau=found.taus[pk])
            for pk in changed
            if pk in now
        ],
        update_conflicts=True,
        unique_fields=["quintet_id"],
        update_fields=["state", "tau"],
    )


def states(quintets: list[int]) -> dict[int, bytes]:
    """How each of these quintets is now, as far as it counts; without those that nobody ranked."""
    rankings = Ranking.objects.filter(quintet__in=quintets).counted(*PURPOSES)
    rows: dict[int, list[tuple]] = defaultdict(list)
    fields = ("labeler_id", "purpose", "simulated", "ranks", "shown", "seconds", "focus_seconds")
    for quintet, labeler, purpose, simulated, ranks, shown, *times in rankings.order_by(
        "quintet", "labeler", "purpose"
    ).values_list("quintet_id", *fields):
        seconds, focus = (-1 if time is None else time for time in times)
        places = _five(shown or (), -1)
        rows[quintet].append((labeler, PURPOSES[purpose], simulated, _five(ranks, 0), places, seconds, focus))
    heads = (
        Quintet.objects.filter(pk__in=list(rows))
        .values_list("pk", "round_id", "arm", "known_ranks", "uncertainty")
        .annotate(lengths=ArrayAgg(Length("rollouts__text"), order_by="rollouts__slot"))
    )
    return {
        pk: np.array(
            (
                round,
                ARMS[arm],
                len(lengths),
                _five(known or (), 0),
                _five(lengths, 0),
                -1 if uncertainty is None else uncertainty,
            ),
            HEAD,
        ).tobytes()
        + np.array(rows[pk], ROW).tobytes()
        for pk, round, arm, known, uncertainty, lengths in heads
    }


def _five(numbers, missing: int) -> tuple:
    return (*numbers, *(missing,) * (5 - len(numbers)))


def _write(project: Project, deltas: dict[Scope, Delta]) -> None:
    touched = Q()
    for kind in Kind:
        touched |= Q(kind=kind, ref__in={scope.ref for scope in deltas if scope.kind == kind})
    kept = {Scope(tally.simulated, tally.kind, tally.ref): tally for tally in project.tallies.filter(touched)}
    tallies, gone = [], []
    for scope, delta in deltas.items():
        tally = kept.get(scope) or Tally(project=project, **scope._asdict())
        columns = A_LABELERS if scope.kind == Kind.LABELER else REPLICATED
        sums, replicates = delta.sums, delta.replicates
        if scope in kept:
            sums = sums + np.frombuffer(tally.sums)
            replicates = replicates + np.frombuffer(tally.replicates, np.float32).reshape(-1, columns)
        if sums[column("rows")][0] < 0.5:
            gone.append(tally.pk)
            continue
        tally.sums, tally.replicates = sums.tobytes(), replicates.astype(np.float32).tobytes()
        tally.told, tally.version = figures(sums, replicates), VERSION
        tallies.append(tally)
    Tally.objects.filter(pk__in=[pk for pk in gone if pk]).delete()
    Tally.objects.bulk_create(
        tallies,
        update_conflicts=True,
        unique_fields=["project", "simulated", "kind", "ref"],
        update_fields=["sums", "replicates", "told", "version"],
    )
