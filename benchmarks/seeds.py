"""What a demo comes to over some seeds: runs by the commands that users have, their files read afterwards.

What is launched with which settings, and what its rollouts are worth, is told by whoever measures.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import alone, report

SEEDS = 3


def run(kind: str, folder: Path, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run, whole; its result.json. `inputs`: the options of `rlhf new`."""
    named = [each for pair in inputs.items() for each in pair]
    given = [f"--set={name}={value}" for name, value in {**settings, "device": "cpu"}.items()]
    alone.run("rlhf", "new", kind, folder, *named, *given)
    alone.run("rlhf", folder)
    return json.loads((folder / "result.json").read_text())


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def by_step(folder: Path, worth: Callable[[dict[str, Any]], float]) -> list[float]:
    """What every step's rollouts are worth on average."""
    import zstandard

    found: dict[int, list[float]] = {}
    with (folder / "rollouts.jsonl.zst").open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for text in io.TextIOWrapper(reader, encoding="utf-8"):
            line = json.loads(text)
            found.setdefault(line["step"], []).append(worth(line))
    return [mean(found[step]) for step in sorted(found)]


def mean(values: list[Any]) -> float:
    return sum(values) / len(values)


def main(name: str, about: str, measure: Callable[[int], tuple[report.Figures, report.Rows]]) -> None:
    """As `report.main`, over so many seeds as `--seeds` says."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked, others = parser.parse_known_args()
    sys.argv[1:] = others
    report.main(name, about, lambda: measure(asked.seeds))
