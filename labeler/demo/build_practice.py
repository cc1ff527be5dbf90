"""Makes again what the demos that practise ship: `python -m labeler.demo.build_practice [--work DIR]`.

For each a tokenizer and an untrained model, and two supervised starts by the product's own trainer: one that
was stopped early, with which practice begins, and one that imitated to the end, against which it is held. A
part of the prompts is held out from both, and what a policy run holds out is among it. What is shipped was
made while that part was a tenth by count. Now that it goes by each prompt's own place, other weights come
out, and at which step a start is right two times in three has to be found anew (docs/log.md).

A program only, as `labeler.demo.build` is: nothing imports it.
"""

from pathlib import Path

from labeler.demo import making, practice

LAYERS = 2  # four hundred thousand weights
SFT = {"seed": making.SEED, "device": "cpu", "weight_decay": 0.05, "held_out": practice.HELD_OUT}


def build(work: Path) -> None:
    """Write checkpoints/ beside this file."""
    for each in practice.ALL:
        texts = (text for one in each.problems() for text in (one.prompt, one.worked))
        words = making.tokenizer(texts, each.vocabulary, each.context, digits_alone=True)
        for name, made in each.starts.items():
            run = work / each.slug / name
            making.untrained(run / "inputs" / "policy", words, LAYERS, each.context)
            lines = ({"prompt": one.prompt, "completion": made.shown(one)} for one in each.problems())
            making.ship(making.finetuned(run, lines, SFT | made.settings, made.step), each.folder(name))


if __name__ == "__main__":
    making.main("build_practice", build.__doc__, build)
