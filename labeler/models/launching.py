"""How a run comes to be launched: what it is given is chosen, checked and fixed, and an equal one is not
launched twice unless somebody means it.

Left out: the row, and what may happen to it (runs.py)."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from django.db import models, transaction

from labeler.models.checkpoints import Checkpoint
from labeler.models.datasets import Dataset
from labeler.models.people import User
from labeler.models.probes import Alarm, Probe
from labeler.models.projects import Project
from labeler.models.prompts import Prompt
from labeler.models.quintets import FEWEST, MOST
from labeler.models.rankings import Ranking
from labeler.models.rounds import Round
from rlhf import config, data
from rlhf.config import Refused

if TYPE_CHECKING:
    from labeler.models.runs import Run

TRIED = ("reward", "evaluation")  # the kinds that try a reward model on the probes


class LaunchedBefore(Refused):
    """There is a run already that was given exactly this."""

    def __init__(self, run: "Run"):
        how = {"queued": "is waiting already", "running": "is running already"}
        super().__init__(
            "again",
            f"The same run {how.get(run.state, 'has been done already')}: {run}, with these settings and this"
            " seed, on the same data.",
        )
        self.run = run


class Launching(models.QuerySet["Run"]):
    def launch(
        self,
        project: Project,
        kind: str,
        values: Mapping[str, Any],
        by: User | None,
        *,
        start: Checkpoint | None = None,
        reward_model: Checkpoint | None = None,
        against: Checkpoint | EllipsisType | None = ...,
        dataset: Dataset | None = None,
        simulated: bool | None = None,
        prompts: Iterable[Prompt] | None = None,
        origins: Sequence[str] = (),
        again: bool | int = False,
    ) -> "Run":
        """Queue a run of this kind; `values` go over the project's own defaults. Raises Refused.

        What is not given is chosen: the project's start, its newest reward model (in a checked project none),
        all of its prompts (there, those with an answer), what practice is held against (None is nothing), and
        a dataset frozen now. What the run learns from is fixed here, not when a worker comes to it. `again`:
        though an equal run is there, or though the one of this number is."""
        from labeler.preview import Look  # it is built on these models

        defaults = project.own_defaults(kind)
        wanted = {name: value for name, value in {**defaults, **values}.items() if name != "simulated"}
        needed = config.inputs(config.make(kind, {}).kind)
        checked = kind == "policy" and project.is_checked
        if checked:
            # A checker says what is correct; a reward model has a say beside it only where one is chosen.
            wanted |= {"checker": project.checker_name, "reward": needed["reward"] if reward_model else ""}
        if "policy" in needed:
            start = self._usable("start", start or project.start, Checkpoint.Kind.POLICY, project)
            wanted["policy"] = start.location if start.is_hub else needed["policy"]
        if against is ...:
            against = Checkpoint.objects.imitation_of(project, start) if checked and start else None
        judge_model = self._judge_model(project) if checked else None
        if "reward" in needed and (reward_model or not wanted.get("checker")):
            judge = reward_model or Checkpoint.objects.judge_of(project)
            reward_model = self._usable("reward_model", judge, Checkpoint.Kind.REWARD, project)
        if "against" in needed:
            wanted["against"] = config.AGAINST if against else ""
        if against:
            alike = Checkpoint.Kind.POLICY if kind == "policy" else Checkpoint.Kind.REWARD
            against = self._usable("against", against, alike, project)
        if against and against == reward_model:
            raise Refused("against", "A reward model differs in nothing from itself: choose another one.")
        made = config.make(kind, wanted)
        self._refuse_no_quintet(made)
        if isinstance(made, config.PolicyConfig) and reward_model:
            self._refuse_if_fooled(project, reward_model)
        asked = list(project.prompts.all() if prompts is None else prompts) if "prompts" in needed else []
        if "prompts" in needed and not asked:
            raise Refused("prompts", "The project has no prompts yet: add some first.")
        if checked:
            asked = self._practised(project, asked)
        include = defaults.get("simulated", False) if simulated is None else simulated
        if isinstance(made, config.SftConfig):
            dataset = self._to_learn(project, made.stage, dataset)
        lines = lines_of(project, made, dataset, include, origins) if "dataset" in needed else 0
        foreseen = Look(project, made, start, reward_model, lines, asked).preview()
        if foreseen.blocks:
            raise foreseen.blocks[0]
        if "dataset" in needed and dataset is None:
            # Before the transaction of the run: a snapshot has one of its own.
            dataset = self._frozen(project, kind, include, by, origins)
        given: dict[str, Any] = {
            "kind": kind,
            "config": config.as_dict(made),
            "start": start if "policy" in needed else None,
            "reward_model": reward_model if "reward" in needed else None,
            "against": against if "against" in needed else None,
            "dataset": dataset if "dataset" in needed else None,
        }
        if checked:
            given["checker"] = {"name": project.checker_name, **project.checker_options}
            given["judge_model"] = judge_model
        written = [data.PromptLine(each.content, each.answer or None, str(each.pk)) for each in asked]
        files = {
            "prompts": list(map(data.as_line, written)),
            "probes": Probe.objects.lines(project) if kind in TRIED else [],
        }
        run = self._queued(project, given, files, by, again)
        run.foreseen = foreseen
        return run

    @transaction.atomic
    def _queued(
        self,
        project: Project,
        given: dict[str, Any],
        files: Mapping[str, list[dict[str, Any]]],
        by: User | None,
        again: bool | int,
    ) -> "Run":
        """The run of what was given, unless an equal one is there. One launch of a project at a time, so that
        the second of two finds the first."""
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        given["fingerprint"] = fingerprint(given, files)
        twin = self._twin(project, given["fingerprint"])
        if twin and again is not True and again != twin.pk:
            raise LaunchedBefore(twin)
        round = self._round(project, given["kind"], given["reward_model"])
        run = self.create(project=project, round=round, created_by=by, **given)
        run.keep_inputs(files)
        transaction.on_commit(run.ring, robust=True)
        return run

    def _refuse_no_quintet(self, made: config.Config) -> None:
        if isinstance(made, config.RolloutsConfig) and not FEWEST <= made.count <= MOST:
            fit = f"A quintet has {FEWEST} to {MOST} rollouts, five as a rule; {made.count} do not fit."
            raise Refused("count", fit)

    def _judge_model(self, project: Project) -> Checkpoint | None:
        """The model that a judge asks; none where the checker is a rule."""
        if project.checker_name in config.RULES:
            return None
        found = project.judge_model
        if found is None:
            raise Refused(
                "checker", "The checker is a judge without a model: choose one on the checker's page."
            )
        if found.is_hub:
            raise Refused("checker", "The model of a judge must be a folder on this machine.")
        return found

    def _practised(self, project: Project, asked: list[Prompt]) -> list[Prompt]:
        """Those of the prompts whose answer the checker can compare with."""
        can_be = set(project.prompts.practised(project.checker_digest).values_list("pk", flat=True))
        kept = [each for each in asked if each.pk in can_be]
        if not kept:
            words = "No prompt has an answer that the checker can read: add answers first."
            if any(each.set_aside_at for each in asked):
                words = "No prompt is left to practise: bring back what was set aside, or add others."
            raise Refused("prompts", words)
        return kept

    def _twin(self, project: Project, fingerprint: str) -> "Run | None":
        """The newest run that was given exactly this, and has not come to nothing."""
        State = self.model.State
        came_to_nothing = [State.FAILED, State.CANCELLED]
        equal = self.filter(project=project, fingerprint=fingerprint).exclude(state__in=came_to_nothing)
        return equal.order_by("-pk").first()

    def _refuse_if_fooled(self, project: Project, judge: Checkpoint) -> None:
        if project.fooled == Project.Fooled.REFUSE and (alarm := Alarm.of(judge, project)).state == "fooled":
            raise Refused(
                "reward_model", f"{alarm.words} This project refuses such a run, as its settings say."
            )

    def _round(self, project: Project, kind: str, judge: Checkpoint | None) -> Round:
        """What is made of a round's rankings belongs to it, though it may be closed by now."""
        if kind == "reward":
            return Round.objects.ranked(project)
        if judge and judge.run and judge.run.round:
            return judge.run.round
        return Round.objects.current(project)

    def _usable(self, field: str, found: Checkpoint | None, kind: str, project: Project) -> Checkpoint:
        what = "starting model" if kind == Checkpoint.Kind.POLICY else "reward model"
        if found is None:
            remedy = (
                "say which in its settings" if kind == Checkpoint.Kind.POLICY else "train one from rankings"
            )
            raise Refused(field, f"The project has no {what} yet: {remedy}.")
        if found.kind != kind or found.project_id not in (None, project.pk):
            raise Refused(field, f"“{found}” is no {what} of this project.")
        if found.is_hub and field == "against" and kind == Checkpoint.Kind.POLICY:
            raise Refused(field, "What a run is held against must be a folder on this machine.")
        if found.is_hub and kind == Checkpoint.Kind.REWARD:
            raise Refused(field, "A reward model must be a folder; only a starting model comes from the Hub.")
        return found

    def _to_learn(self, project: Project, stage: str, dataset: Dataset | None) -> Dataset | None:
        """What a finetuning run learns: documents where it reads, else demonstrations; None: those of now."""
        reads = stage == config.READING
        if dataset is None and reads:
            dataset = project.datasets.filter(kind=Dataset.Kind.DOCUMENTS).first()
            if dataset is None:
                raise Refused(
                    "dataset", "There is nothing to read: bring in documents on the page of datasets."
                )
        if dataset and (dataset.kind == Dataset.Kind.DOCUMENTS) != reads:
            asked = "reads documents" if reads else "learns from demonstrations"
            raise Refused("dataset", f"The stage “{stage}” {asked}; {dataset} holds {dataset.kind}.")
        return dataset

    def _frozen(
        self, project: Project, kind: str, simulated: bool, by: User | None, origins: Sequence[str]
    ) -> Dataset:
        from labeler import datasets  # it is built on these models

        try:
            if kind == "sft":
                return datasets.freeze_demonstrations(project, by, origins)
            return datasets.freeze(project, datasets.Query(simulated=simulated), by)
        except datasets.NothingToFreeze as nothing:
            raise Refused("dataset", str(nothing)) from None


def lines_of(
    project: Project,
    made: config.Config,
    dataset: Dataset | None,
    simulated: bool,
    origins: Sequence[str] = (),
) -> int:
    """How many a run learns from, or is measured on: of a dataset that may not be frozen yet."""
    if dataset:
        return dataset.examples(getattr(made, "max_tokens", 1))
    if made.kind == "sft":
        return project.demonstrations.all().counted(*origins).count()
    found = Ranking.objects.filter(quintet__project=project).counted()
    return (found if simulated else found.by_people()).count()


def fingerprint(given: Mapping[str, Any], lines: Mapping[str, list[dict[str, Any]]]) -> str:
    """The same for two runs whose settings, checkpoints and data are the same."""
    rows = {name: each.pk if isinstance(each, models.Model) else each for name, each in given.items()}
    return hashlib.sha256(data.dumps({**rows, **lines}).encode()).hexdigest()
