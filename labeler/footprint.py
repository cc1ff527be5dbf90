"""What a run needs of memory and disk, by arithmetic: the parameters counted in the weights' own headers,
times what training keeps of each, and what a rollout takes while it is computed. No model is loaded and
nothing of torch is imported.

Weights are held in fp32 by all trainers. What a step holds besides them is rough (±50 %); the weights, their
gradients and the optimizer's two numbers for each are exact, and so is a checkpoint's size."""

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf import config

NUMBER = 4  # bytes of an fp32 number
TRAINED = 4 * NUMBER  # a weight, its gradient, and two of the optimizer
PROGRAM = 500_000_000  # Python and torch themselves
# Numbers that a layer keeps for the way back, for each token, in hidden sizes: inputs, attention's four
# products and its result, two norms, and a feed-forward part of four hidden sizes with its gate.
KEPT = 17
LINE = 14  # bytes of a token in rollouts.jsonl.zst: its id, its KL, and its share of the rest
HEADER = 100_000_000  # a header that claims to be longer is none


@dataclass(frozen=True)
class Model:
    """What its files say of it."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    cached: int  # numbers that the cache holds of a token
    context: int | None  # tokens, prompt and rollout together

    @property
    def weights(self) -> int:
        return NUMBER * self.parameters

    def adapters(self, rank: int) -> int:
        """Bytes of LoRA training: two thin matrices beside each of a layer's seven."""
        return TRAINED * rank * self.layers * 7 * 3 * self.hidden

    def training(self, tokens: int, scored: int) -> int:
        """Bytes that are kept for the way back through `tokens`, of which `scored` meet the vocabulary."""
        return NUMBER * (tokens * self.layers * KEPT * self.hidden + 3 * scored * self.vocabulary)

    def reading(self, tokens: int) -> int:
        """Bytes while `tokens` are only read, and what was read of them stays in the cache."""
        return NUMBER * (tokens * (self.cached + 8 * self.hidden) + 2 * self.vocabulary)


@dataclass(frozen=True)
class Need:
    """Bytes: what is there from the beginning, and what each of `at_once` rollouts (or examples) adds."""

    fixed: int
    each: int
    at_once: int
    noun: str

    @property
    def least(self) -> int:
        """With one at a time: below this nothing helps but a smaller model or adapters."""
        return self.fixed + self.each

    @property
    def whole(self) -> int:
        return self.fixed + self.each * self.at_once

    def fitting(self, memory: int) -> int:
        """How many at once fit in this memory: a power of two."""
        most = max(1, (memory - self.fixed) // max(1, self.each))
        return 2 ** (int(most).bit_length() - 1)


def model(folder: Path | None) -> Model | None:
    """What the files of a checkpoint say; None where there are none, or not of a kind that is understood."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    return _model(folder, (folder / "config.json").stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _model(folder: Path, _changed: int) -> Model | None:
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        said = said.get("text_config") or said
        parameters = sum(_numbers(path) for path in folder.glob("*.safetensors"))
        layers, hidden = _of(said, "num_hidden_layers", "n_layer"), _of(said, "hidden_size", "n_embd")
        heads = _of(said, "num_attention_heads", "n_head") or 1
        each = said.get("head_dim") or hidden // heads
        cached = 2 * layers * each * (said.get("num_key_value_heads") or heads)
        context = _of(said, "max_position_embeddings", "n_positions") or None
        if not parameters or not layers or not hidden:
            return None
        return Model(parameters, layers, hidden, _of(said, "vocab_size"), cached, context)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, struct.error):
        return None  # a foreign folder: then nothing is claimed about it


def _of(said: dict[str, Any], *names: str) -> int:
    return next((int(said[name]) for name in names if said.get(name)), 0)


def _numbers(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER:
            raise ValueError(f"{path} has no header of safetensors.")
        header = json.loads(file.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for each in tensor["shape"]:
                size *= each
            total += size
    return total


# What a run of each kind holds


def memory(made: config.Config, start: Model | None, judge: Model | None, prompt: int, rollout: int) -> Need:
    """`prompt` and `rollout` are tokens: the longest of a policy, what is usual of a dataset's."""
    if isinstance(made, config.PolicyConfig):
        assert start
        tokens = prompt + made.max_new_tokens
        held = 2 * start.weights + _trained(start, made.lora_rank) - (start.weights if made.lora_rank else 0)
        each = start.training(tokens, made.max_new_tokens) + start.reading(tokens)
        rollouts = made.prompts_per_step * made.rollouts_per_prompt
        held += judge.weights if judge else 0
        return Need(PROGRAM + held, each, min(made.micro_batch, rollouts), "rollout")
    if isinstance(made, config.RolloutsConfig):
        assert start
        each = made.count * start.reading(prompt + made.max_new_tokens)
        return Need(PROGRAM + start.weights, each, made.batch, "prompt")
    if isinstance(made, config.RewardConfig):
        assert start
        tokens = min(prompt, made.max_tokens) + 5 * min(rollout, made.max_tokens)
        each = start.training(tokens, 0) // (3 if made.gradient_checkpointing else 1)
        held = start.weights + _trained(start, made.lora_rank)
        return Need(PROGRAM + held, each, min(made.micro_batch, made.batch), "ranking")
    if isinstance(made, config.SftConfig):
        assert start
        # Documents are as long as they may be: longer ones are cut, shorter ones share a row.
        reading = made.stage == config.READING
        tokens = made.max_tokens if reading else min(prompt + rollout, made.max_tokens)
        scored = tokens if reading else min(rollout, tokens)
        kept = start.training(tokens, 0) // (3 if made.gradient_checkpointing else 1)
        held = start.weights + _trained(start, made.lora_rank)
        at_once = min(made.micro_batch, made.batch, max(1, made.tokens_per_row // tokens))
        return Need(PROGRAM + held, kept + start.training(0, scored), at_once, "example")
    assert judge
    return Need(
        PROGRAM + judge.weights * (2 if made.against else 1), judge.reading(prompt + rollout), 8, "one"
    )


def _trained(start: Model, rank: int) -> int:
    """Beyond the weights themselves: gradients and the optimizer, of all of them or of adapters."""
    return start.adapters(rank) if rank else TRAINED * start.parameters - start.weights


def checkpoints(made: config.Config, steps: int) -> int:
    """How many a run keeps."""
    every = getattr(made, "checkpoint_every", 0)
    return -(-steps // every) if every and steps else 0


def disk(made: config.Config, start: Model | None, steps: int) -> int:
    """Bytes that a run leaves behind, at the moment when most of them are there."""
    kept = checkpoints(made, steps)
    if isinstance(made, config.RolloutsConfig | config.EvaluationConfig) or not start:
        return 0
    rank = getattr(made, "lora_rank", 0)
    resuming = (start.adapters(rank) if rank else TRAINED * start.parameters) * 3 // 4
    total = kept * start.weights + 2 * resuming  # the newest one's replaces the older one's, once written
    if isinstance(made, config.PolicyConfig):
        total += steps * made.written * made.max_new_tokens * LINE
    return total
