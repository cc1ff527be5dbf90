"""Makes again what the demos that practise ship: `python -m labeler.demo.build_practice [--work DIR]`.

For each a tokenizer and an untrained model, and two supervised starts by the product's own trainer: one that
was stopped early, with which practice begins, and one that imitated to the end, against which it is held. A
part of the prompts is held out from both, the same that a policy run holds out. On the machine that made them
the weights come out the same to the bit; elsewhere rounding may differ.

A program only, as `labeler.demo.build` is: nothing imports it, and torch is loaded by what needs it.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labeler.demo import HERE, practice
from rlhf import config, data

SEED = 0
SPECIAL = ["<pad>", "<bos>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{{ message['content'] }}<|end|>{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SFT = {"seed": SEED, "device": "cpu", "weight_decay": 0.05, "held_out": practice.HELD_OUT}


def build(work: Path) -> None:
    """Write checkpoints/ beside this file."""
    import torch

    torch.set_num_threads(1)  # sums of several threads round differently from machine to machine
    for each in practice.ALL:
        base = work / each.slug / "base"
        _untrained(base, each)
        for name, made in each.starts.items():
            run = work / each.slug / name
            lines = [{"prompt": one.prompt, "completion": made.shown(one)} for one in each.problems()]
            _ship(_finetuned(run, base, lines, made.settings, made.step), each.folder(name))


def _untrained(path: Path, each: "practice.Practice") -> None:
    """Four hundred thousand weights, drawn from the seed; a byte-level BPE in which digits stand alone."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    learnt = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    learnt.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=each.vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator(_texts(each), trainer)
    pad, bos, *turns, end = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        pad_token=pad,
        bos_token=bos,
        eos_token=end,
        additional_special_tokens=turns,
        chat_template=TEMPLATE,
        model_max_length=each.context,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=336,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=each.context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _texts(each: "practice.Practice") -> Iterable[str]:
    return (text for one in each.problems() for text in (one.prompt, one.worked))


def _finetuned(
    run: Path, base: Path, lines: Sequence[dict[str, Any]], settings: dict[str, Any], step: int | None
) -> Path:
    """A supervised run of the product; its checkpoint of that step, or its last one."""
    from rlhf.execute import FINISHED, execute

    shutil.copytree(base, run / "inputs" / "policy")
    data.write_lines(run / "dataset.jsonl", lines)
    config.write(run, config.make("sft", SFT | settings))
    if execute(run) != FINISHED:
        sys.exit(f"A supervised start has failed; {run}/log.txt tells why.")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return run / (f"checkpoints/step-{step:06d}" if step else result["checkpoint"])


def _ship(checkpoint: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    # copyfile: safetensors makes files that only their owner may read
    unwanted = shutil.ignore_patterns("trainer")
    shutil.copytree(checkpoint, target, ignore=unwanted, copy_function=shutil.copyfile)
    print(target.relative_to(HERE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m labeler.demo.build_practice", description=build.__doc__)
    parser.add_argument("--work", type=Path, help="where to train; a temporary folder by default")
    given = parser.parse_args()
    if given.work:
        build(given.work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
