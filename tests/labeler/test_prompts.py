"""Prompts: the list, adding them by paste, file and command, deleting. Admins only."""

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command

from labeler.models import Project, Prompt, Quintet, Round

pytestmark = pytest.mark.django_db
ADD = "/prompts/pelican-jokes/add/"


def paste(client, text: str):
    return client.post(ADD, {"pasted": text})


def upload(client, content: bytes | str, name: str = "prompts.jsonl"):
    content = content.encode() if isinstance(content, str) else content
    return client.post(ADD, {"file": SimpleUploadedFile(name, content)})


def contents(project: Project) -> list:
    return list(project.prompts.values_list("content", flat=True))


# The list


def test_prompts_are_listed_page_by_page_with_their_quintets(as_admin, project):
    for number in range(60):
        prompt = project.prompts.create(content=f"Prompt {number}")
    Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))
    response = as_admin.get("/prompts/pelican-jokes/", {"page": 2})
    assert [each.content for each in response.context["page"]][-1] == "Prompt 59"
    assert response.context["page"].object_list[-1].quintet_count == 1


def test_a_runs_lines_name_prompts_by_their_numbers_and_others_otherwise(project):
    here, other = project.prompts.create(content="Joke?"), Project.objects.create(name="Other", slug="other")
    there = other.prompts.create(content="Joke?")
    names = [str(here.pk), str(here.pk), str(there.pk), "", "gsm8k-7", "-1", "9" * 40, "²"]
    assert project.prompts.numbered(names) == {str(here.pk): here}


@pytest.mark.parametrize("words, found", [("pelican", 2), ("joke PELICAN", 1), ('"', 1), ("ü", 1), ("\\", 0)])
def test_prompts_can_be_searched(as_admin, project, words, found):
    project.prompts.create(content="Write a joke about a pelican.")
    project.prompts.create(content=[{"role": "user", "content": 'Say "pelicän" über all.'}])
    project.prompts.create(content="A pelican's poem, please.")
    project.prompts.filter(content="A pelican's poem, please.").update(content="A Pelican poem.")
    assert as_admin.get("/prompts/pelican-jokes/", {"words": words}).context["page"].paginator.count == found


def test_a_search_in_the_page_gets_only_the_list(as_admin, project):
    response = as_admin.get("/prompts/pelican-jokes/", {"words": "x"}, headers={"HX-Request": "true"})
    assert "<html" not in response.content.decode()


def test_an_empty_list_says_what_to_do(as_admin, project):
    assert "No prompts yet" in as_admin.get("/prompts/pelican-jokes/").content.decode()


def test_what_a_prompt_holds_is_shown_as_text(as_admin, project):
    project.prompts.create(content="<script>alert(1)</script>")
    assert "<script>alert" not in as_admin.get("/prompts/pelican-jokes/").content.decode()


# Adding


def test_pasted_lines_become_prompts(as_admin, project):
    response = paste(as_admin, "Write a joke about a pelican.\r\n\r\n  Write one about tea.  \r\n")
    assert response.status_code == 302
    assert contents(project) == ["Write a joke about a pelican.", "Write one about tea."]


def test_pasted_json_is_read_as_json(as_admin, project):
    paste(as_admin, '{"prompt": "2 + 2 = ?", "answer": "4", "id": 7}\n{"prompt": "3 + 3 = ?"}')
    first = project.prompts.first()
    assert (first.content, first.answer, first.external_id) == ("2 + 2 = ?", "4", "7")


def test_a_jsonl_file_keeps_chats_answers_and_other_keys(as_admin, project):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello\nthere"}]
    upload(as_admin, json.dumps({"prompt": chat, "topic": {"b": 1, "a": [None]}}) + "\n")
    prompt = project.prompts.get()
    assert prompt.content == chat
    assert prompt.extra == {"topic": {"b": 1, "a": [None]}}


@pytest.mark.parametrize(
    "text",
    [
        'prompt,answer,topic\n"Two\nlines, one prompt",4,sums\n',
        '\ufeffanswer;prompt;topic\n4;"Two\nlines, one prompt";sums\n',
        'prompt\tanswer\ttopic\n"Two\nlines, one prompt"\t4\tsums\n',
    ],
)
def test_a_csv_file_is_read_by_its_column_names(as_admin, project, text):
    assert upload(as_admin, text, "sheet.csv").status_code == 302
    prompt = project.prompts.get()
    assert (prompt.content, prompt.answer, prompt.extra) == ("Two\nlines, one prompt", "4", {"topic": "sums"})


def test_a_text_file_is_a_prompt_a_line(as_admin, project):
    upload(as_admin, '{"not": "json here"}\n\nsecond\n', "prompts.txt")
    assert contents(project) == ['{"not": "json here"}', "second"]


def test_duplicates_are_counted_and_left_out(as_admin, project):
    paste(as_admin, "one\ntwo")
    response = as_admin.post(ADD, {"pasted": "two\nthree\nthree"}, follow=True)
    assert "1 prompt added, 2 were there already and left out." in response.content.decode()
    assert contents(project) == ["one", "two", "three"]


def test_the_same_prompt_may_be_in_two_projects(as_admin, project):
    Project.objects.create(name="Other", slug="other").prompts.create(content="one")
    paste(as_admin, "one")
    assert contents(project) == ["one"]


