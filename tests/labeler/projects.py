"""A project with something in it, and its form as somebody fills it in."""

import json

import pytest

from labeler.models import Checkpoint, Place, Project, Prompt, Quintet, Round, User


@pytest.fixture
def start(project) -> Checkpoint:
    project.start = Checkpoint.objects.create(name="Tiny", location="demo/checkpoint")
    project.save()
    return project.start


def sample(project: Project, quintets: int) -> None:
    prompt, _ = Prompt.objects.get_or_create(project=project, content="Write a joke.")
    for _ in range(quintets):
        Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))


def rank(project: Project, labeler: User, quintets: int) -> None:
    for _ in range(quintets):
        place = Place.objects.next_for(labeler, project)
        place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key)


SETTINGS = {
    "wider_overlap": 3,
    "wider_share": "0",
    "queue": "imported",
    "random_share": "0.2",
    "session_goal": 20,
    "gold_rate": "0.05",
    "repeat_rate": "0.03",
    "checks": "report",
    "gold_pass": "0.7",
    "repeat_pass": "0.6",
    "practice_pass": "0.7",
    "fooled": "warn",
}


def sent(**values) -> dict:
    fields = {"name": "Limericks", "guidelines": "Funny.", "overlap": 1, "keep_waiting": 20}
    return fields | SETTINGS | {"start_from": "later", "prompts": "one\ntwo"} | values


def saved_model(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]} | config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


EDIT = "/projects/pelican-jokes/edit/"
