"""Where things stand in a face-off's picture: by the numbers of its frame."""

import pytest

from labeler import faceoff_pictures, preferences
from labeler.faceoff_pictures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from labeler.models import Checkpoint
from tests.labeler.faced import asking, policies, ranked

pytestmark = pytest.mark.django_db


def drawn(project, chosen, labeler, taste) -> dict:
    faceoff = asking(project, chosen, 30)
    ranked(faceoff, labeler, taste, noise=0.5)
    return faceoff_pictures.strengths(preferences.of(faceoff)["people"].rows)


def up(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def test_points_stand_at_their_steps_and_shares_and_the_start_at_half(project, labeler):
    picture = drawn(project, policies(project)[1:], labeler, [0, 1, 2, -1])
    (line,) = picture["lines"]
    start, *others = line["points"]
    assert (start["x"], start["y"], start["whisker"]) == (LEFT, pytest.approx(up(0.5), abs=0.1), None)
    assert [each["x"] for each in others] == pytest.approx(
        [LEFT + (WIDTH - RIGHT - LEFT) * step / 30 for step in (10, 20, 30)], abs=0.1
    )
    for each in others:
        low, high = each["whisker"]
        assert each["y"] == pytest.approx(up(each["row"].share), abs=0.1) and low > each["y"] > high
    assert [each["step"] for each in picture["ticks"]] == [0, 5, 10, 15, 20, 25, 30]


def test_the_reward_is_drawn_over_the_same_steps(project, labeler):
    picture = drawn(project, policies(project)[1:], labeler, [0, 1, 2, -1])
    reward = [tuple(map(float, each.split(","))) for each in picture["lines"][0]["reward"].split()]
    assert len(reward) == 30 and reward[-1] == pytest.approx((WIDTH - RIGHT, up(0.95)), abs=0.1)
    assert [y for _, y in reward] == sorted((y for _, y in reward), reverse=True)


def test_each_run_has_a_line_of_its_own(project, labeler):
    start, first, *_ = policies(project)
    other = project.runs.create(kind="policy", state="finished", start=start)
    second = Checkpoint.objects.create(project=project, run=other, step=60, name="other", location="o")
    picture = drawn(project, [first, second], labeler, [0, 1, 2])
    assert sorted((each["run"].pk, len(each["points"])) for each in picture["lines"]) == sorted(
        [(first.run_id, 2), (other.pk, 2)]
    )
    assert {each["reward"] == "" for each in picture["lines"]} == {True, False}
    assert [each["step"] for each in picture["ticks"]] == [0, 10, 20, 30, 40, 50, 60]


def test_what_no_policy_run_wrote_has_no_place_on_it(project, labeler):
    policies(project)
    brought = Checkpoint.objects.create(project=project, name="brought along", location="b")
    assert drawn(project, [brought], labeler, [0, 1])["lines"] == []


def test_a_long_curve_is_thinned_and_keeps_its_end():
    steps = [(step, 0.5) for step in range(1, 501)]
    thinned = faceoff_pictures._thinned(steps)
    assert len(thinned) <= faceoff_pictures.POINTS and thinned[-1] == (500, 0.5)
