"""The checker of a project: its options, its references, answers to try it on, and people's word on what it
said."""

import pytest
from django.urls import reverse

from labeler import answers, checking, verdicts
from labeler.loop import standings
from labeler.models import AuditEntry, Checkpoint, Project, Prompt, Request, Verdict
from labeler.verdicts import Share
from rlhf import config
from tests.labeler.checked import practised, sums  # noqa: F401 - fixtures
from tests.labeler.runs import HTMX, page, read

pytestmark = pytest.mark.django_db


def say(client, run, name: str, **said) -> str:
    given = {"run": run.pk, "step": 3, "name": name} | said
    return read(client.post(reverse("checkers_say", args=[run.project.slug]), given, **HTMX))


def change(client, project, name: str, **options):
    address = reverse("checkers_settings", args=[project.slug])
    return client.post(f"{address}?name={name}", options)


def posted(options) -> dict:
    """What a browser would send of a form that nobody has changed."""
    return {each.name: each.default for each in options if each.default is not False}


# What judges


def test_the_page_says_what_judges_and_that_no_cap_comes_of_it(as_admin, sums):  # noqa: F811
    shown = page(as_admin, "checkers", sums.slug)
    assert "Checker: number" in shown and "no run against it alone has a cap" in shown
    assert "<dt>Relative tolerance</dt><dd>0</dd>" in shown
    assert "All 2 references pass" in shown and "Nothing has been practised here yet" in shown


def test_a_project_that_people_judge_is_told_how_to_have_a_checker(as_admin, project):
    shown = page(as_admin, "checkers", project.slug)
    assert "People judge the answers in this project" in shown


def test_options_are_changed_by_a_form_made_of_them_and_the_change_is_audited(as_admin, sums):  # noqa: F811
    assert 'name="relative"' in page(as_admin, "checkers_settings", sums.slug)
    given = posted(checking.checkers.options("number")) | {"relative": "0.25"}
    assert change(as_admin, sums, "number", **given).status_code == 302
    sums.refresh_from_db()
    assert sums.checker == {"name": "number", "relative": 0.25}
    entry = AuditEntry.objects.get(action="settings changed")
    assert entry.by.username == "ada" and "checker: number, now number" in entry.words
    assert "relative 0.25" in entry.words


def test_an_option_that_cannot_be_is_refused_at_its_field_and_comes_back_as_typed(as_admin, sums):  # noqa: F811
    answer = change(as_admin, sums, "number", relative="a bit")
    assert answer.status_code == 422
    assert "must be a number" in answer.content.decode() and 'value="a bit"' in answer.content.decode()
    sums.refresh_from_db()
    assert sums.checker == {"name": "number"}


@pytest.mark.parametrize("name", config.CHECKERS)
def test_every_checker_has_a_form_of_its_options_and_can_be_chosen(as_admin, sums, name):  # noqa: F811
    judge = Checkpoint.objects.create(name="Judge", location="judge")
    shown = page(as_admin, "checkers_settings", sums.slug, data={"name": name})
    options = checking.checkers.options(name)
    assert all(each.label in shown for each in options)
    assert change(as_admin, sums, name, judge_model=judge.pk, **posted(options)).status_code == 302
    sums.refresh_from_db()
    assert sums.checker == {"name": name} and bool(sums.judge_model) == (name == "judge")
    assert f"Checker: {name}" in page(as_admin, "checkers", sums.slug)


@pytest.mark.parametrize("name, option, words", [("regex", "pattern", "("), ("judge", "template", "Right?")])
def test_an_option_that_means_nothing_is_refused(as_admin, sums, name, option, words):  # noqa: F811
    answer = change(as_admin, sums, name, **posted(checking.checkers.options(name)) | {option: words})
    assert answer.status_code == 422 and answer.context["form"].errors[option]


def test_a_checker_of_another_kind_is_chosen_and_with_it_the_project_becomes_checked(as_admin, project):
    change(as_admin, project, "number", **posted(checking.checkers.options("number")))
    project.refresh_from_db()
    assert project.is_checked and project.checker["name"] == "number"


# Its own references


