"""`bin/manage agreement SLUG`: how far the labelers of a project agree, people and simulated ones apart."""

import json
from typing import Any

from labeler.agreement import report
from labeler.management import BaseCommand, CommandError
from labeler.models import Project
from labeler.templatetags.words import figure


class Command(BaseCommand):
    help = "How far labelers who ranked the same quintets agree, and what else their rankings show."

    def add_arguments(self, parser):
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("--json", action="store_true", help="All numbers, as one JSON object.")

    def handle(self, *, project: str, json: bool, **options) -> None:
        from labeler.agreement.folding import fold_all

        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project {project}.")
        fold_all([found], wait=True)
        people, simulated = _numbers(found, False), _numbers(found, True)
        if json:
            self.stdout.write(_json(project, people, simulated))
        else:
            self.stdout.write(f"People: {_words(people)}")
            self.stdout.write(f"Simulated labelers: {_words(simulated)}")


def _numbers(project: Project, simulated: bool) -> dict[str, Any]:
    from labeler.agreement.figures import NOTHING

    labelers = report.named(list(report.labelers(project, simulated)))
    found = report.of_project(project, simulated)
    return (found or NOTHING) | {
        "labelers": sum(each["quintets"] > 0 for each in labelers),
        "by_labeler": labelers,
        "by_round": report.of_rounds(project, simulated),
        "by_arm": report.of_arms(project, simulated),
        "standing_out": [
            {"labeler": each["labeler"], "reasons": each["reasons"]}
            for each in report.standing_out(project, simulated)
        ],
    }


def _json(project: str, people: dict[str, Any], simulated: dict[str, Any]) -> str:
    return json.dumps({"project": project, "people": people, "simulated": simulated})


def _words(found: dict[str, Any]) -> str:
    if not found["pairs"]:
        return "no two of them ranked the same quintet."
    share = "undecided" if found["agreement"] is None else f"{found['agreement']:.1%}"
    pairs = f"{found['agreed']:,} pairs of rollouts alike, {found['opposed']:,} opposed"
    ties = f"{found['one_tied']:,} tied by one, {found['both_tied']:,} by both"
    measures = ", ".join(
        f"{name} {figure(found[key])}"
        for name, key in (("tau-b", "tau"), ("W", "w"), ("alpha", "alpha"), ("kappa", "kappa"))
    )
    many = f"{found['labelers']:,} labelers, {found['quintets']:,} quintets"
    return f"{share} ({pairs}; {ties}; {many}); {measures}."
