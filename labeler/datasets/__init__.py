"""Rows become lines: frozen datasets and exports.

How a line looks is decided in rlhf/data.py; how files come in, in labeler/intake/. Left out: choosing
rankings by date, round or labeler."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, permutations
from typing import Any

from django.conf import settings
from django.db.models import CharField, Func

from labeler.models import Dataset, Project, Ranking, User
from rlhf import data

A_BATCH = 1000  # rows at a time
A_CHUNK = 100  # lines at a time


class NothingToFreeze(ValueError):
    """A dataset without a line would teach nothing; the message says what is missing."""


# Rankings


def ranking_lines(project: Project, include_simulated: bool = False) -> Iterator[dict[str, Any]]:
    """The project's rankings in their one order, read in one statement, so that none is half in."""
    rankings = Ranking.objects.filter(quintet__project=project).order_by("quintet", "labeler__username", "pk")
    if not include_simulated:
        rankings = rankings.filter(simulated=False)
    related = rankings.select_related("quintet__prompt", "labeler").prefetch_related("quintet__rollouts")
    for each in related.iterator(chunk_size=A_BATCH):
        rollouts = each.quintet.rollouts.all()
        finished = [rollout.finished for rollout in rollouts]
        told = {} if all(finished) or "finished" in each.extra else {"finished": finished}
        yield data.as_line(
            data.Ranking(
                prompt=each.quintet.prompt.content,
                rollouts=tuple(rollout.text for rollout in rollouts),
                ranks=tuple(each.ranks),
                labeler=each.labeler.username,
                quintet=each.quintet.external_id or str(each.quintet_id),
                seconds=each.seconds,
                simulated=each.simulated,
                extra=told | each.extra,
            )
        )


def demonstration_lines(project: Project) -> Iterator[dict[str, Any]]:
    written = project.demonstrations.select_related("prompt").order_by("pk")
    for each in written.iterator(chunk_size=A_BATCH):
        yield data.as_line(data.Demonstration(each.prompt.content, each.completion, each.extra))


# Datasets


def freeze_rankings(project: Project, include_simulated: bool = False, by: User | None = None) -> Dataset:
    """The rankings as they are now, as a file that never changes. Raises NothingToFreeze."""
    lines = ranking_lines(project, include_simulated)
    return _freeze(project, Dataset.Kind.RANKINGS, lines, "The project has no rankings yet.", by)


def freeze_demonstrations(project: Project, by: User | None = None) -> Dataset:
    """The demonstrations as they are now, as a file that never changes. Raises NothingToFreeze."""
    lines = demonstration_lines(project)
    return _freeze(project, Dataset.Kind.DEMONSTRATIONS, lines, "The project has no demonstrations yet.", by)


def _freeze(
    project: Project, kind: str, lines: Iterable[dict[str, Any]], missing: str, by: User | None
) -> Dataset:
    folder = settings.HOME / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{uuid.uuid4()}.part"
    sha, count, simulated = hashlib.sha256(), 0, 0
    try:
        with part.open("wb") as file:
            for line in lines:
                written = f"{data.dumps(line)}\n".encode()
                file.write(written)
                sha.update(written)
                count += 1
                simulated += bool(line.get("simulated"))
            file.flush()
            os.fsync(file.fileno())
        if not count:
            raise NothingToFreeze(missing)
        name = f"{sha.hexdigest()}.jsonl"
        part.rename(folder / name)
    finally:
        part.unlink(missing_ok=True)
    facts = {"path": f"datasets/{name}", "lines": count, "simulated": simulated, "created_by": by}
    return Dataset.objects.get_or_create(
        project=project, sha256=sha.hexdigest(), defaults={"kind": kind, **facts}
    )[0]


# Exports


def export(project: Project, form: str, include_simulated: bool = False) -> Iterator[bytes]:
    """The lines of an export, some at a time, however many there are."""
    lines = FORMS[form](project, include_simulated)
    while some := list(islice(lines, A_CHUNK)):
        yield "".join(f"{data.dumps(line)}\n" for line in some).encode()


def pairs(project: Project, include_simulated: bool = False) -> Iterator[dict[str, Any]]:
    """Every pair that a ranking decides, as trainers of preferences take it: the prompt is always a field of
    its own, a tie is no pair, and neither is a text against itself."""
    # A table has one type per column: where one prompt is a conversation, all of them are.
    kind = Func("content", function="jsonb_typeof", output_field=CharField())
    as_messages = project.prompts.annotate(kind=kind).filter(kind="array").exists()
    for line in ranking_lines(project, include_simulated):
        prompt, rollouts, ranks = line["prompt"], line["rollouts"], line["ranks"]
        if as_messages:
            prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        for better, worse in permutations(range(len(ranks)), 2):
            if ranks[better] < ranks[worse] and rollouts[better] != rollouts[worse]:
                chosen, rejected = rollouts[better], rollouts[worse]
                if as_messages:
                    chosen, rejected = (
                        [{"role": "assistant", "content": text}] for text in (chosen, rejected)
                    )
                yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


FORMS: dict[str, Callable[[Project, bool], Iterator[dict[str, Any]]]] = {
    "ranked": ranking_lines,
    "pairs": pairs,
}
