"""How unsure a reward model is of a quintet: what the queue is ordered by where a project asks for that.

The measure is the mean over the quintet's pairs of 1 − |2p − 1|, with p = σ((r_i − r_j)/τ) the chance that
a labeler prefers i to j. τ was fitted on held-out pairs, so p means what it says, and half of the measure is
the share of the pairs that the model expects to get wrong by its own account. The entropy of which rollout
is the best would ask about one place of five only, while a labeler orders all of them. Two rollouts with the
same text are no pair: nobody learns anything from their order.

An ensemble tells more: where its members are apart, labels would bring them together, however sure each one
is for itself. There the measure is s/(1 + s), with s the mean spread of the rollouts over τ."""

from collections.abc import Sequence
from itertools import combinations
from math import exp


def uncertainty(rewards: Sequence[float], texts: Sequence[str], tau: float) -> float:
    """1: every pair is a coin's toss to the model; 0: it is sure of all, or there is nothing to ask."""
    several = list(zip(rewards, texts, strict=True))
    apart = [
        abs(one - other) / tau
        for (one, its_text), (other, text) in combinations(several, 2)
        if its_text != text
    ]
    # 1 − |2σ(x) − 1| is 2σ(−|x|).
    return sum(2 / (1 + exp(min(each, 700.0))) for each in apart) / len(apart) if apart else 0.0


def disagreement(spreads: Sequence[float], texts: Sequence[str], tau: float) -> float:
    """Towards 1: the members of an ensemble are far apart; 0: they are one, or there is nothing to ask."""
    if len(set(texts)) < 2:
        return 0.0
    mean = sum(spreads) / len(spreads) / tau
    return mean / (1 + mean)
