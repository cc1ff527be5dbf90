"""Where a checkpoint comes from: every checkpoint, run and dataset that it rests on, back to the weights that
nobody here made; for a page and as one JSON file.

It is read from rows alone. A checkpoint's quintet.json names the same things by their hashes, so the two can
be held against each other, and here they are. Left out: opening any file of weights."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from labeler import __version__
from labeler.models import Checkpoint, Dataset, Run, User
from rlhf import config

FORM = 1


@dataclass
class Learnt:
    """A dataset that something here learnt from. `named`: the reader may see whose rankings they are."""

    dataset: Dataset
    named: bool

    @property
    def labelers(self) -> dict[str, int]:
        """How much each person ranked of it."""
        return self.dataset.manifest.get("labelers", {})

    @property
    def programs(self) -> dict[str, int]:
        return self.dataset.manifest.get("simulated_labelers", {})

    @property
    def harvesters(self) -> dict[str, int]:
        """How much each confirmed of a harvest: no ranking of theirs, but learnt from as well."""
        return self.dataset.manifest.get("harvested_by", {})

    @property
    def query(self) -> dict[str, Any]:
        """What was asked for; of labelers who were chosen, without names only how many they were."""
        asked = dict(self.dataset.query)
        if not self.named and "labelers" in asked:
            asked["labelers"] = len(asked["labelers"])
        return asked

    def as_json(self) -> dict[str, Any]:
        dataset, manifest = self.dataset, self.dataset.manifest
        kept = ("quintets", "prompts", "rounds", "harvested", "faceoffs", "split", "versions")
        return {
            "sha256": dataset.sha256,
            "id": dataset.pk,
            "kind": dataset.kind,
            "lines": dataset.lines,
            "by_people": dataset.by_people,
            "simulated": dataset.simulated,
            "labelers": self.labelers if self.named else len(self.labelers),
            "simulated_labelers": self.programs,
            "harvested_by": self.harvesters if self.named else len(self.harvesters),
            "query": self.query,
            "frozen_at": dataset.created_at.isoformat(),
            **{name: manifest[name] for name in kept if name in manifest},
        }


@dataclass
class Link:
    """A checkpoint of the lineage, and what it is to the one after it."""

    checkpoint: Checkpoint
    role: str
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def run(self) -> Run | None:
        return self.checkpoint.run

    @property
    def dataset(self) -> Dataset | None:
        return self.run.dataset if self.run else None

    @property
    def quintet(self) -> dict[str, Any]:
        """What quintet.json says."""
        return self.checkpoint.lineage or {}

    @property
    def confirmed(self) -> bool | None:
        """Whether quintet.json names the dataset of the run by the same hash; None where one is silent."""
        told = self.quintet.get("sha256", {}).get("dataset")
        return told == self.dataset.sha256 if told and self.dataset else None

    @property
    def origin(self) -> str:
        """Of weights that no run here made: where they came from, as far as it is known."""
        if self.checkpoint.is_hub:
            return f"the Hub, {self.checkpoint.location.removeprefix('hub:')}"
        if hub := self.quintet.get("base", {}).get("hub"):
            return f"a folder, made from {hub} of the Hub"
        made = self.quintet.get("config", {}).get("kind")
        return f"a folder, made by a run of kind “{made}” elsewhere" if made else "a folder"

    def as_json(self) -> dict[str, Any]:
        checkpoint, run = self.checkpoint, self.run
        return {
            "id": checkpoint.pk,
            "name": checkpoint.name,
            "kind": checkpoint.kind,
            "role": self.role,
            "step": checkpoint.step,
            "location": checkpoint.location,
            "saved_at": checkpoint.created_at.isoformat(),
            "start": run.start_id if run else None,
            "reward_model": run.reward_model_id if run else None,
            "dataset": self.dataset.sha256 if self.dataset else None,
            "origin": None if run else self.origin,
            "run": _run(run) if run else None,
            "quintet.json": self.quintet or None,
        }


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.pk,
        "kind": run.kind,
        "state": run.state,
        "project": run.project.slug,
        "round": run.round.number if run.round else None,
        "config": run.config,
        "device": run.device,
        "crop": run.result.get("crop"),
        "suggested": run.result.get("suggested"),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


class Lineage:
    """All that a checkpoint rests on, as `reader` may see it."""

    def __init__(self, checkpoint: Checkpoint, reader: User, names: bool = True):
        self.checkpoint, self.reader, self.names = checkpoint, reader, names

    @cached_property
    def links(self) -> list[Link]:
        """This one first; after each policy its reward model; last the weights that nobody here made."""
        found: dict[int, Link] = {}
        _follow(self.checkpoint.pk, "this one", found)
        return list(found.values())

    @cached_property
    def learnt(self) -> list[Learnt]:
        """Every dataset once, in the order of the links."""
        found = [each.dataset for each in self.links]
        datasets = {each.pk: each for each in found if each}
        return [Learnt(each, self.names and self.reader.may_run(each.project)) for each in datasets.values()]

    @property
    def rankings(self) -> Dataset | None:
        """The newest dataset of rankings: the earlier ones are mostly in it."""
        found = [each.dataset for each in self.learnt if each.dataset.kind == Dataset.Kind.RANKINGS]
        return max(found, key=lambda each: each.pk, default=None)

    @property
    def updates(self) -> int:
        """Steps of policy training from the first weights to these."""
        trunk, steps = {each.checkpoint.pk: each for each in self.links}, 0
        link = trunk.get(self.checkpoint.pk)
        while link and link.run:
            steps += (link.checkpoint.step or 0) if link.run.kind == Run.Kind.POLICY else 0
            link = trunk.get(link.run.start_id or 0)
        return steps

    def as_json(self) -> dict[str, Any]:
        return {
            "form": FORM,
            "checkpoint": self.checkpoint.pk,
            "checkpoints": [each.as_json() for each in self.links],
            "datasets": [each.as_json() for each in self.learnt],
            "versions": {"quintet": __version__},
        }


def _follow(pk: int, role: str, found: dict[int, Link]) -> None:
    """The line of starts from `pk` on; after each of them its reward model, with what only that rests on."""
    line = [_link(each, role if number == 0 else "start") for number, each in enumerate(_starts(pk))]
    trunk = {each.checkpoint.pk for each in line}
    for link in line:
        if link.checkpoint.pk in found:
            continue
        found[link.checkpoint.pk] = link
        judge = link.run.reward_model_id if link.run else None
        if judge and judge not in found and judge not in trunk:
            others: dict[int, Link] = {}
            _follow(judge, "reward model", others)
            found |= {pk: each for pk, each in others.items() if pk not in found and pk not in trunk}


def _starts(pk: int | None) -> Iterator[Checkpoint]:
    related = ("project", "run__project", "run__round", "run__dataset__project")
    seen: set[int] = set()
    while pk and pk not in seen:
        checkpoint = (
            Checkpoint.objects.select_related(*related).defer("run__log_tail", "run__cursors").get(pk=pk)
        )
        seen.add(pk)
        yield checkpoint
        pk = checkpoint.run.start_id if checkpoint.run else None


def _link(checkpoint: Checkpoint, role: str) -> Link:
    run = checkpoint.run
    if run is None:
        return Link(checkpoint, role)
    usual = {each.name: each.default for each in config.settings(run.kind, run.judged)}
    told = {name: (value, usual[name]) for name, value in run.config.items() if name in usual}
    return Link(checkpoint, role, {name: pair for name, pair in told.items() if pair[0] != pair[1]})
