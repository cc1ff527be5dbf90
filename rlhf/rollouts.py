"""Sampling rollouts to be ranked: so many for each prompt, portion by portion.

Equal answers to a prompt leave nothing to rank, so they are drawn again a few times. Every portion is a step:
its rollouts are written first, then its step line. Going on needs no more, for what is drawn follows from the
seed and the portion alone. Which rollouts become quintets is decided where the rollouts are read.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

import torch

from rlhf import checkpoint, data
from rlhf.config import RolloutsConfig
from rlhf.data import PromptLine
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import Rollout, fitted, sample

TRIES = 4  # how often equal rollouts are drawn again


def write(run: RunDirectory, config: RolloutsConfig) -> Outcome:
    """Sample, or go on sampling, to the last prompt."""
    # 1. The policy and the prompts.
    device = checkpoint.choose_device(config.device)
    run.tell("loading", device=checkpoint.describe(device))
    lines = data.prompt_lines(run.input(config.prompts))
    if not lines:
        raise Failed("There are no prompts to answer.", "Add some to the project.", "prompts")
    model, tokenizer = checkpoint.load_policy(run.input(config.policy), device)
    portions = [lines[first : first + config.batch] for first in range(0, len(lines), config.batch)]
    told = _go_on(run)
    run.log(f"{config.count} rollouts for each of {len(lines)} prompts, on {run.device}.")

    repeated = sum(step["repeated"] for step in told)
    for step in run.steps(len(told), len(portions), "sampling"):
        # 2. One portion: sample, draw equal ones again, write.
        portion, first = portions[step - 1], (step - 1) * config.batch
        ids = [
            fitted(checkpoint.encode_prompt(tokenizer, line.prompt), model, config.max_new_tokens)
            for line in portion
        ]
        chances = torch.Generator().manual_seed(
            random.Random(f"portion {step} of {config.seed}").getrandbits(63)
        )
        groups = different(model, tokenizer, ids, config, chances)
        run.rollouts(
            [
                each
                for number, (line, rollouts) in enumerate(zip(portion, groups, strict=True), start=first)
                for each in _lines(number, line, rollouts, tokenizer)
            ]
        )

        run.lines["rollouts.jsonl.zst"].sync()

        # 3. Tell. The size of the file says where the next portion begins, should this process die before.
        drawn = [rollout for rollouts in groups for rollout in rollouts]
        repeated += (again := sum(config.count - len(set(texts(tokenizer, each))) for each in groups))
        run.step(
            step,
            prompts=first + len(portion),
            rollouts=(first + len(portion)) * config.count,
            finished=sum(each.finished for each in drawn) / len(drawn),
            length=sum(len(each.tokens) for each in drawn) / len(drawn),
            repeated=again,
            bytes=run.lines["rollouts.jsonl.zst"].size,
        )
        run.checkpoint_due(step, every=1)  # a portion needs none, and the run may end after any
    if repeated:
        run.log(f"{repeated} rollouts are equal to another of their prompt, even after {TRIES} more tries.")
    return Outcome(None, {"prompts": len(lines), "rollouts": len(lines) * config.count, "repeated": repeated})


def different(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: RolloutsConfig, chances: torch.Generator
) -> list[list[Rollout]]:
    """`count` rollouts of each prompt, equal ones replaced where a few more tries find others."""
    groups: list[list[Rollout]] = [[] for _ in prompts]
    lacking = dict.fromkeys(range(len(prompts)), config.count)  # how many different ones a prompt still needs
    spare: dict[int, list[Rollout]] = {number: [] for number in lacking}
    for _ in range(1 + TRIES):
        count, asked = max(lacking.values()), list(lacking)
        drawn = sample(
            model,
            tokenizer,
            [prompts[number] for number in asked],
            count,
            config.max_new_tokens,
            config.temperature,
            chances,
        )
        for place, number in enumerate(asked):
            for rollout in drawn[place * count : (place + 1) * count]:
                known = texts(tokenizer, groups[number])
                new = texts(tokenizer, [rollout])[0] not in known and len(known) < config.count
                (groups if new else spare)[number].append(rollout)
        lacking = {number: config.count - len(groups[number]) for number in asked}
        lacking = {number: count for number, count in lacking.items() if count}
        if not lacking:
            break
    for number, count in lacking.items():
        groups[number] += spare[number][:count]
    return groups


def texts(tokenizer: Any, rollouts: Sequence[Rollout]) -> list[str]:
    """What people read, by which two rollouts are equal or not."""
    return [checkpoint.decode_rollout(tokenizer, each.tokens).strip() for each in rollouts]


def _lines(
    number: int, line: PromptLine, rollouts: Sequence[Rollout], tokenizer: Any
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": line.prompt,
            "id": line.id,
            "group": number,
            "rollout": checkpoint.decode_rollout(tokenizer, each.tokens),
            "tokens": each.tokens,
            "finished": each.finished,
        }
        for each in rollouts
    ]


def _go_on(run: RunDirectory) -> list[dict[str, Any]]:
    """The step lines of portions that are written whole; what a dying attempt wrote after them is cut off."""
    steps, rollouts = run.lines["steps.jsonl"], run.lines["rollouts.jsonl.zst"]
    written = steps.path.read_bytes() if steps.path.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    told = [json.loads(line) for line in whole.splitlines()]
    steps.cut(len(whole))
    rollouts.cut(told[-1]["bytes"] if told else 0)
    if told:
        run.goes_on_from(told[-1]["seconds"])
        run.log(f"Going on after {told[-1]['prompts']} prompts.")
    return told
