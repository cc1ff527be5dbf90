"""The gap between writing and ranking: medians and shares against numbers worked out by hand, written answers
among rollouts that nobody can tell apart, and words where there is too little to say."""

import random
from statistics import median

import pytest
from django.test import Client

from labeler import gap, sheets
from labeler.datasets.lines import ranking_lines
from labeler.models import Membership, Place, Quintet, Ranking, Rival, User

pytestmark = pytest.mark.django_db
HERE = "/demonstrations/pelican-jokes/gap/"


@pytest.fixture
def writer(project) -> User:
    user = User.objects.create_user("nina")
    Membership.objects.create(project=project, user=user)
    return user


@pytest.fixture
def mixed(project, compose, writer, admin):
    """`mixed(6)`: so many quintets of a written answer among rollouts, each with the slot that it has."""

    def quintets(many: int) -> list[tuple]:
        for quintet in compose(many, places=0):
            project.demonstrations.create(prompt=quintet.prompt, completion="Written.", author=writer)
        assert gap.mix(project, admin, many) == (many, 0)
        return [(each.quintet, each.slot) for each in Rival.objects.select_related("quintet")]

    return quintets


def ranked(quintet, slot: int, labeler: User, beaten: int) -> None:
    """A ranking in which the written answer stands above so many of the four rollouts."""
    others = [each for each in range(5) if each != slot]
    order = [*others[: 4 - beaten], slot, *others[4 - beaten :]]
    quintet.record_ranking(labeler, None, [order.index(each) + 1 for each in range(5)])


def test_medians_are_of_people_s_own_answers_and_quintets_of_five(project, labeler, writer, new_ranking):
    prompt = project.prompts.create(content="A joke?")
    for seconds in (300, 100, 200, 900, 120):
        project.demonstrations.create(
            prompt=prompt, completion=f"{seconds}", author=writer, focus_seconds=seconds
        )
    for origin in ("edited", "imported", "won"):
        project.demonstrations.create(prompt=prompt, completion=origin, origin=origin, focus_seconds=1)
    program = User.objects.create_user("a program", simulated=True)
    for seconds in (40, 20, 30, 60, 50):
        new_ranking(focus_seconds=seconds)
    new_ranking(focus_seconds=1, by=program)
    new_ranking((1, 2), focus_seconds=1)
    new_ranking(focus_seconds=None)
    found = gap.of(project)
    assert (found.writing.value, found.writing.n, found.writing.people) == (200, 5, 1)
    assert (found.ranking.value, found.ranking.n) == (40, 5)
    assert found.times == 5
    assert "Writing one answer takes 3 min 20 s, ranking five 40 s: 5.0 times as long." in found.said[0]
    assert found.is_sure == ("overlap" not in found.said[0])


def test_the_interval_of_a_median_is_that_of_a_slow_bootstrap():
    values = [float(each) for each in (3, 5, 8, 9, 12, 14, 20, 21, 33, 40, 41, 60)]
    low, high = gap.medians([(1, each) for each in values]).interval
    chances = random.Random(1)
    drawn = sorted(median(chances.choices(values, k=len(values))) for _ in range(4000))
    assert low == pytest.approx(drawn[100], abs=1.5)
    assert high == pytest.approx(drawn[3900], abs=8)


def test_on_fewer_than_five_there_is_no_interval_and_the_page_says_so(project, as_admin, writer):
    prompt = project.prompts.create(content="A joke?")
    project.demonstrations.create(prompt=prompt, completion="One.", author=writer, focus_seconds=60)
    found = gap.of(project)
    assert (found.writing.value, found.writing.interval) == (60, None)
    page = as_admin.get(HERE).content.decode()
    assert "Too little to speak of time: 1 answer with a time and 0 rankings with a time" in page
    assert "Nobody has ranked a written answer among rollouts yet." in page
    assert "is not known" in page


def test_the_share_of_pairs_is_counted_by_hand(project, mixed, labeler, admin):
    quintets = mixed(2)
    (first, at), (second, there) = quintets
    ranked(first, at, labeler, beaten=4)
    ranked(first, at, admin, beaten=2)
    ranked(second, there, labeler, beaten=1)
    found = gap.of(project)
    assert found.won.value == pytest.approx((4 + 2 + 1) / 12)
    assert (found.won.n, found.rankings, found.tied) == (2, 3, 0)
    # The two who ranked the first one: above all four, and above two of them.
    assert (found.agreed.value, found.agreed.n) == (0.5, 1)


