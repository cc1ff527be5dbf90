"""Reinforcement learning against a reward model, for a capped number of steps, or against a checker.

Reads top to bottom. One step: sample rollouts of a few prompts, reward them, subtract what they paid in KL to
the start, compare each with its siblings, make the better ones likelier. How they are compared and what
becomes of it is one of three algorithms (`rlhf.algorithms`); where rollouts and their rewards come from, the
matter of `rlhf.experience`; what is set up before the first step, of `rlhf.rehearsal`. Leaves out critics.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf import adapters, algorithms, checkpoint, guard, policy, precision, processes, rehearsal
from rlhf.accuracy import measured, rechecking
from rlhf.algorithms import Lesson
from rlhf.batch import Example
from rlhf.config import PolicyConfig
from rlhf.curriculum import Curriculum, most_mixed
from rlhf.experience import FORWARD_ONLY, Experience, Stage
from rlhf.memory import Memory
from rlhf.optimizer import Optimizer, rate_in_line
from rlhf.policy import Reader, Start
from rlhf.rewards import Group
from rlhf.run import Failed, Outcome, RunDirectory

EXPECTED = 1e-3  # nats a token between sampling and training pass that rounding may come to in fp32
DISAGREEMENT = 0.05  # and beyond this a model is not understood
HALF_PRECISION = 10  # times as far apart they may be in bf16


def train(run: RunDirectory, config: PolicyConfig) -> Outcome:
    """Train, or go on training, to the last step or to a limit."""
    # 1. The policy, its start (which stays as it is), who judges it, and the prompts as tokens: those that it
    # practises, and of a checked run those that it is only measured on.
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
    exact = Reader(model, config.temperature)  # in fp32: an update moves less than bf16 rounds
    prompts, held_out = rehearsal.prompts(run, model, tokenizer, config)
    reward = rehearsal.reward(run, tokenizer, [*prompts, *held_out], config, device)
    most = config.prompts_per_step * config.candidates * config.rollouts_per_prompt
    memory = Memory(run, min(config.micro_batch, most))
    stage = Stage(model, tokenizer, start, reward, config, memory)
    tried_on = stage.of_the_start(prompts)
    reader.precision = start.precision = processes.agree(precision.chosen(config.precision, start, tried_on))
    run.tell(run.phase, device=f"{checkpoint.describe(device)}, {start.precision}")
    lineage = run.lineage(config, base, **rehearsal.judged_by(run, config))
    limits = guard.Limits(config.crop_kl, config.crop_distinct, config.crop_entropy)

    # 2. The optimizer, β, the order of the prompts, and what earlier attempts have measured.
    optimizer = Optimizer(model, weight_decay=0.0, clip=config.clip)
    order = Curriculum(len(prompts), config.seed, config.set_aside)
    beta, stopped, done, last, metrics = config.beta, None, 0, None, {}
    if resumed:
        resumed.restore(optimizer)
        if config.lora_rank:
            adapters.restore(model, resumed.tensors)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
        beta, stopped = resumed.state.get("beta", beta), resumed.state.get("stopped")
        memory.at_once = resumed.state.get("at_once", memory.at_once)
        of_old = {"place": done * min(config.prompts_per_step, len(prompts)), "aside": []}
        order.restore(resumed.state.get("order", of_old))
    history = _history(run)
    watch = None if config.judged == "rules" else guard.Watch(limits)  # no rule can be fooled
    crop = watch.see_all(history) if watch else None
    rehearsal.announce(run, config, reward, prompts, held_out)
    shown = (held_out or prompts)[: config.sample_prompts]
    if not resumed:
        run.tell("sampling", total=config.steps)
        run.samples(_samples(stage, shown, step=0))
        if config.checker:
            run.tell("measuring")
            run.step(0, **measured(stage, held_out), **rehearsal.against(run, stage, config))

    for step in run.steps(done, done if stopped else config.steps):
        # 3. Sample rollouts of each of the step's prompts; find out what they are worth and what they paid.
        drawn = order.draw(config.prompts_per_step * config.candidates)
        lived = stage.experience([prompts[number] for number in drawn], step, config.rollouts_per_prompt)

        # 4. Compare: the reward less β times the KL, with that of the siblings. Where all earn the same, what
        # they paid still pulls them back; a group that is left without spread teaches nothing. Where more
        # prompts were answered than are learnt from, those count that were solved now and then.
        lesson = algorithms.lesson(config.algorithm, lived.rewards - beta * lived.kl, lived.rewards)
        if config.checker:
            order.note(drawn, lived.solved)
            lesson = lesson.of(most_mixed(lived.solved, config.prompts_per_step))
        picked = lived.picked(lesson) if config.checker else []
        before = _log_probs(exact, memory, lived, picked)

        # 5. Update, once or several times: one mean over all tokens that are learnt from, however they are
        # cut into portions and shared among processes.
        learning_rate, norm = rate_in_line(step, config), 0.0
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

        # 6. The step's numbers; the crop if this is the step that suggests it; whether there is to be a next
        # one. Every so often what a checked run has come to on prompts that it does not practise.
        metrics = lived.numbers() | {"entropy": entropy, "loss": found.loss, "grad_norm": norm}
        metrics |= {"learning_rate": learning_rate} | ({"beta": beta} if config.kl_target else {})
        if config.updates_per_batch > 1 and algorithms.is_clipped(config.algorithm, config.updates_per_batch):
            metrics |= found.against_the_sampler(lesson)
        if config.checker:
            metrics |= {
                "rechecking": rechecking(lived.texts, config.recheck_phrases),
                "set_aside": order.waiting,
            }
        history.append({"step": step, **metrics})
        signs = None if crop or not watch else watch.see(history[-1])
        crop = crop or signs
        minutes = run.seconds / 60
        stopped = processes.agree(guard.ended(history, config.kl_limit, minutes, config.time_limit_minutes))
        looked_at = bool(stopped) or step == config.steps or step % config.evaluate_every == 0
        if looked_at and config.checker:
            metrics |= measured(stage, held_out)
            history[-1] |= metrics

        # 7. Tell: every rollout, the numbers, and every so often the fixed prompts, to read along.
        now = _log_probs(exact, memory, lived, picked)
        pushed = {place: [then, now[place]] for place, then in before.items()}
        run.rollouts(lived.lines(step, lesson, beta, tokenizer, pushed))
        told = {"practised": lived.practised} if config.checker else {}
        run.step(step, **metrics, **told, crop=list(signs.signs) if signs else None)
        if signs:
            run.log(f"step {step}: a crop is suggested. {' '.join(signs.rules)}")
        if reward.model and reward.model.by_text and step == 1:
            rehearsal.tell_the_cost(run, reward.model, lived)
        if looked_at:
            run.samples(_samples(stage, shown, step))
            run.log(f"step {step} of {config.steps}: {_in_words(metrics)}")

        # 8. What the next step begins with, and a checkpoint every so often, also before it has to stop.
        if config.kl_target:
            beta = algorithms.adapted(beta, lived.kl.mean().item(), config.kl_target)
        if run.checkpoint_due(step, config.checkpoint_every) or stopped:
            kept = {"beta": beta, "stopped": stopped, "at_once": memory.at_once, "order": order.state()}
            last = run.save(step, model, tokenizer, optimizer, lineage, metrics, **kept)
        if stopped:
            run.log(f"Stopped early, because {stopped}.")
            break

    return Outcome(last, metrics, _suggestion(run, crop, last, history) | {"stopped": stopped})


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

    size = processes.portion(at_once, max(1, sum(taught)))  # nothing may be learnt from
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


def _history(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of the steps that are kept, oldest first; what was measured at the start is none of them."""
    path = run.path / "steps.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [each for each in map(json.loads, lines) if each["step"]]


