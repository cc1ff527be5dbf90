"""The stages of a round as its page shows them: rollouts → ranking → reward model → policy → face-off → the
next round. What each has come to, what may be done now, and what is missing where nothing may.

Reads rows, changes none; what a press of a button does is said in backbone.py. A stage is `done`, `live` (a
run is at it), `wait` (for a person), `next` (it can be launched), `failed`, or `missing` something."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.urls import reverse

from labeler.loop import A_FEW, live_words, run_url
from labeler.models import Checkpoint, Evaluation, Faceoff, Find, Gate, Place, Purpose, Ranking, Round, Run
from labeler.models.probes import Alarm
from labeler.templatetags.words import count, figure

NAMES = ("rollouts", "ranking", "reward", "policy", "faceoff", "next")
TITLES = {
    "rollouts": "Rollouts",
    "ranking": "Ranking",
    "reward": "Reward model",
    "policy": "Policy",
    "faceoff": "Face-off",
    "next": "The next round",
}
CAME_TO_NOTHING = (Run.State.FAILED, Run.State.CANCELLED)
Link = tuple[str, str]


@dataclass
class Stage:
    """`press`: what its button does (`launch`, `pass`, `close`). `undo`: a decision can be taken back."""

    name: str
    state: str
    said: list[str] = field(default_factory=list)
    press: str = ""
    words: str = ""
    links: list[Link] = field(default_factory=list)
    undo: bool = False
    share: int | None = None  # of its places that are filled, in percent

    @property
    def title(self) -> str:
        return TITLES[self.name]


class Backbone:
    """A round, and all that was made in it so far."""

    def __init__(self, round: Round):
        self.round, self.project = round, round.project
        self.gates = {each.stage: each for each in round.gates.select_related("by")}
        self.rollouts = self._newest(Run.Kind.ROLLOUTS)
        self.reward = self._newest(Run.Kind.REWARD)
        self.policy = self._newest(Run.Kind.POLICY)
        self.faceoff = Faceoff.objects.told().filter(round=round).order_by("-number").first()
        self.quintets = round.quintets.filter(purpose=Purpose.WORK, faceoff=None).exists()
        self._count()

    def _newest(self, kind: str) -> Run | None:
        runs: QuerySet[Run] = self.round.runs.filter(kind=kind, contenders=None)
        return runs.select_related("reward_model", "start").order_by("-pk").first()

    def _count(self) -> None:
        here = {"quintet__round": self.round, "quintet__faceoff": None}
        places = Place.objects.filter(purpose=Purpose.WORK, **here)
        told = places.aggregate(
            filled=Count("pk", filter=Q(done=True, labeler__isnull=False)),
            open=Count("pk", filter=Q(done=False)),
        )
        self.filled, self.open = told["filled"], told["open"]
        ranked = Ranking.objects.work().filter(**here)
        by_whom = ranked.aggregate(
            people=Count("pk", filter=Q(simulated=False)), programs=Count("pk", filter=Q(simulated=True))
        )
        self.people, self.programs = by_whom["people"], by_whom["programs"]

    @property
    def judge(self) -> Checkpoint | None:
        """The reward model that the round's newest finished run proposes."""
        return proposed(self.reward)

    @property
    def stages(self) -> list[Stage]:
        return list(self._each())

    @property
    def now(self) -> Stage:
        """The first that is not done."""
        return next((each for each in self.stages if each.state != "done"), self.stages[-1])

    def _each(self) -> Iterator[Stage]:
        before: Stage | None = None
        for name in NAMES:
            stage: Stage = getattr(self, f"_{name}")()
            if before and before.state != "done" and stage.state in ("next", "wait"):
                stage = Stage(name, "missing", [f"It comes after “{before.title}”"])
            yield stage
            before = stage

    # Each stage

    def _rollouts(self) -> Stage:
        run = self.rollouts
        if self.quintets:
            quintets = self.round.quintets.filter(purpose=Purpose.WORK, faceoff=None).count()
            more = [f"Run {run.pk} is writing more"] if run and run.is_live else []
            said = [f"{count(quintets, 'quintet')} to rank", *more]
            return Stage("rollouts", "done", said, links=_links(run))
        if stage := _at_it("rollouts", run):
            return stage
        if not self.project.start_id:
            edit = reverse("project_edit", args=[self.project.slug])
            return Stage("rollouts", "missing", ["A starting model"], links=[("Choose one", edit)])
        if not self.project.prompts.exists():
            add = reverse("prompts_add", args=[self.project.slug])
            return Stage("rollouts", "missing", ["Prompts to answer"], links=[("Add prompts", add)])
        said = [f"From {self.project.start}", *_came_to_nothing(run)]
        settings = self._settings("rollouts")
        return Stage("rollouts", _or_failed(run), said, "launch", "Sample rollouts", settings)

    def _ranking(self) -> Stage:
        said = [f"{count(self.people, 'ranking')} by people"]
        if self.programs:
            said.append(f"{self.programs:,} simulated, counted apart")
        wanted = self.filled + self.open
        share = round(100 * self.filled / wanted) if wanted else None
        rank = [("Rank", reverse("rank", args=[self.project.slug]))] if self.open else []
        gate = self.gates.get(Gate.Stage.RANKING)
        if gate or self.reward or (wanted and not self.open):
            said += [_passed(gate)] if gate else []
            undo = bool(gate and not self.reward)
            return Stage("ranking", "done", said, links=rank, undo=undo, share=share)
        if not self.quintets:
            return Stage("ranking", "missing", ["Quintets to rank"])
        said.append(f"{count(self.open, 'place')} open")
        if self.people + self.programs < A_FEW:
            said.append(f"{A_FEW} rankings at least, before a reward model can learn anything")
            return Stage("ranking", "wait", said, links=rank, share=share)
        return Stage("ranking", "wait", said, "pass", "Enough is ranked", rank, share=share)

    def _reward(self) -> Stage:
        run, judge = self.reward, self.judge
        if stage := _at_it("reward", run):
            return stage
        if run is None or judge is None:
            whose = f"Learns from {count(self.people, 'ranking')} of this round by people"
            if self.programs and self.project.simulated_labelers:
                whose += f", {self.programs:,} simulated"
            whose += ", and all before"
            said = [whose, *_came_to_nothing(run)]
            settings = self._settings("reward")
            return Stage("reward", _or_failed(run), said, "launch", "Train reward model", settings)
        said, links = self._worth(run, judge), _links(run)
        links.append(("All that was measured", reverse("evaluation", args=[run.pk])))
        gate = self.gates.get(Gate.Stage.REWARD)
        if gate or self.policy:
            said += [_passed(gate)] if gate else []
            return Stage("reward", "done", said, links=links, undo=bool(gate and not self.policy))
        links += self._settings("reward", "Train another")
        return Stage("reward", "wait", said, "pass", "It will do", links)

    def _worth(self, run: Run, judge: Checkpoint) -> list[str]:
        """What decides whether it will do: how often it is right, how far people agree, and the probes."""
        measured = Evaluation.objects.filter(run=run).first()
        said = [str(judge)[0].upper() + str(judge)[1:]]
        if measured:
            accuracy, claims = measured.found["accuracy"], measured.found.get("claims", [])
            if accuracy.get("value") is not None and not claims:
                right = figure(accuracy["value"], "percent")
                said.append(f"Right on {right} of {count(accuracy['pairs'], 'held-out pair')}")
            said += [*claims[:1], _agreement(measured.found)]
        else:
            said.append("What it is worth was not measured")
        return [*said, Alarm.of(judge, self.project).words]

    def _policy(self) -> Stage:
        run, best = self.policy, proposed(self.policy)
        if stage := _at_it("policy", run):
            return stage
        if run is None or best is None:
            against = [f"Against {self.judge}, for a capped number of steps"] if self.judge else []
            said = [*against, *_came_to_nothing(run)]
            return Stage("policy", _or_failed(run), said, "launch", "Run RLHF", self._settings("policy"))
        said, links = [_turned(run, best)], _links(run)
        if run.reward_model_id:
            links.append(("What it found to fool the reward model", self._harvest(run)))
        finds = Find.objects.filter(harvest__run=run, state=Find.State.OFFERED).count()
        said += [f"{count(finds, 'find')} of the harvest to look at"] if finds else []
        gate = self.gates.get(Gate.Stage.POLICY)
        if gate or self.faceoff:
            said += [_passed(gate)] if gate else []
            return Stage("policy", "done", said, links=links, undo=bool(gate and not self.faceoff))
        links += self._settings("policy", "Run another")
        return Stage("policy", "wait", said, "pass", "Let people compare", links)

    def _harvest(self, run: Run) -> str:
        return f"{reverse('harvests', args=[self.project.slug])}?run={run.pk}"

    def _faceoff(self) -> Stage:
        found = self.faceoff
        if found is None:
            of = f"?run={self.policy.pk}" if self.policy else ""
            choose = f"{reverse('faceoff_new', args=[self.project.slug])}{of}"
            said = ["People read what the start and the policy wrote, without knowing which is which"]
            links = [("Choose the checkpoints", choose)]
            return Stage("faceoff", "next", said, "launch", "Begin the face-off", links)
        address = reverse("faceoff", args=[self.project.slug, found.number])
        links, progress = [(f"Face-off {found.number}", address)], found.progress()
        if found.shipped_id:
            return Stage("faceoff", "done", [f"{found.shipped} is shipped"], links=links)
        if found.state in ("sampling", "composing"):
            return Stage("faceoff", "live", ["Its checkpoints are writing"], links=links)
        if found.state == "stuck":
            return Stage("faceoff", "failed", ["One of its runs came to nothing"], links=links)
        programs = Ranking.objects.work().filter(quintet__faceoff=found, simulated=True).count()
        said = [f"{progress['filled']:,} of {count(progress['wanted'], 'place')} filled"]
        said += [f"{programs:,} simulated rankings, counted apart"] if programs else []
        said += ["Somebody ships the one that people like best"]
        share = round(100 * progress["filled"] / progress["wanted"]) if progress["wanted"] else None
        return Stage("faceoff", "wait", said, links=links, share=share)

    def _next(self) -> Stage:
        if self.faceoff is None or not self.faceoff.shipped_id:
            return Stage("next", "missing", ["A checkpoint that was shipped"])
        said = [f"It begins with what {self.project.start} writes. Closing this one ends its ranking"]
        return Stage("next", "wait", said, "close", f"Close round {self.round.number} and begin the next")

    def _settings(self, kind: str, words: str = "Choose the settings") -> list[Link]:
        return [(words, reverse("run_new", args=[self.project.slug, kind]))]


