"""Reinforcement learning against a reward model, for a capped number of steps.

Reads top to bottom. One step: sample rollouts of a few prompts, reward them, subtract what they paid in KL to
the start, compare each with its siblings, make the better ones likelier. How they are compared and what
becomes of it is one of three algorithms (`rlhf.algorithms`); where rollouts and their rewards come from, the
matter of `rlhf.experience`. Leaves out critics.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlhf import adapters, algorithms, batch, checkpoint, data, guard, policy, precision, processes
from rlhf.algorithms import Lesson
from rlhf.batch import Example
from rlhf.config import PolicyConfig
from rlhf.experience import FORWARD_ONLY, Experience, Stage
from rlhf.memory import Memory
from rlhf.optimizer import Optimizer
from rlhf.policy import Reader, Start
from rlhf.reward_model import RewardModel
from rlhf.rewards import Group, ModelRewards
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import fitted

EXPECTED = 1e-3  # nats a token between sampling and training pass that rounding may come to in fp32
DISAGREEMENT = 0.05  # and beyond this a model is not understood
HALF_PRECISION = 10  # times as far apart they may be in bf16


def train(run: RunDirectory, config: PolicyConfig) -> Outcome:
    """Train, or go on training, to the last step or to a limit."""
    # 1. The policy, its start (which stays as it is), the reward model, and the prompts as tokens.
    torch.manual_seed(config.seed)
    device = checkpoint.choose_device(config.device)
    processes.join(device)
    run.tell("loading", device=checkpoint.describe(device))
    base = run.input(config.policy)
    resumed = run.resume()
    # Adapters are put on the starting weights again, which are the start as well: no second model is held.
    begun = resumed.path if resumed and not config.lora_rank else base
    model, tokenizer = checkpoint.load_policy(begun, device)
    if config.lora_rank:
        adapters.add(model, config.lora_rank)
    first = model if config.lora_rank else checkpoint.load_policy(base, device)[0].requires_grad_(False)
    reader, start = Reader(model, config.temperature), Start(first, config.temperature)
    prompts = _prompts(run, model, tokenizer, config)
    judge = _judge(run, tokenizer, prompts, config, device)
    memory = Memory(run, min(config.micro_batch, config.prompts_per_step * config.rollouts_per_prompt))
    stage = Stage(model, tokenizer, start, judge, config, memory)
    tried_on = stage.of_the_start(prompts)
    reader.precision = start.precision = processes.agree(precision.chosen(config.precision, start, tried_on))
    run.tell(run.phase, device=f"{checkpoint.describe(device)}, {start.precision}")
    lineage = run.lineage(config, base, reward={"sha256": checkpoint.fingerprint(run.input(config.reward))})
    limits = guard.Limits(config.crop_kl, config.crop_distinct, config.crop_entropy)

    # 2. The optimizer, β, and what earlier attempts have measured.
    optimizer = Optimizer(model, weight_decay=0.0, clip=config.clip)
    beta, stopped, done, last, metrics = config.beta, None, 0, None, {}
    if resumed:
        resumed.restore(optimizer)
        if config.lora_rank:
            adapters.restore(model, resumed.tensors)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
        beta, stopped = resumed.state.get("beta", beta), resumed.state.get("stopped")
        memory.at_once = resumed.state.get("at_once", memory.at_once)
    history = _history(run)
    watch = guard.Watch(limits)
    crop = watch.see_all(history)
    _announce(run, config, judge, prompts)
    if not resumed:
        run.tell("sampling", total=config.steps)
        run.samples(_samples(stage, prompts, step=0))

    for step in run.steps(done, done if stopped else config.steps):
        # 3. Sample rollouts of each of the step's prompts; find out what they are worth and what they paid.
        drawn = batch.drawn(len(prompts), config.prompts_per_step, step, config.seed)
        lived = stage.experience([prompts[number] for number in drawn], step, config.rollouts_per_prompt)

        # 4. Compare: the reward less β times the KL, with that of the siblings. Where all earn the same, what
        # they paid still pulls them back; a group that is left without spread teaches nothing.
        lesson = algorithms.lesson(config.algorithm, lived.rewards - beta * lived.kl, lived.rewards)

        # 5. Update, once or several times: one mean over all tokens that are learnt from, however they are
        # cut into portions and shared among processes.
        learning_rate, norm = config.learning_rate * min(1.0, step / (config.warmup + 1)), 0.0
        for update in range(config.updates_per_batch):
            gradients = partial(_gradients, reader, optimizer, lived, lesson, config, first=update == 0)
            found = _Update.of(memory.fit(gradients))
            processes.sum_gradients(optimizer.names, found.loss)
            if update == 0:
                entropy = found.entropy / sum(lived.lengths)
                if step == 1:
                    _agree(run, found.apart, reader.precision)
            if bool(lesson.taught.any()):
                norm = optimizer.step(learning_rate)
            if not math.isfinite(norm):
                raise run.lost(step)

        # 6. Tell: the step's numbers, every rollout of it, and the crop if this is the step that suggests it.
        metrics = lived.numbers() | {"entropy": entropy, "loss": found.loss, "grad_norm": norm}
        metrics |= {"learning_rate": learning_rate} | ({"beta": beta} if config.kl_target else {})
        if config.updates_per_batch > 1 and algorithms.is_clipped(config.algorithm, config.updates_per_batch):
            metrics |= found.against_the_sampler(lesson)
        history.append({"step": step, **metrics})
        signs = None if crop else watch.see(history[-1])
        run.rollouts(lived.lines(step, lesson, beta, tokenizer))
        run.step(step, **metrics, crop=list(signs.signs) if signs else None)
        if signs:
            run.log(f"step {step}: a crop is suggested. {' '.join(signs.rules)}")
        crop = crop or signs
        if judge.by_text and step == 1:
            _tell_the_cost(run, judge, lived)

        # 7. What the next step begins with: β, and whether there is to be one.
        if config.kl_target:
            beta = algorithms.adapted(beta, lived.kl.mean().item(), config.kl_target)
        minutes = run.seconds / 60
        stopped = processes.agree(guard.ended(history, config.kl_limit, minutes, config.time_limit_minutes))

        # 8. Every so often: the fixed prompts, to read along, and a checkpoint (also before it has to stop).
        if stopped or step == config.steps or step % config.evaluate_every == 0:
            run.samples(_samples(stage, prompts, step))
            run.log(f"step {step} of {config.steps}: {_in_words(metrics)}")
        if run.checkpoint_due(step, config.checkpoint_every) or stopped:
            kept = {"beta": beta, "stopped": stopped, "at_once": memory.at_once}
            last = run.save(step, model, tokenizer, optimizer, lineage, metrics, **kept)
        if stopped:
            run.log(f"Stopped early, because {stopped}.")
            break

    return Outcome(last, metrics, _suggestion(run, crop, last) | {"stopped": stopped})


@dataclass
class _Update:
    """What one update came to, or a process's share of it: sums over tokens, and the loss."""

    loss: float = 0.0
    entropy: float = 0.0
    clipped: float = 0.0
    drift: float = 0.0
    learnt: int = 0  # tokens
    apart: float = 0.0  # the largest distance between two log-probabilities of a token

    @classmethod
    def of(cls, parts: Sequence["_Update"]) -> "_Update":
        """All shares together."""
        sums = {each.name: sum(getattr(part, each.name) for part in parts) for each in fields(cls)}
        return cls(**sums | {"apart": max(part.apart for part in parts)})

    def against_the_sampler(self, lesson: Lesson) -> dict[str, float]:
        """How far this update found the policy from the one that sampled: clipped tokens, nats a rollout."""
        rollouts = max(1, int(lesson.taught.sum()))
        return {"clip_fraction": self.clipped / max(1, self.learnt), "sampler_kl": self.drift / rollouts}


