"""When a run looks as if the policy had begun to fool its reward model: the crop that is suggested.

Three signs are read off a run's metrics: the KL to the start, the variety of what is written, the entropy.
Each of them shows in healthy runs too, so that a crop is suggested only where two agree. On the demo's runs
the KL tells a fall from a policy that has settled on few words (docs/log.md); how much of it is too much
differs from project to project. By then much has been lost, so the checkpoint to look at is one from when the
KL was at half its limit. It is a suggestion: people decide. What does end a run are the limits that
whoever started it has set. Knows numbers only, no tensors and no files.
"""

import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

SIGNS = ("kl", "distinct_2", "entropy")
SMOOTHED = 5  # steps behind a smoothed value, never later ones
START = SMOOTHED  # steps whose mean is a series' start
SAFE = 0.5  # of the KL's limit: signs show late, what was gained is mostly gained before that
AGREEING = 2  # of the three signs


@dataclass(frozen=True)
class Limits:
    """Where a sign begins: an absolute KL, and shares of what distinct-2 and entropy were at the start."""

    kl: float
    distinct_2: float
    entropy: float


@dataclass(frozen=True)
class Crop:
    """The step at which a crop is suggested, the last one before it that seems safe, and the signs that
    agreed there, in words."""

    step: int
    safe: int
    signs: tuple[str, ...]
    rules: tuple[str, ...]


class Watch:
    """Looks at a run step by step, and keeps no more of it than it compares: its start and the last steps."""

    def __init__(self, limits: Limits):
        self.limits, self.seen, self.safe = limits, 0, 0
        self.start: dict[str, float] = {}
        self.last: dict[str, deque[float]] = {name: deque(maxlen=SMOOTHED) for name in SIGNS}

    def see(self, step: Mapping[str, float]) -> Crop | None:
        """The crop that is suggested at this step, the next one of the run; None where nothing is."""
        for name in SIGNS:
            self.last[name].append(float(step[name]))
        self.seen += 1
        now = {name: mean(values) for name, values in self.last.items()}
        if self.seen == START:
            self.start = now
        number = int(step["step"])
        if now["kl"] <= SAFE * self.limits.kl:
            self.safe = number - len(self.last["kl"]) // 2  # the middle of the steps that the mean is of
        found = signs(self.start, now, self.limits) if self.seen >= START else {}
        if len(found) < AGREEING:
            return None
        return Crop(number, self.safe, tuple(found), tuple(found.values()))

    def see_all(self, steps: Iterable[Mapping[str, float]]) -> Crop | None:
        """The crop at the first step at which one is suggested."""
        return next((found for each in steps if (found := self.see(each))), None)


def crop(steps: Iterable[Mapping[str, float]], limits: Limits) -> Crop | None:
    """The first step at which two signs agree, of a run's step lines in order; None where none does."""
    return Watch(limits).see_all(steps)


def ended(
    steps: Sequence[Mapping[str, float]], kl_limit: float, minutes: float, time_limit: float
) -> str | None:
    """Why a run is to end now, in words, by the limits that it was given (0 is none); None if it goes on."""
    kl = mean([float(each["kl"]) for each in steps[-SMOOTHED:]])
    if kl_limit and kl > kl_limit:
        return (
            f"the KL to the start is {math.ceil(100 * kl - 1e-6) / 100:.2f} nats a rollout, "
            f"above the limit of {kl_limit:g}"
        )
    if time_limit and minutes >= time_limit:
        return f"the time limit of {time_limit:g} minutes is over"
    return None


def signs(start: Mapping[str, float], now: Mapping[str, float], limits: Limits) -> dict[str, str]:
    """The signs to be seen in what a run's numbers are, against what they were; each with its reason."""
    found = {}
    if now["kl"] > limits.kl:
        kl = math.ceil(100 * now["kl"] - 1e-6) / 100
        found["kl"] = f"The KL to the start is {kl:.2f} nats a rollout, above {limits.kl:g}."
    shares = {name: now[name] / max(start[name], 1e-9) for name in SIGNS[1:]}
    if shares["distinct_2"] < limits.distinct_2:
        found["distinct_2"] = _fallen("The variety of token pairs", shares["distinct_2"], limits.distinct_2)
    if shares["entropy"] < limits.entropy:
        found["entropy"] = _fallen("The entropy", shares["entropy"], limits.entropy)
    return found


def _fallen(what: str, share: float, limit: float) -> str:
    # Rounded away from the limit, so that the words never say “60%, below 60%”.
    percent = math.floor(1000 * share + 1e-6) / 10
    return f"{what} is at {percent:g}% of its start, below {100 * limit:g}%."


def mean(values: Sequence[float] | deque[float]) -> float:
    return sum(values) / max(1, len(values))


def distinct(rollouts: Sequence[Sequence[Hashable]], size: int) -> float:
    """The share of different runs of `size` tokens among all of them; 1 where nothing is ever repeated."""
    runs = [tuple(each[at : at + size]) for each in rollouts for at in range(len(each) - size + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0
