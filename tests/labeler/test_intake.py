"""Files and their rows: formats told apart, columns mapped, lines checked; and files that mean harm."""

import contextlib
import io
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import psutil
import pytest

from labeler.intake.columns import guessed, guessed_kind, missing, reader
from labeler.intake.files import PROGRAM, Source, Unreadable
from labeler.intake.kinds import READ, Line
from rlhf.data import BadLine

WMT = (Path(__file__).parents[1] / "data/wmt13-fr-en-five-way.csv").read_bytes()


def source(content: bytes | str, name: str = "file.csv") -> Source:
    return Source(io.BytesIO(content.encode() if isinstance(content, str) else content), name)


def rows(content: bytes | str, name: str = "file.csv") -> list:
    """Each row, or the number and the reason of a bad one."""
    read = [row for _, row in source(content, name).rows()]
    return [(row.number, row.reason) if isinstance(row, BadLine) else row for row in read]


def lines(content: bytes | str, name: str = "file.csv", kind: str = "") -> list[Line]:
    """As an import whose columns nobody changed reads it."""
    found = source(content, name)
    kind = kind or guessed_kind(found.columns)
    line = reader(guessed(found.columns, kind), found.format)
    return [READ[kind](line(row)) for _, row in found.rows()]


def parquet(path: Path, columns: dict, **options) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, **options)
    return path


def opened(path: Path) -> list:
    with path.open("rb") as file:
        return [row for _, row in Source(file, path.name).rows()]


# Formats


@pytest.mark.parametrize(
    "content, name, format",
    [
        ('{"prompt": "a"}\n', "a.jsonl", "lines"),
        ('{"prompt": "a"}\n', "wrong.csv", "lines"),
        ("prompt,answer\na,b\n", "a.csv", "csv"),
        ("prompt,answer\na,b\n", "wrong.jsonl", "csv"),
        ("prompt\na\n", "unnamed", "csv"),
        ("{a joke}\nanother, longer\n", "a.txt", "text"),
        ("not json\n", "a.jsonl", "lines"),
        (b"\xef\xbb\xbfprompt;answer\r\na;b\r\n", "excel.csv", "csv"),
    ],
)
def test_what_is_in_a_file_counts_more_than_its_name(content, name, format):
    assert source(content, name).format == format


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("prompt,answer\n".encode("utf-16"), "UTF-16"),
        ("prompt,answer\na,b\n".encode("utf-16-le"), "not UTF-8"),
        (b"PK\x03\x04rest", "a ZIP archive or a spreadsheet"),
        (b"\x1f\x8brest", "compressed"),
        (b'[{"prompt": "a"}]', "one JSON array"),
        (b"prompt,answer,prompt\na,b,c\n", "“prompt” is there more than once"),
        (b'"prompt,answer\na,b\n', "no header"),
        (b"pro\0mpt,b\na,b\n", "NUL"),
    ],
)
def test_a_file_that_is_none_of_the_formats_is_refused_in_words(content, words):
    with pytest.raises(Unreadable, match=words):
        source(content)


def test_windows_lines_quotes_semicolons_and_a_mark_at_the_beginning_are_no_trouble():
    content = b'\xef\xbb\xbfprompt;answer\r\n"two\r\nlines; and ""quotes""";x\r\nshort\r\n\r\n'
    assert rows(content) == [{"prompt": 'two\r\nlines; and "quotes"', "answer": "x"}, {"prompt": "short"}]


def test_a_bad_row_does_not_hide_the_others():
    content = b'prompt,answer\na,1\nb,2,3\nc,"4"5\nd\xff,6\n"e\nf",7\n' + b"x" * 1_000_001 + b"\nlast,8\n"
    assert rows(content) == [
        {"prompt": "a", "answer": "1"},
        (3, "it has more fields than there are columns."),
        (4, "it is not CSV (',' expected after '\"')."),
        (5, "it is not UTF-8 text."),
        {"prompt": "e\nf", "answer": "7"},
        (8, "it is longer than 1,000,000 bytes."),
        {"prompt": "last", "answer": "8"},
    ]


