"""What a policy run may be asked to do, and what it is refused: above all more steps than the cap, wherever a
part of its reward is a model's word. One of the tables of `rlhf.config`; knows neither torch nor the web."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import regex

from rlhf.setting import Refused, Sampling, input_, setting

STEP_CAP = 500
RULES = ("number", "exact", "choice", "regex", "symbolic")  # checkers that decide by rule
CHECKERS = (*RULES, "judge")  # and one that is a model
CHECKED = ("rules", "mixed")  # where a checker has its say
CLOSED = r"^\s*<think>[\s\S]+?</think>\s*\S"  # thinking that is closed, and an answer behind it
NEUTRAL = ("held_out", "candidates", "set_aside", "format_weight")  # without a checker they stay as they are
# What a run begins with in place of a setting's plain default, by whose word its reward is. Rules are not
# gamed, so nothing has to hold the policy; and a wrong answer is not worse for having been cut off.
_PRACTICE = {"held_out": 0.1, "candidates": 2, "set_aside": 1}
JUDGED: dict[str, dict[str, Any]] = {
    "model": {},
    "mixed": _PRACTICE,
    "rules": _PRACTICE | {"beta": 0.0, "unfinished_reward": 0.0},
}


# A table to be read row by row, so the formatter leaves it alone.
# fmt: off
@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Sampling):
    """Reinforcement learning: against a reward model for a capped number of steps, by rule without a cap."""

    kind: ClassVar[str] = "policy"
    policy: str = input_("inputs/policy")
    reward: str = input_("inputs/reward")
    prompts: str = input_("prompts.jsonl")
    checker: str = input_("")
    against: str = input_("")
    steps: int = setting(
        300, "Steps", f"Updates of the policy; at most {STEP_CAP} where any of its reward is a model's word.",
        1, 1_000_000, unit="steps")
    beta: float = setting(
        0.1, "β, pull to the start",
        "What moving away from the start costs; 0 lets it run off the cliff where a model judges.", 0, 10)
    learning_rate: float = setting(
        1e-6, "Learning rate", "Size of a step; tiny models take 3e-4 and more.", 1e-9, 0.1)
    prompts_per_step: int = setting(
        8, "Prompts per step", "How many prompts one step answers.", 1, 1024)
    rollouts_per_prompt: int = setting(
        8, "Rollouts per prompt", "They are judged against each other, so there are at least two.", 2, 128)
    algorithm: str = setting(
        "rloo", "Algorithm",
        "Rollouts against the mean of their siblings (rloo), by their spread too (grpo), or the best alone.",
        choices=("rloo", "grpo", "best"))
    reward_weight: float = setting(
        1.0, "Weight of the reward model", "What its reward counts beside the checker's word; charted apart.",
        0.001, 1000, only=("mixed",))
    checker_weight: float = setting(
        1.0, "Worth of a correct answer", "What the checker's word counts; a wrong answer earns 0.",
        0.001, 1000, only=CHECKED, advanced=True)
    format_weight: float = setting(
        0.0, "Worth of the form", "What a rollout earns that has the form below, right or wrong.",
        0, 1000, only=CHECKED, advanced=True)
    format: str = setting(
        CLOSED, "Form", "A regular expression to be found in a rollout, its thinking included.",
        only=CHECKED, advanced=True)
    held_out: float = setting(
        0.0, "Held out", "Share of the prompts that are never practised, to measure the accuracy on.",
        0, 0.5, only=CHECKED)
    candidates: int = setting(
        1, "Candidates", "So many times more prompts are answered; the most mixed ones are learnt from.",
        1, 16, only=CHECKED)
    lora_rank: int = setting(
        0, "LoRA rank", "Train adapters of this rank, at ten times the rate or more; 0 trains all weights.",
        0, 1024)
    kl_limit: float = setting(
        0.0, "End at a KL of", "The run ends when five steps are further from the start; 0 is never.",
        0, 100_000, unit="nats a rollout")
    time_limit_minutes: float = setting(
        0.0, "End after", "The run ends after the step in which this time is over; 0 is never.",
        0, 1_000_000, unit="minutes")
    set_aside: int = setting(
        0, "Set aside", "How often a prompt that was always or never solved is passed over, more each time.",
        0, 100, only=CHECKED, advanced=True, unit="turns")
    measured_prompts: int = setting(
        128, "Measured prompts", "Held-out prompts behind one measurement, at the most.",
        1, 100_000, only=CHECKED, advanced=True, unit="prompts")
    recheck_phrases: str = setting(
        "wait, let me check, let me verify, double-check, check again, let me recompute",
        "Re-checking phrases", "Whose share of the rollouts is charted; commas between them.",
        only=CHECKED, advanced=True)
    updates_per_batch: int = setting(
        1, "Updates per batch", "How often a step’s rollouts are learnt from before there are new ones.",
        1, 16, advanced=True)
    clip_ratio: float = setting(
        0.2, "Clipped ratio", "How far an update may move a token’s chance from where it was sampled.",
        0.001, 10, advanced=True)
    kl_target: float = setting(
        0.0, "KL to aim at", "β grows while the KL is above this and shrinks below it; 0 leaves β as it is.",
        0, 100_000, advanced=True, unit="nats a rollout")
    unfinished_reward: float = setting(
        -1.0, "Reward when cut off", "What a rollout earns that did not end by itself.",
        -100, 100, advanced=True)
    precision: str = setting(
        "auto", "Precision", "bf16 is faster on cards and new processors; auto takes it if little changes.",
        choices=("auto", "fp32", "bf16"), advanced=True)
    micro_batch: int = setting(
        32, "Rollouts at once", "Portions in which a step is computed; smaller ones need less memory.",
        1, 4096, advanced=True, unit="rollouts")
    warmup: int = setting(
        5, "Warm-up", "Steps over which the learning rate rises from zero.",
        0, 10000, advanced=True, unit="steps")
    final_rate: float = setting(
        1.0, "Rate at the end", "The learning rate falls in a line to this share of it; 1 keeps it.",
        0, 1, advanced=True)
    clip: float = setting(
        1.0, "Gradient clip", "A longer gradient is shortened to this norm.", 0.001, 1000, advanced=True)
    evaluate_every: int = setting(
        10, "Measure every", "Steps between two looks at the fixed prompts.",
        1, 100000, advanced=True, unit="steps")
    checkpoint_every: int = setting(
        10, "Checkpoint every", "Steps between two checkpoints; a crop can only be made at one of them.",
        1, 100000, advanced=True, unit="steps")
    sample_prompts: int = setting(
        8, "Sampled prompts", "Fixed prompts answered at every measurement, to read along.",
        0, 64, advanced=True)
    crop_kl: float = setting(
        20.0, "KL of a crop", "A sequence KL above this is a sign of gaming; a crop goes back to half of it.",
        0.01, 1000, only=("model", "mixed"), advanced=True, unit="nats")
    crop_distinct: float = setting(
        0.35, "Variety of a crop", "Distinct word pairs below this share of their start are such a sign.",
        0, 1, only=("model", "mixed"), advanced=True)
    crop_entropy: float = setting(
        0.3, "Entropy of a crop", "Entropy below this share of its start is such a sign.",
        0, 1, only=("model", "mixed"), advanced=True)

    @property
    def judged(self) -> str:
        """Whose word the reward is: that of rules alone, of a model alone, or mixed, which a judge is too."""
        if not self.checker:
            return "model"
        return "rules" if self.checker in RULES and not self.reward else "mixed"

    @property
    def written(self) -> int:
        """Rollouts of a step; those of candidates that are not learnt from are written, too."""
        return self.prompts_per_step * self.candidates * self.rollouts_per_prompt

    def check(self) -> None:
        if self.checker and self.checker not in CHECKERS:
            known = f"Known are: {', '.join(CHECKERS)}."
            raise Refused("checker", f"There is no checker “{self.checker}”. {known}")
        if not self.checker and not self.reward:
            raise Refused("reward", "A policy run needs a reward model or a checker to say what is good.")
        if self.judged != "rules" and self.steps * self.updates_per_batch > STEP_CAP:
            each = f" of {self.updates_per_batch} updates each" if self.updates_per_batch > 1 else ""
            whom = "a reward model" if self.reward else "a judge"
            model = "reward model" if self.reward else "judge, which is a model too"
            raise Refused("steps", (
                f"A run against {whom} may take at most {STEP_CAP} steps, because a policy that "
                f"trains for longer learns to fool its {model}; {self.steps}{each} were asked for."))
        if self.kl_target and not self.beta:
            raise Refused("beta", "To aim at a KL, β has to begin above 0: it is made larger or smaller.")
        if not self.checker:
            self._refuse_what_takes_a_checker()
        try:
            regex.compile(self.format)  # as the run does
        except (regex.error, RecursionError, OverflowError) as error:
            raise Refused("format", f"“{self.format}” is no regular expression: {error}.") from None
        if self.format_weight and not self.format:
            raise Refused("format", "To reward a form, say which: a regular expression.")

    def _refuse_what_takes_a_checker(self) -> None:
        for each in dataclasses.fields(self):
            if each.name in NEUTRAL and getattr(self, each.name) != each.default:
                raise Refused(each.name, (
                    f"“{each.metadata['label']}” takes a checker, which says of every rollout whether it is "
                    "correct; this run has none."))
# fmt: on
