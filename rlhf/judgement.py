"""What the rewards of some rankings say about a reward model: how often it is right, where, and about what.

Every two rollouts that a labeler did not tie are a pair. Accuracy is told apart by how far the two were
ranked apart, by who ranked them and by how much longer the better one is; every ranking stands with the
rewards beside it, the worst first. Plain numbers in and out, without torch, so that a page may compare two
evaluations. How far to believe a margin (τ, calibration) is the matter of `rlhf.evaluate`, what it all means
that of `rlhf.claims`.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import data, intervals
from rlhf.data import Ranking

LENGTH_BINS = 5
SHOWN = 20  # rankings that one model has right and another wrong, for either side
SAID = ("index", "quintet", "prompt", "rollouts", "ranks", "labeler", "simulated")  # of a ranking

Correlation = Callable[[Sequence[float], Sequence[float]], float | None]


@dataclass(frozen=True)
class Pair:
    """Two rollouts of a ranking that were not tied."""

    prompt: str
    labeler: str
    arm: str
    right: float  # 1 where the better one has the higher reward, ½ where the rewards are equal
    gap: int  # between their ranks
    longer: int  # characters by which the better one is the longer


def judge(
    rewards: Sequence[Sequence[float]],
    rankings: Sequence[Ranking],
    score: Callable[[float], float],
    members: Sequence[Sequence[Sequence[float]]] | None = None,
) -> dict[str, Any]:
    """Everything that counting can tell. A ranking of equals is counted and tells nothing. `members` are the
    rewards of each member of an ensemble, ranking by ranking."""
    pairs = [pair for row, ranking in zip(rewards, rankings, strict=True) for pair in _pairs(row, ranking)]
    return {
        "accuracy": right(pairs),
        "rankings": len(rankings),
        "all_tied": sum(not ranking.teaches for ranking in rankings),
        "labelers": len({ranking.labeler for ranking in rankings}),
        "simulated": sum(ranking.simulated for ranking in rankings),
        "by_gap": _told_apart(pairs, lambda pair: str(pair.gap)),
        "by_labeler": _told_apart(pairs, lambda pair: pair.labeler),
        "by_arm": _told_apart(pairs, lambda pair: pair.arm),
        "by_length": by_length(pairs),
        "shorter_won": right([pair for pair in pairs if pair.longer < 0]),
        "longer_won": right([pair for pair in pairs if pair.longer > 0]),
        "length_correlation": length_correlation(rewards, rankings),
        "people": people(rankings),
        "quintets": quintets(rewards, rankings, score, members),
    }


def right(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of these pairs that the model orders as the ranking does, with its interval over prompts."""
    return intervals.share([pair.right for pair in pairs], [pair.prompt for pair in pairs])


