"""Supervised finetuning on demonstrations of mixed lengths, beside TRL's SFTTrainer with packing.

The same random model, the same tokens, the same optimizer and about as many tokens behind each of its steps,
one thread each, in turns, each in a process of its own. A token counts once, whether it is learnt or only
read, padding never. Compared are the medians of the processor time of a step's token: on one thread that is
the wall clock's time without the neighbours, and the wall clock's own stands beside it; the first step
belongs to the start. TRL packs best-fit-decreasing into rows of several lengths, one row at a time (several
would be joined to one, whose attention is its square), in either precision, and once it pads instead; its
best is what Quintet's best is compared with. `--rows` chooses what is measured.
"""

import json
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import trials
from benchmarks.report import Figures, Rows
from benchmarks.trials import Clocks

A_STEP = 64  # demonstrations behind one step of Quintet's optimizer


@dataclass(frozen=True)
class Row:
    """A line of the table: a model, the tokens of prompts and of answers (from, to), steps, and how often."""

    size: str
    prompt: tuple[int, int]
    answer: tuple[int, int]
    steps: int
    turns: int
    packed: tuple[int, ...]  # lengths of TRL's rows
    fp32: bool = True

    @property
    def tokens(self) -> float:
        """Of a demonstration, on average."""
        return (sum(self.prompt) + sum(self.answer)) / 2


ROWS = {
    "short": Row("5 M", (8, 48), (8, 96), 8, 2, (256, 512, 1024)),
    "long": Row("5 M", (512, 768), (24, 56), 5, 1, (1024, 2048)),
    "large": Row("50 M", (8, 48), (8, 96), 3, 1, (256, 512), fp32=False),
}


@dataclass(frozen=True)
class Trial:
    """One measured run: who trains, with what, on what."""

    who: str  # quintet or trl
    folder: str
    options: dict[str, Any] = field(default_factory=dict)


def measure(names: tuple[str, ...]) -> tuple[Figures, Rows]:
    rows: list[tuple[str, str]] = []
    figures: Figures = {}
    for name in names:
        told = beside_each_other(ROWS[name])
        figures |= _told(name, told)
        rows += _shown(f"{name}, {ROWS[name].size} weights", told)
        wall = figures[f"ratio_{name}_wall"]
        rows.append((f"ratio_{name}", f"{figures[f'ratio_{name}']} (wall clock {wall})"))
    return figures, rows


def beside_each_other(row: Row) -> dict[str, dict[str, float]]:
    """Every trial on one model and one kind of demonstrations, in turns; the medians of their steps."""
    precisions = (False, True) if row.fp32 else (True,)
    ours: dict[str, dict[str, Any]] = {"quintet auto": {}} | (
        {"quintet fp32": {"precision": "fp32"}} if row.fp32 else {}
    )
    theirs = {
        f"trl {'bf16' if half else 'fp32'} {way}": options | {"bf16": half, "steps": row.steps}
        for half in precisions
        for way, options in _ways(row).items()
    }
    told: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), row)
        each = [(key, Trial("quintet", folder, options)) for key, options in ours.items()]
        each += [(key, Trial("trl", folder, options)) for key, options in theirs.items()]
        for turn in range(row.turns):
            for key, trial in each if turn % 2 == 0 else reversed(each):
                told.setdefault(key, []).append(trials.run("sft", trial))
    return {key: _summed_up(several) for key, several in told.items()}


