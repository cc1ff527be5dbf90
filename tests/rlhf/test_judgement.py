"""What counting tells of a reward model: by hand where few numbers are enough, by slow counts elsewhere."""

import itertools
import random

import pytest
from scipy import stats

from rlhf import intervals, judgement
from rlhf.data import Ranking

PROMPTS = ("p", "q", [{"role": "user", "content": "p"}], "r", "s")


def plain(reward):
    return reward / 10


def some(count=60, seed=0):
    """Rankings of two to five rollouts of several lengths, with ties, by three labelers; and rewards."""
    chances = random.Random(seed)
    rankings, rewards = [], []
    for number in range(count):
        places = chances.randint(2, 5)
        rollouts = tuple("x" * chances.randint(1, 9) for _ in range(places))
        ranks = tuple(chances.randint(1, 4) for _ in range(places))
        labeler = ("ann", "ben", "")[number % 3]
        extra = {"arm": "random"} if number % 2 else {}
        rankings.append(Ranking(PROMPTS[number % 5], rollouts, ranks, labeler, str(number), extra=extra))
        rewards.append([float(chances.randrange(6)) for _ in range(places)])
    return rewards, rankings


def slowly(rewards, rankings):
    """Every pair as (ranking, right, gap, by how much the better one is longer), one by one."""
    for row, ranking in zip(rewards, rankings, strict=True):
        for one, other in itertools.combinations(range(len(row)), 2):
            if ranking.ranks[one] == ranking.ranks[other]:
                continue
            better, worse = (one, other) if ranking.ranks[one] < ranking.ranks[other] else (other, one)
            right = 1 if row[better] > row[worse] else 0 if row[better] < row[worse] else 0.5
            longer = len(ranking.rollouts[better]) - len(ranking.rollouts[worse])
            yield ranking, right, ranking.ranks[worse] - ranking.ranks[better], longer


def shares(told):
    """Right and pairs, by name."""
    found = {}
    for name, right in told:
        found.setdefault(name, []).append(right)
    return {name: (pytest.approx(sum(each) / len(each)), len(each)) for name, each in found.items()}


def short(found):
    return {name: (each["value"], each["pairs"]) for name, each in found.items()}


def test_accuracy_is_told_apart_as_a_slow_count_tells_it():
    rewards, rankings = some()
    found, pairs = judgement.judge(rewards, rankings, plain), list(slowly(rewards, rankings))
    assert short({"": found["accuracy"]}) == shares(("", right) for _, right, _, _ in pairs)
    assert short(found["by_gap"]) == shares((str(gap), right) for _, right, gap, _ in pairs)
    assert short(found["by_labeler"]) == shares(
        (each.labeler, right) for each, right, _, _ in pairs if each.labeler
    )
    assert short(found["by_arm"]) == shares(("random", right) for each, right, _, _ in pairs if each.extra)
    assert short({"": found["shorter_won"]}) == shares(("", r) for _, r, _, longer in pairs if longer < 0)
    assert short({"": found["longer_won"]}) == shares(("", r) for _, r, _, longer in pairs if longer > 0)


def test_the_same_prompt_in_either_of_its_forms_is_one_prompt():
    found = judgement.judge(*some(), plain)
    assert found["accuracy"]["prompts"] == 4


def test_parts_by_length_hold_every_pair_once_and_equal_differences_together():
    rewards, rankings = some(80)
    pairs = list(slowly(rewards, rankings))
    parts = judgement.judge(rewards, rankings, plain)["by_length"]
    assert 3 <= len(parts) <= 5 and sum(part["pairs"] for part in parts) == len(pairs)
    ends = [end for part in parts for end in part["difference"]]
    assert ends == sorted(ends)
    for part, after in itertools.pairwise(parts):
        assert part["difference"][1] < after["difference"][0]
    for part in parts:
        low, high = part["difference"]
        assert shares(("", right) for _, right, _, longer in pairs if low <= longer <= high) == short(
            {"": part}
        )


