"""Training a reward model on five-way rankings, beside TRL's RewardTrainer on the pairs that they make.

The same random model, the same tokens, the same optimizer and as many rankings behind each of its steps, one
thread each, in turns, each in a process of its own. Compared are the medians of a step's processor time:
on one thread that is the wall clock's time without the neighbours, and the wall clock's own stands beside it.
The first step belongs to the start and is not among them. TRL runs with its defaults and with the flags
that are fastest for it. `--rows` chooses what is measured; `quality` trains both from one start on the demo's
rankings and compares how much they get right of what was held out.
"""

import json
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from benchmarks import trials
from benchmarks.report import Figures, Rows
from benchmarks.trials import Clocks

ROLLOUT = 40  # tokens, its end included
PLACES = 5
PAIRS = PLACES * (PLACES - 1) // 2
A_STEP = 4  # rankings behind one step of the optimizer
DEFAULTS: dict[str, Any] = {}
FP32 = {"bf16": False, "gradient_checkpointing": False}
BF16 = {"bf16": True, "gradient_checkpointing": False}
DEMO = Path(__file__).parent.parent / "labeler" / "demo"
SEEDS, EPOCHS, HELD_OUT = 5, 3, 0.25


@dataclass(frozen=True)
class Row:
    """A line of the table: a model, a prompt's tokens, steps of a trial, how often, and what TRL is asked."""

    size: str
    prompt: int
    steps: int
    turns: int
    trl: tuple[str, ...]
    fp32: bool = True


ALL = ("bf16", "defaults", "fp32")
ROWS = {
    "short": Row("5 M", 24, 6, 2, ALL),
    "256": Row("5 M", 256, 4, 2, ALL),
    "768": Row("5 M", 768, 4, 1, ("bf16", "defaults"), fp32=False),
    "large": Row("50 M", 24, 4, 1, ("bf16",), fp32=False),
    "thousand": Row("5 M", 24, 250, 1, ("bf16",), fp32=False),
}
USUAL = ("short", "256", "768", "large")
OPTIONS = {"defaults": DEFAULTS, "fp32": FP32, "bf16": BF16}


@dataclass(frozen=True)
class Trial:
    """One measured run: who trains, with what, on what."""

    who: str  # quintet or trl
    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: float = 1
    rate: float = 1e-4
    seed: int = 0
    held_out: float = 0.0


def measure(names: tuple[str, ...]) -> tuple[Figures, Rows]:
    rows: list[tuple[str, str]] = []
    figures: Figures = {}
    for name in names:
        if name == "quality":
            figures["quality"] = found = quality()
            rows += _of_quality(found)
            continue
        row = ROWS[name]
        told = beside_each_other(row)
        figures |= _told(name, told)
        rows += _shown(f"{row.size} weights, prompt of {row.prompt}, {row.steps} steps", told)
        rows.append(
            (f"ratio_{name}", f"{figures[f'ratio_{name}']} (wall clock {figures[f'ratio_{name}_wall']})")
        )
    return figures, rows


def beside_each_other(row: Row) -> dict[str, dict[str, float]]:
    """Every trial on one model and one prompt length, in turns; the medians of their steps."""
    ours: dict[str, dict[str, Any]] = {"quintet auto": {}} | (
        {"quintet fp32": {"precision": "fp32"}} if row.fp32 else {}
    )
    told: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), row.size, row.prompt, row.steps * A_STEP)
        for turn in range(row.turns):
            each = [(key, Trial("quintet", folder, options)) for key, options in ours.items()]
            each += [(f"trl {key}", Trial("trl", folder, OPTIONS[key])) for key in row.trl]
            for key, trial in each if turn % 2 == 0 else reversed(each):
                told.setdefault(key, []).append(trials.run("reward_model", trial))
    return {key: _summed_up(several) for key, several in told.items()}


def _summed_up(several: list[dict[str, Any]]) -> dict[str, float]:
    def a_step(clock: str) -> float:
        return median(
            b - a for each in several for a, b in zip(each[clock][1:], each[clock][2:], strict=False)
        )

    return {
        "rankings_per_second": A_STEP / a_step("cpu"),
        "rankings_per_second_wall": A_STEP / a_step("wall"),
        "start_seconds": min(each["cpu"][0] for each in several),
        "start_seconds_wall": min(each["wall"][0] for each in several),
        "peak_mb": median(each["peak_mb"] for each in several),
    }


