"""`import_rankings`: every format by its own looks, all of a file or nothing, all errors told; and WMT's file
there and back."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from labeler.models import AuditEntry, Import, Place, Project, Prompt, Quintet, Ranking, User

pytestmark = pytest.mark.django_db
WMT = Path(__file__).parents[1] / "data/wmt13-fr-en-five-way.csv"
LINE = {"prompt": "p", "rollouts": ["a", "b"], "ranks": [2, 1], "labeler": "rita"}


@pytest.fixture
def bring(tmp_path, capsys):
    """`bring(content)`: what the command says of a file with that content."""

    def bring(content: str | bytes, *options: str, name: str = "file") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        call_command("import_rankings", path, "--project", "new-one", *options)
        return capsys.readouterr().out

    return bring


def in_the_file() -> Counter:
    """How often each judge put the systems of a segment in the same order."""
    with WMT.open() as file:
        return Counter(
            (
                f"{row['srclang']}–{row['trglang']}, segment {row['segmentId']}",
                row["judgeId"],
                weak_order((row[f"system{n}Id"], int(row[f"system{n}rank"])) for n in range(1, 6)),
            )
            for row in csv.DictReader(file)
        )


def weak_order(ranked) -> tuple[frozenset[str], ...]:
    """The systems, best first, those with equal ranks together: what a ranking says, whatever its numbers."""
    ranked = [(system, rank) for system, rank in ranked if rank != -1]
    return tuple(
        frozenset(system for system, rank in ranked if rank == each)
        for each in sorted({r for _, r in ranked})
    )


def test_wmts_file_comes_out_with_the_weak_orders_that_went_in(tmp_path, capsys):
    call_command("import_rankings", WMT, "--project", "wmt")
    # Two of the 200 lines are there twice, to the last letter: a double entry, and known as one.
    assert capsys.readouterr().out == "198 rankings added; 2 were there already and left out.\n"
    out = tmp_path / "out.jsonl"
    call_command("export", "wmt", "--output", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    ranked = (zip(line["rollouts"], line["ranks"], strict=True) for line in lines)
    found = Counter(
        (line["prompt"], line["labeler"], weak_order(each)) for line, each in zip(lines, ranked, strict=True)
    )
    assert found == Counter(set(in_the_file()))
    assert len(found) == 198
    assert any(len(group) > 1 for _, _, order in found for group in order)
    # Ranks are dense on their way out, and the same file again is known.
    assert all(set(line["ranks"]) == set(range(1, max(line["ranks"]) + 1)) for line in lines)
    call_command("import_rankings", out, "--project", "wmt")
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 rankings added; 198 were there")


def test_judges_of_the_same_systems_meet_at_one_quintet(capsys):
    call_command("import_rankings", WMT, "--project", "wmt")
    rows = in_the_file()
    shared = Counter((prompt, frozenset().union(*order)) for prompt, judge, order in set(rows))
    judged = [
        each for each in Quintet.objects.all() if each.rankings.values("labeler").distinct().count() > 1
    ]
    twice = {
        key for key in shared if len({judge for p, judge, o in rows if (p, frozenset().union(*o)) == key}) > 1
    }
    assert len(judged) == len(twice) > 0
    assert not Place.objects.exists()
    assert not User.objects.filter(username__startswith="researcher", is_active=True).exists()


@pytest.mark.parametrize(
    "content, options",
    [
        (json.dumps(LINE), []),
        (json.dumps(LINE), ["--format", "lines"]),
        ("prompt,rollout_1,rollout_2,rank_1,rank_2,labeler\np,a,b,2,1,rita\n", []),
        ("prompt;rollout_1;rollout_2;rank_1;rank_2;labeler\np;a;b;2;1;rita\n", ["--format", "csv"]),
        ('prompt,rollouts,ranks,annotator\np,"[""a"",""b""]","[9,3]",rita\n', []),
    ],
)
def test_the_format_is_told_by_the_file(bring, content, options):
    assert bring(content, *options).startswith("1 rankings added")
    ranking = Ranking.objects.get()
    assert (ranking.ranks, ranking.labeler.username, ranking.quintet.prompt.content) == ([2, 1], "rita", "p")


def test_pairs_become_rankings_of_two(bring):
    chat = [{"role": "user", "content": "p"}]
    good, bad = ([{"role": "assistant", "content": text}] for text in ("a", "b"))
    text = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2}
    rows = [
        text,
        {"chosen": chat + good, "rejected": chat + bad},
        {"prompt": chat, "chosen": bad, "rejected": good},
    ]
    content = "\n".join(json.dumps(row) for row in rows)
    assert bring(content).startswith("3 rankings added")
    kept = Ranking.objects.order_by("pk").values_list("quintet__prompt__content", "ranks", "extra")
    assert list(kept) == [("p", [1, 2], {"margin": 2}), (chat, [1, 2], {}), (chat, [1, 2], {})]
    assert bring(content, "--format", "pairs").startswith("0 rankings added; 3 were there")


def test_a_table_is_read(bring, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "table"
    pq.write_table(pa.table({key: [value] * 3 for key, value in LINE.items()}), path)
    assert bring(path.read_bytes()) == "1 rankings added; 2 were there already and left out.\n"
    assert bring(path.read_bytes(), "--format", "parquet").startswith("0 rankings added")


def test_what_is_kept_can_be_taken_out_again(bring):
    bring(json.dumps(LINE), name="mine.jsonl")
    found = Import.objects.get()
    assert (found.name, found.state, found.added, found.created_by) == ("mine.jsonl", "finished", 1, None)
    assert AuditEntry.objects.get().action == "import done"
    found.take_out()
    assert not Ranking.objects.exists() and not Prompt.objects.exists()


def test_a_dry_run_keeps_nothing_at_all(bring):
    assert (
        bring(json.dumps(LINE), "--dry-run")
        == "1 rankings would be added; 0 are there already and left out.\n"
    )
    for model in (Project, Import, User, AuditEntry):
        assert not model.objects.exists()


def test_rows_that_rank_fewer_than_two_are_counted_and_left_out(bring):
    header, first, *_ = WMT.read_text().splitlines()
    unranked = ",".join([*first.split(",")[:-5], "-1", "-1", "-1", "-1", "3"])
    said = bring("\n".join([header, first, unranked]))
    assert said.splitlines()[1] == "1 lines rank fewer than two and say nothing: left out."


def test_every_error_is_told_and_nothing_is_kept(bring, tmp_path):
    bad = "\n".join([json.dumps(LINE)] + [json.dumps(LINE | {"ranks": [n]}) for n in range(30)])
    with pytest.raises(CommandError) as refused:
        bring(bad)
    said = str(refused.value).splitlines()
    assert said[0].endswith("file: 30 lines are wrong. Nothing was imported.")
    assert said[1].startswith("Line 2: “ranks” must be a list of 2 numbers")
    assert said[-1] == "… and 10 more: --errors FILE writes all of them."
    with pytest.raises(CommandError):
        bring(bad, "--errors", str(tmp_path / "errors"))
    assert len((tmp_path / "errors").read_text().splitlines()) == 30
    assert not Project.objects.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "The file is empty"),
        ("prompt,answer\na,b\n", "No column is “rollouts” and “ranks”: rankings cannot do without"),
        (b"\xff\xfep\0", "UTF-16"),
        (b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_holds_no_rankings_is_refused_in_words(bring, content, words):
    with pytest.raises(CommandError, match=words) as refused:
        bring(content)
    assert "Nothing was imported." in str(refused.value)
    assert not Project.objects.exists()


def test_nothing_is_left_under_the_home(bring):
    before = set(settings.HOME.rglob("*"))
    with pytest.raises(CommandError):
        bring("{")
    bring(json.dumps(LINE))
    assert set((settings.HOME / "imports").rglob("*")) <= before


def test_the_file_with_the_errors_must_be_writable(bring):
    with pytest.raises(CommandError, match="cannot be written: No such file"):
        bring(json.dumps(LINE), "--errors", "/no/such/folder/errors")