def test_bad_lines_of_json_are_all_named():
    content = b'{"prompt": "a"}\n{\n\n[1]\n{"a": NaN}\n' + b'"' + b"x" * 3_000_000 + b'"\n{"prompt": "b"}'
    read = rows(content, "a.jsonl")
    assert [row[0] for row in read if isinstance(row, tuple)] == [2, 4, 5, 6]
    assert [row for row in read if isinstance(row, dict)] == [{"prompt": "a"}, {"prompt": "b"}]


def test_a_quote_that_never_closes_does_not_swallow_the_file():
    content = 'prompt,answer\n"never closed,1\n' + "a line of text\n" * 200_000
    read = rows(content)
    assert isinstance(read[0], tuple) and read[0][0] == 2
    assert max(len(str(row)) for row in read) < 1000


def test_the_place_in_a_file_is_known_while_it_is_read():
    found = source("prompt\n" + "a\n" * 1000)
    places = [found.position for _ in found.rows()]
    assert places == sorted(places) and places[-1] == found.size


# Parquet


def test_a_table_is_read_row_by_row_without_its_empty_cells(tmp_path):
    path = parquet(
        tmp_path / "a.parquet",
        {
            "prompt": ["a", None],
            "rollouts": [["x", "y"], None],
            "score": [float("nan"), 0.5],
            "made": [date(2026, 1, 2), None],
            "chat": [[{"role": "user", "content": "hi"}], None],
        },
    )
    assert opened(path) == [
        {
            "prompt": "a",
            "rollouts": ["x", "y"],
            "made": "2026-01-02",
            "chat": [{"role": "user", "content": "hi"}],
        },
        {"score": 0.5},
    ]


def test_what_no_line_can_hold_is_named_by_its_row(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"prompt": ["a", "b"], "raw": [None, b"\xff"]})
    good, bad = opened(path)
    assert good == {"prompt": "a"}
    assert (bad.number, "a kind that cannot be kept (bytes)" in bad.reason) == (2, True)


def test_a_long_row_of_a_table_is_refused_like_a_long_line(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"prompt": ["x" * 1_000_001, "b"]})
    bad, good = opened(path)
    assert "longer than 1,000,000 bytes" in bad.reason
    assert good == {"prompt": "b"}


def test_a_small_file_that_unpacks_to_more_than_the_memory_is_refused_and_breaks_nothing(tmp_path):
    import pyarrow as pa

    # One text of 8 MB, meant 256 times, in a file of some kilobytes.
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 256), pa.array(["x" * 8_000_000]))
    path = parquet(tmp_path / "bomb.parquet", {"prompt": many}, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    with pytest.raises(Unreadable, match="unpacks to more than"):
        opened(path)


def test_more_rows_than_an_import_may_have_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet", {"prompt": ["x"] * 11})
    monkeypatch.setattr("labeler.intake.files.MOST_ROWS", 10)
    with pytest.raises(Unreadable, match="more than 10 rows"):
        opened(path)
    with pytest.raises(Unreadable, match="more than 10 rows"):
        rows("prompt\n" + "a\n" * 11)


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"PAR1" + os.urandom(500)])
def test_a_broken_table_is_refused_in_words(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match="cannot be read as Parquet"):
        opened(path)


def test_the_columns_of_a_table_are_known_even_without_rows(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"prompt": [], "ranks": []})
    with path.open("rb") as file:
        assert Source(file, "a.parquet").columns == ["prompt", "ranks"]


def test_nobody_who_reads_parquet_loads_its_library(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"prompt": ["a"]})
    code = f"""if True:
        import sys, django; django.setup()
        from labeler.intake.files import Source
        print(len(list(Source(open({str(path)!r}, "rb"), "a.parquet").rows())), "pyarrow" in sys.modules)"""
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "labeler.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=PROGRAM.parents[2]
    )
    assert done.stdout == "1 False\n", done.stderr


