"""The numbers that sums of tallies.py mean, with bootstrap intervals: flat, ready for a page, JSON or a card.

A number that cannot be told (nobody to compare with, everything tied) is None. Intervals hold 95 of 100
replicates; on fewer than FEWEST quintets there is none, because so few drawn again and again look surer than
they are."""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeler.agreement.layout import ALPHA, BINS, EDGES, REPLICATED, WIDTH, column

FEWEST = 5
MIDDLE = (0.025, 0.975)
QUANTILES = {"tenth": 0.1, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "nine_tenths": 0.9}

Numbers = NDArray[np.float64]
Sums = Callable[[str], Numbers]  # by name, [..., columns]
UPPER = np.triu_indices(5)


def figures(sums: Numbers, replicates: Numbers) -> dict[str, Any]:
    """All numbers of a scope. `replicates` may lack columns: what needs them has no interval then."""
    told = _counts(sums)
    for name, (measure, many, wanted) in MEASURES.items():
        told[name] = _plain(measure(_by_name(sums)))
        interval = None
        if column(wanted).stop <= replicates.shape[1] and told[many] >= FEWEST:
            interval = _interval(measure(_by_name(replicates)))
        told[f"{name}_interval"] = interval if told[name] is not None else None
    told["ceiling"] = ceiling(told["agreement"])
    ends = told["agreement_interval"]
    told["ceiling_interval"] = [ceiling(end) or 0.5 for end in ends] if ends and told["ceiling"] else None
    return told | _positions(sums, replicates) | _times(sums) | _others(sums)


def ceiling(agreement: float | None) -> float | None:
    """How often one labeler is right, if two who err independently agree so often: the most that a model of
    their rankings can show on rankings like theirs. None where they agree no more than coins would."""
    if agreement is None or agreement < 0.5:
        return None
    return (1 + sqrt(2 * agreement - 1)) / 2


def _by_name(numbers: Numbers) -> Sums:
    return lambda name: numbers[..., column(name)]


