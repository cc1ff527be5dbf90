"""How much a ranking counts: by who made it, and for which member of an ensemble.

Leaves out what is done with the numbers: a ranking's loss is multiplied by them in `rlhf.train_reward`.
"""

import hashlib
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rlhf import data
from rlhf.data import Prompt, Ranking

SMOOTHING = 20  # pairs at everybody's agreement that each labeler starts with: few rankings prove little
LEAST = 0.1  # of the weight of a labeler with whom all agree, so that nobody is wholly unheard


@dataclass(frozen=True)
class Weighed:
    """Of the pairs that a labeler and others of the same quintets both ordered: how many, the share that they
    ordered alike, and what a ranking of theirs counts. The share is None where there is no such pair."""

    pairs: int
    alike: float | None
    weight: float


def by_agreement(rankings: Sequence[Ranking]) -> dict[str, Weighed]:
    """Each labeler's weight by how far others agree with them.

    With n pairs of which k are alike, and a the share of everybody's pairs that are alike, a labeler's
    agreement is (k + 20a)/(n + 20), and their weight max(0.1, 2 · agreement − 1): nothing for a coin, 1 for
    someone whom all agree with. Weights are divided by their mean over these rankings. Where people agree no
    more than coins do, or never ranked the same quintet, all count alike.
    """
    alike, pairs = _pairs(rankings)
    everybody = sum(alike.values()) / max(1, sum(pairs.values()))
    excess = {
        name: max(LEAST, 2 * (alike[name] + SMOOTHING * everybody) / (pairs[name] + SMOOTHING) - 1)
        for name in pairs
    }
    if everybody <= 0.5:
        excess = dict.fromkeys(pairs, 1.0)
    mean = sum(excess[ranking.labeler] for ranking in rankings) / max(1, len(rankings))
    return {
        name: Weighed(pairs[name], alike[name] / pairs[name] if pairs[name] else None, excess[name] / mean)
        for name in sorted(pairs)
    }


def times_drawn(prompt: Prompt, member: int, seed: int) -> int:
    """How often a member's own sample of the prompts holds this one: Poisson with mean 1, as in bootstraps of
    many, but told by the prompt alone, so that it needs neither their number nor a memory."""
    digest = hashlib.sha256(f"member {member} of {seed}: {data.prompt_digest(prompt)}".encode()).digest()
    left = int.from_bytes(digest[:7], "big") / 2**56
    chance, count = math.exp(-1), 0
    while left >= chance and count < 20:
        left -= chance
        count += 1
        chance /= count
    return count


def same_quintets(rankings: Sequence[Ranking]) -> list[list[int]]:
    """The numbers of the rankings that are of one quintet, told by its texts, in the order of the first."""
    found: dict[Hashable, list[int]] = {}
    for number, each in enumerate(rankings):
        key = (data.prompt_text(each.prompt), each.rollouts, each.finished)
        found.setdefault(key, []).append(number)
    return list(found.values())


def _pairs(rankings: Sequence[Ranking]) -> tuple[dict[str, int], dict[str, int]]:
    """For each labeler the pairs that another one of the same quintet also ordered: those alike, and all."""
    alike = {ranking.labeler: 0 for ranking in rankings}
    pairs = dict(alike)
    for numbers in same_quintets(rankings):
        for one, other in itertools.combinations([rankings[number] for number in numbers], 2):
            if one.labeler == other.labeler:
                continue
            for first, second in itertools.combinations(range(len(one.ranks)), 2):
                product = (one.ranks[first] - one.ranks[second]) * (other.ranks[first] - other.ranks[second])
                for name in (one.labeler, other.labeler):
                    pairs[name] += product != 0
                    alike[name] += product > 0
    return alike, pairs
