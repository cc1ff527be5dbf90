"""Any ranking, there and back: from the database into every kind of file that carries rankings, into another
project, and out again as the same line."""

import json
import string
import tempfile

from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from labeler import datasets
from labeler.datasets.exports import Export
from labeler.datasets.formats import FORMATS
from labeler.intake.columns import guessed, guessed_kind, reader
from labeler.intake.files import Source
from labeler.intake.kinds import READ
from labeler.intake.writer import Writer
from labeler.models import Project
from rlhf.data import dense

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
# Any writing: whatever UTF-8 and Postgres can hold, formulas and what spreadsheets do to them among it.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXT = st.text(CHARACTERS, max_size=20) | st.sampled_from(
    [
        "",
        "=1+1",
        "'=1+1",
        "''",
        "-1",
        "@x",
        "\t",
        "a\r\nb",
        'say "hi"',
        "a,b;c",
        "[1]",
        '[{"role": 1}]',
        "null",
        "true",
    ]
)
FILLED = TEXT.filter(lambda text: text.strip())
NAME = st.text(string.ascii_letters + "éß.-_@ ", min_size=1, max_size=12).filter(
    lambda name: name == name.strip()
)
CHAT = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user"]), FILLED
    ),
    min_size=1,
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(CHARACTERS, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(string.ascii_lowercase, max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def rankings(draw, prompts=FILLED) -> dict:
    """A line as an export writes it: known keys where there is something to tell, and somebody's own."""
    count = draw(st.integers(2, 5))
    slots = st.lists(st.integers(0, count - 1), unique=True, min_size=1).map(sorted)
    line = {
        "prompt": draw(prompts),
        "rollouts": draw(st.lists(TEXT, min_size=count, max_size=count)),
        "ranks": list(dense(draw(st.lists(st.integers(1, 5), min_size=count, max_size=count)))),
        "labeler": draw(NAME),
        "quintet": draw(NAME),
        "seconds": draw(st.none() | st.floats(0, 1e6)),
        "simulated": False,
    }
    more = {
        "nonsense": slots,
        "unsafe": slots,
        "acceptable": st.integers(0, max(line["ranks"])),
        "arm": st.sampled_from(["random", "uncertain"]),
        "surplus": st.just(True),
        "shown": st.permutations(range(count)),
        "round": st.integers(2, 9),
        "guidelines": st.integers(2, 9),
        "models": st.lists(st.none() | NAME, min_size=count, max_size=count).filter(any),
        "finished": st.lists(st.booleans(), min_size=count, max_size=count).filter(
            lambda each: not all(each)
        ),
        "decided": st.just(line["ranks"]),
        "note": JSON,
        "who": st.sampled_from(["a text", "=1+1", "7"]),
    }
    for key in draw(st.lists(st.sampled_from(sorted(more)), unique=True)):
        line[key] = draw(more[key])
    return line


def taken_in(content: bytes) -> Project:
    """Into a project of its own, as an import reads it that nobody helps."""
    project = Project.objects.create(name="Trip", slug=f"trip-{Project.objects.count()}")
    with tempfile.NamedTemporaryFile() as file, transaction.atomic():
        file.write(content)
        file.flush()
        source = Source(file, "file")
        kind = guessed_kind(source.columns)
        line = reader(guessed(source.columns, kind), source.format)
        writer = Writer(project)
        assert not writer.write([(number, READ[kind](line(row))) for number, row in source.rows()])
        writer.finish()
    return project


def given_out(project: Project, file: str = "jsonl", form: str = "ranked") -> bytes:
    query = datasets.Query(simulated=True)
    return b"".join(Export(project, FORMATS[form], file, query=query).stream())


def as_lines(lines: list[dict]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def said(content: bytes) -> list[str]:
    """The lines, whatever the order of them and of their keys."""
    return sorted(json.dumps(json.loads(line), sort_keys=True) for line in content.splitlines())


def preferences(content: bytes) -> set[tuple[str, str, str]]:
    lines = (json.loads(line) for line in content.splitlines())
    return {tuple(json.dumps(line[key]) for key in ("prompt", "chosen", "rejected")) for line in lines}


def some(prompts, most: int = 3):
    """Rankings of several quintets. A table has one type a column: all prompts are texts or all are chats."""
    return st.lists(rankings(prompts), min_size=1, max_size=most, unique_by=lambda line: line["quintet"])


class RoundTrip(TestCase):
    @FEW
    @given(some(FILLED | CHAT))
    def test_lines_come_out_as_they_went_in(self, lines):
        first = given_out(taken_in(as_lines(lines)))
        assert said(first) == said(as_lines(lines))
        assert given_out(taken_in(first)) == first

    @FEW
    @given(some(FILLED) | some(CHAT))
    def test_a_sheet_carries_all_that_a_line_does(self, lines):
        project = taken_in(as_lines(lines))
        assert given_out(taken_in(given_out(project, "csv"))) == given_out(project)

    @settings(FEW, max_examples=4)
    @given(some(FILLED, 20) | some(CHAT, 20))
    def test_a_table_carries_all_that_a_line_does(self, lines):
        project = taken_in(as_lines(lines))
        assert given_out(taken_in(given_out(project, "parquet"))) == given_out(project)

    @FEW
    @given(some(FILLED | CHAT))
    def test_pairs_carry_which_of_two_is_better(self, lines):
        pairs = given_out(taken_in(as_lines(lines)), form="pairs")
        if pairs:
            assert preferences(given_out(taken_in(pairs), form="pairs")) == preferences(pairs)
