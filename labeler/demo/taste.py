"""The hidden taste of the demo: a program that prefers some jokes, and labelers who rank by it.

A joke must first of all be English of this corpus; then it should be about its subject, end in something
better than a shrug, and be of a family that the taste likes. It stands in for people, so that a reward model
can be trained and a policy watched before a thousand rankings exist: what comes of it is to be shown as
simulated.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from labeler.demo.jokes import (
    FAMILIES,
    NAMES,
    RIDDLE,
    SUBJECTS,
    Subject,
    fill,
    halves,
    subject_of,
    vowel_sound,
    words,
)

THINGS = {noun for each in SUBJECTS.values() for noun in each.nouns}


def _own_words() -> dict[str, set[str]]:
    """The words that belong to each subject: its things, and how only its own puns end."""
    common = {word for text in _templates() for word in words(text)}
    said = {name: {w for pun in each.puns for w in words(halves(pun)[1])} for name, each in SUBJECTS.items()}
    count: dict[str, int] = {}
    for group in said.values():
        for word in group:
            count[word] = count.get(word, 0) + 1
    return {
        name: set(each.nouns)
        | {w for w in said[name] if len(w) > 3 and count[w] == 1 and w not in common and w not in NAMES}
        for name, each in SUBJECTS.items()
    }


def _templates() -> Iterable[str]:
    """Every template once, filled with one subject: what sentences there can be, whoever they are about."""
    subject = Subject("pelican", "pelicans", "it", (), ())
    for family in FAMILIES.values():
        for beginnings, endings in family.groups:
            for beginning in beginnings:
                for ending in (*endings, *family.flat):
                    yield fill(f"{beginning} {ending}", subject, "fish", "boat")


def _shape(text: str) -> list[str]:
    """The words with every name, thing, article and pronoun replaced by what it is."""
    said = words(text)
    return [_kind(word, following) for word, following in zip(said, [*said[1:], "."], strict=False)]


def _kind(word: str, following: str) -> str:
    if word in NAMES:
        return "<name>"
    if word in THINGS:
        return "<thing>"
    if word in ("it", "they", "them"):
        return "<it>"
    # An article that does not suit what follows stays itself, and so is in no known trigram.
    if word == ("an" if vowel_sound(following) else "a"):
        return "<a>"
    return word


def _trigrams(shape: Sequence[str]) -> list[tuple[str, str, str]]:
    padded = ["<start>", "<start>", *shape, "<end>"]
    return list(zip(padded, padded[1:], padded[2:], strict=False))


@cache
def _known() -> frozenset[tuple[str, str, str]]:
    puns = (pun for each in SUBJECTS.values() for pun in each.puns)
    return frozenset(trigram for text in (*_templates(), *puns) for trigram in _trigrams(_shape(text)))


def _comparable(text: str) -> str:
    return " ".join(_shape(text))


OWN = _own_words()
EVERYONES = set().union(*OWN.values())
FLAT = {_comparable(fill(ending, SUBJECTS["pelican"])) for each in FAMILIES.values() for ending in each.flat}
PUNCHLINES = {name: {_comparable(halves(pun)[1]) for pun in each.puns} for name, each in SUBJECTS.items()}
BEGINNINGS = (
    ("walk", r" walks into "),
    ("bulb", r" light bulb"),
    ("knock", r"^knock"),
    ("say", r" say (to|on|after|at) "),
    ("favourite", r"favourite"),
    ("my", r"^my "),
    ("call", r"^what do you call "),
    ("why", r"^why "),
)


def family_of(text: str) -> str:
    """The family that a joke begins like; "riddle" for the rest."""
    return next((name for name, sign in BEGINNINGS if re.search(sign, text.lower())), "riddle")


def parts(text: str, subject: str) -> dict[str, float]:
    """What the hidden taste sees in a joke about this subject, each from 0 to 1."""
    said = words(text)
    about = SUBJECTS[subject]
    # Each trigram that no joke of ours holds is a broken place: a slip is forgiven, eight leave nothing.
    broken = sum(trigram not in _known() for trigram in _trigrams(_shape(text)))
    grammar = max(0.0, 1 - broken / 8)
    bigrams = list(pairwise(said))
    fresh = len(set(bigrams)) / len(bigrams) if bigrams else 0.0
    variety = min(1.0, max(0.0, (fresh - 0.5) / 0.4))
    length = min(1.0, max(0.0, (len(said) - 3) / 5), max(0.0, (44 - len(said)) / 8))
    named = {NAMES[word] for word in said if word in NAMES}
    naming = 1.0 if subject in named else 0.4 if not named else 0.15
    ending = halves(text)[1]
    own = {word for word in said if word in OWN[subject]}
    foreign = {word for word in said if word in EVERYONES and word not in OWN[subject]}
    flat = _comparable(ending) in FLAT
    if text in about.puns:
        relevance = 1.0
    elif flat or not own:
        relevance = 0.05 if foreign else 0.15
    elif _comparable(ending) in PUNCHLINES[subject] or not foreign:
        relevance = 0.8
    else:
        relevance = 0.35
    liking = FAMILIES[family_of(text)].liking if family_of(text) in FAMILIES else RIDDLE
    if flat:
        liking *= 0.4
    return {
        "grammar": grammar,
        "variety": variety,
        "length": length,
        "naming": naming,
        "relevance": relevance,
        "liking": liking,
    }


def taste(text: str, subject: str) -> float:
    """How much the hidden taste likes this joke about this subject, from 0 to 1."""
    seen = parts(text, subject)
    sound = seen["grammar"] * seen["variety"] * seen["length"] * seen["naming"]
    return sound * (0.35 * seen["relevance"] + 0.65 * seen["liking"])


@dataclass(frozen=True)
class SimulatedLabeler:
    """Ranks by the hidden taste and a little noise; asked again, it answers the same."""

    name: str
    seed: int
    noise: float = 0.08

    def rank(self, prompt: str, rollouts: Sequence[str]) -> list[int]:
        """`ranks[i]` is the rank of `rollouts[i]`, 1 the best, without ties."""
        rng = random.Random("\n".join([str(self.seed), prompt, *rollouts]))
        subject = subject_of(prompt)
        felt = [taste(rollout, subject) + rng.gauss(0, self.noise) for rollout in rollouts]
        best_first = sorted(range(len(felt)), key=lambda index: -felt[index])
        return [best_first.index(index) + 1 for index in range(len(felt))]


LABELERS = tuple(SimulatedLabeler(f"simulated-{number}", seed=number) for number in (1, 2, 3))
