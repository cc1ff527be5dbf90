"""Which sums there are, in which column each is kept. Another order is another VERSION: everything is then
added up anew."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

VERSION = 1
REPLICATES = 200  # of the bootstrap


class Kind(IntEnum):
    """What the sums are of. Stored: numbers are never used again for something else."""

    PROJECT = 0
    ROUND = 1
    LABELER = 2
    ARM = 3


# Times fall into bins whose edges grow by an eighth of an octave, from half a second to over two hours.
SHORTEST, PER_OCTAVE, BINS = 0.5, 8, 8 * 14
EDGES = SHORTEST * 2 ** (np.arange(BINS + 1) / PER_OCTAVE)

ALPHA = "coincidences"
# (name, columns). The first ones have replicates, for a labeler too; then those with replicates for the rest.
_LABELERS = [
    ("ways", 4),  # pairs of rollouts that two labelers agreed on, opposed, one tied, both tied
    ("tau", 1),
    ("taus", 1),  # how many had one
    ("w", 1),
    ("ws", 1),
    ("self_ways", 4),
    ("gold_right", 1),
    ("gold_pairs", 1),
]
_REPLICATED = [
    (ALPHA, 15),
    ("best", 5),  # by place shown; the best ones of a ranking share 1
    ("placed", 5),
    ("longer", 1),  # pairs of different length that were decided for the longer one
    ("lengths", 1),
    ("unchanged", 1),
    ("orders", 1),  # rankings whose shown order is known
]
_PLAIN = [
    ("rows", 1),  # rankings of every purpose
    ("rankings", 1),
    ("ranked", 1),  # quintets
    ("quintets", 1),  # that two labelers or more ranked
    ("repeats", 1),
    ("golds", 1),
    ("self_tau", 1),
    ("self_taus", 1),
    ("best_by_chance", 5),
    ("won", 5),  # pairs, by place shown
    ("decided", 5),
    ("rank", 5),
    ("square", 5),
    ("unchanged_by_chance", 1),
    ("all_tied", 1),
    ("uncertainty", 1),
    ("uncertainties", 1),
    ("seconds", BINS),
    ("focus", BINS),
]


def _columns() -> dict[str, slice]:
    found, at = {}, 0
    for name, width in (*_LABELERS, *_REPLICATED, *_PLAIN):
        found[name] = slice(at, at + width)
        at += width
    return found


_AT = _columns()
A_LABELERS = sum(width for _, width in _LABELERS)
REPLICATED = A_LABELERS + sum(width for _, width in _REPLICATED)
WIDTH = max(each.stop for each in _AT.values())


def column(name: str) -> slice:
    return _AT[name]


def time_bin(seconds: NDArray) -> NDArray:
    return np.clip(np.searchsorted(EDGES, seconds, side="right") - 1, 0, BINS - 1)
