"""The pages of an import: a file looked at before anything is kept, who may, and the list."""

import html
import json
import os
import re
from pathlib import Path

import pytest
from django.conf import settings

from labeler.intake import uploads
from labeler.models import Import, Project, Prompt
from tests.labeler.uploaded import ADDRESS, RANKED, file_of, kept, no_files_left, rung, upload

__all__ = ["kept", "no_files_left", "rung"]  # fixtures

pytestmark = pytest.mark.django_db
WMT = Path(__file__).parents[1] / "data/wmt13-fr-en-five-way.csv"


# Looking at a file


def test_a_file_is_looked_at_before_anything_is_kept(as_admin, kept):
    found = kept(file_of(RANKED, RANKED | {"labeler": "sam"}))
    assert (found.kind, found.format, found.state) == ("rankings", "lines", "preview")
    page = as_admin.get(f"{ADDRESS}{found.pk}/")
    assert [each.name for each in page.context["columns"]] == ["prompt", "rollouts", "ranks", "labeler"]
    first = page.context["rows"][0]
    assert first.rollouts[0] == (1, "b", "")
    assert "rita" in page.content.decode()
    assert not Prompt.objects.exists()


def test_the_columns_can_be_called_something_else(as_admin, kept):
    found = kept(b"what,one,two,best,second,who\nJoke!,a,b,1,2,rita\n", "sheet.csv")
    assert found.kind == "prompts"
    page = as_admin.get(f"{ADDRESS}{found.pk}/")
    assert "No column is “prompt”" in page.content.decode()
    page = as_admin.post(f"{ADDRESS}{found.pk}/", {"kind": "rankings", "do": "look"})
    names = {each.name: each for each in page.context["columns"]}
    assert "rollout 1" in [value for value, _ in names["one"].choices]
    fields = ["prompt", "rollout 1", "rollout 2", "rank 1", "rank 2", "labeler"]
    chosen = {f"column-{n}": field for n, field in enumerate(fields)}
    page = as_admin.post(f"{ADDRESS}{found.pk}/", chosen | {"kind": "rankings", "do": "look"})
    (row,) = page.context["rows"]
    assert (row.prompt, row.line.rollouts, row.line.ranks, row.line.labeler) == (
        "Joke!",
        ("a", "b"),
        (1, 2),
        "rita",
    )
    assert not page.context["refusal"]


def test_the_page_says_what_a_file_looks_like(as_admin, project):
    page = as_admin.get(ADDRESS).content.decode()
    example = html.unescape(re.search(r"<pre[^>]*>(.*ranks.*)</pre>", page)[1])
    assert json.loads(example)["ranks"] == [2, 1, 2]


def test_a_file_that_has_names_and_no_texts_is_said_to_teach_nothing(as_admin, kept):
    found = kept(WMT.read_bytes(), WMT.name)
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "a model would learn nothing from names" in page
    assert "newstest2013.fr-en.KIT_primary.2658" in page
    assert '<span class="chip">newstest2013' not in page, "the name is its own text, and said once"


def test_two_columns_cannot_be_the_same_thing(as_admin, kept, rung):
    found = kept(b"prompt,other\na,b\n", "sheet.csv")
    chosen = {"column-0": "prompt", "column-1": "prompt", "do": "import"}
    page = as_admin.post(f"{ADDRESS}{found.pk}/", chosen)
    assert page.status_code == 422
    assert page.context["refusal"] == "Two columns are “prompt”. Choose one."
    assert not rung


def test_a_column_cannot_be_made_into_something_that_there_is_not(as_admin, kept):
    found = kept(b"prompt\na\n", "sheet.csv")
    as_admin.post(f"{ADDRESS}{found.pk}/", {"column-0": "__class__", "kind": "odd"})
    found.refresh_from_db()
    assert (found.mapping, found.kind) == ({"prompt": "prompt"}, "prompts")


def test_rows_that_cannot_be_read_are_shown_with_their_reason(as_admin, kept):
    found = kept(file_of(RANKED) + b"{\n" + file_of(RANKED | {"ranks": [1]}))
    rows = as_admin.get(f"{ADDRESS}{found.pk}/").context["rows"]
    assert [(each.number, bool(each.reason)) for each in rows] == [(1, False), (2, True), (3, True)]


