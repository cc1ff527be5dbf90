"""A round as the backbone: which stage may begin when, what people decide between them, and the option that
launches stage after stage by itself."""

import pytest
from django.urls import reverse
from django.utils import timezone

from labeler import backbone
from labeler.models import (
    AuditEntry,
    Checkpoint,
    Evaluation,
    Faceoff,
    Gate,
    Place,
    Project,
    Prompt,
    Round,
    Run,
)
from labeler.models.rounds import RoundRefused
from labeler.round_stages import Backbone

pytestmark = pytest.mark.django_db
RANKS = [1, 2, 3, 4, 5]


@pytest.fixture
def ready(project) -> Project:
    """The project with all that its first rollouts need."""
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.keep_waiting = 0
    project.save()
    for number in range(8):
        Prompt.objects.create(project=project, content=f"Joke {number}, please.")
    return project


@pytest.fixture
def round(ready) -> Round:
    return Round.objects.current(ready)


def states(round: Round) -> dict[str, str]:
    return {each.name: each.state for each in Backbone(Round.objects.get(pk=round.pk)).stages}


def said(round: Round, name: str) -> str:
    return ". ".join(next(each for each in Backbone(round).stages if each.name == name).said)


def press(client, round: Round, name: str, **sent) -> str:
    address = reverse("round_go", args=[round.project.slug, round.number, name])
    return client.post(address, sent, follow=True).content.decode()


def newest(round: Round, kind: str) -> Run:
    return round.project.runs.filter(kind=kind, contenders=None).latest("pk")


def finish(run: Run, **result) -> Run:
    """As a worker does when its trainer has ended."""
    now = timezone.now()
    Run.objects.filter(pk=run.pk).update(
        state="finished", step=4, total=4, started_at=now, finished_at=now, result=result
    )
    run.refresh_from_db()
    return run


def sampled(round: Round, run: Run, count: int = 6) -> None:
    prompts = round.project.prompts.all()[:count]
    for number, prompt in enumerate(prompts):
        texts = [f"{prompt.content} {letter} {number}" for letter in "abcde"]
        round.quintets.model.objects.compose(
            round.project, round, prompt, texts, checkpoints=run.start, run=run, group=number
        )
    finish(run)


def rank(labeler, project, count: int) -> None:
    for _ in range(count):
        place = Place.objects.next_for(labeler, project)
        place.quintet.record_ranking(labeler, place, RANKS, place.key)


def judged(run: Run, accuracy: float = 0.73) -> Checkpoint:
    finish(run)
    fields = {"kind": "reward", "name": f"taste {run.pk}", "location": f"runs/{run.pk}/x", "step": 4}
    judge = run.checkpoints.create(project=run.project, suggested=True, **fields)
    found = {"accuracy": {"value": accuracy, "pairs": 240}, "people": {"value": 0.8}, "claims": []}
    Evaluation.objects.create(run=run, checkpoint=judge, found=found)
    return judge


def tuned(run: Run, *steps: int, **result) -> list[Checkpoint]:
    finish(run, **result)
    made = [
        run.checkpoints.create(project=run.project, name=f"step {step}", step=step, location=f"x/{step}")
        for step in steps
    ]
    Checkpoint.objects.filter(pk=made[0].pk).update(suggested=True)
    return made


def walk_to(stage: str, client, round: Round, labeler) -> None:
    """Through the round by its buttons, up to this stage."""
    press(client, round, "rollouts")
    sampled(round, newest(round, "rollouts"))
    if stage == "ranking":
        return
    rank(labeler, round.project, 6)
    if stage == "reward":
        return
    press(client, round, "reward")
    judged(newest(round, "reward"))
    if stage == "accept":
        return
    press(client, round, "reward", **{"pass": ""})
    press(client, round, "policy")
    tuned(newest(round, "policy"), 20, 40)


# Stage by stage


def test_a_new_round_offers_its_first_stage_alone(as_admin, round):
    assert list(states(round).values()) == ["next", "missing", "missing", "missing", "missing", "missing"]
    page = as_admin.get(reverse("rounds", args=[round.project.slug])).content.decode()
    assert "Sample rollouts" in page and "Train reward model</button>" not in page
    assert "Quintets to rank" in page and "A checkpoint that was shipped" in page


