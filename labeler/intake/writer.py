"""Lines become rows, a batch at a time, in the caller's transaction and in memory that does not grow.

What is there already is looked up by digest for the lines of the batch alone, so a project may be of any
size. A ranking that is there, from the same labeler with the same ranks, is left out; with other ranks it is
a second look, at a quintet of its own. Quintets that come ranked take no places in the queue; those that wait
get as many as the project wants."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.db.models.functions import Lower
from django.utils import timezone

from labeler.intake.copying import Copier
from labeler.intake.kinds import Line
from labeler.models import (
    Demonstration,
    Import,
    Membership,
    Origin,
    Project,
    Prompt,
    Quintet,
    Ranking,
    Rollout,
    Round,
    User,
)
from rlhf.data import BadLine

# What a ranking says beside its ranks, and what it has when it says nothing.
FACTS: dict[str, Any] = {
    "seconds": None,
    "focus_seconds": None,
    "shown": None,
    "acceptable": None,
    "nonsense": [],
    "unsafe": [],
    "surplus": False,
    "arm": "order",
    "purpose": "work",
}
# Rows that came a moment ago are not in the planner's statistics: left to itself it reads whole tables.
SETTINGS = """SET CONSTRAINTS ALL IMMEDIATE;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
    SET LOCAL jit = off"""
ALIKE = """SELECT quintet.id, quintet.external_id, quintet.prompt_id, quintet.purpose,
        (SELECT string_agg(md5(text), '' ORDER BY slot) FROM labeler_rollout WHERE quintet_id = quintet.id)
    FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS wanted(prompt, first, second)
    JOIN labeler_rollout AS first ON md5(first.text) = wanted.first AND first.slot = 0
    JOIN labeler_quintet AS quintet ON quintet.id = first.quintet_id AND quintet.prompt_id = wanted.prompt
    JOIN labeler_rollout AS second ON second.quintet_id = quintet.id AND second.slot = 1
    WHERE md5(second.text) = wanted.second ORDER BY quintet.id"""

Key = tuple[int, str, str]  # a prompt, what a line calls the quintet, the digests of its rollouts


class Busy(ValueError):
    """Another import into this project has not ended yet."""


@dataclass(slots=True)
class Alike:
    """A quintet that a line may be about, with what each labeler said of it, by purpose."""

    pk: int
    is_work: bool = True
    said: dict[tuple[int, str], set[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(set))


class Writer:
    """Takes one project's lines. `added` and `known` count what they bring: prompts, quintets, rankings …;
    `contradicted` the answers that are others than their prompts have."""

    def __init__(self, project: Project, brought_by: Import | None = None, round: Round | None = None):
        self.project = project
        self.is_new = not project.quintets.exists()
        self.round = round or Round.objects.current(project)
        self.rounds = dict(project.rounds.values_list("number", "pk"))
        self.guidelines = dict(project.guideline_versions.values_list("number", "pk"))
        self.added = self.known = self.contradicted = 0
        self._seated: set[int] = set()
        # Only who is trusted with every project may bring rankings of people whom this one does not know.
        by = brought_by.created_by if brought_by else None
        self.of_anybody = by is None or by.is_admin
        self.brought_by: int | None = brought_by.pk if brought_by else None
        mark, mine = {"brought_by_id": self.brought_by}, {"project_id": project.pk}
        said = ["id", "content", "digest", "answer", "external_id", "extra"]
        self.prompts = Copier(Prompt, said, **mine, **mark)
        said = ["prompt_id", "completion", "whole", "extra"]
        self.demonstrations = Copier(Demonstration, said, origin=Origin.IMPORTED.value, **mine, **mark)
        came = {"solution": True, "origin": Origin.IMPORTED.value}
        self.solutions = Copier(Demonstration, ["prompt_id", "completion"], **came, **mine, **mark)
        said = ["id", "prompt_id", "round_id", "external_id", "extra"]
        self.quintets = Copier(Quintet, said, **mine, **mark)
        self.rollouts = Copier(Rollout, ["quintet_id", "slot", "text", "finished", "model"])
        said = ["quintet_id", "labeler_id", "ranks", "simulated", "guidelines_id", "extra", *FACTS]
        self.rankings = Copier(Ranking, said, **mark)
        with connection.cursor() as cursor:
            cursor.execute(SETTINGS)

    @staticmethod
    def take_turn(project: Project, wait: bool = True) -> None:
        """Imports into one project take turns, each until its transaction ends. Raises Busy where it is
        another one's turn and `wait` is false."""
        which = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {which}(hashtext('quintet-intake'), %s::int)", [project.pk])
            if cursor.fetchone()[0] is False:
                raise Busy("An import into this project is going on. Try again when it has ended.")

    def write(self, lines: list[tuple[int, Line]]) -> list[BadLine]:
        """Keep these lines; what is wrong with those that cannot be kept."""
        people, bad = self._labelers([each for each in lines if each[1].ranks])
        refused = {each.number for each in bad}
        good = [line for number, line in lines if number not in refused]
        prompts, fresh = self._prompts(good)
        self._solutions({(prompts[line.digest], line.solution) for line in good if line.solution})
        if any(line.completion for line in good):
            self._demonstrations([(prompts[line.digest], line) for line in good])
            return bad
        with_rollouts = [line for line in good if line.rollouts]
        if not with_rollouts:
            self.added, self.known = self.added + len(fresh), self.known + len(good) - len(fresh)
            return bad
        keys = [(prompts[line.digest], line.name, fingerprint(line.rollouts)) for line in with_rollouts]
        stored = self._stored(with_rollouts, keys, fresh, people.values())
        numbers = iter(self.quintets.numbers(len(with_rollouts)))
        quintets: list[tuple[int, int, Line]] = []
        rankings: list[tuple[int, int, Line]] = []
        for line, key in zip(with_rollouts, keys, strict=True):
            labeler = people.get(line.labeler, 0)
            if self._is_known(line, labeler, stored[key]):
                self.known += 1
                continue
            self.added += 1
            quintet = _free_for(line, labeler, stored[key])
            if quintet is None:
                quintet = Alike(next(numbers))
                stored[key].append(quintet)
                quintets.append((quintet.pk, key[0], line))
            if line.ranks:
                quintet.said[labeler, line.facts.get("purpose", "work")].add(line.ranks)
                rankings.append((quintet.pk, labeler, line))
        self._keep(quintets, rankings)
        return bad

    def finish(self) -> None:
        """When all lines are written: of a new project's rounds only the last is still open."""
        if self.is_new:
            *earlier, _ = self.project.rounds.values_list("pk", flat=True)
            self.project.rounds.filter(pk__in=earlier, closed_at=None).update(closed_at=timezone.now())

    # What there is already

    def _labelers(self, lines: list[tuple[int, Line]]) -> tuple[dict[str, int], list[BadLine]]:
        """The account of each labeler. Who is new here gets one that nobody can sign in with."""
        names = {line.labeler for _, line in lines}
        lowered = {name.lower() for name in names}
        like = User.objects.alias(lower=Lower("username")).filter(lower__in=lowered)
        found: dict[str, User] = {each.username: each for each in like}
        spelled = {name.lower(): name for name in found}
        strangers = self._strangers(list(found.values()))
        bad = []
        for number, line in lines:
            name, simulated = line.labeler, line.simulated
            if name not in found and spelled.setdefault(name.lower(), name) != name:
                other = spelled[name.lower()]
                bad.append(BadLine(number, f"the labeler {name} is called {other} here: spell both alike."))
                continue
            if name not in found:
                found[name] = User.objects.without_password(name, simulated=simulated)
            if name in strangers:
                words = f"{name} has an account here and is not in this project: let them in first."
                bad.append(BadLine(number, words))
            elif found[name].simulated != simulated:
                there, here = ("a person", "simulated") if simulated else ("simulated", "a person")
                bad.append(BadLine(number, f"the labeler {name} is {there} elsewhere, and {here} here."))
        # Whoever cannot sign in may be a member without seeing anything: so their rankings can be excluded.
        seats = [each.pk for each in found.values() if not each.is_active and each.pk not in self._seated]
        Membership.objects.bulk_create(
            [Membership(project=self.project, user_id=pk) for pk in seats], ignore_conflicts=True
        )
        self._seated.update(seats)
        return {name: each.pk for name, each in found.items()}, bad

    def _strangers(self, people: list[User]) -> set[str]:
        """Those whose rankings whoever imports cannot bring: they sign in, but not to this project."""
        if self.of_anybody:
            return set()
        members = self.project.memberships.filter(user__in=people).values_list("user_id", flat=True)
        return {each.username for each in people if each.is_active and each.pk not in set(members)}

    def _prompts(self, lines: list[Line]) -> tuple[dict[str, int], set[str]]:
        """The number of each prompt by its digest, and the digests of those that are new."""
        wanted = {line.digest: line for line in reversed(lines)}
        known = Prompt.objects.filter(project=self.project, digest__in=list(wanted))
        there = list(known.values_list("digest", "pk", "answer"))
        found = {mark: pk for mark, pk, _ in there}
        right = {mark: line.prompt_fields.get("answer", "") for mark, line in wanted.items()}
        right |= {mark: answer for mark, _, answer in there if answer}
        answers = [(right[line.digest], line.prompt_fields.get("answer")) for line in lines]
        self.contradicted += sum(bool(answer) and answer != kept for kept, answer in answers)
        self._answers(
            {
                found[mark]: line.prompt_fields.get("answer", "")
                for mark, line in wanted.items()
                if mark in found
            }
        )
        fresh = {mark: line for mark, line in reversed(wanted.items()) if mark not in found}
        numbers = dict(zip(fresh, self.prompts.numbers(len(fresh)), strict=True)) if fresh else {}
        rows = []
        for mark, line in fresh.items():
            said = {"answer": "", "external_id": "", "extra": {}} | line.prompt_fields
            row = (numbers[mark], json.dumps(line.prompt), mark, said["answer"], said["external_id"])
            rows.append((*row, json.dumps(said["extra"])))
        self.prompts.write(rows)
        return found | numbers, set(fresh)

    def _demonstrations(self, lines: list[tuple[int, Line]]) -> None:
        """Each answer once, wherever the one that is there already is from, though it be withdrawn."""
        mine = Demonstration.objects.filter(prompt__in={prompt for prompt, _ in lines})
        known, rows = set(mine.values_list("prompt_id", "completion")), []
        for prompt, line in lines:
            if (prompt, line.completion) not in known:
                known.add((prompt, line.completion))
                rows.append((prompt, line.completion, line.whole, json.dumps(line.extra)))
        self.added, self.known = self.added + len(rows), self.known + len(lines) - len(rows)
        self.demonstrations.write(rows)

    def _answers(self, said: dict[int, str]) -> None:
        """A prompt that was here without its answer gets it; an answer that was here stays."""
        without = Prompt.objects.filter(pk__in=[pk for pk, answer in said.items() if answer], answer="")
        prompts = list(without.only("pk", "answer"))
        for each in prompts:
            each.answer, each.answer_brought_by_id = said[each.pk], self.brought_by
        Prompt.objects.bulk_update(prompts, ["answer", "answer_brought_by"])

    def _solutions(self, wanted: set[tuple[int, str]]) -> None:
        """Worked solutions are demonstrations of how a prompt is answered: each once, whoever brought it."""
        if not wanted:
            return
        of_these = Demonstration.objects.filter(prompt__in={prompt for prompt, _ in wanted})
        known = set(of_these.values_list("prompt_id", "completion"))
        self.solutions.write(sorted(wanted - known))

    def _stored(
        self, lines: list[Line], keys: list[Key], fresh: set[str], people: Iterable[int]
    ) -> dict[Key, list[Alike]]:
        """The quintets that are there under what these lines say of theirs. One that was sampled here is
        known to a line by its number."""
        stored: dict[Key, list[Alike]] = defaultdict(list)
        digest = 32  # the length of one rollout's
        wanted = {
            (prompt, texts[:digest], texts[digest : 2 * digest])
            for line, (prompt, _, texts) in zip(lines, keys, strict=True)
            if line.digest not in fresh
        }
        if not wanted:
            return stored
        found: dict[int, Alike] = {}
        with connection.cursor() as cursor:
            cursor.execute(ALIKE, [list(each) for each in zip(*wanted, strict=True)])
            for pk, name, prompt, purpose, texts in cursor.fetchall():
                found[pk] = Alike(pk, purpose == "work")
                for called in {name, name or str(pk)}:
                    stored[prompt, called, texts].append(found[pk])
        said = Ranking.objects.filter(quintet__in=list(found), labeler__in=list(people))
        for pk, labeler, purpose, ranks in said.values_list("quintet", "labeler", "purpose", "ranks"):
            found[pk].said[labeler, purpose].add(tuple(ranks))
        return stored

    def _is_known(self, line: Line, labeler: int, alike: list[Alike]) -> bool:
        if not line.ranks:
            return bool(alike)
        purpose = line.facts.get("purpose", "work")
        return any(line.ranks in each.said.get((labeler, purpose), ()) for each in alike)

    # What is new

    def _keep(self, quintets: list[tuple[int, int, Line]], rankings: list[tuple[int, int, Line]]) -> None:
        self.quintets.write(
            (pk, prompt, self._round(line), line.name, json.dumps({} if line.ranks else line.extra))
            for pk, prompt, line in quintets
        )
        self.rollouts.write(
            (
                pk,
                slot,
                text,
                not line.finished or line.finished[slot],
                line.models[slot] if line.models else "",
            )
            for pk, _, line in quintets
            for slot, text in enumerate(line.rollouts)
        )
        if waiting := [pk for pk, _, line in quintets if not line.ranks]:
            Quintet.objects.filter(pk__in=waiting).enqueue(self.project)
        self.rankings.write(
            (
                *(
                    pk,
                    labeler,
                    list(line.ranks),
                    line.simulated,
                    self._guidelines(line),
                    json.dumps(line.extra),
                ),
                *(line.facts.get(name, default) for name, default in FACTS.items()),
            )
            for pk, labeler, line in rankings
        )

    def _round(self, line: Line) -> int:
        """The round that the line names, where the project has it or is only being filled; else the current
        one, and the line keeps the number for itself."""
        if not line.round:
            return self.round.pk
        if line.round not in self.rounds and self.is_new:
            made = Round.objects.get_or_create(project=self.project, number=line.round)[0]
            self.rounds[line.round] = made.pk
        if line.round not in self.rounds:
            line.extra["round"] = line.round
        return self.rounds.get(line.round, self.round.pk)

    def _guidelines(self, line: Line) -> int | None:
        """The version that the line names, where the project has it; else the line keeps its number."""
        if line.guidelines and line.guidelines not in self.guidelines:
            line.extra["guidelines"] = line.guidelines
        return self.guidelines.get(line.guidelines)


def _free_for(line: Line, labeler: int, alike: list[Alike]) -> Alike | None:
    """A quintet that this labeler has said nothing of."""
    said = labeler, line.facts.get("purpose", "work")
    return next((each for each in alike if each.is_work and said not in each.said), None)


def fingerprint(texts: Iterable[str]) -> str:
    """What tells these rollouts from others, in this order."""
    return "".join(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() for text in texts)
