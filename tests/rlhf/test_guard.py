"""The suggested crop, on series made by hand."""

import random
import subprocess
import sys

import pytest

from rlhf import guard
from rlhf.guard import SIGNS, Crop, Limits, Watch, crop, distinct, ended, mean, signs

LIMITS = Limits(kl=2.0, distinct_2=0.5, entropy=0.6)


def run(kl, distinct_2, entropy):
    """Step lines of a run from three equally long series."""
    rows = zip(kl, distinct_2, entropy, strict=True)
    return [
        {"step": number, "kl": a, "distinct_2": b, "entropy": c} for number, (a, b, c) in enumerate(rows, 1)
    ]


def test_a_run_that_holds_is_left_alone():
    assert crop(run([0.5] * 50, [0.4] * 50, [2.0] * 50), LIMITS) is None


@pytest.mark.parametrize(
    "series",
    [
        ([9.0] * 50, [0.4] * 50, [2.0] * 50),
        ([0.5] * 50, [0.4] * 10 + [0.1] * 40, [2.0] * 50),
        ([0.5] * 50, [0.4] * 50, [2.0] * 10 + [0.5] * 40),
    ],
)
def test_one_sign_alone_suggests_nothing(series):
    assert crop(run(*series), LIMITS) is None


def test_two_signs_that_agree_suggest_the_step_at_which_they_first_do():
    steps = run([3.0] * 50, [0.4] * 50, [2.0] * 20 + [0.0] * 30)
    found = crop(steps, LIMITS)
    # The smoothed entropy is 2 × 3/5 = 1.2 = 60 % after two empty steps, and below that after three.
    assert found.step == 23
    assert found.signs == ("kl", "entropy")
    assert found.rules[0] == "The KL to the start is 3.00 nats a rollout, above 2."
    assert found.rules[1] == "The entropy is at 40% of its start, below 60%."


def test_the_checkpoint_to_look_at_is_from_when_the_kl_was_at_half_its_limit():
    kl = [0.0] * 10 + [0.25 * step for step in range(1, 21)] + [9.0] * 20
    found = crop(run(kl, [0.4] * 10 + [0.1] * 40, [2.0] * 50), LIMITS)
    # Step 10 + n has a KL of n/4, the mean of the five steps around it as well: above 2 for n = 9, which is
    # seen two steps later; at half of that, 1, for n = 4.
    assert (found.step, found.safe) == (21, 14)


def test_where_the_kl_was_never_small_no_step_is_safe():
    assert crop(run([9.0] * 50, [0.4] * 10 + [0.1] * 40, [2.0] * 50), LIMITS).safe == 0


def test_where_the_kl_is_no_sign_of_a_crop_the_steps_before_it_are_safe():
    found = crop(run([0.5] * 50, [0.4] * 10 + [0.1] * 40, [2.0] * 10 + [0.5] * 40), LIMITS)
    assert found.signs == ("distinct_2", "entropy")
    assert found.safe == found.step - 2


def test_signs_at_different_times_do_not_add_up():
    kl = [0.5] * 10 + [9.0] * 5 + [0.0] * 35
    entropy = [2.0] * 30 + [0.1] * 20
    assert crop(run(kl, [0.4] * 50, entropy), LIMITS) is None


def test_one_wild_step_is_smoothed_away():
    kl, entropy = [0.5] * 50, [2.0] * 50
    kl[20], entropy[20] = 8.0, 0.0
    assert crop(run(kl, [0.4] * 50, entropy), LIMITS) is None


def test_a_start_is_the_mean_of_its_first_steps_and_not_the_first_alone():
    assert crop(run([9.0] * 50, [0.4] * 50, [4.0] + [1.5] * 49), LIMITS) is None


def test_later_steps_never_change_an_earlier_suggestion():
    steps = run([3.0] * 50, [0.4] * 50, [2.0] * 20 + [0.0] * 30)
    assert crop(steps[:23], LIMITS) == crop(steps, LIMITS)
    assert crop(steps[:22], LIMITS) is None


def test_nothing_is_suggested_before_there_is_a_start_to_compare_with():
    assert crop(run([9.0] * 4, [0.0] * 4, [0.0] * 4), LIMITS) is None
    assert crop([], LIMITS) is None


def test_the_words_name_the_value_and_its_limit():
    before = {"kl": 0.0, "distinct_2": 0.5, "entropy": 1.0}
    found = signs(before, {"kl": 0.1, "distinct_2": 0.1, "entropy": 1.0}, LIMITS)
    assert found == {"distinct_2": "The variety of token pairs is at 20% of its start, below 50%."}