def unpacking() -> list[psutil.Process]:
    """What other tests have started may end, or be waiting to be told of, at any moment."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if str(PROGRAM) in each.cmdline() else []
    return found


def test_a_reader_that_has_seen_enough_leaves_no_process_behind(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"prompt": ["x" * 100] * 100_000})
    with path.open("rb") as file:
        reading = Source(file, "a.parquet").rows()
        next(reading)
        assert len(unpacking()) == 1
        reading.close()
    assert not unpacking()


# Columns


@pytest.mark.parametrize(
    "columns, kind",
    [
        (["prompt"], "prompts"),
        (["question", "answer"], "prompts"),
        (["prompt", "rollouts"], "rollouts"),
        (["instruction", "response_1", "response_2"], "rollouts"),
        (["prompt", "rollouts", "ranks"], "rankings"),
        (["prompt", "output_0", "output_1", "rank_0", "rank_1"], "rankings"),
        (["chosen", "rejected"], "pairs"),
        (["prompt", "chosen", "rejected", "margin"], "pairs"),
        (WMT.decode().splitlines()[0].split(","), "wmt"),
    ],
)
def test_what_a_file_holds_is_guessed_from_its_columns(columns, kind):
    assert guessed_kind(columns) == kind


def test_the_columns_of_others_are_understood():
    columns = ["Question", "Response 0", "Response 1", "rank_0", "rank_1", "system_0", "annotator", "note"]
    assert guessed(columns, "rankings") == {
        "Question": "prompt",
        "Response 0": "rollout 1",
        "Response 1": "rollout 2",
        "rank_0": "rank 1",
        "rank_1": "rank 2",
        "system_0": "model 1",
        "annotator": "labeler",
    }


def test_the_right_name_is_preferred_to_a_likely_one():
    assert guessed(["question", "prompt"], "prompts") == {"prompt": "prompt"}


def test_what_is_missing_is_said():
    assert missing({"a": "prompt"}, "rankings") == ["rollouts", "ranks"]
    assert missing({"a": "prompt", "b": "rollout 2", "c": "rank 2"}, "rankings") == []


def test_columns_side_by_side_become_lists_and_empty_ones_make_a_shorter_ranking():
    (three, two) = lines(
        "prompt,rollout_1,rollout_2,rollout_3,rank_1,rank_2,rank_3,model_1,model_2,note\n"
        "p,a,b,c,1,2,2,m,n,kept\n"
        "p,,b,,2,1,,,,\n"
    )
    assert (three.rollouts, three.ranks, three.models) == (("a", "b", "c"), (1, 2, 2), ("m", "n", ""))
    assert three.extra == {"note": "kept"}
    assert (two.rollouts, two.ranks, two.models) == (("", "b"), (2, 1), ())


def test_a_rollout_without_its_rank_is_named():
    with pytest.raises(ValueError, match="rollout 2 has no rank"):
        lines("prompt,rollout_1,rollout_2,rank_1,rank_2\np,a,b,1,\n")


def test_lists_in_cells_are_written_as_json():
    (line,) = lines('prompt,rollouts,ranks,simulated,seconds\np,"[""a"", ""b""]","[2, 1]",TRUE,3.5\n')
    assert (line.rollouts, line.ranks, line.simulated, line.facts) == (
        ("a", "b"),
        (2, 1),
        True,
        {"seconds": 3.5},
    )
    with pytest.raises(ValueError, match="“rollouts” must be written as JSON does it"):
        lines('prompt,rollouts,ranks\np,a|b,"[2, 1]"\n')


def test_a_chat_in_a_cell_is_a_chat():
    (line,) = lines('prompt\n"[{""role"": ""user"", ""content"": ""hi""}]"\n')
    assert line.prompt == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@cmd", "'quoted"])
def test_what_keeps_a_spreadsheet_from_calculating_is_not_part_of_a_text(text):
    assert [line.prompt for line in lines(f'prompt,answer\n"\'{text}",x\n"{text}",x\n')] == [text, text]


def test_a_column_that_another_took_the_name_of_is_left_out():
    line = reader({"question": "prompt", "secret": "-"}, "lines")
    assert line({"question": "a", "prompt": "b", "secret": 1, "note": 2}) == {"prompt": "a", "note": 2}


def test_what_a_table_of_ours_keeps_together_is_taken_apart():
    more = json.dumps({"note": 1, "prompt": '[{"a": "text"}]'}).replace('"', '""')
    (line,) = lines(f'prompt,rollout_1,rollout_2,rank_1,rank_2,extra\n"[{{}}]",a,b,1,2,"{more}"\n')
    assert (line.prompt, line.extra) == ('[{"a": "text"}]', {"note": 1})
    (line,) = lines("prompt,rollout_1,rollout_2,rank_1,rank_2,extra\np,a,b,1,2,not ours\n")
    assert line.extra == {"extra": "not ours"}
