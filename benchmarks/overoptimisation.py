"""The demo's story with its own numbers: what becomes of the hidden taste at β = 0 and at the demo's β.

For every seed a reward model on the shipped rankings, and with it two policy runs, with the demo's settings.
Nothing of the taste is known to them; it is read off their rollouts afterwards. Runs of one thread each, as
many at once as there are cores. Told are, in hidden taste: the start, the peak and the end, and of the runs
that fall what share of their rise the suggested checkpoint keeps.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.installation import Unexpected
from benchmarks.report import Figures, Rows, main
from labeler.demo import HERE
from labeler.demo.jokes import subject_of
from labeler.demo.recipe import RUN_DEFAULTS
from labeler.demo.taste import taste

SEEDS = 3
AROUND = 2  # steps to either side of one whose rollouts tell what it was worth
END = 5  # steps whose rollouts tell how a run ended
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def measure(seeds: int = SEEDS, **changed: Any) -> tuple[Figures, Rows]:
    """Every seed's two stories; `changed` are settings of the policy runs."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) as pool,
    ):
        judges = [pool.submit(reward_model, Path(folder), seed) for seed in range(seeds)]
        told: dict[str, list[Future]] = {
            name: [
                pool.submit(story, Path(folder), seed, judges[seed], changed | beta) for seed in range(seeds)
            ]
            for name, beta in {"beta0": {"beta": 0.0}, "default": dict[str, Any]()}.items()
        }
        found = {name: [each.result() for each in stories] for name, stories in told.items()}
    figures: Figures = {
        "beta0": [_only(each, "start", "peak", "end", "kept", "crop", "reward") for each in found["beta0"]],
        "default": [_only(each, "start", "peak", "end", "crop", "reward") for each in found["default"]],
    }
    rows = [
        (f"{name}, seed {seed}", "   ".join(f"{key} {value}" for key, value in each.items()))
        for name in found
        for seed, each in enumerate(figures[name])
    ]
    return figures, rows


def reward_model(folder: Path, seed: int) -> Path:
    """The checkpoint of a reward model on the shipped rankings."""
    run = folder / f"reward-{seed}"
    inputs = {"--from": HERE / "checkpoint", "--dataset": HERE / "rankings.jsonl"}
    result = carry_out("reward", run, inputs, RUN_DEFAULTS["reward"] | {"seed": seed})
    return run / result["checkpoint"]


def story(folder: Path, seed: int, judge: "Future[Path]", changed: dict[str, Any]) -> dict[str, Any]:
    """What a policy run against that reward model came to, step by step and in hidden taste."""
    run = folder / f"policy-{seed}-{changed.get('beta', 'default')}"
    inputs = {
        "--from": HERE / "checkpoint", "--prompts": HERE / "prompts.jsonl", "--reward": judge.result(),
    }  # fmt: skip
    result = carry_out("policy", run, inputs, RUN_DEFAULTS["policy"] | {"seed": seed} | changed)
    tastes = by_step(run / "rollouts.jsonl.zst")
    rewards = [json.loads(line)["reward"] for line in (run / "steps.jsonl").read_text().splitlines()]
    start, peak = around(tastes, 1), max(around(tastes, step) for step in range(1, len(tastes) + 1))
    suggested = int(result["suggested"].rpartition("-")[2]) if result["suggested"] else 1
    return {
        "start": round(start, 3),
        "peak": round(peak, 3),
        "end": round(sum(tastes[-END:]) / len(tastes[-END:]), 3),
        "kept": round((around(tastes, suggested) - start) / (peak - start), 3) if peak > start else None,
        "crop": result["crop"] and {"step": result["crop"]["step"], "checkpoint": suggested},
        "reward": [round(rewards[0], 3), round(rewards[-1], 3)],
    }


def by_step(path: Path) -> list[float]:
    """The mean hidden taste of every step's rollouts."""
    import zstandard

    felt: dict[int, list[float]] = {}
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for text in io.TextIOWrapper(reader, encoding="utf-8"):
            line = json.loads(text)
            felt.setdefault(line["step"], []).append(taste(line["rollout"], subject_of(line["prompt"])))
    return [sum(felt[step]) / len(felt[step]) for step in sorted(felt)]


def around(tastes: list[float], step: int) -> float:
    """What a step was worth: the mean of those near it."""
    near = tastes[max(0, step - 1 - AROUND) : step + AROUND]
    return sum(near) / len(near)


def carry_out(kind: str, run: Path, inputs: dict[str, Path], settings: dict[str, Any]) -> dict[str, Any]:
    """One run by the commands that users have, in a process of its own; its result.json."""
    paths = [str(each) for pair in inputs.items() for each in pair]
    given = [
        f"--set={name}={value}"
        for name, value in (settings | {"device": "cpu"}).items()
        if name != "simulated"
    ]
    for arguments in (["new", kind, str(run), *paths, *given], [str(run)]):
        ended = subprocess.run(
            [sys.executable, "-m", "rlhf", *arguments],
            env=os.environ | ONE_THREAD,
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise Unexpected(f"The {kind} run ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}")
    return json.loads((run / "result.json").read_text())


def _only(each: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each[name] for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked, others = parser.parse_known_args()
    sys.argv[1:] = others
    main(
        "overoptimisation",
        "The demo at β = 0 and at its own β, in hidden taste.",
        lambda: measure(asked.seeds),
    )