def test_rankings_of_equals_are_kept_counted_and_not_used():
    equal, told = Ranking("p", ("a", "b"), (1, 1), "ann"), Ranking("p", ("a", "b"), (1, 2), "ann")
    found = judgement.judge([[0.0, 9.0], [1.0, 0.0]], [equal, told], plain)
    assert (found["rankings"], found["all_tied"], found["accuracy"]["pairs"]) == (2, 1, 1)
    assert [each["index"] for each in found["quintets"]] == [1]


def test_nothing_at_all_is_told_without_a_number():
    found = judgement.judge([], [], plain)
    assert (found["accuracy"]["value"], found["accuracy"]["pairs"], found["by_length"]) == (None, 0, [])
    assert found["length_correlation"]["value"] is found["people"]["value"] is None
    assert found["quintets"] == []


def test_the_reward_goes_with_the_length_within_each_quintet():
    rollouts = ("a", "bb", "ccc", "dddd")
    rankings = [Ranking("p", rollouts, (1, 2, 3, 4)), Ranking("q", rollouts, (4, 3, 2, 1))]
    # Between quintets the reward differs by a hundred; that is not the length's doing.
    found = judgement.length_correlation([[1, 2, 3, 4], [101, 101, 101, 109]], rankings)
    other = stats.pearsonr([1, 2, 3, 4], [101, 101, 101, 109]).statistic
    assert found["value"] == pytest.approx((1 + other) / 2)
    ranked = stats.spearmanr([1, 2, 3, 4], [101, 101, 101, 109]).statistic
    assert found["spearman"]["value"] == pytest.approx((1 + ranked) / 2)
    assert found["people"]["value"] == pytest.approx(0)  # one likes them short, the other long
    assert found["quintets"] == 2


def test_a_quintet_that_three_people_ranked_is_one_for_the_length():
    many = [Ranking("p", ("a", "bb"), (1, 2), name) for name in ("ann", "ben", "cy")]
    rewards = [[0, 1]] * 3 + [[1, 0]]
    found = judgement.length_correlation(rewards, [*many, Ranking("q", ("a", "bb"), (1, 2), "ann")])
    assert (found["value"], found["quintets"]) == (0, 2)


def test_people_agree_where_two_of_them_order_a_pair_alike():
    rankings = [
        Ranking("p", ("a", "b", "c"), (1, 2, 3), "ann"),
        Ranking("p", ("a", "b", "c"), (1, 3, 2), "ben"),
        Ranking("p", ("a", "b", "c"), (1, 1, 2), "cy"),
        Ranking("p", ("a", "b", "c"), (3, 2, 1), "ann"),  # her own change of mind is no disagreement of two
        Ranking("p", ("x", "y", "z"), (3, 2, 1), "ben"),  # another quintet of that prompt
    ]
    # ann–ben: ab ac alike, bc not. ann–cy: ac bc alike. ben–cy: ac alike, bc not. ann's second: with ben ab
    # ac not, bc alike; with cy ac bc not.
    found = judgement.people(rankings)
    alike, apart = 2 + 2 + 1 + 1, 1 + 1 + 2 + 2
    assert (found["value"], found["pairs"]) == (alike / (alike + apart), alike + apart)


def test_the_ceiling_is_how_often_two_who_agree_so_often_are_right():
    def ceiling(alike, apart):
        turned = [Ranking(str(n), ("a", "b"), (1, 2), "ann") for n in range(alike + apart)]
        turned += [
            Ranking(str(n), ("a", "b"), (1, 2) if n < alike else (2, 1), "ben") for n in range(alike + apart)
        ]
        return judgement.people(turned)["ceiling"]

    right = ceiling(62, 38)
    assert right**2 + (1 - right) ** 2 == pytest.approx(0.62)
    assert ceiling(4, 6) is None


