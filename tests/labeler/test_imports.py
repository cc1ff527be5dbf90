"""The pages of an import, and the import itself by a worker's hand: looked at, checked, kept whole or not at
all, told of, started again, taken out."""

import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from labeler import celery, tasks
from labeler.intake import uploads
from labeler.models import AuditEntry, Import, Place, Project, Prompt, Quintet, Ranking, Rollout, User

pytestmark = pytest.mark.django_db
ADDRESS = "/imports/pelican-jokes/"
WMT = Path(__file__).parents[1] / "data/wmt13-fr-en-five-way.csv"
RANKED = {"prompt": "Write a joke.", "rollouts": list("abcde"), "ranks": [2, 1, 3, 5, 4], "labeler": "rita"}


def file_of(*rows: dict) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def upload(client, content: bytes, name: str = "rankings.jsonl"):
    return client.post(ADDRESS, {"file": SimpleUploadedFile(name, content)})


@pytest.fixture
def kept(as_admin, project):
    """`kept(content)`: the import of this file, looked at and not begun."""

    def keep(content: bytes, name: str = "rankings.jsonl") -> Import:
        response = upload(as_admin, content, name)
        assert response.status_code == 302, response.context["form"].errors
        found = Import.objects.latest("pk")
        assert response.url == f"{ADDRESS}{found.pk}/"
        return found

    return keep


@pytest.fixture
def rung(monkeypatch) -> list:
    """Who was rung for, without a broker."""
    bells: list = []
    monkeypatch.setattr("labeler.models.imports.ring", lambda *bell: bells.append(bell))
    return bells


def done(found: Import, **asked) -> Import:
    """What became of it, after a worker came."""
    assert found.ask(**asked)
    tasks.take_in(found.pk)
    found.refresh_from_db()
    return found


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


# Importing


def test_what_is_asked_waits_for_a_worker_and_the_page_tells(
    as_admin, kept, rung, django_capture_on_commit_callbacks
):
    found = kept(file_of(RANKED))
    with django_capture_on_commit_callbacks(execute=True):
        assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}).status_code == 302
    assert rung == [("take_in", found.pk)]
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "Waiting for the worker" in page and 'hx-trigger="every 1s"' in page
    Import.objects.update(asked_at=timezone.now() - timezone.timedelta(minutes=1))
    assert "No worker has come for it yet" in as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}, follow=True).status_code == 200
    assert len(rung) == 1


@pytest.mark.django_db(transaction=True)
def test_a_worker_imports_it_all_and_the_page_says_so(as_admin, kept, rung):
    found = done(kept(file_of(RANKED, RANKED | {"labeler": "sam"}, RANKED)))
    assert (found.state, found.added, found.known, found.errors) == ("finished", 2, 1, 0)
    assert set(Ranking.objects.values_list("labeler__username", flat=True)) == {"rita", "sam"}
    assert {
        each.brought_by for each in (*Ranking.objects.all(), *Quintet.objects.all(), *Prompt.objects.all())
    } == {found}
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "It is all in" in page and "every 1s" not in page
    assert not found.folder.exists()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.by.username, entry.about) == ("import done", "ada", {"number": found.pk})
    assert "rankings.jsonl: 2 rankings came in, 1 were there already" in entry.words


@pytest.mark.django_db(transaction=True)
def test_a_dry_run_finds_it_good_and_keeps_nothing(as_admin, kept, rung):
    found = done(kept(file_of(RANKED)), dry_run=True)
    assert (found.state, found.added) == ("checked", 1)
    assert not Prompt.objects.exists() and not User.objects.filter(username="rita").exists()
    assert "Every line can be taken" in as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert done(found).state == "finished"
    assert Ranking.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_admin_of_a_project_cannot_put_words_into_a_strangers_mouth(
    kept, rung, project, labeler, stranger
):
    project.memberships.filter(user=labeler).update(role="admin")
    of_otto = kept(file_of(RANKED | {"labeler": "otto"}, RANKED | {"labeler": "lena"}))
    Import.objects.filter(pk=of_otto.pk).update(created_by=labeler)
    found = done(of_otto)
    assert (found.state, found.errors) == ("refused", 1)
    assert "otto has an account here and is not in this project" in str(found.first_errors)
    project.memberships.create(user=stranger)
    again = kept(file_of(RANKED | {"labeler": "otto"}, RANKED | {"labeler": "lena"}))
    Import.objects.filter(pk=again.pk).update(created_by=labeler)
    assert done(again).state == "finished"
    assert {each.labeler.username for each in Ranking.objects.all()} == {"lena", "otto"}


@pytest.mark.django_db(transaction=True)
def test_names_that_differ_in_capitals_alone_are_one_too_many(kept, rung, labeler):
    found = done(
        kept(file_of(RANKED | {"labeler": "Lena"}, RANKED | {"labeler": "New"}, RANKED | {"labeler": "new"}))
    )
    assert (found.state, found.errors) == ("refused", 2)
    assert "the labeler Lena is called lena here" in str(found.first_errors)