def test_a_reference_that_fails_on_its_own_solution_is_listed_with_why(as_admin, sums):  # noqa: F811
    wrong = sums.prompts.create(content="What is 9 + 9?", answer="18")
    sums.demonstrations.create(prompt=wrong, completion="9 + 9 = 19", solution=True)
    sums.prompts.create(content="What is love?", answer="a song")
    checking.attend(sums)
    found = checking.references(sums)
    assert (found.answered, found.passing, found.failing, found.unreadable) == (4, 2, 1, 1)
    shown = page(as_admin, "checkers", sums.slug)
    assert "2 of 4 references do not pass their own checker; 1 of them cannot be read by it" in shown
    assert "What is 9 + 9?" in shown and "What is love?" in shown
    wrong.refresh_from_db()
    assert wrong.reference == Prompt.Reference.FAILS and wrong.reference_said in shown.replace("&#x27;", "'")
    listed = read(as_admin.get(reverse("prompts", args=[sums.slug]), {"show": "failing"}))
    assert "fails its own checker" in listed and "the checker cannot read it" in listed
    assert "What is 2 + 3?" not in listed


def test_a_person_s_own_demonstration_is_not_taken_for_the_solution(sums):  # noqa: F811
    prompt = sums.prompts.first()
    sums.demonstrations.create(prompt=prompt, completion="I do not know.")
    sums.prompts.update(reference_by="")
    checking.attend(sums)
    assert checking.references(sums).passing == 2


def test_another_checker_tries_all_references_anew(sums, admin):  # noqa: F811
    before = set(sums.prompts.values_list("reference_by", flat=True))
    sums.change(admin, checker={"name": "number", "relative": 0.5})
    after = set(sums.prompts.values_list("reference_by", flat=True))
    assert len(before) == len(after) == 1 and before != after
    assert checking.references(sums).waiting == 0


def test_what_takes_longer_than_a_moment_is_left_to_the_worker(sums, monkeypatch):  # noqa: F811
    monkeypatch.setattr(checking, "A_MOMENT", 0)
    sums.prompts.update(reference_by="")
    checking.attend(sums)
    checking.attend(sums)
    asked = Request.objects.get(kind="references")
    assert checking.references(sums).waiting == 2
    asked = Request.objects.claim(asked.pk)
    assert answers.answer(asked) == {"read": 2}
    assert checking.references(sums).passing == 2


def test_the_references_can_be_tried_again_by_a_button(as_admin, sums):  # noqa: F811
    Prompt.objects.update(reference="fails")
    as_admin.post(reverse("checkers_references", args=[sums.slug]))
    assert checking.references(sums).passing == 2


def test_an_answer_that_is_changed_is_tried_again_and_the_change_is_audited(as_admin, sums):  # noqa: F811
    prompt = sums.prompts.first()
    as_admin.post(reverse("prompt_answer", args=[sums.slug, prompt.pk]), {"answer": "a song"})
    prompt.refresh_from_db()
    assert (prompt.answer, prompt.reference) == ("a song", "unreadable")
    assert AuditEntry.objects.get(action="answer changed").about["was"] == "5"


# Trying it


def tried(client, project, **given) -> str:
    return read(client.post(reverse("checkers_try", args=[project.slug]), given, **HTMX))


def test_a_pasted_answer_is_judged_against_a_typed_reference(as_admin, sums):  # noqa: F811
    shown = tried(as_admin, sums, answers="So they pay $1,234.", reference="1234")
    assert "✓ correct" in shown and "1234" in shown


def test_an_answer_to_a_prompt_is_judged_by_the_prompt_s_answer(as_admin, sums):  # noqa: F811
    prompt = sums.prompts.get(answer="24")
    shown = tried(as_admin, sums, prompt=prompt.pk, answers="<think>24</think>It is 25.")
    assert "✗ incorrect" in shown and "25" in shown


def test_lines_are_answers_of_their_own(as_admin, sums):  # noqa: F811
    shown = tried(as_admin, sums, reference="5", answers="5\n\nfive\r\n6\n", each_line="on")
    assert shown.count('class="verdict-of') == 3 and shown.count("✓") + shown.count("✗") == 3


@pytest.mark.parametrize(
    "given, words",
    [
        ({"answers": "5"}, "Say the right answer"),
        ({"answers": "", "reference": "5"}, "Paste an answer"),
        ({"answers": "5\n" * 101, "reference": "5", "each_line": "on"}, "try at most 100 at once"),
        ({"answers": "5" * 100_001, "reference": "5"}, "more than 100,000 characters"),
    ],
)
def test_what_cannot_be_tried_is_said_at_its_field(as_admin, sums, given, words):  # noqa: F811
    assert words in tried(as_admin, sums, **given)


