"""What quintets add to the sums that agreement and audits are made of, many quintets at a time.

Every number here is a sum over quintets, so that one quintet's part can be taken out and put in again, and so
that intervals come from sums in which each quintet counts as often as a Poisson draw says: a bootstrap over
quintets that can be kept up to date. Knows no tables: rows come and go as the bytes of `Entry`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labeler.agreement.layout import (
    A_LABELERS,
    ALPHA,
    REPLICATED,
    REPLICATES,
    WIDTH,
    Kind,
    column,
    time_bin,
)

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

# What is known of a quintet, and of each of its rankings. No rank is 0; no slot, time or uncertainty is -1.
HEAD = np.dtype(
    [
        ("round", "<i8"),
        ("arm", "u1"),
        ("size", "u1"),
        ("known", "u1", 5),
        ("lengths", "<i4", 5),
        ("uncertainty", "<f4"),
    ]
)
ROW = np.dtype(
    [
        ("labeler", "<i8"),
        ("purpose", "u1"),
        ("simulated", "u1"),
        ("ranks", "u1", 5),
        ("shown", "i1", 5),
        ("seconds", "<f4"),
        ("focus", "<f4"),
    ]
)
WORK, GOLD, REPEAT = range(3)

# Every two of five slots, the lower one first; and which of 15 cells two rank values share.
FIRST, SECOND = np.triu_indices(5, 1)
CELL = np.zeros((5, 5), np.intp)
CELL[np.triu_indices(5)] = np.arange(15)
CELL = np.maximum(CELL, CELL.T)
# Expected shares are kept in whole numbers: orders of k rollouts that are left as they were, of 120.
LEFT_BY_CHANCE = np.array([0, 120, 60, 20, 5, 1])


class Scope(NamedTuple):
    """Whose sums: those of a project (ref 0), a round, a labeler or an arm; of people or simulated ones."""

    simulated: bool
    kind: int
    ref: int


@dataclass
class Entry:
    """One quintet as it is, or as it was when it was last added up. `sign` is 1 or -1."""

    quintet: int
    sign: int
    bytes: bytes


class Delta(NamedTuple):
    sums: Numbers  # [WIDTH]
    replicates: Numbers  # [REPLICATES, REPLICATED], or fewer columns for a labeler


class Changes(NamedTuple):
    scopes: dict[Scope, Delta]
    taus: dict[int, float | None]  # of each quintet put in: the mean tau-b of every two people there


def changes(entries: list[Entry]) -> Changes:
    """What adding and taking out these entries changes, scope by scope."""
    entries = [entry for entry in entries if entry.bytes]
    if not entries:
        return Changes({}, {})
    heads, rows, of = _read(entries)
    simulated = rows["simulated"].astype(np.intp)
    # One line of sums for an entry's people and one for its simulated labelers, and one for each of them.
    whole = of * 2 + simulated
    ids, own = _numbered(of, rows["labeler"])
    sums = _Sums(np.zeros((2 * len(entries), WIDTH)), np.zeros((len(ids), WIDTH)))
    _add_rankings(sums, heads, rows, of, whole, own)
    _add_comparisons(sums, heads, rows, of, whole, own)
    _add_checks(sums, heads, rows, of, whole, own)
    found = dict(_by_scope(entries, heads, whole, ids, own, simulated, sums))
    tau, taus = (sums.whole[::2, column(name).start] for name in ("tau", "taus"))
    means = np.where(taus > 0, tau / np.maximum(taus, 1), np.nan).tolist()
    put_in = {
        entry.quintet: None if mean != mean else mean
        for entry, mean in zip(entries, means, strict=True)
        if entry.sign > 0
    }
    return Changes(found, put_in)


def _by_scope(entries, heads, whole, ids, own, simulated, sums) -> Iterator[tuple[Scope, Delta]]:
    signs = np.array([entry.sign for entry in entries], float)
    weights = poisson(np.array([entry.quintet for entry in entries]))
    used = np.unique(whole)
    entry = used // 2
    for kind, refs in (
        (Kind.PROJECT, np.zeros(len(used), np.int64)),
        (Kind.ROUND, heads["round"][entry]),
        (Kind.ARM, heads["arm"][entry].astype(np.int64)),
    ):
        yield from _scopes(kind, refs, used % 2, sums.whole[used], entry, signs, weights, REPLICATED)
    entry, simulations = ids["of"], np.zeros(len(ids), np.intp)
    simulations[own] = simulated
    yield from _scopes(Kind.LABELER, ids["labeler"], simulations, sums.own, entry, signs, weights, A_LABELERS)


def _scopes(kind, refs, simulated, lines, entry, signs, weights, columns) -> Iterator[tuple[Scope, Delta]]:
    order = np.lexsort((refs, simulated))
    new = np.flatnonzero((np.diff(refs[order]) != 0) | (np.diff(simulated[order]) != 0)) + 1
    for some in np.split(order, new):
        signed = lines[some] * signs[entry[some], None]
        scope = Scope(bool(simulated[some[0]]), kind, int(refs[some[0]]))
        yield scope, Delta(signed.sum(0), weights[entry[some]].T @ signed[:, :columns])


def poisson(quintets: NDArray[np.int64]) -> Numbers:
    """How often each quintet counts in each replicate: the same whenever and wherever it is asked."""
    draws = np.arange(REPLICATES, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (quintets.astype(np.uint64)[:, None] * np.uint64(REPLICATES) + draws) * np.uint64(
            0x9E3779B97F4A7C15
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return COUNT_OF_DRAW[(mixed ^ (mixed >> np.uint64(31))) >> np.uint64(48)]


def _count_of_draw() -> Numbers:
    """For each of 65,536 equally likely draws the number that a Poisson variable of mean 1 has there."""
    shares = np.exp(-1) / np.cumprod([1.0, *range(1, 12)])
    return np.searchsorted(np.cumsum(shares), (np.arange(65536) + 0.5) / 65536).astype(float)


COUNT_OF_DRAW = _count_of_draw()


@dataclass
class _Sums:
    whole: Numbers
    own: Numbers

    def add(self, name: str, values: NDArray, whole: Places, own: Places | None) -> None:
        """`values` [items, columns of `name`], each to its line of the whole and to its labeler's."""
        columns = column(name)
        values = values.reshape(len(whole), columns.stop - columns.start)
        for lines, at in ((self.whole, whole), (self.own, own)):
            if at is not None:
                _add_at(lines, at, columns, values)


