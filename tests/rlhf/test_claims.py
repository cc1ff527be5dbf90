"""What a reward model may say of itself, sentence by sentence, and the table beside it."""

import pytest

from rlhf import claims, evaluate, judgement, learning_curve
from rlhf.data import Ranking
from rlhf.evaluate import Measured, calibration

BETTER, WORSE = [1.0, 0.0], [0.0, 1.0]


def found(rewards, rankings, fitted_here=False, **more):
    """An evaluation of these rewards, without a model."""
    told = judgement.judge(rewards, rankings, lambda reward: 0.5)
    told |= calibration(Measured(rewards, rankings), 1.0, fitted_here)
    told |= {"mu": 0.0, "loss": None, "prompts_cut": 0, "rollouts_cut": 0} | more
    return told | {"claims": claims.of(told)}


def rankings(count, labelers=2, prompts=None, **more):
    return [
        Ranking(f"prompt {n % (prompts or count)}", ("a", "b"), (1, 2), f"labeler {n % labelers}", **more)
        for n in range(count)
    ]


def said(*arguments, **more):
    return " ".join(found(*arguments, **more)["claims"])


def test_a_sound_model_on_many_rankings_has_one_thing_to_say():
    told = found([BETTER] * 36 + [WORSE] * 4, rankings(40))["claims"]
    assert len(told) == 1
    assert told[0].startswith(
        "It orders 90.0% of 40 pairs as the rankings do; at 95 % the share lies between"
    )
    assert told[0].endswith("better than a coin.")


@pytest.mark.parametrize(
    ("right", "words"),
    [(21, "cannot be told from a coin"), (4, "worse than a coin"), (36, "better than a coin")],
)
def test_it_says_whether_it_can_be_told_from_a_coin(right, words):
    assert words in said([BETTER] * right + [WORSE] * (40 - right), rankings(40))


def test_with_nothing_held_out_it_claims_nothing():
    assert said([], []).startswith("Nothing was held out")
    assert "Nothing was held out" not in said([BETTER] * 40, rankings(40))


def test_with_only_equals_held_out_it_claims_nothing():
    told = said([BETTER], [Ranking("p", ("a", "b"), (1, 1), "ann")])
    assert told.startswith("No ranking held out says that one rollout is better than another")
    assert "kept and counted but not used: 1." in told


def test_one_prompt_alone_has_no_interval_to_claim():
    assert "all of one prompt" in said([BETTER] * 40, rankings(40, prompts=1))


def test_one_labeler_is_no_people():
    assert "All rankings are by one labeler" in said([BETTER] * 40, rankings(40, labelers=1))
    assert "one labeler" not in said([BETTER] * 40, rankings(40))


def test_the_labelers_are_those_of_the_whole_dataset_where_a_run_tells_it():
    dataset = {"rankings": 200, "all_tied": 3, "labelers": 2, "simulated": 0}
    told = said([BETTER] * 12, rankings(12, labelers=1), dataset=dataset)
    assert "one labeler" not in told
    assert "kept and counted but not used: 3." in told
    assert "Only 12 rankings were held out" in told and "too few to claim" not in told


def test_fewer_than_twenty_rankings_are_too_few():
    assert "Only 19 rankings say anything, fewer than 20" in said([BETTER] * 19, rankings(19))
    assert "Only" not in said([BETTER] * 20, rankings(20))


def test_few_prompts_are_told():
    assert "rests on 9 prompts" in said([BETTER] * 36, rankings(36, prompts=9))
    assert "rests on" not in said([BETTER] * 40, rankings(40, prompts=10))


def test_simulated_rankings_are_never_people():
    assert "All rankings are simulated" in said([BETTER] * 40, rankings(40, simulated=True))
    mixed = rankings(20, simulated=True) + rankings(20)
    assert "20 of 40 rankings are simulated." in said([BETTER] * 40, mixed)


def test_it_tells_on_which_pairs_tau_was_fitted():
    assert "other half of the held-out prompts" in said([BETTER] * 40, rankings(40), True)
    assert "fitted on the pairs it is judged on" in said([BETTER] * 40, rankings(40, prompts=1), True)
    assert "fitted" not in said([BETTER] * 40, rankings(40))


def test_what_it_learnt_from_is_memory():
    assert "trained on this very file" in said([BETTER] * 40, rankings(40), trained_on=True)
    assert "trained on" not in said([BETTER] * 40, rankings(40), trained_on=False)


def test_a_model_that_rewards_length_is_told_so():
    short_won = [Ranking(f"p{n}", ("a", "bbb"), (1, 2), f"labeler {n % 2}") for n in range(40)]
    long_won = [Ranking(f"p{n}", ("aaa", "b"), (1, 2), f"labeler {n % 2}") for n in range(40)]
    by_length = said([WORSE] * 40 + [BETTER] * 40, [*short_won, *long_won])
    assert "Where the shorter one won it is right on only 0.0%: it rewards length." in by_length
    assert "length" not in said([BETTER] * 80, [*short_won, *long_won])


def test_cut_rollouts_and_holes_are_told():
    assert "judged by their beginning: 3." in said([BETTER] * 40, rankings(40), rollouts_cut=3)
    hole = {"above": 1, "worst": "empty", "probes": [{}] * 8, "median_real": 0.5}
    assert "1 of 8 probes above the median real rollout, “empty” the highest" in said(
        [BETTER] * 40, rankings(40), probes=hole
    )
    assert "probes" not in said([BETTER] * 40, rankings(40), probes=hole | {"above": 0})