@pytest.mark.parametrize(
    "hostile", ["__import__('os').system('x')", "9" * 99_000, "(" * 99_000, "\ud7ff" * 9]
)
def test_an_answer_that_means_harm_gets_a_verdict_in_words(as_admin, sums, hostile):  # noqa: F811
    assert "✗ incorrect" in tried(as_admin, sums, answers=hostile, reference="5")


def test_a_reference_that_cannot_be_read_is_no_verdict(as_admin, sums):  # noqa: F811
    assert "? not checked" in tried(as_admin, sums, answers="5", reference="a song")


def test_a_checker_that_may_take_long_is_asked_by_the_worker(as_admin, sums, monkeypatch):  # noqa: F811
    monkeypatch.setattr(checking, "QUICK", ())
    shown = tried(as_admin, sums, answers="5", reference="5")
    asked = Request.objects.get(kind="check")
    assert "Waiting for the worker" in shown and f"/tried/{asked.pk}/" in shown
    asked = Request.objects.claim(asked.pk)
    asked.answer_with(answers.answer(asked))
    shown = page(as_admin, "checkers_tried", sums.slug, asked.pk, **HTMX)
    assert "✓ correct" in shown and "hx-trigger" not in shown


def test_without_javascript_the_verdict_has_a_page(as_admin, sums):  # noqa: F811
    given = {"answers": "5", "reference": "5"}
    assert "✓" in read(as_admin.post(reverse("checkers_try", args=[sums.slug]), given))


# Its verdicts, and people's


def test_the_verdicts_of_the_newest_run_are_listed_and_filtered(as_admin, practised):  # noqa: F811
    slug = practised.project.slug
    shown = page(as_admin, "checkers", slug)
    assert f"run {practised.pk}</a>" in shown and "Step 3: 3 correct, 2 incorrect, 1 not checked." in shown
    assert shown.count("data-verdict") == 6 and "&lt;script&gt;" in shown
    address = reverse("checkers", args=[slug])

    def listed(**given) -> list[str]:
        found = as_admin.get(address, given, **HTMX).context["page"].object_list
        return [each.one.text for each in found]

    assert listed(show="correct", step=2) == ["It is 5.", "24", "4 * 6 = 24, so 24 apples <script>"]
    assert listed(show="incorrect", words="no number") == ["<think>Perhaps 7?</think>No idea."]
    assert listed(show="unclear") == ["twenty"]
    assert sorted(listed(mixed=1)) == sorted(listed()) != listed(mixed=1)


def test_what_was_thought_is_folded_and_not_part_of_the_answer(as_admin, practised):  # noqa: F811
    shown = page(as_admin, "checkers", practised.project.slug)
    assert (
        "Thinking, which is not checked" in shown and '<p class="say small" dir="auto">No idea.</p>' in shown
    )


def test_one_click_overrules_and_another_takes_it_back(as_admin, practised, admin):  # noqa: F811
    shown = say(as_admin, practised, "0-1", right="yes")
    assert "ada says correct: overruled" in shown and "Take it back" in shown
    said = Verdict.objects.get()
    assert (said.correct, said.right, said.by, said.reference, said.read) == (False, True, admin, "5", "6")
    assert said.prompt.content == "What is 2 + 3?" and said.checker == {"name": "number"}
    assert AuditEntry.objects.get(action="verdict overruled").about["verdict"] == said.pk
    assert "overruled" in page(as_admin, "checkers", practised.project.slug)
    assert "No: it is correct" in say(as_admin, practised, "0-1", undo="1")
    assert not Verdict.objects.exists()
    assert AuditEntry.objects.filter(action="verdict taken back").count() == 1


def test_a_verdict_is_confirmed_and_changed_by_whoever_comes_later(as_admin, practised):  # noqa: F811
    say(as_admin, practised, "0-0", right="yes")
    assert AuditEntry.objects.filter(action="verdict confirmed").exists()
    say(as_admin, practised, "0-0", right="no")
    assert Verdict.objects.get().right is False


def test_of_what_could_not_be_checked_there_is_nothing_to_overrule(as_admin, practised):  # noqa: F811
    assert "nothing to overrule" in say(as_admin, practised, "1-2", right="yes")
    assert not Verdict.objects.exists()