def test_the_words_never_round_a_value_onto_its_limit():
    before = {"kl": 0.0, "distinct_2": 1.0, "entropy": 1.0}
    found = signs(before, {"kl": 2.001, "distinct_2": 0.4996, "entropy": 0.5999}, LIMITS)
    assert list(found.values()) == [
        "The KL to the start is 2.01 nats a rollout, above 2.",
        "The variety of token pairs is at 49.9% of its start, below 50%.",
        "The entropy is at 59.9% of its start, below 60%.",
    ]
    odd = signs(before, {"kl": 0.0, "distinct_2": 0.3449, "entropy": 1.0}, Limits(2.0, 0.345, 0.6))
    assert odd["distinct_2"].endswith("is at 34.4% of its start, below 34.5%.")


def test_a_series_that_starts_at_nothing_divides_by_nothing():
    nothing = {"kl": 0.0, "distinct_2": 0.0, "entropy": 0.0}
    assert set(signs(nothing, nothing, LIMITS)) == {"distinct_2", "entropy"}


def test_distinct_counts_different_runs_of_tokens():
    assert distinct([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct([[1, 2], [1, 2]], 1) == 0.5
    assert distinct([[1, 2, 3], [4, 5, 6]], 2) == 1.0
    assert distinct([[1]], 2) == 1.0


def test_the_guard_knows_no_torch():
    code = "import sys, rlhf.guard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def kls(*values):
    return [{"step": number, "kl": kl} for number, kl in enumerate(values, 1)]


def test_a_kl_limit_looks_at_the_mean_of_five_steps():
    assert ended(kls(0, 0, 0, 0, 9), kl_limit=2, minutes=0, time_limit=0) is None
    found = ended(kls(9, 0, 0, 2, 2, 7), kl_limit=2, minutes=0, time_limit=0)
    assert found == "the KL to the start is 2.20 nats a rollout, above the limit of 2"
    assert ended(kls(2, 2, 2, 2, 2), kl_limit=2, minutes=0, time_limit=0) is None
    assert ended(kls(5), kl_limit=2, minutes=0, time_limit=0)


def test_a_time_limit_ends_a_run_in_words():
    assert ended(kls(0), kl_limit=0, minutes=29.9, time_limit=30) is None
    assert ended(kls(0), kl_limit=0, minutes=30, time_limit=30) == "the time limit of 30 minutes is over"


def test_without_limits_nothing_ends_a_run():
    assert ended(kls(1e6), kl_limit=0, minutes=1e6, time_limit=0) is None


def slowly(steps, limits):
    """The same, of the whole history anew."""
    series = {name: [float(each[name]) for each in steps] for name in SIGNS}
    start = {name: mean(values[:5]) for name, values in series.items()}
    kept = [mean(series["kl"][max(0, end - 5) : end]) <= limits.kl / 2 for end in range(1, len(steps) + 1)]
    for end in range(5, len(steps) + 1):
        now = {name: mean(values[max(0, end - 5) : end]) for name, values in series.items()}
        found = signs(start, now, limits)
        if len(found) >= 2:
            safe = max((at - min(at, 5) // 2 for at in range(1, end + 1) if kept[at - 1]), default=0)
            return Crop(int(steps[end - 1]["step"]), safe, tuple(found), tuple(found.values()))
    return None


def walk(chances):
    """A run that drifts, or does not, and ends somewhere."""
    drift, values = chances.choice([0.0, 0.02, 0.05]), [0.5, 0.5, 2.0]
    series = []
    for _ in range(chances.randrange(1, 120)):
        moved = (chances.gauss(3 * drift, 0.2), chances.gauss(-drift / 4, 0.02), chances.gauss(-drift, 0.1))
        values = [max(0.0, value + by) for value, by in zip(values, moved, strict=True)]
        series.append(values)
    return run(*zip(*series, strict=True))


def test_looked_at_step_by_step_a_run_is_what_it_is_as_a_whole():
    """In random walks of every length, to the last digit of the words."""
    chances, cropped = random.Random(7), 0
    for _ in range(200):
        steps, watch, first = walk(chances), Watch(LIMITS), None
        for number, step in enumerate(steps, 1):
            first = first or watch.see(step)
            assert first == slowly(steps[:number], LIMITS)
        assert crop(steps, LIMITS) == first
        cropped += first is not None
    assert 40 < cropped < 160


def test_a_step_takes_as_long_however_many_came_before(monkeypatch):
    asked = []
    monkeypatch.setattr(guard, "mean", lambda values: asked.append(len(values)) or sum(values) / len(values))
    watch = Watch(Limits(kl=1e9, distinct_2=0.0, entropy=0.0))
    for step in run([0.5] * 2000, [0.4] * 2000, [2.0] * 2000):
        watch.see(step)
    assert len(asked) == 3 * 2000 and max(asked) == 5