def test_two_people_agree_on_pairs_that_both_decide_however_far_apart():
    one, other = (
        [1, 1, 3, 2],
        [2, 1, 3, 1],
    )  # the first is written: tied, alike by two places and one, opposed
    assert gap._alike([(1, one), (2, other)], {0}) == (1, 2)


def test_ties_are_told_and_counted_for_neither(project, mixed, labeler):
    project.ties = True
    project.save()
    ((quintet, _),) = mixed(1)
    quintet.record_ranking(labeler, None, [1] * 5, ties=True)
    found = gap.of(project)
    assert (found.won.value, found.won.n, found.tied) == (None, 0, 4)


@pytest.mark.parametrize(
    "beaten, words", [(4, "People write better"), (0, "The model writes better"), (2, "no different")]
)
def test_what_the_shares_mean_is_said_once_five_are_ranked(project, mixed, labeler, beaten, words):
    for quintet, slot in mixed(5):
        ranked(quintet, slot, labeler, beaten)
    assert words in gap.of(project).said[1]


def test_written_answers_stand_among_rollouts_and_their_writer_is_not_shown_them(
    project, compose, writer, labeler, admin, as_labeler
):
    (quintet,) = compose(1, places=0)
    project.demonstrations.create(prompt=quintet.prompt, completion="Written by hand.", author=writer)
    assert gap.mixable(project).count() == 1
    assert gap.mix(project, admin) == (1, 0)
    assert gap.mix(project, admin) == (0, 0), "each answer stands in one quintet"
    assert Place.objects.next_for(writer, project) is None
    page = as_labeler.get(f"/rank/{project.slug}/").content.decode()
    assert "Written by hand." in page
    assert "nina" not in page and "a person" not in page
    rival = Rival.objects.get()
    texts = [each.text for each in rival.quintet.rollouts.all()]
    assert texts[rival.slot] == "Written by hand." and len(set(texts)) == 5
    ranked(rival.quintet, rival.slot, labeler, 4)
    (line,) = ranking_lines(Ranking.objects.all())
    assert [name for name in line["models"] if name] == ["a person"], "an export tells which it was"


def test_rollouts_are_laid_out_as_answers_are_and_those_beside_an_answer_are_no_beginnings(
    project, compose, writer, admin
):
    (quintet,) = compose(1, ["  one", "two\n", "three", "four", "five"])
    project.demonstrations.create(prompt=quintet.prompt, completion="mine", author=writer)
    gap.mix(project, admin)
    mixed = Quintet.objects.exclude(rivals=None).get()
    assert all(each.text == each.text.strip() for each in mixed.rollouts.all())
    project.places.close()  # nobody comes to rank any of them
    assert not sheets.offered(quintet.prompt, writer).filter(quintet=mixed).exists()
    assert sheets.offered(quintet.prompt, writer).count() == 5


def test_an_answer_that_all_rollouts_say_already_is_not_mixed(project, compose, writer, admin):
    (quintet,) = compose(1, texts=["Same.", "Same.", "Same."], places=0)
    project.demonstrations.create(prompt=quintet.prompt, completion="Same.", author=writer)
    assert gap.mix(project, admin) == (0, 1)


def test_excluded_people_are_nobody_here(project, mixed, labeler, admin, writer):
    for quintet, slot in mixed(1):
        ranked(quintet, slot, labeler, 4)
    project.memberships.get(user=labeler).exclude("guessed", admin)
    assert gap.of(project).won.value is None
    project.demonstrations.update(focus_seconds=9)
    project.memberships.get(user=writer).exclude("copied", admin)
    assert gap.of(project).writing.n == 0


def test_the_button_makes_the_quintets_and_a_reviewer_reads_without_it(project, compose, writer, as_admin):
    (quintet,) = compose(1, places=0)
    project.demonstrations.create(prompt=quintet.prompt, completion="Written.", author=writer)
    said = as_admin.post(f"{HERE}mix/", follow=True).content.decode()
    assert "1 quintet with a written answer among rollouts waits." in said
    project.memberships.filter(user=writer).update(role="reviewer")
    client = Client()
    client.force_login(writer)
    page = client.get(HERE)
    assert page.status_code == 200 and b"such quintet</button>" not in page.content
    assert client.post(f"{HERE}mix/").status_code == 404
