"""What a new project may begin with: guidelines that say what better means, and prompts to try it on.

They are copied into the project when it is made; changing them here changes no project."""

from dataclasses import dataclass

SUBJECTS = """a pelican, a dentist, a Monday, a bicycle, an accountant, a snowman, a librarian, a parking
meter, a violin, a goldfish, a weather forecast, an elevator, a chess club, a lighthouse, a cup
of tea, a penguin, a tax form, a ghost, a mountain goat, a printer, a crossword, a scarecrow, a
submarine, an umbrella"""

MOODS = """the first warm evening of the year, a house before the removal van comes, an old photograph,
rain on a tin roof, a friend who moved away, learning to swim, the last bus, a kitchen at five
in the morning, snow that does not settle, a borrowed coat, the sound of a neighbour's piano, a
field after harvest, waiting for a letter, a city seen from the train, the smell of bread, a
clock that stopped, somebody else's garden, low tide"""

PASSAGES = """
The town library will close for six weeks from 3 March so that its heating can be replaced. Books that are
out may be kept until it opens again, and no fines will be charged. The reading group meets in the school
meanwhile.

Bees find their way by the sun, even when it is behind clouds, because they see how its light is polarised.
On days when the whole sky is grey they fly less far, and some stay at home.

Our tests show that the new pump uses 18 % less power than the old one at full load. At half load, where it
runs most of the year, the difference is 4 %. It is also noticeably louder.

The council received 212 letters about the footbridge. Most asked for it to be repaired rather than
replaced, chiefly because of the cost; eleven asked for it to be taken down. A decision is expected in May.

Sourdough needs no yeast from a packet. Flour and water left on a warm shelf for a week, and fed daily,
collect enough of their own. The bread takes longer to rise, and keeps longer.

The ferry was an hour late on Tuesday because of fog, and did not sail at all on Wednesday. Passengers with
a ticket for Wednesday may use it on any day this month, or ask for their money back at the harbour.

In the study, people who walked for half an hour a day slept on average twenty minutes longer. They had
chosen for themselves whether to walk, so it may be that good sleepers like to walk.

The museum bought the painting in 1931 as a work of the master. A cleaning last year showed a signature
under the frame: it is by his daughter, of whom no other painting is known.

Trains on the coast line will be replaced by buses at weekends in November. The buses take about twice as
long and do not carry bicycles. Weekday trains run as usual.

The potatoes were planted three weeks late after the wet spring, but the dry August suited them. Farmers in
the valley report a harvest of ordinary size and unusually good quality.
"""


@dataclass(frozen=True)
class ProjectTemplate:
    key: str
    title: str
    sentence: str
    name: str = ""
    guidelines: str = ""
    prompts: tuple[str, ...] = ()
    judge: str = "people"
    checker: str = "number"


def _listed(text: str) -> list[str]:
    return [" ".join(each.split()) for each in text.split(",")]


JOKES = ProjectTemplate(
    "jokes",
    "Jokes",
    "Short jokes on a subject, funniest first.",
    "Jokes",
    """Put the joke first that you would tell a friend.

- **Funny beats everything.** If one made you smile, it goes on top.
- A joke that is about the subject goes above one that is not.
- A joke that you understand at once goes above one that needs explaining.
- An old joke told well goes above a new one told badly.
- Word salad, a repeated word or half a sentence goes to the bottom, even if it made you laugh.

Unkind jokes about groups of people go below harmless ones. Do not think long: your first reading counts.""",
    tuple(f"Write a joke about {subject}." for subject in _listed(SUBJECTS)),
)

POEMS = ProjectTemplate(
    "poems",
    "Poems",
    "Four to eight lines that somebody would want to read twice.",
    "Poems",
    """Read each poem to its end before you rank. Put the one first that you would read aloud.

- **One true picture** is worth more than three grand words.
- It is about what was asked for, and it gets somewhere: the end is not the beginning again.
- Rhyme is welcome and not needed. A forced rhyme is worse than none.
- Worn phrases (hearts that soar, endless nights) go below plain ones.
- A poem that breaks off, repeats itself or explains itself goes to the bottom.

Taste differs, and yours is asked for. Rank as a reader, not as a teacher.""",
    tuple(f"Write a short poem about {mood}." for mood in _listed(MOODS)),
)

SUMMARIES = ProjectTemplate(
    "summaries",
    "Summaries",
    "One sentence that says what a passage says, and nothing else.",
    "Summaries",
    """A good summary lets somebody skip the passage. Judge in this order:

1. **Nothing false.** A summary that says what the passage does not say goes below all that do not.
2. **What matters.** The main point is there; if there is a "but" in the passage, it is there as well.
3. **Short.** One sentence. Of two that are equally true and complete, the shorter one wins.
4. **Plain.** It reads as if a person had written it, and can be understood without the passage.

A number copied wrongly is false. A copy of the whole passage is not a summary: it goes to the bottom.""",
    tuple(f"Summarise in one sentence: {' '.join(text.split())}" for text in PASSAGES.split("\n\n")),
)


def _sums() -> tuple[str, ...]:
    """Three dozen small problems, each with its answer behind the arrow."""
    pairs = [(3 + 7 * n % 40, 2 + 11 * n % 30) for n in range(12)]
    sums = [f"What is {one} + {other}? => {one + other}" for one, other in pairs]
    sums += [f"What is {one + other} - {one}? => {other}" for one, other in pairs]
    apples = [
        f"Emily buys {one} apples and {other} oranges. Each apple costs $2 and each orange costs $3. "
        f"How much does she pay? => {2 * one + 3 * other}"
        for one, other in ((2 + n % 5, 1 + 2 * n % 7) for n in range(12))
    ]
    return tuple(sums + apples)


CHECKED = ProjectTemplate(
    "checked",
    "Checked answers (maths)",
    "Problems whose answers are right or wrong: the model practises them, by rule and without a cap.",
    "Sums and word problems",
    """What counts is the answer. It is right if it comes to the right number, however that is written.

- Steps that lead to the answer are welcome, and are not judged.
- An answer that says several numbers is read by the one that it settles on.
- Units, commas and currency signs do not matter.

People look at what the checker said and overrule it where it is mistaken.""",
    _sums(),
    judge="checker",
)

BLANK = ProjectTemplate("blank", "Something else", "Your own guidelines and prompts.")

TEMPLATES = {each.key: each for each in (JOKES, POEMS, SUMMARIES, CHECKED, BLANK)}
