"""The loop of a checked project: problems with answers, a start that was shown worked solutions, practice,
and a look at what came of it; then practice again, from where it ended.

Reads what loop.py has gathered; asks nothing of its own but a run's last measurement. The ranking loop stays
open beside it, for a reward that is mixed of both."""

from django.urls import reverse

from labeler.loop import Standing, Step, live_words, run_url
from labeler.models import Checkpoint, Run
from labeler.templatetags.words import count, figure
from rlhf import config

ON = "Practise on"


def steps(standing: Standing) -> list[Step]:
    return [_problems(standing), _start(standing), _practise(standing), _look(standing)]


def again(standing: Standing) -> Step:
    best = _best(standing.policy)
    url = _launch(standing, "policy", best)
    said = "Once round. More practice goes on from where this run ended, or begins anew with other settings"
    return Step(ON, "next", said, ON, url)


def _problems(standing: Standing) -> Step:
    title = "Import problems"
    if not standing.answered:
        said = "It needs problems whose answers are known"
        if standing.prompts:
            said = f"None of {count(standing.prompts, 'prompt')} has an answer yet"
        return Step(title, "missing", said, "Add problems", _url(standing, "prompts_add"))
    said = f"{standing.answered:,} of {count(standing.prompts, 'prompt')} have an answer"
    if standing.answered == standing.prompts:
        said = f"{count(standing.prompts, 'prompt')}, each with its answer"
    if standing.troubled:
        said += f"; {standing.troubled:,} {'fails' if standing.troubled == 1 else 'fail'} their own checker"
    return Step(title, "done", said, "Add more", _url(standing, "prompts_add"))


def _start(standing: Standing) -> Step:
    """Worked solutions come first where there are any; without them the start practises as it is."""
    title, solved = "Supervised start", count(standing.demonstrations, "worked solution")
    there = f"there {'is' if standing.demonstrations == 1 else 'are'} {solved}"
    start = standing.project.start
    if start is None:
        said = "It needs a starting model"
        return Step(title, "missing", said, "Choose a starting model", _url(standing, "project_edit"))
    run = standing.live.get(Run.Kind.SFT)
    if run and run.config.get("stage") != config.READING:
        return Step(title, "live", live_words(run), f"Watch run {run.pk}", run_url(run))
    if standing.taught:
        said = f"Run {standing.taught.pk} was shown worked solutions; {there} now"
        return Step(title, "done", said, "Show them again", _launch(standing, "sft"))
    if not standing.demonstrations:
        said = "There are no worked solutions: practice begins with the starting model as it is"
        return Step(title, "passed", said, "Import some", _url(standing, "imports"))
    if start.was_finetuned:
        said = f"“{start}” was finetuned before; {there} here"
        return Step(title, "passed", said, "Show them to it", _launch(standing, "sft"))
    state = "passed" if standing.policy else "open"
    said = f"{solved} to be shown to “{start}” before it practises"
    return Step(title, state, said, "Show worked solutions", _launch(standing, "sft"))


def _practise(standing: Standing) -> Step:
    title, by_rule = "Practise", standing.project.checked_by_rule
    if run := standing.live.get(Run.Kind.POLICY):
        return Step(title, "live", live_words(run), f"Watch run {run.pk}", run_url(run))
    if standing.policy:
        said = f"Run {standing.policy.pk} is finished{_came_to(standing.policy)}"
        return Step(title, "done", said, "Practise again", _launch(standing, "policy"))
    if not standing.answered or not standing.project.start_id:
        return Step(title, "missing", "It needs problems with answers, and a model that tries them", "", "")
    cap = "a rule, so there is no cap" if by_rule else "a model, so there is a cap"
    said = f"Many answers to each problem, and more of what is right. The {standing.project.checker_name} "
    said += f"checker judges, which is {cap}"
    return Step(title, "open", said, title, _launch(standing, "policy", _best(standing.taught)))


def _look(standing: Standing) -> Step:
    title, url = "Look", _url(standing, "checkers")
    if not standing.policy:
        return Step(title, "missing", "It needs a finished practice", "", "")
    if standing.looked:
        return Step(title, "done", "Verdicts of the checker were confirmed or overruled", "Look again", url)
    said = "What it wrote, and what the checker said of that: confirm a few verdicts, overrule what is wrong"
    return Step(title, "open", said, "Read its answers", url)


def _came_to(run: Run) -> str:
    """The last accuracy that was measured on problems that it never practised; else of what it practised."""
    for name, words in (("held_out_accuracy", "of problems held out"), ("accuracy", "of its last step")):
        step = run.steps.filter(metrics__has_key=name).order_by("-step").first()
        if step:
            return f": {figure(step.metrics[name], 'percent')} {words} are right"
    return ""


def _best(run: Run | None) -> Checkpoint | None:
    return run.checkpoints.order_by("-suggested", "-step").first() if run else None


def _launch(standing: Standing, kind: str, start: Checkpoint | None = None) -> str:
    address = reverse("run_new", args=[standing.project.slug, kind])
    return f"{address}?start={start.pk}" if start else address


def _url(standing: Standing, name: str) -> str:
    return reverse(name, args=[standing.project.slug])
