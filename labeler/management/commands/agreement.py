"""`bin/manage agreement SLUG`: how far the labelers of a project agree, people and simulated ones apart."""

import json

from django.core.management.base import BaseCommand, CommandError

from labeler.agreement import Agreement, agreement
from labeler.models import Project


class Command(BaseCommand):
    help = "How often two labelers who ranked the same quintet put the same one of two rollouts first."

    def add_arguments(self, parser):
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("--json", action="store_true", help="One JSON object instead of words.")

    def handle(self, *, project: str, json: bool, **options) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project {project}.")
        people, simulated = agreement(found), agreement(found, simulated=True)
        if json:
            self.stdout.write(_json(project, people, simulated))
        else:
            self.stdout.write(f"People: {_words(people)}")
            self.stdout.write(f"Simulated labelers: {_words(simulated)}")


def _json(project: str, people: Agreement, simulated: Agreement) -> str:
    return json.dumps({"project": project, "people": people.as_dict(), "simulated": simulated.as_dict()})


def _words(found: Agreement) -> str:
    if not found.pairs:
        return "no two of them ranked the same quintet."
    share = "undecided" if found.share is None else f"{found.share:.1%}"
    pairs = f"{found.agreed:,} pairs of rollouts alike, {found.opposed:,} opposed"
    ties = f"{found.one_tied:,} tied by one, {found.both_tied:,} by both"
    return f"{share} ({pairs}; {ties}; {found.labelers:,} labelers, {found.quintets:,} quintets)."