@pytest.mark.django_db(transaction=True)
def test_all_errors_are_told_and_nothing_is_kept(as_admin, kept, rung):
    bad = [RANKED | {"ranks": [n]} for n in range(30)]
    found = done(
        kept(file_of(RANKED, *bad, RANKED | {"labeler": "x", "simulated": True}, RANKED | {"labeler": "x"}))
    )
    assert (found.state, found.errors, len(found.first_errors)) == ("refused", 31, 20)
    assert not Prompt.objects.exists()
    page = as_admin.get(f"{ADDRESS}{found.pk}/").content.decode()
    assert "31 lines cannot be taken" in page and "Line 2: “ranks” must be a list of 5 numbers" in page
    response = as_admin.get(f"{ADDRESS}{found.pk}/errors/")
    told = b"".join(response.streaming_content).decode().splitlines()
    assert len(told) == 31
    assert told[-1] == "Line 33: the labeler x is simulated elsewhere, and a person here."
    assert "attachment" in response["Content-Disposition"]


@pytest.mark.django_db(transaction=True)
def test_the_columns_chosen_on_the_page_are_those_that_are_imported(as_admin, kept, rung):
    found = kept(b"q,r1,r2,secret\nWrite a joke.,a,b,x\n", "sheet.csv")
    chosen = {f"column-{n}": field for n, field in enumerate(["prompt", "rollout 1", "rollout 2", "-"])}
    as_admin.post(f"{ADDRESS}{found.pk}/", {"kind": "rollouts"})
    as_admin.post(f"{ADDRESS}{found.pk}/", chosen | {"kind": "rollouts", "do": "import"})
    tasks.take_in(found.pk)
    quintet = Quintet.objects.get()
    assert [each.text for each in quintet.rollouts.all()] == ["a", "b"]
    assert (quintet.extra, quintet.prompt.content) == ({}, "Write a joke.")
    assert Place.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("content", [b"\n\n{}\n", b"{\n"])
def test_a_file_without_one_good_line_is_refused(kept, rung, content):
    assert done(kept(b"\n" + content)).state == "refused"


@pytest.mark.django_db(transaction=True)
def test_a_header_alone_is_no_import(kept, rung):
    found = done(kept(b"prompt,answer\n", "sheet.csv"))
    assert (found.state, found.reason) == ("failed", "There is no line in it.")


# A worker's life


@pytest.mark.django_db(transaction=True)
def test_a_message_that_comes_twice_finds_nothing_to_do(kept, rung):
    found = done(kept(file_of(RANKED)))
    tasks.take_in(found.pk)
    assert Ranking.objects.count() == 1
    assert Import.objects.get().attempt == 1


@pytest.mark.django_db(transaction=True)
def test_an_import_whose_worker_was_killed_starts_again_from_nothing(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    lost = Import.objects.claim(found.pk)
    assert Import.objects.claim(found.pk) is None
    Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    tasks.take_in(found.pk)
    assert Ranking.objects.count() == 1
    assert not lost.end("failed") and not lost.renew(1, 1, "")
    assert Import.objects.get().state == "finished"


@pytest.mark.django_db(transaction=True)
def test_what_kills_three_workers_is_not_tried_a_fourth_time(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    for _ in range(3):
        assert Import.objects.claim(found.pk)
        Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    assert Import.objects.claim(found.pk) is None
    found.refresh_from_db()
    assert (found.state, found.reason.partition(" over")[0]) == ("failed", "The worker died 3 times")


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_go_leaves_it_whole_to_the_next(kept, rung, monkeypatch):
    found = kept(file_of(*({"prompt": f"p{n}"} for n in range(2500))), "prompts.jsonl")
    found.ask()
    claimed = Import.objects.claim(found.pk)
    asked = iter([False, True])
    from labeler.intake.work import carry_out

    carry_out(claimed, lambda: next(asked))
    found.refresh_from_db()
    assert (found.state, Prompt.objects.count()) == ("waiting", 0)
    tasks.take_in(found.pk)
    assert Prompt.objects.count() == 2500


@pytest.mark.django_db(transaction=True)
def test_an_attempt_that_lost_the_row_keeps_nothing(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    late = Import.objects.claim(found.pk)
    Import.objects.update(leased_until=timezone.now() - timezone.timedelta(seconds=1))
    Import.objects.claim(found.pk)
    from labeler.intake.work import carry_out

    carry_out(late, lambda: False)
    assert not Ranking.objects.exists()
    assert Import.objects.get().state == "working"


def test_the_sweep_rings_for_what_waits(kept, rung):
    found = kept(file_of(RANKED))
    found.ask()
    tasks.sweep({"interactive"})
    assert rung == [("take_in", found.pk)]
    tasks.sweep({"runs"})
    assert len(rung) == 1


def test_imports_are_taken_by_the_queue_of_those_who_wait():
    assert celery.app.conf.task_routes["take_in"] == {"queue": "interactive"}
    assert sorted(queue.name for queue in celery.app.conf.task_queues) == ["interactive", "runs"]


def test_a_real_worker_imports_what_a_page_asked_for(worker, as_admin, kept):
    found = kept(file_of(*(RANKED | {"quintet": f"q{n}"} for n in range(1500))))
    assert as_admin.post(f"{ADDRESS}{found.pk}/", {"do": "import"}).status_code == 302
    worker.wait_until(lambda: Import.objects.get().state == "finished")
    assert Ranking.objects.count() == 1500
    assert as_admin.post(f"{ADDRESS}{found.pk}/undo/").status_code == 302
    worker.wait_until(lambda: Import.objects.get().state == "undone")
    assert not Ranking.objects.exists() and not Rollout.objects.exists()


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


@pytest.fixture(autouse=True)
def no_files_left():
    yield
    shutil.rmtree(settings.HOME / "imports", ignore_errors=True)
