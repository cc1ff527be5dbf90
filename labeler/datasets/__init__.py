"""Taking out: rankings and demonstrations become frozen datasets, and files for other people's trainers.

query.py says which rows, lines.py how and in which order they become lines, facts.py counts them, frozen.py
keeps them, formats.py makes other rows of them, exports.py files, card.py their card, and compare.py lays two
datasets side by side. How files come in is the matter of labeler/intake/."""

from labeler.datasets.frozen import NothingToFreeze, freeze, freeze_demonstrations, freeze_documents
from labeler.datasets.query import Query, only_simulated

__all__ = [
    "NothingToFreeze",
    "Query",
    "freeze",
    "freeze_demonstrations",
    "freeze_documents",
    "only_simulated",
]
