"""What a policy run sets up before its first step: its prompts, who judges, what it is held against.

All of it is found out, and refused in words, before anything is learnt. What a step does is the matter of
`rlhf.train_policy`.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rlhf import checkers, checkpoint, data
from rlhf.accuracy import measured
from rlhf.config import PolicyConfig
from rlhf.experience import Experience, Stage
from rlhf.policy import Start
from rlhf.reward_model import RewardModel
from rlhf.rewards import CheckerRewards, FormRewards, Group, ModelRewards, Part, Reward
from rlhf.run import Failed, RunDirectory
from rlhf.sample import fitted


def prompts(
    run: RunDirectory, model: Any, tokenizer: Any, config: PolicyConfig
) -> tuple[list[Group], list[Group]]:
    """The prompts as groups that hold no rollouts yet: those to practise, and some to measure on."""
    lines = data.prompt_lines(run.input(config.prompts))
    if not lines:
        raise Failed("There are no prompts to answer.", "Add some to the project.", "prompts")
    if config.checker:
        _refuse_unchecked(lines)
    groups = _encoded(run, lines, model, tokenizer, config)
    # The same for every seed, so that runs of a project are measured on the same prompts.
    taught, apart = data.split_by_prompt([line.prompt for line in lines], config.held_out, seed=0)
    random.Random(0).shuffle(apart)
    measured_on = apart[: config.measured_prompts]
    return [groups[number] for number in taught], [groups[number] for number in measured_on]


def _refuse_unchecked(lines: Sequence[data.PromptLine]) -> None:
    without = [line for line in lines if not (line.answer or "").strip()]
    if without:
        example = data.prompt_text(without[0].prompt)
        raise Failed(
            f"{len(without):,} of {len(lines):,} prompts have no answer, so that nothing can be checked: "
            f"“{example[:200]}”.",
            "Give them their answers, or leave them out.",
            "prompts",
        )


def _encoded(
    run: RunDirectory, lines: Sequence[data.PromptLine], model: Any, tokenizer: Any, config: PolicyConfig
) -> list[Group]:
    ids = [checkpoint.encode_prompt(tokenizer, line.prompt) for line in lines]
    kept = [fitted(each, model, config.max_new_tokens) for each in ids]
    if cut := sum(len(after) < len(before) for after, before in zip(kept, ids, strict=True)):
        run.log(f"{cut} prompts are too long for the model and lose their beginning.")
    return [Group(line, prompt, []) for line, prompt in zip(lines, kept, strict=True)]


def reward(
    run: RunDirectory, tokenizer: Any, prompts: Sequence[Group], config: PolicyConfig, device: torch.device
) -> Reward:
    """The parts that the config asks for, each with its weight."""
    parts: list[tuple[float, Part]] = []
    if config.checker:
        parts.append((config.checker_weight, _checker(run, tokenizer, config)))
    if config.format_weight:
        form = FormRewards(config.format, tokenizer, config.unfinished_reward)
        parts.append((config.format_weight, form))
    if config.reward:
        model = _reward_model(run, tokenizer, prompts, config, device)
        parts.append((config.reward_weight if config.checker else 1.0, model))
    return Reward(*parts)


def _checker(run: RunDirectory, tokenizer: Any, config: PolicyConfig) -> CheckerRewards:
    made = checkers.read(run.path, config.checker, config.device)
    return CheckerRewards(made, tokenizer, config.unfinished_reward)


def _reward_model(
    run: RunDirectory, tokenizer: Any, prompts: Sequence[Group], config: PolicyConfig, device: torch.device
) -> ModelRewards:
    try:
        model = RewardModel.load(run.input(config.reward), device)
    except checkpoint.Unloadable as unloadable:
        raise Failed(unloadable.reason, unloadable.remedy, "reward") from unloadable
    asked = [group.line.prompt for group in prompts]
    return ModelRewards(model, tokenizer, config.unfinished_reward, asked)


def judged_by(run: RunDirectory, config: PolicyConfig) -> dict[str, Any]:
    """Who judged, for the lineage of the run's checkpoints."""
    found: dict[str, Any] = {}
    if config.reward:
        found["reward"] = {"sha256": checkpoint.fingerprint(run.input(config.reward))}
    if config.checker:
        made = checkers.read(run.path, config.checker, config.device)
        found["checker"] = checkers.as_dict(made)
    return found


def against(run: RunDirectory, stage: Stage, config: PolicyConfig) -> dict[str, float]:
    """What another checkpoint comes to on the same held-out prompts, where one is given: that of supervised
    finetuning on worked solutions, as a line to be passed."""
    if not config.against:
        return {}
    device = next(stage.model.parameters()).device
    try:
        model, tokenizer = checkpoint.load_policy(run.input(config.against), device)
    except checkpoint.Unloadable as unloadable:
        raise Failed(unloadable.reason, unloadable.remedy, "against") from unloadable
    _, apart = prompts(run, model, tokenizer, config)
    other = replace(
        stage,
        model=model,
        tokenizer=tokenizer,
        start=Start(model, config.temperature),
        judge=Reward((1.0, _checker(run, tokenizer, config))),
    )
    other.start.precision = stage.start.precision
    said = measured(other, apart)
    if said:
        share = f"{said['held_out_accuracy']:.1%} of {len(apart)} held-out prompts"
        run.log(f"The checkpoint that it is held against answers {share} correctly.")
    return {name.replace("held_out", "imitation"): value for name, value in said.items()}


def announce(
    run: RunDirectory, config: PolicyConfig, reward: Reward, prompts: Sequence[Group], apart: Sequence[Group]
) -> None:
    each = config.prompts_per_step * config.rollouts_per_prompt
    more = f", the most mixed of {each * config.candidates}" if config.candidates > 1 else ""
    held = f", {len(apart)} held out to measure on" if apart else ""
    run.log(f"{config.steps} steps of {each} rollouts{more}, {len(prompts)} prompts{held}, on {run.device}.")
    if reward.model and reward.model.by_text:
        run.log(
            "The reward model has another tokenizer than the policy: rollouts are scored as text, and a word "
            "that the policy spelt unusually is scored as the reward model would spell it."
        )


def tell_the_cost(run: RunDirectory, model: ModelRewards, lived: Experience) -> None:
    seconds = model.cost_of_text(lived.groups)
    run.log(f"Spelling a step's rollouts anew for the reward model takes {1000 * seconds:.0f} ms of it.")
    if any(verdict.unknown for verdict in lived.verdicts):
        run.log(
            "Some hold characters that the reward model's tokenizer does not know: it is told so, no more."
        )
