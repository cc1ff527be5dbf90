"""`bin/manage import_demonstrations FILE --project SLUG`: the answers of a file, or none of them."""

from labeler.intake.terminal import ImportCommand
from labeler.models import Import


class Command(ImportCommand):
    help = (
        "Adds conversations, or prompts with their answers, to a project, which is made where there is none."
    )
    kinds = (Import.Kind.DEMONSTRATIONS,)
    formats = ("lines", "csv", "parquet")