def _ways(row: Row) -> dict[str, dict[str, Any]]:
    """How TRL may be asked to lay out its rows, about as many tokens a step each time."""
    tokens = A_STEP * row.tokens
    ways: dict[str, dict[str, Any]] = {
        f"packed in {length}": {
            "packing": True, "packing_strategy": "bfd", "max_length": length,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": max(1, round(tokens / length)),
        }
        for length in row.packed
    }  # fmt: skip
    at_once = 8
    padded = {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": A_STEP // at_once}
    return ways | {"padded": padded | {"packing": False, "max_length": None}}


def _summed_up(several: list[dict[str, Any]]) -> dict[str, float]:
    def a_second(clock: str) -> float:
        return 1 / median(
            (each[clock][n + 1] - each[clock][n]) / (each["tokens"][n + 1] - each["tokens"][n])
            for each in several
            for n in range(1, len(each[clock]) - 1)
        )

    return {
        "tokens_per_second": a_second("cpu"),
        "tokens_per_second_wall": a_second("wall"),
        "start_seconds": min(each["cpu"][0] for each in several),
        "peak_mb": median(each["peak_mb"] for each in several),
    }


def _told(name: str, found: dict[str, dict[str, float]]) -> Figures:
    def best(who: str, what: str) -> float:
        return max(each[what] for key, each in found.items() if key.startswith(who))

    speed = "tokens_per_second"
    return {
        f"ratio_{name}": round(best("quintet", speed) / best("trl", speed), 2),
        f"ratio_{name}_wall": round(best("quintet", f"{speed}_wall") / best("trl", f"{speed}_wall"), 2),
        f"{speed}_{name}": {who: round(best(who, speed)) for who in ("quintet", "trl")},
        f"trials_{name}": {
            key: {what: round(number, 1) for what, number in each.items()} for key, each in found.items()
        },
    }


def _shown(what: str, found: dict[str, dict[str, float]]) -> Rows:
    for key, each in found.items():
        yield (
            f"{what}, {key}",
            f"{each['tokens_per_second']:8,.0f} tokens/s (wall clock {each['tokens_per_second_wall']:8,.0f})"
            f"   start {each['start_seconds']:4.1f} s   peak {each['peak_mb']:5.0f} MB",
        )


# What both are given


def lay_out(folder: Path, row: Row) -> None:
    """A random model, and demonstrations."""
    trials.random_model(folder / "policy", row.size)
    chances = random.Random(0)

    def text(bounds: tuple[int, int]) -> str:
        return trials.text(chances, chances.randint(*bounds))

    lines = [
        json.dumps({"prompt": text(row.prompt), "completion": text(row.answer)})
        for _ in range(A_STEP * row.steps)
    ]
    (folder / "demonstrations.jsonl").write_text("\n".join(lines) + "\n")


# The two trainers, each in a process of its own: when each step ended, and how many tokens it had read


class Counted(Clocks):
    """The tokens read by the end of every step as well."""

    def __init__(self) -> None:
        super().__init__()
        self.told["tokens"] = []
        self.read = 0.0

    def tick(self) -> None:
        super().tick()
        self.told["tokens"].append(self.read)


def quintet(trial: Trial, clocks: Counted) -> None:
    from rlhf import __main__ as command
    from rlhf.packing import Packing

    clocks.tick_at_our_steps()
    losses = Packing.losses

    def counting(packing: Packing, texts: Any) -> Any:
        clocks.read += sum(each.tokens for each in texts)
        return losses(packing, texts)

    Packing.losses = counting  # type: ignore[method-assign, assignment]
    folder = Path(trial.folder)
    directory = Path(tempfile.mkdtemp(dir=folder)) / "run"
    settings = {
        "epochs": 1, "batch": A_STEP, "held_out": 0, "evaluate_every": 100000, "sample_prompts": 0,
        "learning_rate": 1e-4, "checkpoint_every": 100000, "device": "cpu",
    } | trial.options  # fmt: skip
    given = [f"--set={name}={value}" for name, value in settings.items()]
    start, data = str(folder / "policy"), str(folder / "demonstrations.jsonl")
    command.main(["new", "sft", str(directory), "--from", start, "--dataset", data, *given])
    command.main([str(directory)])


def trl(trial: Trial, clocks: Counted) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from rlhf import checkpoint, data

    folder = Path(trial.folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", attn_implementation="sdpa")
    rows = []
    for line in data.demonstrations(folder / "demonstrations.jsonl"):
        prompt = checkpoint.encode_prompt(tokenizer, line.prompt)
        answer = checkpoint.encode_rollout(tokenizer, line.completion)
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clocks.read = float(trainer._total_train_tokens)
            clocks.tick()

    options = dict(trial.options)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(dir=folder), use_cpu=True, report_to="none",
        max_steps=options.pop("steps"), save_strategy="no", logging_strategy="no", learning_rate=1e-4,
        gradient_checkpointing=False, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()


def one(given: dict[str, Any]) -> None:
    trial, clocks = Trial(**given), Counted()
    train = {"quintet": quintet, "trl": trl}[trial.who]
    trials.carry_out(clocks, lambda: train(trial, clocks))


if __name__ == "__main__":
    about = "Tokens a second, beside TRL's SFTTrainer with packing."
    trials.main("sft", about, ROWS, ROWS, measure, one)
