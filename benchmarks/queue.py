"""Fifty labelers at once over HTTP, against the production server that bin/up starts, in a large project.

Seeded first, by COPY: 100,000 prompts with 500,000 rollouts, each wanted by three labelers; then 1,000
likewise, to tell whether anything grows; then 2,500 that four labelers want, whose 10,000 places the fifty
fill without a pause, to count whether any is given twice. A labeler here does what the page does: submits,
with the next quintet in the answer; with time to think, keeps a draft in between; and loads the whole page
anew every third time, which is the `next` that is told. Clocks run from the first byte sent to the last one
read, in this process, which shares the server's cores.
"""

import asyncio
import json
import os
import random
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from benchmarks.installation import Installation, Unexpected, installation
from benchmarks.report import Figures, Rows, main

LABELERS = 50
BEFORE = 10.0  # seconds, until everybody is at their pace
MEASURED = 60.0
PROMPTS = {"large": 100_000, "small": 1_000, "race": 2_500}
OVERLAP = {"large": 3, "small": 3, "race": 4}
A_DRAFT = 2.0  # seconds of thought after which the page keeps a draft
RELOADED = 3  # every so many rankings
CSRF = "m" * 32

SEED = """
import hashlib, json, random, time
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, transaction
from labeler.models import Membership, Project, Quintet, Round, User

WORDS = "pelican beak boat fish harbour joke sailor storm umbrella bread why who never always over".split()
chances = random.Random(7)
text = lambda many: " ".join(chances.choices(WORDS, k=many))

def numbers(cursor, table, many):
    next_one = f"nextval(pg_get_serial_sequence('{table}', 'id'))"
    cursor.execute(f"SELECT {next_one} FROM generate_series(1, %s)", [many])
    return [row[0] for row in cursor.fetchall()]

def copy(cursor, table, columns, rows):
    with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as into:
        for row in rows:
            into.write_row(row)

def seed(slug, many, overlap):
    project = Project.objects.create(name=slug, slug=slug, overlap=overlap, keep_waiting=0)
    round = Round.objects.current(project)
    with transaction.atomic(), connection.cursor() as cursor:
        prompts, quintets = (numbers(cursor, f"labeler_{name}", many) for name in ("prompt", "quintet"))
        contents = [json.dumps(f"{slug} {number}: {text(12)}") for number in range(many)]
        digests = [hashlib.sha256(each.encode()).hexdigest() for each in contents]
        columns = "id, content, digest, project_id, created_at, answer, external_id, extra"
        always = (project.pk, round.created_at, "", "", "{}")
        rows = zip(prompts, contents, digests)
        copy(cursor, "labeler_prompt", columns, (row + always for row in rows))
        columns = "id, prompt_id, project_id, round_id, created_at, external_id, explanation, extra, "
        always = (project.pk, round.pk, round.created_at, "", "", "{}", "work", 0.0, "order")
        rows = zip(quintets, prompts)
        copy(cursor, "labeler_quintet", columns + "purpose, priority, arm", (row + always for row in rows))
        rows = ((pk, slot, text(chances.randint(20, 60))) for pk in quintets for slot in range(5))
        columns, always = "quintet_id, slot, text, finished, model, extra", (True, "", "{}")
        copy(cursor, "labeler_rollout", columns, (row + always for row in rows))
        project.quintets.enqueue(project)
    return project

began = time.monotonic()
projects = [seed(*each) for each in PLANNED]
seconds = time.monotonic() - began
with connection.cursor() as cursor:
    cursor.execute("ANALYZE")
sessions = []
for number in range(LABELERS):
    user = User.objects.create(username=f"labeler {number}", password="!")
    Membership.objects.bulk_create(Membership(project=each, user=user) for each in projects)
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session.create()
    sessions.append(session.session_key)
print(json.dumps({"seconds": seconds, "sessions": sessions}))
"""
COUNTED = """
import json
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute('''
        WITH quintets AS (
            SELECT quintet.id, count(*) AS rankings, count(DISTINCT labeler_id) AS labelers,
                count(*) FILTER (WHERE surplus) AS surplus
            FROM labeler_quintet quintet JOIN labeler_ranking ranking ON ranking.quintet_id = quintet.id
                JOIN labeler_project project ON project.id = quintet.project_id
            WHERE project.slug = 'race' AND ranking.purpose = 'work' GROUP BY 1
        ) SELECT sum(rankings), sum(greatest(rankings - 4, 0)), sum(surplus), sum(rankings - labelers)
        FROM quintets''')
    print(json.dumps([int(each or 0) for each in cursor.fetchone()]))
"""


