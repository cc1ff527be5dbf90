"""Where a project's round stands in the loop (rank, train a reward model, run RLHF, compare) and what comes
next; and, once a round is closed, how far its reward model agrees with the one who asks. The loop of a
checked project is another one (checked_loop.py).

Reads rows, changes none. A handful of queries for any number of projects."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db.models import Count, Exists, Max, OuterRef, Q
from django.urls import reverse

from labeler.models import (
    Checkpoint,
    Contribution,
    Demonstration,
    Faceoff,
    Project,
    Prompt,
    Purpose,
    Quintet,
    Ranking,
    Request,
    Round,
    Run,
    User,
)
from labeler.models.rankings import Today, tens
from labeler.templatetags.words import count
from rlhf import config

READING = Q(kind=Run.Kind.SFT, config__stage=config.READING)
# Runs from before there were stages say nothing of theirs.
SOLUTIONS = Q(kind=Run.Kind.SFT) & (Q(config__stage__isnull=True) | ~Q(config__stage=config.READING))

A_FEW = 5  # rankings by people in a round, before the loop proposes to go on
ENOUGH_PAIRS = 30  # with fewer a share would say nothing
SURELY = 1.96  # standard errors to either side of 95 %


@dataclass
class Step:
    """One of the four. `state`: done, next, live, open, or missing something that `said` names."""

    title: str
    state: str
    said: str
    action: str
    url: str


@dataclass(frozen=True)
class Agrees:
    """On what share of one labeler's held-out pairs a closed round's reward model is of their opinion."""

    round: int
    share: float
    pairs: int
    error: float

    @property
    def between(self) -> tuple[float, float] | None:
        """The 95 % interval; none where the model was right on all pairs or none: no spread to go by."""
        if not self.error:
            return None
        return max(0.0, self.share - SURELY * self.error), min(1.0, self.share + SURELY * self.error)


NOTHING = Today(0, 0.0)


@dataclass
class Standing:
    project: Project
    round: Round | None = None
    prompts: int = 0
    has_quintets: bool = False  # the round
    waiting: int = 0  # for the one who asks
    or_more: bool = False
    done: int = 0  # places of the round
    wanted: int = 0
    mine: int = 0
    today: Today = NOTHING  # hidden checks included, as on the ranking page
    simulated: int = 0
    by_labeler: dict[int, int] = field(default_factory=dict)  # rankings by people
    ranked: int = 0  # rankings by people in the round
    imported: int = 0  # of these, by people who are known here by an import alone
    programs: int = 0  # simulated ones in the round
    reward_model: Checkpoint | None = None
    policy: Run | None = None
    compared: bool = False
    faceoff: Faceoff | None = None  # the round's newest
    agrees: Agrees | None = None
    live: dict[str, Run] = field(default_factory=dict)
    # Of a checked project:
    answered: int = 0  # prompts with their answer
    troubled: int = 0  # of these, such as do not pass their own checker
    demonstrations: int = 0
    taught: Run | None = None  # the newest finished run that learnt from them
    looked: bool = False  # somebody has judged what its policy run's checker said

    def add(self, contribution: Contribution, mine: bool) -> None:
        """Count what one labeler put into one round."""
        here = self.round is not None and contribution.round_id == self.round.pk
        ranked, who = contribution.ranked, contribution.labeler_id
        if mine:
            self.mine += ranked
        if contribution.labeler.simulated:
            self.simulated += ranked
            self.programs += ranked if here else 0
        elif ranked:
            self.by_labeler[who] = self.by_labeler.get(who, 0) + ranked
            self.ranked += ranked if here else 0
            self.imported += ranked if here and contribution.labeler.is_from_elsewhere else 0
        self.done += contribution.filled if here else 0

    @property
    def people(self) -> int:
        """Rankings by people."""
        return sum(self.by_labeler.values())

    @property
    def labelers(self) -> int:
        return len(self.by_labeler)

    @property
    def since(self) -> int:
        """Rankings by people since the reward model was saved."""
        before = self.reward_model.ranked_before if self.reward_model else None
        return 0 if before is None else max(0, self.people - before)

    @property
    def tens(self) -> int:
        """How far the round is, in tens of a hundred: what those are told who rank in it."""
        return tens(self.done, self.wanted)

    @property
    def how_many_wait(self) -> str:
        return f"{self.waiting:,}{' or more' if self.or_more else ''}"

    @property
    def steps(self) -> list[Step]:
        from labeler import checked_loop  # it is built on this

        if self.project.is_checked:
            steps = checked_loop.steps(self)
        else:
            steps = [self._rank(), self._reward(), self._policy(), self._compare()]
        for step in steps:
            if step.state == "open":
                step.state = "next"
                break
            if step.state in ("missing", "live"):
                break
        return steps

    @property
    def next(self) -> Step:
        """The one step to take now; with the loop closed, the first of the next round."""
        wanted = ("next", "missing", "live")
        return next((step for step in self.steps if step.state in wanted), self._again())

    @property
    def later(self) -> bool:
        """Whether there was a round before this one."""
        return self.round is not None and self.round.number > 1

    def _belongs(self, run: Run | None) -> bool:
        """Whether the run is of this round. What was brought along is of every one."""
        return (
            run is None or run.round_id is None or (self.round is not None and run.round_id == self.round.pk)
        )

    def _rank(self) -> Step:
        title, state = "Rank a few", "done" if self.ranked >= A_FEW else "open"
        ranked = f"{count(self.ranked, 'ranking')} by people" + (f" in {self.round}" if self.later else "")
        if self.imported:
            ranked += f", {'all' if self.imported == self.ranked else f'{self.imported:,}'} of them imported"
        if self.waiting:
            more = "or more" if self.or_more else "more"
            said = f"{ranked}; {self.waiting:,} {more} {'waits' if self.waiting == 1 else 'wait'} for you"
            return Step(title, state, said, f"Rank · {self.how_many_wait} waiting", self._url("rank"))
        if run := self.live.get(Run.Kind.ROLLOUTS):
            said = "Rollouts are being written; they can be ranked as they come"
            return Step(
                title, "live" if state == "open" else state, said, f"Watch run {run.pk}", run_url(run)
            )
        if not self.project.start_id:
            said = "It needs a starting model to write the rollouts"
            return Step(title, "missing", said, "Choose a starting model", self._url("project_edit"))
        if not self.prompts:
            said = "It needs prompts for the model to answer"
            return Step(title, "missing", said, "Add prompts", self._url("prompts_add"))
        if self.later and not self.has_quintets:
            return self._sample_anew()
        said = f"{ranked}; none waits for you" if self.has_quintets else "There are no rollouts to rank yet"
        sample = self._new(Run.Kind.ROLLOUTS)
        if state == "done":
            return Step(title, state, said, "Sample more rollouts", sample)
        return Step(title, "missing", said, "Sample rollouts", sample)

    def _sample_anew(self) -> Step:
        """A later round begins with what the one before came to."""
        suggested = self.policy.checkpoints.filter(suggested=True).first() if self.policy else None
        start = self.project.start
        shipped = bool(self.policy and start and start.run_id == self.policy.pk)
        chosen = f"?start={suggested.pk}" if suggested and not shipped else ""
        url = self._new(Run.Kind.ROLLOUTS) + chosen
        ask = "Let people rank what the new policy writes, and what fools the reward model"
        said = f"Nothing is in {self.round} yet. {ask}"
        return Step(
            "Rank a few", "missing", said, "Sample the new policy" if suggested else "Sample rollouts", url
        )

    def _reward(self) -> Step:
        title = "Train reward model"
        if run := self.live.get(Run.Kind.REWARD):
            return Step(title, "live", live_words(run), f"Watch run {run.pk}", run_url(run))
        if self.reward_model and self._belongs(self.reward_model.run):
            said = f"{self.reward_model}; {count(self.since, 'ranking')} by people since"
            return Step(title, "done", said, "Train it again", self._new(Run.Kind.REWARD))
        if not self.ranked + self.programs:
            where = f"in {self.round} yet" if self.later else "yet"
            return Step(title, "missing", f"It needs rankings, and there are none {where}", "", "")
        said = f"Rankings to learn from: {self.people:,} by people, {self.simulated:,} simulated"
        return Step(title, "open", said, title, self._new(Run.Kind.REWARD))

    def _policy(self) -> Step:
        title = "Run RLHF"
        if run := self.live.get(Run.Kind.POLICY):
            return Step(title, "live", live_words(run), f"Watch run {run.pk}", run_url(run))
        if self.policy and self._belongs(self.policy):
            said = f"Run {self.policy.pk} is finished"
            return Step(title, "done", said, "Run it again", self._new(Run.Kind.POLICY))
        if not self.reward_model or not self._belongs(self.reward_model.run):
            which = f"the reward model of {self.round}" if self.later else "a reward model"
            return Step(title, "missing", f"It needs {which} to run against", "", "")
        return Step(title, "open", f"Against {self.reward_model}", title, self._new(Run.Kind.POLICY))

    def _compare(self) -> Step:
        title = "Compare"
        if not self.policy or not self._belongs(self.policy):
            return Step(title, "missing", "It needs a finished RLHF run", "", "")
        url = reverse("run_compare", args=[self.policy.pk])
        if self.compared:
            return Step(title, "done", f"Run {self.policy.pk} against its start", "Look again", url)
        return Step(title, "open", "The same prompts, before and after", "Compare before and after", url)

    def _again(self) -> Step:
        from labeler import checked_loop

        if self.project.is_checked:
            return checked_loop.again(self)
        if not self.faceoff or not self.faceoff.shipped_id:
            return self._decide()
        number = self.round.number if self.round else 1
        said = (
            f"{self.faceoff.shipped} is shipped. Close this round: its labelers are told how far the reward "
            "model agrees with them, and the next begins with what was shipped"
        )
        return Step("Begin the next round", "next", said, f"Close round {number}", self._url("rounds"))

    def _decide(self) -> Step:
        title = "Let people decide"
        if self.faceoff:
            said = f"{self.faceoff} asks people which checkpoint they like best. That one is shipped"
            url = reverse("faceoff", args=[self.project.slug, self.faceoff.number])
            return Step(title, "next", said.capitalize(), f"Open {self.faceoff}", url)
        said = (
            "So far only the reward model has judged. In a face-off people read what the start and the new "
            "policy wrote, without knowing which is which, and what they like best is shipped"
        )
        of = f"?run={self.policy.pk}" if self.policy else ""
        return Step(title, "next", said, "Begin a face-off", self._url("faceoff_new") + of)

    def _url(self, name: str) -> str:
        return reverse(name, args=[self.project.slug])

    def _new(self, kind: str) -> str:
        return reverse("run_new", args=[self.project.slug, kind])


def run_url(run: Run) -> str:
    return reverse("run", args=[run.pk])


def live_words(run: Run) -> str:
    if run.state == Run.State.QUEUED:
        return f"Run {run.pk} is queued"
    where = f"at step {run.step:,} of {run.total:,}" if run.total else "starting"
    return f"Run {run.pk} is {where}"


def standings(projects: Iterable[Project], user: User) -> list[Standing]:
    """How each of the projects stands, as `user` sees it, in the order given."""
    found = {project.pk: Standing(project) for project in projects}
    in_these = Q(project__in=found)
    rounds = {each.project_id: each for each in Round.objects.filter(in_these).order_by("number")}
    _fill(found, "prompts", Prompt.objects.filter(in_these))
    for project, (waiting, all_of_them) in Quintet.objects.awaiting_counts(user, found).items():
        found[project].waiting, found[project].or_more = waiting, not all_of_them
    filled = Quintet.objects.filter(round=OuterRef("pk"), purpose=Purpose.WORK)
    for round in Round.objects.filter(pk__in=[each.pk for each in rounds.values()]).annotate(
        filled=Exists(filled)
    ):
        standing = found[round.project_id]
        standing.round, standing.wanted, standing.has_quintets = round, round.wanted, round.filled
    # A row for each labeler and round, however many rankings there are.
    contributions = Contribution.objects.filter(round__project__in=found)
    for each in contributions.select_related("round", "labeler"):
        found[each.round.project_id].add(each, mine=each.labeler_id == user.pk)
    if theirs := {pk: each for pk, each in found.items() if user.may_run(each.project)}:
        _fill_runs(theirs)
        _fill_checked({pk: each for pk, each in theirs.items() if each.project.is_checked})
    for pk, today in Ranking.objects.todays(user).items():
        if pk in found:
            found[pk].today = today
    _fill_agrees(found, user)
    return list(found.values())


def _fill_agrees(found: dict[int, Standing], user: User) -> None:
    """Of the last closed round that has a reward model. Never of an open one: whoever ranks in it must not be
    told what the model thinks."""
    trained = Run.objects.filter(project__in=found, kind=Run.Kind.REWARD, state=Run.State.FINISHED)
    closed = trained.filter(round__closed_at__isnull=False).order_by("project_id", "-round__number", "-pk")
    known = closed.distinct("project_id").values_list(
        "project", "round__number", "result__metrics__by_labeler"
    )
    for project, number, by_labeler in known:
        told = (by_labeler or {}).get(user.username)
        if told and told["pairs"] >= ENOUGH_PAIRS:
            share = told["right"] / told["pairs"]
            found[project].agrees = Agrees(number, share, told["pairs"], told["error"])


def _fill_runs(found: dict[int, Standing]) -> None:
    in_these = Q(project__in=found)
    judges = Checkpoint.objects.filter(in_these, kind=Checkpoint.Kind.REWARD).select_related("run")
    judges = judges.defer("run__log_tail", "run__cursors", "run__result")
    for model in judges.order_by("project_id", "-run_id", "-suggested", "-pk").distinct("project_id"):
        found[model.project_id].reward_model = model  # type: ignore[index]
    live = Run.objects.filter(in_these, state__in=[Run.State.QUEUED, Run.State.RUNNING])
    for run in live.order_by("-pk"):
        found[run.project_id].live[run.kind] = run
    newest = Run.objects.filter(in_these, kind=Run.Kind.POLICY, state=Run.State.FINISHED).values("project")
    for run in Run.objects.filter(pk__in=newest.annotate(newest=Max("pk")).values("newest")):
        found[run.project_id].policy = run
    faceoffs = Faceoff.objects.filter(round__in=[each.round for each in found.values() if each.round])
    for faceoff in faceoffs.select_related("shipped").order_by("number"):
        found[faceoff.project_id].faceoff = faceoff
    compared = Request.objects.filter(kind=Request.Kind.COMPARE, state=Request.State.ANSWERED)
    policies = {standing.policy.pk: standing for standing in found.values() if standing.policy}
    for run_id in compared.filter(run__in=policies).values_list("run", flat=True).distinct():
        policies[run_id].compared = True


def _fill_checked(found: dict[int, Standing]) -> None:
    """Of checked projects: answers, worked solutions, what learnt from these, whether somebody has looked."""
    if not found:
        return
    in_these = Q(project__in=found)
    _fill(found, "answered", Prompt.objects.answered().filter(in_these))
    _fill(found, "demonstrations", Demonstration.objects.counted().filter(in_these))
    for each in found.values():
        each.troubled = each.project.prompts.failing(each.project.checker_digest).count()
        each.looked = bool(each.policy and each.policy.verdicts.exists())
    taught = Run.objects.filter(in_these, SOLUTIONS, state=Run.State.FINISHED)
    for run in taught.order_by("project_id", "-pk").distinct("project_id"):
        found[run.project_id].taught = run


def _fill(found: dict[int, Standing], name: str, rows) -> None:
    for project, number in rows.order_by().values_list("project").annotate(Count("pk")):
        setattr(found[project], name, number)
