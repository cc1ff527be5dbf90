"""A step of policy training against a reward model, beside TRL's GRPOTrainer and RLOOTrainer without vLLM.

The same random policy and reward model, the same prompts, as many rollouts of the same length, the same β
and rate, one thread each, each in a process of its own. The policy is made to end one rollout in ten, so that
groups differ in reward; what does not learns of what its rollouts paid in KL, so that after the first step
both learn from all of them. Compared are the medians of a step's processor time: on one thread that is the
wall clock's time without the neighbours, and the wall clock's own stands beside it; the first step belongs to
the start. TRL runs with its defaults and with the flags that are fastest for it, and its best is what
Quintet's best is compared with. `--rows` chooses what is measured.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import trials
from benchmarks.installation import Unexpected
from benchmarks.report import Figures, Rows
from benchmarks.trials import Clocks

PROMPTS, ROLLOUTS, PROMPT, LONGEST, BETA, RATE = 8, 8, 24, 48, 0.1, 1e-5
BATCH = PROMPTS * ROLLOUTS
TRAINERS = ("GRPO", "RLOO")
DEFAULTS: dict[str, Any] = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": BATCH // 8}
WHOLE = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}
OPTIONS = {"defaults": DEFAULTS, "fp32": WHOLE | {"bf16": False}, "bf16": WHOLE | {"bf16": True}}
ENDING = {"5 M": 5.6, "50 M": 5.2}  # how much larger than others the end's embedding is


@dataclass(frozen=True)
class Row:
    """A line of the table: a model, steps of a trial, and what TRL is asked."""

    size: str
    steps: int
    trl: tuple[str, ...]
    ours: tuple[str, ...] = ("auto", "fp32")


ROWS = {
    "small": Row("5 M", 8, ("bf16", "defaults")),
    "large": Row("50 M", 4, ("bf16",), ("auto",)),
}


@dataclass(frozen=True)
class Trial:
    """One measured run: who trains, on what, how many steps."""

    who: str  # quintet, GRPO or RLOO
    folder: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)


def measure(names: tuple[str, ...]) -> tuple[Figures, Rows]:
    rows: list[tuple[str, str]] = []
    figures: Figures = {}
    for name in names:
        row, found = ROWS[name], {}
        with tempfile.TemporaryDirectory() as folder:
            lay_out(Path(folder), row.size)
            for each in row.ours:
                found[f"quintet {each}"] = run(Trial("quintet", folder, row.steps, {"precision": each}))
            for who in TRAINERS:
                for each in row.trl:
                    found[f"{who} {each}"] = run(Trial(who, folder, row.steps, OPTIONS[each]))
        figures |= _told(name, found)
        rows += _shown(f"{row.size} weights", found)
        for who in TRAINERS:
            wall = figures[f"ratio_{name}_{who.lower()}_wall"]
            rows.append(
                (
                    f"ratio_{name}_{who.lower()}",
                    f"{figures[f'ratio_{name}_{who.lower()}']} (wall clock {wall})",
                )
            )
    return figures, rows


def _told(name: str, found: dict[str, dict[str, float]]) -> Figures:
    def best(who: str, clock: str) -> float:
        return min(each[clock] for key, each in found.items() if key.startswith(who))

    figures: Figures = {f"trials_{name}": found}
    for who in TRAINERS:
        ratio = f"ratio_{name}_{who.lower()}"
        figures[ratio] = round(best(who, "seconds") / best("quintet", "seconds"), 2)
        figures[f"{ratio}_wall"] = round(best(who, "seconds_wall") / best("quintet", "seconds_wall"), 2)
    return figures


def _shown(what: str, found: dict[str, dict[str, float]]) -> Rows:
    for key, each in found.items():
        yield (
            f"{what}, {key}",
            f"{each['seconds']:6.2f} s a step (wall clock {each['seconds_wall']:.2f})   "
            f"peak {each['peak_mb']:5.0f} MB   {each['length']:.1f} tokens a rollout",
        )


def run(trial: Trial) -> dict[str, float]:
    """The medians of its steps."""
    told = trials.run("policy", trial)

    def a_step(clock: str) -> float:
        return median(b - a for a, b in zip(told[clock], told[clock][1:], strict=False))

    return {
        "seconds": round(a_step("cpu"), 3),
        "seconds_wall": round(a_step("wall"), 3),
        "peak_mb": round(told["peak_mb"]),
        "length": round(told["length"], 1),
    }


def lay_out(folder: Path, size: str) -> None:
    """A policy that now and then ends what it writes, a reward model on the same backbone, and prompts."""
    import random

    import torch
    from transformers import AutoModelForCausalLM

    from rlhf import checkpoint

    trials.random_model(folder / "policy", size)
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "policy")
    with torch.no_grad():
        model.get_input_embeddings().weight[1] *= ENDING[size]
    model.save_pretrained(folder / "policy")
    judge, tokenizer = checkpoint.start_reward_model(folder / "policy", seed=0)
    checkpoint.save(folder / "reward", judge, tokenizer, {"kind": "reward", "mu": 0.0, "tau": 1.0}, {})
    chances = random.Random(1)
    lines = [trials.text(chances, PROMPT) for _ in range(64)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))


# The trainers, each in a process of its own: when each step ended, and how long its rollouts were


def quintet(trial: Trial, clocks: Clocks) -> float:
    from rlhf import __main__ as command

    clocks.tick_at_our_steps()
    folder = Path(trial.folder)
    directory = Path(tempfile.mkdtemp(dir=folder)) / "run"
    settings = {
        "steps": trial.steps, "beta": BETA, "learning_rate": RATE, "prompts_per_step": PROMPTS,
        "device": "cpu", "rollouts_per_prompt": ROLLOUTS, "max_new_tokens": LONGEST,
        "warmup": 0, "evaluate_every": 1000, "checkpoint_every": 1000, "sample_prompts": 0,
    } | trial.options  # fmt: skip
    given = [f"--set={name}={value}" for name, value in settings.items()]
    inputs = ["--from", "policy", "--reward", "reward", "--prompts", "prompts.jsonl"]
    inputs = [each if each.startswith("--") else str(folder / each) for each in inputs]
    for arguments in (["new", "policy", str(directory), *inputs, *given], [str(directory)]):
        if command.main(arguments):
            raise Unexpected((directory / "result.json").read_text())
    steps = [json.loads(line) for line in (directory / "steps.jsonl").read_text().splitlines()]
    return sum(each["length"] for each in steps) / len(steps)


def trl(trial: Trial, clocks: Clocks) -> float:
    import trl as theirs
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )

    folder = Path(trial.folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clocks.tick()

    config = getattr(theirs, f"{trial.who}Config")(
        output_dir=tempfile.mkdtemp(dir=folder), use_cpu=True, report_to="none", save_strategy="no",
        logging_strategy="steps", logging_steps=1, disable_tqdm=True, max_steps=trial.steps,
        learning_rate=RATE, beta=BETA, num_generations=ROLLOUTS, max_completion_length=LONGEST,
        temperature=1.0, seed=0, **trial.options,
    )  # fmt: skip
    trainer = getattr(theirs, f"{trial.who}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1),
        reward_processing_classes=AutoTokenizer.from_pretrained(folder / "reward"),
        args=config, train_dataset=Dataset.from_list(prompts), processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    lengths = [
        line["completions/mean_length"]
        for line in trainer.state.log_history
        if "completions/mean_length" in line
    ]
    return sum(lengths) / len(lengths)


def one(given: dict[str, Any]) -> None:
    trial, clocks = Trial(**given), Clocks()
    train = quintet if trial.who == "quintet" else trl
    trials.carry_out(clocks, lambda: {"length": train(trial, clocks)})


if __name__ == "__main__":
    about = "Seconds a step of policy training, beside TRL's."
    trials.main("policy", about, ROWS, ROWS, measure, one)
