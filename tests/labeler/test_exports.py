"""Taking out: what each format makes of rankings, what each kind of file keeps, and the card beside them."""

import csv
import io
import json
import random
import tempfile
import tracemalloc
import zipfile

import pytest
import yaml
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from labeler import datasets, intake
from labeler.datasets.exports import Export
from labeler.datasets.facts import Facts
from labeler.datasets.formats import FORMATS, Options, labels
from labeler.datasets.frozen import Source
from labeler.models import Demonstration, Project, Ranking
from rlhf import data

pytestmark = pytest.mark.django_db
ODD = 'Écris 🦤 ‮שלום\n\t"quoted" \\u0041 &lt; \u2028 z̗̈'
CHAT = [{"role": "system", "content": "Brief."}, {"role": "user", "content": ODD}]


def line(**values) -> dict:
    known = {"prompt": "Write a joke.", "rollouts": list("abcde"), "ranks": [2, 1, 3, 5, 4]}
    return known | {"labeler": "lena", "quintet": "q1", "seconds": 12.5, "simulated": False} | values


def bring_in(project: Project, *lines: dict) -> None:
    file = io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    intake.import_rankings(project, intake.read_rankings(file))


def out(
    project: Project, form: str, file: str = "jsonl", simulated: bool = False, dataset=None, **options
) -> bytes:
    query = datasets.Query(simulated=simulated)
    return b"".join(Export(project, FORMATS[form], file, Options(**options), query, dataset).stream())


def rows(project: Project, form: str, **options) -> list[dict]:
    return [json.loads(each) for each in out(project, form, **options).splitlines()]


def by_quintet(each: dict) -> str:
    return each["quintet"]


# The formats


def test_the_consensus_is_the_majoritys_and_a_circle_is_a_tie(project):
    bring_in(project, *(line(labeler=name, rollouts=list("abc"), ranks=ranks) for name, ranks in
                        {"a": [1, 2, 3], "b": [1, 2, 3], "c": [3, 1, 2]}.items()))  # fmt: skip
    bring_in(project, *(line(quintet="q2", labeler=name, rollouts=list("abc"), ranks=ranks) for name, ranks in
                        {"a": [1, 2, 3], "b": [3, 1, 2], "c": [2, 3, 1]}.items()))  # fmt: skip
    first, second = rows(project, "consensus")
    assert (first["ranks"], first["labelers"], first["decided"]) == ([1, 2, 3], 3, False)
    assert (second["ranks"], second["labelers"]) == ([1, 1, 1], 3)
    assert first["strengths"][1] > first["strengths"][2]
    assert all(
        low < mid < high
        for low, mid, high in zip(*(first[n] for n in ("low", "strengths", "high")), strict=True)
    )


def test_what_a_review_decided_is_the_consensus(project, admin):
    bring_in(project, line(labeler="a"), line(labeler="b"))
    project.quintets.update(decided_ranks=[1, 1, 2, 3, 3], reviewed_by=admin)
    (found,) = rows(project, "consensus")
    assert (found["ranks"], found["decided"]) == ([1, 1, 2, 3, 3], True)
    assert len(rows(project, "pairs", consensus=True)) == 8
    assert len(rows(project, "pairs")) == 20  # what each of them said stays as it was


def test_a_decision_after_the_freezing_does_not_change_what_was_frozen(project, admin):
    bring_in(project, line(labeler="a"), line(labeler="b"))
    frozen = datasets.freeze(project)
    project.quintets.update(decided_ranks=[1, 1, 2, 3, 3])
    (found,) = rows(project, "consensus", dataset=frozen)
    assert (found["ranks"], found["decided"]) == ([2, 1, 3, 5, 4], False)


def test_people_and_simulated_labelers_never_make_one_consensus(project):
    bring_in(project, line(labeler="a"), line(labeler="sim", simulated=True, ranks=[5, 4, 3, 2, 1]))
    people, simulated = rows(project, "consensus", simulated=True)
    assert (people["ranks"], people["simulated"]) == ([2, 1, 3, 5, 4], False)
    assert (simulated["ranks"], simulated["simulated"]) == ([5, 4, 3, 2, 1], True)
    assert [each["simulated"] for each in rows(project, "pairs", simulated=True)] == [False] * 10 + [
        True
    ] * 10


def test_a_pair_says_how_many_ranks_lie_between(project):
    bring_in(project, line(rollouts=["a", "b", "c"], ranks=[1, 3, 3]), line(quintet="q2"))
    margins = {(each["chosen"], each["rejected"]): each["margin"] for each in rows(project, "pairs")[2:]}
    assert margins["b", "a"] == 1.0
    assert margins["b", "d"] == 4.0
    assert rows(project, "pairs")[0]["margin"] == 1.0  # dense: 1, 2, 2


