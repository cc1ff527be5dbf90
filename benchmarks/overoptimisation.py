"""The demo's story with its own numbers: what becomes of the hidden taste at β = 0 and at the demo's β.

For every seed a reward model on the shipped rankings, and with it two policy runs, with the demo's settings.
Nothing of the taste is known to them; it is read off their rollouts afterwards. Runs of one thread each, as
many at once as there are cores. Told are, in hidden taste: the start, the peak and the end, and of the runs
that fall what share of their rise the suggested checkpoint keeps.
"""

import json
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks import alone, seeds
from benchmarks.report import Figures, Rows
from benchmarks.seeds import SEEDS, mean
from labeler.demo import HERE
from labeler.demo.jokes import subject_of
from labeler.demo.recipe import RUN_DEFAULTS
from labeler.demo.taste import taste

AROUND = 2  # steps to either side of one whose rollouts tell what it was worth
END = 5  # steps whose rollouts tell how a run ended


def measure(many: int = SEEDS, **changed: Any) -> tuple[Figures, Rows]:
    """Every seed's two stories; `changed` are settings of the policy runs."""
    with tempfile.TemporaryDirectory() as folder, alone.at_once() as pool:
        judges = [pool.submit(reward_model, Path(folder), seed) for seed in range(many)]
        stories: dict[str, list[Future]] = {
            name: [
                pool.submit(story, Path(folder), seed, judges[seed], changed | beta) for seed in range(many)
            ]
            for name, beta in {"beta0": {"beta": 0.0}, "default": dict[str, Any]()}.items()
        }
        found = {name: [each.result() for each in several] for name, several in stories.items()}
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
    settings = {name: value for name, value in RUN_DEFAULTS["reward"].items() if name != "simulated"}
    result = seeds.run("reward", run, inputs, settings | {"seed": seed})
    return run / result["checkpoint"]


def story(folder: Path, seed: int, judge: "Future[Path]", changed: dict[str, Any]) -> dict[str, Any]:
    """What a policy run against that reward model came to, step by step and in hidden taste."""
    run = folder / f"policy-{seed}-{changed.get('beta', 'default')}"
    inputs = {
        "--from": HERE / "checkpoint", "--prompts": HERE / "prompts.jsonl", "--reward": judge.result(),
    }  # fmt: skip
    seeds.run("policy", run, inputs, RUN_DEFAULTS["policy"] | {"seed": seed} | changed)
    return told(run)


def told(run: Path) -> dict[str, Any]:
    """What is read off the directory of a policy run that has ended."""
    result = json.loads((run / "result.json").read_text())
    tastes = seeds.by_step(run, lambda line: taste(line["rollout"], subject_of(line["prompt"])))
    rewards = [each["reward"] for each in seeds.steps(run)]
    start, peak = around(tastes, 1), max(around(tastes, step) for step in range(1, len(tastes) + 1))
    suggested = int(result["suggested"].rpartition("-")[2]) if result["suggested"] else 1
    return {
        "start": round(start, 3),
        "peak": round(peak, 3),
        "end": round(mean(tastes[-END:]), 3),
        "kept": round((around(tastes, suggested) - start) / (peak - start), 3) if peak > start else None,
        "crop": result["crop"] and {"step": result["crop"]["step"], "checkpoint": suggested},
        "reward": [round(rewards[0], 3), round(rewards[-1], 3)],
    }


def around(tastes: list[float], step: int) -> float:
    """What a step was worth: the mean of those near it."""
    return mean(tastes[max(0, step - 1 - AROUND) : step + AROUND])


def _only(each: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each[name] for name in names}


if __name__ == "__main__":
    seeds.main("overoptimisation", "The demo at β = 0 and at its own β, in hidden taste.", measure)
