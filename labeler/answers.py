"""Answers for people who wait: what each kind of request asks the warm child (labeler/warm.py), and what is
made of what it says.

Which request is answered when is decided in tasks.py."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from django.db import transaction

from labeler import gathering, harvest, judging, simulated
from labeler.celery import is_stopping
from labeler.checking import Item, Judging
from labeler.models import Checkpoint, Harvest, Purpose, Quintet, Request
from labeler.playground import Said, Sitting
from labeler.uncertainty import disagreement, uncertainty
from labeler.warm import Interrupted, Later, Unanswerable, folder_of, goes_on, keep, warm, what_for
from rlhf import checkers, data

ROOM = 64_000_000  # bytes of one answer's parts, at which it ends
PAGES_OWN = ("checkpoint", "name", "prompt", "reference")  # of a question: what the child is not told
A_FEW = 8  # answers that are judged at once
A_TURN = 10.0  # seconds that a question is written for in the playground before it lets others pass
A_CHUNK = 32  # quintets that the reward model reads before it looks whether somebody else waits


def answer(request: Request) -> dict[str, Any]:
    """What was asked for. Raises Unanswerable, Interrupted, Later."""
    with warm.busy:
        return KINDS[request.kind](request, request.question)


def _compare(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    options = {name: asked[name] for name in ("temperature", "max_new_tokens", "seed")}
    sides = {}
    for side, words in (("before", "the starting model"), ("after", "the tuned model")):
        request.tell(f"{words} answers")
        folder = folder_of(asked[side], request.run)
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
        said = warm.ask("score", checkpoint=str(folder_of(asked["reward_model"])), items=both)
        for item, (before, after) in zip(items, said["scores"], strict=True):
            item["before"]["score"], item["after"]["score"] = before, after
    if any(asked.get("references", ())):
        request.tell("the checker reads the answers")
        # A judge without its model keeps nobody from reading what was written.
        with contextlib.suppress(Unanswerable):
            judge = judging.of(request)
            for item, reference in zip(items, asked["references"], strict=True):
                about = {"prompts": [item["prompt"]], "reference": reference}
                if reference:
                    _mark([item["before"], item["after"]], about, judge)
    return {"items": items}


def _sample(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the model answers")
    options = {name: value for name, value in asked.items() if name not in PAGES_OWN}
    if not asked.get("stream"):
        folder = folder_of(asked["checkpoint"])
        return {"rollouts": warm.ask("sample", checkpoint=str(folder), **options)["rollouts"]}
    checked, shown = asked.get("reference"), "prompt" in asked  # shown as tiles
    rule = _once(judging.of(request)) if checked and request.project.checked_by_rule else None

    def kept(told: dict[str, Any]) -> dict[str, Any]:
        return _as_tiles(told, asked, rule) if shown and told.get("rollouts") else told

    sums = _write(request, asked["checkpoint"], options, "the model", kept)
    unread = _judge_parts(request, asked, sums["written"]) if checked and not rule else 0
    return sums | ({"stopped": True, "unread": unread} if unread else {})


def _verdicts(
    judge: Judging, asked: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the checker says of each. As in training what was cut off is not correct, whatever half an answer
    happens to end with; of what somebody stopped nobody knows."""
    text, ended = data.prompt_text(asked["prompts"][0]), [each for each in rollouts if each["finished"]]
    items = [{"prompt": text, "answer": each["text"], "reference": asked["reference"]} for each in ended]
    said = iter(judge(items) if items else [])
    cut = {"correct": False, "reason": checkers.CUT_OFF, "read": ""}
    stopped = {"correct": None, "reason": "It was stopped before it ended.", "read": ""}
    return [next(said) if each["finished"] else stopped if each.get("stopped") else cut for each in rollouts]