@pytest.mark.parametrize(
    "content, name, words",
    [
        (b"", "a.jsonl", "empty"),
        (b"\0\1\2" * 500, "a.csv", "not UTF-8"),
        ("prompt\n".encode("utf-16"), "a.csv", "UTF-16"),
        (b"PK\x03\x04" + b"x" * 100, "rankings.xlsx", "ZIP archive or a spreadsheet"),
        (b"PAR1" + b"x" * 100, "a.parquet", "cannot be read as Parquet"),
        (b"prompt,prompt\na,b\n", "a.csv", "more than once"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_words_and_not_kept(as_admin, project, content, name, words):
    response = upload(as_admin, content, name)
    assert response.status_code == 422
    assert words in response.context["form"].errors["file"][0]
    assert not Import.objects.exists()
    assert not list((settings.HOME / "imports").glob("*"))


@pytest.mark.parametrize(
    "content", [os.urandom(3000), b'{"a":' * 5000, b",,,\n,,,\n", b"\r\r\r", b"=cmd|x!A1\n=1+1\n"]
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.txt", "a", "é\u202e.csv"])
def test_whatever_is_uploaded_there_is_an_answer_in_words(as_admin, project, rung, content, name):
    response = upload(as_admin, content, name)
    assert response.status_code in (302, 422)
    if response.status_code == 302:
        assert as_admin.get(response.url).status_code == 200
        assert as_admin.post(response.url, {"do": "import"}).status_code in (302, 422)


@pytest.mark.parametrize(
    "content", [b'{"prompt": "\\ud800"}', b'{"prompt": "a", "k\\u0000": 1, "k\\udfff": 2}']
)
def test_what_no_page_can_show_is_shown_otherwise(as_admin, kept, content):
    found = kept(content + b"\n", "prompts.jsonl")
    address = f"{ADDRESS}{found.pk}/"
    assert as_admin.get(address).status_code == 200
    assert as_admin.post(address, {"do": "look", "column-0": "prompt", "column-1": ""}).status_code == 200


def test_prompts_that_are_looked_at_as_rollouts_have_none(as_admin, kept):
    """What somebody chose by mistake on the page is told, and can be chosen back."""
    found = kept(b'{"prompt": "a"}\n{"prompt": "b", "rollouts": 5}\n', "prompts.jsonl")
    page = as_admin.post(f"{ADDRESS}{found.pk}/", {"kind": "rollouts"})
    assert page.status_code == 200 and "must be a list of 2 to 5 texts" in page.content.decode()


def test_an_upload_that_is_too_large_is_dropped_and_said_to_be(as_admin, project, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST", 1000)
    monkeypatch.setattr(uploads, "A_FORM", 10_000)
    by_size = upload(as_admin, b"x" * 3000)
    by_header = upload(as_admin, b"x" * 30_000)
    for response in (by_size, by_header):
        assert response.status_code == 422
        assert "larger than" in " ".join(response.context["form"].errors["file"])
    assert not Import.objects.exists()


def test_what_a_stranger_uploads_is_dropped_from_the_first_byte(client, project, monkeypatch):
    kept = []
    monkeypatch.setattr(Import.objects, "keep", lambda *given: kept.append(given))
    response = upload(client, b"x" * 3000)
    assert response.status_code == 302 and "sign-in" in response.url
    assert not kept


def test_a_file_that_is_gone_is_said_to_be(as_admin, kept):
    found = kept(file_of(RANKED))
    found.file.unlink()
    assert "The file is gone" in as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}).status_code == 422


def test_a_file_can_be_thrown_away(as_admin, kept):
    found = kept(file_of(RANKED))
    assert as_admin.post(f"{ADDRESS}{found.pk}/delete/").url == ADDRESS
    assert not Import.objects.exists()
    assert not found.folder.exists()


# Who may


@pytest.mark.parametrize("path", ["", "{pk}/", "{pk}/errors/", "{pk}/undo/", "{pk}/delete/"])
def test_imports_are_an_admins_matter(path, client, as_labeler, as_stranger, kept, as_admin):
    found = kept(file_of(RANKED))
    address = ADDRESS + path.format(pk=found.pk)
    assert client.post(address).status_code == 302
    assert as_labeler.get(address).status_code == 404
    assert as_stranger.post(address).status_code == 404
    Project.objects.create(name="Other", slug="other")
    if path:
        assert as_admin.get(address.replace("pelican-jokes", "other")).status_code in (404, 405)
        assert as_admin.post(address.replace("pelican-jokes", "other")).status_code in (404, 405)
    assert Import.objects.filter(state="preview").exists()


def test_an_admin_of_the_project_may(project, labeler, as_labeler):
    project.memberships.filter(user=labeler).update(role="admin")
    assert as_labeler.get(ADDRESS).status_code == 200
    assert upload(as_labeler, file_of(RANKED)).status_code == 302


@pytest.mark.parametrize("path", ["undo/", "delete/"])
def test_nothing_is_undone_by_looking(path, as_admin, kept):
    assert as_admin.get(f"{ADDRESS}{kept(file_of(RANKED)).pk}/{path}").status_code == 405


# The list


def test_the_list_takes_as_many_queries_however_long_it_is(as_admin, project, django_assert_max_num_queries):
    Import.objects.bulk_create(
        [Import(project=project, name=f"{n}.jsonl", state="finished") for n in range(70)]
    )
    with django_assert_max_num_queries(12):
        page = as_admin.get(ADDRESS)
    assert page.content.decode().count(".jsonl</a>") == 50


def test_names_of_files_are_shown_as_text(as_admin, kept):
    found = kept(b"<script>,b\n<img src=x>,y\n", "<b>.csv")
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "<script>," not in page and "<img src=x>" not in page and "<b>.csv" not in page
