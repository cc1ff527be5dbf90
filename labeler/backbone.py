"""What moves a round on: the button of a stage, a person's decision at a gate, and the option to run the
whole round, which presses the buttons by itself and stops where a person decides.

Every step is taken with the project's row locked, from the stages as they are then: however often it is
asked, a stage is launched once. What a stage has come to is read in round_stages.py; what simulated
labelers do, in simulated.py."""

import logging

from django.db import transaction
from django.utils import timezone

from labeler.models import Checkpoint, Faceoff, Gate, Harvest, Project, Request, Round, Run, User
from labeler.models.faceoffs import FaceoffRefused
from labeler.models.harvests import NotHarvested
from labeler.models.runs import PAUSE
from labeler.round_stages import Backbone, Stage
from labeler.strengths import power
from rlhf.config import Refused

KINDS = {"rollouts": Run.Kind.ROLLOUTS, "reward": Run.Kind.REWARD, "policy": Run.Kind.POLICY}
GATES = {
    "ranking": Gate.Stage.RANKING,
    "reward": Gate.Stage.REWARD,
    "policy": Gate.Stage.POLICY,
}

logger = logging.getLogger(__name__)


class NotNow(ValueError):
    """Why a stage cannot be launched or passed now, in words."""


@transaction.atomic
def launch(round: Round, name: str, by: User | None) -> str:
    """Launch a stage, as its button offers it; what was launched, in words. Raises NotNow, Refused and
    FaceoffRefused."""
    backbone = _locked(round)
    stage = _stage(backbone, name)
    if stage.press != "launch":
        raise NotNow(f"“{stage.title}” cannot be launched now: {_lower(stage.said)}.")
    if name == "faceoff":
        return f"Face-off {_face_off(backbone, by).number} is begun."
    simulated = True if name == "reward" and backbone.project.simulated_labelers else None
    project, values = backbone.project, {}
    if name == "rollouts":  # another seed each time, or a later round would rank the same once more
        values = {"seed": project.runs.filter(kind=Run.Kind.ROLLOUTS).count()}
    judge = backbone.judge if name == "policy" else None
    run = Run.objects.launch(project, KINDS[name], values, by, simulated=simulated, reward_model=judge)
    return f"Run {run.pk} is launched."


@transaction.atomic
def decide(round: Round, name: str, by: User) -> None:
    """A person says that a stage has come to enough. Raises NotNow."""
    backbone = _locked(round)
    stage = _stage(backbone, name)
    if stage.state == "done":
        return
    if stage.press != "pass":
        raise NotNow(f"“{stage.title}” is not at its end yet: {_lower(stage.said)}.")
    gate = GATES[name]
    run = {"reward": backbone.reward, "policy": backbone.policy}.get(name)
    about = {"run": run.pk} if run else {}
    words = f"Round {round.number}: {gate.label}. {'. '.join(stage.said)}."
    round.decide(gate, by, words, **about)


@transaction.atomic
def take_back(round: Round, name: str, by: User) -> None:
    """That a stage has come to enough, as long as nothing was made of it. Raises NotNow."""
    backbone = _locked(round)
    stage = _stage(backbone, name)
    if name in backbone.gates and not stage.undo:
        raise NotNow(f"Of “{stage.title}” something was made already: it stays as it was decided.")
    if name in backbone.gates:
        backbone.round.take_back(name, by)


def advance(round: Round) -> None:
    """Take the next step of a round that runs by itself, if there is one to take. What refuses, or came to
    nothing, is told, and it runs by itself no more until a person says so; nor does it when whoever said so
    may not any more."""
    with transaction.atomic():
        backbone = _locked(round)
        if not backbone.round.whole or backbone.round.closed_at:
            return
        by = backbone.round.whole_by
        if not _may(by, backbone.project):
            who = f"{by}, who switched it on," if by else "Who switched it on"
            return backbone.round.halt(f"{who} does not run this project any more.")
        _look_for_finds(backbone)
        stage = backbone.now
        if stage.state == "failed":
            return backbone.round.halt(f"“{stage.title}” came to nothing. {'. '.join(stage.said)}")
        if stage.state != "next":  # a run is at it, a person decides, or something is missing
            if stage.state == "missing":
                backbone.round.halt(f"“{stage.title}” is missing {_lower(stage.said)}.")
            return
        try:
            with transaction.atomic():
                words = launch(backbone.round, stage.name, by)
        except (Refused, FaceoffRefused, NotNow) as refused:
            return backbone.round.halt(f"“{stage.title}” was not launched. {refused}")
        said = f"Round {round.number}, by itself: {words}"
        backbone.project.audit.write(by, backbone.project, "stage launched", said, round=round.number)
        logger.info("%s: %s", backbone.project.slug, said)


def attend() -> None:
    """On the worker, again and again: every round that runs by itself goes on, and simulated labelers rank
    what has come, in the projects where an admin has switched them in."""
    for round in Round.objects.filter(whole=True, closed_at=None).select_related("project", "whole_by"):
        advance(round)
    for project in Project.objects.filter(simulated_labelers=True):
        if unranked_by_programs(project):
            Request.objects.ask_to_simulate(project)


def unranked_by_programs(project: Project) -> bool:
    """Whether anything waits in the open round that the simulated labelers have not been asked about."""
    from labeler.simulated import waiting  # which knows the demo

    asked = project.requests.filter(kind=Request.Kind.SIMULATE).first()
    failed = asked and asked.state == Request.State.FAILED
    if asked and (asked.is_live or (failed and asked.created_at > timezone.now() - PAUSE)):
        return False
    newest = waiting(project).order_by("-pk").values_list("pk", flat=True).first()
    seen = (asked.answer or {}).get("newest", 0) if asked else 0
    return newest is not None and newest > seen


def _may(by: User | None, project: Project) -> bool:
    """Whether this person runs the project, now."""
    return bool(by and by.is_active and Project.objects.run_by(by).filter(pk=project.pk).exists())


def _locked(round: Round) -> Backbone:
    project = Project.objects.select_for_update(no_key=True).get(pk=round.project_id)
    now = Round.objects.select_related("whole_by").get(pk=round.pk)
    now.project = project
    return Backbone(now)


def _stage(backbone: Backbone, name: str) -> Stage:
    found = next((each for each in backbone.stages if each.name == name), None)
    if found is None:
        raise NotNow("There is no such stage.")
    if backbone.round.closed_at:
        raise NotNow(f"Round {backbone.round.number} is closed.")
    return found


def _face_off(backbone: Backbone, by: User | None) -> Faceoff:
    """The start against what the policy run proposes and against its last checkpoint, if that is another."""
    assert backbone.policy
    made = backbone.policy.checkpoints.filter(kind=Checkpoint.Kind.POLICY)
    chosen = {each.pk: each for each in (*made.filter(suggested=True), *made.order_by("-step")[:1])}
    quintets = power(1 + len(chosen)).quintets()
    return Faceoff.objects.launch(backbone.project, chosen.values(), quintets, by)


def _look_for_finds(backbone: Backbone) -> None:
    """What a policy run found to fool its reward model is looked for as soon as it has ended."""
    run = backbone.policy
    if run is None or run.state != Run.State.FINISHED or run.harvests.exists() or not run.reward_model_id:
        return
    try:
        Harvest.objects.look_through(run, backbone.round.whole_by)
    except NotHarvested as refused:
        logger.info("Run %s is not looked through: %s", run.pk, refused)


def _lower(said: list[str]) -> str:
    words = ". ".join(said)
    return words[:1].lower() + words[1:]
