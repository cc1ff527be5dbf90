"""Ranking lines taken in from the command line: seconds, and the greatest memory of the importing process.

Every line has a prompt and five rollouts of its own, so that nothing is spared by having been there; "again"
is the same file once more, when every line is there already. A line has about 1,000 bytes.
"""

import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.installation import ROOT, Installation, Unexpected, installation
from benchmarks.report import Figures, Rows, main

FEW, MANY = 10_000, 100_000
LABELERS = 20
WORDS = ["a", "pelican", "joke", "beak", "fish", "why", "did", "cross", "the", "harbour", "because", "bill"]


def write(path: Path, count: int) -> None:
    chance = random.Random(count)
    with path.open("w") as file:
        for number in range(count):
            line = {
                "prompt": f"Joke {number} of {count}, about a pelican, please.",
                "rollouts": [" ".join(chance.choices(WORDS, k=30)) for _ in range(5)],
                "ranks": [chance.randint(1, 5) for _ in range(5)],
                "labeler": f"labeler-{number % LABELERS}",
                "quintet": f"{count}-{number}",
                "seconds": round(chance.uniform(5, 60), 1),
            }
            file.write(json.dumps(line) + "\n")


def take_in(quintet: Installation, path: Path, slug: str, added: int) -> dict[str, float]:
    """Seconds and memory of one import, which has to bring `added` rankings."""
    began = time.perf_counter()
    command = [str(ROOT / "bin/manage"), "import_rankings", str(path), "--project", slug]
    env = os.environ | {"QUINTET_HOME": str(quintet.home)}
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        words = said.read()
    if child.returncode or f"{added:,} rankings added" not in words:
        raise Unexpected(f"The import said: {words}")
    return {"seconds": time.perf_counter() - began, "megabytes": usage.ru_maxrss / 1024}


def measure() -> tuple[Figures, Rows]:
    figures: Figures = {}
    with installation() as quintet, tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            path = Path(folder) / f"{count}.jsonl"
            write(path, count)
            figures[f"{count}"] = take_in(quintet, path, f"lines-{count}", count)
        figures["again"] = take_in(quintet, path, f"lines-{MANY}", 0)
    figures["growth"] = figures[str(MANY)]["megabytes"] / figures[str(FEW)]["megabytes"]
    named = {str(FEW): f"{FEW:,} lines", str(MANY): f"{MANY:,} lines", "again": f"{MANY:,} lines again"}
    rows = [
        (words, f"{figures[key]['seconds']:.1f} s, at most {figures[key]['megabytes']:.0f} MB")
        for key, words in named.items()
    ]
    return figures, [*rows, ("memory, many to few", f"{figures['growth']:.2f} : 1")]


if __name__ == "__main__":
    main("imports", "Ranking lines taken in: seconds and memory at 10,000 and 100,000.", measure)