def test_pairs_may_be_messages_where_no_prompt_is_a_chat(project):
    bring_in(project, line(rollouts=["a", "b"], ranks=[1, 2]))
    (pair,) = rows(project, "pairs", messages=True)
    assert pair["prompt"] == [{"role": "user", "content": "Write a joke."}]
    assert pair["chosen"] == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"ranks": [1, 2, 3, 4, 5]}, [True, True, None, False, False]),
        ({"ranks": [1, 1, 1, 2, 3]}, [None, None, None, False, False]),
        ({"ranks": [1, 1, 1, 1, 1]}, [None] * 5),
        ({"ranks": [2, 1], "rollouts": ["a", "b"]}, [False, True]),
        ({"ranks": [1, 2, 3, 4, 5], "acceptable": 4}, [True, True, True, True, False]),
        ({"ranks": [1, 2, 3, 4, 5], "acceptable": 0}, [False] * 5),
        ({"ranks": [1, 2, 3, 4, 5], "nonsense": [0], "unsafe": [1]}, [False, False, None, False, False]),
        ({"ranks": [1, 2, 3, 4, 5], "acceptable": 5, "unsafe": [1]}, [True, False, True, True, True]),
        (
            {"ranks": [1, 2, 3, 4, 5], "acceptable": "most", "nonsense": "all"},
            [True, True, None, False, False],
        ),
    ],
)
def test_what_one_ranking_calls_good_and_bad(said, expected):
    assert labels(line(**said)) == expected


def test_kto_takes_each_ranking_or_what_most_say(project):
    bring_in(project, line(labeler="a", ranks=[1, 2, 3, 4, 5]), line(labeler="b", ranks=[1, 3, 4, 2, 5]),
             line(labeler="c", ranks=[1, 2, 4, 3, 5]))  # fmt: skip
    each = rows(project, "kto")
    assert len(each) == 12
    assert {row["completion"] for row in each if row["label"]} == {"a", "b", "d"}
    most = {row["completion"]: row["label"] for row in rows(project, "kto", consensus=True)}
    assert most == {"a": True, "b": True, "c": False, "e": False}  # one for d, one against it


def test_a_text_that_one_ranking_puts_on_both_sides_is_neither(project):
    bring_in(project, line(rollouts=["a", "a", "b", "c"], ranks=[1, 4, 2, 3]))
    assert {row["completion"]: row["label"] for row in rows(project, "kto")} == {"b": True, "c": False}


def test_answers_to_imitate_are_demonstrations_or_the_best_good_rollouts(project, labeler):
    bring_in(
        project,
        line(labeler="a"),
        line(quintet="q2", ranks=[1, 1, 2, 2, 2]),
        line(quintet="q3", ranks=[1] * 5),
    )
    prompt = project.prompts.get()
    Demonstration.objects.create(
        project=project, prompt=prompt, completion=ODD, author=labeler, extra={"a": 1}
    )
    assert rows(project, "sft") == [{"prompt": "Write a joke.", "completion": ODD, "simulated": False}]
    assert [row["completion"] for row in rows(project, "sft", best=True)] == ["b", "a", "b"]
    frozen = datasets.freeze(project)
    assert [row["completion"] for row in rows(project, "sft", dataset=frozen)] == ["b", "a", "b"]


def test_the_best_is_not_imitated_where_it_was_cut_off_or_is_called_bad(project):
    cut = {"finished": [True, False, True, True, True]}
    bring_in(project, line(**cut))
    assert rows(project, "sft", best=True) == []
    bring_in(project, line(quintet="q2"))
    Ranking.objects.filter(quintet__external_id="q2").update(acceptable=0)
    assert rows(project, "sft", best=True) == []


# The kinds of file


def lines_of_every_sort() -> list[dict]:
    return [
        line(prompt=ODD, rollouts=[ODD, "", "b", "b", ODD + "x"], mood={"of": ["day", 1.5, None]}),
        line(
            quintet="q2", prompt="=1+1", rollouts=["=cmd()", "+1", "-1", "@x", "'=x"], ranks=[1, 2, 2, 3, 4]
        ),
        line(quintet="q3", rollouts=["'", "''"], ranks=[2, 1], labeler="somebody else", seconds=0.1 + 0.2),
        line(quintet="q4", rollouts=["\ttab", "a\r\nb", '1,5;"2"'], ranks=[1, 1, 1], seconds=None),
        line(quintet="q5", prompt='[{"not": "a chat"}]', arm="another's word", round="warm-up"),
    ]


