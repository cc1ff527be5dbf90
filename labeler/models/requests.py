"""A request: something a person waits for on a page, answered by the interactive queue. A part: what is there
of an answer that is still being written, for pages that read along.

Here is what is asked and what may happen to the rows. Who answers, and when memory goes to a run first, is
the matter of labeler/tasks.py and labeler/answers.py."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import F, Func, Max, Q
from django.db.models.functions import Cast, Now

from labeler.celery import ring
from labeler.models.checkpoints import Checkpoint
from labeler.models.people import User
from labeler.models.projects import Project
from labeler.models.runs import LEASE, TRIES, Run, storable
from rlhf import config

COMPARED = 8  # prompts of a comparison
STALE = timedelta(days=1)  # nobody waits that long in front of a page
KEPT = timedelta(days=30)  # questions; of their answers what is streamed goes after a day


class RequestQuerySet(models.QuerySet["Request"]):
    def claimable(self) -> "RequestQuerySet":
        """Those that wait, and those whose worker has not been heard of since its lease ran out."""
        return self.unanswered().filter(Q(created_at__gt=Now() - STALE) | Q(kind__in=Request.UNATTENDED))

    def unanswered(self) -> "RequestQuerySet":
        """Those that nobody is at."""
        waiting, lost = Q(state=Request.State.WAITING), Q(state=Request.State.WORKING)
        return self.filter(waiting | lost & Q(leased_until__lt=Now()))

    def end_stale(self) -> int:
        """Tell those that nobody has answered for so long that they will not be; how many that were."""
        ended = {"state": Request.State.FAILED, "phase": "", "leased_until": None, "finished_at": Now()}
        words = {
            "reason": "It was not answered within a day.",
            "remedy": "Ask again. Where that waits as well, “bin/manage doctor” tells whether a worker runs.",
        }
        late = self.unanswered().filter(created_at__lte=Now() - STALE)
        return late.exclude(kind__in=Request.UNATTENDED).update(**ended, **words)

    def prune(self) -> int:
        """Let go of old questions; how many that were. What became of a run or of rollouts stays, and of each
        kind the newest, which tells a page how it went."""
        newest = Request.objects.order_by().values("project", "kind").annotate(newest=Max("pk"))
        old = self.filter(created_at__lte=Now() - KEPT, kept=False).exclude(state__in=Request.LIVE)
        old = old.exclude(kind__in=Request.RESULTS).exclude(pk__in=newest.values("newest"))
        return old.delete()[0]

    def put_off(self, pk: int, phase: str) -> None:
        """Leave it waiting, and tell whoever waits what for."""
        self.filter(pk=pk, state=Request.State.WAITING).update(phase=phase)

    def others_wait(self) -> bool:
        """Whether somebody waits in front of a page."""
        return self.claimable().exclude(kind__in=Request.UNATTENDED).exists()

    def needs_no_model(self, pk: int) -> bool:
        """Whether only a rule is asked, which needs none of the memory that a run may hold."""
        asked = self.filter(pk=pk, kind__in=[Request.Kind.CHECK, Request.Kind.REFERENCES])
        found = asked.select_related("project").first()
        return bool(found and found.project.checker_name in config.RULES)

    def short_ones_wait(self) -> bool:
        """Whether somebody waits for less than thousands of rollouts."""
        many = Q(question__contains={"stream": "rollouts"})  # true or false also where there is no such key
        waiting = self.claimable().filter(~many, state=Request.State.WAITING)
        return waiting.exclude(kind__in=Request.UNATTENDED).exists()

    def others_first(self, request: "Request") -> list["Request"]:
        """Whoever waits, in the order in which they came, and this one behind them: a message that was lost
        must not keep it giving way to somebody who is not rung for."""
        return [*self.claimable().exclude(pk=request.pk).order_by("pk"), request]

    def being_answered(self) -> "RequestQuerySet":
        return self.filter(state=Request.State.WORKING, leased_until__gt=Now())

    def ask(
        self,
        project: Project,
        kind: str,
        question: Mapping[str, Any],
        by: User | None,
        run: Run | None = None,
    ) -> "Request":
        """Queue a question. `sample`: checkpoint, prompts, and as one likes count, temperature, top_p,
        max_new_tokens and seed; with `stream` ("rollouts" or "tokens", see rlhf/stream.py) and one prompt
        the answer comes in parts. `score`: checkpoint, and items of a prompt and its rollouts. Checkpoints
        are row numbers."""
        request = self.create(project=project, kind=kind, question=dict(question), created_by=by, run=run)
        transaction.on_commit(request.ring, robust=True)
        return request

    def ask_to_compare(self, run: Run, after: Checkpoint, seed: int = 0, by: User | None = None) -> "Request":
        """The project's first prompts, answered by the run's start and by `after`, with the same chances; and
        scored by the run's reward model, else by the project's newest, and checked where a checker judges."""
        judge = run.reward_model or Checkpoint.objects.judge_of(run.project)
        prompts = list(run.project.prompts.all()[:COMPARED])
        question = {
            "before": run.start_id,
            "after": after.pk,
            "reward_model": judge.pk if judge else None,
            "prompts": [each.content for each in prompts],
            "references": [each.answer for each in prompts] if run.project.is_checked else [],
            "seed": seed,
            "temperature": run.config.get("temperature", 1.0),
            "max_new_tokens": run.config.get("max_new_tokens", 256),
        }
        return self.ask(run.project, Request.Kind.COMPARE, question, by, run)

    def ask_to_order(self, project: Project, judge: Checkpoint, by: User | None = None) -> "Request":
        """Have `judge` read what waits in the project, and the queue ordered by how unsure it is. A question
        that still waits for the worker becomes this one."""
        waiting = self.filter(project=project, kind=Request.Kind.ORDER, state=Request.State.WAITING)
        question = {"checkpoint": judge.pk}
        if waiting.update(question=question, created_at=Now()):
            return waiting.latest("pk")
        return self.ask(project, Request.Kind.ORDER, question, by)

    def ask_to_simulate(self, project: Project, by: User | None = None) -> "Request":
        """Have the simulated labelers rank what waits; the question that is there already, where one is."""
        return self._ask_once(project, Request.Kind.SIMULATE, {}, by)

    def ask_to_try(self, project: Project, question: Mapping[str, Any], by: User | None) -> "Request":
        """A dry pass; the one that is on its way, where there is one of this start for this kind of work."""
        same = {f"question__{name}": question[name] for name in ("checkpoint", "train")}
        return self._ask_once(project, Request.Kind.TRY, question, by, **same)

    @transaction.atomic
    def _ask_once(
        self, project: Project, kind: str, question: Mapping[str, Any], by: User | None, **same: Any
    ) -> "Request":
        """The question that is there already, where one is the `same`. Who press at once take turns."""
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        asked = self.filter(project=project, kind=kind, state__in=Request.LIVE, **same).first()
        return asked or self.ask(project, kind, question, by)

    def ask_to_check(
        self, project: Project, items: Sequence[Mapping[str, str]], by: User | None, **more: Any
    ) -> "Request":
        """Have the project's checker judge some answers: `items` of prompt, answer and reference."""
        return self.ask(project, Request.Kind.CHECK, {"items": [dict(each) for each in items], **more}, by)

    def ask_to_check_references(self, project: Project, by: User | None = None) -> "Request":
        """Have every reference that waits for it held against its own solution; the question that is there
        already, where one is."""
        return self._ask_once(project, Request.Kind.REFERENCES, {}, by)

    def keep_ordered(self, project: Project) -> "Request | None":
        """The same by the newest reward model, in a project that wants it; after something new has come."""
        judge = Checkpoint.objects.judge_of(project)
        if judge and project.queue == Project.Queue.UNCERTAIN:
            return self.ask_to_order(project, judge)
        return None

    @transaction.atomic
    def claim(self, pk: int) -> "Request | None":
        """The request, being worked on from now in a new attempt; None when it is not there to be had."""
        request = self.claimable().select_for_update(skip_locked=True, no_key=True).filter(pk=pk).first()
        if request is None:
            return None
        if request.state == Request.State.WORKING:
            request.lost += 1
        if request.lost >= TRIES:
            request.fail(f"The worker died {request.lost} times over this.", "Its log tells what happened.")
            return None
        self.filter(pk=pk).update(
            state=Request.State.WORKING,
            attempt=F("attempt") + 1,
            lost=request.lost,
            leased_until=Now() + LEASE,
        )
        return self.select_related("project", "run__start").get(pk=pk)