def test_what_is_missing_is_said_with_the_way_to_it(as_admin, project):
    round = Round.objects.current(project)
    assert said(round, "rollouts") == "A starting model"
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.save()
    assert said(Round.objects.get(pk=round.pk), "rollouts") == "Prompts to answer"


def test_a_stage_is_launched_once_however_often_its_button_is_pressed(as_admin, admin, round):
    press(as_admin, round, "rollouts")
    page = press(as_admin, round, "rollouts")
    run = round.project.runs.get()
    assert (run.kind, run.round, run.created_by) == ("rollouts", round, admin)
    assert "cannot be launched now" in page and states(round)["rollouts"] == "live"


def test_a_stage_out_of_turn_is_refused(as_admin, round):
    for name in ("reward", "policy", "faceoff", "next", "nothing"):
        press(as_admin, round, name)
    assert not round.project.runs.exists() and not Faceoff.objects.exists()


def test_a_person_says_when_enough_is_ranked(as_admin, admin, labeler, round):
    walk_to("ranking", as_admin, round, labeler)
    rank(labeler, round.project, 4)
    assert "5 rankings at least" in said(round, "ranking")
    press(as_admin, round, "ranking", **{"pass": ""})
    assert not Gate.objects.exists() and states(round)["reward"] == "missing"
    rank(labeler, round.project, 1)
    press(as_admin, round, "ranking", **{"pass": ""})
    assert (states(round)["ranking"], states(round)["reward"]) == ("done", "next")
    assert AuditEntry.objects.filter(action="gate passed", by=admin).count() == 1
    press(as_admin, round, "ranking", undo="")
    assert states(round)["reward"] == "missing"


def test_ranking_is_done_by_itself_once_every_place_is_filled(as_admin, labeler, round):
    walk_to("reward", as_admin, round, labeler)
    assert (states(round)["ranking"], states(round)["reward"]) == ("done", "next")


def test_what_a_reward_model_is_worth_is_said_before_somebody_accepts_it(as_admin, labeler, round):
    walk_to("accept", as_admin, round, labeler)
    told = said(round, "reward")
    assert "Right on 73 % of 240 held-out pairs" in told and "People agree with each other on 80 %" in told
    assert "Whether probes fool" in told
    assert (states(round)["reward"], states(round)["policy"]) == ("wait", "missing")
    press(as_admin, round, "reward", **{"pass": ""})
    assert states(round)["policy"] == "next"


def test_the_policy_is_tuned_against_the_reward_model_of_the_round(as_admin, labeler, round):
    walk_to("policy", as_admin, round, labeler)
    policy = newest(round, "policy")
    assert policy.reward_model.run == newest(round, "reward") and policy.round == round
    assert "no crop is suggested" in said(round, "policy")


def test_a_crop_is_told_before_people_are_asked_to_compare(as_admin, labeler, round):
    walk_to("accept", as_admin, round, labeler)
    press(as_admin, round, "reward", **{"pass": ""})
    press(as_admin, round, "policy")
    crop = {"step": 30, "rules": ["The KL is beyond 12."], "checkpoint": "checkpoints/step-000020"}
    tuned(newest(round, "policy"), 20, 40, crop=crop)
    assert "A crop is suggested at step 30: The KL is beyond 12. Before it lies step 20" in said(
        round, "policy"
    )


def test_the_face_off_is_between_the_start_what_is_proposed_and_the_last(as_admin, labeler, round):
    walk_to("policy", as_admin, round, labeler)
    press(as_admin, round, "policy", **{"pass": ""})
    press(as_admin, round, "faceoff")
    faceoff = Faceoff.objects.get()
    assert [each.name for each in faceoff.checkpoints] == ["Start", "step 20", "step 40"]
    assert faceoff.round == round and states(round)["faceoff"] == "live"


