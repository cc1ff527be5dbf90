"""`bin/manage import_rankings FILE --project SLUG`: all rankings of a file, or none of them."""

from labeler.intake.terminal import ImportCommand
from labeler.models import Import


class Command(ImportCommand):
    help = "Adds the rankings of a file to a project, which is made where it does not exist."
    kinds = (Import.Kind.RANKINGS, Import.Kind.PAIRS, Import.Kind.WMT)
    formats = ("lines", "csv", "parquet", "pairs", "wmt")