def _once(judge: Judging) -> Judging:
    """The same for answers to one prompt, asked about each once, however many rollouts say it."""
    known: dict[bytes, dict[str, Any]] = {}

    def judged(items: Sequence[Item]) -> list[dict[str, Any]]:
        marks = [
            blake2b(each["answer"].encode(errors="surrogatepass"), digest_size=16).digest() for each in items
        ]
        new = {mark: each for mark, each in zip(marks, items, strict=True) if mark not in known}
        known.update(zip(new, judge(list(new.values())) if new else [], strict=True))
        return [known[mark] for mark in marks]

    return judged


def _as_tiles(told: dict[str, Any], asked: dict[str, Any], judge: Judging | None) -> dict[str, Any]:
    """A part with what the checker says of each of its rollouts, and with these as tiles: number, length and
    verdict, which is all that a page reads of thousands."""
    rollouts = told["rollouts"]
    if judge:
        _mark(rollouts, asked, judge)
    return told | {"tiles": [[each["number"], each["length"], each.get("correct")] for each in rollouts]}


def _mark(rollouts: list[dict[str, Any]], asked: dict[str, Any], judge: Judging) -> None:
    for each, said in zip(rollouts, _verdicts(judge, asked, rollouts), strict=True):
        each |= {"correct": said["correct"], "checked": said["reason"], "read": said.get("read", "")}


def _judge_parts(request: Request, asked: dict[str, Any], total: int) -> int:
    """A judge is a model, which the warm child asks when it has written all: a few answers at a time, until
    it is enough. How many it has not read then. Raises Unanswerable, Interrupted, Later."""
    judge, parts = _once(judging.of(request)), request.parts.filter(body__has_key="tiles")
    read = before = len(parts.numbers("checked"))
    for pk in list(parts.values_list("pk", flat=True)):
        part = parts.get(pk=pk)
        unread = [each for each in part.body["rollouts"] if "checked" not in each]
        for first in range(0, len(unread), A_FEW):
            if not goes_on(request, f"the judge has read {read:,} of {total:,} answers", read > before):
                return total - read
            some = unread[first : first + A_FEW]
            _mark(some, asked, judge)
            part.body = _as_tiles(part.body, asked, None)
            part.save(update_fields=["body"])
            read += len(some)
    return total - read


def _write(
    request: Request,
    checkpoint: int,
    options: dict[str, Any],
    who: str,
    kept: Callable[[dict[str, Any]], dict[str, Any]],
    side: int | None = None,
) -> dict[str, Any]:
    """Have the rollouts written that are not there yet, and keep each part as it is to be `kept`; then how
    much that was. rlhf/stream.py says what is in a part. Others may pass: what has begun is put down then,
    and gone on with afterwards. Raises Unanswerable, Interrupted, Later."""
    parts = request.parts.of(side)
    if sums := parts.sums():
        return sums
    have, before, folder = parts.numbers("text"), parts.take_up(), folder_of(checkpoint)
    written, size, full = len(have), request.parts.size(), False
    turn, began, told = A_TURN if options["stream"] == "tokens" else 0.0, 0.0, ""
    said: dict[str, Any] = {}

    def enough() -> str:
        if full or request.is_to_stop():
            return "stop"
        if not began:
            return ""
        over = time.monotonic() - began >= turn
        return "pause" if what_for() or (over and Request.objects.short_ones_wait()) else ""

    question = options | {"checkpoint": str(folder), "have": have, "begun": before.get("drafts", [])}
    with contextlib.closing(warm.stream("sample", enough, **question)) as talk:
        for said in talk:
            if "written" in said:
                break
            if said.get("rollouts") or "prompt" in said:
                size += len(json.dumps(said))
                full = size > ROOM
                keep(request, kept(said), side)
            written += sum("text" in each for each in said.get("rollouts", []))
            if "so_far" in said:
                began = began or time.monotonic()
                words = f"{who} has written {written:,} of {options['count']:,} rollouts"
                if told != (told := words):
                    request.tell(words)
    sums = _added(before.get("sums", {}), said) | {"written": written, "full": full}
    if "drafts" in said:
        keep(request, {"paused": {"drafts": said["drafts"], "sums": sums}}, side)
        raise Later(told)
    keep(request, {"sums": sums}, side)
    return sums


