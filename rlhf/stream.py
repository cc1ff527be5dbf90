"""Rollouts of one prompt, told while they are written: token by token for whoever reads along, or one by one
as they end, where there are thousands.

They are written in portions, and a portion is forgotten when it is told, so that ten thousand take no more
memory than the first few. Every rollout has chances of its own (`sample.chances_of`): number 7 of a seed says
the same whether it is one of ten or of a thousand, and after an interruption those that are missing are
written alone. What is told to "pause" is handed back as drafts, which may be gone on with at any time.

The first part is about the `prompt`: its length, how much of its beginning was cut off, how long a rollout
may be beside it (`longest`), where a model takes only so many tokens, and which drafts are gone on with
(`drafts`). Every other holds `rollouts`,
each with its `number`. In the form "tokens" that is `more`, the text that came since, and `tokens`, each with
its id, text, log-probability, the entropy in nats of what it was drawn from and the likeliest others; of at
most LOOKED tokens of a request. When a rollout has ended, in both forms, it is told whole: `text`, `length`,
`log_prob` (the sum) and `finished`. A part without rollouts is a sign of life; `so_far` counts tokens.
Log-probabilities are at the temperature that was asked for, before top-p.
"""

import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Any

import torch

from rlhf import checkpoint
from rlhf.data import Prompt
from rlhf.memory import ran_out
from rlhf.sample import Moment, chances_of, distribution, fitted, sample

FORMS = ("tokens", "rollouts")
MOST = 10_000  # rollouts of a prompt
PORTION = 64  # rollouts at once, and
TOKENS = 1 << 17  # tokens, of whichever there are fewer
READ = 1 << 14  # tokens of drafts that are read at once
STOP, PAUSE = "stop", "pause"
EVERY = {"tokens": 0.2, "rollouts": 0.5}  # seconds from one part to the next
LOOKED = 20_000  # tokens of a request of which all is told
OTHERS = 5  # tokens that might have come instead
SHOWN = 2_000  # tokens of a prompt

Say = Callable[[dict[str, Any]], None]
Halted = Callable[[], str]  # whether to go on (an empty word), or to STOP or PAUSE


@dataclass(frozen=True)
class Wish:
    """What somebody asks for."""

    count: int = 1
    longest: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass
class Draft:
    """A rollout that is being written."""

    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    said: int = 0  # characters of its text that were told
    news: list[dict[str, Any]] = field(default_factory=list)  # tokens that were not

    def put_down(self, number: int) -> dict[str, Any]:
        """As whoever asks may keep it, and hand it back."""
        return {"number": number, "tokens": self.tokens, "log_prob": self.log_prob, "said": self.said}


