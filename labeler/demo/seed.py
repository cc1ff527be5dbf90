"""The demo projects' rows, from the files that are shipped beside this one. Loads no model: `build.py` and
`build_practice.py` did.

Left out: when they are seeded (`manage.py prepare`), and what becomes of them, which is the users' affair."""

import shutil
from copy import deepcopy
from pathlib import Path

from django.conf import settings
from django.db import transaction

from labeler import intake
from labeler.demo import HERE, practice
from labeler.demo.recipe import RUN_DEFAULTS
from labeler.models import Checkpoint, Demonstration, Project, Quintet, Request, Round
from labeler.models.checkpoints import link_or_copy, read_lineage
from labeler.models.demonstrations import Origin
from labeler.models.prompts import Prompt
from rlhf import data

SLUG = "pelican-jokes"
GUIDELINES = """Put the joke first that you would tell a friend.

- **Funny beats everything.** If one made you smile, it goes on top.
- A joke that is about the subject asked for goes above one that is not.
- One that you get at once goes above one that needs explaining.
- Word salad, or a sentence that falls apart, goes to the bottom.

The model is tiny: it learnt from a few thousand jokes in two minutes. Be kind, but honest."""
PRESETS = [
    {
        "kind": "policy",
        "name": "Let it run off the cliff",
        "help": "No pull to the start (β = 0): the reward climbs to the top while the jokes fall apart.",
        "values": {"beta": 0},
    }
]


@transaction.atomic
def seed() -> Project | None:
    """The demo projects, of which the one to rank in is told; None, and nothing is touched, where there is a
    project already."""
    if Project.objects.exists():
        return None
    for each in practice.ALL:
        _practising(each)
    return _jokes()


def _jokes() -> Project:
    project = Project.objects.create(
        name="Pelican jokes",
        slug=SLUG,
        run_defaults=deepcopy(RUN_DEFAULTS),  # the project's own, to change as it likes
        presets=PRESETS,
    )
    project.revise_guidelines(GUIDELINES)
    project.start = _checkpoint(project)
    project.save(update_fields=["start"])
    round = Round.objects.current(project)
    with (HERE / "prompts.jsonl").open("rb") as file:
        intake.import_prompts(project, intake.read_prompts(file, "prompts.jsonl"))
    prompts = {prompt.content: prompt for prompt in Prompt.objects.filter(project=project)}
    for _, line in data.read_lines(HERE / "quintets.jsonl"):
        Quintet.objects.compose(
            project,
            round,
            prompts[line["prompt"]],
            line["rollouts"],
            checkpoints=project.start,
            finished=line["finished"],
            external_id=line["quintet"],
        )
    with (HERE / "rankings.jsonl").open("rb") as file:
        intake.import_rankings(project, intake.read_rankings(file), round)
    return project


def _practising(demo: practice.Practice) -> None:
    """A project whose answers are checked: its prompts with answers, and a worked solution of each."""
    project = Project.objects.create(
        name=demo.name,
        slug=demo.slug,
        judge=Project.Judge.CHECKER,
        checker={"name": "number"},
        run_defaults=deepcopy(demo.run_defaults),
    )
    project.revise_guidelines(demo.guidelines)
    shipped = {
        name: _checkpoint(project, f"{demo.name}, {words}", demo.folder(name), f"{demo.slug}-{name}")
        for name, words in {"start": "the start", "imitation": "all solutions imitated"}.items()
    }
    project.start = shipped["start"]
    project.save(update_fields=["start"])
    problems = demo.problems()
    Prompt.objects.add(project, [data.PromptLine(each.prompt, each.answer) for each in problems])
    prompts = {prompt.content: prompt for prompt in project.prompts.all()}
    Demonstration.objects.bulk_create(
        Demonstration(
            project=project,
            prompt=prompts[each.prompt],
            completion=each.worked,
            solution=True,
            origin=Origin.IMPORTED,
        )
        for each in problems
    )
    Request.objects.ask_to_check_references(project)


def _checkpoint(
    project: Project,
    name: str = "Pelican jokes, the start",
    shipped: Path = HERE / "checkpoint",
    slug: str = SLUG,
) -> Checkpoint:
    """A shipped model, put into the home so that a copy of the home is whole."""
    location = f"checkpoints/{slug}"
    folder = settings.HOME / location
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in shipped.iterdir():
        link_or_copy(file, folder / file.name)
    return Checkpoint.objects.create(
        project=project, name=name, location=location, lineage=read_lineage(folder)
    )
