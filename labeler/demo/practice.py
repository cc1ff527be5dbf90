"""The demos that practise: their problems, which checkpoints they ship and how those came to be, with what
their policy runs are launched. Knows neither torch nor the web, so that measurements can launch the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeler.demo import HERE, problems, sums

HELD_OUT = 0.1  # of the prompts, by finetuning and by practice alike


@dataclass(frozen=True)
class Start:
    """A supervised checkpoint: what it was shown of a problem, with which settings, and after how many steps
    it was taken (None: at the end)."""

    shown: Callable[[Any], str]
    settings: dict[str, Any]
    step: int | None = None


@dataclass(frozen=True)
class Practice:
    slug: str
    name: str
    guidelines: str
    problems: Callable[[], Sequence[Any]]
    vocabulary: int
    context: int  # tokens, prompt and answer together
    starts: dict[str, Start]
    run_defaults: dict[str, dict[str, Any]]

    def folder(self, start: str) -> Path:
        return HERE / "checkpoints" / self.slug / start


_SUMS = {
    "epochs": 20, "batch": 64, "micro_batch": 64, "learning_rate": 2e-3, "evaluate_every": 100,
    "checkpoint_every": 20, "max_tokens": 32, "max_new_tokens": 6,
}  # fmt: skip
_PROBLEMS = {
    "epochs": 18, "batch": 32, "micro_batch": 32, "learning_rate": 2e-3, "evaluate_every": 200,
    "checkpoint_every": 50, "max_tokens": 128, "max_new_tokens": 48,
}  # fmt: skip

SUMS = Practice(
    slug="sums",
    name="Sums",
    guidelines="""What do two numbers of two digits come to? The answer has three digits: `085` is 85.

A tiny model was shown a few thousand sums and stopped early: it is right about two times in three. From there
it practises by itself. Nothing but the checker says what is right, so there is no cap on the steps.""",
    problems=sums.sums,
    vocabulary=261,
    context=64,
    starts={
        "start": Start(lambda one: one.worked, _SUMS, step=280),
        "imitation": Start(lambda one: one.worked, _SUMS),
    },
    run_defaults={
        "sft": _SUMS,
        "rollouts": {"max_new_tokens": 6},
        "policy": {
            "steps": 200, "learning_rate": 6e-4, "final_rate": 0.1, "algorithm": "grpo", "max_new_tokens": 6,
            "prompts_per_step": 32, "rollouts_per_prompt": 8, "micro_batch": 256, "measured_prompts": 300,
            "evaluate_every": 20, "checkpoint_every": 20,
            "held_out": 0.095,  # no more than was held out from the start, by another rule
        },
    },
)  # fmt: skip

PROBLEMS = Practice(
    slug="word-problems",
    name="Word problems",
    guidelines="""How much does the fruit cost? Only the number at the end counts, however it was found.

A tiny model was shown answers of two kinds: most give the number at once, some write down three small steps
first. It imitates both. Practice rewards what is right, and says nothing about which way to go.""",
    problems=problems.problems,
    vocabulary=420,
    context=128,
    starts={
        "start": Start(problems.shown, _PROBLEMS, step=400),
        "imitation": Start(lambda one: one.worked, _PROBLEMS | {"epochs": 10}),
    },
    run_defaults={
        "sft": _PROBLEMS,
        "rollouts": {"max_new_tokens": 48},
        "policy": {
            "steps": 120, "learning_rate": 3e-4, "final_rate": 0.1, "algorithm": "grpo", "max_new_tokens": 48,
            "prompts_per_step": 16, "rollouts_per_prompt": 8, "micro_batch": 128, "measured_prompts": 160,
            "evaluate_every": 10, "checkpoint_every": 20, "recheck_phrases": problems.STEPS,
        },
    },
)  # fmt: skip

ALL = (SUMS, PROBLEMS)