def quality() -> Figures:
    """Right pairs among those held out, both trained from one start on the same rankings, seed by seed."""
    found: dict[str, list[float]] = {"quintet": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        start_on_demo(Path(folder))
        for seed in range(SEEDS):
            for who in found:
                options = FP32 if who == "trl" else {"precision": "fp32"}
                trial = Trial(who, folder, options, EPOCHS, 1e-3, seed, HELD_OUT)
                found[who].append(trials.run("reward_model", trial)["accuracy"])
    apart = [ours - theirs for ours, theirs in zip(found["quintet"], found["trl"], strict=True)]
    error = stdev(apart) / len(apart) ** 0.5
    return {**found, "difference": round(mean(apart), 4), "standard_error": round(error, 4)}


def _of_quality(found: Figures) -> Rows:
    for who in ("quintet", "trl"):
        each = " ".join(f"{accuracy:.3f}" for accuracy in found[who])
        yield f"held-out pairs right, {who}", f"{mean(found[who]):.3f} ({each})"
    yield "difference", f"{found['difference']:+.3f} ± {found['standard_error']:.3f} (standard error)"


def _told(name: str, found: dict[str, dict[str, float]]) -> Figures:
    def fastest(who: str, what: str, precision: str = "") -> float:
        return max(each[what] for key, each in found.items() if key.startswith(who) and precision in key)

    def ratio(what: str, precision: str = "") -> float:
        return round(fastest("quintet", what, precision) / fastest("trl", what, precision), 2)

    speed = "rankings_per_second"
    figures: Figures = {
        f"ratio_{name}": ratio(speed),
        f"ratio_{name}_wall": ratio(f"{speed}_wall"),
        f"{speed}_{name}": {who: round(fastest(who, speed), 2) for who in ("quintet", "trl")},
        f"trials_{name}": {
            key: {what: round(number, 2) for what, number in each.items()} for key, each in found.items()
        },
    }
    if {"quintet fp32", "trl fp32"} <= found.keys():
        figures[f"ratio_{name}_fp32"] = ratio(speed, "fp32")
    return figures


def _shown(what: str, found: dict[str, dict[str, float]]) -> Rows:
    for key, each in found.items():
        wall = each["rankings_per_second_wall"]
        yield (
            f"{what}, {key}",
            f"{each['rankings_per_second']:7.2f} rankings/s (wall clock {wall:.2f})   "
            f"start {each['start_seconds']:4.1f} s ({each['start_seconds_wall']:.1f})   "
            f"peak {each['peak_mb']:5.0f} MB",
        )


# What both are given


def lay_out(folder: Path, size: str, prompt: int, count: int) -> None:
    """A random model, and rankings without ties."""
    trials.random_model(folder / "policy", size)
    chances = random.Random(0)
    lines = []
    for number in range(count):
        ranks = list(range(1, PLACES + 1))
        chances.shuffle(ranks)
        rollouts = [trials.text(chances, ROLLOUT - 1) for _ in ranks]
        line = {"prompt": trials.text(chances, prompt), "rollouts": rollouts, "ranks": ranks}
        lines.append(json.dumps(line | {"labeler": "one", "quintet": str(number)}))
    (folder / "dataset.jsonl").write_text("\n".join(lines) + "\n")


def start_on_demo(folder: Path) -> None:
    """The demo's policy with a new head, and its rankings."""
    import shutil

    from rlhf import checkpoint

    model, tokenizer = checkpoint.start_reward_model(DEMO / "checkpoint", seed=0)
    checkpoint.save(folder / "policy", model, tokenizer, {"kind": "reward"}, {})
    shutil.copyfile(DEMO / "rankings.jsonl", folder / "dataset.jsonl")


# The two trainers, each in a process of its own: when each step ended, and how much it gets right


def quintet(trial: Trial, clocks: Clocks) -> float | None:
    from rlhf import __main__ as command

    clocks.tick_at_our_steps()
    folder = Path(trial.folder)
    directory = Path(tempfile.mkdtemp(dir=folder)) / "run"
    settings = {
        "epochs": trial.epochs, "batch": A_STEP, "held_out": trial.held_out, "evaluate_every": 100000,
        "learning_rate": trial.rate, "checkpoint_every": 100000, "device": "cpu", "seed": trial.seed,
    } | trial.options  # fmt: skip
    given = [f"--set={name}={value}" for name, value in settings.items()]
    start, data = str(folder / "policy"), str(folder / "dataset.jsonl")
    command.main(["new", "reward", str(directory), "--from", start, "--dataset", data, *given])
    command.main([str(directory)])
    return json.loads((directory / "result.json").read_text())["metrics"]["held_out_accuracy"]


def trl(trial: Trial, clocks: Clocks) -> float | None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    from rlhf import checkpoint, data

    folder = Path(trial.folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    telling = [each for each in data.rankings(folder / "dataset.jsonl") if each.teaches]
    taught, held = data.split_by_prompt([each.prompt for each in telling], trial.held_out, trial.seed)
    pairs = []
    for ranking in (telling[number] for number in taught):
        prompt = checkpoint.encode_prompt(tokenizer, ranking.prompt)
        ids = [prompt + checkpoint.encode_rollout(tokenizer, text) for text in ranking.rollouts]
        pairs += [
            {"chosen_ids": ids[better], "rejected_ids": ids[worse]}
            for better, above in enumerate(ranking.ranks)
            for worse, below in enumerate(ranking.ranks)
            if above < below
        ]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clocks.tick()

    at_once = 8
    config = RewardConfig(
        output_dir=tempfile.mkdtemp(dir=folder), use_cpu=True, report_to="none",
        num_train_epochs=trial.epochs,
        per_device_train_batch_size=at_once, gradient_accumulation_steps=A_STEP * PAIRS // at_once,
        save_strategy="no", logging_strategy="no", learning_rate=trial.rate, center_rewards_coefficient=0.01,
        max_length=None, disable_tqdm=True, seed=trial.seed, **trial.options,
    )  # fmt: skip
    RewardTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()  # fmt: skip
    return right(model, tokenizer, [telling[number] for number in held])


def right(model: Any, tokenizer: Any, rankings: list[Any]) -> float | None:
    """The share of the held-out pairs that a model orders as their labeler did."""
    from rlhf import evaluate
    from rlhf.reward_model import RewardModel

    if not rankings:
        return None
    judge = RewardModel(model.eval(), tokenizer)
    examples = [judge.encode(each.prompt, each.rollouts, each.finished) for each in rankings]
    return evaluate.accuracy(evaluate.Measured(judge.rewards_of(examples), rankings).margins)


def one(given: dict[str, Any]) -> None:
    trial, clocks = Trial(**given), Clocks()
    train = {"quintet": quintet, "trl": trl}[trial.who]
    trials.carry_out(clocks, lambda: {"accuracy": train(trial, clocks)})


if __name__ == "__main__":
    about = "Rankings a second, beside TRL's RewardTrainer."
    trials.main("reward_model", about, [*ROWS, "quality"], USUAL, measure, one)