def test_a_rollout_that_is_not_there_has_no_verdict(as_admin, practised):  # noqa: F811
    for name in ("9-9", "x", "0-0'", ""):
        given = {"run": practised.pk, "step": 3, "name": name, "right": "yes"}
        assert as_admin.post(reverse("checkers_say", args=[practised.project.slug]), given).status_code == 404


def test_what_people_say_measures_the_checker(as_admin, practised):  # noqa: F811
    for name, right in (("0-0", "yes"), ("0-1", "yes"), ("0-2", "no"), ("1-0", "yes"), ("1-1", "no")):
        say(as_admin, practised, name, right=right)
    found = verdicts.measure(practised.project)
    assert (found.agreed.right, found.agreed.of) == (3, 5)
    assert [each.name for each in found.false_positives] == ["1-1"]
    assert [each.name for each in found.false_negatives] == ["0-1"]
    shown = page(as_admin, "checkers", practised.project.slug)
    # Wilson's interval of 3 of 5, by hand: 0.231 to 0.882.
    assert "60 %" in shown and "(23 % to 88 %" in shown


def test_the_interval_is_wilsons():
    low, high = Share(10, 10).between
    # (1 + z²/2n ± z √(z²/4n²)) / (1 + z²/n) at n = 10: 1 / (1 + 0.384146) = 0.72247.
    assert (round(low, 5), round(high, 9)) == (0.72247, 1)
    assert Share(0, 0).between is None


def test_another_setting_is_measured_by_what_people_said_before(as_admin, practised, admin):  # noqa: F811
    say(as_admin, practised, "0-1", right="yes")  # 6 for 5, which the people of this project let pass
    assert verdicts.measure(practised.project).agreed.right == 0
    practised.project.refresh_from_db()
    practised.project.change(admin, checker={"name": "number", "relative": 0.5})
    found = verdicts.measure(practised.project)
    assert (found.agreed.right, found.agreed.of, found.older) == (1, 1, 0)


def test_what_the_checker_in_force_cannot_tell_says_nothing_of_it(as_admin, practised, admin, monkeypatch):  # noqa: F811
    say(as_admin, practised, "0-0", right="yes")
    say(as_admin, practised, "0-1", right="no")
    practised.project.refresh_from_db()
    practised.project.change(admin, checker={"name": "number", "relative": 0.5})
    cannot, wrong = ({"correct": verdict, "reason": "", "read": ""} for verdict in (None, False))
    monkeypatch.setattr(verdicts.checking, "rule", lambda project: lambda items: [cannot, wrong])
    found = verdicts.measure(practised.project)
    assert (found.agreed.of, found.unread) == (1, 1)


def test_where_the_rule_cannot_tell_a_judge_is_not_held_against_it(practised, monkeypatch):  # noqa: F811
    rows = verdicts.judged(practised, practised.steps.get(step=3))
    cannot, alike = {"correct": None}, {"correct": True}
    monkeypatch.setattr(verdicts.checking, "other_rule", lambda name: lambda items: [cannot] + [alike] * 4)
    found = verdicts.beside(rows, "number")
    assert (found.agreed.right, found.agreed.of) == (2, 4)
    assert [each.one.name for each, _ in found.differing] == ["0-1", "0-2"]


def test_a_judge_is_held_against_a_rule_where_both_have_a_verdict(as_admin, practised):  # noqa: F811
    row = practised.steps.get(step=3)
    found = verdicts.beside(verdicts.judged(practised, row), "number")
    assert (found.agreed.right, found.agreed.of) == (5, 5)
    practised.project.prompts.filter(answer="24").update(answer="25")
    found = verdicts.beside(verdicts.judged(practised, row), "number")
    assert (found.agreed.right, found.agreed.of) == (3, 5)
    assert [each.one.name for each, _ in found.differing] == ["1-0", "1-1"]


def test_the_page_of_a_judge_shows_its_agreement_with_a_rule(as_admin, practised, admin):  # noqa: F811
    judge = Checkpoint.objects.create(name="Qwen the judge", location="judge")
    practised.project.refresh_from_db()
    practised.project.change(admin, checker={"name": "judge"}, judge_model=judge)
    shown = page(as_admin, "checkers", practised.project.slug)
    assert "Qwen the judge" in shown and "A model can be wrong" in shown
    assert "of the 5 answers of step 3 that both can judge they judge alike" in shown
    assert "Waiting for the worker" in shown  # its references


