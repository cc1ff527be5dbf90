"""Reading, worked solutions, practice: what each stage has come to and lacks, and the same prompt answered
by all three."""

from collections.abc import Callable

import pytest

from labeler.course import Course, curves
from labeler.datasets import freeze_documents
from labeler.models import Checkpoint, Project, Request, Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_bell")]
HERE = "/stages/pelican-jokes/"


@pytest.fixture
def started(project) -> Project:
    project.start = Checkpoint.objects.create(project=project, name="Pelican start", location="start")
    project.save()
    return project


@pytest.fixture
def taught(started) -> Callable[..., Checkpoint]:
    """`taught("sft", stage="reading")`: a finished run of this kind, and what it wrote."""

    def made(kind: str, **settings_of_it) -> Checkpoint:
        run = started.runs.create(
            kind=kind, state="finished", step=2, config=settings_of_it, start=started.start
        )
        for step, (loss, accuracy) in enumerate(((2.0, 0.4), (1.0, 0.6)), start=1):
            run.steps.create(step=step, metrics={"loss": loss} if kind == "sft" else {"accuracy": accuracy})
        name = f"{kind} {settings_of_it.get('stage', '')}".strip()
        return run.checkpoints.create(project=started, name=name, step=2, location=f"made/{run.pk}")

    return made


def stages(project) -> dict:
    return {each.name: each for each in Course(project).stages}


def test_a_bare_project_is_told_what_every_stage_lacks(project, as_admin):
    found = stages(project)
    assert {name: each.state for name, each in found.items()} == dict.fromkeys(found, "missing")
    assert "starting model" in found["reading"].lacking
    assert "Demonstrations" in found["solutions"].lacking
    assert "reward model" in found["practice"].lacking
    page = as_admin.get(HERE).content.decode()
    assert page.count("<b>Lacking:</b>") == 3
    assert "No model to ask yet" in page


def test_a_start_from_elsewhere_stands_for_the_reading_until_something_is_read_here(started, taught):
    reading = stages(started)["reading"]
    assert (reading.checkpoint, reading.stands_in) == (started.start, True)
    made = taught("sft", stage="reading")
    reading = stages(started)["reading"]
    assert (reading.checkpoint, reading.stands_in) == (made, False)


def test_each_stage_has_its_newest_checkpoint_and_launches_from_the_one_before(started, taught):
    read = taught("sft", stage="reading")
    taught("sft", stage="answers")
    newest = taught("sft", stage="answers")
    practised = taught("policy", checker="number")
    started.demonstrations.create(prompt=started.prompts.create(content="A joke?"), completion="Honk.")
    found = stages(started)
    assert [each.checkpoint for each in found.values()] == [read, newest, practised]
    assert [each.state for each in found.values()] == ["done", "done", "done"]
    assert found["solutions"].launch.endswith(f"/sft/?start={read.pk}")
    assert found["practice"].launch.endswith(f"/policy/?start={newest.pk}")
    assert "stage=reading" in found["reading"].launch
    assert any("number checker" in words for words in found["practice"].said)
    assert ("The practice grid", f"/practice/{practised.run_id}/") in found["practice"].links


def test_a_face_off_s_runs_and_other_projects_are_no_stage(started, taught):
    other = Project.objects.create(name="Other", slug="other")
    run = other.runs.create(kind="sft", state="finished", config={})
    run.checkpoints.create(project=other, name="Theirs", step=1, location="x")
    assert stages(started)["solutions"].run is None


def test_a_run_that_failed_or_runs_says_so(started):
    started.runs.create(kind="sft", state="failed", reason="No memory.", config={})
    assert stages(started)["solutions"].state == "failed"
    assert any("No memory." in words for words in stages(started)["solutions"].said)
    started.runs.create(kind="sft", state="queued", config={})
    assert stages(started)["solutions"].state == "live"


def test_a_checked_project_needs_answers_and_no_reward_model(started, as_admin):
    started.judge = Project.Judge.CHECKER
    started.save()
    assert stages(started)["practice"].lacking == "Prompts with their answers"
    started.prompts.create(content="2+2?", answer="4")
    assert stages(started)["practice"].lacking == ""


def test_what_can_be_read_is_told_and_where_to_bring_more(started):
    reading = stages(started)["reading"]
    assert (reading.lacking, [words for words, _ in reading.links]) == ("Documents", ["Bring in documents"])
    freeze_documents(started, [{"text": "Once."}, {"text": "Twice."}])
    reading = stages(started)["reading"]
    assert (reading.lacking, "2 documents to read" in reading.said) == ("", True)