def test_the_quintets_stand_with_the_worst_disagreement_first():
    rollouts = ("a", "b", "c")
    rankings = [
        Ranking("p", rollouts, (1, 2, 3), "ann", "7"),
        Ranking("p", rollouts, (3, 2, 1), "ben", "7", simulated=True),
        Ranking("q", rollouts, (1, 2, 2), "ann", "8"),
        Ranking("q", rollouts, (1, 2, 3), "ann", "9"),
    ]
    rewards = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]]
    found = judgement.quintets(rewards, rankings, plain)
    assert [each["index"] for each in found] == [1, 3, 2, 0]
    by_index = {each["index"]: each["disagreement"] for each in found}
    assert by_index == {1: 2, 3: 1, 2: pytest.approx(1 - 2 / 6**0.5), 0: 0}
    assert (found[0]["ranks"], found[0]["scores"]) == ([3, 2, 1], [0.3, 0.2, 0.1])
    assert (found[0]["labeler"], found[0]["quintet"], found[0]["simulated"]) == ("ben", "7", True)
    assert "members" not in found[0]


def test_the_members_of_an_ensemble_stand_with_their_quintet():
    rankings = [Ranking("p", ("a", "b"), (1, 2)), Ranking("q", ("a", "b"), (1, 2))]
    members = [[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]]
    found = judgement.quintets([[1.5, 0.0], [0.0, 2.0]], rankings, plain, members)
    assert [each["members"] for each in found] == [members[1], members[0]]


def test_two_models_are_compared_on_what_both_were_measured_on():
    rewards, rankings = some(40)
    others = [[-reward for reward in row] for row in rewards]
    first = judgement.quintets(rewards[:30], rankings[:30], plain)
    second = judgement.quintets(others[10:], rankings[10:], plain)
    found = judgement.compare(first, second)
    telling = [ranking.teaches for ranking in rankings]
    assert found["rankings"] == sum(telling[10:30])
    assert found["alone"] == [sum(telling[:10]), sum(telling[30:])]
    pairs = [(right, str(each.prompt)) for each, right, _, _ in slowly(rewards[10:30], rankings[10:30])]
    expected = sum(2 * right - 1 for right, _ in pairs) / len(
        pairs
    )  # what the one has right the other has not
    assert found["difference"] == pytest.approx(expected)
    assert found["first"]["value"] + found["second"]["value"] == pytest.approx(1)
    swapped = judgement.compare(second, first)
    assert swapped["difference"] == pytest.approx(-found["difference"])
    assert (swapped["p"], swapped["p_sign"]) == (found["p"], found["p_sign"])


def test_where_two_models_differ_stands_with_the_widest_difference_first():
    rollouts = ("a", "b", "c")
    rankings = [Ranking(name, rollouts, (1, 2, 3), "ann", name) for name in "pqrs"]
    first = [[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]
    second = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]
    told = [judgement.quintets(each, rankings, plain) for each in (first, second)]
    found = judgement.differing(*told)
    assert [each["quintet"] for each in found["first"]] == ["p", "s"]
    assert [each["quintet"] for each in found["second"]] == ["q"]
    worst = found["first"][0]
    assert (worst["right"], worst["pairs"]) == ([3, 0], 3)
    assert worst["scores"] == [[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]]
    assert (worst["prompt"], worst["rollouts"], worst["labeler"]) == ("p", list(rollouts), "ann")
    many = [Ranking(str(n), rollouts, (1, 2, 3)) for n in range(50)]
    told = [judgement.quintets([row] * 50, many, plain) for row in ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])]
    assert len(judgement.differing(*told)["first"]) == judgement.SHOWN


def test_a_ranking_given_twice_is_compared_twice():
    same = [Ranking("p", ("a", "b"), (1, 2), "ann")] * 2
    first = judgement.quintets([[1.0, 0.0], [1.0, 0.0]], same, plain)
    second = judgement.quintets([[1.0, 0.0], [0.0, 1.0]], same, plain)
    found = judgement.compare(first, second)
    assert (found["pairs"], found["difference"]) == (2, 0.5)


def test_what_counting_needs_loads_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, rlhf.judgement, rlhf.claims, rlhf.probes; print({'torch', 'django'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_intervals_are_over_prompts():
    rewards, rankings = some(50)
    pairs = list(slowly(rewards, rankings))
    prompts = ["p" if isinstance(each.prompt, list) else each.prompt for each, *_ in pairs]
    expected = intervals.share([right for _, right, _, _ in pairs], prompts)
    assert judgement.judge(rewards, rankings, plain)["accuracy"] == expected
