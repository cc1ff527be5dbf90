"""Supervised finetuning: a policy learns to write what people wrote, or before that, to read plain documents.

Reads top to bottom. The loss is over the answers' tokens only, their ends included, or over every token of a
document; texts are packed into rows without seeing each other. What becomes a text, and which of its tokens
are learnt, is the matter of `rlhf.texts`.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rlhf import adapters, batch, checkpoint, data, memory, patience, processes, texts
from rlhf.config import READING, SftConfig
from rlhf.memory import Memory
from rlhf.optimizer import Optimizer, rate
from rlhf.packing import Packing
from rlhf.run import Failed, Outcome, RunDirectory
from rlhf.sample import sample
from rlhf.texts import Text

MEASURED = 256  # held-out texts behind one measurement, at the most: always the same ones
BEGINNING = 24  # tokens of a held-out document that are gone on with

Line = data.Demonstration | data.Document


@dataclass(frozen=True)
class Lesson:
    """What is learnt, what is held out, and what is shown at measurements: prompts as text and as tokens."""

    taught: list[Text]
    held: list[Text]
    shown: list[tuple[str, list[int]]]
    counts: dict[str, int]


def train(run: RunDirectory, config: SftConfig) -> Outcome:
    """Train, or go on training, to the last step."""
    # 1. The model: the starting policy, or where this run was.
    torch.manual_seed(config.seed)
    device = checkpoint.choose_device(config.device)
    processes.join(device)
    run.tell("loading", device=checkpoint.describe(device))
    base = run.input(config.policy)
    resumed = run.resume()
    # Adapters are put on the starting weights again: what was merged with them cannot be taken apart.
    start = resumed.path if resumed and not config.lora_rank else base
    model, tokenizer = checkpoint.load_policy(start, device)
    if config.lora_rank:
        adapters.add(model, config.lora_rank)
    if config.gradient_checkpointing:
        adapters.compute_twice(model)

    # 2. The lines as tokens, split by prompt or document, and whether the model can take texts in one row.
    limit = min(config.max_tokens, checkpoint.longest(model) or config.max_tokens)
    lesson = _lesson(run, tokenizer, config, limit)
    packing = Packing(model)
    packing.settle(lesson.taught)
    fitting = Memory(run, config.micro_batch, memory.EXAMPLES)

    # 3. The optimizer.
    total = batch.steps_of(len(lesson.taught), config.batch, config.epochs)
    warmup = round(config.warmup * total)
    optimizer = Optimizer(model, config.weight_decay, config.clip)
    lineage = run.lineage(config, base)
    metrics: dict[str, Any] = dict(lesson.counts)
    done, last = 0, None
    best: dict[str, Any] = {}  # measurement so far, where it decides when to stop
    if resumed:
        resumed.restore(optimizer)
        if config.lora_rank:
            adapters.restore(model, resumed.tensors)
        done, metrics, last = resumed.step, resumed.metrics, str(resumed.path.relative_to(run.path))
        best, fitting.at_once = resumed.state["best"], resumed.state["at_once"]
    # What was faster once is kept, so that a resumed run ends with the same bits.
    packing.choose_precision(metrics.get("precision") or config.precision, lesson.taught)
    metrics["precision"] = packing.precision = processes.agree(packing.precision)
    run.tell(run.phase, device=f"{checkpoint.describe(device)}, {packing.precision}")
    run.log(
        f"{len(lesson.taught)} texts to learn from, {len(lesson.held)} held out, {total} steps on "
        f"{run.device}, {packing.layout}."
    )

    step = done  # of a run that ended after its last step, nothing is left but to tell what to use
    for step in run.steps(done, total):
        # 4. One step: the mean loss over all learnt tokens of the batch, however its texts are packed.
        drawn = batch.drawn(len(lesson.taught), config.batch, step, config.seed)
        chosen = [lesson.taught[number] for number in drawn]
        tokens = sum(len(text.learnt) for text in chosen)
        loss = sum(fitting.fit(partial(_gradients, packing, optimizer, chosen, config, tokens)))
        processes.sum_gradients(optimizer.names, loss)
        learning_rate = rate(step, total, config.learning_rate, warmup)
        if not math.isfinite(optimizer.step(learning_rate)):
            raise run.lost(step)

        # 5. Every so often: the loss on what was held out, and rollouts to read along.
        due = run.checkpoint_due(step, config.checkpoint_every)
        measured: dict[str, Any] = {}
        if due or step == 1 or step % config.evaluate_every == 0:
            if processes.rank() == 0:
                # Where nothing is held out, a batch tells whether the weights after this step are still good.
                now = packing.mean_loss(lesson.held or chosen, *_portion(config, fitting.at_once))
                measured = {"held_out_loss": now if lesson.held else None, "now": now}
                run.samples(_samples(model, tokenizer, lesson.shown, step, config))
            measured = processes.agree(measured)
            if not math.isfinite(measured.pop("now")):
                raise run.lost(step)
            metrics |= {"loss": loss, **measured}
            run.log(f"step {step} of {total}: loss {loss:.4f}, {_in_words(measured['held_out_loss'])}")
        if config.early_stop and measured.get("held_out_loss") is not None:
            best = patience.better(best, step, metrics)
            due = due or best["step"] == step
        run.step(step, loss=loss, learning_rate=learning_rate, tokens=tokens, **measured)

        # 6. A checkpoint, at its time, at the end, where it is the best, and before the run has to stop.
        if due:
            kept = {"best": best, "at_once": fitting.at_once}
            last = run.save(step, model, tokenizer, optimizer, lineage, metrics, **kept)
        if config.early_stop and best.get("waited") == config.early_stop:
            run.log(f"Stopped early: {config.early_stop} measurements in a row were no better.")
            break

    # 7. What to use: the last checkpoint, or with patience the one that did best on what was held out.
    if not best:
        return Outcome(last, metrics)
    why = patience.why(best, step)
    return Outcome(last, best["metrics"], {"suggested": run.checkpoint_at(best["step"]), "why": why})


def _gradients(
    packing: Packing,
    optimizer: Optimizer,
    chosen: Sequence[Text],
    config: SftConfig,
    tokens: int,
    at_once: int,
) -> float:
    """Gather this process's share of a step's gradients; its share of the loss."""
    optimizer.forget()
    size, longest = _portion(config, at_once)
    loss = 0.0
    for portion in processes.share(batch.portions(chosen, processes.portion(size, len(chosen)), longest)):
        part = packing.losses([chosen[number] for number in portion]).sum() / tokens
        part.backward()
        loss += float(part.detach())
    return loss


def _portion(config: SftConfig, at_once: int) -> tuple[int, int]:
    """How many texts, and tokens, a row has at the most: fewer of both where memory ran out."""
    return at_once, max(1, config.tokens_per_row * at_once // config.micro_batch)


def _lesson(run: RunDirectory, tokenizer: Any, config: SftConfig, limit: int) -> Lesson:
    """The dataset as texts, split by prompt, or where documents are read, by document."""
    reading = config.stage == READING
    path = run.input(config.dataset)
    lines: Sequence[Line] = data.documents(path) if reading else data.demonstrations(path)
    noun = "documents" if reading else "demonstrations"
    if not lines:
        raise Failed(f"There are no {noun} to learn from.", "Add some to the dataset.", "dataset")
    lines, found, copies = _once(lines, [_texts(tokenizer, line, limit) for line in lines])
    learnt, apart = data.split_by_prompt([_key(line) for line in lines], config.held_out, config.seed)
    random.Random(config.seed).shuffle(apart)
    taught = [text for number in learnt for text in found[number]]
    shown = [_begun(tokenizer, lines[number]) for number in (apart or learnt)[: config.sample_prompts]]
    counts = {
        noun: len(learnt),
        "held_out": len(apart),
        "texts": len(taught),
        "copies": copies,
        "prompts_cut": sum(text.prompt_cut for each in found for text in each),
        "rollouts_cut": sum(text.answer_cut for each in found for text in each),
    }
    for words in _worth_saying(counts, limit, reading):
        run.log(words)
    held = [text for number in apart for text in found[number]][:MEASURED]
    return Lesson(taught, held, shown, counts)


def _once(lines: Sequence[Line], found: Sequence[list[Text]]) -> tuple[list[Line], list[list[Text]], int]:
    """The lines and their texts without exact copies of those before; and how many these were. A copy would
    be learnt twice, and measured twice where it is held out."""
    first: dict[Any, int] = {}
    for number, each in enumerate(found):
        first.setdefault(tuple((*text.ids, None, *text.learnt) for text in each), number)
    kept = list(first.values())
    return [lines[each] for each in kept], [found[each] for each in kept], len(found) - len(kept)


def _texts(tokenizer: Any, line: Line, limit: int) -> list[Text]:
    if isinstance(line, data.Document):
        return texts.of_document(tokenizer, line, limit)
    return texts.of_demonstration(tokenizer, line, limit)


def _key(line: Line) -> data.Prompt:
    """What is held out or learnt together."""
    return line.text if isinstance(line, data.Document) else line.prompt


def _begun(tokenizer: Any, line: Line) -> tuple[str, list[int]]:
    if isinstance(line, data.Document):
        ids = texts.beginning(tokenizer, line, BEGINNING)
        return checkpoint.decode_rollout(tokenizer, ids), ids
    return data.prompt_text(line.prompt), checkpoint.encode_prompt(tokenizer, line.prompt)


def _worth_saying(counts: dict[str, int], limit: int, reading: bool) -> list[str]:
    """What becomes of the lines that whoever gave them may not expect."""
    said = []
    for name, what in (
        ("prompts_cut", "prompts lose their beginning"),
        ("rollouts_cut", "answers their end"),
    ):
        if counts[name]:
            said.append(f"{counts[name]} {what}: with them, the examples were longer than {limit:,} tokens.")
    if reading and counts["texts"] > counts["documents"]:
        made = f"{counts['texts']} texts of at most {limit:,} tokens, in order."
        said.append(f"{counts['documents']} documents are {made}")
    if counts["copies"]:
        said.append(f"{counts['copies']} lines say the same as others and are left out.")
    return said


def _in_words(loss: float | None) -> str:
    return "nothing held out" if loss is None else f"held out {loss:.4f}"


def _samples(
    model: Any, tokenizer: Any, shown: Sequence[tuple[str, list[int]]], step: int, config: SftConfig
) -> list[dict[str, Any]]:
    """A rollout for each of the fixed prompts: always of the same chances, so that only the model differs."""
    chances = torch.Generator().manual_seed(config.seed)
    prompts = [ids for _, ids in shown]
    rollouts = sample(model, tokenizer, prompts, 1, config.max_new_tokens, config.temperature, chances)
    return [
        {
            "step": step,
            "index": index,
            "prompt": prompt,
            "rollout": checkpoint.decode_rollout(tokenizer, rollout.tokens),
            "score": None,
            "kl": None,
            "finished": rollout.finished,
        }
        for index, ((prompt, _), rollout) in enumerate(zip(shown, rollouts, strict=True))
    ]
