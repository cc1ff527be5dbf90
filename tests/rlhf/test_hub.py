"""A start from the Hub, against a small Hub of our own that speaks its protocol."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import json, sys
from rlhf.checkpoint import Unloadable
from rlhf.run import RunDirectory

for path, start in json.load(sys.stdin):
    run = RunDirectory(path)
    try:
        print(json.dumps(str(run.input(start))))
    except Unloadable as error:
        print(json.dumps(error.reason))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """One model, org/tiny, and one with pickled weights only, org/pickled."""

    files: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer()

    def answer(self, body=True):
        self.asked.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.tell_of("/".join(parts[2:4]), parts[-1] if "revision" in parts else "main", body)
        name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if revision != COMMIT or file not in self.files.get(name, {}):
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        content = self.files[name][file]
        self.reply(
            200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, body
        )

    def tell_of(self, name, revision, body):
        if name not in self.files:
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if revision not in ("main", COMMIT):
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        siblings = [{"rfilename": file} for file in self.files[name]]
        self.reply(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), {}, body)

    def reply(self, status, content, headers, body):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """Nobody reads it."""


@pytest.fixture
def hub(policy_folder):
    Hub.asked = []
    Hub.files = {
        "org/tiny": {path.name: path.read_bytes() for path in policy_folder.iterdir()}
        | {
            "pytorch_model.bin": b"pickle",
            "modeling_own.py": b"exit()",
            "original/model.safetensors": b"twice",
        },
        "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def starts(endpoint, home, *wanted):
    """What the runs at these paths find when they start from these names: a folder, or a reason why not."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    asked = []
    for path, start in wanted:
        path.mkdir(exist_ok=True)
        asked.append([str(path), start])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(asked), env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_weights_configs_and_tokenizer_come_from_one_commit_and_nothing_else(hub, policy_folder, tmp_path):
    run = tmp_path / "run"
    first, again, nothing, revision, pickled = starts(
        hub,
        tmp_path / "home",
        (run, "hub:org/tiny@main"),
        (run, "hub:org/tiny@main"),
        (tmp_path / "nothing", "hub:org/nothing@main"),
        (tmp_path / "revision", "hub:org/tiny@v9"),
        (tmp_path / "pickled", "hub:org/pickled@main"),
    )
    there = run / "inputs" / "policy"
    assert first == again == str(there)
    assert nothing == "The Hub has no model org/nothing."
    assert revision == "org/tiny has no revision v9."
    assert "no safetensors weights" in pickled
    assert [path.name for path in there.parent.iterdir()] == ["policy"]
    names = {path.name for path in policy_folder.iterdir()}
    assert {path.name for path in there.iterdir()} == names | {"quintet.json"}
    assert (there / "model.safetensors").read_bytes() == (policy_folder / "model.safetensors").read_bytes()
    known = json.loads((there / "quintet.json").read_text())
    assert (known["hub"], known["revision"]) == ("org/tiny", COMMIT)
    fetched = {Path(path).name for path in Hub.asked if "/resolve/" in path}
    assert not {"pytorch_model.bin", "modeling_own.py"} & fetched


def test_without_a_network_it_is_told_in_words(tmp_path):
    (found,) = starts("http://127.0.0.1:9", tmp_path / "home", (tmp_path / "run", "hub:org/tiny@main"))
    assert "org/tiny could not be downloaded" in found
    assert json.loads((tmp_path / "run" / "status.json").read_text())["phase"] == "downloading"