GOOD = '{"prompt": "good"}\n'


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("not json", "it is not JSON"),
        ("[1]", "it is not a JSON object"),
        ('{"text": "no prompt"}', "“prompt” must be a text"),
        ('{"prompt": ""}', "“prompt” is empty"),
        ('{"prompt": "  "}', "“prompt” is empty"),
        ('{"prompt": "a\\u0000b"}', "a NUL character"),
        ('{"prompt": "\\ud800"}', "half a character"),
        ('{"prompt": "ok", "key\\u0000": 1}', "a NUL character"),
        ('{"prompt": "ok", "deep": {"x": ["\\udfff"]}}', "half a character"),
        ('{"prompt": "ok", "number": 1e999}', "not a JSON number"),
        ('{"prompt": "ok", "number": NaN}', "not a JSON number"),
        ('{"prompt": [{"role": "user"}]}', "must have a “role”"),
        ('{"prompt": "ok", "id": "' + "x" * 201 + '"}', "longer than 200 characters"),
        ('{"prompt": "' + "x" * 1_000_001 + '"}', "longer than 1,000,000 bytes"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_nothing_is_added(as_admin, project, bad, reason):
    response = upload(as_admin, GOOD + bad + "\n" + GOOD)
    assert response.status_code == 422
    words = response.context["form"].errors["file"][0]
    assert words.startswith("Line 2: ")
    assert reason in words
    assert words.endswith("Nothing was added.")
    assert not project.prompts.exists()


@pytest.mark.parametrize(
    "content, line, reason",
    [
        ("text,answer\nx,y\n", 1, "one of which is “prompt”"),
        ("prompt,answer\ngood,1\n,2\n", 3, "“prompt” is empty"),
        ('prompt\n"two\nlines"\na,b\n', 4, "more fields than there are columns"),
        ('prompt\ngood\n"a\0b"\n', 3, "a NUL character"),
        ("prompt\n" + "x" * 1_000_001 + "\n", 2, "longer than 1,000,000 bytes"),
        (b"prompt\n\xff\xfe\n", 2, "not UTF-8"),
    ],
)
def test_a_bad_csv_file_says_where(as_admin, project, content, line, reason):
    response = upload(as_admin, content, "sheet.csv")
    words = response.context["form"].errors["file"][0]
    assert words.startswith(f"Line {line}: ")
    assert reason in words
    assert not project.prompts.exists()


def test_an_empty_file_is_said_to_be(as_admin, project):
    response = upload(as_admin, "\n", "sheet.csv")
    assert response.context["form"].errors["file"] == ["The file is empty. Nothing was added."]


def test_a_file_that_is_no_text_is_refused(as_admin, project):
    assert upload(as_admin, bytes(range(256)) * 40).status_code == 422
    assert upload(as_admin, b"\xff\xfe" + "prompt".encode("utf-16-le"), "a.csv").status_code == 422


@pytest.mark.parametrize("text", ["", "  \n \n", "a\0b"])
def test_a_paste_without_a_prompt_is_refused_in_words(as_admin, project, text):
    response = paste(as_admin, text)
    assert response.status_code == 422
    assert response.context["form"].errors["pasted"]


def test_a_refused_paste_is_not_lost(as_admin, project):
    text = '{"prompt": "kept"}\n{"prompt": 3}'
    assert "&quot;kept&quot;" in paste(as_admin, text).content.decode()


def test_any_writing_survives(as_admin, project):
    text = "Écris une blague 🦤 ‮שלום 中文 z̗̈ &amp; \\n"
    paste(as_admin, text)
    assert contents(project) == [text]


# Deleting


def test_a_prompt_that_nothing_uses_can_be_deleted(as_admin, project):
    prompt = project.prompts.create(content="one")
    assert as_admin.post(f"/prompts/pelican-jokes/{prompt.pk}/delete/").status_code == 302
    assert not Prompt.objects.exists()


def test_a_prompt_with_a_quintet_stays(as_admin, project):
    prompt = project.prompts.create(content="one")
    Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))
    response = as_admin.post(f"/prompts/pelican-jokes/{prompt.pk}/delete/", follow=True)
    assert "stays: there are quintets" in response.content.decode()
    assert Prompt.objects.exists()


def test_a_prompt_of_another_project_cannot_be_reached_through_this_one(as_admin, project):
    other = Project.objects.create(name="Other", slug="other").prompts.create(content="one")
    assert as_admin.post(f"/prompts/pelican-jokes/{other.pk}/delete/").status_code == 404
    assert Prompt.objects.exists()


@pytest.mark.parametrize("path", ["add/", "{prompt}/delete/"])
def test_only_admins_change_prompts(path, client, as_labeler, as_admin, project):
    prompt = project.prompts.create(content="one")
    address = "/prompts/pelican-jokes/" + path.format(prompt=prompt.pk)
    assert client.post(address, {"pasted": "x"}).status_code == 302
    assert as_labeler.post(address, {"pasted": "x"}).status_code == 404
    assert as_admin.get(address).status_code == (200 if path == "add/" else 405)
    assert contents(project) == ["one"]


# The command


def test_the_command_adds_prompts_to_a_project_that_it_makes(db, tmp_path, capsys):
    file = tmp_path / "p.jsonl"
    file.write_text(GOOD + GOOD)
    call_command("import_prompts", file, "--project", "new-one")
    assert capsys.readouterr().out == "1 prompts added; 1 were there already and left out.\n"
    assert contents(Project.objects.get(slug="new-one")) == ["good"]


@pytest.mark.parametrize(
    "content, arguments, words",
    [
        (GOOD + "{", ["--project", "new-one"], r"line 2: it is not JSON .* Nothing was imported\."),
        (GOOD, ["--project", "no/slug"], "cannot name a project"),
        (None, ["--project", "new-one"], "cannot be read: No such file"),
    ],
)
def test_the_command_refuses_in_one_line_and_makes_nothing(db, tmp_path, content, arguments, words):
    file = tmp_path / "p.jsonl"
    if content:
        file.write_text(content)
    with pytest.raises(CommandError, match=words) as refused:
        call_command("import_prompts", file, *arguments)
    assert "\n" not in str(refused.value)
    assert not Project.objects.exists()
