"""Reinforcement learning against a reward model, for a capped number of steps.

Reads top to bottom. One step: sample rollouts of a few prompts, reward them, subtract what they paid in KL to
the start, compare each with its siblings, make the better ones likelier: REINFORCE with a leave-one-out
baseline. One update per batch, so that nothing is off-policy and nothing is clipped but the gradient. Leaves
out critics, several updates a batch, adapters and mixed precision.
"""

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from rlhf import batch, checkpoint, data, guard, policy
from rlhf.config import PolicyConfig
from rlhf.optimizer import Optimizer
from rlhf.policy import Reader
from rlhf.reward_model import RewardModel
from rlhf.rewards import Group, ModelRewards, Verdict
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import fitted, sample

DISAGREEMENT = 0.05  # nats a token between sampling and training pass, beyond which a model is not understood
FORWARD_ONLY = 4  # times as many rollouts fit where no gradient is kept


def train(run: RunDirectory, config: PolicyConfig) -> Outcome:
    """Train, or go on training, to the last step."""
    # 1. The policy, its start (which stays as it is), the reward model, and the prompts as tokens.
    torch.manual_seed(config.seed)
    device = checkpoint.choose_device(config.device)
    run.tell("loading", device=checkpoint.describe(device))
    base = run.input(config.policy)
    resumed = run.resume()
    model, tokenizer = checkpoint.load_policy(resumed.path if resumed else base, device)
    start = Reader(checkpoint.load_policy(base, device)[0].requires_grad_(False), config.temperature)
    reader = Reader(model, config.temperature)
    judge = _judge(run, tokenizer, config, device)
    prompts = _prompts(run, model, tokenizer, config)
    lineage = run.lineage(config, base, reward={"sha256": checkpoint.fingerprint(run.input(config.reward))})
    limits = guard.Limits(config.crop_kl, config.crop_distinct, config.crop_entropy)

    # 2. The optimizer, and what earlier attempts have measured.
    optimizer = Optimizer(model, weight_decay=0.0, clip=config.clip)
    done, last, metrics = 0, None, {}
    if resumed:
        resumed.restore(optimizer)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
    history = _history(run)
    crop = guard.crop(history, limits)
    _announce(run, config, judge, prompts)
    if not resumed:
        run.tell("sampling", total=config.steps)
        run.samples(_samples(model, tokenizer, start, judge, prompts, config, step=0))

    for step in run.steps(done, config.steps):
        # 3. Sample: rollouts of each of the step's prompts, with chances that follow from the step alone.
        drawn = batch.drawn(len(prompts), config.prompts_per_step, step, config.seed)
        groups = _sampled(model, tokenizer, [prompts[number] for number in drawn], config, step)
        examples = [group.example for group in groups]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        lengths = [len(rollout.tokens) for rollout in rollouts]
        shape = (len(groups), config.rollouts_per_prompt)

        # 4. Reward: what they are worth, less β times the KL that they paid.
        verdicts = [verdict for row in judge(groups) for verdict in row]
        sampled = torch.tensor([each for rollout in rollouts for each in rollout.log_probs], device=device)
        paid = policy.kl(sampled, start.log_probs(examples, FORWARD_ONLY * config.micro_batch))  # [tokens]
        kl = policy.per_rollout(paid, lengths)  # [rollouts]
        rewards = torch.tensor([verdict.reward for verdict in verdicts], device=device)
        idle = policy.without_spread(rewards.view(shape))  # [prompts]

        # 5. Compare: each with the mean of its siblings. Where all earn the same, what they paid still pulls
        # them back; a group that is left without spread teaches nothing but its rounding.
        worth = (rewards - config.beta * kl).view(shape)  # [prompts, rollouts]
        mute = policy.without_spread(worth)  # [prompts]
        advantages = policy.advantages(worth, config.advantage == "normalised")
        advantages = advantages.masked_fill(mute[:, None], 0.0).flatten()  # [rollouts]

        # 6. Update: one mean over all tokens of the step, however it is cut into portions.
        loss, entropy, apart = 0.0, 0.0, 0.0
        for some, numbers in policy.portions(examples, config.micro_batch):
            owners = torch.tensor(numbers).repeat_interleave(
                torch.tensor([lengths[each] for each in numbers])
            )
            reading = reader.read(some)
            part = policy.loss(reading.log_probs, advantages[owners], sum(lengths))
            part.backward()
            loss += part.item()
            entropy += reading.entropies.sum().item() / sum(lengths)
            if step == 1:
                expected = torch.cat([paid.new_tensor(rollouts[each].log_probs) for each in numbers])
                apart = max(apart, (reading.log_probs.detach() - expected).abs().max().item())
        if step == 1:
            _agree(run, apart)
        learning_rate = config.learning_rate * min(1.0, step / (config.warmup + 1))
        norm = optimizer.step(learning_rate)
        if not math.isfinite(norm):
            raise run.lost(step)

        # 7. Tell: the step's numbers, every rollout of it, and the crop if this is the step that suggests it.
        metrics = _numbers(groups, verdicts, kl, idle) | {
            "entropy": entropy,
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": learning_rate,
        }
        history.append({"step": step, **metrics})
        found = crop or guard.crop(history, limits)
        run.rollouts(_lines(step, groups, verdicts, paid.split(lengths), advantages, mute, config, tokenizer))
        run.step(step, **metrics, crop=list(found.signs) if found and not crop else None)
        if found and not crop:
            run.log(f"step {step}: a crop is suggested. {' '.join(found.rules)}")
        crop = found

        # 8. Every so often: the fixed prompts, to read along, and a checkpoint (also before it has to stop).
        if step == config.steps or step % config.evaluate_every == 0:
            run.samples(_samples(model, tokenizer, start, judge, prompts, config, step))
            run.log(f"step {step} of {config.steps}: {_in_words(metrics)}")
        if run.checkpoint_due(step, config.checkpoint_every):
            last = run.save(step, model, tokenizer, optimizer, lineage, metrics)

    return Outcome(last, metrics, _suggestion(run, crop, last))