class Request(models.Model):
    class Kind(models.TextChoices):
        COMPARE = "compare"
        SAMPLE = "sample"
        SCORE = "score"
        ORDER = "order"
        HARVEST = "harvest"
        SIMULATE = "simulate"
        TRY = "try"
        GATHER = "gather"
        CHECK = "check"
        REFERENCES = "references"
        PLAY = "play"

    class State(models.TextChoices):
        WAITING = "waiting"
        WORKING = "working"
        ANSWERED = "answered"
        FAILED = "failed"

    LIVE = (State.WAITING, State.WORKING)
    UNATTENDED = (Kind.ORDER, Kind.REFERENCES)  # nobody sits before a page and waits for them
    RESULTS = (Kind.COMPARE, Kind.HARVEST, Kind.GATHER)  # pages show all of these, and undo the last

    project = models.ForeignKey(Project, models.CASCADE, related_name="requests")
    run = models.ForeignKey(Run, models.CASCADE, null=True, blank=True, related_name="requests")
    kind = models.CharField(max_length=10, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    question = models.JSONField()
    answer = models.JSONField(null=True, blank=True)
    phase = models.CharField(max_length=200, blank=True)
    stopping = models.BooleanField(default=False, help_text="Somebody has enough of it.")
    kept = models.BooleanField(default=False, help_text="Something was made of its answer.")
    reason = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    attempt = models.PositiveIntegerField(default=0)
    lost = models.PositiveSmallIntegerField(default=0, help_text="Attempts whose worker died.")
    leased_until = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = RequestQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.kind} request {self.pk}"

    @property
    def is_live(self) -> bool:
        return self.state in Request.LIVE

    def ring(self) -> None:
        ring("answer", self.pk)

    def mine(self) -> RequestQuerySet:
        """The row, for as long as this attempt owns it."""
        return Request.objects.filter(pk=self.pk, attempt=self.attempt, state=Request.State.WORKING)

    def renew(self) -> bool:
        return self.mine().update(leased_until=Now() + LEASE) == 1

    def tell(self, phase: str) -> None:
        """What is being done about it, for whoever waits."""
        self.mine().update(phase=phase)

    def give_back(self, phase: str = "") -> None:
        """To those that wait: this worker has to go, or others come first."""
        self.mine().update(state=Request.State.WAITING, phase=phase, leased_until=None)

    def stop(self) -> None:
        """End it with what there is. Whoever answers it hears of that between two tokens; where nobody does,
        it ends here."""
        there = Request.objects.filter(pk=self.pk, state__in=Request.LIVE)
        there.update(stopping=True)
        ended = {"state": Request.State.ANSWERED, "phase": "", "finished_at": Now()}
        there.filter(state=Request.State.WAITING).update(answer={"stopped": True}, **ended)

    def is_to_stop(self) -> bool:
        return Request.objects.filter(pk=self.pk, stopping=True).exists()

    @transaction.atomic
    def keep(self, body: Mapping[str, Any]) -> bool:
        """One more part of its answer; False where another attempt owns the request by now."""
        if not self.mine().select_for_update(no_key=True).exists():
            return False
        last = self.parts.aggregate(last=Max("number"))["last"] or 0
        self.parts.create(number=last + 1, body=storable(dict(body)))
        return True

    def answer_with(self, answer: Mapping[str, Any]) -> bool:
        """Keep the answer; False where another attempt owns the request by now."""
        ended = {"state": Request.State.ANSWERED, "phase": "", "leased_until": None, "finished_at": Now()}
        return self.mine().update(answer=storable(dict(answer)), **ended) == 1

    def fail(self, reason: str, remedy: str = "") -> None:
        ended = {"state": Request.State.FAILED, "phase": "", "leased_until": None, "finished_at": Now()}
        self.mine().update(reason=reason, remedy=remedy, **ended)


