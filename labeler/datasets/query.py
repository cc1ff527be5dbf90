"""Which rankings a dataset holds: a project's, by round, date, labeler, agreement and kind.

Excluded labelers' rankings are in none, whatever is asked. How rows become lines is decided in lines.py."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

from django.db.models import Count, Q
from django.db.models.expressions import RawSQL

from labeler.models import Project, Purpose, Ranking
from labeler.models.rankings import RankingQuerySet
from labeler.templatetags.words import count

# Of two labelers' ranks of the same five rollouts, which pairs they put the same way, and which they decide.
AGREEING = """
WITH counted AS ({counted})
SELECT one.quintet_id FROM counted AS one
JOIN counted AS other
    ON other.quintet_id = one.quintet_id AND other.simulated = one.simulated AND other.id > one.id
CROSS JOIN generate_series(1, 5) AS i CROSS JOIN generate_series(1, 5) AS j
CROSS JOIN LATERAL (
    SELECT (one.ranks[i] - one.ranks[j]) * (other.ranks[i] - other.ranks[j]) AS product
) AS pair
WHERE i < j AND j <= cardinality(one.ranks)
GROUP BY one.quintet_id
HAVING count(*) FILTER (WHERE product > 0) >= %s * count(*) FILTER (WHERE product <> 0)
AND count(*) FILTER (WHERE product <> 0) > 0
"""


def only_simulated(project: Project) -> bool:
    """Whether nobody but programs has ranked: what then is offered holds theirs, marked as such."""
    return not Query().rows(project).exists() and Query(simulated=True).rows(project).exists()


@dataclass(frozen=True)
class Query:
    """What is asked for; all of a project's rankings by people where nothing is said."""

    rounds: tuple[int, ...] = ()
    labelers: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None  # the last day that is in it
    agreement: float | None = None
    reviewed: bool = False
    simulated: bool = False
    surplus: bool = True
    gold: bool = False
    practice: bool = False
    harvest: bool = True

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Query":
        """What `as_dict` gave."""
        known = {each.name: stored[each.name] for each in fields(cls) if each.name in stored}
        for name in ("rounds", "labelers"):
            known[name] = tuple(known.get(name, ()))
        for name in ("since", "until"):
            known[name] = date.fromisoformat(known[name]) if known.get(name) else None
        return cls(**known)

    def as_dict(self) -> dict[str, Any]:
        """What differs from asking for nothing, as JSON has it."""
        nothing, said = asdict(Query()), {}
        for name, value in asdict(self).items():
            if value != nothing[name]:
                value = value.isoformat() if isinstance(value, date) else value
                said[name] = list(value) if isinstance(value, tuple) else value
        return said

    def rows(self, project: Project) -> RankingQuerySet:
        found = self._counted(project)
        if self.agreement is not None:
            found = found.filter(quintet__in=self._agreeing(project))
        if self.rounds:
            found = found.filter(quintet__round__number__in=self.rounds)
        if self.labelers:
            found = found.filter(labeler__username__in=self.labelers)
        if self.since:
            found = found.filter(created_at__date__gte=self.since)
        if self.until:
            found = found.filter(created_at__date__lte=self.until)
        if self.reviewed:
            found = found.filter(quintet__reviewed_at__isnull=False)
        return found

    def counts(self, project: Project) -> dict[str, int]:
        """How much it would hold now."""
        many = {"labelers": "labeler", "quintets": "quintet", "prompts": "quintet__prompt"}
        return self.rows(project).aggregate(
            lines=Count("pk"),
            simulated=Count("pk", filter=Q(simulated=True)),
            harvested=Count("pk", filter=Q(purpose=Purpose.HARVEST)),
            **{name: Count(of, distinct=True) for name, of in many.items()},
        )

    def words(self) -> list[str]:
        """It in words, a condition each."""
        said = []
        if self.rounds:
            numbers = ", ".join(map(str, self.rounds))
            said.append(f"of {'round' if len(self.rounds) == 1 else 'rounds'} {numbers}")
        if self.labelers:
            said.append(f"by {', '.join(self.labelers)}")
        if self.since:
            said.append(f"made on {self.since} or later")
        if self.until:
            said.append(f"made on {self.until} or earlier")
        if self.agreement is not None:
            said.append(f"of quintets whose labelers agree on {self.agreement:.0%} of their pairs at least")
        if self.reviewed:
            said.append("of reviewed quintets only")
        if not self.surplus:
            said.append("without the surplus ones")
        more = [name for name in ("simulated", "gold", "practice") if getattr(self, name)]
        if more:
            said.append(f"with {' and '.join(more)} ones")
        if not self.harvest:
            said.append("without what was confirmed of a harvest")
        return said or ["all by people"]

    def _counted(self, project: Project) -> RankingQuerySet:
        purposes = [Purpose.WORK]
        more = (Purpose.GOLD, Purpose.PRACTICE, Purpose.HARVEST)
        purposes += [each for each in more if getattr(self, each.value)]
        found = Ranking.objects.filter(quintet__project=project).counted(*purposes)
        if not self.simulated:
            found = found.by_people()
        return found if self.surplus else found.filter(surplus=False)

    def _agreeing(self, project: Project) -> RawSQL:
        """The quintets on which people agree with people, and simulated labelers with each other, so far."""
        ranks = self._counted(project).order_by().values("id", "quintet_id", "ranks", "simulated")
        counted, values = ranks.query.sql_with_params()
        return RawSQL(AGREEING.format(counted=counted), (*values, self.agreement))


def nothing_in(project: Project, query: Query) -> str:
    """Why there is nothing to freeze, in words."""
    if set(query.as_dict()) - {"simulated"}:
        return "No ranking is what was asked for."
    simulated = Query(simulated=True).counts(project)["simulated"]
    if simulated:
        return f"The project has no rankings by people yet, only {count(simulated, 'simulated one')}."
    return "The project has no rankings yet."
