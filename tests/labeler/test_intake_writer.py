"""Lines into rows: what is there already, who ranked, what waits, what is restored; nothing grows."""

import io
import json

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from labeler import intake
from labeler.intake.kinds import READ
from labeler.intake.writer import Writer
from labeler.models import Arm, Place, Project, Prompt, Quintet, Ranking, Rollout, Round, User
from rlhf.data import BadLine

pytestmark = pytest.mark.django_db


def row(**values) -> dict:
    known = {"prompt": "Write a joke.", "rollouts": list("abcde"), "ranks": [2, 1, 3, 5, 4]}
    return known | {"labeler": "lena", "quintet": "q1", "simulated": False} | values


def waiting(**values) -> dict:
    return {"prompt": "Write a joke.", "rollouts": list("abcde")} | values


@transaction.atomic
def write(project: Project, kind: str, *rows: dict, **options) -> Writer:
    writer = Writer(project, **options)
    for bad in writer.write([(number, READ[kind](each)) for number, each in enumerate(rows, start=1)]):
        raise bad
    writer.finish()
    return writer


# What waits


def test_rollouts_of_any_model_become_quintets_with_the_places_that_the_project_wants(project):
    project.overlap = 2
    project.save()
    done = write(
        project,
        "rollouts",
        waiting(models=["gpt", None, "llama", "", "qwen"], finished=[True] * 4 + [False], note="kept"),
        waiting(rollouts=["x", "y"], quintet="mine"),
    )
    assert (done.added, done.known) == (2, 0)
    five, two = project.quintets.order_by("pk")
    assert [each.model for each in five.rollouts.all()] == ["gpt", "", "llama", "", "qwen"]
    assert [each.finished for each in five.rollouts.all()] == [True] * 4 + [False]
    assert (five.extra, two.external_id, five.round) == (
        {"note": "kept"},
        "mine",
        Round.objects.current(project),
    )
    assert Place.objects.filter(quintet=five, done=False).count() == 2
    assert Place.objects.filter(quintet=two, done=False).count() == 2


def test_what_was_imported_is_served_and_ranked_like_any_quintet(project, labeler, as_labeler):
    write(project, "rollouts", waiting(models=["secret-model"] * 5))
    page = as_labeler.get("/rank/pelican-jokes/").content.decode()
    assert "Write a joke." in page
    assert "secret-model" not in page


def test_in_the_queue_they_stand_in_the_order_of_the_file(project, compose):
    first = compose()[0]
    write(project, "rollouts", *(waiting(prompt=f"Joke {n}") for n in range(20)))
    served = Place.objects.order_by("priority", "pk").values_list("quintet", flat=True)
    assert list(served) == sorted(served)
    assert served[0] == first.pk


def test_the_same_rollouts_twice_wait_once(project):
    write(project, "rollouts", waiting())
    again = write(project, "rollouts", waiting(), waiting(), waiting(rollouts=list("edcba")))
    assert (again.added, again.known) == (1, 2)
    assert Place.objects.count() == 2


def test_what_was_sampled_here_is_not_asked_for_again(project, compose):
    quintet = compose(1, list("abcde"))[0]
    again = write(project, "rollouts", waiting(prompt=quintet.prompt.content))
    assert (again.added, again.known) == (0, 1)


# Prompts


def test_a_prompt_is_there_once_whoever_brought_it(project):
    Prompt.objects.create(project=project, content="Write a joke.", answer="old")
    done = write(
        project, "prompts", {"prompt": "Write a joke.", "answer": "new"}, {"prompt": "b"}, {"prompt": "b"}
    )
    assert (done.added, done.known) == (1, 2)
    write(project, "rankings", row())
    write(project, "rollouts", waiting(rollouts=["x", "y"]))
    assert sorted(project.prompts.values_list("content", "answer")) == [("Write a joke.", "old"), ("b", "")]


def test_prompts_keep_their_order_their_ids_and_what_else_is_said(project):
    write(project, "prompts", *({"prompt": f"p{n}", "id": n, "note": [n]} for n in (3, 1, 2)))
    kept = project.prompts.values_list("content", "external_id", "extra")
    assert list(kept) == [("p3", "3", {"note": [3]}), ("p1", "1", {"note": [1]}), ("p2", "2", {"note": [2]})]


def test_another_projects_prompts_are_its_own(project):
    other = Project.objects.create(name="Other", slug="other")
    for each in (project, other):
        assert write(each, "rankings", row()).added == 1
    assert Prompt.objects.count() == 2


# Rankings


def test_what_exports_say_is_restored(project):
    project.revise_guidelines("Be funny.")
    version = project.revise_guidelines("Be very funny.")
    marks = {"nonsense": [4], "unsafe": [0, 1], "acceptable": 2, "shown": [4, 3, 2, 1, 0], "surplus": True}
    told = marks | {"arm": "random", "focus_seconds": 3.5, "models": list("mnopq")}
    write(project, "rankings", row(**told, guidelines=2, round=3, note="kept", finished=[True] * 4 + [False]))
    ranking = Ranking.objects.get()
    assert {name: getattr(ranking, name) for name in marks} == marks
    assert (ranking.arm, ranking.focus_seconds, ranking.guidelines) == (Arm.RANDOM, 3.5, version)
    assert (ranking.quintet.round.number, ranking.extra) == (3, {"note": "kept"})
    assert "".join(Rollout.objects.values_list("model", flat=True)) == "mnopq"
    assert ranking.quintet.rollouts.last().finished is False


def test_a_new_project_gets_the_rounds_of_its_lines_and_only_the_last_is_open(project):
    write(project, "rankings", row(round=2), row(quintet="q2", round=4), row(quintet="q3"))
    rounds = {each.number: (each.quintets.count(), each.closed_at is None) for each in project.rounds.all()}
    assert rounds == {1: (1, False), 2: (1, False), 4: (1, True)}


