"""Tiny models and data made on the spot: a byte-level tokenizer, random weights of several architectures,
people who love pelicans, runs that die."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rlhf import config, data
from rlhf.run import RunDirectory

SPECIAL = ["<pad>", "<bos>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT = "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}<|assistant|>"
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GEMMA = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6}
CONFIGS = {
    "llama": {**_SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**_SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "mistral": {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    "gemma2": {**_GEMMA, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        **_GEMMA, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}  # fmt: skip
_LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
UNSHARED = {  # that cannot take a quintet as one row: one says so, the others are silently wrong
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "jamba": {  # state-space layers between those of attention, with weights large enough to show
        "initializer_range": 0.2,
        **_SIZES, "num_key_value_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1,
        "num_experts_per_tok": 1, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "qwen3_next": {
        **_SIZES, **_LINEAR, "num_key_value_heads": 2, "head_dim": 8, "linear_value_head_dim": 8,
        "num_experts": 2, "num_experts_per_tok": 1,
        "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
}  # fmt: skip
WORDS = ("why", "did", "the", "pelican", "cross", "a", "road", "with", "fish", "big", "beak", "bird")


def tokenizer(pad: str | None = "<pad>", chat: bool = True) -> PreTrainedTokenizerFast:
    """Every byte is a token. `pad="<|end|>"` is the kind in which padding ends a text, None one without."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(SPECIAL + alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", pad_token=pad,
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )  # fmt: skip
    wrapped.chat_template = CHAT if chat else None
    return wrapped


def model(kind: str = "llama", seed: int = 0, **changes):
    """A random causal language model whose vocabulary fits `tokenizer()`."""
    options = (CONFIGS | UNSHARED)[kind] | {
        "vocab_size": len(SPECIAL) + 256,
        "eos_token_id": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options | changes))
    return made.eval()


def leak(model, share):
    """A state that runs along the row, as in state-space layers: tokens hear a little of all before them."""

    def hook(layer, given, hidden):
        past = hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]
        return hidden + share * past

    return model.model.embed_tokens.register_forward_hook(hook)


@torch.no_grad()
def says(model, ids):
    """Log-probabilities of every token after each of these, [tokens, vocabulary], by a plain pass."""
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def policy(
    path: Path, kind: str = "llama", seed: int = 0, pad: str | None = "<pad>", chat: bool = True
) -> Path:
    """A starting checkpoint on disk, as someone else's tool would have saved it."""
    made, words = model(kind, seed), tokenizer(pad, chat)
    made.config.pad_token_id = made.generation_config.pad_token_id = words.pad_token_id
    made.save_pretrained(path)
    words.save_pretrained(path)
    return path


def rankings(path: Path, count: int = 40, prompts: int = 20, seed: int = 0) -> Path:
    """A file of rankings by people who like pelicans and fish, with a tie now and then."""
    random_words = random.Random(seed)
    lines = []
    for number in range(count):
        rollouts = [
            " ".join(random_words.choices(WORDS, k=random_words.randint(3, 7)))
            for _ in range(random_words.choice((5, 5, 5, 3)))
        ]
        liked = [text.count("pelican") + text.count("fish") for text in rollouts]
        lines.append(
            {
                "prompt": f"Joke {number % prompts}, please.",
                "rollouts": rollouts,
                "ranks": list(data.dense([-each for each in liked])),
                "labeler": f"labeler {number % 3}",
                "quintet": str(number),
                "simulated": number % 2 == 0,
            }
        )
    data.write_lines(path, lines)
    return path


def demonstrations(path: Path, count: int = 24) -> Path:
    """A file of demonstrations: every answer repeats its prompt's number, some of them louder."""
    lines = [
        {
            "prompt": f"Joke {number % 12}, please.",
            "completion": f"pelican {number % 12}{'!' * (number // 12)}",
        }
        for number in range(count)
    ]
    data.write_lines(path, lines)
    return path


def run_directory(path: Path, kind: str, start: Path, dataset: Path, **values) -> Path:
    """A run directory ready to be run."""
    config.write(path, config.make(kind, {"device": "cpu"} | values))
    shutil.copytree(start, path / "inputs" / "policy")
    shutil.copyfile(dataset, path / "dataset.jsonl")
    return path


def left(path: Path, outcome, *more: str) -> tuple:
    """All bytes that a run leaves and that no clock is in; `more`: of a checkpoint's files."""
    steps = [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]
    for line in steps:
        line.pop("seconds")
    files = ("model.safetensors", "trainer/state.safetensors", "quintet.json", "README.md", *more)
    return (
        steps,
        (path / "samples.jsonl").read_bytes(),
        {name: (path / outcome.checkpoint / name).read_bytes() for name in files},
        outcome,
        sorted(each.name for each in (path / "checkpoints").iterdir()),
    )


def forked(*given: Path | int) -> subprocess.Popen:
    """Runs in processes of their own, one after the other, each of which may die at a step: see there."""
    command = [sys.executable, "-m", "tests.rlhf.forking", *map(str, given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(at: dict[int, Path]) -> None:
    """Run these directories, each until its process is about to tell that step and is killed."""
    told, _ = forked(*(each for step, path in at.items() for each in (path, step))).communicate(timeout=180)
    assert [int(each) for each in told.split()[1::2]] == [-signal.SIGKILL] * len(at)
    assert not [path for path in at.values() if (path / "result.json").exists()]


class Killed(BaseException):
    """Stands for the process's sudden end."""


class Doomed(RunDirectory):
    """A run directory whose process dies around a step: when it was told, or as soon as it was saved."""

    def __init__(self, path, last, saved=False):
        super().__init__(path)
        self.last, self.saved = last, saved

    def step(self, step, **metrics):
        super().step(step, **metrics)
        if step == self.last and not self.saved:
            raise Killed

    def steps(self, done, total, phase="training"):
        for step in super().steps(done, total, phase):
            yield step
            if step == self.last:
                raise Killed