def proposed(run: Run | None) -> Checkpoint | None:
    """What a finished run proposes to use."""
    if run is None or run.state != Run.State.FINISHED:
        return None
    return run.checkpoints.order_by("-suggested", "-step").first()


def _at_it(name: str, run: Run | None) -> Stage | None:
    if run is None or not run.is_live:
        return None
    return Stage(name, "live", [live_words(run)], links=[(f"Watch run {run.pk}", run_url(run))])


def _or_failed(run: Run | None) -> str:
    return "failed" if run and run.state in CAME_TO_NOTHING else "next"


def _came_to_nothing(run: Run | None) -> list[str]:
    if run is None or run.state not in CAME_TO_NOTHING:
        return []
    ended = "failed" if run.state == Run.State.FAILED else "was stopped"
    return [f"Run {run.pk} {ended}. {run.reason}".strip()]


def _links(run: Run | None) -> list[Link]:
    return [(f"Run {run.pk}", run_url(run))] if run else []


def _agreement(found: dict[str, Any]) -> str:
    """How far those agree who ranked what it was measured on: people, programs, or both."""
    share, dataset = (found.get("people") or {}).get("value"), found.get("dataset") or {}
    who, simulated = "people", dataset.get("simulated", 0)
    if simulated:
        alone = simulated == dataset.get("rankings", 0) - dataset.get("harvested", 0)
        who = "simulated labelers" if alone else "people and simulated labelers"
    if share is None:
        return f"How far {who} agree with each other is not known: no two ranked the same"
    return f"{who.capitalize()} agree with each other on {figure(share, 'percent')}"


def _passed(gate: Gate) -> str:
    return f"{gate.get_stage_display().capitalize()}, says {gate.by or 'somebody'}"


def _turned(run: Run, best: Checkpoint) -> str:
    found: dict[str, Any] | None = run.result.get("crop")
    if not found:
        return f"Run {run.pk} is finished, and no crop is suggested"
    return f"A crop is suggested at step {found['step']}: {' '.join(found['rules'])} Before it lies {best}"
