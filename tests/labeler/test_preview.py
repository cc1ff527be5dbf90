"""What a run will take, before it is launched: what stops it, what is warned of, how estimates are known."""

import json
import shutil
import struct
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from labeler import capacity, footprint
from labeler.capacity import Capacity
from labeler.demo import HERE
from labeler.models import Checkpoint, Prompt, Request, Run, Step
from rlhf import config
from rlhf.config import Refused
from tests.labeler.scripted import meanwhile

HTMX = {"headers": {"HX-Request": "true"}}
ROOMY, TIGHT = 10**12, 600_000_000


@pytest.fixture
def start(project, home) -> Checkpoint:
    """The demo's model, which has 256 positions and 707,200 weights."""
    folder = home / "checkpoints" / "small"
    shutil.copytree(HERE / "checkpoint", folder, dirs_exist_ok=True)
    project.start = Checkpoint.objects.create(project=project, name="Small", location="checkpoints/small")
    project.run_defaults = {"policy": {"max_new_tokens": 40}, "rollouts": {"max_new_tokens": 40}}
    project.save()
    Prompt.objects.create(project=project, content="Write a joke about pelicans.")
    return project.start


@pytest.fixture
def reward_model(project, start) -> Checkpoint:
    kind = Checkpoint.Kind.REWARD
    return Checkpoint.objects.create(project=project, kind=kind, name="Taste", location=start.location)


@pytest.fixture
def machine(monkeypatch):
    """`machine(bytes)`: the worker's memory from now on."""

    def has(memory: int, cards: list | None = None, room: int = ROOMY) -> None:
        monkeypatch.setattr(capacity, "told", lambda: Capacity("here", memory, 2, cards or []))
        monkeypatch.setattr(capacity, "room", lambda: room)

    has(ROOMY)
    return has


def launch(project, kind: str, **values) -> Run:
    return Run.objects.launch(project, kind, values, None)


def filled(form) -> dict:
    return {
        each.name: each.value() for each in form if each.value() is not None and each.value() is not False
    }


def shown(client, project, kind: str, **changed) -> str:
    form = client.get(reverse("run_new", args=[project.slug, kind])).context["form"]
    values = filled(form) | changed
    answer = client.get(reverse("run_new", args=[project.slug, kind]), values, **HTMX)
    return " ".join(answer.content.decode().split())


def test_weights_are_counted_in_their_own_header(start, home):
    header = json.loads((home / start.location / "config.json").read_text())
    known = footprint.model(start.folder)
    assert known and known.context == header["max_position_embeddings"] == 256
    with open(home / start.location / "model.safetensors", "rb") as file:
        file.seek(0, 2)
        assert 0 < file.tell() - known.weights < 20_000, "all but the header are weights in fp32"


def test_where_the_project_says_nothing_a_rollout_leaves_half_of_the_model_to_the_prompt(
    project, start, reward_model, as_admin
):
    assert project.defaults_of("rollouts")["max_new_tokens"] == 40
    project.run_defaults = {"reward": {"epochs": 2}}
    project.save()
    for kind in ("rollouts", "policy"):
        assert launch(project, kind).config["max_new_tokens"] == 128
        form = as_admin.get(f"/runs/new/{project.slug}/{kind}/").content.decode()
        assert 'name="max_new_tokens" value="128"' in form and "leaves no room" not in form
    assert project.own_defaults("sft") == {"max_new_tokens": 128}
    assert project.own_defaults("reward") == {"epochs": 2}


@pytest.mark.parametrize("broken", [b"", b"\xff" * 40, struct.pack("<Q", 5) + b"[1,2]", struct.pack("<Q", 9)])
def test_nothing_is_claimed_of_weights_that_cannot_be_read(start, home, broken):
    (home / start.location / "model.safetensors").write_bytes(broken)
    (home / start.location / "config.json").write_text('{"num_hidden_layers": 2, "hidden_size": 8}')
    assert footprint.model(start.folder) is None