def test_the_next_round_begins_from_what_was_shipped(as_admin, admin, labeler, round):
    walk_to("policy", as_admin, round, labeler)
    press(as_admin, round, "policy", **{"pass": ""})
    press(as_admin, round, "faceoff")
    faceoff = Faceoff.objects.get()
    faceoff.stop(admin, "Enough.")
    assert (states(round)["faceoff"], states(round)["next"]) == ("wait", "missing")
    shipped = faceoff.checkpoints[1]
    faceoff.ship(shipped, admin)
    page = as_admin.get(reverse("rounds", args=[round.project.slug])).content.decode()
    assert "Close round 1 and begin the next" in page
    as_admin.post(reverse("round_close", args=[round.project.slug, 1]))
    second = Round.objects.current(round.project)
    page = press(as_admin, second, "rollouts")
    assert newest(second, "rollouts").start == shipped and newest(second, "rollouts").round == second
    assert "is shipped, by" in page


def test_what_came_to_nothing_is_said_and_can_be_launched_again(as_admin, round):
    press(as_admin, round, "rollouts")
    failed = newest(round, "rollouts")
    Run.objects.filter(pk=failed.pk).update(state="failed", reason="The start is gone.")
    assert states(round)["rollouts"] == "failed" and "The start is gone." in said(round, "rollouts")
    press(as_admin, round, "rollouts")
    assert newest(round, "rollouts") != failed and states(round)["rollouts"] == "live"


def test_nothing_is_launched_in_a_closed_round(as_admin, labeler, round):
    walk_to("reward", as_admin, round, labeler)
    round.close(None)
    page = press(as_admin, round, "reward")
    assert "Round 1 is closed." in page and not round.project.runs.filter(kind="reward").exists()


# The whole round


def whole(client, round: Round, **sent) -> Round:
    client.post(reverse("round_whole", args=[round.project.slug, round.number]), sent)
    return Round.objects.select_related("project", "whole_by").get(pk=round.pk)


def test_a_whole_round_launches_its_stages_and_waits_for_people(as_admin, admin, labeler, round):
    round = whole(as_admin, round)
    run = newest(round, "rollouts")
    assert run.created_by == admin
    backbone.attend()
    backbone.attend()
    assert round.project.runs.count() == 1
    sampled(round, run)
    backbone.attend()
    assert round.project.runs.count() == 1  # people rank first
    rank(labeler, round.project, 6)
    backbone.attend()
    backbone.attend()
    assert list(round.runs.order_by("pk").values_list("kind", flat=True)) == ["rollouts", "reward"]
    judged(newest(round, "reward"))
    backbone.attend()
    assert not round.runs.filter(kind="policy").exists()  # somebody looks at it first
    press(as_admin, round, "reward", **{"pass": ""})
    backbone.attend()
    policy = newest(round, "policy")
    tuned(policy, 20, 40)
    backbone.attend()
    backbone.attend()
    assert policy.harvests.count() == 1 and not Faceoff.objects.exists()
    press(as_admin, round, "policy", **{"pass": ""})
    backbone.attend()
    backbone.attend()
    assert Faceoff.objects.get().created_by == admin
    told = list(
        AuditEntry.objects.filter(action="stage launched").order_by("pk").values_list("words", flat=True)
    )
    assert len(told) == 4 and all(words.startswith("Round 1, by itself:") for words in told)


def test_a_whole_round_can_be_switched_off(as_admin, labeler, round):
    round = whole(as_admin, round)
    sampled(round, newest(round, "rollouts"))
    rank(labeler, round.project, 6)
    round = whole(as_admin, round, off="")
    backbone.attend()
    backbone.advance(round)
    assert not round.whole and round.project.runs.count() == 1
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"whole round on", "whole round off"} <= actions


def test_a_whole_round_ends_with_the_round(as_admin, admin, labeler, round):
    round = whole(as_admin, round)
    sampled(round, newest(round, "rollouts"))
    round.close(admin)
    backbone.attend()
    assert not Round.objects.get(pk=round.pk).whole and round.project.runs.count() == 1


def test_a_whole_round_stops_and_says_why_when_a_run_comes_to_nothing(as_admin, round):
    round = whole(as_admin, round)
    Run.objects.filter(pk=newest(round, "rollouts").pk).update(state="failed", reason="The start is gone.")
    backbone.attend()
    round.refresh_from_db()
    assert not round.whole and "The start is gone." in round.halted and round.project.runs.count() == 1
    page = as_admin.get(reverse("rounds", args=[round.project.slug])).content.decode()
    assert "The round does not go on by itself any more." in page and "The start is gone." in page


