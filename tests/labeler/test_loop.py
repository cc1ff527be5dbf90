"""What a labeler learns of the loop: how far the reward model of a closed round agrees with them."""

import pytest

from labeler.intake.kinds import ranking
from labeler.intake.writer import Writer
from labeler.loop import standings
from labeler.models import Round

pytestmark = pytest.mark.django_db


@pytest.fixture
def trained(project, compose):
    """`trained(right=170, pairs=240)`: round 1 with a reward model that was right on so many of lena's."""
    compose(1)

    def train(**lena):
        told = {"lena": {"error": 0.03, **lena}, "somebody": {"right": 9, "pairs": 90, "error": 0.1}}
        return project.runs.create(
            round=Round.objects.get(project=project, number=1),
            kind="reward",
            state="finished",
            result={"metrics": {"by_labeler": told}},
        )

    return train


def close(project) -> None:
    Round.objects.current(project).close(None)


def home(client) -> str:
    return " ".join(client.get("/projects/").content.decode().split())


def test_a_labeler_is_told_after_the_round_how_far_its_model_agrees_with_them(as_labeler, project, trained):
    trained(right=170, pairs=240)
    assert "agrees with you" not in home(as_labeler)
    close(project)
    page = home(as_labeler)
    assert "The model of round 1 agrees with you on <b>71 %</b> of 240 held-out pairs" in page
    assert "65 % to 77 %, with 95 % confidence" in page


def test_nothing_is_told_of_an_open_round_even_when_an_earlier_one_is_closed(
    as_labeler, project, trained, compose
):
    trained(right=170, pairs=240)
    close(project)
    compose(1)
    later = trained(right=20, pairs=200)
    later.round = Round.objects.current(project)
    later.save()
    assert "The model of round 1" in home(as_labeler)


def test_too_few_pairs_say_nothing(as_labeler, project, trained):
    trained(right=20, pairs=29)
    close(project)
    assert "agrees with you" not in home(as_labeler)


def test_who_ranked_nothing_is_told_nothing(as_stranger, as_admin, stranger, project, trained):
    trained(right=170, pairs=240)
    close(project)
    project.memberships.create(user=stranger)
    assert "agrees with you" not in home(as_stranger) + home(as_admin)


def test_no_interval_is_made_up_where_the_model_was_always_right(project, labeler, trained):
    trained(right=60, pairs=60, error=0)
    close(project)
    told = standings([project], labeler)[0].agrees
    assert (told.share, told.between) == (1, None)


def test_an_interval_ends_at_all_pairs(project, labeler, trained):
    trained(right=59, pairs=60, error=0.05)
    close(project)
    assert standings([project], labeler)[0].agrees.between[1] == 1


def test_rankings_that_an_import_brought_are_told_from_those_made_here(as_admin, project, labeler, compose):
    [quintet] = compose(1)
    quintet.rankings.create(labeler=labeler, ranks=[1, 2, 3, 4, 5])
    line = {"prompt": "Write a joke.", "rollouts": ["a", "b"], "ranks": [1, 2], "labeler": "rita"}
    writer = Writer(project)
    writer.write([(1, ranking(line)), (2, ranking(line | {"labeler": "rolf"}))])
    assert standings([project], labeler)[0].imported == 2
    page = " ".join(as_admin.get("/projects/pelican-jokes/").content.decode().split())
    assert "3 rankings by people, 2 of them imported" in page
    assert '<dd>3 <span class="quiet">2 imported</span></dd>' in page
