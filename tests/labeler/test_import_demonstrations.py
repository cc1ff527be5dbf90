"""Answers that a file brings: in every form and kind of file, all or nothing, out again, there and back."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from django.core.management import call_command

from labeler.intake.work import carry_out
from labeler.management import CommandError
from labeler.models import Demonstration, Import, Project, Prompt

pytestmark = pytest.mark.django_db
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "A joke?"},
    {"role": "assistant", "content": "Honk."},
]
PAIR = {"prompt": "A pun?", "completion": "Bill me."}


@pytest.fixture(autouse=True)
def nobody_is_told_how_far_it_is(monkeypatch):
    """That is told by another connection, to which nothing of a test is there."""
    monkeypatch.setattr("labeler.intake.work.A_MOMENT", 600)


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def brought(project, as_admin, name: str, content: bytes, do: str = "import") -> Import:
    """By the page, and what a worker does about it."""
    file = io.BytesIO(content)
    file.name = name
    page = as_admin.post(f"/imports/{project.slug}/", {"file": file})
    assert page.status_code == 302, page.content.decode()
    answer = as_admin.post(page.url, {"do": do})
    assert answer.status_code == 302, answer.content.decode()
    found = Import.objects.claim(Import.objects.latest("pk").pk)
    assert found
    carry_out(found, lambda: False)
    found.refresh_from_db()
    return found


def kept(project) -> list[tuple]:
    return sorted((each.prompt.text, each.completion) for each in project.demonstrations.all())


def as_csv(*rows: dict) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
        for row in rows
    )
    return file.getvalue().encode()


def as_parquet(*rows: dict) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


@pytest.mark.parametrize(
    "name, write",
    [("a.jsonl", lines), ("a.csv", as_csv), ("a.parquet", as_parquet)],
    ids=["jsonl", "csv", "parquet"],
)
def test_conversations_and_pairs_come_in_every_kind_of_file(project, as_admin, name, write):
    for row, prompt, answer in (({"messages": CHAT}, "A joke?", "Honk."), (PAIR, "A pun?", "Bill me.")):
        done = brought(project, as_admin, name, write(row))
        assert (done.state, done.kind, done.added, done.known) == ("finished", "demonstrations", 1, 0)
        made = Demonstration.objects.latest("pk")
        assert (made.prompt.text, made.completion, made.origin, made.brought_by) == (
            prompt,
            answer,
            "imported",
            done,
        )
    assert Prompt.objects.get(content=CHAT[:2])


def test_columns_under_other_names_are_understood(project, as_admin):
    done = brought(project, as_admin, "alpaca.jsonl", lines({"instruction": "A pun?", "output": "Bill me."}))
    assert done.kind == "demonstrations"
    assert kept(project) == [("A pun?", "Bill me.")]


def test_the_preview_shows_what_will_be_kept(project, as_admin):
    file = io.BytesIO(lines(PAIR, {"messages": CHAT}))
    file.name = "a.jsonl"
    page = as_admin.post(f"/imports/{project.slug}/", {"file": file}, follow=True).content.decode()
    for words in ("Demonstrations: conversations", "A pun?", "Bill me.", "A joke?", "Honk."):
        assert words in page
    assert not project.demonstrations.exists()


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"prompt": "A pun?"}, "“completion”"),
        ({"prompt": "A pun?", "completion": " "}, "“completion”"),
        ({"messages": CHAT[:2]}, "must hold a turn of the assistant"),
        ({"messages": "no"}, "“messages”"),
        ({"prompt": "A pun?", "completion": "x" * 100_001}, "longer than 100,000"),
    ],
)
def test_one_bad_line_keeps_all_of_the_file_out(project, as_admin, bad, words):
    done = brought(project, as_admin, "a.jsonl", lines(PAIR, bad))
    assert (done.state, done.errors) == ("refused", 1)
    assert words in done.first_errors[0]
    assert not project.demonstrations.exists() and not project.prompts.exists()


def test_what_is_there_already_is_left_out_even_if_it_was_withdrawn(project, as_admin, admin):
    brought(project, as_admin, "a.jsonl", lines(PAIR))
    project.demonstrations.get().withdraw(admin)
    done = brought(project, as_admin, "b.jsonl", lines(PAIR, PAIR, PAIR | {"completion": "Another."}))
    assert (done.added, done.known) == (1, 2)
    assert [each.completion for each in project.demonstrations.all().counted()] == ["Another."]


def test_what_a_file_labels_as_bad_is_not_imitated(project, as_admin):
    rows = [PAIR | {"label": True}, {"prompt": "A pun?", "completion": "No.", "label": False}]
    done = brought(project, as_admin, "kto.jsonl", lines(*rows))
    assert (done.added, done.left_out) == (1, 1)


def test_an_import_is_taken_out_again_unless_somebody_has_edited_what_it_brought(
    project, as_admin, as_labeler
):
    done = brought(project, as_admin, "a.jsonl", lines(PAIR, {"messages": CHAT}))
    as_labeler.get(f"/demonstrations/{project.slug}/")  # somebody has its prompt before them
    made = project.demonstrations.first()
    made.rewrite("Changed.")

    def undone() -> Import:
        as_admin.post(f"/imports/{project.slug}/{done.pk}/undo/")
        carry_out(Import.objects.claim(done.pk), lambda: False)
        done.refresh_from_db()
        return done

    assert undone().state == "finished" and "edited here" in done.reason
    made.earlier.all().delete()
    project.demonstrations.update(version=1)
    assert undone().state == "undone"
    assert not project.demonstrations.exists() and not project.prompts.exists()


def test_what_the_sft_form_exports_comes_back_the_same(project, admin, tmp_path):
    prompt = project.prompts.create(content="A pun?")
    chat = project.prompts.create(content=CHAT[:2])
    project.demonstrations.create(prompt=prompt, completion="Bill me.\n\n\tTwice, “please”.", author=admin)
    project.demonstrations.create(prompt=chat, completion="Honk.", origin="won")
    for name in ("jsonl", "parquet", "csv"):
        file = tmp_path / f"out.{name}"
        call_command("export", project.slug, format="sft", output=str(file), file_format=name)
        call_command("import_demonstrations", str(file), project=f"again-{name}")
        again = Project.objects.get(slug=f"again-{name}")
        assert [each for _, each in kept(again)] == [each for _, each in kept(project)], name
        assert {each.origin for each in again.demonstrations.all()} == {"imported"}


def test_the_command_refuses_in_one_line(project, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_bytes(lines({"prompt": "A pun?"}))
    with pytest.raises(CommandError, match="completion"):
        call_command("import_demonstrations", str(file), project=project.slug)