def _added(before: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The sums of all turns; the first word came in the first."""
    sums = {name: value for name, value in said.items() if name not in ("id", "drafts")}
    for name in {"tokens", "seconds"} & sums.keys() & before.keys():
        sums[name] += before[name]
    return sums | ({"first": before["first"]} if before.get("first") is not None else {})


def _play(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The playground: one checkpoint after the other answers, read word by word; then the reward model says
    what it thinks of each answer, and the checker whether it is correct. What is there already stays."""
    names = ("prompts", "count", "temperature", "top_p", "max_new_tokens", "seed")
    options = {name: asked[name] for name in names} | {"stream": "tokens"}
    for side, (pk, name) in enumerate(zip(asked["checkpoints"], asked["names"], strict=True)):
        if request.is_to_stop():
            break
        request.tell(f"{name} is being loaded")
        _write(request, pk, options, name, dict, side)
        said = [one for one in Sitting(request).read().sides[side].rollouts if one.ended]
        if asked["reward_model"]:
            unread = [one for one in said if one.score is None]
            _judge(request, side, unread, len(said), "the reward model", "scores", _scores)
        if asked["reference"]:
            unread = [one for one in said if one.verdict is None]
            _judge(request, side, unread, len(said), "the checker", "verdicts", _checked)
    return {"stopped": request.is_to_stop()}


def _judge(
    request: Request,
    side: int,
    unread: list[Said],
    total: int,
    who: str,
    what: str,
    thoughts: Callable[[Request, list[Said]], list[list[Any]]],
) -> None:
    """What somebody thinks of one side's answers, a few at a time. Where nothing can be said, that is told
    and the rest stays."""
    try:
        for first in range(0, len(unread), A_FEW):
            read = total - len(unread) + first
            if not goes_on(request, f"{who} has read {read:,} of {total:,} answers", first > 0):
                return
            keep(request, {what: thoughts(request, unread[first : first + A_FEW])}, side)
    except Unanswerable as none:
        keep(request, {"trouble": f"No {what}: {none.reason} {none.remedy}".strip()}, side)


def _scores(request: Request, some: list[Said]) -> list[list[Any]]:
    asked = request.question
    items = [{"prompt": asked["prompts"][0], "rollouts": [one.text for one in some]}]
    said = warm.ask("score", checkpoint=str(folder_of(asked["reward_model"])), items=items)
    numbers = [one.number for one in some]
    return [list(each) for each in zip(numbers, said["rewards"][0], said["scores"][0], strict=True)]


def _checked(request: Request, some: list[Said]) -> list[list[Any]]:
    said = _verdicts(judging.of(request), request.question, [vars(one) for one in some])
    return [[one.number, each] for one, each in zip(some, said, strict=True)]


def _score(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    request.tell("the reward model reads the answers")
    said = warm.ask("score", checkpoint=str(folder_of(asked["checkpoint"])), items=asked["items"])
    return {"rewards": said["rewards"], "scores": said["scores"]}


def _order(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The reward model reads what waits, chunk by chunk; then the queue is ordered by how unsure it was."""
    folder, judge = folder_of(asked["checkpoint"]), Checkpoint.objects.get(pk=asked["checkpoint"])
    waiting = request.project.quintets.waiting().filter(purpose=Purpose.WORK)
    unread = waiting.exclude(scored_by=judge).order_by("pk").select_related("prompt")
    total, read, last = unread.count(), 0, 0
    while chunk := list(unread.filter(pk__gt=last).prefetch_related("rollouts")[:A_CHUNK]):
        if read and (what_for() or Request.objects.others_wait()):
            raise Later(f"read {read:,} of {total:,} quintets")
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
    folder = folder_of(asked["checkpoint"])
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
        raise Later(f"simulated labelers have made {told['ranked']:,} rankings")
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
