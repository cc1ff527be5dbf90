"""A checker asked by the worker, for whoever tries it and for a project's references: a rule in this process
(what may take long has a process and a time of its own, which rlhf sees to), a judge by the warm child.

What is asked at once instead, and what is kept of it, is said in checking.py."""

from typing import Any

from labeler import checking
from labeler.celery import is_stopping
from labeler.models import Request
from labeler.warm import Interrupted, Later, Unanswerable, folder_of, goes_on, keep, warm, what_for
from rlhf import config

A_FEW = 10  # answers that are read before it is told how far it is


def check(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """What the project's checker says of answers that somebody tries it on; others may pass in between."""
    items, judged = asked["items"], of(request)
    said = [each for body in request.parts.values_list("body", flat=True) for each in body["verdicts"]]
    before = len(said)
    while len(said) < len(items):
        goes_on(request, f"checked {len(said):,} of {len(items):,} answers", len(said) > before)
        some = judged(items[len(said) : len(said) + A_FEW])
        keep(request, {"verdicts": some})
        said += some
    return {"verdicts": said}


def references(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The project's checker reads its own references, a few at a time; it may be another one at the next."""
    project, read = request.project, 0
    while True:
        project.refresh_from_db(fields=["judge", "checker", "judge_model"])
        unchecked = project.prompts.unchecked(project.checker_digest)
        some = list(unchecked[: checking.A_CHUNK]) if project.is_checked else []
        if not some:
            return {"read": read}
        if is_stopping():
            raise Interrupted
        if read and (Request.objects.others_wait() or (not project.checked_by_rule and what_for())):
            raise Later(f"tried {read:,} references")
        every = project.prompts.answered().count()
        request.tell(f"tried {every - unchecked.count():,} of {every:,} references")
        checking.hold(project, some, of(request))
        read += len(some)


def of(request: Request) -> checking.Judging:
    """The checker of a request's project. Raises Unanswerable."""
    project = request.project
    if project.checker_name in config.RULES:
        try:
            return checking.rule(project)
        except config.Refused as refused:
            raise Unanswerable(refused.message, "Change the checker's options.") from None
    if project.judge_model is None:
        raise Unanswerable("The judge has no model.", "Choose one on the checker's settings.")
    asked = {"checkpoint": str(folder_of(project.judge_model_id)), "options": project.checker_options}
    return lambda items: warm.ask("judge", **asked, items=[dict(each) for each in items])["said"]
