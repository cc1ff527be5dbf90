"""The playground: what somebody asks of a checkpoint, or of two, and what there is of the answer by now.

An answer comes in parts (labeler/models/requests.py); here they are put together as a page shows them, and
what was chosen goes to the labelers or among the demonstrations. No model is held here: the worker's warm
child writes, and the reward model and the checker say there what they think (labeler/answers.py). Neither
stands for the other: no sum of theirs is made anywhere."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.text import capfirst

from labeler import sending
from labeler.models import Checkpoint, Demonstration, Origin, Project, Prompt, Quintet, Request, Run, User
from labeler.models.demonstrations import fit_to_keep
from labeler.models.prompts import digest
from labeler.models.requests import STALE
from labeler.steps import SHADES
from labeler.templatetags.words import count
from rlhf.checkers import answer_of, thinking_of

READ = 20_000  # characters of a rollout on a page; the whole of it is a file
CHIPS = 2_000  # tokens of a rollout on a page
LATELY = 30  # questions of a sitting
PATIENT = timedelta(seconds=20)  # after which one asks whether there is a worker
DRAWN = str.maketrans({" ": "·", "\n": "⏎\n", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Other:
    """A token that might have come instead."""

    id: int
    text: str
    chance: float

    @property
    def drawn(self) -> str:
        return self.text.translate(DRAWN)


@dataclass(frozen=True)
class Token:
    """One token, and how sure the model was of it. Of a prompt's tokens nobody knows."""

    id: int
    text: str
    special: bool = False
    log_prob: float | None = None
    entropy: float | None = None
    others: tuple[Other, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Token":
        others = tuple(Other(each["id"], each["text"], each["chance"]) for each in told.get("others", []))
        known = {name: told.get(name) for name in ("log_prob", "entropy")}
        return cls(told["id"], told["text"], told.get("special", False), others=others, **known)

    @property
    def drawn(self) -> str:
        """Its text with what cannot be seen drawn."""
        return self.text if self.special else self.text.translate(DRAWN) or "∅"

    @property
    def chance(self) -> float | None:
        return None if self.log_prob is None else math.exp(self.log_prob)

    @property
    def shade(self) -> str:
        """`down`, 1 to 5: the less likely it was, the deeper; empty for what was nearly certain."""
        deep = sum(-(self.log_prob or 0.0) >= each for each in SHADES)
        return f"down{deep}" if deep else ""


@dataclass
class Said:
    """One rollout, as far as it is written."""

    side: int
    number: int
    text: str = ""
    length: int = 0
    ended: bool = False
    finished: bool = False
    stopped: bool = False
    log_prob: float | None = None
    tokens: list[Mapping[str, Any]] = field(default_factory=list)  # as they were told
    reward: float | None = None
    score: float | None = None
    verdict: Mapping[str, Any] | None = None
    quintet: Quintet | None = None
    demonstration: Demonstration | None = None

    @property
    def name(self) -> str:
        return f"{self.side}-{self.number}"

    @property
    def thinking(self) -> str:
        return thinking_of(self.text)[:READ]

    @property
    def answer(self) -> str:
        """Without its thinking, as much as a page shows."""
        return (answer_of(self.text) if self.ended else self.text)[:READ]

    @property
    def beyond(self) -> int:
        """Characters that the page does not show."""
        return max(0, len(self.text) - READ)

    @cached_property
    def chips(self) -> list[Token]:
        return [Token.of(each) for each in self.tokens[:CHIPS]]

    @property
    def mean_entropy(self) -> float | None:
        known = [each["entropy"] for each in self.tokens if "entropy" in each]
        return sum(known) / len(known) if known else None

    def hear(self, told: Mapping[str, Any]) -> None:
        self.text += told.get("more", "")
        self.tokens += told.get("tokens", [])
        self.length = len(self.tokens)
        if "text" in told:
            self.text, self.length, self.ended = told["text"], told["length"], True
            self.finished, self.log_prob = told["finished"], told["log_prob"]
            self.stopped = told.get("stopped", False)


@dataclass
class Side:
    """What one checkpoint answers."""

    number: int
    checkpoint: Checkpoint | None
    name: str
    rollouts: list[Said]
    length: int = 0  # of the prompt, in tokens
    cut: int = 0
    longest: int = 0  # tokens of an answer, as far as the model takes them
    asked: list[Token] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    sums: Mapping[str, Any] = field(default_factory=dict)

    @property
    def began(self) -> bool:
        return bool(self.length)

    @property
    def pace(self) -> float | None:
        """Tokens a second."""
        seconds = self.sums.get("seconds")
        return self.sums["tokens"] / seconds if seconds else None

    @property
    def correct(self) -> tuple[int, int] | None:
        """How many the checker found correct, of how many that it judged."""
        judged = [one.verdict for one in self.rollouts if one.verdict and one.verdict["correct"] is not None]
        return (sum(each["correct"] for each in judged), len(judged)) if judged else None

    @property
    def mean_score(self) -> float | None:
        scores = [one.score for one in self.rollouts if one.score is not None]
        return sum(scores) / len(scores) if scores else None

    def hear(self, told: Mapping[str, Any]) -> None:
        """One part. A prompt is told whenever somebody begins to write, or goes on after others came first:
        what was not ended by then, and is not gone on with, comes anew."""
        if asked := told.get("prompt"):
            self.length, self.cut, self.longest = asked["length"], asked["cut"], asked.get("longest", 0)
            self.asked = [Token.of(each) for each in asked.get("tokens", [])]
            going_on = asked.get("drafts", [])
            self.rollouts = [
                one if one.ended or one.number in going_on else Said(self.number, one.number)
                for one in self.rollouts
            ]
        for each in told.get("rollouts", []):
            self.rollouts[each["number"]].hear(each)
        for number, reward, score in told.get("scores", []):
            self.rollouts[number].reward, self.rollouts[number].score = reward, score
        for number, verdict in told.get("verdicts", []):
            self.rollouts[number].verdict = verdict
        if told.get("trouble") and told["trouble"] not in self.trouble:
            self.trouble.append(told["trouble"])
        self.sums = told.get("sums", self.sums)


class Sitting:
    """One question and its answer, as a page shows it."""

    def __init__(self, request: Request):
        self.request, self.asked = request, request.question
        self.prompt: str | list[dict[str, str]] = self.asked["prompts"][0]
        known = Checkpoint.objects.in_bulk([*self.asked["checkpoints"], self.asked.get("reward_model") or 0])
        self.judge = known.get(self.asked.get("reward_model"))
        self.sides = [
            Side(place, known.get(pk), name, [Said(place, number) for number in range(self.asked["count"])])
            for place, (pk, name) in enumerate(
                zip(self.asked["checkpoints"], self.asked["names"], strict=True)
            )
        ]
        self.last = 0  # the number of the last part that was read

    def read(self, after: int = 0) -> "Sitting":
        for number, body in self.request.parts.after(after).values_list("number", "body"):
            self.sides[body["side"]].hear(body)
            self.last = number
        self.last = max(self.last, after)
        for one in self.rollouts if not self.request.is_live else []:
            if one.text and not one.ended:  # nobody goes on with it
                one.ended = one.stopped = True
        return self

    @property
    def turns(self) -> list[dict[str, str]]:
        return turns(self.prompt)

    @property
    def rollouts(self) -> list[Said]:
        return [one for side in self.sides for one in side.rollouts]

    def chosen(self, names: Iterable[str]) -> list[Said]:
        wanted = set(names)
        return [one for one in self.rollouts if one.name in wanted and one.ended]

    @cached_property
    def row(self) -> Prompt | None:
        """The project's own prompt that was asked, where it is one."""
        return own_prompt(self.request.project, self.prompt)

    @property
    def is_gone(self) -> bool:
        """Whether the answer was let go, so that only the question is left."""
        return not self.request.is_live and self.request.state == "answered" and not self.last

    def mark(self) -> "Sitting":
        """Which of them were sent to the labelers, and which are demonstrations."""
        for quintet in self.quintets():
            for one in self.rollouts:
                if one.name in quintet.extra["rollouts"]:
                    one.quintet = quintet
        for each in self.demonstrations():
            for one in self.rollouts:
                if one.name == each.came_from["rollout"]:
                    one.demonstration = each
        return self

    def quintets(self) -> QuerySet[Quintet]:
        return self.request.project.quintets.filter(extra__request=self.request.pk)

    def demonstrations(self) -> QuerySet[Demonstration]:
        found = self.request.project.demonstrations.filter(came_from__request=self.request.pk)
        return found.filter(withdrawn_at=None)

    # What becomes of it

    @transaction.atomic
    def send(self, names: Sequence[str], by: User) -> tuple[Quintet, bool]:
        """The chosen ones as a quintet in the ordinary queue. A prompt that is new to the project joins it.
        Raises SendRefused."""
        self._take_turn()
        chosen = self.chosen(names)
        sending.refuse_unrankable(chosen)
        about = {"request": self.request.pk, "rollouts": sorted(one.name for one in chosen)}
        wrote = [self.sides[one.side].checkpoint for one in chosen]
        origin = f"rollouts of {' and '.join(dict.fromkeys(self.asked['names']))}, from the playground"
        return sending.send(self.request.project, self._row(), chosen, about, origin, by, checkpoints=wrote)

    def take_back(self, number: int, by: User) -> None:
        """Raises SendRefused, Quintet.DoesNotExist."""
        sending.take_back(self.quintets().get(pk=number), "from the playground", by)

    @transaction.atomic
    def demonstrate(self, name: str, by: User) -> Demonstration:
        """Keep one as a demonstration; once. Raises AnswerRefused."""
        self._take_turn()
        one = next(iter(self.chosen([name])), None)
        text = fit_to_keep(one.text if one else "")
        came_from = {"request": self.request.pk, "rollout": name}
        if there := self.demonstrations().filter(came_from=came_from).first():
            return there
        prompt = self._row()
        made = self.request.project.demonstrations.create(
            prompt=prompt, completion=text, author=by, origin=Origin.PICKED, came_from=came_from
        )
        words = f"A rollout from the playground is kept as demonstration {made.pk}."
        said = {"demonstration": made.pk, **came_from}
        self.request.project.audit.write(by, self.request.project, "keep as demonstration", words, **said)
        return made

    def _take_turn(self) -> None:
        """Who press at once take turns, so that the second finds what the first has made. Of what something
        is made the question stays."""
        Project.objects.select_for_update(no_key=True).get(pk=self.request.project_id)
        Request.objects.filter(pk=self.request.pk).update(kept=True)

    def _row(self) -> Prompt:
        if self.row is None:
            self.row = self.request.project.prompts.create(content=self.prompt)
        return self.row


def turns(prompt: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def own_prompt(project: Project, content: str | list[dict[str, str]]) -> Prompt | None:
    """A text and a chat of it as its only turn are the same prompt."""
    same = Q(digest=digest(content))
    if isinstance(content, str):
        same |= Q(digest=digest(turns(content)))
    elif len(content) == 1 and content[0]["role"] == "user":
        same |= Q(digest=digest(content[0]["content"]))
    return project.prompts.filter(same).first()


def lately(user: User) -> QuerySet[Request]:
    """What this person has asked in this sitting: as long ago as answers are kept."""
    since = timezone.now() - STALE
    found = Request.objects.filter(kind=Request.Kind.PLAY, created_by=user, created_at__gt=since)
    return found.filter(project__in=Project.objects.run_by(user)).select_related("project")[:LATELY]


def waits_for(request: Request) -> str:
    """What an answer waits for, in a sentence; empty as soon as it is there."""
    if not request.is_live:
        return ""
    if request.state == Request.State.WORKING:
        return f"{capfirst(request.phase or 'the worker begins')}."
    if request.phase and request.attempt:  # it was begun
        return f"{capfirst(request.phase)}."
    if request.phase:
        return f"{capfirst(request.phase)}; your answer comes after that."
    before = Request.objects.claimable().exclude(kind=Request.Kind.ORDER).filter(pk__lt=request.pk).count()
    working = Request.objects.being_answered().exclude(pk=request.pk).exists()
    if before or working:
        many = count(before, "question is,questions are") if before else "another question is"
        return f"The worker answers one after the other: {many} before yours."
    if timezone.now() - request.created_at > PATIENT:
        return (
            "No worker has come for it yet. Is one running? bin/up starts one; with Docker it is the service "
            "worker. The question waits."
        )
    return "Waiting for the worker."


def computes_beside(user: User) -> tuple[bool, Run | None]:
    """Whether a run takes a part of the machine meanwhile, and which, where this person may know that."""
    running = Run.objects.filter(state=Run.State.RUNNING).order_by("pk")
    return running.exists(), running.filter(project__in=Project.objects.run_by(user)).first()