def test_a_judge_is_asked_through_the_warm_child(practised, admin, monkeypatch, home):  # noqa: F811
    judge = Checkpoint.objects.create(name="Judge", location="judge")
    (home / "judge").mkdir(exist_ok=True)
    practised.project.change(admin, checker={"name": "judge", "yes": "Right"}, judge_model=judge)
    heard = []

    def ask(operation, **question):
        heard.append((operation, question["options"]))
        said = {"correct": True, "reason": "The judge says “Right” with 93%.", "read": "5"}
        return {"said": [said | {"probability": 0.93} for _ in question["items"]]}

    monkeypatch.setattr(answers.warm, "ask", ask)
    items = [{"prompt": "What is 2 + 3?", "answer": "5", "reference": "5"}]
    asked = Request.objects.claim(Request.objects.ask_to_check(practised.project, items, admin).pk)
    assert answers.answer(asked)["verdicts"][0]["probability"] == 0.93
    assert heard == [("judge", {"yes": "Right"})]
    asked = Request.objects.claim(Request.objects.get(kind="references").pk)
    assert answers.answer(asked) == {"read": 2}


def test_a_judge_without_its_model_says_so(sums, admin):  # noqa: F811
    sums.change(admin, checker={"name": "judge"})
    asked = Request.objects.claim(Request.objects.get(kind="references").pk)
    with pytest.raises(answers.Unanswerable, match="has no model"):
        answers.answer(asked)


def test_a_run_whose_file_is_gone_says_so(as_admin, practised):  # noqa: F811
    (practised.directory / "rollouts.jsonl.zst").unlink()
    assert "is not here any more" in page(as_admin, "checkers", practised.project.slug)


# Making such a project


def test_a_checked_project_is_made_from_its_template(as_admin):
    address = reverse("project_new") + "?template=checked"
    form = as_admin.get(address).context["form"]
    given = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    answer = as_admin.post(address, given, follow=True)
    project = Project.objects.get()
    assert project.is_checked and project.checker == {"name": "number"}
    assert project.prompts.count() == project.prompts.answered().count() == 36
    assert checking.references(project).passing == 36
    shown = " ".join(answer.content.decode().split())
    for title in ("Import problems", "Supervised start", "Practise", "Look"):
        assert title in shown
    assert "Train reward model" not in shown and "36 prompts, each with its answer" in shown


def test_what_only_read_documents_was_not_shown_worked_solutions(admin, practised):  # noqa: F811
    project = practised.project
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.save()
    project.demonstrations.create(prompt=project.prompts.first(), completion="It is 5.", solution=True)

    def start() -> str:
        [step] = [each for each in standings([project], admin)[0].steps if each.title == "Supervised start"]
        return f"{step.said} ({step.state})"

    reads = project.runs.create(kind="sft", state="queued", config={"stage": "reading"})
    assert start() == "1 worked solution to be shown to “Start” before it practises (passed)"
    project.runs.update(state="finished")
    assert start() == "1 worked solution to be shown to “Start” before it practises (passed)"
    project.runs.filter(pk=reads.pk).update(config={"stage": "answers"})
    assert start() == f"Run {reads.pk} was shown worked solutions; there is 1 worked solution now (done)"


def test_whoever_edits_a_project_can_give_it_a_checker(as_admin, project):
    address = reverse("project_edit", args=[project.slug])
    form = as_admin.get(address).context["form"]
    given = {name: form[name].value() for name in form.fields if form[name].value() not in ("", None)}
    assert as_admin.post(address, given | {"judge": "checker"}).status_code == 302
    project.refresh_from_db()
    assert project.is_checked and project.checker_name == "number"
    assert "judge: people, now checker" in AuditEntry.objects.get().words


def test_the_loop_of_a_checked_project_goes_its_own_way(as_admin, practised, start):  # noqa: F811
    practised.project.refresh_from_db()
    shown = page(as_admin, "project", practised.project.slug)
    assert "75 % of problems held out are right" in shown
    assert "There are no worked solutions" in shown and "Read its answers" in shown
    say(as_admin, practised, "0-0", right="yes")
    assert "Practise on" in page(as_admin, "project", practised.project.slug)
