"""The demos that practise, seed by seed: how often they are right on prompts that they never practised, how
long their answers are and how often worked, from the shipped starts by the commands and defaults that users
have. Runs of one thread each, as many at once as there are cores.

Told are, of each demo and seed, the curves of accuracy (greedy, sampled) and length at the measured steps,
the share of rollouts that write their steps down, and the seconds that a run took.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import alone, seeds
from benchmarks.report import Figures, Rows
from benchmarks.seeds import SEEDS, mean
from labeler.demo import practice, problems
from rlhf import data

AROUND = 10  # steps whose rollouts tell how often answers are worked
CURVES = ("held_out_accuracy", "held_out_sampled", "held_out_length")


def measure(many: int = SEEDS, **changed: Any) -> tuple[Figures, Rows]:
    """Every demo with every seed; `changed` are settings of the runs."""
    with tempfile.TemporaryDirectory() as folder, alone.at_once() as pool:
        asked = {
            demo.slug: [pool.submit(story, demo, Path(folder), seed, changed) for seed in range(many)]
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
    inputs = {
        "--from": demo.folder("start"), "--against": demo.folder("imitation"), "--prompts": prompts,
        "--checker": "number",
    }  # fmt: skip
    began = time.perf_counter()
    seeds.run("policy", run, inputs, demo.run_defaults["policy"] | changed | {"seed": seed})
    steps = seeds.steps(run)
    measured = [each for each in steps if "held_out_accuracy" in each]
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "imitation": steps[0].get("imitation_accuracy"),
        "steps": [each["step"] for each in measured],
        **{name: [round(each[name], 4) for each in measured] for name in CURVES},
        "worked": _ends(seeds.by_step(run, lambda line: problems.is_worked(line["rollout"])), 3),
        "length": _ends([each["length"] for each in steps[1:]], 2),
    }


def _ends(values: list[float], digits: int) -> list[float]:
    """The mean of the first steps, and that of the last."""
    return [round(mean(some), digits) for some in (values[:AROUND], values[-AROUND:])]


def _in_words(each: dict[str, Any]) -> str:
    named = {
        "greedy": "held_out_accuracy",
        "sampled": "held_out_sampled",
        "length": "length",
        "worked": "worked",
    }
    moved = [f"{name} {each[key][0]:.3g} → {each[key][-1]:.3g}" for name, key in named.items()]
    return ", ".join([*moved, f"imitation {each['imitation']:.3g}", f"{each['seconds']} s"])


if __name__ == "__main__":
    seeds.main("practice", "The demos that practise, over some seeds.", measure)