def by_length(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Accuracy by how many characters the better one is the longer (less than none: the shorter), in parts of
    about as many pairs each. Equal differences stay together."""
    order = sorted(pairs, key=lambda pair: pair.longer)
    parts: dict[int, list[Pair]] = {}
    for _, alike in itertools.groupby(enumerate(order), key=lambda each: each[1].longer):
        told = list(alike)
        middle = (told[0][0] + told[-1][0]) / 2
        parts.setdefault(int(middle * LENGTH_BINS / len(order)), []).extend(pair for _, pair in told)
    return [{"difference": [part[0].longer, part[-1].longer], **right(part)} for part in parts.values()]


def length_correlation(rewards: Sequence[Sequence[float]], rankings: Sequence[Ranking]) -> dict[str, Any]:
    """How the reward goes with the length in characters, within each quintet: the mean over quintets of
    Pearson's correlation, and of Spearman's, and that of people's own ranks with the length beside it. A
    quintet that several people ranked is one; where lengths or rewards are all equal there is none."""
    once = {
        (data.prompt_text(each.prompt), each.rollouts): row
        for row, each in zip(rewards, rankings, strict=True)
    }
    of_rewards = [(prompt, rollouts, row) for (prompt, rollouts), row in once.items()]
    of_people = [
        (data.prompt_text(each.prompt), each.rollouts, [-rank for rank in each.ranks]) for each in rankings
    ]
    return {
        **_correlated(of_rewards, intervals.pearson),
        "spearman": _correlated(of_rewards, intervals.spearman),
        "people": _correlated(of_people, intervals.spearman),
    }


def people(rankings: Iterable[Ranking]) -> dict[str, Any]:
    """Of the pairs that two labelers of the same quintet both ordered, the share that they ordered alike; and
    how often a labeler is right at all if two agree so often: the most that a model of theirs can reach."""
    by_quintet: dict[Hashable, list[Ranking]] = {}
    for ranking in rankings:
        by_quintet.setdefault((data.prompt_text(ranking.prompt), ranking.rollouts), []).append(ranking)
    alike: list[float] = []
    prompts: list[str] = []
    for together in by_quintet.values():
        for one, other in itertools.combinations(together, 2):
            if one.labeler == other.labeler:
                continue
            for first, second in itertools.combinations(range(len(one.ranks)), 2):
                signs = (each.ranks[first] - each.ranks[second] for each in (one, other))
                product = next(signs) * next(signs)
                if product:
                    alike.append(float(product > 0))
                    prompts.append(data.prompt_text(one.prompt))
    found = intervals.share(alike, prompts)
    return found | {"ceiling": _ceiling(found["value"])}


def quintets(
    rewards: Sequence[Sequence[float]],
    rankings: Sequence[Ranking],
    score: Callable[[float], float],
    members: Sequence[Sequence[Sequence[float]]] | None = None,
) -> list[dict[str, Any]]:
    """Every ranking that says anything, with what the model says of its rollouts, the worst one first.
    Disagreement is 1 − τ-b: 0 where they say the same, 1 where they have nothing to do with each other, 2
    where the one is the other turned round."""
    found = []
    for index, (row, ranking) in enumerate(zip(rewards, rankings, strict=True)):
        if not ranking.teaches:
            continue
        agreed = intervals.tau_b(ranking.ranks, [-reward for reward in row])
        told = {
            "index": index,
            "quintet": ranking.quintet,
            "prompt": data.prompt_text(ranking.prompt),
            "rollouts": list(ranking.rollouts),
            "ranks": list(ranking.ranks),
            "labeler": ranking.labeler,
            "simulated": ranking.simulated,
            "rewards": list(row),
            "scores": [score(reward) for reward in row],
            "disagreement": 1 - (agreed or 0.0),
        }
        if members is not None:
            told["members"] = [list(each) for each in members[index]]
        found.append(told)
    return sorted(found, key=lambda each: (-each["disagreement"], each["index"]))


def compare(first: Iterable[dict[str, Any]], second: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Two reward models on the rankings that both were measured on: the “quintets” of their evaluations in,
    how much more often the first is right out, with a paired test over prompts. `alone` counts, for either,
    the rankings that only it was measured on."""
    given = [_by_ranking(each) for each in (first, second)]
    common = [key for key in given[0] if key in given[1]]
    rights: tuple[list[float], list[float]] = ([], [])
    prompts: list[str] = []
    for key in common:
        prompt, _, ranks, _, _ = key
        places = list(_untied(ranks))
        for held, found in zip(rights, given, strict=True):
            held += _rights(found[key]["rewards"], places)
        prompts += [prompt] * len(places)
    told = {"rankings": len(common), "alone": [len(each) - len(common) for each in given]}
    return intervals.paired(*rights, prompts) | told


def differing(first: Iterable[dict[str, Any]], second: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Where two models differ most: the rankings on which the `first` is right about more pairs than the
    second, and the other way round, the widest difference first. `scores` and `right` are of either."""
    given = [_by_ranking(each) for each in (first, second)]
    found = []
    for key in given[0]:
        if key not in given[1]:
            continue
        told, other = (each[key] for each in given)
        places = list(_untied(told["ranks"]))
        found.append(
            {name: told[name] for name in SAID}
            | {
                "scores": [told["scores"], other["scores"]],
                "right": [sum(_rights(each["rewards"], places)) for each in (told, other)],
                "pairs": len(places),
            }
        )

    def ahead(each: dict[str, Any]) -> float:
        return (each["right"][0] - each["right"][1]) / each["pairs"]

    found.sort(key=lambda each: -ahead(each))
    return {
        "first": [each for each in found if ahead(each) > 0][:SHOWN],
        "second": [each for each in reversed(found) if ahead(each) < 0][:SHOWN],
    }


def _by_ranking(told: Iterable[dict[str, Any]]) -> dict[tuple, dict[str, Any]]:
    """The rows by what tells their ranking from others; the same line given twice is two."""
    seen: Counter[tuple] = Counter()
    found = {}
    for each in told:
        key = (each["prompt"], tuple(each["rollouts"]), tuple(each["ranks"]), each["labeler"])
        found[*key, seen[key]] = each
        seen[key] += 1
    return found


def _pairs(row: Sequence[float], ranking: Ranking) -> Iterator[Pair]:
    lengths = [len(rollout) for rollout in ranking.rollouts]
    arm = ranking.extra.get("arm")
    for better, worse in _untied(ranking.ranks):
        yield Pair(
            prompt=data.prompt_text(ranking.prompt),
            labeler=ranking.labeler,
            arm=arm if isinstance(arm, str) else "",
            right=_right(row[better], row[worse]),
            gap=ranking.ranks[worse] - ranking.ranks[better],
            longer=lengths[better] - lengths[worse],
        )


def _untied(ranks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The places of the better and of the worse of every two that differ in rank."""
    return (pair for pair in itertools.permutations(range(len(ranks)), 2) if ranks[pair[0]] < ranks[pair[1]])


def _rights(rewards: Sequence[float], places: Iterable[tuple[int, int]]) -> list[float]:
    return [_right(rewards[better], rewards[worse]) for better, worse in places]


def _right(better: float, worse: float) -> float:
    return 0.5 if better == worse else float(better > worse)


def _told_apart(pairs: Sequence[Pair], name: Callable[[Pair], str]) -> dict[str, dict[str, Any]]:
    """Accuracy by name; what has no name is nobody's."""
    named: dict[str, list[Pair]] = {}
    for pair in pairs:
        if name(pair):
            named.setdefault(name(pair), []).append(pair)
    return {each: right(named[each]) for each in sorted(named)}


def _correlated(
    rows: Iterable[tuple[str, Sequence[str], Sequence[float]]], correlation: Correlation
) -> dict[str, Any]:
    told = [
        (found, prompt)
        for prompt, rollouts, row in rows
        if (found := correlation(row, [len(each) for each in rollouts])) is not None
    ]
    return intervals.mean([found for found, _ in told], [prompt for _, prompt in told], "quintets")


def _ceiling(agreement: float | None) -> float | None:
    """Two labelers who are each right with the chance a agree with the chance a² + (1 − a)²."""
    return (1 + (2 * agreement - 1) ** 0.5) / 2 if agreement is not None and agreement >= 0.5 else None
