"""Problems with answers on their way in: GSM8K as it is, sheets, pairs from a page; their worked solutions;
what has no answer; and all of it out again."""

import json
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command

from labeler import checking, datasets
from labeler.intake.work import carry_out
from labeler.models import Demonstration, Import, Project, Prompt
from tests.labeler.checked import sums  # noqa: F401 - a fixture
from tests.labeler.runs import page, read

pytestmark = pytest.mark.django_db
GSM8K = Path(__file__).resolve().parents[1] / "data" / "gsm8k-200.jsonl"
DUCKS = {"question": "How many ducks?", "answer": "9 + 9 = <<9+9=18>>18 ducks.\n#### 18"}
ROBE = {"question": "How many bolts?", "answer": "2 + 1 = 3 bolts.\n#### 3"}


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(client, project, content: bytes, name: str = "gsm8k.jsonl") -> Import:
    """As far as the preview."""
    client.post(f"/imports/{project.slug}/", {"file": SimpleUploadedFile(name, content)})
    return Import.objects.latest("pk")


def bring(client, project, content: bytes, name: str = "gsm8k.jsonl", **columns) -> Import:
    found = upload(client, project, content, name)
    client.post(f"/imports/{project.slug}/{found.pk}/", {"do": "import", **columns})
    carry_out(Import.objects.claim(found.pk), lambda: False)
    found.refresh_from_db()
    return found


def test_gsm8k_is_read_as_it_is(as_admin, sums):  # noqa: F811
    found = upload(as_admin, sums, lines(DUCKS, ROBE))
    assert found.mapping == {"question": "prompt", "answer": "solution #### answer"}
    shown = page(as_admin, "import", sums.slug, found.pk)
    assert "Answer: <b>18</b>" in shown and "Worked solution, kept as a demonstration" in shown
    found = bring(as_admin, sums, lines(DUCKS, ROBE))
    assert (found.state, found.added) == ("finished", 2)
    prompt = sums.prompts.get(content="How many ducks?")
    assert (prompt.answer, prompt.reference, prompt.extra) == ("18", "passes", {})
    solution = prompt.demonstrations.get()
    assert solution.completion == DUCKS["answer"] and solution.solution and solution.origin == "imported"
    shown = page(as_admin, "import", sums.slug, found.pk)
    assert "<dt>Worked solutions</dt><dd>2</dd>" in shown and "All 4 references pass" in shown