@dataclass
class Heard:
    """How long the answers took, by what was asked; filled only while it is measured."""

    open: bool = False
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"next": [], "submit": [], "draft": []})

    def told(self) -> dict[str, dict[str, float]]:
        return {name: percentiles(each) for name, each in self.seconds.items() if len(each) > 1}


class Labeler:
    """One browser: a connection that is made anew where the server has closed it, a session, a form."""

    def __init__(self, url: str, session: str, slug: str, heard: Heard) -> None:
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.address, self.heard, self.ticket = f"/rank/{slug}/", heard, ""
        self.headers = f"Host: {self.host}:{self.port}\r\nCookie: sessionid={session}; csrftoken={CSRF}\r\n"
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.ranked, self.chances = 0, random.Random(session)

    async def work(self, think: float, until: float) -> None:
        """Rank until then, or until nothing waits. Nobody thinks for exactly as long as the others."""
        await asyncio.sleep(think * self.chances.random())
        await self.load()
        while self.ticket and time.monotonic() < until:
            pause = think * self.chances.uniform(0.5, 1.5)
            if pause > A_DRAFT:
                await asyncio.sleep(A_DRAFT)
                await self.ask("draft", "POST", f"{self.address}draft/", self.filled())
                pause -= A_DRAFT
            await asyncio.sleep(pause)
            self.read(await self.ask("submit", "POST", f"{self.address}submit/", self.filled()))
            self.ranked += 1
            if self.ranked % RELOADED == 0:
                await self.load()
        if self.writer:
            self.writer.close()

    async def load(self) -> None:
        self.read(await self.ask("next", "GET", self.address, ""))

    def read(self, page: str) -> None:
        found = re.search(r'name="ticket" value="([^"]+)"', page)
        self.ticket = found[1] if found else ""

    def filled(self) -> str:
        order = self.chances.sample("12345", 5)
        ranks = {f"rank-{letter}": rank for letter, rank in zip("abcde", order, strict=True)}
        return urlencode({"ticket": self.ticket} | ranks)

    async def ask(self, name: str, method: str, address: str, body: str) -> str:
        head = f"{method} {address} HTTP/1.1\r\n{self.headers}"
        if body:
            head += f"X-CSRFToken: {CSRF}\r\nHX-Request: true\r\nContent-Length: {len(body)}\r\n"
            head += "Content-Type: application/x-www-form-urlencoded\r\n"
        began = time.perf_counter()
        status, answer = await self.exchange(f"{head}\r\n{body}".encode())
        if status not in (200, 204):
            raise Unexpected(f"{method} {address} was answered with status {status}: {answer[:300]}")
        if self.heard.open:
            self.heard.seconds[name].append(time.perf_counter() - began)
        return answer

    async def exchange(self, request: bytes) -> tuple[int, str]:
        for _ in range(3):
            if self.reader is None or self.writer is None or self.writer.is_closing() or self.reader.at_eof():
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
            try:
                self.writer.write(request)
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = re.search(r"content-length: (\d+)", head)
                body = await self.reader.readexactly(int(length[1])) if length else b""
                if "connection: close" in head:
                    self.writer.close()
                return int(head.split()[1]), body.decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.writer = None  # closed while nobody asked: what is sent twice is kept once
        raise Unexpected("The server closes its connections without an answer.")


def percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    found = {"p50_ms": cuts[49], "p95_ms": cuts[94], "max_ms": max(seconds)}
    return {name: round(1000 * value, 1) for name, value in found.items()} | {"asked": len(seconds)}


async def crowd(quintet: Installation, sessions: list[str], slug: str, think: float) -> Heard:
    """All of them at their pace for a while."""
    heard, until = Heard(), time.monotonic() + BEFORE + MEASURED
    labelers = [Labeler(quintet.url, session, slug, heard) for session in sessions]
    working = asyncio.gather(*(each.work(think, until) for each in labelers))
    await asyncio.sleep(BEFORE)
    heard.open = True
    await working
    return heard


async def race(quintet: Installation, sessions: list[str]) -> float:
    """All places of the last project, as fast as they go: how many seconds that took."""
    began, heard = time.monotonic(), Heard()
    await asyncio.gather(
        *(Labeler(quintet.url, each, "race", heard).work(0, began + 3600) for each in sessions)
    )
    return time.monotonic() - began


def web_processes() -> Iterator[float]:
    """The memory of each of the web server's processes that answer, in MB."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if (
                b"labeler.wsgi" in words
                and int((folder / "stat").read_text().rpartition(") ")[2].split()[1]) > 1
            ):
                yield int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
        except (OSError, ValueError):
            continue  # it has ended since


def measure() -> tuple[Figures, Rows]:
    planned = [(slug, many, OVERLAP[slug]) for slug, many in PROMPTS.items()]
    given = f"PLANNED, LABELERS = {planned!r}, {LABELERS}\n"
    with installation() as quintet:
        seeded = json.loads(quintet.manage("shell", "--no-imports", "-c", given + SEED).splitlines()[-1])
        sessions, heard = seeded["sessions"], {}
        for slug, think in (("large", 10.0), ("large", 1.0), ("small", 1.0)):
            load = os.getloadavg()[0]
            told = asyncio.run(crowd(quintet, sessions, slug, think)).told()
            heard[f"{slug}_{think:.0f}s"] = {"load_before": round(load, 2), **told}
        raced = asyncio.run(race(quintet, sessions))
        memory = max(web_processes(), default=0.0)
        counted = json.loads(quintet.manage("shell", "--no-imports", "-c", COUNTED).splitlines()[-1])
    filled, above, surplus, twice = counted
    figures: Figures = {"labelers": LABELERS, "seed_seconds": round(seeded["seconds"], 1), **heard}
    figures |= {"filled": filled, "over_assigned": above + surplus + twice, "race_seconds": round(raced, 1)}
    figures["web_process_mb"] = round(memory)
    return figures, rows(figures)


def rows(figures: Figures) -> Rows:
    many, seconds = PROMPTS["large"], figures["seed_seconds"]
    yield "seeded", f"{many:,} prompts with {5 * many:,} rollouts, and the small ones, in {seconds} s"
    for slug, think in (("large", 10), ("large", 1), ("small", 1)):
        told = figures[f"{slug}_{think}s"]
        for name in ("next", "submit"):
            found = told[name]
            label = f"{name}: {PROMPTS[slug]:,} prompts, {think} s to think"
            clocks = "p50 {p50_ms:.0f} ms, p95 {p95_ms:.0f} ms, longest {max_ms:.0f} ms of {asked:,}"
            yield label, clocks.format(**found) + f" (load before: {told['load_before']})"
    yield "places filled by 50 without a pause", f"{figures['filled']:,} in {figures['race_seconds']} s"
    yield "given twice, or above what was wanted", str(figures["over_assigned"])
    yield "memory of a web process, at most", f"{figures['web_process_mb']} MB"


if __name__ == "__main__":
    main(
        "queue", "Fifty labelers at once in a large project: next, submit, and no place given twice.", measure
    )
