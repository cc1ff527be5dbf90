"""Agreement with people: margins, accuracy, τ and calibration by hand."""

import itertools
import json
import math
import random

import pytest
import torch

from rlhf import checkpoint, data, ensemble, evaluate
from rlhf.data import Ranking
from rlhf.evaluate import Measured, accuracy, calibration_error, fit_tau, nll
from rlhf.reward_model import RewardModel
from tests.rlhf import tiny


def margins(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_margins_are_of_untied_pairs_the_better_minus_the_worse():
    measured = Measured([[3.0, 1.0, 0.5]], [Ranking("p", ("a", "b", "c"), (1, 2, 2))])
    assert sorted(measured.margins.tolist()) == [2.0, 2.5]


def test_accuracy_counts_equal_rewards_as_half_right():
    assert accuracy(margins(1, 2, -1, 0)) == 0.625
    assert accuracy(margins()) is None


def test_nll_of_a_coin_is_ln_2():
    assert nll(margins(0, 0), 1.0) == pytest.approx(math.log(2))
    assert nll(margins(math.log(3)), 1.0) == pytest.approx(math.log(4 / 3))
    assert nll(margins(), 1.0) is None


def test_tau_is_that_of_the_least_surprise():
    # Right on three of four pairs of margin 1: σ(1/τ) must be .75.
    assert fit_tau(margins(1, 1, 1, -1)) == pytest.approx(1 / math.log(3), rel=1e-6)
    assert fit_tau(margins(2, 2, 2, -2)) == pytest.approx(2 / math.log(3), rel=1e-6)


def test_no_tau_beats_the_fitted_one():
    found = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    best = fit_tau(found)
    assert all(nll(found, best) <= nll(found, best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_tau_stays_in_bounds_where_the_pairs_say_nothing_about_it():
    assert fit_tau(margins()) == 1.0
    assert fit_tau(margins(0, 0)) == 1.0
    assert fit_tau(margins(1, 2, 3)) == pytest.approx(0.1 * 2)
    assert fit_tau(margins(-1, -3)) == pytest.approx(10 * 2)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_size_of_rewards_is_taken_out_of_the_score_however_small_or_large(size):
    """The head of a run of few steps says hundredths, one of a wide margin hundreds: an order is an order."""
    assert fit_tau(margins(*[size * each for each in (1, 1, 1, -1)])) == pytest.approx(size / math.log(3))


def test_calibration_error_is_the_gap_between_sure_and_right():
    sure = math.log(4)  # σ = .8
    assert calibration_error(margins(sure, sure, sure, sure, -sure), 1.0) == pytest.approx(0)
    assert calibration_error(margins(sure, sure, -sure, -sure), 1.0) == pytest.approx(0.3)
    assert calibration_error(margins(), 1.0) is None


def test_calibration_errors_of_different_certainty_do_not_cancel():
    half, nine = math.log(1.2), math.log(9)  # σ = 6/11 and .9
    found = margins(*[half] * 4, *[nine] * 4, *[-nine] * 4)
    # Four of a certainty of 6/11 are all right; of eight of a certainty of .9 only half are.
    assert calibration_error(found, 1.0) == pytest.approx((4 * (1 - 6 / 11) + 8 * 0.4) / 12)
    assert calibration_error(2 * found, 2.0) == pytest.approx(calibration_error(found, 1.0))


def test_the_loss_is_of_the_rankings_that_say_anything():
    rankings = [Ranking("p", ("a", "b"), (1, 2)), Ranking("p", ("a", "b"), (1, 1))]
    measured = Measured([[0.0, 0.0], [5.0, -5.0]], rankings)
    assert measured.loss() == pytest.approx(math.log(2))
    assert Measured([], []).loss() is None


def test_the_pairs_of_each_labeler_are_those_of_a_slow_count():
    chances = random.Random(3)
    rankings = [
        Ranking(
            "p", tuple("abcde"), tuple(chances.choices((1, 2, 3), k=5)), chances.choice(["ada", "lena", ""])
        )
        for _ in range(40)
    ]
    rewards = [[float(chances.randrange(4)) for _ in range(5)] for _ in rankings]
    slow: dict[str, list[float]] = {}
    for row, ranking in zip(rewards, rankings, strict=True):
        for one, other in itertools.combinations(range(5), 2):
            if ranking.labeler and ranking.ranks[one] != ranking.ranks[other]:
                if ranking.ranks[one] > ranking.ranks[other]:
                    one, other = other, one
                right = 1 if row[one] > row[other] else 0.5 if row[one] == row[other] else 0
                slow.setdefault(ranking.labeler, []).append(right)
    found = Measured(rewards, rankings).right_by(evaluate.by_labeler)
    assert list(found) == ["ada", "lena"]
    for name, told in slow.items():
        assert (found[name]["right"], found[name]["pairs"]) == (sum(told), len(told))


def test_the_error_of_a_share_is_the_binomial_one_where_each_ranking_is_a_pair():
    one_pair = [Ranking("p", ("a", "b"), (1, 2), "ada")] * 10
    found = Measured([[1.0, 0.0]] * 7 + [[0.0, 1.0]] * 3, one_pair).right_by(evaluate.by_labeler)["ada"]
    assert found == {"right": 7, "pairs": 10, "error": pytest.approx(math.sqrt(0.7 * 0.3 / 9))}


def test_the_error_of_a_share_counts_rankings_and_not_their_pairs():
    """Ten pairs that are right or wrong together say as much as one."""
    together = [Ranking("p", tuple("abcde"), (1, 2, 3, 4, 5), "ada")] * 10
    rows = [[5.0, 4.0, 3.0, 2.0, 1.0]] * 7 + [[1.0, 2.0, 3.0, 4.0, 5.0]] * 3
    found = Measured(rows, together).right_by(evaluate.by_labeler)["ada"]
    assert found == {"right": 70, "pairs": 100, "error": pytest.approx(math.sqrt(0.7 * 0.3 / 9))}


def test_the_arms_are_told_apart_where_lines_name_them():
    named = Ranking("p", ("a", "b"), (1, 2), "ada", extra={"arm": "random"})
    measured = Measured(
        [[1.0, 0.0]] * 3, [named, Ranking("p", ("a", "b"), (1, 2)), Ranking("p", ("a", "b"), (1, 1))]
    )
    assert measured.right_by(evaluate.by_arm) == {"random": {"right": 1, "pairs": 1, "error": 0}}


def test_empty_places_are_rank_zero():
    rankings = [Ranking("p", ("a", "b"), (2, 1)), Ranking("p", ("a", "b", "c"), (1, 1, 2))]
    assert evaluate.ranks_of(rankings, 3).tolist() == [[2, 1, 0], [1, 1, 2]]


def split(*halves):
    """Two-rollout rankings whose margins are given by half; the prompts' digests tell which half they are."""
    prompts = sorted((f"prompt {number}" for number in range(8)), key=data.prompt_digest)
    told = [
        (margin, Ranking(prompts[number % 4 * 2 + half], ("a", "b"), (1, 2)))
        for half, margins in enumerate(halves)
        for number, margin in enumerate(margins)
    ]
    return Measured([[margin, 0.0] for margin, _ in told], [ranking for _, ranking in told])


def test_each_half_of_the_prompts_is_judged_with_the_tau_of_the_other():
    # By themselves the halves ask for 1 / ln 3 and for 2 / ln 3.
    measured = split([1, 1, 1, -1], [2, 2, 2, -2])
    others = evaluate.taus_of_others(measured)
    assert others.tolist() == pytest.approx([2 / math.log(3)] * 4 + [1 / math.log(3)] * 4, rel=1e-6)
    found = evaluate.calibration(measured, 1.5, fitted_here=True)
    scaled = [margin * math.log(3) / 2 for margin in (1, 1, 1, -1)] + [
        margin * math.log(3) for margin in (2, 2, 2, -2)
    ]
    by_hand = sum(math.log(1 + math.exp(-each)) for each in scaled) / 8
    assert (found["nll"], found["tau"], found["tau_of"]) == (pytest.approx(by_hand), 1.5, "other prompts")
    own = evaluate.nll(measured.margins, fit_tau(measured.margins))
    assert found["nll"] > own  # what it was fitted on would flatter it


def test_one_prompt_has_no_other_half_and_that_is_told():
    measured = Measured([[1.0, 0.0]] * 3, [Ranking("p", ("a", "b"), (1, 2))] * 3)
    assert evaluate.taus_of_others(measured) is None
    found = evaluate.calibration(measured, 2.0, fitted_here=True)
    assert (found["tau_of"], found["nll"]) == ("the same pairs", pytest.approx(math.log(1 + math.exp(-0.5))))


def test_a_tau_from_elsewhere_is_taken_as_it_is():
    measured = split([1, 1, 1, -1], [2, 2, 2, -2])
    found = evaluate.calibration(measured, 2.0, fitted_here=False)
    assert (found["tau_of"], found["nll"]) == ("elsewhere", pytest.approx(nll(measured.margins, 2.0)))
    assert (found["nll_raw"], found["ece_raw"]) == (
        nll(measured.margins, 1.0), calibration_error(measured.margins, 1.0)
    )  # fmt: skip
    assert evaluate.calibration(Measured([], []), 1.0, True)["tau_of"] == "nothing"


def test_reliability_is_how_often_right_by_how_sure():
    low, high = math.log(1.2), math.log(9)  # σ = 6/11 and .9
    found = evaluate.reliability(margins(low, -low, low, high, high, high, -high), 1.0)
    assert found == [
        {"sure": pytest.approx(6 / 11), "right": pytest.approx(2 / 3), "pairs": 3},
        {"sure": pytest.approx(0.9), "right": 0.75, "pairs": 4},
    ]
    assert evaluate.reliability(margins(), 1.0) == []


@pytest.fixture
def judge(policy_folder):
    return RewardModel(*checkpoint.start_reward_model(policy_folder, 0), mu=0.1, tau=0.7)


def test_an_evaluation_is_plain_numbers_of_the_models_own_rewards(judge, tmp_path):
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 12))
    found = evaluate.evaluate(judge, rankings, trained_on=False)
    rewards = [
        [judge.rewards_of([judge.encode(each.prompt, [text])])[0][0] for text in each.rollouts]
        for each in rankings
    ]
    assert found["accuracy"]["value"] == pytest.approx(accuracy(Measured(rewards, rankings).margins))
    assert found["nll"] == pytest.approx(nll(Measured(rewards, rankings).margins, 0.7), abs=1e-4)
    for told in found["quintets"]:
        assert told["rewards"] == pytest.approx(rewards[told["index"]], abs=1e-4)
        assert told["scores"] == pytest.approx([judge.score(each) for each in told["rewards"]])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    numbers = evaluate.numbers(found)
    assert numbers["accuracy"] == found["accuracy"]["value"] and "quintets" not in numbers
    assert numbers["by_labeler"] == Measured(rewards, rankings).right_by(evaluate.by_labeler)


def test_two_models_are_compared_on_the_same_rankings(judge, policy_folder, tmp_path):
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 12))
    model, words = checkpoint.start_reward_model(policy_folder, 0)
    model.score.weight.data.neg_()
    turned = RewardModel(model, words)
    found = evaluate.compare(judge, turned, rankings)
    alone = evaluate.evaluate(judge, rankings)["accuracy"]
    assert found["first"] == alone
    assert found["second"]["value"] == pytest.approx(1 - alone["value"])
    assert found["difference"] == pytest.approx(2 * alone["value"] - 1)
    assert evaluate.compare(judge, judge, rankings)["p"] == 1


def test_what_the_members_of_an_ensemble_say_stands_beside_what_they_say_together(policy_folder, tmp_path):
    model, words = checkpoint.start_reward_model(policy_folder, 0)
    ensemble.add(model, policy_folder, 3, 0)
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 6))
    for told in evaluate.evaluate(RewardModel(model, words, penalty=0.5), rankings)["quintets"]:
        members = torch.tensor(told["members"])
        assert members.shape == (3, len(told["rollouts"]))
        expected = members.mean(0) - 0.5 * members.std(0, correction=0)
        assert told["rewards"] == pytest.approx(expected.tolist(), abs=1e-5)