def stream(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    wish: Wish,
    form: str,
    have: Set[int],
    say: Say,
    halted: Halted,
    begun: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Write the rollouts that are not there yet, those first that are `begun`, and say part after part; then
    how many, and how fast it went."""
    asked = checkpoint.encode_prompt(tokenizer, prompt)
    wish = replace(wish, longest=room(model, len(asked), wish.longest))
    ids = fitted(asked, model, wish.longest)
    words = Words(tokenizer)
    teller = Teller(wish, form, words, say, begun)
    told: dict[str, Any] = {"length": len(asked), "cut": len(asked) - len(ids), "longest": wish.longest}
    if form == "tokens":
        told["tokens"] = [words.of(each) for each in ids[-SHOWN:]]
    if begun:
        told["drafts"] = sorted(teller.drafts)
    say({"prompt": told})
    numbers = [number for number in range(wish.count) if number not in have]
    numbers.sort(key=teller.length, reverse=True)
    size = max(1, min(PORTION, TOKENS // (len(ids) + wish.longest)))
    while numbers and not halted():
        some = teller.begin(numbers, size, len(ids))
        chances = chances_of(wish.seed, [(0, number) for number in some], wish.longest)[:, teller.place :]
        prompts = [ids + teller.drafts[number].tokens for number in some] if teller.place else [ids]
        options = (wish.longest - teller.place, wish.temperature, chances, wish.top_p)
        try:
            count = len(some) // len(prompts)
            sample(model, tokenizer, prompts, count, *options, lambda each: teller.hear(each, halted))
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error) or len(some) == 1:
                raise
            size = len(some) // 2  # each goes on from where it is
        teller.end()
        numbers = [number for number in numbers if number not in teller.over]
    how = halted() if numbers else ""
    if how == STOP:
        teller.cut()
    drafts = {"drafts": [draft.put_down(number) for number, draft in teller.drafts.items()]}
    return teller.sums() | {"stopped": how == STOP} | (drafts if how == PAUSE else {})


def room(model: Any, prompt: int, longest: int) -> int:
    """How long a rollout may be: where the model cannot take it and the prompt together, as much as the
    prompt leaves, but half of all at least. A prompt that does not fit then loses its beginning."""
    limit = checkpoint.longest(model)
    return longest if limit is None else min(longest, limit - min(prompt, limit // 2))


class Teller:
    """Hears what is written place by place, and tells it a few times a second."""

    def __init__(self, wish: Wish, form: str, words: "Words", say: Say, begun: Sequence[dict[str, Any]] = ()):
        self.wish, self.words, self.say = wish, words, say
        self.looks, self.every = form == "tokens", EVERY[form]
        self.room = LOOKED // wish.count  # tokens of a rollout of which all is told
        self.numbers: list[int] = []
        self.drafts = {  # those that have not ended
            each["number"]: Draft(each["tokens"], each["log_prob"], each["said"]) for each in begun
        }
        self.ended: list[dict[str, Any]] = []  # those that have, and were not told
        self.over: set[int] = set()  # all that have
        self.tokens = self.place = 0
        self.began = self.last = time.perf_counter()
        self.first: float | None = None  # seconds to the first token

    def length(self, number: int) -> int:
        """How many tokens of it are written; of one that has not begun, none."""
        return len(self.drafts[number].tokens) if number in self.drafts else 0

    def begin(self, numbers: list[int], size: int, asked: int) -> list[int]:
        """The next portion: the first of these, as long as they have come equally far. Drafts are read anew,
        so that long ones are fewer."""
        self.place = self.length(numbers[0])
        if self.place:
            size = max(1, min(size, READ // (asked + self.place)))
        alike = takewhile(lambda number: self.length(number) == self.place, numbers)
        self.numbers = list(islice(alike, size))
        for number in self.numbers:
            self.drafts.setdefault(number, Draft())
        return self.numbers

    def hear(self, moment: Moment, halted: Halted) -> bool:
        """One place of all rollouts that are still written; whether to go on."""
        if self.first is None:
            self.first = time.perf_counter() - self.began
        lists = (each.tolist() for each in (moment.rows, moment.tokens, moment.log_probs, moment.ended))
        looks = self._looks(moment) if self.looks and self.place < self.room else None
        for at, (row, token, log_prob, ended) in enumerate(zip(*lists, strict=True)):
            draft = self.drafts[self.numbers[row]]
            draft.tokens.append(token)
            draft.log_prob += log_prob
            self.tokens += 1
            if looks:
                draft.news.append(self.words.of(token) | {"log_prob": round(log_prob, 4)} | looks[at])
            if ended:
                self._end(self.numbers[row], finished=True)
        self.place += 1
        if time.perf_counter() - self.last >= self.every:
            self._tell()
        return not halted()

    def end(self) -> None:
        """What has not ended at its full length was cut off."""
        for number in self.numbers:
            if self.length(number) == self.wish.longest:
                self._end(number, finished=False, stopped=False)
        self._tell()

    def cut(self) -> None:
        """Somebody said stop: what has begun ends where it is."""
        for number in list(self.drafts):
            self._end(number, finished=False, stopped=True)
        self._tell()

    def sums(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.began
        return {"written": len(self.over), "tokens": self.tokens, "first": self.first, "seconds": seconds}

    def _end(self, number: int, **how: bool) -> None:
        draft = self.drafts.pop(number)
        text = self.words.text(draft.tokens)
        told = {
            "number": number,
            "text": text,
            "length": len(draft.tokens),
            "log_prob": draft.log_prob,
            **how,
        }
        self.ended.append(told | ({"more": text[draft.said :], "tokens": draft.news} if self.looks else {}))
        self.over.add(number)

    def _tell(self) -> None:
        rollouts = self.ended
        if self.looks:
            rollouts = rollouts + [self._more(number, each) for number, each in self.drafts.items()]
        self.say({"rollouts": rollouts, "so_far": self.tokens} if rollouts else {"so_far": self.tokens})
        self.ended, self.last = [], time.perf_counter()

    def _more(self, number: int, draft: Draft) -> dict[str, Any]:
        """What came since; of a character whose bytes are not all there, nothing yet."""
        text = self.words.text(draft.tokens).rstrip("\ufffd")
        more, news = text[draft.said :], draft.news
        draft.said, draft.news = max(draft.said, len(text)), []
        return {"number": number, "more": more, "tokens": news}

    def _looks(self, moment: Moment) -> list[dict[str, Any]]:
        """Of each rollout's place: its entropy, and what might have come instead."""
        log_probs = distribution(moment.logits, self.wish.temperature)
        entropies = torch.special.entr(log_probs.exp()).sum(-1).tolist()
        likeliest = log_probs.topk(min(OTHERS + 1, log_probs.shape[-1]), -1)
        chances, ids, tokens = (
            likeliest.values.exp().tolist(),
            likeliest.indices.tolist(),
            moment.tokens.tolist(),
        )
        return [
            {
                "entropy": round(entropies[row], 3),
                "others": [
                    self.words.of(other) | {"chance": round(chance, 4)}
                    for other, chance in zip(ids[row], chances[row], strict=True)
                    if other != tokens[row]
                ][:OTHERS],
            }
            for row in range(len(tokens))
        ]


class Words:
    """What tokens say: within a text, and each by itself."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.special = set(tokenizer.all_special_ids)
        self.known: dict[int, dict[str, Any]] = {}

    def text(self, tokens: Iterable[int]) -> str:
        return checkpoint.decode_rollout(self.tokenizer, list(tokens))

    def of(self, token: int) -> dict[str, Any]:
        """Its id and its text; of a special one, its name."""
        if token not in self.known:
            text = "" if token in self.special else checkpoint.pieces(self.tokenizer, [token])[token]
            name = {"text": self.tokenizer.convert_ids_to_tokens(token) or "", "special": True}
            self.known[token] = {"id": token, **({"text": text} if text else name)}
        return self.known[token]
