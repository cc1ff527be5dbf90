"""What a language model says of an answer: whether “Yes” or “No” comes next, and how surely.

The verdict is P(yes) against P(no) of the next token: nothing is sampled, and the same question gets the same
verdict. A judge is a model: it errs, it can be talked into things, and a run against it is capped. Which
checkpoint it is stands beside the options, not among them; torch is loaded when it is first asked.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from rlhf.checkers.checker import CannotCheck, Checked, Checker, Item, answer_of, shown
from rlhf.setting import Refused, input_, setting

AT_ONCE = 8  # questions in one forward pass, and
TOKENS = 1 << 14  # tokens, of whichever there are fewer; no question is longer
SILENT = 0.01  # the chance of both words together below which a verdict says that the judge hardly gives any
PLACES = ("{prompt}", "{reference}", "{answer}")
TEMPLATE = """Here is a problem, its correct answer, and a student's solution.

Problem:
{prompt}

Correct answer:
{reference}

Student's solution:
{answer}

Does the student's solution come to the correct answer? Reply with Yes or No."""

Asked = tuple[int, list[int], bool]  # an item's number, the question's tokens, whether the answer is whole


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Judge(Checker):
    """What a language model says of an answer beside the reference."""

    name: ClassVar[str] = "judge"
    by_rule: ClassVar[bool] = False
    template: str = setting(
        TEMPLATE, "Question", "What the model is asked; {answer}, {reference} and {prompt} stand for theirs.")
    yes: str = setting("Yes", "Word for correct", "What the model says of a correct answer.")
    no: str = setting("No", "Word for wrong", "What it says of a wrong one; it begins with another token.")
    threshold: float = setting(
        0.5, "Sure enough at", "The first word’s share of both chances that makes an answer correct.", 0, 1)
    checkpoint: str = input_("")
    device: str = input_("auto")
