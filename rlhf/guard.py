"""When a run looks as if the policy had begun to fool its reward model: the crop that is suggested.

Three signs are read off a run's metrics: the KL to the start, the variety of what is written, the entropy.
Each of them shows in healthy runs too, so that a crop is suggested only where two agree. It is a suggestion:
people decide, and nothing here stops a run. Knows numbers only, no tensors and no files.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

SMOOTHED = 5  # steps behind a smoothed value, never later ones
START = 5  # steps whose mean is a series' start
AGREEING = 2  # of the three signs


@dataclass(frozen=True)
class Limits:
    """Where a sign begins: an absolute KL, and shares of what distinct-2 and entropy were at the start."""

    kl: float
    distinct_2: float
    entropy: float


@dataclass(frozen=True)
class Crop:
    """The step of which a crop is suggested, and the signs that agreed there, in words."""

    step: int
    signs: tuple[str, ...]
    rules: tuple[str, ...]


def crop(steps: Sequence[Mapping[str, float]], limits: Limits) -> Crop | None:
    """The first step at which two signs agree, of a run's step lines in order; None where none does."""
    series = {name: [float(each[name]) for each in steps] for name in ("kl", "distinct_2", "entropy")}
    for count in range(START, len(steps) + 1):
        found = signs({name: values[:count] for name, values in series.items()}, limits)
        if len(found) >= AGREEING:
            return Crop(int(steps[count - 1]["step"]), tuple(found), tuple(found.values()))
    return None


def signs(series: Mapping[str, Sequence[float]], limits: Limits) -> dict[str, str]:
    """The signs to be seen at the last step of these series, each with its reason in words."""
    found = {}
    paid = smoothed(series["kl"])
    if paid > limits.kl:
        found["kl"] = f"The KL to the start is {paid:.2f} nats a rollout, above {limits.kl:g}."
    for name, limit, words in (
        ("distinct_2", limits.distinct_2, "The variety of token pairs"),
        ("entropy", limits.entropy, "The entropy"),
    ):
        share = smoothed(series[name]) / max(start(series[name]), 1e-9)
        if share < limit:
            found[name] = f"{words} is at {share:.0%} of its start, below {limit:.0%}."
    return found


def smoothed(values: Sequence[float]) -> float:
    """The mean of the last few values: what is known at that step, with less noise."""
    return sum(values[-SMOOTHED:]) / len(values[-SMOOTHED:])


def start(values: Sequence[float]) -> float:
    """Where a series began: the mean of its first few values."""
    return sum(values[:START]) / len(values[:START])


def distinct(rollouts: Sequence[Sequence[Hashable]], size: int) -> float:
    """The share of different runs of `size` tokens among all of them; 1 where nothing is ever repeated."""
    runs = [tuple(each[at : at + size]) for each in rollouts for at in range(len(each) - size + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0
