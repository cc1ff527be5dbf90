"""The commands themselves, as a person runs them: bin/up, bin/manage, and what they say when they cannot.
Killed pieces come back, and an ended start leaves nothing behind."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("DATABASE_URL", "CELERY_BROKER_URL", "PYTHONPATH")
ROOT_USER = os.geteuid() == 0


def plain_environment(**more: str) -> dict[str, str]:
    """Without what these tests' own database has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUINTET_")}
    return {name: value for name, value in kept.items() if name not in OURS} | more


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("QUINTET_HOME", "")]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(str(home) in word for word in words):
            found.append(process)
    return found


def wait_for(true: Callable, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


class Up:
    """A `bin/up` on its home, and what it says."""

    def __init__(self, home: Path, log: Path) -> None:
        self.home, self.log, self.greeting = home, log, ""
        self.process: subprocess.Popen | None = None

    def start(self, *options: str, **more: str) -> float:
        """Until it is ready; how long that took."""
        began = time.monotonic()
        self.log.write_text("")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [ROOT / "bin/up", "--home", self.home, "--port", "0", "--no-demo", *options],
                env=plain_environment(**more),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: self.address or self.process.poll() is not None)
        assert self.address, self.said
        return time.monotonic() - began

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(90)

    def stop_at_once(self) -> None:
        """The signal twice."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.6)
            self.stop(signal.SIGINT)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def address(self) -> str:
        found = re.search(r"^Quintet is ready at (\S+)$", self.said, re.MULTILINE)
        return found[1] if found else ""

    def status(self, path: str = "/health/") -> int:
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as answer:
                return answer.status
        except OSError:
            return 0

    def child(self, *words: str) -> psutil.Process | None:
        """The eldest process whose command has these words."""
        found = [p for p in processes_of(self.home) if all(word in command_of(p) for word in words)]
        return min(found, key=lambda p: p.create_time(), default=None)


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""  # it has ended since it was found


def fresh_home() -> Path:
    """Short, and open to the account that runs Postgres for root."""
    return Path("/tmp") / f"quintet-up-{os.getpid()}-{time.monotonic_ns()}"


def clear(home: Path) -> None:
    for process in processes_of(home):
        process.kill()
    if home.exists():
        shutil.rmtree(home)


@pytest.fixture
def home() -> Iterator[Path]:
    home = fresh_home()
    yield home
    clear(home)


@pytest.fixture
def up(home: Path, tmp_path: Path) -> Iterator[Up]:
    up = Up(home, tmp_path / "up.log")
    yield up
    up.stop_at_once()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that was started already, for tests that leave it running."""
    up = Up(fresh_home(), tmp_path_factory.mktemp("running") / "up.log")
    up.start(QUINTET_ADMIN_PASSWORD="chosen beforehand")
    wait_for(lambda: "password" in up.said)
    up.greeting = up.said
    yield up
    up.stop_at_once()
    clear(up.home)


