"""What supervised finetuning reads, as tokens: demonstrations, plain documents, and what is learnt of them.

Of a demonstration given as prompt and completion, the completion is learnt with its end; of one given as
`messages`, every turn of the assistant; never what others say. Of a document every token is. Prompt and
answer become tokens apart, as they do wherever rollouts are sampled and scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import batch, checkpoint
from rlhf.data import Demonstration, Document


@dataclass(frozen=True)
class Text:
    """Tokens, and the places of those that are learnt: never the first one, which nothing foretells."""

    ids: list[int]
    learnt: list[int]
    prompt_cut: bool = False
    answer_cut: bool = False

    @property
    def tokens(self) -> int:
        return len(self.ids)


def of_demonstration(tokenizer: Any, line: Demonstration, limit: int) -> list[Text]:
    """One text, in which several turns may be learnt. Or more, where what a turn answers does not begin with
    the turns before it: some chat templates leave out of the past what was thought."""
    found: list[Text] = []
    for prompt, answer in _turns(tokenizer, line):
        before = found[-1] if found else None
        fits = len(prompt) + len(answer) <= limit
        if before and fits and prompt[: before.tokens] == before.ids:
            places = range(len(prompt), len(prompt) + len(answer))
            found[-1] = Text([*prompt, *answer], [*before.learnt, *places])
        else:
            found.append(_fitted(prompt, answer, limit))
    return found


def of_document(tokenizer: Any, line: Document, limit: int) -> list[Text]:
    """Texts of at most `limit` tokens, in order. Each begins with the token that the one before ended with,
    so that every token but the document's first is foretold, once."""
    ids = checkpoint.encode_document(tokenizer, line.text)
    starts = range(0, max(1, len(ids) - 1), limit - 1)
    parts = [ids[start : start + limit] for start in starts]
    return [Text(part, [*range(1, len(part))]) for part in parts]


def beginning(tokenizer: Any, line: Document, longest: int) -> list[int]:
    """The first tokens of a document, no more than half of it, to be gone on with."""
    ids = checkpoint.encode_document(tokenizer, line.text)
    return ids[: max(1, min(longest, len(ids) // 2))]


def _turns(tokenizer: Any, line: Demonstration) -> list[tuple[list[int], list[int]]]:
    """The tokens before each turn that is learnt, and its own."""
    if not line.whole:
        prompt = checkpoint.encode_prompt(tokenizer, line.prompt)
        return [(prompt, checkpoint.encode_rollout(tokenizer, line.completion))]
    said = line.messages
    turns = [place for place, each in enumerate(said) if place and each["role"] == "assistant"]
    return [
        (
            checkpoint.encode_prompt(tokenizer, said[:place]),
            checkpoint.encode_rollout(tokenizer, said[place]["content"]),
        )
        for place in turns
    ]


def _fitted(prompt: Sequence[int], answer: Sequence[int], limit: int) -> Text:
    fit = batch.fit(prompt, [answer], limit)
    ids = fit.prompt + fit.rollouts[0]
    return Text(ids, [*range(len(fit.prompt), len(ids))], fit.prompt_cut, bool(fit.rollouts_cut))