def _ratio(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _agreement(of: Sums) -> Numbers:
    ways = of("ways")
    return _ratio(ways[..., 0], ways[..., 0] + ways[..., 1])


def _self_agreement(of: Sums) -> Numbers:
    ways = of("self_ways")
    return _ratio(ways[..., 0], ways[..., 0] + ways[..., 1])


def _kappa(of: Sums) -> Numbers:
    """Over >, = and <, as the WMT evaluations have it: P(A) is the share of pairs judged alike; P(E) comes
    from how often anybody called a pair equal, the rest being > as often as <, since which of a pair is named
    first means nothing."""
    ways = of("ways")
    total = ways.sum(-1)
    alike, equal = _ratio(ways[..., 0] + ways[..., 3], total), _ratio(ways[..., 2] / 2 + ways[..., 3], total)
    by_chance = equal**2 + (1 - equal) ** 2 / 2
    return _ratio(alike - by_chance, 1 - by_chance)


def _alpha(of: Sums) -> Numbers:
    """Krippendorff's alpha, ordinal: rollouts are the units, ranks the values."""
    cells = of(ALPHA)
    table = np.zeros((*cells.shape[:-1], 5, 5))
    table[..., UPPER[0], UPPER[1]] = cells
    table[..., UPPER[1], UPPER[0]] = cells
    values = table.sum(-1)
    total = values.sum(-1)
    middle = values.cumsum(-1) - values / 2
    apart = (middle[..., :, None] - middle[..., None, :]) ** 2
    observed = (table * apart).sum((-1, -2))
    expected = (values[..., :, None] * values[..., None, :] * apart).sum((-1, -2))
    return 1 - (total - 1) * _ratio(observed, expected)


def _mean(part: str, whole: str) -> Callable[[Sums], Numbers]:
    return lambda of: _ratio(of(part)[..., 0], of(whole)[..., 0])


# name: how it is made, what there must be enough of, and the last column that it needs.
MEASURES: Mapping[str, tuple[Callable[[Sums], Numbers], str, str]] = {
    "agreement": (_agreement, "quintets", "ways"),
    "kappa": (_kappa, "quintets", "ways"),
    "tau": (_mean("tau", "taus"), "quintets", "taus"),
    "w": (_mean("w", "ws"), "quintets", "ws"),
    "alpha": (_alpha, "quintets", ALPHA),
    "self_agreement": (_self_agreement, "repeats", "self_ways"),
    "gold": (_mean("gold_right", "gold_pairs"), "golds", "gold_pairs"),
    "longer": (_mean("longer", "lengths"), "ranked", "lengths"),
    "unchanged": (_mean("unchanged", "orders"), "ranked", "orders"),
}


def _counts(sums: Numbers) -> dict[str, Any]:
    of = _by_name(sums)
    named = dict(zip(("agreed", "opposed", "one_tied", "both_tied"), of("ways").tolist(), strict=True))
    named |= {
        name: of(name)[0].item()
        for name in ("rankings", "ranked", "quintets", "repeats", "golds", "lengths", "orders", "all_tied")
    }
    counts = {name: round(number) for name, number in named.items()}
    return counts | {"pairs": sum(counts[name] for name in ("agreed", "opposed", "one_tied", "both_tied"))}


def _positions(sums: Numbers, replicates: Numbers) -> dict[str, Any]:
    """How often what stood first, second … on the page was ranked best, and which pairs it won."""
    of = _by_name(sums)
    best = _ratio(of("best"), of("placed"))
    chance, won = _ratio(of("best_by_chance"), of("placed")), _ratio(of("won"), of("decided"))
    again = None
    if column("placed").stop <= replicates.shape[1] and of("ranked")[0] >= FEWEST:
        again = _ratio(replicates[:, column("best")], replicates[:, column("placed")])
    places = [
        {
            "placed": round(of("placed")[place].item()),
            "best": _plain(best[place]),
            "best_interval": None if again is None else _interval(again[:, place]),
            "chance": _plain(chance[place]),
            "won": _plain(won[place]),
        }
        for place in range(5)
        if of("placed")[place]
    ]
    unchanged = _plain(_ratio(of("unchanged_by_chance")[0], of("orders")[0]))
    return {"positions": places, "unchanged_by_chance": unchanged, "by_position": _by_position(of)}


def _by_position(of: Sums) -> float | None:
    """The share of the differences between ranks that the place on the page accounts for (eta squared): 0 for
    who reads, 1 for who presses the same keys at every quintet."""
    count, rank = of("placed"), of("rank")
    total = count.sum()
    if not total:
        return None
    mean = rank.sum() / total
    all_of_it = of("square").sum() - total * mean**2
    between = (np.where(count > 0, rank**2 / np.maximum(count, 1), 0)).sum() - total * mean**2
    return max(0.0, float(between / all_of_it)) if all_of_it > 1e-9 else None


def _times(sums: Numbers) -> dict[str, Any]:
    """Quantiles of the times from their bins, evenly spread (in logarithms) inside a bin."""
    told: dict[str, Any] = {}
    for name in ("seconds", "focus"):
        counts = sums[column(name)]
        upto, total = counts.cumsum(), counts.sum()
        told[name] = {"count": round(total.item())}
        for quantile, share in QUANTILES.items() if total >= 1 else ():
            bin = min(int(np.searchsorted(upto, share * total)), BINS - 1)
            inside = (share * total - (upto[bin] - counts[bin])) / max(counts[bin], 1)
            told[name][quantile] = round(float(EDGES[bin] * (EDGES[bin + 1] / EDGES[bin]) ** inside), 2)
        used = np.flatnonzero(counts > 0.5)
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, -1)
        told[name]["from_bin"], told[name]["bins"] = (
            first,
            np.rint(counts[first : last + 1]).astype(int).tolist(),
        )
    return told


def _others(sums: Numbers) -> dict[str, Any]:
    of = _by_name(sums)
    return {
        "self_tau": _plain(_ratio(of("self_tau")[0], of("self_taus")[0])),
        "uncertainty": _plain(_ratio(of("uncertainty")[0], of("uncertainties")[0])),
    }


def _plain(number: Any) -> float | None:
    return None if np.isnan(number) else float(number)


def _interval(replicates: Numbers) -> list[float] | None:
    told = np.sort(replicates[~np.isnan(replicates)])
    return [_quantile(told, share) for share in MIDDLE] if len(told) else None


def _quantile(ordered: Numbers, share: float) -> float:
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (at - below) * (ordered[above] - ordered[below]))


# Of nobody's rankings: no count, and no number that could be told.
NOTHING = figures(np.zeros(WIDTH), np.zeros((0, REPLICATED)))
