"""`bin/manage import_prompts FILE --project SLUG`: all prompts of a file, or none of them; where lines bring
rollouts along, these become quintets that wait to be ranked."""

from labeler.intake.terminal import ImportCommand
from labeler.models import Import


class Command(ImportCommand):
    help = "Adds the prompts of a file, with their rollouts if there are any, to a project, made if need be."
    kinds = (Import.Kind.PROMPTS, Import.Kind.ROLLOUTS)
    formats = ("lines", "csv", "parquet", "text")
