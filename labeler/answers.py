"""Answers for people who wait: what each kind of request asks the warm child (labeler/warm.py), and what is
made of what it says.

Which request is answered when is decided in tasks.py."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import transaction

from labeler import gathering, harvest, judging, simulated
from labeler.celery import is_stopping
from labeler.checking import Judging
from labeler.models import Checkpoint, Harvest, Purpose, Quintet, Request, Run
from labeler.uncertainty import disagreement, uncertainty
from labeler.warm import Interrupted, Unanswerable, Warm, runs_here
from rlhf import checkers, data

ROOM = 64_000_000  # bytes of one answer's parts, at which it ends
PAGES_OWN = ("checkpoint", "name", "prompt", "reference")  # of a question: what the child is not told
A_FEW = 8  # answers that the reward model reads at once
DOWNLOADED = 20  # runs in whose folders a start from the Hub is looked for
A_CHUNK = 32  # quintets that the reward model reads before it looks whether somebody else waits

warm = Warm()


class Later(Exception):
    """A part is done, and others come before the rest; how far it is, in words."""


def what_for() -> str:
    """What an answer has to wait for, in words; nothing where it need not. A graphics card holds a run's
    models and not also ours; beside a run on the processor an answer is only slower."""
    run = runs_here().first()
    if run is None or run.device.startswith("cpu"):
        return ""
    return f"waiting for run {run.pk} to finish"


def answer(request: Request) -> dict[str, Any]:
    """What was asked for. Raises Unanswerable, Interrupted, Later."""
    with warm.busy:
        return KINDS[request.kind](request, request.question)


def _compare(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    options = {name: asked[name] for name in ("temperature", "max_new_tokens", "seed")}
    sides = {}
    for side, words in (("before", "the starting model"), ("after", "the tuned model")):
        request.tell(f"{words} answers")
        folder = _folder(asked[side], request.run)
        said = warm.ask("sample", checkpoint=str(folder), prompts=asked["prompts"], count=1, **options)
        sides[side] = [{"text": one["text"], "finished": one["finished"]} for [one] in said["rollouts"]]
    items = [
        {"prompt": prompt, "before": before, "after": after}
        for prompt, before, after in zip(asked["prompts"], sides["before"], sides["after"], strict=True)
    ]
    if asked.get("reward_model"):
        request.tell("the reward model reads the answers")
        both = [
            {"prompt": each["prompt"], "rollouts": [each["before"]["text"], each["after"]["text"]]}
            for each in items
        ]
        said = warm.ask("score", checkpoint=str(_folder(asked["reward_model"])), items=both)
        for item, (before, after) in zip(items, said["scores"], strict=True):
            item["before"]["score"], item["after"]["score"] = before, after
    return {"items": items}


def _sample(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the model answers")
    options = {name: value for name, value in asked.items() if name not in PAGES_OWN}
    folder = _folder(asked["checkpoint"])
    if not asked.get("stream"):
        return {"rollouts": warm.ask("sample", checkpoint=str(folder), **options)["rollouts"]}
    if asked["stream"] == "tokens":
        request.parts.all().delete()  # an answer that is read word by word begins anew
    told: dict[str, Any] = {}
    checked = asked.get("reference")
    rule = judging.of(request) if checked and request.project.checked_by_rule else None
    for told in streamed(request, folder, options):
        if "prompt" in asked and told.get("rollouts"):
            told = _as_tiles(told, asked, rule)
        if "written" not in told and not request.keep(told):
            raise Interrupted
    if checked and not rule:
        _judge_parts(request, asked)
    return told


def _as_tiles(told: dict[str, Any], asked: dict[str, Any], judge: Judging | None) -> dict[str, Any]:
    """A part with what the checker says of each of its rollouts, and with these as tiles: number, length and
    verdict, which is all that a page reads of thousands. As in training what was cut off is not correct; of
    what somebody stopped nobody knows."""
    text, rollouts = data.prompt_text(asked["prompts"][0]), told["rollouts"]
    ended = [each for each in rollouts if each["finished"]]
    items = [{"prompt": text, "answer": each["text"], "reference": asked["reference"]} for each in ended]
    for each, said in zip(ended, judge(items) if judge and items else [], strict=bool(judge)):
        each |= {"correct": said["correct"], "checked": said["reason"], "read": said["read"]}
    for each in rollouts if judge else []:
        if not each["finished"]:
            correct = None if each.get("stopped") else False
            each |= {"correct": correct, "checked": checkers.CUT_OFF, "read": ""}
    return told | {"tiles": [[each["number"], each["length"], each.get("correct")] for each in rollouts]}


def _judge_parts(request: Request, asked: dict[str, Any]) -> None:
    """A judge is a model, which the warm child asks when it has written all: part by part, until it is
    enough."""
    judge, read = judging.of(request), 0
    for pk in list(request.parts.filter(body__has_key="tiles").values_list("pk", flat=True)):
        if request.is_to_stop():
            break
        part = request.parts.get(pk=pk)
        part.body = _as_tiles(part.body, asked, judge)
        part.save(update_fields=["body"])
        read += len(part.body["rollouts"])
        request.tell(f"the judge has read {read:,} answers")


def streamed(request: Request, folder: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is being written for a request, part after part, and at last how much that was: rlhf/stream.py
    says what is in them, and whoever asks keeps them. Thousands of rollouts let others pass, and go on
    afterwards with those that are missing. Raises Unanswerable, Interrupted, Later."""
    parts, many = request.parts.all(), options["stream"] == "rollouts"
    have = parts.written() if many else []
    size, told, full = parts.size(), len(have), False

    def enough() -> bool:
        return full or request.is_to_stop()

    question = options | {"checkpoint": str(folder), "have": have}
    with contextlib.closing(warm.stream("sample", enough, **question)) as talk:
        for said in talk:
            rollouts = said.get("rollouts", [])
            told += sum("text" in each for each in rollouts)
            if rollouts or "prompt" in said:
                size += len(json.dumps(said))
                full = size > ROOM
                yield said
            words = f"{told:,} of {options['count']:,} rollouts are written"
            if "written" in said:
                sums = said | {"written": told, "full": full}
                yield {name: value for name, value in sums.items() if name != "id"}
            elif many and "so_far" in said:
                request.tell(words)
                if what_for() or Request.objects.read_along():
                    raise Later(f"{words}; others come first")


