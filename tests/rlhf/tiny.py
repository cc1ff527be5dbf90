"""Tiny models made on the spot: a byte-level tokenizer and random weights of several architectures."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<bos>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT = "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}<|assistant|>"
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GEMMA = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6}
CONFIGS = {
    "llama": {**_SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**_SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "mistral": {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    "gemma2": {**_GEMMA, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_GEMMA, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}  # fmt: skip


def tokenizer(pad: str | None = "<pad>", chat: bool = True) -> PreTrainedTokenizerFast:
    """Every byte is a token. `pad="<|end|>"` gives the kind in which padding ends a text, None one without."""
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
    options = CONFIGS[kind] | {
        "vocab_size": len(SPECIAL) + 256,
        "eos_token_id": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options | changes))
    return made.eval()


def policy(
    path: Path, kind: str = "llama", seed: int = 0, pad: str | None = "<pad>", chat: bool = True
) -> Path:
    """A starting checkpoint on disk, as someone else's tool would have saved it."""
    made, words = model(kind, seed), tokenizer(pad, chat)
    made.config.pad_token_id = made.generation_config.pad_token_id = words.pad_token_id
    made.save_pretrained(path)
    words.save_pretrained(path)
    return path
