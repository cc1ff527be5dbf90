"""`bin/manage doctor`: what is well with this installation, what is not, and what to do."""

import json
from dataclasses import asdict

from labeler.doctor import CARE, ILL, WELL, findings
from labeler.management import BaseCommand, CommandError

SIGNS = {WELL: "✓", CARE: "!", ILL: "✗"}


class Command(BaseCommand):
    help = "Looks at Python, the GPU, the database, the broker, the worker, the disk and the models."
    requires_system_checks = ()

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="One JSON object instead of lines.")

    def handle(self, *, json: bool, **options) -> None:
        found = []
        for each in findings():
            found.append(each)
            if not json:
                self.tell(each)
        if json:
            self.stdout.write(as_json(found))
        if ill := [each.about for each in found if each.state == ILL]:
            raise CommandError(f"Not well: {', '.join(ill)}.")

    def tell(self, finding) -> None:
        self.stdout.write(f"{SIGNS[finding.state]} {finding.about:<21} {finding.said}")
        if finding.remedy:
            self.stdout.write(f"{'':<23} → {finding.remedy}")


def as_json(found) -> str:
    return json.dumps({"well": all(each.state != ILL for each in found), "findings": [*map(asdict, found)]})
