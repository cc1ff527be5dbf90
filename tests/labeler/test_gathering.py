"""Rollouts that become demonstrations: counted before anything joins, each once, marked by where they are
from, and out again."""

import tracemalloc

import pytest
from django.db import transaction

from labeler import answers, gathering
from labeler.datasets import freeze_demonstrations
from labeler.datasets.frozen import opened
from labeler.models import Demonstration, Request, Sheet, User
from rlhf.run import LineFile
from tests.labeler.scripted import meanwhile

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_bell")]
HERE = "/demonstrations/pelican-jokes/gather/"


def answered(request: Request) -> dict:
    """What a worker answers."""
    claimed = Request.objects.claim(request.pk)
    claimed.answer_with(answers.KINDS["gather"](claimed, claimed.question))
    request.refresh_from_db()
    return request.answer


def pressed(as_admin, **sent) -> Request:
    assert as_admin.post(HERE, sent).status_code == 302
    return Request.objects.latest("pk")


def checked_run(project, *said: dict):
    """A policy run against a checker that wrote these."""
    run = project.runs.create(kind="policy", state="finished", step=1, config={"checker": "number"})
    run.directory.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 1, "group": 0, "index": at, "finished": True, **each} for at, each in enumerate(said)]
    LineFile(run.directory / "rollouts.jsonl.zst").append(lines)
    return run


def test_winners_are_counted_first_and_then_join_once(project, as_admin, new_ranking):
    for number in range(3):
        new_ranking((2, 1, 3, 4, 5), prompt=f"Joke {number}", texts=f"ab{number}de")
    counted = answered(pressed(as_admin, do="count"))
    assert (counted["good"], counted["new"], counted["known"], counted["prompts"]) == (3, 3, 0, 3)
    assert not Demonstration.objects.exists(), "nothing joins by being counted"
    page = as_admin.get(HERE).content.decode()
    assert "Let 3 join" in page
    first = Request.objects.latest("pk")
    assert answered(pressed(as_admin, do="take", of=first.pk))["new"] == 3
    assert {(each.completion, each.origin) for each in Demonstration.objects.all()} == {("b", "won")}
    again = answered(pressed(as_admin, do="count"))
    assert (again["new"], again["known"]) == (0, 3)
    assert "All of them are there already." in as_admin.get(HERE).content.decode()


@pytest.mark.django_db(transaction=True)
def test_people_go_on_writing_while_rollouts_are_looked_for(project, as_admin, new_ranking, monkeypatch):
    for number in range(2):
        new_ranking((2, 1, 3, 4, 5), prompt=f"Joke {number}", texts=f"ab{number}de")
    counted = pressed(as_admin, do="count")
    answered(counted)
    choose, wrote = gathering._choose, []

    def somebody_writes():
        with transaction.atomic():
            Sheet.objects.take_turn(project)
            prompt = project.prompts.get(content="Joke 1")
            wrote.append(project.demonstrations.create(prompt=prompt, completion="b", origin="won"))

    def meanwhile_chosen(*given):
        found = choose(*given)
        thread = meanwhile(somebody_writes)
        thread.join(5)
        assert wrote, "somebody waits for their turn"
        return found

    monkeypatch.setattr(gathering, "_choose", meanwhile_chosen)
    assert answered(pressed(as_admin, do="take", of=counted.pk))["new"] == 1
    assert project.demonstrations.count() == 2, "what came meanwhile is not there twice"


def test_simulated_winners_stay_out_unless_asked_for(project, as_admin, new_ranking):
    program = User.objects.create_user("a program", simulated=True)
    new_ranking((1, 2, 3, 4, 5), by=program)
    assert answered(pressed(as_admin, do="count"))["new"] == 0
    asked = pressed(as_admin, do="count", simulated="on")
    assert answered(asked)["new"] == 1
    answered(pressed(as_admin, do="take", of=asked.pk))
    assert Demonstration.objects.get().came_from["simulated"] is True
    dataset = freeze_demonstrations(project)
    assert (dataset.simulated, dataset.by_people) == (1, 0), "it is marked wherever it is counted"
    with opened(dataset) as source:
        assert [line["simulated"] for line in source.lines()] == [True]


def test_what_is_marked_as_nonsense_is_no_winner(project, as_admin, new_ranking):
    new_ranking((1, 2, 3, 4, 5), nonsense=[0])
    assert answered(pressed(as_admin, do="count"))["good"] == 0


