"""Makes everything that the demo ships again, from one seed: `python -m labeler.demo.build [--work DIR]`.

The tokenizer and an untrained model, the supervised start by the product's own trainer, then rollouts by its
own sampler: 40 quintets for people and 150 that simulated labelers rank. Processors and later versions of the
trainer round differently, so that what is made again has other words, of equal quality (docs/log.md).

It lies beside what it makes and is a program only: nothing imports it, and torch and the trainers are loaded
by what needs them, not by reading this file (tests/test_boundaries.py sees to both).
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from labeler.demo import HERE, jokes, making
from labeler.demo.making import SEED
from labeler.demo.taste import LABELERS, taste
from rlhf import data

JOKES = 6000
VOCABULARY, LAYERS, CONTEXT = 1024, 3, 256  # seven hundred thousand weights
LONGEST = 40  # tokens of a rollout
WAITING = 40  # quintets for people
RANKED = 150  # quintets that the simulated labelers rank
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
    corpus = jokes.corpus(JOKES, SEED)
    run = work / "run"
    words = making.tokenizer(
        (text for joke in corpus for text in (joke.prompt, joke.text)), VOCABULARY, CONTEXT
    )
    making.untrained(run / "inputs" / "policy", words, LAYERS, CONTEXT)
    lines = ({"prompt": joke.prompt, "completion": joke.text} for joke in corpus)
    making.ship(making.finetuned(run, lines, RECIPE), HERE / "checkpoint")
    data.write_lines(HERE / "prompts.jsonl", ({"prompt": prompt} for prompt in jokes.prompts()))
    # Pelicans wait first; then every other subject has a turn before any has a second one.
    asked = sorted(jokes.prompts()[5:], key=lambda prompt: _shuffled(prompt))
    waiting = jokes.prompts()[:5] + asked[: WAITING - 5]
    ranked = asked[WAITING - 5 :][:RANKED]
    quintets = _quintets([*waiting, *ranked])
    data.write_lines(HERE / "quintets.jsonl", quintets[:WAITING])
    data.write_lines(HERE / "rankings.jsonl", _ranked(quintets[WAITING:]))
    _report(quintets)


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
    making.main("build", "Make the demo again.", build)
