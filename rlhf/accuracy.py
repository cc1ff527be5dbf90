"""How often a policy is correct on prompts that it has not practised: greedily, and as it samples.

Also how many rollouts hold a phrase of somebody who looks again ("wait", "let me check"). What is correct is
the matter of `rlhf.checkers`, who writes and with which chances that of `rlhf.experience`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from rlhf import guard
from rlhf.experience import Stage
from rlhf.rewards import Group, Verdict


def measured(stage: Stage, prompts: Sequence[Group]) -> dict[str, float]:
    """Accuracy on these prompts, greedy and sampled, one rollout each: always of the same chances, so that
    only the policy differs. Empty where there are no prompts."""
    if not prompts:
        return {}
    greedy, sampled = (stage.answers(prompts, temperature=each) for each in (0.0, stage.config.temperature))
    return {
        "held_out_accuracy": correct([verdict for _, verdict in greedy]),
        "held_out_sampled": correct([verdict for _, verdict in sampled]),
        "held_out_length": guard.mean([len(rollout.tokens) for rollout, _ in sampled]),
    }


def correct(verdicts: Sequence[Verdict]) -> float:
    """The share that the checker found correct."""
    return guard.mean([verdict.checked is not None and verdict.checked.correct for verdict in verdicts])


def rechecking(texts: Sequence[str], phrases: str) -> float:
    """The share of texts that hold one of the phrases, written `wait, let me check`: as whole words, in
    whatever case and spacing."""
    pattern = _pattern(phrases)
    return guard.mean([pattern is not None and bool(pattern.search(text)) for text in texts])


@lru_cache(maxsize=8)
def _pattern(phrases: str) -> re.Pattern[str] | None:
    named = [r"\s+".join(map(re.escape, each.split())) for each in phrases.split(",") if each.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(named)})(?!\w)", re.IGNORECASE) if named else None
