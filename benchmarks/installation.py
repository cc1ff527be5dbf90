"""A Quintet of its own for a measurement: `bin/up` in a temporary home, and a visitor who talks HTTP to it.

The visitor keeps one connection and fills in forms as a browser without JavaScript would. No browser here.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "measured, not guessed"
READY = "Quintet is ready at "
PATIENCE = 120.0  # seconds for a start
AN_ANSWER = 60.0  # seconds for a page


class Unexpected(RuntimeError):
    """The installation did not do what a measurement needs; the message says what it did."""


@dataclass
class Installation:
    home: Path
    url: str
    seconds: float  # from the command to the page

    def manage(self, *arguments: str) -> str:
        """What a command of bin/manage prints."""
        done = subprocess.run(
            [ROOT / "bin/manage", *arguments],
            env=os.environ | {"QUINTET_HOME": str(self.home)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Unexpected(f"bin/manage {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def installation() -> Iterator[Installation]:
    """`bin/up` from an empty home; ended by Ctrl-C's signal, its home removed."""
    with tempfile.TemporaryDirectory(prefix="quintet-measured-") as folder:
        os.chmod(folder, 0o711)  # started as root, Postgres's own account passes through it to the data
        began = time.perf_counter()
        process = subprocess.Popen(
            [ROOT / "bin/up", "--home", folder, "--port", "0"],
            env=os.environ | {"QUINTET_ADMIN_PASSWORD": PASSWORD},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: list[str] = []
        ready = threading.Event()
        threading.Thread(target=_listen, args=(process, said, ready), daemon=True).start()
        try:
            if not ready.wait(PATIENCE) or not (line := next((each for each in said if READY in each), "")):
                raise Unexpected("bin/up did not get ready:\n" + "".join(said[-20:]))
            yield Installation(Path(folder), line.partition(READY)[2].strip(), time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _listen(process: subprocess.Popen, said: list[str], ready: threading.Event) -> None:
    """Read all that it says, so that its pipe never fills; ready also when it has ended."""
    for line in process.stdout or ():
        said.append(line)
        if READY in line:
            ready.set()
    ready.set()


@dataclass
class Page:
    status: int
    body: str
    location: str
    headers: Mapping[str, str]

    def form(self, name: str) -> dict[str, str]:
        """What the form that has a field of this name would send as it stands."""
        found = _Forms()
        found.feed(self.body)
        form = next((each for each in found.forms if name in each), None)
        if form is None:
            raise Unexpected(f"A page of status {self.status} has no form with a field “{name}”.")
        return form


@dataclass
class Visitor:
    """A person at an installation: one connection, the cookies, pages and forms."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection = HTTPConnection(urlsplit(self.url).netloc, timeout=AN_ANSWER)

    def sign_in(self) -> "Visitor":
        address = "/account/sign-in/"
        sent = self.get(address).form("username") | {"username": "admin", "password": PASSWORD}
        if self.post(address, sent).status != 302:
            raise Unexpected("The admin could not sign in.")
        return self

    def get(self, address: str, **headers: str) -> Page:
        return self._ask("GET", address, None, headers)

    def post(self, address: str, values: Mapping[str, str], **headers: str) -> Page:
        headers |= {"Content-Type": "application/x-www-form-urlencoded", "Referer": self.url + address}
        return self._ask("POST", address, urlencode(values), headers)

    def _ask(self, method: str, address: str, body: str | None, headers: dict[str, str]) -> Page:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.connection.request(method, address, body, headers | ({"Cookie": cookies} if cookies else {}))
        answer: HTTPResponse = self.connection.getresponse()
        text = answer.read().decode()
        for header in answer.headers.get_all("Set-Cookie", []):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
        return Page(answer.status, text, answer.headers.get("Location", ""), dict(answer.headers))


class _Forms(HTMLParser):
    """The values of each form's fields: inputs, the chosen options, ticked boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append({})
        if not self.forms:
            return
        form, name, value = self.forms[-1], given.get("name", ""), given.get("value", "")
        if tag == "select":
            self.select = name
        elif tag == "option" and self.select and ("selected" in given or self.select not in form):
            form[self.select] = value
        elif tag == "input" and name and given.get("type") in ("checkbox", "radio"):
            if "checked" in given:
                form[name] = value or "on"
        elif tag == "input" and name:
            form[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self.select = ""