def _add_at(lines: Numbers, at: Places, columns: slice, values: NDArray) -> None:
    width = columns.stop - columns.start
    flat = (at[:, None] * width + np.arange(width)).ravel()
    added = np.bincount(flat, values.ravel().astype(float), len(lines) * width)
    lines[:, columns] += added.reshape(len(lines), width)


def _read(entries: list[Entry]) -> tuple[NDArray, NDArray, Places]:
    """The heads, the rows, and the entry of each row."""
    heads = np.frombuffer(b"".join(entry.bytes[: HEAD.itemsize] for entry in entries), HEAD)
    counts = [(len(entry.bytes) - HEAD.itemsize) // ROW.itemsize for entry in entries]
    rows = np.frombuffer(b"".join(entry.bytes[HEAD.itemsize :] for entry in entries), ROW)
    return heads, rows, np.repeat(np.arange(len(entries)), counts)


def _numbered(of: Places, labelers: NDArray) -> tuple[NDArray, Places]:
    """The labelers of each entry, numbered; and the number of each row's."""
    keys = np.empty(len(of), [("of", np.intp), ("labeler", np.int64)])
    keys["of"], keys["labeler"] = of, labelers
    ids, own = np.unique(keys, return_inverse=True)
    return ids, own.reshape(-1)


def _add_rankings(sums: _Sums, heads, rows, of, whole, own) -> None:
    """What each ranking shows by itself: where the best one stood, which length won, how long it took."""
    one = np.ones(len(rows))
    sums.add("rows", one, whole, own)
    work = rows["purpose"] == WORK
    rows, of, whole, own = rows[work], of[work], whole[work], own[work]
    sums.add("rankings", np.ones(len(rows)), whole, own)
    _add_once(sums, whole, own, heads["uncertainty"][of])
    ranks, size = rows["ranks"].astype(np.int64), heads["size"][of].astype(np.int64)
    best = ranks == 1
    sums.add("all_tied", best.sum(1) == size, whole, own)
    for name in ("seconds", "focus"):
        timed = rows[name] >= 0
        bins = column(name).start + time_bin(rows[name][timed])
        for lines, at in ((sums.whole, whole), (sums.own, own)):
            np.add.at(lines, (at[timed], bins), 1)
    signs, there = _signs(ranks)
    lengths = heads["lengths"][of].astype(np.int64)
    longer = np.sign(lengths[:, FIRST] - lengths[:, SECOND]) * there
    told = (signs != 0) & (longer != 0)
    sums.add("longer", (told & (signs == -longer)).sum(1), whole, own)
    sums.add("lengths", told.sum(1), whole, own)

    placed = (rows["shown"] >= 0).sum(1) == size
    ranks, size, whole, own = ranks[placed], size[placed], whole[placed], own[placed]
    shown = rows["shown"][placed].astype(np.intp)
    by_place = np.where(shown >= 0, np.take_along_axis(ranks, np.maximum(shown, 0), 1), 0)
    there = by_place > 0
    best = by_place == 1
    sums.add("best", best / np.maximum(best.sum(1), 1)[:, None], whole, own)
    sums.add("best_by_chance", there / np.maximum(size, 1)[:, None], whole, own)
    sums.add("placed", there, whole, own)
    sums.add("rank", by_place, whole, own)
    sums.add("square", by_place**2, whole, own)
    signs, _ = _signs(by_place)
    won, decided = np.zeros(by_place.shape), np.zeros(by_place.shape)
    for pair, (i, j) in enumerate(zip(FIRST, SECOND, strict=True)):
        won[:, i] += signs[:, pair] < 0
        won[:, j] += signs[:, pair] > 0
        decided[:, [i, j]] += signs[:, [pair]] != 0
    sums.add("won", won, whole, own)
    sums.add("decided", decided, whole, own)
    left = (~there | (by_place == np.arange(1, 6))).all(1)
    sums.add("unchanged", left, whole, own)
    sums.add("orders", np.ones(len(size)), whole, own)
    sums.add("unchanged_by_chance", LEFT_BY_CHANCE[size] / 120, whole, own)


def _add_once(sums: _Sums, whole: Places, own: Places, uncertainty: NDArray) -> None:
    """Once for each quintet that was ranked, however many ranked it."""
    for lines, at in ((sums.whole, whole), (sums.own, own)):
        lines[at, column("ranked")] = 1
        sure = uncertainty >= 0
        lines[at[sure], column("uncertainty").start] = uncertainty[sure]
        lines[at[sure], column("uncertainties").start] = 1


def _add_comparisons(sums: _Sums, heads, rows, of, whole, own) -> None:
    """Every two labelers who ranked the same quintet, and all of them together."""
    work = np.flatnonzero(rows["purpose"] == WORK)
    work = work[np.argsort(whole[work], kind="stable")]
    groups, starts, counts = np.unique(whole[work], return_index=True, return_counts=True)
    ranks = rows["ranks"].astype(np.int64)
    middle, ties = _mid_ranks(ranks)
    for count in np.unique(counts[counts > 1]):
        chosen = counts == count
        members = work[starts[chosen][:, None] + np.arange(count)]  # [groups, labelers]
        group, size = groups[chosen], heads["size"][groups[chosen] // 2].astype(np.int64)
        one = np.ones(len(group))
        sums.add("quintets", one, group, None)
        _add_at(sums.own, own[members].ravel(), column("quintets"), np.ones((members.size, 1)))
        w, measured = concordance(middle[members].sum(1), ties[members].sum(1), count, size)
        sums.add("w", w, group, None)
        sums.add("ws", measured, group, None)
        left, right = np.triu_indices(count, 1)
        first, second = members[:, left].ravel(), members[:, right].ravel()
        group, size = np.repeat(group, len(left)), np.repeat(size, len(left))
        ways, tau, taus = two_by_two(ranks[first], ranks[second])
        w, measured = concordance(middle[first] + middle[second], ties[first] + ties[second], 2, size)
        alpha = _coincidences(ranks[first], ranks[second])
        sums.add("ways", ways, group, None)
        sums.add("tau", tau, group, None)
        sums.add("taus", taus, group, None)
        sums.add(ALPHA, alpha / (count - 1), group, None)
        for mine in (own[first], own[second]):
            _add_at(sums.own, mine, column("ways"), ways)
            for name, values in (("tau", tau), ("taus", taus), ("w", w), ("ws", measured)):
                _add_at(sums.own, mine, column(name), values[:, None])
            _add_at(sums.own, mine, column(ALPHA), alpha)


def _add_checks(sums: _Sums, heads, rows, of, whole, own) -> None:
    """Rankings against the same labeler's earlier one of the quintet, and against known ranks."""
    ranks = rows["ranks"].astype(np.int64)
    work = rows["purpose"] == WORK
    earlier = np.full(len(sums.own), -1)
    earlier[own[work]] = np.flatnonzero(work)
    again = np.flatnonzero((rows["purpose"] == REPEAT) & (earlier[own] >= 0))
    ways, tau, taus = two_by_two(ranks[again], ranks[earlier[own[again]]])
    for name, values in (
        ("self_ways", ways),
        ("self_tau", tau),
        ("self_taus", taus),
        ("repeats", np.ones(len(again))),
    ):
        sums.add(name, values, whole[again], own[again])
    known = heads["known"][of].astype(np.int64)
    gold = np.flatnonzero((rows["purpose"] == GOLD) & (known.sum(1) > 0))
    asked, there = _signs(known[gold])
    said, _ = _signs(ranks[gold])
    sums.add("gold_right", (there & (asked != 0) & (asked == said)).sum(1), whole[gold], own[gold])
    sums.add("gold_pairs", (there & (asked != 0)).sum(1), whole[gold], own[gold])
    sums.add("golds", np.ones(len(gold)), whole[gold], own[gold])


def _signs(ranks: NDArray) -> tuple[NDArray, NDArray]:
    """Of every two slots: -1 where the first is ranked before the second, 1 where behind; and which exist."""
    first, second = ranks[:, FIRST], ranks[:, SECOND]
    there = (first > 0) & (second > 0)
    return np.sign(first - second) * there, there


def two_by_two(one: NDArray, other: NDArray) -> tuple[NDArray, Numbers, NDArray]:
    """Of each two rank vectors: pairs agreed, opposed, tied by one, by both; tau-b; whether there is one."""
    a, there = _signs(one)
    b, _ = _signs(other)
    agreed, opposed = (a * b > 0).sum(1), (a * b < 0).sum(1)
    both = (there & (a == 0) & (b == 0)).sum(1)
    decided = (a != 0).sum(1) * (b != 0).sum(1)
    tau = (agreed - opposed) / np.sqrt(np.maximum(decided, 1))
    ways = np.stack([agreed, opposed, there.sum(1) - agreed - opposed - both, both], 1)
    return ways, tau, decided > 0


def _mid_ranks(ranks: NDArray) -> tuple[Numbers, NDArray]:
    """Ranks in which tied ones share the mean of their places; the sum of t³ - t over groups of t ties."""
    there = ranks > 0
    before = ((ranks[:, None, :] < ranks[:, :, None]) & there[:, None, :]).sum(2)
    alike = ((ranks[:, None, :] == ranks[:, :, None]) & there[:, None, :]).sum(2) * there
    return np.where(there, before + (alike + 1) / 2, 0), np.where(there, alike**2 - 1, 0).sum(1)


def concordance(rank_sums: Numbers, ties: NDArray, labelers: int, size: NDArray) -> tuple[Numbers, NDArray]:
    """Kendall's W corrected for ties; and whether there is one: not where everybody ties everything."""
    there = rank_sums > 0
    spread = np.where(there, rank_sums - labelers * (size[:, None] + 1) / 2, 0)
    most = labelers**2 * (size**3 - size) - labelers * ties
    return 12 * (spread**2).sum(1) / np.maximum(most, 1), most > 0


def _coincidences(one: NDArray, other: NDArray) -> Numbers:
    """Krippendorff's coincidences of two labelers' values of the same rollouts, in 15 cells: [pairs, 15]."""
    pair, slot = np.nonzero((one > 0) & (other > 0))
    a, b = one[pair, slot], other[pair, slot]
    flat = np.bincount(pair * 15 + CELL[a - 1, b - 1], 1.0 + (a == b), len(one) * 15)
    return flat.astype(float).reshape(len(one), 15)