def test_all_two_hundred_of_gsm8k_pass_on_their_own_solutions(sums, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(checking, "A_MOMENT", 60)  # here, and not by the worker, on a slow machine too
    call_command("import_prompts", GSM8K, "--project", sums.slug)
    assert capsys.readouterr().out.startswith("200 prompts added")
    found = checking.references(sums)
    assert (found.answered, found.passing, found.troubled) == (202, 202, 0)
    assert Demonstration.objects.filter(solution=True).count() == 200


def test_solutions_teach_as_demonstrations(as_admin, sums, admin):  # noqa: F811
    bring(as_admin, sums, lines(DUCKS, ROBE))
    frozen = datasets.freeze_demonstrations(sums, admin)
    assert frozen.lines == 2


def test_a_file_is_taken_by_the_short_way_too(as_admin, sums):  # noqa: F811
    file = SimpleUploadedFile("a.jsonl", lines(DUCKS))
    as_admin.post(f"/prompts/{sums.slug}/add/", {"file": file})
    assert sums.prompts.get(content="How many ducks?").answer == "18"
    assert Demonstration.objects.get().solution


def test_columns_of_a_sheet_are_chosen(as_admin, sums):  # noqa: F811
    sheet = "Aufgabe,Ergebnis,Weg,Nr\nZwei und zwei?,4,2 + 2 = 4,7\n"
    columns = {f"column-{n}": each for n, each in enumerate(["prompt", "answer", "solution", "id"])}
    found = bring(as_admin, sums, sheet.encode(), "sheet.csv", **columns)
    assert found.state == "finished", found.first_errors
    prompt = sums.prompts.get(content="Zwei und zwei?")
    assert (prompt.answer, prompt.external_id) == ("4", "7")
    assert prompt.demonstrations.get().completion == "2 + 2 = 4"


@pytest.mark.parametrize(
    "header, fields",
    [
        ("problem,answer,solution", ["prompt", "answer", "solution"]),
        ("Question,Answer,Solution", ["prompt", "answer", "solution"]),
        ("question,solution", ["prompt", "answer"]),
        ("question,final_answer,rationale", ["prompt", "answer", "solution"]),
    ],
)
def test_common_names_of_columns_are_understood(as_admin, sums, header, fields):  # noqa: F811
    row = ",".join(str(n) for n in range(len(fields)))
    found = upload(as_admin, sums, f"{header}\n{row}\n".encode(), "sheet.csv")
    assert [found.mapping[each] for each in header.split(",")] == fields


def test_a_line_without_its_sign_is_told_with_its_number(as_admin, sums):  # noqa: F811
    rows = [DUCKS] * 25 + [ROBE | {"answer": "3"}, ROBE | {"answer": "3 ####  "}]
    found = bring(as_admin, sums, lines(*rows))
    assert found.state == "refused" and sums.prompts.count() == 2
    assert found.first_errors == [
        "Line 26: there is no “####” before its answer.",
        "Line 27: there is nothing behind its “####”.",
    ]


def test_an_answer_that_is_a_number_is_one(as_admin, sums):  # noqa: F811
    bring(as_admin, sums, lines({"prompt": "a?", "answer": 4}, {"prompt": "b?", "answer": 0.5}))
    assert set(sums.prompts.values_list("answer", flat=True)) >= {"4", "0.5"}


def test_a_prompt_that_was_here_without_its_answer_gets_it(as_admin, sums):  # noqa: F811
    sums.prompts.create(content="How many ducks?")
    sums.prompts.create(content="How many bolts?", answer="three")
    found = bring(as_admin, sums, lines(DUCKS, ROBE))
    assert (found.added, found.known) == (0, 2)
    answers = dict(sums.prompts.values_list("content", "answer"))
    assert (answers["How many ducks?"], answers["How many bolts?"]) == ("18", "three")


def test_the_same_solution_is_kept_once(as_admin, sums):  # noqa: F811
    bring(as_admin, sums, lines(DUCKS, DUCKS))
    bring(as_admin, sums, lines(DUCKS))
    assert Demonstration.objects.count() == 1


def test_an_import_is_taken_out_with_its_solutions(as_admin, sums):  # noqa: F811
    found = bring(as_admin, sums, lines(DUCKS, ROBE))
    as_admin.post(f"/imports/{sums.slug}/{found.pk}/undo/")
    carry_out(Import.objects.claim(found.pk), lambda: False)
    assert not Demonstration.objects.exists() and sums.prompts.count() == 2
    assert "2 worked solutions" in sums.audit.get(action="import undone").words


def test_an_answer_given_to_a_prompt_that_was_here_is_taken_out_as_well(as_admin, admin, sums):  # noqa: F811
    for question in ("How many ducks?", "How many bolts?"):
        sums.prompts.create(content=question)
    found = bring(as_admin, sums, lines(DUCKS, ROBE, DUCKS | {"question": "How many geese?"}))
    assert "<dt>There already, given their answer</dt><dd>2</dd>" in page(
        as_admin, "import", sums.slug, found.pk
    )
    sums.prompts.get(content="How many bolts?").give_answer("4", admin)
    as_admin.post(f"/imports/{sums.slug}/{found.pk}/undo/")
    carry_out(Import.objects.claim(found.pk), lambda: False)
    left = dict(sums.prompts.order_by("pk").values_list("content", "answer")[2:])
    assert left == {"How many ducks?": "", "How many bolts?": "4"}, "what somebody said since stays"
    assert sums.prompts.get(content="How many ducks?").reference == ""
    assert (
        "taken out again: 3 worked solutions, 1 answer, 1 prompt."
        in sums.audit.get(action="import undone").words
    )


def test_a_line_that_contradicts_an_answer_is_told_of_and_not_taken(as_admin, sums):  # noqa: F811
    rows = [{"prompt": "What is 2 + 3?", "answer": "6"}, {"prompt": "1 + 1?", "answer": "2"}]
    found = bring(as_admin, sums, lines(*rows, {"prompt": "1 + 1?", "answer": "3"}, rows[1]), "pairs.jsonl")
    assert (found.added, found.contradicted) == (1, 2)
    shown = page(as_admin, "import", sums.slug, found.pk)
    assert "2 lines give a prompt another answer than it has here" in shown
    assert dict(sums.prompts.values_list("content", "answer"))["What is 2 + 3?"] == "5"
    pasted = {"pasted": "1 + 1? => 4\n2 + 2? => four"}
    shown = read(as_admin.post(f"/prompts/{sums.slug}/add/", pasted, follow=True))
    assert "1 were there already and left out, 1 of them with another answer, which was not taken." in shown
    assert "1 of 4 references cannot be read by its own checker." in shown


def test_a_prompt_stays_with_the_answer_that_another_file_gave_it(as_admin, sums):  # noqa: F811
    bare = bring(as_admin, sums, lines({"prompt": "How many ducks?"}), "bare.jsonl")
    bring(as_admin, sums, lines({"prompt": "How many ducks?", "answer": "18"}), "answers.jsonl")
    as_admin.post(f"/imports/{sums.slug}/{bare.pk}/undo/")
    carry_out(Import.objects.claim(bare.pk), lambda: False)
    assert sums.prompts.get(content="How many ducks?").answer == "18"


def test_what_somebody_has_begun_to_write_stays_with_its_prompt(as_admin, as_labeler, labeler, sums):  # noqa: F811
    sums.memberships.get_or_create(user=labeler)
    found = bring(as_admin, sums, lines(DUCKS, ROBE))
    shown = as_labeler.get(
        f"/demonstrations/{sums.slug}/", {"prompt": found.prompts.get(content="How many ducks?").pk}
    )
    said = {"ticket": shown.context["ticket"], "completion": "Sixteen a day."}
    assert as_labeler.post(f"/demonstrations/{sums.slug}/draft/", said).status_code == 204
    as_admin.post(f"/imports/{sums.slug}/{found.pk}/undo/")
    carry_out(Import.objects.claim(found.pk), lambda: False)
    found.refresh_from_db()
    assert found.state == "undone" and not Demonstration.objects.exists()
    assert as_labeler.get(f"/demonstrations/{sums.slug}/").context["completion"] == "Sixteen a day."


def test_references_that_fail_are_told_after_the_import(as_admin, sums):  # noqa: F811
    pair = {"prompt": "How much?", "answer": "18", "solution": "It is 19."}
    found = bring(as_admin, sums, lines(pair, {"prompt": "No answer?"}), "pairs.jsonl")
    shown = page(as_admin, "import", sums.slug, found.pk)
    assert "1 of 3 references does not pass its own checker" in shown
    assert "1 prompt without an answer is left out of practice" in shown


# From a page


def test_a_problem_is_written_down_with_its_answer_and_solution(as_admin, sums):  # noqa: F811
    given = {"prompt": "What is 6 + 7?", "answer": "13", "solution": "6 + 7 = 13"}
    shown = read(as_admin.post(f"/prompts/{sums.slug}/add/", given, follow=True))
    assert "1 prompt added" in shown and "Answer: <b>13</b>" in shown and "Worked solution" in shown
    prompt = sums.prompts.get(answer="13")
    assert prompt.reference == "passes" and prompt.demonstrations.get().solution


def test_pasted_lines_have_their_answers_behind_an_arrow_or_a_tab(as_admin, sums):  # noqa: F811
    pasted = "What is 1 + 1? => 2\r\nWhat is 2 + 2?\t4\n3 => 4 => 5\nNo answer?\n"
    as_admin.post(f"/prompts/{sums.slug}/add/", {"pasted": pasted})
    found = dict(sums.prompts.values_list("content", "answer")[2:])
    assert found == {"What is 1 + 1?": "2", "What is 2 + 2?": "4", "3 => 4": "5", "No answer?": ""}


def test_one_thing_at_a_time(as_admin, sums):  # noqa: F811
    given = {"prompt": "What is 6 + 7?", "answer": "13", "pasted": "a => b"}
    answer = as_admin.post(f"/prompts/{sums.slug}/add/", given)
    assert answer.status_code == 422 and "not more than one of these" in answer.content.decode()


def test_where_people_judge_an_arrow_is_part_of_the_prompt(as_admin, project):
    as_admin.post(f"/prompts/{project.slug}/add/", {"pasted": "Draw a => b."})
    assert Prompt.objects.get().content == "Draw a => b."


def test_prompts_without_an_answer_are_counted_and_found(as_admin, sums):  # noqa: F811
    sums.prompts.create(content="No answer?")
    shown = page(as_admin, "prompts", sums.slug)
    assert "1 prompt without an answer is left out of practice" in shown
    assert "no answer: left out of practice" in shown
    listed = as_admin.get(f"/prompts/{sums.slug}/", {"show": "unanswered"}).context["page"].object_list
    assert [each.content for each in listed] == ["No answer?"]


def test_the_command_line_tells_how_the_references_fare(tmp_path, sums, capsys):  # noqa: F811
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"prompt": "How much?", "answer": "18", "solution": "19"}, {"prompt": "?"}))
    call_command("import_prompts", path, "--project", sums.slug)
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "1 prompt without an answer is left out of practice.",
        "1 of 3 references does not pass its own checker.",
    ]


def test_the_command_line_makes_and_fills_projects(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(DUCKS))
    call_command("import_prompts", path, "--project", "sums")
    assert Project.objects.get().prompts.get().answer == "18"
    path.write_bytes(lines({"question": "b?", "answer": "####"}))
    with pytest.raises(CommandError, match="there is nothing behind"):
        call_command("import_prompts", path, "--project", "sums")
