"""What the rankings of a face-off are taken to say: by hand where that can be done, and played through."""

import random
from collections.abc import Iterator
from math import exp, log, sqrt

import pytest
from django.utils import timezone

from labeler import preferences
from labeler.models import Checkpoint, Faceoff, Membership, Place, Quintet, Ranking, Round, Run, User
from labeler.strengths import power, seats
from tests.labeler.faced import asking, policies, ranked

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoints(project) -> list[Checkpoint]:
    return policies(project)


@pytest.fixture
def program(db) -> User:
    return User.objects.create_user("a program", simulated=True)


def in_twos(project, checkpoints, wins: int, losses: int, by: User) -> Faceoff:
    """A face-off of quintets with one rollout each of the start and of the other, ranked so often so."""
    faceoff = project.faceoffs.create(number=1, round=Round.objects.current(project), start=checkpoints[0])
    for place, checkpoint in enumerate(checkpoints[:2]):
        faceoff.contenders.create(checkpoint=checkpoint, place=place)
    for number in range(wins + losses):
        prompt = project.prompts.create(content=f"Joke {number}?")
        quintet = Quintet.objects.compose(
            project, faceoff.round, prompt, ["a", "b"], checkpoints=checkpoints[:2], faceoff=faceoff, places=0
        )
        quintet.record_ranking(by, None, [2, 1] if number < wins else [1, 2])
    return Faceoff.objects.told().get(pk=faceoff.pk)


def test_sixty_wins_of_a_hundred_by_hand(project, checkpoints, labeler):
    people = preferences.of(in_twos(project, checkpoints, 60, 40, labeler))["people"]
    start, other = people.rows
    assert (people.rankings, people.labelers, people.prompts) == (100, 1, 100)
    assert (start.is_start, start.share, start.low, start.high) == (True, 0.5, 0.5, 0.5)
    assert other.is_best and other.share == pytest.approx(0.6, abs=0.002)
    ends = [1 / (1 + exp(-(log(1.5) + side * 1.96 * sqrt(1 / 24)))) for side in (-1, 1)]
    assert (other.low, other.high) == pytest.approx(ends, abs=0.005)
    assert start.against_best == pytest.approx(0.4, abs=0.002)
    assert other.low > 0.5 and not start.level
    assert people.verdict == f"People like step 10 of run {other.checkpoint.run_id} best, surely."


def test_fifty_five_of_a_hundred_cannot_be_told_from_a_coin(project, checkpoints, labeler):
    people = preferences.of(in_twos(project, checkpoints, 55, 45, labeler))["people"]
    assert people.best.checkpoint == checkpoints[1] and [each.is_start for each in people.level] == [True]
    assert "cannot tell it from the starting model" in people.verdict
    assert people.verdict.endswith("would be better than what there is, is not shown.")


def test_while_people_still_rank_less_is_called_sure(project, checkpoints, labeler):
    faceoff = in_twos(project, checkpoints, 60, 40, labeler)
    Place.objects.create(quintet=faceoff.quintets.first(), project=project)
    Faceoff.objects.filter(pk=faceoff.pk).update(composed_at=timezone.now())
    people = preferences.of(Faceoff.objects.told().get(pk=faceoff.pk))["people"]
    assert people.rows[1].low > 0.5 and [each.is_start for each in people.level] == [True]
    assert people.verdict.startswith(
        f"So far people rank step 10 of run {checkpoints[1].run_id} highest, but"
    )


def test_where_people_like_the_start_best_there_is_nothing_to_ship(project, checkpoints, labeler):
    people = preferences.of(in_twos(project, checkpoints, 20, 80, labeler))["people"]
    assert people.best.is_start and "there is nothing to ship" in people.verdict


def test_nothing_is_known_before_anybody_has_ranked(project, checkpoints):
    told = preferences.of(asking(project, checkpoints[1:]))
    assert told["people"].best is None and not told["people"].rows
    assert told["people"].verdict == "No ranking by people yet, so nothing is known."


def test_programs_are_never_counted_with_people(project, checkpoints, labeler, program):
    faceoff = asking(project, checkpoints[1:], 30)
    ranked(faceoff, labeler, [0, 1, 2, 3])
    before = preferences.of(faceoff)["people"]
    ranked(faceoff, program, [3, 2, 1, 0])
    told = preferences.of(faceoff)
    assert told["people"] == before
    assert told["people"].best.checkpoint == checkpoints[3]
    assert told["simulated"].simulated and told["simulated"].best.is_start
    assert told["simulated"].verdict.startswith("Simulated labelers like the starting model best")


