"""How far labelers who ranked the same quintet agree, pair of rollouts by pair of rollouts.

Two labelers and two rollouts make one comparison: both put the same one first, or opposite ones, or at least
one of them calls it a tie. People are compared with people and simulated labelers with each other, but not
across. Left out: coefficients that correct for chance, and intervals."""

from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from typing import Any

from labeler.agreement.measures import compared, of_quintet
from labeler.models import Project, Ranking

__all__ = ["Agreement", "agreement", "compared", "of_quintet"]


@dataclass
class Agreement:
    quintets: int = 0  # ranked by two labelers or more
    labelers: int = 0  # who ranked any of them
    agreed: int = 0
    opposed: int = 0
    one_tied: int = 0
    both_tied: int = 0

    @property
    def pairs(self) -> int:
        return self.agreed + self.opposed + self.one_tied + self.both_tied

    @property
    def share(self) -> float | None:
        """Of the comparisons in which both decide, those that go the same way; None where there is none."""
        decided = self.agreed + self.opposed
        return self.agreed / decided if decided else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"pairs": self.pairs, "agreement": self.share}


def agreement(project: Project, simulated: bool = False) -> Agreement:
    """Among the project's people, or among its simulated labelers."""
    found = Ranking.objects.filter(quintet__project=project, simulated=simulated).order_by("quintet", "pk")
    result, labelers = Agreement(), set()
    rows = found.values_list("quintet", "labeler", "ranks").iterator(chunk_size=2000)
    for _, group in groupby(rows, key=lambda row: row[0]):
        several = list(group)
        if len(several) < 2:
            continue
        result.quintets += 1
        labelers |= {labeler for _, labeler, _ in several}
        for (_, _, one), (_, _, other) in combinations(several, 2):
            for name, number in compared(one, other).items():
                setattr(result, name, getattr(result, name) + number)
    result.labelers = len(labelers)
    return result