def test_curves_begin_at_the_left_and_are_told_in_words(started, taught, as_admin):
    taught("sft", stage="answers")
    ((curve,),) = [curves(Run.objects.get(kind="sft"))]
    assert (curve["first"], curve["last"]) == ("2.000", "1.000")
    assert curve["line"].split()[-1] == "256.0,60.0", "the last step, at the bottom"
    taught("policy")
    assert "accuracy from 40 % to 60 %" in as_admin.get(HERE).content.decode()


def test_the_same_prompt_is_asked_of_every_stage_with_the_same_chances(started, taught, as_admin):
    read, made = taught("sft", stage="reading"), taught("sft", stage="answers")
    Project.objects.update(run_defaults={"rollouts": {"max_new_tokens": 6}})
    prompt = started.prompts.create(content="A joke?")
    page = as_admin.post(f"{HERE}ask/", {"prompt": prompt.pk, "seed": "3"}, follow=True)
    asked = list(Request.objects.order_by("pk"))
    assert [each.question["checkpoint"] for each in asked] == [read.pk, made.pk]
    assert {(each.question["prompts"][0], each.question["seed"]) for each in asked} == {("A joke?", 3)}
    assert {each.question["max_new_tokens"] for each in asked} == {6}, "as long as rollouts are here"
    assert "hx-trigger" in page.content.decode()
    for number, each in enumerate(asked):
        claimed = Request.objects.claim(each.pk)
        claimed.answer_with(
            {"rollouts": [[{"text": f"Honk {number}.", "tokens": [1], "finished": number == 0}]]}
        )
    address = page.redirect_chain[-1][0].partition("#")[0]
    page = as_admin.get(address).content.decode()
    assert page.index("Honk 0.") < page.index("Honk 1.")
    assert "cut off" in page and 'value="4"' in page, "the next asking draws with another seed"
    assert 'id="answers" class="stack">' in page, "and nothing is polled any more"


def test_one_s_own_prompt_goes_before_a_chosen_one_and_an_empty_one_is_refused(started, as_admin):
    chosen = started.prompts.create(content="Chosen?")
    as_admin.post(f"{HERE}ask/", {"prompt": chosen.pk, "own": " My own? "})
    assert Request.objects.get().question["prompts"] == ["My own?"]
    page = as_admin.post(f"{HERE}ask/", {}, follow=True).content.decode()
    assert "Choose a prompt, or write one." in page


def test_in_a_checked_project_each_answer_has_its_verdict_and_its_thinking_is_folded(started, as_admin):
    started.judge, started.checker = Project.Judge.CHECKER, {"name": "number"}
    started.save()
    prompt = started.prompts.create(content="2+2?", answer="4")
    as_admin.post(f"{HERE}ask/", {"prompt": prompt.pk})
    claimed = Request.objects.claim(Request.objects.get().pk)
    text = "<think>Two and two.</think>It is 4."
    claimed.answer_with({"rollouts": [[{"text": text, "tokens": [1], "finished": True}]]})
    page = as_admin.get(f"{HERE}?asked={claimed.pk}").content.decode()
    assert "✓ correct" in page
    assert "<summary>Thinking</summary>" in page and "&lt;think&gt;" not in page


def test_an_answer_that_was_cut_off_is_not_correct_whatever_it_ends_with(started, as_admin):
    started.judge, started.checker = Project.Judge.CHECKER, {"name": "number"}
    started.save()
    prompt = started.prompts.create(content="2+2?", answer="4")
    as_admin.post(f"{HERE}ask/", {"prompt": prompt.pk})
    claimed = Request.objects.claim(Request.objects.get().pk)
    claimed.answer_with({"rollouts": [[{"text": "It is 4", "tokens": [1], "finished": False}]]})
    page = as_admin.get(f"{HERE}?asked={claimed.pk}").content.decode()
    assert "✓ correct" not in page and "It was cut off before it ended." in page


def test_requests_of_another_project_are_not_shown(started, as_admin, admin):
    other = Project.objects.create(name="Other", slug="other")
    theirs = Request.objects.ask(other, "sample", {"checkpoint": 1, "prompts": ["Secret?"]}, admin)
    assert b"Secret?" not in as_admin.get(f"{HERE}?asked={theirs.pk}").content