def manage(home: Path, *words: str) -> str:
    done = subprocess.run(
        [ROOT / "bin/manage", *words],
        env=plain_environment(QUINTET_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refusal(*words: str | Path, folder: Path = ROOT, **more: str) -> str:
    """What a command that must fail says: one sentence or two on one line, and no traceback."""
    done = subprocess.run(
        [folder / words[0], *words[1:]],
        env=plain_environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode not in (0, 126, 127), done.stdout
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


COUNT_PEOPLE = "from labeler.models import User; print(User.objects.count())"


def test_a_second_start_is_quick_and_has_lost_nothing(up: Up):
    up.start()
    assert re.search(r"name: +admin\n +password: \S{12,}", up.said)
    assert up.status("/account/sign-in/") == 200
    # bin/manage reaches the same database beside it, and leaves it running.
    manage(up.home, "create_admin", "second")
    assert manage(up.home, "shell", "--verbosity", "0", "-c", COUNT_PEOPLE) == "1"
    assert up.status() == 200

    assert up.stop(signal.SIGINT) == 0
    assert processes_of(up.home) == []

    others = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert up.start() < 5 * others  # 5 s for a machine that does nothing else
    assert up.said.startswith("Quintet is ready")  # nothing was made again before
    assert "password" not in up.said
    assert manage(up.home, "shell", "--verbosity", "0", "-c", COUNT_PEOPLE) == "1"
    assert up.stop(signal.SIGTERM) == 0
    assert processes_of(up.home) == []

    # Without bin/up a command starts the database for itself, and stops it again.
    assert manage(up.home, "shell", "--verbosity", "0", "-c", COUNT_PEOPLE) == "1"
    assert processes_of(up.home) == []


def test_a_password_that_was_chosen_is_not_shown(running: Up):
    assert "password: the one you set" in running.greeting
    assert "chosen beforehand" not in running.greeting


def test_killed_pieces_come_back(running: Up):
    up = running
    for words in (("bin/postgres", "-D"), ("gunicorn", "labeler.wsgi"), ("--queues runs",)):
        old = wait_for(lambda words=words: up.child(*words))
        old.kill()
        began = time.monotonic()
        new = wait_for(lambda words=words, old=old: (c := up.child(*words)) and c.pid != old.pid and c)
        wait_for(lambda: up.status("/account/sign-in/") == 200)
        assert time.monotonic() - began < 10, words
        assert new.is_running()


def names_of(processes: list[psutil.Process]) -> Iterator[str]:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            yield each.name()


def test_when_bin_up_itself_is_killed_its_children_end_and_the_next_start_works(running: Up):
    up = running
    wait_for(lambda: up.child("--queues runs"))
    up.process.kill()
    up.process.wait()
    # Postgres stays, for nobody told it to go; all else ends with its parent.
    wait_for(lambda: set(names_of(processes_of(up.home))) <= {"postgres"}, seconds=60)
    up.start()
    assert up.status("/account/sign-in/") == 200


def test_web_and_worker_parents_stay_small(running: Up):
    for words in (("gunicorn",), ("--queues runs",), ("--queues interactive",)):
        process = wait_for(lambda words=words: running.child(*words))
        for each in [process, *process.children()]:
            assert each.memory_full_info().uss < 150 * 2**20, words


def test_a_taken_port_is_said(home: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("bin/up", "--home", home, "--port", str(port))
    assert said == f"Port {port} is taken by another program: stop it, or choose another port with --port."


def test_a_second_start_on_one_home_is_refused(running: Up):
    said = refusal("bin/up", "--home", running.home, "--port", "0")
    assert said.startswith(f"Quintet runs already on {running.home}: stop it first")


def test_a_home_of_someone_else_is_refused(tmp_path: Path):
    foreign = tmp_path
    if ROOT_USER:
        os.chown(foreign, 65534, 65534)
    else:
        foreign = Path("/")
    assert f"The home {foreign} belongs to" in refusal("bin/up", "--home", foreign, "--port", "0")


def test_a_home_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "choose another with --home" in refusal("bin/up", "--home", tmp_path / "file/home")


def test_an_address_of_another_machine_is_refused(home: Path):
    assert "name an address of this machine" in refusal("bin/up", "--home", home, "--host", "192.0.2.1")


# bin/setup, in a clone without .venv


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in ("bin", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder)
    return tmp_path / "clone"


def program(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old_is_said(clone: Path):
    old = program(clone / "old/python", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    assert refusal("bin/up", folder=clone, PYTHON=old) == (
        "Quintet needs Python 3.11 or newer, and this machine has 3.9: install a newer one, "
        "or name one in PYTHON."
    )


def test_no_python_at_all_is_said(clone: Path):
    assert "found none: install it" in refusal("bin/up", folder=clone, PYTHON="/nowhere/python")


def test_a_missing_venv_module_is_said(clone: Path):
    bare = program(clone / "bare/python", 'case "$2" in *print*) echo 3.12 ;; *venv*) exit 1 ;; esac')
    assert "apt install python3-venv" in refusal("bin/up", folder=clone, PYTHON=bare)


def test_a_full_disk_is_said(clone: Path):
    program(clone / "small/df", "echo Filesystem; echo /dev/x 100 100 1000 99% /")
    path = f"{clone / 'small'}:{os.environ['PATH']}"
    assert "Too little disk space for the packages" in refusal("bin/up", folder=clone, PATH=path)


def test_a_missing_network_is_said(clone: Path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}
    assert "check the network" in refusal("bin/up", folder=clone, PIP_FIND_LINKS="", **nowhere)
