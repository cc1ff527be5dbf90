"""A quick dry pass: how fast a model writes and learns here, and what that holds in memory.

A few rows of drawn tokens, of the length that a run would have, are continued and learnt from once; nothing
is kept of it. What a whole run comes to is worked out by whoever asks."""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlhf import checkpoint, data
from rlhf.sample import sample

WRITTEN = 32  # tokens of a rollout, at the most
FEW, ROWS = 8, 64  # a small model is not much slower with all of them: its speed is known only with many
PATIENCE = 15.0  # seconds that the larger of the two passes may take
PASSES, MOMENT = 3, 3.0  # how often each is done, and seconds after which none is done again
STATUS = Path("/proc/self/status")


def measure(
    model: Any, tokenizer: Any, prompts: Sequence[data.Prompt], longest: int, at_once: int, train: bool
) -> dict[str, Any]:
    """Tokens a second, of writing and of learning; bytes that a row holds; the longest prompt in tokens."""
    lengths = [len(checkpoint.encode_prompt(tokenizer, each)) for each in prompts] or [1]
    limit = checkpoint.longest(model) or 1_000_000
    new = min(longest, max(1, limit - 1))
    prompt = max(1, min(max(lengths), limit - new))
    rows = max(1, min(at_once, ROWS))
    chances = torch.Generator().manual_seed(0)
    drawn = torch.randint(
        0, int(model.get_input_embeddings().num_embeddings), (rows, prompt + new), generator=chances
    )

    ids = drawn[:, :prompt].tolist()
    sample(model, tokenizer, ids[:1], 1, 2, 1.0, chances)  # what only the first time costs

    def write(part: list[list[int]]) -> int:
        written = sample(model, tokenizer, part, 1, min(new, WRITTEN), 1.0, chances)
        return sum(len(each.tokens) for each in written)

    for part in (ids[:FEW], ids):
        sampled, seconds = _pace(partial(write, part))
        if len(part) == rows or seconds * rows / len(part) > PATIENCE:
            break
    told: dict[str, Any] = {"sampled": sampled, "longest": max(lengths), "rows": rows}
    if train:
        told |= _learning(model, drawn.to(model.device), prompt)
    return told


def _pace(work: Callable[[], int]) -> tuple[float, float]:
    """Tokens a second, and seconds: the best of some passes. The first of a new shape pays for what all later
    ones find prepared, and the machine has other work now and then."""
    spent, best = 0.0, (0.0, 0.0)
    for _ in range(PASSES):
        began = time.perf_counter()
        tokens = work()
        seconds = time.perf_counter() - began
        best, spent = max(best, (tokens / seconds, seconds)), spent + seconds
        if spent > MOMENT:
            break
    return best


def _learning(model: Any, ids: torch.Tensor, prompt: int) -> dict[str, Any]:
    """One row first: a model may be so large that several would keep somebody waiting."""
    trained, seconds, each = _watched(model.device, partial(_pass, model, ids[:1], prompt))
    rows = len(ids)
    if rows > 1 and seconds * rows < PATIENCE:
        trained, _, held = _watched(model.device, partial(_pass, model, ids, prompt))
        each = held // rows if held else each
    return {"trained": trained, "each": each}


def _pass(model: Any, ids: torch.Tensor, prompt: int) -> int:
    """Learn once from these; how many tokens they are."""
    try:
        with torch.enable_grad():
            scored = ids.shape[1] - prompt
            logits = model(input_ids=ids, use_cache=False).logits[:, -scored - 1 : -1]
            torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), ids[:, -scored:].flatten()
            ).backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return ids.numel()
    finally:
        model.zero_grad(set_to_none=True)


def _watched(device: torch.device, work: Callable[[], int]) -> tuple[float, float, int]:
    """Its pace, and bytes at the height of it beyond those before; 0 where this system does not tell."""
    before = _held(device, anew=True)
    tokens_a_second, seconds = _pace(work)
    return tokens_a_second, seconds, max(0, _held(device, anew=False) - before)


def _held(device: torch.device, anew: bool) -> int:
    """The most bytes held since it was asked `anew`, or at that moment."""
    if device.type == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, ValueError, StopIteration):
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        lines = STATUS.read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0