def test_whoever_is_excluded_does_not_count(project, checkpoints, labeler, admin):
    faceoff = asking(project, checkpoints[1:])
    ranked(faceoff, labeler, [0, 1, 2, 3])
    Membership.objects.filter(user=labeler).update(excluded_at="2026-01-01T00:00Z")
    assert preferences.of(faceoff)["people"].rankings == 0


def test_the_reward_stands_beside_what_people_say(project, checkpoints, labeler):
    faceoff = asking(project, checkpoints[1:])
    ranked(faceoff, labeler, [0, 1, 2, 3])
    rewards = [each.reward for each in preferences.of(faceoff)["people"].rows]
    assert rewards == pytest.approx([0.5, 0.7, 0.8, 0.95], abs=0.05)
    assert rewards == sorted(rewards)


# Alarms


def test_an_alarm_where_people_fall_away_while_the_reward_rises(project, checkpoints, labeler, as_admin):
    faceoff = asking(project, checkpoints[1:], 40)
    ranked(faceoff, labeler, [0, 1, 2, -2], noise=1)
    run = checkpoints[1].run
    preferences.look(faceoff)
    faceoff.refresh_from_db()
    words = faceoff.alarms[str(run.pk)]
    assert words.startswith(f"People prefer step 20 of run {run.pk} to step 30 of run {run.pk}:")
    assert "though the reward went up from 0.80 to 0.95" in words
    for page in (f"/runs/{run.pk}/", f"/projects/{project.slug}/", f"/rounds/{project.slug}/"):
        assert words in as_admin.get(page).content.decode(), page
    other = project.runs.create(kind="policy", state="finished")
    assert words not in as_admin.get(f"/runs/{other.pk}/").content.decode()


def test_the_projects_page_says_it_until_something_is_shipped(project, checkpoints, labeler, admin, as_admin):
    faceoff = asking(project, checkpoints[1:], 40)
    ranked(faceoff, labeler, [0, 1, 2, -2], noise=1)
    preferences.look(faceoff)
    faceoff.ship(checkpoints[2], admin)
    said = "Preference falls while the reward rises."
    assert said not in as_admin.get(f"/projects/{project.slug}/").content.decode()
    assert said in as_admin.get(f"/runs/{checkpoints[1].run_id}/").content.decode()


