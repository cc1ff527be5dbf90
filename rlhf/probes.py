"""Answers that no reward model should like: made from the dataset's own prompts and rollouts, and those
that people marked as nonsense. They are scored beside the real rollouts; one above their median is a hole
that a policy would find.

The same dataset gives the same probes. What is done about a hole is decided where policies are launched.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from rlhf import data
from rlhf.data import Prompt, Ranking

if TYPE_CHECKING:
    from rlhf.reward_model import RewardModel

FILE = "probes.jsonl"  # in a run directory, where people marked something or wrote something down
PROMPTS = 5  # at which every probe is tried that has none of its own
SALAD = 12  # words of a keyword salad
OVER_LONG = 4  # times the longest real rollout
FOREIGN = (  # the one whose letters the dataset knows least is the foreign one
    "Пеликан стоял на берегу и долго смотрел на далёкие корабли.",
    "鹈鹕站在岸边，久久地望着远处的船只。",
    "The pelican stood on the shore and watched the distant ships for a long time.",
)


@dataclass(frozen=True)
class Probe:
    """A bad answer to each of some prompts: to its own, or to the dataset's, because it is bad `anywhere`."""

    name: str
    kind: str
    answers: tuple[tuple[Prompt, str], ...]
    finished: bool = True
    anywhere: bool = False


def bank(rankings: Sequence[Ranking], marked: Path | None = None) -> list[Probe]:
    """The probes of a dataset: the made ones, what its rankings mark as nonsense, and the lines of a file of
    others, if it is there. What two of them name is tried once. A line without a prompt is tried where the
    made ones are. Raises BadLine."""
    lines = [
        data.ProbeLine(ranking.prompt, ranking.rollouts[slot])
        for ranking in rankings
        for slot in sorted(nonsense(ranking))
    ]
    if marked is not None and marked.is_file():
        lines += data.probe_lines(marked)
    named = {(_where(each), each.rollout): each for each in reversed(lines)}
    prompts = [each.prompt for each in _chosen(rankings)]
    told = _made(rankings)
    for number, key in enumerate(sorted(named), start=1):
        line = named[key]
        asked = prompts if line.prompt is None else [line.prompt]
        if asked:
            answers = tuple((prompt, line.rollout) for prompt in asked)
            told.append(Probe(f"marked {number}", line.kind, answers, anywhere=line.prompt is None))
    return told


def _where(line: data.ProbeLine) -> str:
    return "" if line.prompt is None else data.prompt_digest(line.prompt)


def nonsense(ranking: Ranking) -> set[int]:
    """The places of the rollouts that its labeler marked as nonsense."""
    told = ranking.extra.get("nonsense")
    places = range(len(ranking.rollouts))
    return (
        {each for each in told if type(each) is int and each in places} if isinstance(told, list) else set()
    )


def judge(
    model: "RewardModel",
    probes: Sequence[Probe],
    rankings: Sequence[Ranking],
    rewards: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """The probes beside the real rollouts of `rankings`, whose rewards are given. A probe's reward is its
    mean over its prompts; it is above the median where that is above the median real rollout's."""
    real = [
        reward
        for row, ranking in zip(rewards, rankings, strict=True)
        for place, reward in enumerate(row)
        if place not in nonsense(ranking)
    ]
    if not real:
        return {"median_real": None, "worst": None, "above": 0, "probes": []}
    middle = median(real)
    examples = [
        model.encode(prompt, [text], [probe.finished]) for probe in probes for prompt, text in probe.answers
    ]
    scored = iter(row[0] for row in model.rewards_of(examples))
    told: list[dict[str, Any]] = []
    for probe in probes:
        each = [next(scored) for _ in probe.answers]
        prompt, text = probe.answers[0]
        told.append(
            {
                "name": probe.name,
                "kind": probe.kind,
                "prompt": data.prompt_text(prompt),
                "text": text,
                "reward": fmean(each),
                "score": model.score(fmean(each)),
                "above_median": fmean(each) > middle,
                "above_at": sum(reward > middle for reward in each),
                "prompts": len(each),
                "anywhere": probe.anywhere,
            }
        )
    told.sort(key=lambda probe: -probe["reward"])
    return {
        "median_real": model.score(middle),
        "worst": told[0]["name"] if told else None,
        "above": sum(probe["above_median"] for probe in told),
        "probes": told,
    }


def _chosen(rankings: Sequence[Ranking]) -> list[Ranking]:
    """One ranking for each of the first few prompts in the order of their digests."""
    first: dict[str, Ranking] = {}
    for ranking in sorted(rankings, key=lambda each: (each.rollouts, each.ranks)):
        first.setdefault(data.prompt_digest(ranking.prompt), ranking)
    return [first[digest] for digest in sorted(first)[:PROMPTS]]


def _made(rankings: Sequence[Ranking]) -> list[Probe]:
    """The probes that every dataset has."""
    chosen = _chosen(rankings)
    if not chosen:
        return []
    texts = [text for ranking in rankings for text in ranking.rollouts]
    words = max(2, round(median(len(text.split()) for text in texts)))
    longest = OVER_LONG * max(map(len, texts))
    foreign, salad = _foreign(texts), _salad(rankings)
    answers = {
        "empty": [""] * len(chosen),
        "prompt echo": [_asked(each.prompt) for each in chosen],
        "the the the": [" ".join(["the"] * words)] * len(chosen),
        "one character": ["a"] * len(chosen),
        "cut-off": [_best(each)[: (len(_best(each)) + 1) // 2] for each in chosen],
        "foreign script": [foreign] * len(chosen),
        "over-long": [_repeated(_best(each), longest) for each in chosen],
        "keyword salad": [salad] * len(chosen),
    }
    return [
        Probe(
            name,
            name,
            tuple((each.prompt, text) for each, text in zip(chosen, told, strict=True)),
            name != "cut-off",
            anywhere=True,
        )
        for name, told in answers.items()
    ]


def _asked(prompt: Prompt) -> str:
    """What the user said last."""
    if isinstance(prompt, str):
        return prompt
    return next(
        (each["content"] for each in reversed(prompt) if each["role"] == "user"), prompt[-1]["content"]
    )


def _best(ranking: Ranking) -> str:
    """The longest of its best rollouts, which loses most by being cut."""
    best = min(ranking.ranks)
    told = (text for text, rank in zip(ranking.rollouts, ranking.ranks, strict=True) if rank == best)
    return max(told, key=len)


def _repeated(text: str, length: int) -> str:
    """The text over and over, to about this many characters."""
    piece = f"{text or 'a'} "
    return (piece * (length // len(piece) + 1)).strip()


def _foreign(texts: Iterable[str]) -> str:
    known = {letter for text in texts for letter in text.lower() if letter.isalpha()}
    return min(FOREIGN, key=lambda text: sum(letter in known for letter in text.lower()) / len(text))


def _salad(rankings: Iterable[Ranking]) -> str:
    """The words that the best rollouts hold more often than the worst, without a sentence around them."""
    gained: Counter[str] = Counter()
    for ranking in rankings:
        if not ranking.teaches:
            continue
        for text, rank in zip(ranking.rollouts, ranking.ranks, strict=True):
            sign = (rank == min(ranking.ranks)) - (rank == max(ranking.ranks))
            for word in set(re.findall(r"\w+", text.lower())):
                gained[word] += sign
    return " ".join(sorted(gained, key=lambda word: (-gained[word], word))[:SALAD])
