"""The demos that practise, seed by seed: how often they are right on prompts that they never practised, how
long their answers are and how often worked, from the shipped starts by the commands and defaults that users
have. Runs of one thread each, as many at once as there are cores.

Told are, of each demo and seed, the curves of accuracy (greedy, sampled) and length at the measured steps,
the share of rollouts that write their steps down, and the seconds that a run took.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.installation import Unexpected
from benchmarks.report import Figures, Rows, main
from labeler.demo import practice, problems
from rlhf import data

SEEDS = 3
AROUND = 10  # steps whose rollouts tell how often answers are worked
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
CURVES = ("held_out_accuracy", "held_out_sampled", "held_out_length")


def measure(seeds: int = SEEDS, **changed: Any) -> tuple[Figures, Rows]:
    """Every demo with every seed; `changed` are settings of the runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as pool:
        asked = {
            demo.slug: [pool.submit(story, demo, Path(folder), seed, changed) for seed in range(seeds)]
            for demo in practice.ALL
        }
        found: Figures = {slug: [each.result() for each in told] for slug, told in asked.items()}
    rows = [
        (f"{slug}, seed {seed}", _in_words(each))
        for slug, stories in found.items()
        for seed, each in enumerate(stories)
    ]
    return found, rows


def story(demo: practice.Practice, folder: Path, seed: int, changed: dict[str, Any]) -> dict[str, Any]:
    """What a run came to, step by measured step."""
    run = folder / f"{demo.slug}-{seed}"
    prompts = folder / f"{demo.slug}-{seed}.jsonl"
    data.write_lines(prompts, ({"prompt": one.prompt, "answer": one.answer} for one in demo.problems()))
    settings = demo.run_defaults["policy"] | changed | {"seed": seed, "device": "cpu"}
    began = time.perf_counter()
    _carry_out(
        "new", "policy", run, "--from", demo.folder("start"), "--against", demo.folder("imitation"),
        "--prompts", prompts, "--checker", "number",
        *(f"--set={name}={each}" for name, each in settings.items()),
    )  # fmt: skip
    _carry_out(run)
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    measured = [each for each in steps if "held_out_accuracy" in each]
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "imitation": steps[0].get("imitation_accuracy"),
        "steps": [each["step"] for each in measured],
        **{name: [round(each[name], 4) for each in measured] for name in CURVES},
        "worked": _ends(_worked(run / "rollouts.jsonl.zst"), 3),
        "length": [
            round(_mean([each["length"] for each in some]), 2)
            for some in (steps[1:][:AROUND], steps[-AROUND:])
        ],
    }


def _worked(path: Path) -> list[float]:
    """The share of worked answers among the rollouts of every step."""
    import zstandard

    shares: dict[int, list[bool]] = {}
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for text in io.TextIOWrapper(reader, encoding="utf-8"):
            line = json.loads(text)
            shares.setdefault(line["step"], []).append(problems.is_worked(line["rollout"]))
    return [_mean(shares[step]) for step in sorted(shares)]


def _ends(values: list[float], digits: int) -> list[float]:
    """The mean of the first steps, and that of the last."""
    return [round(_mean(some), digits) for some in (values[:AROUND], values[-AROUND:])]


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values)


def _in_words(each: dict[str, Any]) -> str:
    named = {
        "greedy": "held_out_accuracy",
        "sampled": "held_out_sampled",
        "length": "length",
        "worked": "worked",
    }
    moved = [f"{name} {each[key][0]:.3g} → {each[key][-1]:.3g}" for name, key in named.items()]
    return ", ".join([*moved, f"imitation {each['imitation']:.3g}", f"{each['seconds']} s"])


def _carry_out(*arguments: Any) -> None:
    """One command of those that users have, in a process of its own."""
    command = [sys.executable, "-m", "rlhf", *map(str, arguments)]
    ended = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if ended.returncode:
        raise Unexpected(f"{arguments[0]} ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked, others = parser.parse_known_args()
    sys.argv[1:] = others
    main("practice", "The demos that practise, over some seeds.", lambda: measure(asked.seeds))