def _judge(run: RunDirectory, tokenizer: Any, config: PolicyConfig, device: torch.device) -> ModelRewards:
    try:
        model = RewardModel.load(run.input(config.reward), device)
    except checkpoint.Unloadable as unloadable:
        raise Failed(unloadable.reason, unloadable.remedy, "reward") from unloadable
    at_once = max(1, FORWARD_ONLY * config.micro_batch // config.rollouts_per_prompt)
    return ModelRewards(model, tokenizer, config.unfinished_reward, at_once)


def _prompts(run: RunDirectory, model: Any, tokenizer: Any, config: PolicyConfig) -> list[Group]:
    """The prompts of prompts.jsonl as groups that hold no rollouts yet."""
    lines = data.prompt_lines(run.input(config.prompts))
    if not lines:
        raise Failed("There are no prompts to answer.", "Add some to the project.", "prompts")
    ids = [checkpoint.encode_prompt(tokenizer, line.prompt) for line in lines]
    kept = [fitted(each, model, config.max_new_tokens) for each in ids]
    if cut := sum(len(after) < len(before) for after, before in zip(kept, ids, strict=True)):
        run.log(f"{cut} prompts are too long for the model and lose their beginning.")
    return [Group(line, prompt, []) for line, prompt in zip(lines, kept, strict=True)]


def _history(run: RunDirectory) -> list[dict[str, Any]]:
    """The step lines that are kept, oldest first."""
    path = run.path / "steps.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _announce(run: RunDirectory, config: PolicyConfig, judge: ModelRewards, prompts: Sequence[Group]) -> None:
    each = config.prompts_per_step * config.rollouts_per_prompt
    run.log(f"{config.steps} steps of {each} rollouts, {len(prompts)} prompts, on {run.device}.")
    if judge.by_text:
        run.log(
            "The reward model has another tokenizer than the policy: rollouts are scored as text, and a word "
            "that the policy spelt unusually is scored as the reward model would spell it."
        )


def _sampled(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Group],
    config: PolicyConfig,
    step: int,
    count: int | None = None,
    temperature: float | None = None,
) -> list[Group]:
    """These prompts with `count` rollouts each, as many at once as fit."""
    count = count or config.rollouts_per_prompt
    chances = torch.Generator().manual_seed(random.Random(f"step {step} of {config.seed}").getrandbits(63))
    size = max(1, FORWARD_ONLY * config.micro_batch // count)
    found = []
    for first in range(0, len(prompts), size):
        asked = prompts[first : first + size]
        rollouts = sample(
            model,
            tokenizer,
            [each.prompt for each in asked],
            count,
            config.max_new_tokens,
            config.temperature if temperature is None else temperature,
            chances,
        )
        found += [
            Group(each.line, each.prompt, rollouts[place * count : (place + 1) * count])
            for place, each in enumerate(asked)
        ]
    return found


def _agree(run: RunDirectory, apart: float) -> None:
    """Before any update, sampling and training pass must say the same of every token."""
    run.log(f"Sampling and training agree on every token's log-probability to {apart:.1e}.")
    if not apart < DISAGREEMENT:
        raise Failed(
            f"This model says other things when it writes than when it is trained, by up to {apart:.2g} nats "
            "a token: it would learn from what it did not say.",
            "Choose another starting model, or another device.",
            "policy",
        )


def _numbers(
    groups: Sequence[Group], verdicts: Sequence[Verdict], kl: torch.Tensor, idle: torch.Tensor
) -> dict[str, float | None]:
    """What a step's rollouts were like, as steps.jsonl tells it."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    tokens = [rollout.tokens for rollout in rollouts]
    raws = [verdict.raw for verdict in verdicts if verdict.raw is not None]
    return {
        "reward": guard.mean([verdict.score for verdict in verdicts]),
        "raw_reward": guard.mean(raws) if raws else None,
        "kl": kl.mean().item(),
        "sqrt_kl": max(0.0, kl.mean().item()) ** 0.5,
        "distinct_1": guard.distinct(tokens, 1),
        "distinct_2": guard.distinct(tokens, 2),
        "length": guard.mean([len(each) for each in tokens]),
        "finished": guard.mean([rollout.finished for rollout in rollouts]),
        "zero_spread": idle.float().mean().item(),
    }


def _in_words(metrics: dict[str, Any]) -> str:
    shown = ("reward", "kl", "entropy", "distinct_2", "length", "finished")
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in shown)


def _lines(
    step: int,
    groups: Sequence[Group],
    verdicts: Sequence[Verdict],
    paid: Sequence[torch.Tensor],
    advantages: torch.Tensor,
    mute: torch.Tensor,
    config: PolicyConfig,
    tokenizer: Any,
) -> list[dict[str, Any]]:
    """Every rollout of a step with all that was made of it, for rollouts.jsonl.zst."""
    lines = []
    numbered = [
        (number, place) for number, group in enumerate(groups) for place in range(len(group.rollouts))
    ]
    for (number, place), verdict, tokens, advantage in zip(
        numbered, verdicts, paid, advantages.tolist(), strict=True
    ):
        rollout, cost = groups[number].rollouts[place], -config.beta * tokens.sum().item()
        lines.append(
            {
                "step": step,
                "group": number,
                "index": place,
                "prompt": data.prompt_text(groups[number].line.prompt),
                "rollout": checkpoint.decode_rollout(tokenizer, rollout.tokens),
                "tokens": rollout.tokens,
                "reward": round(verdict.reward + cost, 6),
                "parts": {name: round(part, 6) for name, part in (verdict.parts | {"kl": cost}).items()},
                "score": round(verdict.score, 6),
                "advantage": round(advantage, 6),
                "kl": [round(each, 5) for each in tokens.tolist()],
                "trained": not bool(mute[number]),
                "finished": rollout.finished,
            }
        )
    return lines


def _samples(
    model: Any,
    tokenizer: Any,
    start: Reader,
    judge: ModelRewards,
    prompts: Sequence[Group],
    config: PolicyConfig,
    step: int,
) -> list[dict[str, Any]]:
    """One rollout of each fixed prompt: always of the same chances, so that only the policy differs."""
    shown = prompts[: config.sample_prompts]
    if not shown:
        return []
    groups = _sampled(model, tokenizer, shown, config, step=0, count=1)
    lengths = [len(group.rollouts[0].tokens) for group in groups]
    sampled = torch.tensor(
        [each for group in groups for each in group.rollouts[0].log_probs], device=model.device
    )
    reference = start.log_probs([group.example for group in groups], FORWARD_ONLY * config.micro_batch)
    kl = policy.per_rollout(policy.kl(sampled, reference), lengths).tolist()
    return [
        {
            "step": step,
            "index": index,
            "prompt": data.prompt_text(group.line.prompt),
            "rollout": checkpoint.decode_rollout(tokenizer, group.rollouts[0].tokens),
            "score": row[0].score,
            "kl": kl[index],
            "finished": group.rollouts[0].finished,
        }
        for index, (group, row) in enumerate(zip(groups, judge(groups), strict=True))
    ]


def _suggestion(run: RunDirectory, crop: guard.Crop | None, last: str | None) -> dict[str, Any]:
    """The crop, if there is one, and the checkpoint to look at first: the last one before it."""
    if crop is None:
        return {"crop": None, "suggested": last}
    kept = sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))
    before = [f"checkpoints/{name}" for name in kept if int(name.removeprefix("step-")) <= crop.step]
    suggested = before[-1] if before else None
    return {
        "crop": {"step": crop.step, "rules": list(crop.rules), "checkpoint": suggested},
        "suggested": suggested,
    }
