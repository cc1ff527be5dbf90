"""What `bin/manage doctor` finds, well and ill, through the command."""

import json

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from labeler import doctor
from labeler.models import Checkpoint, Run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def examined(capsys, monkeypatch):
    """`examined()`: each finding by what it is about, and whether the command ended well."""
    monkeypatch.setattr(doctor, "AN_ANSWER", 0.3)
    monkeypatch.setattr(doctor, "ASK_TORCH", ASKED)

    def look() -> tuple[dict[str, dict], bool]:
        well = True
        try:
            call_command("doctor", "--json")
        except CommandError:
            well = False
        said = json.loads(capsys.readouterr().out)
        assert said["well"] == well
        return {each["about"]: each for each in said["findings"]}, well

    return look


# What a machine with a card answers; the real question takes seconds, and is asked once, below.
ASKED = """
import json
print(json.dumps({"torch": "2", "threads": 2, "mps": False, "cards": [["A card", 80_000_000_000]]}))
"""


def test_a_worker_that_is_there_comes_when_it_is_called(examined, worker, monkeypatch):
    monkeypatch.setattr(doctor, "AN_ANSWER", 30)
    found, well = examined()
    assert well, [each for each in found.values() if each["state"] != "well"]
    assert found["Worker, runs"]["said"] == found["Worker, interactive"]["said"] == "came when it was called"
    assert found["Database"]["said"].startswith("Postgres ")
    assert found["Training"]["said"] == "torch 2 on A card with 80 GB"


def test_without_a_worker_it_is_said_what_starts_one(examined):
    found, well = examined()
    assert not well
    assert found["Broker"]["state"] == "well"
    assert found["Worker, runs"]["state"] == "ill"
    assert "bin/up starts one" in found["Worker, runs"]["remedy"]


def test_a_worker_that_trains_is_at_work_and_not_away(examined, project):
    run = project.runs.create(kind="sft")
    assert Run.objects.claim(run.pk, "a worker")
    found, _ = examined()
    assert found["Worker, runs"]["said"] == f"at work on run {run.pk}"
    assert found["Worker, interactive"]["state"] == "ill"


def test_a_broker_that_is_away_is_named(examined, monkeypatch):
    def send_task(*args, **options):
        raise OSError("Connection refused")

    monkeypatch.setattr(doctor.app, "send_task", send_task)
    found, well = examined()
    assert not well and "does not answer: Connection refused" in found["Broker"]["said"]
    assert "Worker, runs" not in found, "nothing can be said of it"


def test_a_database_that_is_away_is_named_and_nothing_is_asked_of_it(examined, monkeypatch):
    def cursor():
        raise doctor.DatabaseError("connection failed\nmore")

    monkeypatch.setattr(doctor.connection, "cursor", cursor)
    found, well = examined()
    assert not well and found["Database"]["said"] == "It does not answer: connection failed"
    assert "Tables" not in found


def test_a_checkpoint_whose_folder_is_gone_is_named(examined, project):
    Checkpoint.objects.create(project=project, name="The lost one", location="nowhere/at/all")
    found, _ = examined()
    assert found["Models"]["state"] == "ill" and "The lost one" in found["Models"]["said"]


def test_a_secret_that_others_can_read_is_told_with_its_remedy(examined):
    path = settings.HOME / "secret-key"
    path.write_text("x" * 64)
    path.chmod(0o644)
    try:
        found, well = examined()
        assert not well and f"chmod 600 {path}" in found["Home"]["remedy"]
    finally:
        path.unlink()


@pytest.mark.parametrize(("free", "state"), [(10**12, "well"), (10**9, "care"), (10**8, "ill")])
def test_a_disk_that_fills_is_told_before_it_is_full(examined, monkeypatch, free, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(free))
    assert examined()[0]["Disk"]["state"] == state


class Usage:
    def __init__(self, free: int):
        self.free = free


def test_what_trains_is_asked_of_the_real_torch(settings):
    said = doctor.trainer()
    assert said.state == "well" and said.said.startswith("torch 2.")


def test_torch_that_is_not_there_is_no_fault_of_a_web_server(monkeypatch):
    monkeypatch.setattr(doctor, "ASK_TORCH", "import no_such_thing")
    said = doctor.trainer()
    assert said.state == "care" and "No module named 'no_such_thing'" in said.said


def test_lines_for_people_say_what_to_do(examined, capsys):
    with pytest.raises(CommandError, match=r"^Not well: Worker, runs, Worker, interactive\.$"):
        call_command("doctor")
    said = capsys.readouterr().out
    assert "✓ Database" in said and "✗ Worker, runs" in said and "→ bin/up starts one" in said