def _log_probs(reader: Reader, memory: Memory, lived: Experience, places: Sequence[int]) -> dict[int, float]:
    """The log-probability of each of these rollouts, as the policy is now."""
    prompts = [group.prompt for group in lived.groups for _ in group.rollouts]
    examples = [Example(prompts[place], [lived.rollouts[place].tokens]) for place in places]

    def read(some: Sequence[Example], at_once: int) -> list[float]:
        if not some:
            return []
        found = reader.log_probs(some, at_once)
        return policy.per_rollout(found, [len(each.rollouts[0]) for each in some]).tolist()

    return dict(zip(places, memory.share(examples, read), strict=True))


def _samples(stage: Stage, prompts: Sequence[Group], step: int) -> list[dict[str, Any]]:
    """One rollout of each fixed prompt: always of the same chances, so that only the policy differs."""
    return stage.experience(prompts, step=0, count=1).samples(step, stage.tokenizer) if prompts else []


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
    shown = ("accuracy", "held_out_accuracy", "reward", "kl", "entropy", "distinct_2", "length", "finished")
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in shown if metrics.get(name) is not None)


def _suggestion(
    run: RunDirectory, crop: guard.Crop | None, last: str | None, history: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The crop, if there is one, and the checkpoint to look at first: the last safe one before it;
    without a crop the one of the best measured accuracy, or the last one where none was measured."""
    kept = {int(path.name.removeprefix("step-")): f"checkpoints/{path.name}" for path in _checkpoints(run)}
    if crop is None:
        known = [each for each in history if "held_out_accuracy" in each and each["step"] in kept]
        if not known:
            return {"crop": None, "suggested": last}
        best = max(known, key=lambda each: (each["held_out_accuracy"], each["step"]))
        why = f"It had the best accuracy on held-out prompts, {best['held_out_accuracy']:.1%}."
        return {"crop": None, "suggested": kept[best["step"]], "why": why}
    safe = [step for step in kept if step <= crop.safe]
    suggested = kept[max(safe)] if safe else None
    return {
        "crop": {"step": crop.step, "rules": list(crop.rules), "checkpoint": suggested},
        "suggested": suggested,
    }


def _checkpoints(run: RunDirectory) -> list[Path]:
    return list((run.path / "checkpoints").glob("step-*"))
