"""A face-off as far as it goes without a worker: checkpoints, what they would have written, and people with a
taste who rank it."""

import json
import random
from collections.abc import Callable, Sequence

import zstandard

from labeler import composing
from labeler.models import Checkpoint, Faceoff, Project, Prompt, Ranking, Round, Run, User

REWARDS = (0.5, 0.7, 0.8, 0.95)  # at the start, and at steps 10, 20 and 30


def policies(project: Project) -> list[Checkpoint]:
    """The start, and three of one policy run whose reward only rises."""
    start = Checkpoint.objects.create(name="start", location="hub:a/b@main")
    project.start = start
    project.save()
    run = project.runs.create(
        kind="policy", state="finished", start=start, round=Round.objects.current(project)
    )
    for step in range(1, 31):
        low, high = REWARDS[(step - 1) // 10], REWARDS[(step - 1) // 10 + 1]
        reward = low + (high - low) * min(1, ((step - 1) % 10) / 5)
        run.steps.create(step=step, metrics={"reward": reward})
    told = {"project": project, "run": run}
    names = [(step, f"policy {run.pk}, step {step}") for step in (10, 20, 30)]
    return [
        start,
        *(Checkpoint.objects.create(step=n, name=name, location=f"{n}", **told) for n, name in names),
    ]


def line(prompt: Prompt, group: int, text: str, finished: bool = True) -> dict:
    about = {"prompt": prompt.content, "id": str(prompt.pk), "group": group, "tokens": []}
    return about | {"rollout": text, "finished": finished}


def write(run: Run, *lines: dict) -> None:
    with (run.directory / "rollouts.jsonl.zst").open("ab") as file:
        file.write(zstandard.compress("".join(json.dumps(each) + "\n" for each in lines).encode()))


def sampled(faceoff: Faceoff, say: Callable | None = None) -> None:
    """As if every run had written its rollouts, `say(checkpoint, number of the prompt, which rollout)`."""
    say = say or (lambda name, number, time: f"{name} says {number}.{time}")
    for contender in faceoff.contenders.select_related("run", "checkpoint"):
        name, known = contender.checkpoint.name, Prompt.objects.in_bulk(faceoff.asked)
        for number, pk in enumerate(faceoff.asked):
            texts = [say(name, number, time) for time in range(contender.run.config["count"])]
            write(contender.run, *(line(known[pk], number, text) for text in texts))
        Run.objects.filter(pk=contender.run.pk).update(state="finished")


def launch(
    project: Project,
    chosen: Sequence[Checkpoint],
    quintets: int = 6,
    prompts: int = 6,
    by: User | None = None,
) -> Faceoff:
    for number in range(prompts):
        Prompt.objects.get_or_create(project=project, content=f"Joke {number}.")
    return Faceoff.objects.launch(project, chosen, quintets, by)


def asking(project: Project, chosen: Sequence[Checkpoint], quintets: int = 6, **more) -> Faceoff:
    """One whose quintets wait."""
    faceoff = launch(project, chosen, quintets, **more)
    sampled(faceoff)
    composing.attend()
    return Faceoff.objects.told().get(pk=faceoff.pk)


def ranked(
    faceoff: Faceoff, by: User, taste: Sequence[float], noise: float = 0.0, seed: int = 0
) -> list[Ranking]:
    """All of it ranked by somebody who likes its checkpoints so much, in their order; the places are left."""
    chances = random.Random(seed)
    liked = {each.pk: value for each, value in zip(faceoff.checkpoints, taste, strict=True)}
    made = []
    for quintet in faceoff.quintets.prefetch_related("rollouts"):
        felt = [liked[each.checkpoint_id] + chances.gauss(0, noise) for each in quintet.rollouts.all()]
        ranks = [1 + sum(other > each for other in felt) for each in felt]
        made.append(quintet.record_ranking(by, None, ranks, ties=True))
    return made
