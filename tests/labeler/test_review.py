"""Review: what comes first, what a reviewer sees and decides, and that each decision can be taken back."""

import pytest
from django.test import Client

from labeler.agreement.folding import fold_all
from labeler.models import Place, Project, Purpose, Quintet, Ranking, User
from labeler.models.skips import SKIPS_ENOUGH

pytestmark = pytest.mark.django_db
LIST = "/review/pelican-jokes/"


@pytest.fixture
def people(project) -> list[User]:
    found = [User.objects.create_user(f"labeler-{number}") for number in range(3)]
    for each in found:
        project.memberships.create(user=each)
    return found


@pytest.fixture
def as_reviewer(project) -> Client:
    project.memberships.create(user=User.objects.create_user("rita"), role="reviewer")
    client = Client()
    client.force_login(User.objects.get(username="rita"))
    return client


@pytest.fixture
def rank(people):
    def rank(quintet: Quintet, *rankings: list[int]) -> list[Ranking]:
        """As many people's rankings of it."""
        pairs = zip(people, rankings, strict=False)
        return [quintet.record_ranking(person, None, ranks, ties=True) for person, ranks in pairs]

    return rank


def listed(client: Client, **query) -> list[int]:
    return [quintet.pk for quintet in client.get(LIST, query).context["rows"]]


def actions(project: Project) -> list[str]:
    return [entry.action for entry in project.audit.order_by("pk")]