def _gradients(
    reader: Reader,
    optimizer: Optimizer,
    lived: Experience,
    lesson: Lesson,
    config: PolicyConfig,
    at_once: int,
    first: bool,
) -> _Update:
    """Gather this process's share of an update's gradients. What is not learnt from is read all the same the
    first time, for its entropy."""
    optimizer.forget()
    advantages, taught = lesson.advantages.flatten(), lesson.taught.flatten().tolist()  # [rollouts]
    lengths, told = lived.lengths, _Update()
    clipped = algorithms.is_clipped(config.algorithm, config.updates_per_batch)
    total = sum(length for length, learnt in zip(lengths, taught, strict=True) if learnt)

    def read(some: Sequence[Example], numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        reading, sampled = reader.read(some), torch.cat([lived.sampled[number] for number in numbers])
        told.entropy += reading.entropies.sum().item()
        told.apart = max(told.apart, (reading.log_probs.detach() - sampled).abs().max().item())
        return reading.log_probs, sampled

    size = processes.portion(at_once, sum(taught))
    for some, numbers in processes.share(list(policy.portions(lived.examples, size, taught))):
        log_probs, sampled = read(some, numbers)  # [tokens]
        owners = torch.tensor(numbers).repeat_interleave(torch.tensor([lengths[each] for each in numbers]))
        weights = advantages[owners]  # [tokens]
        if clipped:
            part = algorithms.clipped_loss(log_probs, sampled, weights, total, config.clip_ratio)
            told.clipped += algorithms.clipped(log_probs, sampled, weights, config.clip_ratio).sum().item()
            told.drift += algorithms.drift(log_probs, sampled).sum().item()
        else:
            part = algorithms.loss(log_probs, weights, total)
        part.backward()
        told.loss += part.item()
        told.learnt += len(owners)
    if first:
        rest = [not learnt for learnt in taught]
        with torch.no_grad():
            for some, numbers in processes.share(
                list(policy.portions(lived.examples, FORWARD_ONLY * at_once, rest))
            ):
                read(some, numbers)
    return told


def _judge(
    run: RunDirectory, tokenizer: Any, prompts: Sequence[Group], config: PolicyConfig, device: torch.device
) -> ModelRewards:
    try:
        model = RewardModel.load(run.input(config.reward), device)
    except checkpoint.Unloadable as unloadable:
        raise Failed(unloadable.reason, unloadable.remedy, "reward") from unloadable
    asked = [group.line.prompt for group in prompts]
    return ModelRewards(model, tokenizer, config.unfinished_reward, asked)


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


def _tell_the_cost(run: RunDirectory, judge: ModelRewards, lived: Experience) -> None:
    seconds = judge.cost_of_text(lived.groups)
    run.log(f"Spelling a step's rollouts anew for the reward model takes {1000 * seconds:.0f} ms of it.")
    if any(verdict.unknown for verdict in lived.verdicts):
        run.log(
            "Some hold characters that the reward model's tokenizer does not know: it is told so, no more."
        )


def _samples(stage: Stage, prompts: Sequence[Group], step: int) -> list[dict[str, Any]]:
    """One rollout of each fixed prompt: always of the same chances, so that only the policy differs."""
    shown = prompts[: stage.config.sample_prompts]
    return stage.experience(shown, step=0, count=1).samples(step, stage.tokenizer) if shown else []


def _agree(run: RunDirectory, apart: float, computed_in: str) -> None:
    """Before any update, sampling and training pass must say the same of every token."""
    run.log(
        f"Sampling and training agree on every token's log-probability to {apart:.1e}."
        + (
            f" More than {EXPECTED} is not mere rounding."
            if apart >= EXPECTED and computed_in == "fp32"
            else ""
        )
    )
    if not apart < DISAGREEMENT * (1 if computed_in == "fp32" else HALF_PRECISION):
        raise Failed(
            f"This model says other things when it writes than when it is trained, by up to {apart:.2g} nats "
            "a token: it would learn from what it did not say.",
            "Choose another starting model, or another device.",
            "policy",
        )


def _in_words(metrics: dict[str, Any]) -> str:
    shown = ("reward", "kl", "entropy", "distinct_2", "length", "finished")
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in shown)


def _suggestion(run: RunDirectory, crop: guard.Crop | None, last: str | None) -> dict[str, Any]:
    """The crop, if there is one, and the checkpoint to look at first: the last one before its signs began."""
    if crop is None:
        return {"crop": None, "suggested": last}
    kept = sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))
    latest = crop.step - guard.BEHIND
    before = [f"checkpoints/{name}" for name in kept if int(name.removeprefix("step-")) <= latest]
    suggested = before[-1] if before else None
    return {
        "crop": {"step": crop.step, "rules": list(crop.rules), "checkpoint": suggested},
        "suggested": suggested,
    }
