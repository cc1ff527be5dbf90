"""Supervised finetuning: a policy learns to write what people wrote.

Reads top to bottom. The loss is over the rollout's tokens only, its end included; prompts are not learnt.
Leaves out packing several demonstrations into a row, adapters and mixed precision.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlhf import batch, checkpoint, data
from rlhf.batch import Example
from rlhf.config import SftConfig
from rlhf.optimizer import Optimizer, rate
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import sample

MEASURED = 256  # held-out demonstrations behind one measurement, at the most


def train(run: RunDirectory, config: SftConfig) -> Outcome:
    """Train, or go on training, to the last step."""
    # 1. The model: the starting policy, or the checkpoint to go on from.
    torch.manual_seed(config.seed)
    device = checkpoint.choose_device(config.device)
    run.tell("loading", device=checkpoint.describe(device))
    base = run.input(config.policy)
    resumed = run.resume()
    model, tokenizer = checkpoint.load_policy(resumed.path if resumed else base, device)

    # 2. The demonstrations as tokens; some prompts are held out to measure on.
    lines = data.demonstrations(run.input(config.dataset))
    if not lines:
        raise Failed("There are no demonstrations to learn from.", "Add some to the dataset.", "dataset")
    limit = min(config.max_tokens, checkpoint.longest(model) or config.max_tokens)
    examples = [_encode(tokenizer, line, limit) for line in lines]
    taught, held = data.split_by_prompt([line.prompt for line in lines], config.held_out, config.seed)
    random.Random(config.seed).shuffle(held)
    measured = [examples[number] for number in held[:MEASURED]]
    shown = [lines[number].prompt for number in (held or taught)[: config.sample_prompts]]

    # 3. The optimizer.
    total = batch.steps_of(len(taught), config.batch, config.epochs)
    warmup = round(config.warmup * total)
    optimizer = Optimizer(model, config.weight_decay, config.clip)
    lineage = run.lineage(config, base)
    metrics: dict[str, Any] = {
        "demonstrations": len(taught),
        "held_out": len(held),
        "prompts_cut": sum(example.prompt_cut for example in examples),
        "rollouts_cut": sum(example.rollouts_cut for example in examples),
    }
    done, last = 0, None
    if resumed:
        resumed.restore(optimizer)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
    run.log(f"{len(taught)} demonstrations, {len(held)} held out, {total} steps on {run.device}.")

    for step in run.steps(done, total):
        # 4. One step: the mean loss over all rollout tokens of the batch, however it is cut into portions.
        chosen = [
            examples[taught[number]] for number in batch.drawn(len(taught), config.batch, step, config.seed)
        ]
        tokens = sum(len(example.rollouts[0]) for example in chosen)
        loss = 0.0
        for portion in batch.portions(chosen, config.micro_batch):
            part = (
                token_losses(model, [chosen[number] for number in portion], tokenizer.pad_token_id).sum()
                / tokens
            )
            part.backward()
            loss += float(part.detach())
        learning_rate = rate(step, total, config.learning_rate, warmup)
        if not math.isfinite(optimizer.step(learning_rate)):
            raise run.lost(step)

        # 5. Every so often: the loss on what was held out, and rollouts to read along.
        measured_now = {}
        if step == 1 or step == total or step % config.evaluate_every == 0:
            measured_now = {
                "held_out_loss": held_out_loss(model, measured, config.micro_batch, tokenizer.pad_token_id)
            }
            run.samples(_samples(model, tokenizer, shown, step, config))
            metrics |= {"loss": loss, **measured_now}
            run.log(f"step {step} of {total}: loss {loss:.4f}, {_in_words(measured_now['held_out_loss'])}")
        run.step(step, loss=loss, learning_rate=learning_rate, tokens=tokens, **measured_now)

        # 6. A checkpoint, at its time, at the end, and before the run has to stop.
        if run.checkpoint_due(step, config.checkpoint_every):
            last = run.save(step, model, tokenizer, optimizer, lineage, metrics)

    return Outcome(last, metrics)


def token_losses(model: Any, examples: Sequence[Example], pad: int) -> Tensor:
    """The negative log-probability of every rollout token of these demonstrations, in fp32: [tokens]."""
    rows = batch.padded_rows(examples, pad)
    ids, there = rows.ids.to(model.device), rows.there.to(model.device)
    logits = model(input_ids=ids, attention_mask=there, use_cache=False).logits  # [rows, tokens, vocabulary]
    starts = torch.tensor([[len(example.prompt)] for example in examples], device=ids.device)
    learnt = (torch.arange(ids.shape[1], device=ids.device) >= starts) & there.bool()  # [rows, tokens]
    return cross_entropy(logits[:, :-1][learnt[:, 1:]].float(), ids[:, 1:][learnt[:, 1:]], reduction="none")


@torch.no_grad()
def held_out_loss(model: Any, examples: Sequence[Example], at_once: int, pad: int) -> float | None:
    """The mean loss of a token, None where nothing was held out."""
    parts = [
        token_losses(model, [examples[number] for number in portion], pad)
        for portion in batch.portions(examples, at_once)
    ]
    return float(torch.cat(parts).mean()) if parts else None


def _in_words(loss: float | None) -> str:
    return "nothing held out" if loss is None else f"held out {loss:.4f}"


def _encode(tokenizer: Any, line: data.Demonstration, limit: int) -> Example:
    prompt = checkpoint.encode_prompt(tokenizer, line.prompt)
    return batch.fit(prompt, [checkpoint.encode_rollout(tokenizer, line.completion)], limit)


def _samples(
    model: Any, tokenizer: Any, prompts: Sequence[data.Prompt], step: int, config: SftConfig
) -> list[dict[str, Any]]:
    """A rollout for each of the fixed prompts: always of the same chances, so that only the model differs."""
    ids = [checkpoint.encode_prompt(tokenizer, prompt) for prompt in prompts]
    chances = torch.Generator().manual_seed(config.seed)
    rollouts = sample(model, tokenizer, ids, 1, config.max_new_tokens, config.temperature, chances)
    return [
        {
            "step": step,
            "index": index,
            "prompt": data.prompt_text(prompt),
            "rollout": checkpoint.decode_rollout(tokenizer, rollout.tokens),
            "score": None,
            "kl": None,
            "finished": rollout.finished,
        }
        for index, (prompt, rollout) in enumerate(zip(prompts, rollouts, strict=True))
    ]