def _play(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The playground: one checkpoint after the other answers, read word by word; then the reward model says
    what it thinks of each answer, and the checker whether it is correct."""
    request.parts.all().delete()
    names = ("prompts", "count", "temperature", "top_p", "max_new_tokens", "seed")
    options = {name: asked[name] for name in names} | {"stream": "tokens"}
    for side, (pk, name) in enumerate(zip(asked["checkpoints"], asked["names"], strict=True)):
        if request.is_to_stop():
            break
        request.tell(f"{name} is being loaded")
        texts: dict[int, str] = {}
        for said in streamed(request, _folder(pk), options):
            if "prompt" in said:
                request.tell(f"{name} answers")
            texts |= {each["number"]: each["text"] for each in said.get("rollouts", []) if "text" in each}
            _keep(request, side, {"sums": said} if "written" in said else said)
        if not request.is_to_stop():
            _judge(request, asked, side, dict(sorted(texts.items())))
    return {"stopped": request.is_to_stop()}


def _judge(request: Request, asked: dict[str, Any], side: int, texts: dict[int, str]) -> None:
    """What is thought of one side's answers. Where nothing can be said, that is told and the rest stays."""
    prompt = asked["prompts"][0]
    try:
        if asked["reward_model"]:
            request.tell("the reward model reads the answers")
            judge, numbers = str(_folder(asked["reward_model"])), list(texts)
            for first in range(0, len(texts), A_FEW):
                some = numbers[first : first + A_FEW]
                items = [{"prompt": prompt, "rollouts": [texts[number] for number in some]}]
                said = warm.ask("score", checkpoint=judge, items=items)
                found = zip(some, said["rewards"][0], said["scores"][0], strict=True)
                _keep(request, side, {"scores": [list(each) for each in found]})
    except Unanswerable as unanswerable:
        _keep(request, side, {"trouble": f"No scores: {unanswerable.reason} {unanswerable.remedy}".strip()})
    try:
        if asked["reference"]:
            request.tell("the checker reads the answers")
            text = data.prompt_text(prompt)
            items = [
                {"prompt": text, "answer": each, "reference": asked["reference"]} for each in texts.values()
            ]
            verdicts = zip(texts, judging.of(request)(items), strict=True)
            _keep(request, side, {"verdicts": [list(each) for each in verdicts]})
    except Unanswerable as unanswerable:
        _keep(request, side, {"trouble": f"No verdicts: {unanswerable.reason} {unanswerable.remedy}".strip()})


def _keep(request: Request, side: int, body: dict[str, Any]) -> None:
    if not request.keep({"side": side, **body}):
        raise Interrupted


def _score(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the reward model reads the answers")
    said = warm.ask("score", checkpoint=str(_folder(asked["checkpoint"])), items=asked["items"])
    return {"rewards": said["rewards"], "scores": said["scores"]}


def _order(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The reward model reads what waits, chunk by chunk; then the queue is ordered by how unsure it was."""
    folder, judge = _folder(asked["checkpoint"]), Checkpoint.objects.get(pk=asked["checkpoint"])
    waiting = request.project.quintets.waiting().filter(purpose=Purpose.WORK)
    unread = waiting.exclude(scored_by=judge).order_by("pk").select_related("prompt")
    total, read, last = unread.count(), 0, 0
    while chunk := list(unread.filter(pk__gt=last).prefetch_related("rollouts")[:A_CHUNK]):
        if read and (what_for() or Request.objects.others_wait()):
            raise Later(f"read {read:,} of {total:,} quintets; others come first")
        request.tell(f"the reward model has read {read:,} of {total:,} waiting quintets")
        _read(chunk, judge, folder)
        read, last = read + len(chunk), chunk[-1].pk
    Quintet.objects.reorder(request.project)
    return {"checkpoint": judge.pk, "read": read}


def _read(quintets: list[Quintet], judge: Checkpoint, folder: Path) -> None:
    """Keep with each quintet how unsure the judge is of it."""
    texts = [[rollout.text for rollout in each.rollouts.all()] for each in quintets]
    items = [
        {"prompt": each.prompt.content, "rollouts": row} for each, row in zip(quintets, texts, strict=True)
    ]
    said = warm.ask("score", checkpoint=str(folder), items=items)
    measure, told = (disagreement, "spreads") if "spreads" in said else (uncertainty, "rewards")
    for quintet, row, numbers in zip(quintets, texts, said[told], strict=True):
        quintet.uncertainty = measure(numbers, row, judge.lineage.get("tau") or 1.0)
        quintet.scored_by = judge
    Quintet.objects.bulk_update(quintets, ["uncertainty", "scored_by"])


def _try(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """A dry pass for the launch form (preview.py): how fast the start writes and learns here."""
    request.tell("the model is tried out")
    options = {name: asked[name] for name in ("prompts", "max_new_tokens", "at_once", "train")}
    folder = _folder(asked["checkpoint"])
    said = warm.ask("try", checkpoint=str(folder), **options)
    return {name: value for name, value in said.items() if name != "id"}


def _harvest(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Look through what a policy run wrote. Nothing is sampled or scored: it has all been."""
    found = Harvest.objects.select_related("run", "project").get(pk=asked["harvest"])
    run = found.run
    wrote = run.directory / "rollouts.jsonl.zst"
    if not wrote.is_file():
        raise Unanswerable(f"What run {run.pk} wrote is not on this machine.", "Look through another run.")
    looked = harvest.look(
        wrote,
        run.step,
        found.limit,
        found.marked(),
        found.decided(),
        found.answered(),
        tell=lambda read: request.tell(f"looked at {read:,} rollouts"),
    )
    with transaction.atomic():
        if not request.mine().select_for_update(no_key=True).exists():
            raise Interrupted
        offered = found.keep(looked, harvest.prompt_numbers(run.directory / "prompts.jsonl"))
    return {"harvest": found.pk, "rollouts": looked.rollouts, "offered": offered}


def _simulate(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Simulated labelers rank what waits, in a project where an admin has switched them in."""
    request.project.refresh_from_db(fields=["simulated_labelers"])
    if not request.project.simulated_labelers:
        raise Unanswerable("Simulated labelers are switched off in this project.", "Switch them in.")
    try:
        told = simulated.rank(
            request.project, request.tell, lambda: is_stopping() or Request.objects.others_wait()
        )
    except simulated.NobodyToRank as nobody:
        raise Unanswerable(str(nobody), "Give that person another name.") from nobody
    if told["left"]:
        raise Later(f"simulated labelers have made {told['ranked']:,} rankings; others come first")
    return told


def _gather(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """Count the rollouts that could be demonstrations, or make them such. Nothing is sampled or scored."""
    try:
        return gathering.answer(request, asked)
    except gathering.NotThere as gone:
        raise Unanswerable(str(gone), "Take another run.") from gone
    except gathering.Lost:
        raise Interrupted from None


KINDS = {
    "compare": _compare,
    "sample": _sample,
    "score": _score,
    "order": _order,
    "harvest": _harvest,
    "simulate": _simulate,
    "try": _try,
    "gather": _gather,
    "check": judging.check,
    "references": judging.references,
    "play": _play,
}


def _folder(pk: int | None, run: Run | None = None) -> Path:
    """Where a checkpoint's files are. A start from the Hub lies where the run has downloaded it."""
    checkpoint = Checkpoint.objects.filter(pk=pk or 0).first()
    if checkpoint is None:
        raise Unanswerable("The checkpoint is no longer known.", "Choose another.")
    began = [run] if run else checkpoint.started_runs.order_by("-pk")[:DOWNLOADED]
    there = (each.directory / "inputs" / "policy" for each in began)
    folder = checkpoint.folder or next((each for each in there if each.is_dir()), None)
    if folder is None or not folder.is_dir():
        raise Unanswerable(
            f"The files of “{checkpoint}” are not on this machine.", "Choose another checkpoint."
        )
    return folder