def test_a_whole_round_stops_where_a_launch_is_refused(as_admin, labeler, round):
    round = whole(as_admin, round)
    sampled(round, newest(round, "rollouts"))
    rank(labeler, round.project, 6)
    backbone.attend()
    judge = judged(newest(round, "reward"))
    told = {"name": "empty", "kind": "empty", "prompt": "p", "text": "", "reward": 1.0, "score": 0.9}
    told |= {"above_median": True, "above_at": 1, "prompts": 1}
    found = judge.evaluations.get()
    found.found["probes"] = {"median_real": 0.5, "probes": [told]}
    found.save()
    round.project.fooled = "refuse"
    round.project.save()
    press(as_admin, round, "reward", **{"pass": ""})
    backbone.attend()
    round.refresh_from_db()
    assert not round.whole and "refuses such a run" in round.halted
    assert not round.runs.filter(kind="policy").exists()


def test_a_round_without_a_start_halts_at_once(as_admin, project):
    round = whole(as_admin, Round.objects.current(project))
    assert not round.whole and "a starting model" in round.halted


def test_a_whole_round_stops_when_who_switched_it_on_may_not_any_more(as_admin, admin, round, labeler):
    """Whoever is no admin any more, or cannot sign in, launches nothing by having launched once."""
    membership = round.project.memberships.get(user=labeler)
    membership.role = "admin"
    membership.save()
    round.run_whole(labeler, True)
    membership.role = "labeler"
    membership.save()
    backbone.advance(round)
    round.refresh_from_db()
    assert not round.project.runs.exists() and not round.whole
    assert round.halted == "lena, who switched it on, does not run this project any more."
    round.run_whole(admin, True)
    admin.is_active = False
    admin.save()
    backbone.attend()
    round.refresh_from_db()
    assert not round.project.runs.exists() and round.halted.startswith("ada, who switched it on")
    assert AuditEntry.objects.filter(action="whole round halted").count() == 2


def test_of_two_who_switch_it_on_the_first_is_the_one_who_did(as_admin, admin, round, labeler):
    """The second had the page open from before."""
    stale = Round.objects.get(pk=round.pk)
    round.run_whole(admin, True)
    stale.run_whole(labeler, True)
    assert Round.objects.get(pk=round.pk).whole_by == admin
    assert AuditEntry.objects.filter(action="whole round on").count() == 1


def test_a_round_that_was_closed_meanwhile_is_not_switched_on(admin, labeler, round):
    rolled = Round.objects.get(pk=round.pk)
    sampled(round, round.project.runs.create(kind="rollouts", start=round.project.start, round=round))
    round.close(admin)
    with pytest.raises(RoundRefused, match="Round 1 is closed"):
        rolled.run_whole(admin, True)
    assert not Round.objects.get(pk=round.pk).whole


def test_a_decision_stands_once_something_was_made_of_it_or_its_round_is_closed(
    as_admin, admin, labeler, round
):
    walk_to("ranking", as_admin, round, labeler)
    rank(labeler, round.project, 5)
    press(as_admin, round, "ranking", **{"pass": ""})
    assert states(round)["ranking"] == "done" and Gate.objects.filter(stage="ranking").exists()
    press(as_admin, round, "ranking", undo="")
    assert states(round)["ranking"] == "wait" and not Gate.objects.exists()
    press(as_admin, round, "ranking", **{"pass": ""})
    press(as_admin, round, "reward")
    assert "something was made already" in press(as_admin, round, "ranking", undo="")
    assert Gate.objects.filter(stage="ranking").exists()
    newest(round, "reward").delete()
    round.close(admin)
    assert "Round 1 is closed" in press(as_admin, round, "ranking", undo="")
    assert Gate.objects.filter(stage="ranking").exists()


def test_what_fooled_a_reward_model_is_offered_only_where_there_was_one(as_admin, labeler, round):
    walk_to("policy", as_admin, round, labeler)

    def links() -> list[str]:
        return [words for each in Backbone(Round.objects.get(pk=round.pk)).stages for words, _ in each.links]

    assert "What it found to fool the reward model" in links()
    Run.objects.filter(kind="policy").update(reward_model=None)
    assert "What it found to fool the reward model" not in links()
