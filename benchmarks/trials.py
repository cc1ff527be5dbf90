"""Trials beside a peer: the same random model for both, each trial in a process of its own on one thread, the
clocks read at the end of every step.

What is trained, on what, and which figures are compared, is told by each benchmark: it has a dataclass
`Trial` and says who trains it how.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import alone, report

VOCABULARY = 2048
SIZES = {
    "5 M": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 5, "num_attention_heads": 4},
    "50 M": {
        "hidden_size": 640,
        "intermediate_size": 1920,
        "num_hidden_layers": 9,
        "num_attention_heads": 10,
    },
}


def random_model(folder: Path, size: str) -> None:
    """A policy of this size with a tokenizer of whole words: w0, w1, …"""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *(f"w{number}" for number in range(VOCABULARY - 2))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        max_position_embeddings=4096, **dict[str, Any](SIZES[size]),
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def text(chances: Any, length: int) -> str:
    """So many of its words, drawn from a `random.Random`."""
    return " ".join(f"w{chances.randrange(VOCABULARY - 2)}" for _ in range(length))


class Clocks:
    """The wall clock's and the processor's time at the end of every step."""

    def __init__(self) -> None:
        self.told: dict[str, list[float]] = {"wall": [], "cpu": []}

    def tick(self) -> None:
        self.told["wall"].append(time.time())
        self.told["cpu"].append(time.process_time())

    def tick_at_our_steps(self) -> None:
        """From now on, in this process."""
        from rlhf.optimizer import Optimizer

        step = Optimizer.step

        def ticking(optimizer: Any, *given: Any) -> float:
            norm = step(optimizer, *given)
            self.tick()
            return norm

        Optimizer.step = ticking  # type: ignore[method-assign, assignment]


def run(benchmark: str, trial: Any) -> dict[str, Any]:
    """Carry a trial out in a process of its own; the wall clock begins with the process."""
    began = time.time()
    said = alone.run(f"benchmarks.{benchmark}", "--trial", json.dumps(asdict(trial)))
    told = json.loads(said.strip().splitlines()[-1])
    told["wall"] = [moment - began for moment in told["wall"]]
    return told


def carry_out(clocks: Clocks, train: Callable[[], Mapping[str, Any] | None]) -> None:
    """What the process of a trial does: train, tell when each step ended, and what else there is to tell."""
    import resource

    import torch

    torch.set_num_threads(1)
    more = train() or {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**clocks.told, "peak_mb": peak, **more}))


def main(
    benchmark: str,
    about: str,
    rows: Collection[str],
    usual: Collection[str],
    measure: Callable[[tuple[str, ...]], tuple[report.Figures, report.Rows]],
    one: Callable[[dict[str, Any]], None],
) -> None:
    """As `report.main`, for the rows that `--rows` names; or `one` trial, in a process of its own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--trial", type=json.loads)
    parser.add_argument("--rows", nargs="+", choices=[*rows], default=[*usual])
    asked, others = parser.parse_known_args()
    if asked.trial:
        one(asked.trial)
        return
    sys.argv[1:] = others
    about = f"{about} --rows {' '.join(rows)}."
    report.main(benchmark, about, lambda: measure(tuple(asked.rows)))
