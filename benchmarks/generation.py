"""Writing rollouts, beside `generate` of transformers: tokens a second, same model, same prompts.

Both sample at temperature 1 from the whole vocabulary, on one thread, in turns in one process; each answer
counts up to its end. Compared are the best turns' processor time, which leaves the neighbours of a shared
machine out; the wall clock's stands beside it. Both run in fp32 and in bf16 (autocast), and the faster one
of each is compared.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Figures, Rows, main
from benchmarks.trials import VOCABULARY, random_model

LONGEST = 48  # tokens of a rollout
TURNS = 4
SHAPES = {  # prompts, their tokens, rollouts of each
    "16x8": (16, 24, 8),
    "512x5": (1, 512, 5),
}


def measure() -> tuple[Figures, Rows]:
    figures: Figures = {}
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder) / "policy", "5 M")
        for name in SHAPES:
            found = side_by_side(Path(folder) / "policy", name)
            best = {
                who: max(
                    (each for key, each in found.items() if key.startswith(who)), key=lambda each: each[0]
                )
                for who in ("quintet", "transformers")
            }
            figures[f"ratio_{name}"] = round(best["quintet"][0] / best["transformers"][0], 2)
            figures[f"ratio_{name}_wall"] = round(best["quintet"][1] / best["transformers"][1], 2)
            figures[f"tokens_per_second_{name}"] = {key: round(each[0]) for key, each in found.items()}
            for key, (cpu, wall) in found.items():
                rows.append((f"{name}, {key}", f"{cpu:7.0f} tokens/s (wall clock {wall:.0f})"))
            rows.append((f"ratio_{name}", f"{figures[f'ratio_{name}']}"))
    return figures, rows


def side_by_side(policy: Path, name: str) -> dict[str, tuple[float, float]]:
    """Tokens a second by the processor's time and by the wall clock's, the best of the turns of each."""
    import torch

    from rlhf import checkpoint
    from rlhf.sample import sample

    torch.set_num_threads(1)
    count, length, rollouts = SHAPES[name]
    theirs = plain(policy)
    ours, tokenizer = checkpoint.load_policy(policy)
    random = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, VOCABULARY, (count, length), generator=random)

    def generate() -> int:
        found = theirs.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0,
            top_p=1.0, num_return_sequences=rollouts, max_new_tokens=LONGEST, eos_token_id=1, pad_token_id=0,
        )[:, length:]  # fmt: skip
        return int((found != 0).sum())

    def write() -> int:
        found = sample(ours, tokenizer, prompts.tolist(), rollouts, LONGEST, 1.0, random)
        return sum(len(each.tokens) for each in found)

    tried = {
        f"{who} {precision}": (do, precision)
        for who, do in (("quintet", write), ("transformers", generate))
        for precision in ("fp32", "bf16")
    }
    best = dict.fromkeys(tried, (0.0, 0.0))
    for turn in range(1 + TURNS):  # the first is not counted
        for key, (do, precision) in tried.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                speeds = timed(do)
            if turn:
                best[key] = tuple(map(max, best[key], speeds))  # type: ignore[assignment]
    return best


def plain(policy: Path) -> Any:
    """The model as transformers opens it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(policy).eval()


def timed(do: Callable[[], int]) -> tuple[float, float]:
    """What `do` counts, by second of the processor and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    count = do()
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


if __name__ == "__main__":
    main("generation", "Tokens a second, beside transformers' generate.", measure)
