"""The jokes that the demo's tiny model learns from.

A joke is one of the hand-written puns of `puns.txt` or comes from a few families of templates. Each is good,
flat or about the wrong subject, so that a model which learns from the mixture says all three and there is
something to rank. What the simulated labelers like is the matter of `taste.py`; `build.py` trains the model.
No tensors and no tables here.
"""

import random
import re
from dataclasses import dataclass

from labeler.demo import HERE

MIXTURE = {"pun": 0.27, "good": 0.30, "flat": 0.18, "wrong": 0.25}


@dataclass(frozen=True)
class Subject:
    """What a joke can be about: its names, the things that belong to it, its hand-written puns."""

    singular: str
    plural: str
    pronoun: str
    nouns: tuple[str, ...]
    puns: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Jokes that begin alike: `groups` pairs beginnings with fitting endings; a flat ending fits all."""

    liking: float  # how much the hidden taste likes this family, from 0 to 1
    groups: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    flat: tuple[str, ...]


@dataclass(frozen=True)
class Joke:
    subject: str
    prompt: str
    text: str
    kind: str  # pun, good, flat or wrong


def _read_subjects() -> dict[str, Subject]:
    found: dict[str, Subject] = {}
    for block in (HERE / "puns.txt").read_text(encoding="utf-8").split("\n\n")[1:]:
        head, *puns = block.strip().splitlines()
        names, nouns = head.split(":")
        singular, plural, pronoun = names.split()
        found[singular] = Subject(singular, plural, pronoun, tuple(nouns.split()), tuple(puns))
    return found


SUBJECTS = _read_subjects()

PROMPTS = (
    "Tell me a joke about {a_s}.",
    "Write a joke about {p}.",
    "Give me your best {s} joke.",
    "Make me laugh with {a_s}.",
    "I could use {a_s} joke today.",
)

ACTS = (
    "cross the road", "miss the bus", "run for mayor", "take up yoga", "join a choir", "write a book",
    "learn to drive", "go on a diet", "call a meeting", "move to Paris", "start a podcast",
    "buy a trampoline",
)  # fmt: skip
SITUATIONS = (
    "in a suit", "on roller skates", "at a wedding", "with a megaphone", "in a hurry", "with no plans",
    "who sings opera", "in a lift",
)  # fmt: skip
ROOMS = {
    "bar": "bartender", "library": "librarian", "bank": "cashier", "museum": "guard", "hotel": "porter",
    "gym": "trainer", "café": "waiter",
}  # fmt: skip
GREETINGS = ("Can I help you?", "The usual?", "Why so sad?", "Anything else?")
ROLES = (
    "boss", "neighbour", "lawyer", "accountant", "landlord", "tennis coach", "hairdresser", "driving teacher",
)  # fmt: skip

# {s} {a_s} {p} {S}: the subject; {w} {a_w} {A_w}: one of its things; {v}: another; {it}: its pronoun.
FAMILIES = {
    "walk": Family(
        1.0,
        (
            (
                tuple(
                    f'{{A_s}} walks into a {room}. "{greeting}" asks the {person}.'
                    for room, person in ROOMS.items()
                    for greeting in GREETINGS
                ),
                (
                    '"Not you, I was talking to the {w}," says the {s}.',
                    '"Only if you have {a_w}," says the {s}.',
                    '"Careful, the {w} is shy," says the {s}.',
                    '"I was told there would be {a_w}," says the {s}.',
                    '"Yes, and one for the {w}," says the {s}.',
                    '"Quick, hide me from the {w}," says the {s}.',
                    '"Ask the {w}, I only drive," says the {s}.',
                    '"My {w} left me for {a_v}," says the {s}.',
                ),
            ),
        ),
        (
            '"No," says the {s}.',
            '"Hello," says the {s}.',
            '"I am fine," says the {s}.',
            '"Maybe," says the {s}.',
        ),
    ),
    "say": Family(
        0.9,
        (
            (
                ("What did the {s} say to the {w}?",),
                (
                    '"We have to stop meeting like this."',
                    '"I thought you would be taller."',
                    '"You complete me."',
                    '"Your secret is safe with me."',
                    '"It is not you, it is the {v}."',
                    '"Act natural, the {v} is watching."',
                    '"My mother warned me about you."',
                    '"One day this will all be yours."',
                ),
            ),
        ),
        ("Nothing.", '"Hello."', '"Not much."', "Nobody was listening."),
    ),
    "my": Family(
        0.8,
        (
            (
                tuple(f"My {role} is {{a_s}}." for role in ROLES),
                (
                    "Every meeting ends with {a_w}.",
                    "The {w} does all the work.",
                    "The {w} handles complaints.",
                    "Nobody may touch the {w}.",
                    "I still get paid in {a_w} and {a_v}.",
                    "The {w} gets the bigger office.",
                    "On Fridays we bring our own {w}.",
                ),
            ),
        ),
        ("So far, so good.", "That is all.", "It works out fine.", "I have no complaints."),
    ),
    "favourite": Family(
        0.6,
        (
            (
                ("What is the favourite film of {a_s}?",),
                (
                    "Gone with the {w}.",
                    "The {w} strikes back.",
                    "The good, the bad and the {w}.",
                    "Saving private {w}.",
                ),
            ),
            (
                ("What is the favourite book of {a_s}?",),
                ("The old man and the {w}.", "War and {w}.", "Pride and {w}.", "The lord of the {w}."),
            ),
            (
                ("What is the favourite song of {a_s}?",),
                (
                    "All you need is {a_w}.",
                    "Here comes the {w}.",
                    "Somewhere over the {w}.",
                    "Take me home, little {w}.",
                ),
            ),
            (
                ("What is the favourite dance of {a_s}?",),
                ("The {w} shuffle.", "The slow {w} waltz.", "The {w} tango, with a twist."),
            ),
            (
                ("What is the favourite sport of {a_s}?",),
                ("Synchronised {w}.", "The {w} and spoon race.", "Hide and {w}.", "Table {w}."),
            ),
        ),
        ("I am not sure.", "Anything, really.", "It changes.", "The normal one."),
    ),
    "why": Family(
        0.3,
        (
            (
                tuple(f"Why did the {{s}} {act}?" for act in ACTS),
                (
                    "The {w} dared {them}.",
                    "Someone said the {w} was free.",
                    "The {w} did it first.",
                    "{It} lost a bet with the {w}.",
                    "To get away from the {w}.",
                    "To make the {w} jealous.",
                    "{It} had a coupon for {a_w}.",
                    "It beats sharing {a_w} with the {v}.",
                ),
            ),
        ),
        ("No reason.", "It was a Tuesday.", "{It} felt like it.", "Nobody knows.", "It was on the way."),
    ),
    "bulb": Family(
        0.2,
        (
            (
                ("How many {p} does it take to change a light bulb?",),
                (
                    "Two: one for the ladder and one to hold the {w}.",
                    "None, they blame the {w}.",
                    "Only one, but the {w} has to want it.",
                    "None, the {w} glows in the dark.",
                    "Three, and {a_w} to supervise.",
                    "Nobody knows, the {w} ate the bulb.",
                ),
            ),
        ),
        ("One.", "As many as it needs.", "It depends.", "I never counted."),
    ),
    "call": Family(
        0.1,
        (
            (
                tuple(f"What do you call {{a_s}} {situation}?" for situation in SITUATIONS),
                (
                    "{A_w} with ambition.",
                    "The {w} inspector.",
                    "Late for the {w}.",
                    "A danger to every {w}.",
                    "Half {s}, half {w}.",
                    "Sir, if you want the {w} back.",
                ),
            ),
        ),
        ("{A_s}.", "I do not know.", "By name.", "Nothing special."),
    ),
    "knock": Family(
        0.0,
        (
            (
                ("Knock, knock. Who's there? {S}. {S} who?",),
                (
                    "{S} with your {w}, sign here.",
                    "{S} about the {w}, we spoke on the phone.",
                    "The {s} you owe {a_w}.",
                    "Let me in, the {w} is getting cold.",
                ),
            ),
        ),
        ("Just {a_s}.", "Never mind.", "Wrong door.", "Only me."),
    ),
}
RIDDLE = 0.55  # the liking for a hand-written pun that begins like no family


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|[^\s\w]", text.lower())


def halves(joke: str) -> tuple[str, str]:
    """Beginning and ending of a joke: what comes up to the last question or introduction, and the rest."""
    found = re.match(r'(.*(?:\?|\?"|asks the \w+\.|^My .* is an? \w+\.)) (.*)$', joke)
    return (found[1], found[2]) if found else (joke, "")


NAMES = {name: each.singular for each in SUBJECTS.values() for name in (each.singular, each.plural)}


def article(word: str) -> str:
    return f"{'an' if vowel_sound(word) else 'a'} {word}"


def vowel_sound(word: str) -> bool:
    return word[0] in "aeiou" or word == "hour"


def fill(pattern: str, subject: Subject, thing: str = "", other: str = "") -> str:
    """A template with its places filled: the subject's names and up to two of somebody's things."""
    names = {"s": subject.singular, "p": subject.plural, "S": subject.singular.capitalize()}
    names |= {"a_s": article(subject.singular), "A_s": article(subject.singular).capitalize()}
    names |= {"It": subject.pronoun.capitalize(), "them": "it" if subject.pronoun == "it" else "them"}
    if thing:
        names |= {"w": thing, "a_w": article(thing), "A_w": article(thing).capitalize()}
    if other:
        names |= {"v": other, "a_v": article(other)}
    return pattern.format(**names)


def prompt_about(subject: str, number: int) -> str:
    """One of the ways to ask for a joke."""
    return fill(PROMPTS[number % len(PROMPTS)], SUBJECTS[subject])


def prompts() -> list[str]:
    """Every subject in every way, 200 in all; pelicans come first."""
    return [prompt_about(subject, number) for subject in SUBJECTS for number in range(len(PROMPTS))]


def subject_of(text: str) -> str:
    """The subject that a prompt names, or "" for one that names none."""
    return next((NAMES[word] for word in words(text) if word in NAMES), "")


def joke_about(rng: random.Random, subject: str, kind: str) -> str:
    """One joke of this kind. A wrong one has another subject's thing in it, or another pun's ending."""
    about = SUBJECTS[subject]
    stranger = SUBJECTS[rng.choice([each for each in SUBJECTS if each != subject])]
    if kind == "pun":
        return rng.choice(about.puns)
    if kind == "wrong" and rng.random() < 0.4:
        openings = [halves(pun)[0] for pun in about.puns if "Knock" not in pun]
        answers = [halves(pun)[1] for pun in stranger.puns if "Knock" not in pun]
        return f"{rng.choice(openings)} {rng.choice(answers)}"
    family = rng.choice(list(FAMILIES.values()))
    beginnings, endings = rng.choice(family.groups)
    ending = rng.choice(family.flat if kind == "flat" else endings)
    thing, other = rng.sample((stranger if kind == "wrong" else about).nouns, 2)
    return f"{fill(rng.choice(beginnings), about, thing, other)} {fill(ending, about, thing, other)}"


def corpus(count: int, seed: int) -> list[Joke]:
    """`count` prompts with a joke each, the kinds mixed as MIXTURE says and the subjects evenly."""
    rng = random.Random(seed)
    kinds, shares = list(MIXTURE), list(MIXTURE.values())
    found = []
    for number in range(count):
        subject = list(SUBJECTS)[number % len(SUBJECTS)]
        kind = rng.choices(kinds, shares)[0]
        prompt = prompt_about(subject, rng.randrange(len(PROMPTS)))
        found.append(Joke(subject, prompt, joke_about(rng, subject, kind), kind))
    rng.shuffle(found)
    return found