def test_what_was_left_out_and_what_nobody_knows_is_told():
    rewards, lines = [BETTER] * 30, rankings(30)
    told = said(rewards, lines, unseen={"left_out": 1234, "known": [True]})
    assert "Left out, because their prompts were trained on: 1,234 rankings." in told
    assert "not known" not in told
    for known, words in (([False], "What it was"), ([True, False], "What one of the two was")):
        told = said(rewards, lines, unseen={"left_out": 0, "known": known})
        assert f"{words} trained on is not known" in told and "Left out" not in told


def curve(*shares, apart=0.008, ceiling=None):
    """An evaluation whose learning curve has these shares after 10, 20, … rankings; told are, on the same
    pairs, differences to the end to as much as `apart`; either share by itself is told to ± .2."""
    points = [
        {
            "rankings": 10 * n,
            "accuracy": {"value": share, "low": share - 0.2, "high": share + 0.2},
            "ahead": {"low": shares[-1] - share - apart, "high": shares[-1] - share + apart},
        }
        for n, share in enumerate(shares, start=1)
    ]
    points[-1].pop("ahead")
    return {"learning_curve": points, "people": {"ceiling": ceiling}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (curve(0.5, 0.66, 0.68, 0.7), "More labels would probably help: with 20 rankings"),
        (curve(0.5, 0.66, 0.68, 0.7, apart=0.05), "cannot be told"),
        (curve(0.5, 0.66, 0.68, 0.7, apart=0.05), "the second is ahead by -1 to +9 points"),
        (curve(0.5, 0.69, 0.7, 0.7), "would hardly help"),
        (curve(0.5, 0.69, 0.7, 0.7, apart=0.005), "would hardly help"),
        (curve(0.5, 0.8, 0.7, 0.7), "did not help"),
        (curve(0.5, 0.6, 0.65, 0.7, ceiling=0.69), "More people on each quintet might"),
        (curve(0.7), "cannot be said"),
    ],
)
def test_whether_more_labels_would_help_is_a_sentence(found, words):
    assert words in claims.more_labels(found)


def test_what_both_models_have_right_does_not_hide_that_one_is_better():
    """Forty prompts that both get right of 60, and 8 that only the end does: either share is told to ± 10
    points and more, their difference is told from none."""
    lines = rankings(60)
    half = judgement.judge([BETTER] * 40 + [WORSE] * 20, lines, lambda reward: reward)
    end = judgement.judge([BETTER] * 48 + [WORSE] * 12, lines, lambda reward: reward)
    whole = end | {"dataset": {"trained_on": 100}}
    part = {"rankings": 50} | {name: half[name] for name in ("accuracy", "quintets")}
    told = whole | {"learning_curve": learning_curve.together([part], whole)}
    assert end["accuracy"]["low"] < half["accuracy"]["value"] + 0.05
    assert told["learning_curve"][0]["ahead"]["difference"] == pytest.approx(8 / 60)
    assert 0.03 < told["learning_curve"][0]["ahead"]["low"] < 8 / 60
    assert claims.more_labels(told).startswith("More labels would probably help: with 50 rankings")
    assert "quintets" not in told["learning_curve"][0]


def compared(*rewards):
    lines = rankings(len(rewards[0]))
    return judgement.compare(*(judgement.quintets(each, lines, lambda reward: reward) for each in rewards))


def test_a_difference_is_told_from_chance_or_said_not_to_be():
    better = claims.compared(compared([BETTER] * 30, [BETTER] * 15 + [WORSE] * 15))
    assert better[0] == "Of 30 pairs the first orders 100.0%, the second 50.0% as the rankings do."
    assert better[1].startswith("The first is better, and that can be told from chance")
    assert "in fewer than 1 of 1,000 tries" in better[1]
    turned = claims.compared(compared([BETTER] * 15 + [WORSE] * 15, [BETTER] * 30))
    assert turned[1].startswith("The second is better")
    few = " ".join(claims.compared(compared([BETTER] * 30, [BETTER] * 27 + [WORSE] * 3)))
    assert "cannot be told from chance: if neither were better" in few and "in about 25 of 100 tries" in few
    assert "They differ on 3 prompts only; under 6 no difference could be told." in few


def test_two_models_that_are_as_often_right_on_every_prompt_have_no_difference():
    told = claims.compared(compared([BETTER] * 30, [[9.0, 1.0]] * 30))
    assert told[-1].endswith("there is no difference to tell.") and len(told) == 2
    assert "nothing can be said" in claims.compared(compared([], []))[0]


def test_the_table_shows_every_number_and_every_claim():
    told = found([BETTER] * 30 + [WORSE] * 10, rankings(40))
    told["against"] = judgement.compare(told["quintets"], told["quintets"])
    told["probes"] = {
        "median_real": 0.5, "worst": "empty", "above": 1,
        "probes": [{"name": "empty", "score": 0.7, "above_median": True}],
    }  # fmt: skip
    lines = claims.table(told).splitlines()
    shown = {line[:26].strip(): line[26:].strip() for line in lines}
    assert shown["accuracy"].startswith("75.0%  (") and shown["accuracy"].endswith("40 pairs")
    assert shown["by labeler labeler 0"].startswith("75.0%") and shown["by gap 1"] == shown["accuracy"]
    assert (
        shown["nll"] == f"{evaluate.nll(Measured([BETTER] * 30 + [WORSE] * 10, rankings(40)).margins, 1):.4g}"
    )
    assert shown["probe empty"] == "score 0.7 ABOVE"
    assert shown["difference"].startswith("+0.000") and shown["p (flips, sign test)"] == "1, 1"
    assert shown["shorter won"] == "–"
    assert all(claim in lines for claim in told["claims"])


def test_the_table_of_nothing_is_a_table():
    assert claims.table(found([], [])).startswith("accuracy                   –\n")
