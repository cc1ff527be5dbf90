"""How a tiny model of a demo is made: a byte-level tokenizer learnt from its texts, weights drawn from the
seed, and what the product's own trainer makes of them. For the two programs that make the demos again
(build.py, build_practice.py) and for nobody else; torch and the trainers are loaded by what needs them.

On the machine that made them the weights come out the same to the bit; elsewhere rounding may differ.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from labeler.demo import HERE
from rlhf import config, data

SEED = 0
SPECIAL = ["<pad>", "<bos>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{{ message['content'] }}<|end|>{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(texts: Iterable[str], vocabulary: int, context: int, digits_alone: bool = False) -> Any:
    """A byte-level BPE with a chat template; where digits stand alone no number is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learnt = Tokenizer(models.BPE())
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    learnt.pre_tokenizer = pre_tokenizers.Sequence([digits, letters]) if digits_alone else letters
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator(texts, trainer)
    pad, bos, *turns, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        pad_token=pad,
        bos_token=bos,
        eos_token=end,
        additional_special_tokens=turns,
        chat_template=TEMPLATE,
        model_max_length=context,
    )


def untrained(path: Path, tokenizer: Any, layers: int, context: int) -> None:
    """A model of this tokenizer's words and so many layers, beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=336,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def finetuned(
    run: Path, lines: Iterable[dict[str, Any]], settings: Mapping[str, Any], step: int | None = None
) -> Path:
    """What a supervised run of the product makes of the start that lies in its inputs/policy: its checkpoint
    of that step, or its last one."""
    from rlhf.execute import FINISHED, execute

    data.write_lines(run / "dataset.jsonl", lines)
    config.write(run, config.make("sft", settings))
    if execute(run) != FINISHED:
        sys.exit(f"A supervised start has failed; {run}/log.txt tells why.")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return run / (f"checkpoints/step-{step:06d}" if step else result["checkpoint"])


def ship(checkpoint: Path, target: Path) -> None:
    """Put it beside this file, without what only a resumed run needs."""
    shutil.rmtree(target, ignore_errors=True)
    # copyfile: safetensors makes files that only their owner may read
    unwanted = shutil.ignore_patterns("trainer")
    shutil.copytree(checkpoint, target, ignore=unwanted, copy_function=shutil.copyfile)
    print(target.relative_to(HERE))


def main(program: str, about: str | None, build: Callable[[Path], None]) -> None:
    """The command line of both: build, in a folder that is kept or in one that is not."""
    import torch

    parser = argparse.ArgumentParser(prog=f"python -m labeler.demo.{program}", description=about)
    parser.add_argument("--work", type=Path, help="where to train; a temporary folder by default")
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums of several threads round differently from machine to machine
    if given.work:
        build(given.work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
