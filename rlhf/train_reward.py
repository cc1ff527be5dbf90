"""Training a reward model: a simulator of the people who ranked.

Reads top to bottom. One quintet is one example, scored in one forward pass for all who ranked it; the loss of
a ranking is the listwise one (or all pairs) and a small centring. What is held out is held out by prompt.
The members of an ensemble learn side by side, each from its own sample of the prompts.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf import adapters, batch, checkpoint, data, ensemble, evaluate, losses, patience, processes, weights
from rlhf.batch import Example
from rlhf.config import RewardConfig
from rlhf.data import Ranking
from rlhf.optimizer import Optimizer, rate
from rlhf.reward_model import RewardModel, spread
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import sample

# Held-out rankings behind a measurement on the way, unless more are followed; at a checkpoint it is all.
MEASURED = 128
BLAMED = 5  # quintets that are named when a loss explodes
TOLD = ("held_out_loss", "held_out_accuracy", "held_out_pairs", "spread")  # of a measurement, with its step
REFERENCES = 64  # rollouts of the starting model whose mean reward becomes the middle of the score


@dataclass(frozen=True)
class Rankings:
    """Rankings and, in the same order, their tokens."""

    lines: list[Ranking]
    examples: list[Example]

    def __len__(self) -> int:
        return len(self.lines)

    def first(self, count: int) -> "Rankings":
        """The first so many."""
        return Rankings(self.lines[:count], self.examples[:count])


def train(run: RunDirectory, config: RewardConfig) -> Outcome:
    """Train, or go on training, to the last step."""
    # 1. The model: a policy's backbone with a new head, a reward model to train on, or where this run was.
    torch.manual_seed(config.seed)
    device = checkpoint.choose_device(config.device)
    processes.join(device)
    run.tell("loading", device=checkpoint.describe(device))
    base = run.input(config.policy)
    resumed = run.resume()
    # Adapters are put on the starting weights again: what was merged with them cannot be taken apart.
    start = resumed.path if resumed and not config.lora_rank else base
    model, tokenizer = checkpoint.start_reward_model(start, config.seed, device)
    if config.members > 1:
        ensemble.add(model, start, config.members, config.seed)
    if config.lora_rank:
        adapters.add(model, config.lora_rank)
    if config.gradient_checkpointing:
        adapters.compute_twice(model)
    judge = RewardModel(model, tokenizer, max_tokens=config.max_tokens, penalty=config.ensemble_penalty)

    # 2. The rankings as tokens, split by prompt, and whether the model can take a quintet as one row.
    given = data.rankings(run.input(config.dataset))
    taught, held = _split(judge, given, config)
    judge.settle(taught.examples + held.examples)
    quintets = weights.same_quintets(taught.lines)
    references: list[Example] = []  # asked for when first measured, so that training begins at once

    # 3. The optimizer.
    total = batch.steps_of(len(quintets), config.batch, config.epochs)
    warmup = round(config.warmup * total)
    optimizer = Optimizer(model, config.weight_decay, config.clip)
    lineage = run.lineage(config, base)
    metrics = _counts(given, taught, held)
    counts = _weights(taught.lines, config, metrics).to(device)  # [members, rankings]
    done, last = 0, None
    recent: list[float] = []  # losses, to tell what is usual
    best: dict[str, Any] = {}  # measurement so far, where it decides when to stop
    if resumed:
        resumed.restore(optimizer)
        if config.lora_rank:
            adapters.restore(model, resumed.tensors)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
        recent, best = resumed.state["losses"], resumed.state["best"]
    # What was faster once is kept, so that a resumed run ends with the same bits.
    judge.choose_precision(metrics.get("precision") or config.precision, taught.examples)
    metrics["precision"] = judge.precision = processes.agree(judge.precision)
    run.tell(run.phase, device=f"{checkpoint.describe(device)}, {judge.precision}")
    run.log(f"{len(taught)} rankings, {len(held)} held out, {total} steps on {run.device}, {judge.layout}.")

    step = done  # of a run that ended after its last step, nothing is left but to tell what to use
    for step in run.steps(done, total):
        # 4. One step: the mean loss of the batch's rankings, however its quintets are cut into portions.
        chosen = [quintets[number] for number in batch.drawn(len(quintets), config.batch, step, config.seed)]
        size = sum(map(len, chosen))
        surprise: dict[int, float] = {}  # by ranking
        loss = 0.0
        drawn = [taught.examples[rankings[0]] for rankings in chosen]
        size_of = processes.portion(config.micro_batch, len(drawn))
        for portion in processes.share(batch.portions(drawn, size_of, config.tokens_per_row)):
            rewards = judge.members([drawn[place] for place in portion])  # [members, quintets, places]
            numbers, rewards = _by_ranking([chosen[place] for place in portion], rewards)
            several, _, places = rewards.shape  # [members, rankings, places]
            ranks = evaluate.ranks_of([taught.lines[each] for each in numbers], places).to(device)
            flat = rewards.flatten(0, 1), ranks.repeat(several, 1)  # [members × rankings, places]
            each = counts[:, numbers] * losses.KINDS[config.loss](*flat, config.margin).view(several, -1)
            part = (each.sum() + config.centering * losses.centering(*flat).sum()) / (several * size)
            part.backward()
            surprise |= zip(numbers, each.mean(0).tolist(), strict=True)
            loss += float(each.detach().mean(0).sum()) / size
        loss = processes.sum_gradients(optimizer.names, loss)
        learning_rate = rate(step, total, config.learning_rate, warmup)
        recent = [*recent, loss][-losses.MEMORY :]
        exploding = losses.exploding(recent)
        if exploding == losses.EXPLODED_STEPS:
            raise run.exploded(step, loss, _named(_worst(taught.lines, processes.gathered(surprise))))
        if not math.isfinite(optimizer.step(learning_rate)):
            raise run.lost(step, _named(_worst(taught.lines, processes.gathered(surprise))))

        # 5. Every so often: how it does on what was held out. The scale of the score is fitted anew.
        measured: dict[str, Any] = {}
        due = run.checkpoint_due(step, config.checkpoint_every)
        if due:  # the loss is that of the weights before this step; what is to be kept are those after it
            after = processes.agree(_loss_now(judge, drawn, [taught.lines[n[0]] for n in chosen], config))
            if not math.isfinite(after):
                raise run.lost(step, _named(_worst(taught.lines, processes.gathered(surprise))))
            exploding = exploding or losses.exploding([*recent, after])
        if due or step == 1 or step % config.evaluate_every == 0:
            if processes.rank() == 0:
                references = references or _references(run, base, judge, taught, config)
                some = held.first(max(MEASURED, config.sample_quintets))
                enough = held if due or config.early_stop else some
                measured = _measure(run, step, judge, enough, references, config)
            measured = processes.agree(measured)
            metrics |= {"loss": loss, **measured}
            run.log(f"step {step} of {total}: loss {loss:.4f}, {_in_words(measured)}")
        if config.early_stop and not exploding and measured.get("held_out_loss") is not None:
            best = patience.better(best, step, metrics)
            due = due or best["step"] == step
        told = {name: measured.get(name) for name in TOLD}
        run.step(step, loss=loss, learning_rate=learning_rate, **told)

        # 6. A checkpoint, at its time, at the end, and before the run has to stop; none of a model that
        # explodes.
        if due and (step == total or not exploding):
            scale = {"mu": judge.mu, "tau": judge.tau}
            if judge.count > 1:
                scale |= {"members": judge.count, "penalty": judge.penalty}
            last = run.save(
                step, model, tokenizer, optimizer, lineage | scale, metrics, losses=recent, best=best
            )
        if config.early_stop and best.get("waited") == config.early_stop:
            run.log(f"Stopped early: {config.early_stop} measurements in a row were no better.")
            break

    # 7. What to use: the last checkpoint, or with patience the one that did best on what was held out.
    if not best:
        return Outcome(last, metrics)
    return Outcome(
        last, best["metrics"], {"suggested": run.checkpoint_at(best["step"]), "why": patience.why(best, step)}
    )


def _split(judge: RewardModel, given: Sequence[Ranking], config: RewardConfig) -> tuple[Rankings, Rankings]:
    """What is trained on and what is held out. A ranking of equals says nothing and is neither; what was
    confirmed of a harvest is learnt from, and measures nothing."""
    telling = [ranking for ranking in given if ranking.teaches]
    if not telling:
        raise Failed("No ranking says that one rollout is better than another.", "Rank some more.", "dataset")
    examples = [judge.encode(each.prompt, each.rollouts, each.finished) for each in telling]
    prompts = [ranking.prompt for ranking in telling]
    learnt, apart = data.split_by_prompt(prompts, config.held_out, config.seed)
    apart = [number for number in apart if not telling[number].harvested]
    random.Random(config.seed).shuffle(apart)
    parts = (learnt, apart)
    taught, held = (Rankings([telling[n] for n in part], [examples[n] for n in part]) for part in parts)
    return taught, held


def _weights(rankings: Sequence[Ranking], config: RewardConfig, metrics: dict[str, Any]) -> Tensor:
    """What each ranking counts for each member, [members, rankings]; the metrics tell by which labelers."""
    counts = torch.ones(config.members, len(rankings))
    if config.members > 1:
        times = [
            [weights.times_drawn(each.prompt, member, config.seed) for each in rankings]
            for member in range(config.members)
        ]
        counts *= torch.tensor(times)
    if config.labeler_weights == "agreement":
        found = weights.by_agreement(rankings)
        metrics["labeler_weights"] = {name: vars(each) for name, each in found.items()}
        counts *= torch.tensor([found[ranking.labeler].weight for ranking in rankings])
    return counts


def _by_ranking(quintets: Sequence[Sequence[int]], rewards: Tensor) -> tuple[list[int], Tensor]:
    """The numbers of these quintets' rankings, and for each of them its quintet's rewards."""
    rows = [row for row, rankings in enumerate(quintets) for _ in rankings]
    return [number for rankings in quintets for number in rankings], rewards[:, rows]


def _loss_now(
    judge: RewardModel, examples: Sequence[Example], lines: Sequence[Ranking], config: RewardConfig
) -> float:
    """The loss of some rankings with the weights as they are; no number where these are lost, which may also
    show in one and the same reward for everything."""
    if processes.rank():  # the first one tells
        return 0.0
    rewards = judge.rewards_of(examples, config.micro_batch)
    if len({reward for each in rewards for reward in each}) == 1:
        return math.nan
    return evaluate.Measured(rewards, lines).loss(config.loss) or 0.0


def _references(
    run: RunDirectory, base: Path, judge: RewardModel, taught: Rankings, config: RewardConfig
) -> list[Example]:
    """Typical answers of the starting model: its own where it can write, else those that people ranked."""
    prompts = sorted({tuple(example.prompt) for example in taught.examples})
    random.Random(config.seed).shuffle(prompts)
    if not checkpoint.is_policy(base):
        return taught.examples
    phase = run.phase
    run.tell("sampling")
    with torch.random.fork_rng():  # whenever this happens, it changes nothing else
        policy, tokenizer = checkpoint.load_policy(base, judge.model.device)
    longest = max(len(rollout) for example in taught.examples for rollout in example.rollouts)
    chances = torch.Generator().manual_seed(config.seed)
    found: list[Example] = []
    for some, count in _portions(prompts, longest, 2 * config.tokens_per_row):
        rollouts = sample(policy, tokenizer, some, count, longest, 1.0, chances)
        for number, prompt in enumerate(some):
            own = [each.tokens for each in rollouts[number * count : (number + 1) * count]]
            found += [Example(prompt, own[first : first + data.MOST]) for first in range(0, count, data.MOST)]
    run.tell(phase)
    return found


def _portions(
    prompts: Sequence[tuple[int, ...]], longest: int, tokens: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Prompts to answer together, and how often each: in all so many answers as are wanted, of no more tokens
    at once than are allowed, save those of one prompt."""
    each, more = divmod(REFERENCES, len(prompts))
    for some, count in ((prompts[:more], each + 1), (prompts[more:], each)):
        size = max(1, tokens // (max(1, count) * (max(map(len, prompts)) + longest)))
        for first in range(0, len(some) if count else 0, size):
            yield [list(prompt) for prompt in some[first : first + size]], count


def _measure(
    run: RunDirectory,
    step: int,
    judge: RewardModel,
    held: Rankings,
    references: Sequence[Example],
    config: RewardConfig,
) -> dict[str, Any]:
    """The numbers of a step on what was held out; fits μ and τ, and keeps the shown quintets' scores."""
    typical = [reward for row in judge.rewards_of(references, config.micro_batch) for reward in row]
    members = judge.members_of(held.examples, config.micro_batch)
    found = evaluate.Measured([judge.together(each).tolist() for each in members], held.lines)
    margins = found.margins
    judge.mu, judge.tau = sum(typical) / len(typical), evaluate.fit_tau(margins)
    shown = list(zip(held.lines, found.rewards, strict=True))[: config.sample_quintets]
    run.samples(
        [
            _sample(step, index, ranking, [judge.score(reward) for reward in rewards])
            for index, (ranking, rewards) in enumerate(shown)
        ]
    )
    return {
        "held_out_loss": found.loss(config.loss),
        "held_out_accuracy": evaluate.accuracy(margins),
        "held_out_pairs": len(margins),
        "nll": evaluate.nll(margins, judge.tau),
        "ece": evaluate.calibration_error(margins, judge.tau),
        "mu": judge.mu,
        "tau": judge.tau,
        **_spread(members),
        "by_labeler": found.right_by(evaluate.by_labeler),
        "by_arm": found.right_by(evaluate.by_arm),
    }


def _sample(step: int, index: int, ranking: Ranking, scores: list[float]) -> dict[str, Any]:
    """A line of samples.jsonl: what the model says of a held-out ranking. The texts are the same at every
    step and by far the greater part, so they stand at the first one alone, which is always measured."""
    told: dict[str, Any] = {"step": step, "index": index, "quintet": ranking.quintet}
    if step == 1:
        told |= {"prompt": data.prompt_text(ranking.prompt), "rollouts": list(ranking.rollouts)}
    return told | {
        "ranks": list(ranking.ranks),
        "labeler": ranking.labeler,
        "simulated": ranking.simulated,
        "scores": scores,
    }


def _spread(members: Sequence[Tensor]) -> dict[str, float]:
    """How far the members of an ensemble are apart, on average over all rollouts."""
    apart = [spread(each) for each in members if len(each) > 1]
    return {"spread": float(torch.cat(apart).mean())} if apart else {}


def _counts(given: Sequence[Ranking], taught: Rankings, held: Rankings) -> dict[str, Any]:
    examples = taught.examples + held.examples
    return {
        "rankings": len(given),
        "trained_on": len(taught),
        "held_out": len(held),
        "all_tied": sum(not ranking.teaches for ranking in given),
        "labelers": len({ranking.labeler for ranking in given}),
        "simulated": sum(ranking.simulated for ranking in given),
        "prompts_cut": sum(example.prompt_cut for example in examples),
        "rollouts_cut": sum(example.rollouts_cut for example in examples),
    }


def _worst(rankings: Sequence[Ranking], surprise: dict[int, float]) -> list[Ranking]:
    """Those of a step whose loss is no number, or else the ones with the greatest."""
    lost = [number for number in surprise if not math.isfinite(surprise[number])]
    return [
        rankings[number] for number in lost or sorted(surprise, key=surprise.__getitem__)[: -BLAMED - 1 : -1]
    ]


def _named(rankings: Sequence[Ranking]) -> str:
    """The quintets of a step, for whoever has to look for the one at fault."""
    names = [ranking.quintet or data.prompt_text(ranking.prompt)[:40] for ranking in rankings]
    return f" on the quintets {', '.join(dict.fromkeys(names))}"


def _in_words(measured: dict[str, Any]) -> str:
    if measured["held_out_accuracy"] is None:
        return "nothing held out"
    return f"held out {measured['held_out_loss']:.4f}, right on {measured['held_out_accuracy']:.1%} of pairs"
