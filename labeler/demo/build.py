"""Makes everything that the demo ships again, from one seed: `python -m labeler.demo.build [--work DIR]`.

The tokenizer and an untrained model, the supervised start by the product's own trainer, then rollouts by its
own sampler: 40 quintets for people and 150 that simulated labelers rank. Processors and later versions of the
trainer round differently, so that what is made again has other words, of equal quality (docs/log.md).

It lies beside what it makes and is a program only: nothing imports it, and torch and the trainers are loaded
by what needs them, not by reading this file (tests/test_boundaries.py sees to both).
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labeler.demo import HERE, jokes
from labeler.demo.taste import LABELERS, taste
from rlhf import config, data

SEED = 0
JOKES = 6000
VOCABULARY = 1024
LONGEST = 40  # tokens of a rollout
WAITING = 40  # quintets for people
RANKED = 150  # quintets that the simulated labelers rank
SPECIAL = ["<pad>", "<bos>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{{ message['content'] }}<|end|>{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECIPE = {
    "seed": SEED,
    "device": "cpu",
    "epochs": 7,
    "batch": 32,
    "micro_batch": 32,
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
    "held_out": 0.03,
    "evaluate_every": 150,
    "checkpoint_every": 100_000,
    "max_tokens": 128,
    "max_new_tokens": LONGEST,
}


def build(work: Path) -> None:
    """Write checkpoint/, prompts.jsonl, quintets.jsonl and rankings.jsonl beside this file."""
    import torch

    torch.set_num_threads(1)  # sums of several threads round differently from machine to machine
    corpus = jokes.corpus(JOKES, SEED)
    start = _train(work / "run", corpus)
    shutil.rmtree(HERE / "checkpoint", ignore_errors=True)
    shutil.copytree(
        start,
        HERE / "checkpoint",
        ignore=shutil.ignore_patterns("trainer"),
        copy_function=shutil.copyfile,  # safetensors makes files that only their owner may read
    )
    data.write_lines(HERE / "prompts.jsonl", ({"prompt": prompt} for prompt in jokes.prompts()))
    # Pelicans wait first; then every other subject has a turn before any has a second one.
    asked = sorted(jokes.prompts()[5:], key=lambda prompt: _shuffled(prompt))
    waiting = jokes.prompts()[:5] + asked[: WAITING - 5]
    ranked = asked[WAITING - 5 :][:RANKED]
    quintets = _quintets([*waiting, *ranked])
    data.write_lines(HERE / "quintets.jsonl", quintets[:WAITING])
    data.write_lines(HERE / "rankings.jsonl", _ranked(quintets[WAITING:]))
    _report(quintets)


def tokenizer_of(corpus: Sequence[jokes.Joke]) -> Any:
    """A byte-level BPE learnt from the corpus, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator((text for joke in corpus for text in (joke.prompt, joke.text)), trainer)
    pad, bos, *turns, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        pad_token=pad,
        bos_token=bos,
        eos_token=end,
        additional_special_tokens=turns,
        chat_template=TEMPLATE,
        model_max_length=256,
    )


def untrained(tokenizer: Any) -> Any:
    """Seven hundred thousand weights, drawn from the seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=336,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _train(run: Path, corpus: Sequence[jokes.Joke]) -> Path:
    """The supervised start as a run of the product; the folder of its last checkpoint."""
    from rlhf.execute import FINISHED, execute

    tokenizer = tokenizer_of(corpus)
    untrained(tokenizer).save_pretrained(run / "inputs" / "policy")
    tokenizer.save_pretrained(run / "inputs" / "policy")
    data.write_lines(
        run / "dataset.jsonl", ({"prompt": joke.prompt, "completion": joke.text} for joke in corpus)
    )
    config.write(run, config.make("sft", RECIPE))
    if execute(run) != FINISHED:
        sys.exit(f"The supervised start has failed; {run}/log.txt tells why.")
    return run / json.loads((run / "result.json").read_text(encoding="utf-8"))["checkpoint"]


def _shuffled(prompt: str) -> tuple[int, int]:
    """A place in an order in which subjects take turns with different wordings."""
    place = jokes.prompts().index(prompt)
    subject, wording = divmod(place, len(jokes.PROMPTS))
    return (wording - subject) % len(jokes.PROMPTS), (subject * 17) % len(jokes.SUBJECTS)


def _quintets(prompts: Sequence[str]) -> list[dict]:
    """Five distinct rollouts of the shipped model for each prompt, in the order of sampling."""
    import torch

    from rlhf import checkpoint
    from rlhf.sample import sample

    model, tokenizer = checkpoint.load_policy(HERE / "checkpoint")
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for number, prompt in enumerate(prompts, start=1):
        ids = [checkpoint.encode_prompt(tokenizer, prompt)]
        rollouts: dict[str, bool] = {}
        while len(rollouts) < 5:
            for each in sample(model, tokenizer, ids, 5, LONGEST, 1.0, generator):
                rollouts.setdefault(checkpoint.decode_rollout(tokenizer, each.tokens), each.finished)
        five = list(rollouts.items())[:5]
        found.append(
            {
                "quintet": f"demo-{number:03}",
                "prompt": prompt,
                "rollouts": [text for text, _ in five],
                "finished": [finished for _, finished in five],
            }
        )
    return found


def _ranked(quintets: Sequence[dict]) -> Iterator[dict]:
    """Each quintet ranked by one of the simulated labelers in turn."""
    for number, quintet in enumerate(quintets):
        labeler = LABELERS[number % len(LABELERS)]
        ranks = labeler.rank(quintet["prompt"], quintet["rollouts"])
        said = {"ranks": ranks, "labeler": labeler.name, "seconds": None, "simulated": True}
        yield quintet | said


def _report(quintets: Sequence[dict]) -> None:
    """What the start is like, as the hidden taste sees it."""
    rows = [
        [taste(text, jokes.subject_of(quintet["prompt"])) for text in quintet["rollouts"]]
        for quintet in quintets
    ]
    felt = [each for row in rows for each in row]
    spread = statistics.mean(statistics.pstdev(row) for row in rows)
    mean = statistics.mean(felt)
    print(f"{len(felt)} rollouts: hidden taste {mean:.3f}, spread within a quintet {spread:.3f}")
    for low, high, name in ((-1, 0.1, "poor"), (0.1, 0.45, "middling"), (0.45, 2, "good")):
        print(f"  {name}: {sum(low < each <= high for each in felt) / len(felt):.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m labeler.demo.build", description="Make the demo again.")
    parser.add_argument("--work", type=Path, help="where to train; a temporary folder by default")
    given = parser.parse_args()
    if given.work:
        build(given.work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