UP, DOWN, ALMOST = [1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [2, 1, 3, 4, 5]


# What comes first


def test_the_least_agreement_comes_first_and_agreement_not_at_all(as_reviewer, compose, rank):
    alike, almost, opposed, alone = compose(4)
    rank(alike, UP, UP)
    rank(almost, UP, ALMOST)
    rank(opposed, UP, DOWN, UP)
    rank(alone, UP)
    assert listed(as_reviewer) == [opposed.pk, almost.pk]
    first = as_reviewer.get(LIST).context["rows"][0]
    assert first.tau == pytest.approx(-1 / 3)
    assert first.people == 3


def test_a_revised_ranking_moves_its_quintet(as_reviewer, compose, rank, people):
    (quintet,) = compose()
    _, second = rank(quintet, UP, DOWN)
    assert listed(as_reviewer) == [quintet.pk]
    second.revise(people[1], UP)
    assert listed(as_reviewer) == []


def test_simulated_and_excluded_labelers_make_no_disagreement(
    as_reviewer, admin, compose, rank, people, project
):
    one, other = compose(2)
    rank(one, UP)
    one.record_ranking(User.objects.without_password("sim-1", simulated=True), None, DOWN)
    rank(other, UP, DOWN)
    project.memberships.get(user=people[1]).exclude("Upside down.", admin)
    assert listed(as_reviewer) == []


def test_what_was_set_aside_stands_on_top_with_everybodys_reasons(as_reviewer, compose, people, project):
    project.overlap = 3
    project.save()
    (quintet,) = compose()
    for person in people[:SKIPS_ENOUGH]:
        Place.objects.next_for(person, project).skip(person, "broken", f"seen by {person}")
    page = as_reviewer.get(LIST)
    assert list(page.context["aside"]) == [quintet]
    for person in people:
        assert f"seen by {person}" in page.content.decode()


def test_the_list_asks_no_more_of_the_database_as_it_grows(
    as_reviewer, project, compose, rank, django_assert_num_queries
):
    for several in (2, 25):
        for quintet in compose(several):
            rank(quintet, UP, DOWN)
        for quintet in compose(several):
            rank(quintet, UP)[0].flags.create(reason="reward model")
        compose(1)[0].set_aside(None, "Broken.")
        fold_all([project], wait=True)  # else whoever looks first brings some of what is new into the sums
        with django_assert_num_queries(13):
            as_reviewer.get(LIST)
    assert len(listed(as_reviewer, page=2)) == 7


# One quintet


def test_a_reviewer_sees_everybodys_ranks_and_what_they_come_to(as_reviewer, compose, rank, people):
    (quintet,) = compose()
    rank(quintet, UP, UP, ALMOST)
    page = as_reviewer.get(f"{LIST}{quintet.pk}/")
    assert [each.labeler for each in page.context["rankings"]] == people
    assert page.context["consensus"] == UP
    assert [row["rank"] for row in page.context["rollouts"]] == UP
    assert all(row["low"] < row["strength"] < row["high"] for row in page.context["rollouts"])
    assert "labeler-2" in page.content.decode()


def test_the_best_is_first_under_the_letter_of_its_slot(as_reviewer, compose, rank):
    (quintet,) = compose()
    rank(quintet, DOWN, DOWN)
    rows = as_reviewer.get(f"{LIST}{quintet.pk}/").context["rollouts"]
    assert [(row["letter"], row["rollout"].slot) for row in rows] == list(
        zip("EDCBA", range(4, -1, -1), strict=True)
    )


def test_a_circle_of_majorities_is_shown_as_a_tie(as_reviewer, compose, rank):
    (quintet,) = compose(texts=["a", "b", "c"])
    rank(quintet, [1, 2, 3], [2, 3, 1], [3, 1, 2])
    assert as_reviewer.get(f"{LIST}{quintet.pk}/").context["consensus"] == [1, 1, 1]


def test_an_excluded_ranking_is_shown_and_counts_for_nothing(
    as_reviewer, admin, compose, rank, people, project
):
    (quintet,) = compose()
    rank(quintet, UP, DOWN)
    project.memberships.get(user=people[1]).exclude("Upside down.", admin)
    page = as_reviewer.get(f"{LIST}{quintet.pk}/")
    assert len(page.context["rankings"]) == 2
    assert page.context["consensus"] == UP
    assert "excluded" in page.content.decode()


def test_where_only_programs_have_ranked_the_page_says_so(as_reviewer, compose):
    (quintet,) = compose()
    quintet.record_ranking(User.objects.without_password("sim-1", simulated=True), None, UP)
    assert "No person has ranked it" in as_reviewer.get(f"{LIST}{quintet.pk}/").content.decode()


def test_earlier_versions_marks_and_guidelines_are_shown(as_reviewer, compose, people, project):
    project.revise_guidelines("Funny first.")
    (quintet,) = compose()
    first = quintet.record_ranking(people[0], None, UP, nonsense=[4], unsafe=[0], acceptable=2)
    first.revise(people[0], ALMOST, nonsense=[4], acceptable=0)
    page = " ".join(as_reviewer.get(f"{LIST}{quintet.pk}/").content.decode().split())
    assert "Version 1: B 1, A 2, C 3" not in page  # in the order of the page, each with its own rank
    assert "Version 1: B 2, A 1, C 3, D 4, E 5" in page
    assert "marked as nonsense" in page and "marked as unsafe" not in page
    assert "none acceptable" in page and "guidelines 1" in page


def test_nobody_learns_from_the_page_who_wrote_what(as_reviewer, compose):
    (quintet,) = compose()
    quintet.rollouts.update(model="gpt-secret")
    assert "gpt-secret" not in as_reviewer.get(f"{LIST}{quintet.pk}/").content.decode()


def test_a_quintet_of_another_project_is_not_here(as_reviewer, compose):
    (quintet,) = compose()
    other = Project.objects.create(name="Other", slug="other")
    quintet.project = other
    quintet.save()
    assert as_reviewer.get(f"{LIST}{quintet.pk}/").status_code == 404


def test_a_quintet_is_asked_for_in_as_many_queries_however_many_ranked_it(
    as_reviewer, compose, rank, django_assert_num_queries
):
    few, many = compose(2)
    rank(few, UP)
    rank(many, UP, DOWN, ALMOST)
    for quintet in (few, many):
        with django_assert_num_queries(14):
            as_reviewer.get(f"{LIST}{quintet.pk}/")


# Decisions, and taking them back


def test_accepting_takes_it_off_the_list_and_taking_back_puts_it_there_again(
    as_reviewer, compose, rank, project
):
    (quintet,) = compose()
    rank(quintet, UP, DOWN)
    settle = f"{LIST}{quintet.pk}/settle/"
    as_reviewer.post(settle, {"accept": ""})
    assert listed(as_reviewer) == []
    assert listed(as_reviewer, show="decided") == [quintet.pk]
    quintet.refresh_from_db()
    assert (quintet.reviewed_by.username, quintet.decided_ranks) == ("rita", None)
    as_reviewer.post(settle, {"undo": ""})
    assert listed(as_reviewer) == [quintet.pk]
    assert actions(project) == ["accept", "take back"]


def test_deciding_settles_it_and_leaves_the_rankings_alone(as_reviewer, compose, rank, project):
    (quintet,) = compose()
    rank(quintet, UP, DOWN)
    sent = {f"rank-{slot}": rank for slot, rank in enumerate([1, 1, 4, 4, 2])}
    as_reviewer.post(f"{LIST}{quintet.pk}/settle/", sent)
    quintet.refresh_from_db()
    assert quintet.decided_ranks == [1, 1, 3, 3, 2]
    assert sorted(Ranking.objects.values_list("ranks", flat=True)) == [UP, DOWN]
    assert [row["rank"] for row in as_reviewer.get(f"{LIST}{quintet.pk}/").context["rollouts"]] == [
        1,
        1,
        2,
        3,
        3,
    ]
    as_reviewer.post(f"{LIST}{quintet.pk}/settle/", {"undo": ""})
    quintet.refresh_from_db()
    assert quintet.decided_ranks is None
    assert actions(project) == ["decide", "take back"]


@pytest.mark.parametrize("given", [{}, {"rank-0": "1"}, {f"rank-{slot}": "x" for slot in range(5)}])
def test_what_is_no_ranking_decides_nothing(as_reviewer, compose, given, project):
    (quintet,) = compose()
    answer = as_reviewer.post(f"{LIST}{quintet.pk}/settle/", given, follow=True)
    assert "no rank yet" in answer.content.decode()
    assert actions(project) == []


def test_a_ranking_is_sent_back_with_a_reason_and_kept_after_all(as_reviewer, compose, rank, people, project):
    (quintet,) = compose()
    ranking, _ = rank(quintet, UP, DOWN)
    back = f"{LIST}{quintet.pk}/rankings/{ranking.pk}/return/"
    assert "say why" in as_reviewer.post(back, {"because": " "}, follow=True).content.decode()
    as_reviewer.post(back, {"because": "D is about a dentist."})
    assert [each.returned_because for each in Ranking.objects.returned(people[0], project)] == [
        "D is about a dentist."
    ]
    assert "Keep it after all" in as_reviewer.get(f"{LIST}{quintet.pk}/").content.decode()
    as_reviewer.post(back, {"undo": ""})
    assert not Ranking.objects.returned(people[0], project)
    assert actions(project) == ["send back", "take back"]


def test_another_labeler_can_be_asked_and_asked_no_more(as_reviewer, compose, people, project):
    (quintet,) = compose()
    place = Place.objects.next_for(people[0], project)
    quintet.record_ranking(people[0], place, UP, place.key)
    assert Place.objects.next_for(people[1], project) is None
    another = f"{LIST}{quintet.pk}/another/"
    as_reviewer.post(another)
    project.quintets.reorder(project)  # a new order is no reason to ask nobody
    assert Place.objects.next_for(people[0], project) is None
    assert Place.objects.next_for(people[1], project).quintet == quintet
    Place.objects.release(people[1])
    as_reviewer.post(another, {"undo": ""})
    assert Place.objects.next_for(people[1], project) is None
    assert actions(project) == ["ask another", "ask no more"]


def test_nobody_is_asked_for_what_is_set_aside(as_reviewer, compose):
    (quintet,) = compose()
    quintet.set_aside(None, "Broken.")
    answer = as_reviewer.post(f"{LIST}{quintet.pk}/another/", follow=True)
    assert "out of the queue" in answer.content.decode()
    assert quintet.places.count() == 1


def test_a_quintet_is_set_aside_with_a_reason_and_put_back(as_reviewer, compose, people, project):
    (quintet,) = compose()
    queue = f"{LIST}{quintet.pk}/queue/"
    assert "say why" in as_reviewer.post(queue, {"because": ""}, follow=True).content.decode()
    as_reviewer.post(queue, {"because": "Half a sentence."})
    assert Place.objects.next_for(people[0], project) is None
    as_reviewer.post(queue, {"undo": ""})
    assert Place.objects.next_for(people[0], project).quintet == quintet
    assert actions(project) == ["set aside", "bring back"]


# Gold and practice

CHECKS = f"{LIST}checks/"


@pytest.mark.parametrize("purpose", ["gold", "practice"])
def test_a_check_is_a_copy_with_known_ranks(as_reviewer, compose, purpose, project):
    (quintet,) = compose()
    quintet.rollouts.filter(slot=2).update(finished=False, model="other")
    sent = {f"rank-{slot}": rank for slot, rank in enumerate(DOWN)}
    as_reviewer.post(
        f"{LIST}{quintet.pk}/check/", sent | {"purpose": purpose, "explanation": "E is funniest."}
    )
    made = project.quintets.get(purpose=purpose)
    assert (made.known_ranks, made.explanation, made.copied_from) == (DOWN, "E is funniest.", quintet)
    assert made.places.count() == 0
    assert list(made.rollouts.values_list("text", "finished", "model")) == list(
        quintet.rollouts.values_list("text", "finished", "model")
    )
    quintet.refresh_from_db()
    assert (quintet.purpose, quintet.known_ranks) == (Purpose.WORK, None)
    assert f"{made.pk}" in as_reviewer.get(f"{LIST}{quintet.pk}/").content.decode()
    assert actions(project) == [f"{purpose} made"]


def test_a_check_that_checks_nothing_is_refused(as_reviewer, compose, project):
    (quintet,) = compose()
    sent = {f"rank-{slot}": "1" for slot in range(5)}
    answer = as_reviewer.post(f"{LIST}{quintet.pk}/check/", sent, follow=True)
    assert "nothing to check against" in answer.content.decode()
    assert project.quintets.count() == 1


def by_hand(**more) -> dict:
    texts = {
        "text_A": "Good.",
        "rank_A": "1",
        "text_B": "Bad.",
        "rank_B": "2",
        "text_D": "Bad too.",
        "rank_D": "2",
    }
    return {"purpose": "gold", "prompt": "Write a joke.", "explanation": "A is a joke."} | texts | more


def test_a_check_is_written_by_hand(as_reviewer, project):
    assert as_reviewer.post(CHECKS, by_hand()).status_code == 302
    made = project.quintets.get()
    assert (made.purpose, made.known_ranks, made.prompt.content) == ("gold", [1, 2, 2], "Write a joke.")
    assert list(made.rollouts.values_list("text", flat=True)) == ["Good.", "Bad.", "Bad too."]
    assert made in as_reviewer.get(CHECKS).context["page"]


@pytest.mark.parametrize(
    "wrong, field",
    [
        ({"prompt": ""}, "prompt"),
        ({"rank_B": "6"}, "rank_B"),
        ({"rank_B": ""}, "rank_B"),
        ({"text_B": "", "rank_B": "", "text_D": "", "rank_D": ""}, "__all__"),
        ({"rank_B": "1", "rank_D": "1"}, "__all__"),
        ({"purpose": "work"}, "purpose"),
        ({"text_A": "a\0b"}, "text_A"),
    ],
)
def test_what_is_no_check_is_refused_at_its_field(as_reviewer, project, wrong, field):
    answer = as_reviewer.post(CHECKS, by_hand(**wrong))
    assert answer.status_code == 422
    assert field in answer.context["form"].errors
    assert not project.quintets.exists()


def test_a_removed_check_is_served_to_nobody_until_it_is_used_again(as_reviewer, people, project):
    project.gold_rate, project.repeat_rate = 1, 0
    project.save()
    as_reviewer.post(CHECKS, by_hand())
    made = project.quintets.get()
    remove = f"{CHECKS}{made.pk}/remove/"
    as_reviewer.post(remove)
    assert Place.objects.next_for(people[0], project) is None
    assert "removed" in as_reviewer.get(CHECKS).content.decode()
    as_reviewer.post(remove, {"undo": ""})
    assert Place.objects.next_for(people[0], project).quintet == made
    assert actions(project) == ["gold made", "gold unmade", "gold made"]


def test_how_people_do_in_checks_is_shown(as_reviewer, people, project):
    project.gold_rate, project.repeat_rate = 1, 0
    project.save()
    as_reviewer.post(CHECKS, by_hand())
    place = Place.objects.next_for(people[0], project)
    place.quintet.record_ranking(people[0], place, [1, 2, 3], place.key)
    assert "Gold: 100 % of pairs right, over 1 quintet" in as_reviewer.get(CHECKS).content.decode()


def test_the_checks_are_asked_for_in_as_many_queries_however_many(
    as_reviewer, people, project, django_assert_num_queries
):
    for several in (1, 10):
        for number in range(several):
            as_reviewer.post(CHECKS, by_hand(prompt=f"Number {several} {number}"))
        for person in people[: 1 + several // 5]:
            quintet = project.quintets.last()
            quintet.record_ranking(person, None, [1, 2, 3])
        with django_assert_num_queries(10):
            as_reviewer.get(CHECKS)