class PartQuerySet(models.QuerySet["Part"]):
    def of(self, side: int | None) -> "PartQuerySet":
        """Those of one checkpoint's answer, where several are asked."""
        return self if side is None else self.filter(body__side=side)

    def prune(self) -> int:
        """Let go of what nobody looks at any more; how many parts that were."""
        return self.filter(request__created_at__lt=Now() - STALE).delete()[0]

    def after(self, number: int) -> "PartQuerySet":
        return self.filter(number__gt=number).order_by("number")

    def numbers(self, name: str) -> list[int]:
        """The numbers of the rollouts of which this is known: of those that are there whole, their `text`."""
        path = models.Value(f"$.rollouts[*] ? (exists(@.{name})).number")
        found = Func(F("body"), Cast(path, JsonPath()), function="jsonb_path_query")
        return list(self.annotate(each=Cast(found, models.IntegerField())).values_list("each", flat=True))

    def sums(self) -> dict[str, Any] | None:
        """How much was written, as soon as all of it is."""
        return self.filter(body__has_key="sums").values_list("body__sums", flat=True).first()

    @transaction.atomic
    def take_up(self) -> dict[str, Any]:
        """What was put down when others came first: the drafts, and the sums so far. Only once: a worker that
        dies over them leaves it to the next to begin these anew."""
        part = self.select_for_update(no_key=True).filter(body__has_key="paused").order_by("-number").first()
        if part is None:
            return {}
        paused = part.body.pop("paused")
        part.save(update_fields=["body"])  # its number stays, for pages that have read as far
        return paused

    def size(self) -> int:
        """In bytes, about."""
        bytes_ = Func(F("body"), function="pg_column_size", output_field=models.BigIntegerField())
        return self.aggregate(size=models.Sum(bytes_))["size"] or 0


class JsonPath(models.Field):
    """Only to say to Postgres what a text is."""

    def db_type(self, connection: Any) -> str:
        return "jsonpath"


class Part(models.Model):
    """A part of an answer, in the order in which they came. What is in it is said by who answers."""

    request = models.ForeignKey(Request, models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    body = models.JSONField()

    objects = PartQuerySet.as_manager()

    class Meta:
        ordering = ["request", "number"]
        constraints = [models.UniqueConstraint(fields=["request", "number"], name="a_part_once")]

    def __str__(self) -> str:
        return f"part {self.number} of request {self.request_id}"