def test_what_a_checker_passed_joins_and_what_it_did_not_stays_out(project, as_admin):
    prompt, chat = (
        project.prompts.create(content=each) for each in ("2+2?", [{"role": "user", "content": "3+3?"}])
    )
    run = checked_run(
        project,
        {"prompt": "2+2?", "id": str(prompt.pk), "rollout": "4", "correct": True},
        {"prompt": "2+2?", "id": str(prompt.pk), "rollout": "5", "correct": False},
        {"prompt": "2+2?", "id": str(prompt.pk), "rollout": " 4\n", "correct": True},
        {"prompt": "2+2?", "id": str(prompt.pk), "rollout": "It is 4", "correct": True, "finished": False},
        {"prompt": "2+2?", "id": str(prompt.pk), "rollout": "?", "correct": None},
        {"prompt": "3+3?", "rollout": "6", "correct": True},
        {"prompt": "4+4?", "rollout": "8", "correct": True},
    )
    assert gathering.runs_of(project) == [run]
    asked = pressed(as_admin, **{"do": "count", "from": run.pk})
    told = answered(asked)
    assert (told["good"], told["new"], told["known"], told["homeless"]) == (4, 2, 1, 1)
    answered(pressed(as_admin, do="take", of=asked.pk))
    made = {(each.prompt, each.completion, each.origin, each.run) for each in Demonstration.objects.all()}
    assert made == {(prompt, "4", "passed", run), (chat, "6", "passed", run)}


def test_no_more_of_a_prompt_join_than_was_asked_for(project, as_admin):
    prompt = project.prompts.create(content="2+2?")
    said = [{"prompt": "2+2?", "id": str(prompt.pk), "rollout": f"{n}: 4", "correct": True} for n in range(9)]
    run = checked_run(project, *said)
    told = answered(pressed(as_admin, **{"do": "count", "from": run.pk, "most": 2}))
    assert (told["new"], told["beyond"]) == (2, 7)


def test_a_run_whose_file_is_gone_is_said_in_words(project, as_admin):
    run = project.runs.create(kind="policy", state="finished", step=1, config={"checker": "number"})
    claimed = Request.objects.claim(pressed(as_admin, **{"do": "count", "from": run.pk}).pk)
    with pytest.raises(answers.Unanswerable, match="not on this machine"):
        answers.KINDS["gather"](claimed, claimed.question)


def test_what_joined_is_taken_out_again_but_for_what_people_changed(project, as_admin, new_ranking):
    for number in range(2):
        new_ranking(prompt=f"Joke {number}")
    asked = pressed(as_admin, do="count")
    answered(asked)
    taken = pressed(as_admin, do="take", of=asked.pk)
    answered(taken)
    Demonstration.objects.first().rewrite("Better.")
    said = as_admin.post(HERE, {"do": "undo", "of": taken.pk}, follow=True).content.decode()
    assert "1 are taken out again. 1 stay" in said
    assert [each.completion for each in Demonstration.objects.all()] == ["Better."]


def test_a_withdrawn_answer_does_not_come_back_by_winning(project, as_admin, admin, new_ranking):
    ranking = new_ranking()
    made = project.demonstrations.create(prompt=ranking.quintet.prompt, completion="a")
    made.withdraw(admin)
    assert answered(pressed(as_admin, do="count"))["new"] == 0


def test_a_frozen_dataset_marks_where_each_line_is_from(project, new_ranking):
    prompt = project.prompts.create(content="A joke?")
    for origin in ("written", "won"):
        project.demonstrations.create(prompt=prompt, completion=origin, origin=origin)
    with opened(freeze_demonstrations(project)) as source:
        lines = list(source.lines())
    assert {(line["completion"], line.get("origin")) for line in lines} == {("written", None), ("won", "won")}


def test_the_texts_of_many_rollouts_are_never_in_memory_together(project, as_admin, monkeypatch):
    """60 MB of them are looked at, and 15 MB join, by a worker that holds a few."""
    prompt, many = project.prompts.create(content="Tell me all."), 600

    def found(*_):
        for number in range(many):
            text = f"{number} {chr(65 + number % 26) * 100_000}"
            yield gathering.Candidate((prompt.digest,), None, text, {"slot": 0})

    monkeypatch.setattr(gathering, "won", found)
    monkeypatch.setattr(gathering, "A_BATCH", 10)
    request = Request.objects.claim(pressed(as_admin, do="count", most=64).pk)
    tracemalloc.start()
    try:
        told = gathering.answer(request, {"most": 150, "take": True})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (told["good"], told["new"], told["beyond"]) == (many, 150, many - 150)
    assert project.demonstrations.count() == 150 and peak < 10_000_000, f"{peak:,} bytes"


def test_the_form_begins_where_there_is_something_to_take(project, as_admin, new_ranking):
    new_ranking(by=User.objects.create_user("a program", simulated=True))
    assert 'name="simulated" checked' in as_admin.get(HERE).content.decode(), "only programs ranked"
    run = checked_run(project)
    chosen = f'<option value="{run.pk}" selected>'
    assert chosen not in as_admin.get(HERE).content.decode()
    project.change(None, judge="checker")
    assert chosen in as_admin.get(HERE).content.decode(), "a checker judges here"
    new_ranking()
    assert 'name="simulated" checked' not in as_admin.get(HERE).content.decode()
    asked = pressed(as_admin, do="count", **{"from": "", "simulated": "on"})
    answered(asked)
    page = as_admin.get(HERE).content.decode()
    assert chosen not in page and 'name="simulated" checked' in page, "what was counted last stays chosen"
