"""Commands that refuse: one line in words on stderr, and no more."""

import os
import subprocess
import sys

import pytest

from tests.labeler.fixtures import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["launch", "reward", "--project", "nowhere"], 1, "There is no project “nowhere”.\n"),
        (["export", "nowhere"], 1, "There is no project nowhere.\n"),
        (["import_rankings", "gone.jsonl", "--project", "new-one"], 1, "gone.jsonl cannot be read:"),
        (
            ["launch", "reward"],
            2,
            "manage.py launch: the following arguments are required: --project; --help",
        ),
        (["launch", "sing", "--project", "x"], 2, "manage.py launch: argument kind: invalid choice: 'sing'"),
    ],
)
def test_a_refused_command_says_one_line_in_words(command, status, said):
    ended = subprocess.run(
        [sys.executable, ROOT / "manage.py", *command],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == status and ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1 and "CommandError" not in ended.stderr


def test_help_is_still_at_length():
    command = [sys.executable, ROOT / "manage.py", "launch", "--help"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert ended.returncode == 0 and "--wait" in ended.stdout