# fmt: on

    def check(self) -> None:
        for place in PLACES[1:]:
            if place not in self.template:
                raise Refused("template", f"The question has to hold {place}, or the model cannot compare.")
        if not self.yes or not self.no or self.yes.casefold() == self.no.casefold():
            raise Refused("no", "A judge needs two different words, one for correct and one for wrong.")

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        found = self.each([Item(prompt, answer, reference)])[0]
        if isinstance(found, CannotCheck):
            raise found
        return found

    def each(self, items: Iterable[Item]) -> list[Checked | CannotCheck]:
        """The verdicts, some at once. Raises nothing: a judge that cannot be opened cannot check."""
        items = list(items)
        try:
            return self.verdicts(*_opened(self.checkpoint, self.device), items)
        except CannotCheck as cannot:
            return [cannot for _ in items]
        except (ImportError, OSError) as error:
            return [CannotCheck(f"The judge could not be opened: {error}.") for _ in items]

    def verdicts(self, model: Any, tokenizer: Any, items: Sequence[Item]) -> list[Checked | CannotCheck]:
        """The verdicts of a model that is open already, in the order of the items."""
        words = self._words(tokenizer)
        found: list[Checked | CannotCheck | None] = [None] * len(items)
        asked: list[Asked] = []
        for number, item in enumerate(items):
            answer = answer_of(item.answer)
            if not item.reference.strip():
                found[number] = CannotCheck("The reference is empty.")
            elif not answer:
                found[number] = Checked(False, "There is no answer outside of the thinking, or none at all.")
            else:
                try:
                    asked.append((number, *self._question(model, tokenizer, item._replace(answer=answer))))
                except CannotCheck as cannot:
                    found[number] = cannot
        for some in _portions(asked):
            told = _chances(model, [ids for _, ids, _ in some], words)
            for (number, _, whole), (yes, no) in zip(some, told, strict=True):
                found[number] = self._verdict(items[number], yes, no, whole)
        return [each for each in found if each is not None]

    def _verdict(self, item: Item, yes: float, no: float, whole: bool) -> Checked | CannotCheck:
        if not yes + no > 0:  # also where either is no number
            return CannotCheck(f"The judge says neither “{self.yes}” nor “{self.no}”.")
        chance = yes / (yes + no)
        reason = f"The judge says “{self.yes}” with {chance:.0%}"
        if yes + no < SILENT:
            reason += f", though it would hardly say either word ({yes + no:.2%})"
        if not whole:
            reason += ", of the answer’s end alone: all of it is too long for it"
        return Checked(chance >= self.threshold, f"{reason}.", shown(answer_of(item.answer)), chance)

    def _question(self, model: Any, tokenizer: Any, item: Item) -> tuple[list[int], bool]:
        """The tokens of the question, and whether all of the answer is in them. Too long an answer loses its
        beginning: what it comes to stands at the end."""
        from rlhf import checkpoint

        room = min(checkpoint.longest(model) or TOKENS, TOKENS)
        text, whole = _plain(tokenizer, item.answer), True
        while True:
            ids = _encoded(tokenizer, self._asked(item._replace(answer=text)))
            if len(ids) <= room:
                return ids, whole
            if len(text) < 2:
                raise CannotCheck("The question is longer than the judge can read.")
            text, whole = text[-max(1, min(len(text) // 2, room * 8)) :], False

    def _asked(self, item: Item) -> str:
        """The question in one pass, so that an answer that says {reference} is not given it."""
        given = dict(zip(PLACES, (item.prompt, item.reference, item.answer), strict=True))
        return re.sub("|".join(map(re.escape, PLACES)), lambda found: given[found[0]], self.template)

    def _words(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        """The tokens that say each word."""
        found = [_tokens_of(tokenizer, word) for word in (self.yes, self.no)]
        yes, no = found[0] - found[1], found[1] - found[0]  # a space may be a token of its own
        if not yes or not no:
            raise CannotCheck(f"To this model “{self.yes}” and “{self.no}” begin alike; choose other words.")
        return sorted(yes), sorted(no)


def _tokens_of(tokenizer: Any, word: str) -> set[int]:
    """The tokens that are a word, alone and behind a space, with and without a capital. Of one that no token
    is, those with which it may begin: where some are, a mere beginning would count other words as well."""
    forms = {word, word.lower(), word.upper()}
    spaced = [space + form for form in sorted(forms) for space in ("", " ")]
    split = [tokenizer.encode(each, add_special_tokens=False) for each in spaced]
    # Behind a line's end a vocabulary may have another token than at the beginning of a text.
    marked = [mark + form for form in sorted(forms) for mark in ("", "Ġ", "▁")]
    vocabulary = tokenizer.get_vocab()
    whole = {ids[0] for ids in split if len(ids) == 1} | {vocabulary.get(each) for each in marked} - {None}
    return whole or {ids[0] for ids in split if ids}


def _encoded(tokenizer: Any, question: str) -> list[int]:
    """The tokens of a question: to a chat model as in a chat, and the next word is to be the answer itself,
    no thought about it."""
    from jinja2.exceptions import TemplateError

    from rlhf import checkpoint

    asked = question if tokenizer.chat_template else question + "\n"
    try:
        return checkpoint.encode_prompt(tokenizer, asked, thinks=False)
    except TemplateError as error:
        raise CannotCheck(f"The judge’s chat template does not take the question: {error}.") from error


def _plain(tokenizer: Any, answer: str) -> str:
    """An answer in which the name of a special token is mere text: it ends no turn, and begins none. Some
    vocabularies call few of those special that their chats are made of."""
    added = tokenizer.added_tokens_decoder.values()
    marks = {each.content for each in added if each.special or re.fullmatch(r"<.+>|\[.+\]", each.content)}
    for name in sorted(marks | set(tokenizer.all_special_tokens), key=len, reverse=True):
        answer = answer.replace(name, f"{name[:1]} {name[1:]}")
    return answer


def _portions(asked: list[Asked]) -> Iterator[list[Asked]]:
    """Questions of about one length together; the longer, the fewer."""
    some: list[Asked] = []
    for each in sorted(asked, key=lambda each: len(each[1])):
        if some and (len(some) == AT_ONCE or (len(some) + 1) * len(each[1]) > TOKENS):
            yield some
            some = []
        some.append(each)
    if some:
        yield some


def _chances(
    model: Any, questions: Sequence[list[int]], words: tuple[list[int], list[int]]
) -> list[tuple[float, float]]:
    """Of every question, the chances that either word comes next."""
    import torch

    from rlhf.sample import keeps_logits, pad_left

    ids, there, positions = (each.to(model.device) for each in pad_left(questions))
    last = {"logits_to_keep": 1} if keeps_logits(model) else {}
    with torch.no_grad():
        said = model(input_ids=ids, attention_mask=there, position_ids=positions, use_cache=False, **last)
        chances = said.logits[:, -1].float().softmax(-1).cpu()
    return [(float(row[words[0]].sum()), float(row[words[1]].sum())) for row in chances]


@lru_cache(maxsize=1)
def _opened(path: str, device: str) -> tuple[Any, Any]:
    from rlhf import checkpoint

    if not path:
        raise CannotCheck("The judge has no model.")
    try:
        return checkpoint.load_policy(path, checkpoint.choose_device(device))
    except checkpoint.Unloadable as error:
        raise CannotCheck(f"The judge’s model cannot be used: {error.reason} {error.remedy}") from None