@pytest.mark.parametrize("chats", [False, True], ids=["plain", "chats"])
def test_every_ranking_comes_back_as_it_was_from_every_kind_of_file(project, chats, tmp_path):
    bring_in(project, *lines_of_every_sort(), *([line(quintet="q6", prompt=CHAT)] if chats else []))
    Ranking.objects.filter(quintet__external_id="q2").update(acceptable=2, nonsense=[4], unsafe=[0, 1])
    Ranking.objects.filter(quintet__external_id="q3").update(surplus=True, shown=[1, 0])
    before = out(project, "ranked")
    assert len(before.splitlines()) == 5 + chats
    for file in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"ranked.{file}"
        call_command("export", "pelican-jokes", "--file-format", file, "--output", str(path))
        call_command("import_rankings", path, "--project", f"copy-{file}")
        assert out(Project.objects.get(slug=f"copy-{file}"), "ranked") == before, file


def test_a_cell_is_never_a_formula(project):
    bring_in(
        project, line(prompt="=1+1", rollouts=["=cmd()", "+1", "-1", "@x", "\tx"], ranks=[1, 2, 3, 4, 5])
    )
    (row,) = csv.DictReader(io.StringIO(out(project, "ranked", "csv").decode(), newline=""))
    assert row["prompt"] == "'=1+1"
    assert [row[f"rollout_{n}"] for n in range(1, 6)] == ["'=cmd()", "'+1", "'-1", "'@x", "'\tx"]
    assert row["rank_1"] == "1"
    assert json.loads(out(project, "pairs").splitlines()[0])["chosen"] == "=cmd()"


def test_a_line_is_exact_to_the_byte(project):
    bring_in(project, line(prompt=ODD, rollouts=[ODD, "b"], ranks=[1, 2], seconds=0.1 + 0.2))
    written = out(project, "ranked")
    assert (
        ODD.encode()
        .replace(b"\\", b"\\\\")
        .replace(b'"', b'\\"')
        .replace(b"\n", b"\\n")
        .replace(b"\t", b"\\t")
        in written
    )
    assert b"0.30000000000000004" in written


# The card and its folder


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_zip_holds_the_card_and_the_parts_of_the_split(project, as_admin):
    project.revise_guidelines("Funny first.\n\n- No puns")
    bring_in(project, *(line(quintet=f"q{n}", prompt=f"Joke {n}") for n in range(20)))
    response = as_admin.get("/datasets/pelican-jokes/export/?format=pairs&card=on")
    assert response["Content-Disposition"] == 'attachment; filename="pelican-jokes-pairs.zip"'
    with zipfile.ZipFile(io.BytesIO(b"".join(response.streaming_content))) as folder:
        files = {
            name.removeprefix("pelican-jokes-pairs/"): folder.read(name).decode()
            for name in folder.namelist()
        }
    assert set(files) == {"README.md", "data/train.jsonl", "data/validation.jsonl"}
    prompts = {
        part: {json.loads(each)["prompt"] for each in files[f"data/{part}.jsonl"].splitlines()}
        for part in ("train", "validation")
    }
    held = data.split_by_prompt([f"Joke {n}" for n in range(20)], 0.15, 0)[1]
    assert prompts["validation"] == {f"Joke {n}" for n in held}
    assert len(prompts["train"] | prompts["validation"]) == 20
    card = files["README.md"]
    assert front(card)["task_categories"] == ["text-generation"]
    assert front(card)["size_categories"] == ["n<1K"]
    assert "license" not in front(card)
    assert front(card)["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train.jsonl"}
    assert "> Funny first.\n>\n> - No puns" in card
    assert "| rankings | 20 |" in card
    assert "No two labelers ranked the same quintet" in card


def test_a_card_says_what_was_measured(project):
    bring_in(
        project,
        *(line(labeler=name, rollouts=["long one", "b"], ranks=ranks) for name, ranks in
          {"a": [1, 2], "b": [1, 2], "c": [2, 1]}.items()),
        line(labeler="sim", simulated=True),
    )  # fmt: skip
    frozen = datasets.freeze(project, datasets.Query(simulated=True))
    with Export(project, dataset=frozen).source() as source:
        card = dict(Export(project, dataset=frozen).folder(source))["README.md"]
        card = b"".join(card).decode()
    assert "order 33.3% of the pairs that both decide the same way (3 comparisons in 1 quintets)" in card
    assert "people rank the longer one higher in 66.7% of 3 pairs" in card
    assert f"sha256 `{frozen.sha256}`" in card
    assert "| simulated, not by people | 1 |" in card
    assert "synthetic" in front(card)["tags"]