def test_a_run_larger_than_the_memory_is_refused_before_anything_is_loaded(project, reward_model, machine):
    machine(TIGHT)
    with pytest.raises(Refused) as refused:
        launch(project, "policy", micro_batch=64, max_new_tokens=200)
    assert refused.value.field == "micro_batch" and "at once should fit" in refused.value.message
    machine(400_000_000)
    with pytest.raises(Refused, match=r"holds .* before it computes anything, .* train adapters"):
        launch(project, "policy")
    assert not Run.objects.exists()


def test_a_card_is_what_a_run_on_it_has(project, reward_model, machine):
    machine(ROOMY, [("Small card", 400_000_000)])
    with pytest.raises(Refused, match="Small card has 400 MB"):
        launch(project, "policy")
    assert launch(project, "policy", device="cpu").state == "queued"


def test_what_may_not_fit_is_a_warning_and_no_refusal(project, reward_model, machine):
    need = launch(project, "policy", seed=1).foreseen
    assert need and not need.blocks and not need.warnings
    look = footprint.model(reward_model.folder)
    whole = footprint.memory(config.make("policy", {"max_new_tokens": 40}), look, look, 9, 9).whole
    machine(int(whole * 1.02))
    run = launch(project, "policy", seed=2)
    assert "It may run out." in " ".join(run.foreseen.warnings)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"micro_batch": 48}, "micro_batch", "do not divide into portions of 48: take 32 or 64 at once"),
        ({"max_new_tokens": 256}, "max_new_tokens", "leaves no room for a prompt in the 256 tokens"),
        ({"max_new_tokens": 253}, "max_new_tokens", "5 words, each a token at least"),
    ],
)
def test_what_cannot_go_well_is_refused_by_form_and_command_alike(
    as_admin, project, reward_model, machine, values, field, words
):
    with pytest.raises(Refused, match=words) as refused:
        launch(project, "policy", **values)
    assert refused.value.field == field
    assigned = [f"{name}={value}" for name, value in values.items()]
    with pytest.raises(CommandError, match=words):
        call_command("launch", "policy", project=project.slug, values=assigned)
    said = shown(as_admin, project, "policy", **values)
    assert words in said and "It cannot be launched like this." in said
    form = as_admin.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    sent = filled(form) | values
    answer = as_admin.post(reverse("run_new", args=[project.slug, "policy"]), sent)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not Run.objects.exists()


def test_a_portion_that_nobody_chose_is_only_warned_of(project, reward_model, machine):
    run = launch(project, "policy", prompts_per_step=10)
    assert "the last portion has 16. The result is the same." in run.foreseen.warnings[0]


def test_checkpoints_without_room_are_refused(project, reward_model, machine):
    machine(ROOMY, room=50_000_000)
    with pytest.raises(Refused, match="keep fewer, or make room") as refused:
        launch(project, "policy", steps=300)
    assert refused.value.field == "checkpoint_every"
    assert launch(project, "policy", steps=300, checkpoint_every=100).state == "queued"


def test_a_queue_that_is_kept_filled_does_without_runs_that_cannot_go_well(project, start, machine):
    project.keep_waiting = 5
    project.save()
    machine(1_000)
    assert Run.objects.top_up(project) is None
    machine(ROOMY)
    assert Run.objects.top_up(project).state == "queued"


def test_where_no_worker_has_told_its_memory_the_preview_says_so(as_admin, project, reward_model, home):
    (home / "worker.json").unlink(missing_ok=True)
    assert "No worker has told yet what memory it has" in shown(as_admin, project, "policy")


def test_a_worker_tells_what_its_machine_has(home):
    capacity.tell()
    told = capacity.told()
    assert told and told.memory > 10**8 and told.threads >= 1
    (home / "worker.json").write_text('{"host": 1}')
    assert capacity.told() is None


