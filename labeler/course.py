"""The three stages in which a model is taught: it reads, it is shown worked solutions, it practises. Where
each of them stands in a project, what it learnt from, what is lacking, and one prompt answered by all three.

Reads rows and asks questions; launches nothing: that is the launch form's. The stages of a round, which go on
from here, are another matter (stages.py)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse

from labeler import checking
from labeler.loop import READING, SOLUTIONS, live_words
from labeler.models import Checkpoint, Dataset, Project, Request, Run, User
from labeler.models.demonstrations import told
from labeler.models.prompts import digest
from labeler.templatetags.words import count, figure
from rlhf import checkers, config, data
from rlhf.config import Refused

PRACTICE = Q(kind=Run.Kind.POLICY)
POINTS = 120  # of a curve
WIDTH, HEIGHT, EDGE = 260, 64, 4
LONGEST = 4000  # characters of a prompt of one's own

Link = tuple[str, str]


@dataclass
class Stage:
    """`state`: `done`, `live`, `failed`, `next` (it can be launched), or `missing` something."""

    name: str
    title: str
    what: str
    run: Run | None = None
    checkpoint: Checkpoint | None = None
    state: str = "next"
    said: list[str] = field(default_factory=list)
    lacking: str = ""
    launch: str = ""  # the address of the form
    words: str = ""
    links: list[Link] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    stands_in: bool = False  # the starting model, where nothing was read here


class Course:
    """The stages of one project, in their order."""

    def __init__(self, project: Project):
        self.project = project
        self.documents = project.datasets.filter(kind=Dataset.Kind.DOCUMENTS).first()
        self.demonstrations = project.demonstrations.all().counted().by_origin()
        reading = self._reading()
        solutions = self._solutions(reading)
        practice = self._practice(solutions if solutions.checkpoint else reading)
        self.stages = [reading, solutions, practice]

    @property
    def able(self) -> list[Stage]:
        """Those that can answer: their checkpoints lie on this machine."""
        return [each for each in self.stages if each.checkpoint and each.checkpoint.folder]

    def _reading(self) -> Stage:
        what = "It foretells every word of plain documents: so it learns how texts go on, and what they know."
        stage = self._stage(Stage("reading", "Reading", what), READING)
        if stage.run is None and self.project.start:
            stage.checkpoint, stage.stands_in = self.project.start, True
            stage.said.append(f"{self.project.start} has read elsewhere: the project starts from it")
        bring = f"{reverse('datasets', args=[self.project.slug])}#reading"
        stage.links.append(("Bring in others" if self.documents else "Bring in documents", bring))
        if self.documents:
            stage.said.append(f"{count(self.documents.lines, 'document')} to read")
        stage.launch, stage.words = self._form("sft", stage=config.READING), "Read"
        if not self.project.start_id:
            stage.lacking = "A starting model"
        elif not self.documents:
            stage.lacking = "Documents"
        return self._finished(stage)

    def _solutions(self, before: Stage) -> Stage:
        what = (
            "It imitates ideal answers, and is asked for nothing else: it learns to answer, as people would."
        )
        stage = self._stage(Stage("solutions", "Worked solutions", what), SOLUTIONS)
        stage.said.append(f"Demonstrations now: {told(self.demonstrations)}")
        stage.launch, stage.words = self._form("sft", before), "Show it worked solutions"
        if not self.demonstrations:
            stage.lacking = "Demonstrations: written, imported, or taken from rollouts"
            stage.links.append(("Get some", reverse("demonstrations_all", args=[self.project.slug])))
        elif not before.checkpoint:
            stage.lacking = "A model to start from"
        return self._finished(stage)

    def _practice(self, before: Stage) -> Stage:
        project = self.project
        judge = Checkpoint.objects.judge_of(project)
        who = f"the {project.checker_name} checker" if project.is_checked else str(judge or "a reward model")
        what = f"It tries many answers, {who} says which are good, and it does more of what was."
        stage = self._stage(Stage("practice", "Practice", what), PRACTICE)
        stage.launch, stage.words = self._form("policy", before), "Practise"
        if stage.run and stage.run.config.get("checker"):
            stage.links.append(("The practice grid", reverse("practice", args=[stage.run.pk])))
        if project.is_checked:
            answered = project.prompts.answered().count()
            stage.said.append(
                f"{count(answered, 'prompt')} with {'its' if answered == 1 else 'their'} answer"
            )
            if not answered:
                stage.lacking = "Prompts with their answers"
                stage.links.append(("Add some", reverse("prompts_add", args=[project.slug])))
        elif judge is None:
            stage.lacking = "A reward model, or a checker in the project's settings"
            stage.links.append(("Train one", reverse("run_new", args=[project.slug, "reward"])))
        if not stage.lacking and not before.checkpoint:
            stage.lacking = "A model to start from"
        return self._finished(stage)

    def _stage(self, stage: Stage, of: Q) -> Stage:
        """With its newest run and the newest checkpoint that any of its runs has written."""
        runs: QuerySet[Run] = self.project.runs.filter(of, contenders=None)
        stage.run = runs.select_related("dataset", "start", "reward_model").order_by("-pk").first()
        made = Checkpoint.objects.filter(run__in=runs, kind=Checkpoint.Kind.POLICY)
        stage.checkpoint = made.select_related("run").order_by("-run_id", "-suggested", "-step").first()
        if stage.run:
            stage.said += learnt(stage.run)
            stage.curves = curves(stage.run)
        return stage

    def _finished(self, stage: Stage) -> Stage:
        run = stage.run
        if run and run.is_live:
            stage.state, stage.said = "live", [live_words(run), *stage.said]
        elif run and run.state in (Run.State.FAILED, Run.State.CANCELLED) and not stage.checkpoint:
            stage.state, stage.said = (
                "failed",
                [f"Run {run.pk} came to nothing. {run.reason}".strip(), *stage.said],
            )
        elif stage.checkpoint:
            stage.state = "done"
        else:
            stage.state = "missing" if stage.lacking else "next"
        return stage

    def _form(self, kind: str, before: Stage | None = None, **given: str) -> str:
        given |= {"start": str(before.checkpoint.pk)} if before and before.checkpoint else {}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return reverse("run_new", args=[self.project.slug, kind]) + (f"?{query}" if query else "")


def learnt(run: Run) -> list[str]:
    """What a run began with and learnt from, in words."""
    said = [f"Began as {run.start}"] if run.start else []
    if run.dataset and run.dataset.kind == Dataset.Kind.DOCUMENTS:
        said.append(f"Read {count(run.dataset.lines, 'document')}")
    elif run.dataset:
        said.append(f"Learnt from {told(run.dataset.origins or {'demonstrations': run.dataset.lines})}")
    if run.kind == Run.Kind.POLICY:
        judge = run.config.get("checker") or ""
        whose = [f"the {judge} checker"] if judge else []
        whose += [str(run.reward_model)] if run.reward_model else []
        said.append(f"Judged by {' and '.join(whose) or 'nobody any more'}, for {count(run.step, 'step')}")
    return said


# Each stage's curves, small


def curves(run: Run) -> list[dict[str, Any]]:
    """Its loss, or its accuracy; what was held out with it. Nothing before there are two steps."""
    if run.kind == Run.Kind.SFT:
        named = [("loss", "loss"), ("held_out_loss", "held-out loss")]
    else:
        named = [("accuracy", "accuracy"), ("held_out_accuracy", "held-out accuracy"), ("reward", "reward")]
    steps = list(run.steps.order_by("step").values_list("step", "metrics"))
    found: list[tuple[str, str, list[tuple[int, float]]]] = []
    for key, label in named:
        points = [
            (step, metrics[key]) for step, metrics in steps if isinstance(metrics.get(key), int | float)
        ]
        if len(points) > 1 and not (key == "reward" and found):
            found.append((key, label, points))
    if not found:
        return []
    values = [value for _, _, points in found for _, value in points]
    low, high = min(values), max(values)
    first, last = (end(point[0] for _, _, points in found for point in points) for end in (min, max))
    form = "percent" if "accuracy" in found[0][0] else "loss"

    def place(step: int, value: float) -> str:
        x = EDGE + (WIDTH - 2 * EDGE) * (step - first) / max(last - first, 1)
        y = EDGE + (HEIGHT - 2 * EDGE) * (1 - (value - low) / (high - low or 1))
        return f"{x:.1f},{y:.1f}"

    return [
        {
            "label": label,
            "line": " ".join(place(*point) for point in _thinned(points)),
            "first": figure(points[0][1], form),
            "last": figure(points[-1][1], form),
        }
        for key, label, points in found
    ]


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    apart = -(-len(points) // POINTS) or 1
    return list(points[::-1][::apart][::-1])


# The same prompt, answered by all


@dataclass
class Answer:
    stage: Stage | None
    request: Request
    text: str = ""
    finished: bool = True
    verdict: dict[str, Any] | None = None

    @property
    def parts(self) -> tuple[str, str]:
        """What was thought, and what was answered."""
        return checkers.thinking_of(self.text), checkers.answer_of(self.text)


def ask(course: Course, prompt: Any, by: User, seed: int, temperature: float) -> list[Request]:
    """Every stage that can is asked the same, with the same chances."""
    said = {
        "prompts": [prompt],
        "count": 1,
        "seed": seed,
        "temperature": temperature,
        "max_new_tokens": course.project.defaults_of("rollouts")["max_new_tokens"],
    }
    return [
        Request.objects.ask(
            course.project, Request.Kind.SAMPLE, {"checkpoint": each.checkpoint.pk, **said}, by
        )
        for each in course.able
        if each.checkpoint
    ]


def answers(course: Course, requests: Sequence[Request]) -> list[Answer]:
    """As far as they are there, each with the stage whose checkpoint it was; checked where that is quick."""
    stages = {each.checkpoint.pk: each for each in course.stages if each.checkpoint}
    found = []
    for request in requests:
        answer = Answer(stages.get(request.question.get("checkpoint")), request)
        if request.answer and (rollouts := request.answer.get("rollouts")):
            said = rollouts[0][0]
            answer.text, answer.finished = said["text"], said["finished"]
            answer.verdict = _verdict(course.project, request.question["prompts"][0], answer)
        found.append(answer)
    return found


def _verdict(project: Project, content: Any, answer: Answer) -> dict[str, Any] | None:
    if not project.is_checked or not checking.is_quick(project):
        return None
    prompt = project.prompts.answered().filter(digest=digest(content)).first()
    if prompt is None:
        return None
    if not answer.finished:  # as in training
        return {"correct": False, "reason": checkers.CUT_OFF, "read": ""}
    item = {"prompt": data.prompt_text(content), "answer": answer.text, "reference": prompt.answer}
    try:
        (said,) = checking.rule(project)([item])
    except Refused:
        return None
    return said if said["correct"] is not None else None