@pytest.mark.parametrize("taste", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_no_alarm_where_people_go_along_or_cannot_tell(project, checkpoints, labeler, taste):
    faceoff = asking(project, checkpoints[1:], 40)
    ranked(faceoff, labeler, taste, noise=1)
    assert preferences.alarms(faceoff, preferences.of(faceoff)) == {}


def test_no_alarm_where_the_reward_falls_as_well(project, checkpoints, labeler):
    for step in checkpoints[1].run.steps.filter(step__gt=20):
        step.metrics = {"reward": 0.4}
        step.save()
    faceoff = asking(project, checkpoints[2:], 40)
    ranked(faceoff, labeler, [1, 2, 0], noise=1)
    found = preferences.alarms(faceoff, preferences.of(faceoff))
    assert found == {}


def test_programs_sound_it_only_where_no_person_ranked_and_by_their_name(
    project, checkpoints, labeler, program
):
    faceoff = asking(project, checkpoints[1:], 40)
    ranked(faceoff, program, [0, 1, 2, -2], noise=1)
    (words,) = preferences.alarms(faceoff, preferences.of(faceoff)).values()
    assert words.startswith("Simulated labelers prefer")
    ranked(faceoff, labeler, [0, 1, 2, 3])
    assert preferences.alarms(faceoff, preferences.of(faceoff)) == {}


# Stopping


def test_it_stops_by_itself_once_the_favourite_is_sure(project, checkpoints, labeler, admin):
    project.overlap = 2
    project.save()
    faceoff = asking(project, checkpoints[1:3], 40)
    seated = Place.objects.next_for(admin, project)
    ranked(faceoff, labeler, [0, 2, 0.5], noise=0.3)
    for each in Faceoff.objects.unseen():
        preferences.look(each)
    faceoff.refresh_from_db()
    assert faceoff.state == "stopped"
    assert faceoff.stopped_because.startswith("After 40 rankings people prefer step 10 of run")
    assert "79 open places were closed" in faceoff.stopped_because
    assert list(faceoff.places().waiting()) == [seated], "whoever sits may finish"
    entry = project.audit.first()
    assert (entry.action, entry.by) == ("face-off stopped", None)
    faceoff.go_on(admin)
    assert faceoff.places().waiting().count() == 80
    preferences.look(faceoff)
    assert Faceoff.objects.get(pk=faceoff.pk).state == "asking", "somebody went on with it"


def test_it_looks_only_now_and_then(project, checkpoints, labeler):
    faceoff = asking(project, checkpoints[1:2], 60)
    made = ranked(faceoff, labeler, [0, 3])
    Ranking.objects.filter(pk__in=[each.pk for each in made[9:]]).update(current=False)
    preferences.look(faceoff)
    assert (faceoff.looked, faceoff.state) == (0, "asking"), "nine are too few to look at"
    Ranking.objects.filter(pk=made[9].pk).update(current=True)
    preferences.look(faceoff)
    assert (faceoff.looked, faceoff.state) == (10, "stopped")


def test_the_worker_looks_again_only_where_something_has_changed(project, checkpoints, labeler):
    faceoff = asking(project, checkpoints[1:2])
    assert Faceoff.objects.unseen() == []
    (*_, last) = ranked(faceoff, labeler, [0, 1])
    (changed,) = Faceoff.objects.unseen()
    preferences.look(changed)
    assert Faceoff.objects.unseen() == []
    assert Faceoff.objects.get().found["people"]["rankings"] == 6
    last.revise(labeler, [5, 4, 3, 2, 1], ties=True)
    assert Faceoff.objects.unseen() == [faceoff]


def drawn(taste: list[float], seed: int, wanted: int) -> tuple[list[Checkpoint], list, dict]:
    """Checkpoints, rankings of so many quintets by people who like them so, and whose rollouts these were."""
    chances, count = random.Random(seed), len(taste)
    checkpoints = [Checkpoint(pk=n, name=str(n), step=10 * n, run_id=1) for n in range(count)]
    players = {n: dict(enumerate(seats(n, count))) for n in range(wanted)}
    rankings = []
    for number in range(wanted):
        left, ranks = list(range(5)), [0] * 5
        for rank in range(1, 6):
            slot = chances.choices(left, [exp(taste[players[number][each]]) for each in left])[0]
            ranks[slot] = rank
            left.remove(slot)
        rankings.append((number, number, 1, ranks))
    return checkpoints, rankings, players


def played(taste: list[float], seed: int, wanted: int = 60) -> bool:
    """Whether a face-off between checkpoints so liked stops early, looked at every tenth ranking."""
    return any(each.parted for each in looks(taste, seed, wanted, going=True))


def looks(taste: list[float], seed: int, wanted: int, going: bool) -> Iterator[preferences.Preferences]:
    checkpoints, rankings, players = drawn(taste, seed, wanted)
    for many in range(preferences.A_LOOK, wanted, preferences.A_LOOK):
        yield preferences._preferences(checkpoints, False, rankings[:many], players, going)


@pytest.mark.parametrize("going, most, least", [(True, 2, 0), (False, 20, 6)])
def test_whoever_looks_again_and_again_is_hardly_ever_told_of_a_favourite_among_equals(going, most, least):
    """Of 60 face-offs, five looks each; and how often, were each look taken for the last one."""
    told = sum(any(not each.level for each in looks([0.0, 0.0], seed, 60, going)) for seed in range(60))
    assert least <= told <= most


def test_among_equals_hardly_any_alarm_sounds_by_luck(monkeypatch):
    """Six pairs: two of these 200 sound it; with each pair by itself at 95, twelve would."""
    monkeypatch.setattr(preferences, "at_step", lambda run, step: 0.5 + step / 100)
    sounded = 0
    for seed in range(200):
        checkpoints, rankings, players = drawn([0.0] * 4, seed, 30)
        said = preferences._preferences(checkpoints, False, rankings, players)
        sounded += bool(preferences._alarm(Run(), [0, 1, 2, 3], said))
    assert sounded <= 5


@pytest.mark.parametrize("count, trials", [(2, 150), (3, 40)])
def test_among_equals_it_hardly_ever_stops_by_luck(count, trials):
    """Five looks at 99.7 of 100: some one of a hundred, where looks at 95 would stop fourteen."""
    assert sum(played([0.0] * count, seed) for seed in range(trials)) <= trials // 40


def test_a_clear_favourite_is_seen_well_before_the_end():
    many = power(2).quintets()
    assert sum(played([0.0, log(4)], seed, many) for seed in range(40)) >= 36
