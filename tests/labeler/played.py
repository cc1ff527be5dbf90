"""Answers of the playground as the worker's warm child tells them, part by part."""

import math
from collections.abc import Sequence

from labeler.models import Checkpoint, Project, Request, User

WORDS = ["Why", " did", " the", " pelican", "\n", "honk", "?"]


def policy(project: Project | None, name: str = "Start", **more) -> Checkpoint:
    return Checkpoint.objects.create(project=project, name=name, location=f"checkpoints/{name}", **more)


def token(text: str, number: int, chance: float = 0.5, entropy: float = 1.25) -> dict:
    others = [{"id": 900 + each, "text": f" other{each}", "chance": 0.2 / (each + 1)} for each in range(2)]
    return {"id": number, "text": text, "log_prob": math.log(chance), "entropy": entropy, "others": others}


def tokens(words: Sequence[str] = WORDS) -> list[dict]:
    """The later, the less likely; closed by the end of a text."""
    told = [token(text, 100 + place, 1 / (1 + place)) for place, text in enumerate(words)]
    return [*told, token("<|end|>", 2) | {"special": True}]


def whole(number: int, text: str | None = None, **more) -> dict:
    """The last that is told of a rollout."""
    text = "".join(WORDS) + f" ({number})" if text is None else text
    told = {"number": number, "text": text, "length": len(WORDS) + 1, "finished": True, "log_prob": -8.5}
    return told | {"more": text, "tokens": tokens()} | more


def asked(project: Project, by: User | None, *checkpoints: Checkpoint, prompt="Joke?", **more) -> Request:
    """A question that waits; nobody is rung for."""
    question = {
        "checkpoints": [each.pk for each in checkpoints],
        "names": [each.name for each in checkpoints],
        "reward_model": None,
        "prompts": [prompt],
        "reference": "",
        "temperature": 1.0,
        "top_p": 0.9,
        "max_new_tokens": 40,
        "count": 3,
        "seed": 4,
    }
    return Request.objects.create(
        project=project, kind=Request.Kind.PLAY, question=question | more, created_by=by
    )


def tell(request: Request, *bodies: dict, side: int = 0) -> Request:
    """Parts, as the worker keeps them."""
    for body in bodies:
        request.parts.create(number=request.parts.count() + 1, body={"side": side, **body})
    return request


def answer(request: Request, texts: Sequence[str | None] = (None, None, None)) -> Request:
    """All that is to be said, of every side."""
    for side in range(len(request.question["checkpoints"])):
        prompt = {"length": 3, "cut": 0, "longest": 40}
        begin = {"id": 7, "text": "<|user|>", "special": True}
        prompt["tokens"] = [begin, {"id": 8, "text": "Joke"}, {"id": 9, "text": "?"}]
        rollouts = [whole(number, text) for number, text in enumerate(texts)]
        sums = {"written": len(texts), "tokens": 24, "first": 0.25, "seconds": 2.0, "stopped": False}
        tell(request, {"prompt": prompt}, {"rollouts": rollouts, "so_far": 24}, {"sums": sums}, side=side)
    Request.objects.filter(pk=request.pk).update(state="answered", answer={"stopped": False})
    request.refresh_from_db()
    return request