def test_a_folder_is_written_by_the_command(project, tmp_path):
    bring_in(project, *(line(quintet=f"q{n}", prompt=f"Joke {n}") for n in range(8)))
    call_command(
        "export",
        "pelican-jokes",
        "--format",
        "kto",
        "--file-format",
        "parquet",
        "--output",
        f"{tmp_path}/new/",
    )
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"new/README.md", "new/data/train.parquet", "new/data/validation.parquet"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--dataset", "999999"], "no dataset 999999"),
        (["--format", "odd"], "invalid choice"),
        (["--file-format", "xls"], "invalid choice"),
        (["--output", "/no/such/folder/x"], "cannot be written: No such file"),
    ],
)
def test_the_command_refuses_in_words(project, arguments, words):
    bring_in(project, line())
    with pytest.raises(CommandError, match=words):
        call_command("export", "pelican-jokes", *arguments)


def test_demonstrations_make_no_pairs(project, labeler):
    Demonstration.objects.create(project=project, prompt=project.prompts.create(content="x"), completion="y")
    frozen = datasets.freeze_demonstrations(project)
    with pytest.raises(CommandError, match="holds demonstrations: it cannot be exported as pairs"):
        call_command("export", "pelican-jokes", "--format", "pairs", "--dataset", str(frozen.pk))


def test_a_dataset_whose_file_is_gone_is_not_exported(project):
    bring_in(project, line())
    frozen = datasets.freeze(project)
    (settings.HOME / frozen.path).unlink()
    with pytest.raises(CommandError, match=f"file of dataset {frozen.pk} is gone"):
        call_command("export", "pelican-jokes", "--dataset", str(frozen.pk))


# Size


@pytest.mark.parametrize(
    "form, file", [("ranked", "jsonl"), ("pairs", "jsonl"), ("consensus", "csv"), ("kto", "parquet")]
)
def test_memory_does_not_grow_with_the_lines(project, form, file):
    def peak(count: int) -> int:
        with tempfile.TemporaryFile() as lines:
            facts = Facts(0.1)
            for number in range(count):
                facts.add(each := line(quintet=str(number), prompt=f"Joke {number}"), lines.tell())
                lines.write(f"{data.dumps(each)}\n".encode())
            export, source = Export(project, FORMATS[form], file), Source(lines, facts.manifest())
            tracemalloc.start()
            assert sum(map(len, export.chunks(source))) > 4 * count
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    peak(100)  # what is loaded once
    assert peak(6000) < peak(600) + 300_000


def test_any_rankings_give_the_pairs_that_counting_gives(project):
    chance = random.Random(3)
    lines = [
        line(quintet=f"q{n}", rollouts=[chance.choice("abcdef") for _ in range(5)],
             ranks=[chance.randint(1, 3) for _ in range(5)])
        for n in range(40)
    ]  # fmt: skip
    bring_in(project, *lines)
    expected = sorted(
        (each["quintet"], each["rollouts"][i], each["rollouts"][j])
        for each in lines
        for i in range(5)
        for j in range(5)
        if each["ranks"][i] < each["ranks"][j] and each["rollouts"][i] != each["rollouts"][j]
    )
    assert len(rows(project, "pairs")) == len(expected)
    assert sorted((one["chosen"], one["rejected"]) for one in rows(project, "pairs")) == sorted(
        (chosen, rejected) for _, chosen, rejected in expected
    )


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
prompts = texts.filter(str.strip) | st.just(CHAT)


@st.composite
def any_lines(draw) -> list[dict]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        rollouts = draw(st.lists(texts, min_size=2, max_size=5))
        ranks = draw(st.lists(st.integers(1, 3), min_size=len(rollouts), max_size=len(rollouts)))
        own = draw(st.dictionaries(st.sampled_from(["mood", "Note", "extra", "ünd so"]), values, max_size=2))
        seconds = draw(st.none() | st.floats(0, 1e6))
        known = {"prompt": draw(prompts), "quintet": f"q{number}", "seconds": seconds}
        made.append(line(rollouts=rollouts, ranks=list(data.dense(ranks)), **known, **own))
    return made


@settings_of_hypothesis(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=any_lines())
def test_any_ranking_survives_every_kind_of_file(db, lines, tmp_path_factory):
    with transaction.atomic():
        bring_in(Project.objects.create(name="First", slug="first"), *lines)
        before = out(Project.objects.get(slug="first"), "ranked")
        assert sorted(map(json.loads, before.split(b"\n")[:-1]), key=by_quintet) == sorted(
            lines, key=by_quintet
        )
        for file in ("jsonl", "csv", "parquet"):
            path = tmp_path_factory.mktemp("export") / f"ranked.{file}"
            call_command("export", "first", "--file-format", file, "--output", str(path))
            call_command("import_rankings", path, "--project", f"copy-{file}")
            assert out(Project.objects.get(slug=f"copy-{file}"), "ranked") == before, file
        transaction.set_rollback(True)