def test_time_is_known_by_an_earlier_run_and_scaled(as_admin, project, reward_model, start, machine):
    assert "no run like this has finished here yet" in shown(as_admin, project, "policy")
    now = timezone.now()
    known = {"state": "finished", "start": start, "reward_model": reward_model, "step": 10, "total": 10}
    values = config.as_dict(config.make("policy", {"steps": 10, "max_new_tokens": 40}))
    run = Run.objects.create(project=project, kind="policy", config=values, **known)
    Run.objects.filter(pk=run.pk).update(started_at=now - timedelta(seconds=50), finished_at=now)
    for step in range(1, 11):
        Step.objects.create(run=run, step=step, metrics={"seconds": 4.0 * step, "length": 20})
    said = shown(as_admin, project, "policy", steps="90")
    assert "about 6 min" in said and f"going by run {run.pk}, which took 50 s" in said
    half = shown(as_admin, project, "policy", steps="90", max_new_tokens="10")
    assert "about 3 min" in half, "rollouts of half the length take half the time"
    start.location = "checkpoints/elsewhere"
    start.save()
    assert "not known" in shown(as_admin, project, "policy"), "nothing is said of a model of another size"


def test_a_try_is_asked_of_the_worker_and_shown_once_it_is_answered(as_admin, project, reward_model, machine):
    form = as_admin.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    sent = filled(form)
    url = reverse("run_try", args=[project.slug, "policy"])
    said = " ".join(as_admin.post(url, sent, **HTMX).content.decode().split())
    assert "Waiting for the worker" in said and "every 1s" in said and "<html" not in said
    as_admin.post(url, sent, **HTMX)
    asked = Request.objects.get(kind="try")
    assert asked.question["train"] and asked.question["max_new_tokens"] == 40
    answer = {"device": "cpu (2 threads)", "loading": 1.0, "sampled": 1000.0, "trained": 2000.0}
    answer |= {"longest": 9, "rows": 8, "each": 3_000_000}
    Request.objects.filter(pk=asked.pk).update(state="answered", answer=answer)
    said = shown(as_admin, project, "policy", steps="100")
    # 64 rollouts: 40 tokens are written at 1,000 a second, and 5/3 passes over 49 are made at 2,000.
    assert "about 9 min" in said and "by a try with 8 rows on cpu (2 threads)" in said
    assert "by a try and arithmetic" in said and "3.0 MB for each rollout at once" in said
    assert "every 1s" not in said and "Try it again" in said
    said = shown(as_admin, project, "policy", max_new_tokens="250")
    assert "The longest prompt has 9 tokens" in said, "the worker has counted them"


@pytest.mark.django_db(transaction=True)
def test_two_presses_at_once_try_it_once(admin, project):
    question = {"checkpoint": 1, "train": True, "prompts": []}
    with transaction.atomic():
        first = Request.objects.ask_to_try(project, question, admin)
        second: list[Request] = []
        thread = meanwhile(lambda: second.append(Request.objects.ask_to_try(project, question, admin)))
        thread.join(0.5)
    thread.join()
    assert second == [first] and Request.objects.count() == 1
    other = Request.objects.ask_to_try(project, question | {"train": False}, admin)
    assert other != first, "another kind of work"


def test_a_page_without_javascript_shows_the_whole_form_after_a_try(as_admin, project, reward_model, machine):
    form = as_admin.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    sent = filled(form) | {"steps": "77"}
    said = as_admin.post(reverse("run_try", args=[project.slug, "policy"]), sent).content.decode()
    assert 'value="77"' in said and "Waiting for the worker" in said and not Run.objects.exists()


def test_warnings_are_told_on_the_command_line_and_stop_nothing(project, reward_model, machine, capsys):
    call_command("launch", "policy", project=project.slug, values=["prompts_per_step=10"])
    said = capsys.readouterr()
    assert "the last portion has 16" in said.err and "is queued" in said.out
    assert Run.objects.get().state == "queued"
