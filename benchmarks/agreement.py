"""The pages that say how far rankings can be trusted, at 100,000 rankings: milliseconds for agreement, audits
and review, over HTTP against the server that bin/up starts.

Three labelers rank each of the quintets, by a taste of their own and by chance. "After new ones" is the first
look after more rankings came in than a page folds while somebody waits; the very first of these, in a web
process that has never folded, loads numpy besides.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.imports import WORDS, take_in
from benchmarks.installation import Unexpected, Visitor, installation
from benchmarks.report import Figures, Rows, main
from rlhf.data import dumps

SLUG, RANKINGS, EACH, LABELERS = "many", 100_000, 3, 20
NEW, LOOKS = 60, 30  # rankings at a time, and looks at each page
FOLD = """
from labeler.agreement.folding import fold_all
from labeler.models import Project
fold_all([Project.objects.get(slug="many")], wait=True)
"""
PAGES = {
    "agreement": f"/agreement/{SLUG}/",
    "audits": f"/agreement/{SLUG}/audits/",
    "review": f"/review/{SLUG}/",
}


def write(path: Path, begin: int, count: int) -> None:
    chance = random.Random(begin)
    with path.open("w") as file:
        for number in range(begin, begin + count):
            quintet, turn = divmod(number, EACH)
            words = random.Random(quintet)
            worth = [each + chance.gauss(0, 2) for each in range(5)]
            line = {
                "prompt": f"Joke {quintet}, about a pelican, please.",
                "rollouts": [" ".join(words.choices(WORDS, k=30)) for _ in range(5)],
                "ranks": [sorted(worth).index(each) + 1 for each in worth],
                "labeler": f"labeler-{(quintet * 7 + turn) % LABELERS}",
                "quintet": f"q-{quintet}",
                "seconds": round(chance.uniform(5, 60), 1),
            }
            file.write(dumps(line) + "\n")


def timed(visitor: Visitor, address: str) -> float:
    began = time.perf_counter()
    page = visitor.get(address)
    if page.status != 200:
        raise Unexpected(f"{address} was answered with status {page.status}.")
    return 1000 * (time.perf_counter() - began)


def measure() -> tuple[Figures, Rows]:
    figures: Figures = {"rankings": RANKINGS}
    rows: list[tuple[str, str]] = []
    with installation() as quintet, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rankings.jsonl"
        write(path, 0, RANKINGS)
        take_in(quintet, path, SLUG, RANKINGS)
        began = time.perf_counter()
        quintet.manage("shell", "-c", FOLD)
        figures["fold_seconds"] = round(time.perf_counter() - began, 1)
        rows.append(("all of it counted once", f"{figures['fold_seconds']} s"))
        visitor = Visitor(quintet.url).sign_in()
        for number, (name, address) in enumerate([("the very first", PAGES["agreement"]), *PAGES.items()]):
            looks = [timed(visitor, address) for _ in range(LOOKS)]
            write(path, RANKINGS + number * NEW, NEW)
            take_in(quintet, path, SLUG, NEW)
            visitor.connection.close()  # the server has, meanwhile
            first = timed(visitor, address)
            median, p95 = statistics.median(looks), statistics.quantiles(looks, n=20, method="inclusive")[-1]
            figures[name] = {"p50_ms": round(median, 1), "p95_ms": round(p95, 1), "new_ms": round(first, 1)}
            rows.append((name, f"p50 {median:.0f} ms, p95 {p95:.0f} ms; after new ones {first:.0f} ms"))
    return figures, rows


if __name__ == "__main__":
    main("agreement", "The pages about trust at 100,000 rankings.", measure)
