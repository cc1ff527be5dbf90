"""People and a project, as small as they can be, for tests to add to; and real worker processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from django.test import Client

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "quite a long password"
JOKES = ["the first joke", "the second joke", "the third joke", "the fourth joke", "the fifth joke"]


@pytest.fixture
def admin(db):
    from labeler.models import User

    return User.objects.create_user("ada", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def labeler(db):
    from labeler.models import User

    return User.objects.create_user("lena", password=PASSWORD)


@pytest.fixture
def stranger(db):
    """A labeler who belongs to no project."""
    from labeler.models import User

    return User.objects.create_user("otto", password=PASSWORD)


@pytest.fixture
def project(admin, labeler):
    """A project that `admin` made and `labeler` ranks in; no prompts, no starting model."""
    from labeler.models import Membership, Project

    project = Project.objects.create(name="Pelican jokes", slug="pelican-jokes", created_by=admin)
    Membership.objects.create(project=project, user=labeler)
    return project


@pytest.fixture
def compose(project):
    """`compose(3)`: so many quintets of five jokes in the current round, each on a prompt of its own."""
    from labeler.models import Prompt, Quintet, Round

    def quintets(count: int = 1, texts: Sequence[str] = JOKES, **options) -> list[Quintet]:
        round, begin = Round.objects.current(project), project.prompts.count() + 1
        numbers = range(begin, begin + count)
        prompts = [
            Prompt.objects.create(project=project, content=f"Joke number {n}, please.") for n in numbers
        ]
        return [Quintet.objects.compose(project, round, prompt, texts, **options) for prompt in prompts]

    return quintets


@pytest.fixture
def new_ranking(project, labeler):
    """`new_ranking(ranks, prompt=…, by=…, round=…, texts=…, **fields)`: of a quintet of its own, or of
    `quintet`."""
    from labeler.models import Quintet, Ranking, Round

    def made(ranks=(1, 2, 3, 4, 5), *, quintet=None, prompt=None, by=labeler, round=1, texts="abcde", **more):
        if quintet is None:
            of, _ = Round.objects.get_or_create(project=project, number=round)
            prompt = prompt or f"Joke {project.quintets.count()}"
            content, _ = project.prompts.get_or_create(content=prompt)
            quintet = Quintet.objects.compose(project, of, content, list(texts)[: len(ranks)], places=0)
        said = {"ranks": list(ranks), "simulated": by.simulated, **more}
        return Ranking.objects.create(quintet=quintet, labeler=by, **said)

    return made


@pytest.fixture
def no_bell(monkeypatch) -> None:
    """Whoever asks something rings for nobody: the test calls the worker, or none comes."""
    monkeypatch.setattr("labeler.models.requests.ring", lambda *_: None)


@pytest.fixture
def warm_child(monkeypatch, home, no_bell):
    """`warm_child(script, "Start")`: this script answers in the place of the warm child, and checkpoints of
    these names have a folder."""
    from labeler.warm import Warm, warm

    warm.stop()  # whom another test has left

    def choose(script: str, *names: str) -> Warm:
        for name in names:
            (home / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(Warm, "COMMAND", (sys.executable, "-c", script))
        return warm

    yield choose
    warm.stop()


@pytest.fixture
def as_admin(admin) -> Client:
    client = Client()
    client.force_login(admin)
    return client


@pytest.fixture
def as_labeler(labeler) -> Client:
    client = Client()
    client.force_login(labeler)
    return client


@pytest.fixture
def as_stranger(stranger) -> Client:
    client = Client()
    client.force_login(stranger)
    return client


class Worker:
    """`manage.py worker` on the test database: both nodes, with all that they start."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "manage.py", "worker"],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    def stop(self, seconds: float = 30) -> None:
        """As Ctrl-C would; by force where that takes too long. Its nodes end with it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGINT)
                self.process.wait(10)

    def kill(self, *spared: int) -> None:
        """All of it, at once, with `kill -9`."""
        if self.process and self.process.poll() is None:
            for pid in self.processes():
                if pid not in spared:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def processes(self) -> list[int]:
        """The supervisor, the nodes, their pools and what those have started."""
        assert self.process
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended since
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def wait_until(self, true, seconds: float = 60):
        """What `true()` gave once it was; a failure shows what the worker said."""
        deadline = time.monotonic() + seconds
        while not (found := true()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s; the worker said:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)
        return found


@pytest.fixture
def worker(transactional_db, tmp_path) -> Iterator[Worker]:
    worker = Worker(tmp_path / "worker.log")
    worker.start()
    yield worker
    worker.kill()  # it would take some seconds to stop
