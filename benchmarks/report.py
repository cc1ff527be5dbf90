"""How a measurement is told: a table for people and, with --json, one JSON object as the last line."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.alone import CORES
from benchmarks.installation import Unexpected

Figures = dict[str, Any]
Rows = Iterable[tuple[str, str]]


def main(name: str, about: str, measure: Callable[[], tuple[Figures, Rows]]) -> None:
    """Measure, print, and end with 0 only when there is something to tell."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        figures, rows = measure()
    except (Unexpected, OSError) as error:
        sys.exit(str(error))
    figures |= {"cores": CORES, "load_before": round(load, 2)}
    shown = [*rows, ("cores", str(figures["cores"])), ("load before", f"{load:.2f}")]
    width = max(len(label) for label, _ in shown)
    for label, value in shown:
        print(f"{label:{width}}  {value}")
    if given.json:
        print(json.dumps(figures))