def test_a_project_that_has_begun_gets_no_rounds_by_an_import(project, compose):
    compose()
    write(project, "rankings", row(round=7))
    ranking = Ranking.objects.get()
    assert (ranking.quintet.round.number, ranking.extra) == (1, {"round": 7})
    assert Round.objects.current(project).number == 1


def test_a_version_of_the_guidelines_that_is_not_here_stays_a_number(project):
    write(project, "rankings", row(guidelines=9))
    assert Ranking.objects.values_list("guidelines", "extra").get() == (None, {"guidelines": 9})


def test_a_hidden_check_stays_one(project):
    write(project, "rankings", row(), row(purpose="gold"), row(purpose="repeat", ranks=[1, 2, 3, 4, 5]))
    assert list(Ranking.objects.values_list("purpose", flat=True)) == ["work", "gold", "repeat"]
    assert Ranking.objects.work().count() == 1
    assert project.quintets.count() == 1
    again = write(
        project, "rankings", row(), row(purpose="gold"), row(purpose="repeat", ranks=[1, 2, 3, 4, 5])
    )
    assert (again.added, again.known) == (0, 3)


def test_no_ranking_is_added_to_a_hidden_check(project):
    write(project, "rankings", row())
    project.quintets.update(purpose="gold", known_ranks=[1, 2, 3, 4, 5])
    assert write(project, "rankings", row()).known == 1
    write(project, "rankings", row(labeler="other"))
    assert Ranking.objects.get(labeler__username="other").quintet.purpose == "work"


def test_an_older_version_of_a_ranking_is_known_as_well(project, labeler):
    write(project, "rankings", row())
    Ranking.objects.update(current=False)
    old = Ranking.objects.get()
    Ranking.objects.create(quintet=old.quintet, labeler=labeler, ranks=[1, 2, 3, 4, 5], version=2)
    assert write(project, "rankings", row()).known == 1


def test_lines_without_names_meet_at_the_quintet_with_their_texts(project):
    unnamed = {"quintet": "", "rollouts": ["a", "b"], "ranks": [1, 2]}
    write(project, "rankings", row(**unnamed, labeler="a"), row(**unnamed, labeler="b"))
    assert project.quintets.count() == 1
    write(project, "rankings", row(**unnamed | {"rollouts": ["a", "c"]}, labeler="a"))
    assert project.quintets.count() == 2


def test_a_ranking_of_what_waits_joins_it_and_takes_nobodys_place(project):
    write(project, "rollouts", waiting())
    write(project, "rankings", row(quintet=""))
    assert project.quintets.count() == 1
    assert Place.objects.filter(done=False, labeler=None).count() == 1


def test_who_cannot_sign_in_is_a_member_so_that_they_can_be_excluded(project, labeler, stranger):
    write(project, "rankings", row(labeler="new"), row(labeler="otto"), row(labeler="sim", simulated=True))
    assert set(project.memberships.values_list("user__username", flat=True)) == {"lena", "new", "sim"}
    assert User.objects.get(username="sim").simulated
    project.memberships.get(user__username="new").exclude("guesses", project.created_by)
    assert set(Ranking.objects.counted().values_list("labeler__username", flat=True)) == {"otto", "sim"}


def test_one_name_is_not_both_a_person_and_a_program(project):
    writer = Writer(project)
    lines = [row(labeler="x"), row(labeler="x", simulated=True), row(labeler="lena", simulated=True), row()]
    bad = writer.write([(number, READ["rankings"](each)) for number, each in enumerate(lines, start=1)])
    assert [(each.number, "elsewhere" in each.reason) for each in bad] == [(2, True), (3, True)]
    assert writer.added == 2


# In memory that does not grow


def test_a_batch_takes_as_many_queries_as_one_line_whatever_is_there(project):
    def queries(*rows: dict) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            write(project, "rankings", *rows)
        return len(captured)

    write(project, "rankings", row(quintet="first", labeler="a"))
    one = queries(row(quintet="second", labeler="a"))
    many = queries(*(row(quintet=f"q{n}", labeler="a") for n in range(300)))
    again = queries(*(row(quintet=f"q{n}", labeler="a") for n in range(300)))
    assert many == one
    assert again <= one


def test_what_is_looked_up_is_found_by_its_index(project):
    from labeler.intake.writer import ALIKE

    write(
        project,
        "rankings",
        *(row(quintet=f"q{n}", rollouts=[f"a{n}", "b"], ranks=[1, 2]) for n in range(500)),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "ANALYZE labeler_rollout, labeler_quintet"
        )  # the plan follows from what is there, not from luck
        cursor.execute(f"EXPLAIN {ALIKE}", [[1, 2], ["x", "y"], ["x", "y"]])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "first_rollouts" in plan
    assert "Seq Scan" not in plan


def test_imports_into_one_project_take_turns_and_a_page_does_not_wait(
    project, transactional_db, django_db_blocker
):
    import threading

    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Writer.take_turn(project)
            held.set()
            go.wait(20)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)
        with pytest.raises(intake.Busy, match="Try again when it has ended"):
            intake.import_prompts(project, intake.pasted_prompts("a"))
    finally:
        go.set()
        thread.join()
    assert intake.import_prompts(project, intake.pasted_prompts("a")).added == 1


def test_nothing_of_a_bad_batch_is_kept_by_the_short_way(project):
    lines = [row(labeler="x"), row(labeler="x", simulated=True)]
    file = io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    with pytest.raises(BadLine):
        intake.import_rankings(project, intake.read_rankings(file))
    assert not Quintet.objects.exists()
    assert not User.objects.filter(username="x").exists()
