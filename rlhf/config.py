"""What a run may be asked to do: one frozen dataclass per kind, whose fields carry their own help and bounds.

Forms, `--set` and `--help` are derived from `settings(kind)`, and `make(kind, values)` is the only door:
whoever asks for a run is refused in the same words, the cap on steps against a reward model included.
Knows neither torch nor the web; reading the lines of a dataset is the matter of `rlhf.data`.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlhf.setting import Refused as Refused
from rlhf.setting import Setting
from rlhf.setting import read as _read
from rlhf.setting import setting as _setting

STEP_CAP = 500
CHECKERS: tuple[str, ...] = ()  # rules that can judge an answer by themselves; none is built in yet
AGAINST = "inputs/against"  # where the second reward model lies, if an evaluation run compares two
HUB = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
RENAMED = {"advantage": "algorithm"}  # settings by the names that older runs know them by
FORMER = {"leave-one-out": "rloo", "normalised": "grpo"}  # and what their choices are called now


def _input(default: str) -> Any:
    """A file or folder of the run directory: part of the config, but no setting that a form would show."""
    return field(default=default, metadata={"input": True})


# The classes below are tables to be read row by row, so the formatter leaves them alone.
# fmt: off
@dataclass(frozen=True, kw_only=True)
class _Common:
    kind: ClassVar[str]

    seed: int = _setting(
        0, "Seed", "The same seed, data and settings give the same weights on the same machine.",
        0, 2**31 - 1, advanced=True)
    device: str = _setting(
        "auto", "Device", "Where to compute; auto takes a CUDA card, else Apple's, else the processor.",
        choices=("auto", "cuda", "mps", "cpu"), advanced=True)

    def check(self) -> None:
        """Raise Refused for what no single field's bounds can tell."""


@dataclass(frozen=True, kw_only=True)
class _Sampling(_Common):
    temperature: float = _setting(
        1.0, "Temperature", "How freely the policy chooses its words; 1 is as it learnt them, less is tamer.",
        0.05, 2.0)
    max_new_tokens: int = _setting(
        256, "Longest rollout", "A rollout that has not ended by then is cut off.", 1, 8192, unit="tokens")


@dataclass(frozen=True, kw_only=True)
class _Training(_Common):
    epochs: float = _setting(
        2.0, "Epochs", "How often every example is seen.", 0.01, 100)
    batch: int = _setting(
        16, "Batch", "Examples behind one step.", 1, 4096, unit="examples")
    learning_rate: float = _setting(
        2e-5, "Learning rate", "Size of a step; small models take more, tiny ones up to 0.005.", 1e-9, 0.1)
    held_out: float = _setting(
        0.1, "Held out", "Share of the prompts kept away from training, to measure on.", 0, 0.5)
    micro_batch: int = _setting(
        8, "Examples at once", "Portions in which a batch is computed; smaller ones need less memory.",
        1, 1024, advanced=True, unit="examples")
    warmup: float = _setting(
        0.03, "Warm-up", "Share of the steps over which the learning rate rises from zero.",
        0, 0.9, advanced=True)
    weight_decay: float = _setting(
        0.0, "Weight decay", "Pull of every weight towards zero.", 0, 1, advanced=True)
    clip: float = _setting(
        1.0, "Gradient clip", "A longer gradient is shortened to this norm.", 0.001, 1000, advanced=True)
    max_tokens: int = _setting(
        1024, "Longest example", "Prompt and rollout together; a longer prompt loses its beginning.",
        8, 131072, advanced=True, unit="tokens")
    evaluate_every: int = _setting(
        10, "Measure every", "Steps between two measurements on what was held out.",
        1, 100000, advanced=True, unit="steps")
    checkpoint_every: int = _setting(
        50, "Checkpoint every", "Steps between two checkpoints; a crash costs at most these.",
        1, 100000, advanced=True, unit="steps")


@dataclass(frozen=True, kw_only=True)
class RolloutsConfig(_Sampling):
    """Sample rollouts for every prompt, to be ranked."""

    kind: ClassVar[str] = "rollouts"
    policy: str = _input("inputs/policy")
    prompts: str = _input("prompts.jsonl")
    count: int = _setting(
        5, "Rollouts per prompt", "Five make a quintet.", 1, 64)
    batch: int = _setting(
        16, "Prompts at once", "More is faster and needs more memory.",
        1, 1024, advanced=True, unit="prompts")


@dataclass(frozen=True, kw_only=True)
class SftConfig(_Training):
    """Supervised finetuning: learn to write what people wrote."""

    kind: ClassVar[str] = "sft"
    policy: str = _input("inputs/policy")
    dataset: str = _input("dataset.jsonl")
    sample_prompts: int = _setting(
        5, "Sampled prompts", "Held-out prompts answered at every measurement, to read along.",
        0, 64, advanced=True)
    temperature: float = _setting(
        1.0, "Temperature", "How freely those answers are chosen.", 0.05, 2.0, advanced=True)
    max_new_tokens: int = _setting(
        256, "Longest sample", "Such an answer is cut off if it has not ended by then.",
        1, 8192, advanced=True, unit="tokens")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(_Training):
    """Learn to score rollouts as the people who ranked them would."""

    kind: ClassVar[str] = "reward"
    policy: str = _input("inputs/policy")
    dataset: str = _input("dataset.jsonl")
    learning_rate: float = _setting(
        9e-6, "Learning rate", "Size of a step; models under a billion weights take 5e-5, tiny ones more.",
        1e-9, 0.1)
    held_out: float = _setting(
        0.15, "Held out", "Share of the prompts kept away from training, to measure on.", 0, 0.5)
    loss: str = _setting(
        "listwise", "Loss", "Listwise learns from whole rankings, pairs from every two rollouts that differ.",
        choices=("listwise", "pairs"), advanced=True)
    centering: float = _setting(
        0.01, "Centring", "Keeps the mean reward of a quintet near zero.", 0, 10, advanced=True)
    members: int = _setting(
        1, "Members", "Heads on one backbone, each with its own sample of prompts; their spread is doubt.",
        1, 64, advanced=True)
    ensemble_penalty: float = _setting(
        0.0, "Price of doubt", "An ensemble’s reward is its members’ mean less so many times their spread.",
        0, 100, advanced=True)
    margin: float = _setting(
        0.0, "Margin", "How far the reward of the better rollout has to be ahead before that costs little.",
        0, 100, advanced=True)
    labeler_weights: str = _setting(
        "equal", "Weight of labelers", "By agreement, those count more with whom others agree.",
        choices=("equal", "agreement"), advanced=True)
    early_stop: int = _setting(
        0, "Patience", "Stop when so many measurements in a row were no better, and propose the best.",
        0, 10000, advanced=True, unit="measurements")
    lora_rank: int = _setting(
        0, "LoRA rank", "Train adapters of this rank, at a rate of 1e-4 or more; 0 trains all weights.",
        0, 1024, advanced=True)
    gradient_checkpointing: bool = _setting(
        False, "Compute twice", "Keep less in memory and compute it again: slower, for long or large models.",
        advanced=True)
    precision: str = _setting(
        "auto", "Precision", "Auto takes bf16 where a try at the start finds it faster, else fp32.",
        choices=("auto", "fp32", "bf16"), advanced=True)
    tokens_per_row: int = _setting(
        2048, "Tokens per row", "Short quintets are packed into one row up to this many tokens.",
        64, 1_048_576, advanced=True, unit="tokens")
    sample_quintets: int = _setting(
        256, "Followed rankings", "Held-out rankings whose scores are kept at every measurement.",
        0, 256, advanced=True, unit="rankings")
    learning_curve: bool = _setting(
        False, "Learning curve", "Train again on parts of the rankings, to see whether more would help.",
        advanced=True)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(_Sampling):
    """Reinforcement learning against a reward model, for a capped number of steps."""

    kind: ClassVar[str] = "policy"
    policy: str = _input("inputs/policy")
    reward: str = _input("inputs/reward")
    prompts: str = _input("prompts.jsonl")
    checker: str = _input("")
    steps: int = _setting(
        300, "Steps", f"Updates of the policy; at most {STEP_CAP} against a reward model.",
        1, 1_000_000, unit="steps")
    beta: float = _setting(
        0.1, "β, pull to the start", "What moving away from the start costs; 0 lets it run off the cliff.",
        0, 10)
    learning_rate: float = _setting(
        1e-6, "Learning rate", "Size of a step; tiny models take 3e-4 and more.", 1e-9, 0.1)
    prompts_per_step: int = _setting(
        8, "Prompts per step", "How many prompts one step answers.", 1, 1024)
    rollouts_per_prompt: int = _setting(
        8, "Rollouts per prompt", "They are judged against each other, so there are at least two.", 2, 128)
    algorithm: str = _setting(
        "rloo", "Algorithm",
        "Rollouts against the mean of their siblings (rloo), by their spread too (grpo), or the best alone.",
        choices=("rloo", "grpo", "best"))
    lora_rank: int = _setting(
        0, "LoRA rank", "Train adapters of this rank, at ten times the rate or more; 0 trains all weights.",
        0, 1024)
    kl_limit: float = _setting(
        0.0, "End at a KL of", "The run ends when five steps are further from the start; 0 is never.",
        0, 100_000, unit="nats a rollout")
    time_limit_minutes: float = _setting(
        0.0, "End after", "The run ends after the step in which this time is over; 0 is never.",
        0, 1_000_000, unit="minutes")
    updates_per_batch: int = _setting(
        1, "Updates per batch", "How often a step’s rollouts are learnt from before there are new ones.",
        1, 16, advanced=True)
    clip_ratio: float = _setting(
        0.2, "Clipped ratio", "How far an update may move a token’s chance from where it was sampled.",
        0.001, 10, advanced=True)
    kl_target: float = _setting(
        0.0, "KL to aim at", "β grows while the KL is above this and shrinks below it; 0 leaves β as it is.",
        0, 100_000, advanced=True, unit="nats a rollout")
    unfinished_reward: float = _setting(
        -1.0, "Reward when cut off", "What a rollout earns that did not end by itself.",
        -100, 100, advanced=True)
    precision: str = _setting(
        "auto", "Precision", "bf16 is faster on cards and new processors; auto takes it if little changes.",
        choices=("auto", "fp32", "bf16"), advanced=True)
    micro_batch: int = _setting(
        64, "Rollouts at once", "Portions in which a step is computed; smaller ones need less memory.",
        1, 4096, advanced=True, unit="rollouts")
    warmup: int = _setting(
        5, "Warm-up", "Steps over which the learning rate rises from zero.",
        0, 10000, advanced=True, unit="steps")
    clip: float = _setting(
        1.0, "Gradient clip", "A longer gradient is shortened to this norm.", 0.001, 1000, advanced=True)
    evaluate_every: int = _setting(
        10, "Measure every", "Steps between two looks at the fixed prompts.",
        1, 100000, advanced=True, unit="steps")
    checkpoint_every: int = _setting(
        10, "Checkpoint every", "Steps between two checkpoints; a crop can only be made at one of them.",
        1, 100000, advanced=True, unit="steps")
    sample_prompts: int = _setting(
        8, "Sampled prompts", "Fixed prompts answered at every measurement, to read along.",
        0, 64, advanced=True)
    crop_kl: float = _setting(
        20.0, "KL of a crop", "A sequence KL above this is a sign of gaming; short answers take less.",
        0.01, 1000, advanced=True, unit="nats")
    crop_distinct: float = _setting(
        0.35, "Variety of a crop", "Distinct word pairs below this share of their start are such a sign.",
        0, 1, advanced=True)
    crop_entropy: float = _setting(
        0.3, "Entropy of a crop", "Entropy below this share of its start is such a sign.",
        0, 1, advanced=True)

    def check(self) -> None:
        if self.checker and self.checker not in CHECKERS:
            raise Refused("checker", _unknown_checker(self.checker))
        if not self.checker and not self.reward:
            raise Refused("reward", "A policy run needs a reward model or a checker to say what is good.")
        if self.reward and self.steps * self.updates_per_batch > STEP_CAP:
            each = f" of {self.updates_per_batch} updates each" if self.updates_per_batch > 1 else ""
            raise Refused("steps", (
                f"A run against a reward model may take at most {STEP_CAP} steps, because a policy that "
                f"trains for longer learns to fool its reward model; {self.steps}{each} were asked for."))
        if self.kl_target and not self.beta:
            raise Refused("beta", "To aim at a KL, β has to begin above 0: it is made larger or smaller.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(_Common):
    """Measure a reward model on rankings that it has not seen."""

    kind: ClassVar[str] = "evaluation"
    reward: str = _input("inputs/reward")
    against: str = _input("")
    dataset: str = _input("dataset.jsonl")
    unseen: bool = _setting(
        True, "Only unseen prompts", "Leave out prompts that a reward model is known to have learnt from.")
    max_tokens: int = _setting(
        1024, "Longest example", "Prompt and rollout together; a longer prompt loses its beginning.",
        8, 131072, advanced=True, unit="tokens")
# fmt: on


Config = RolloutsConfig | SftConfig | RewardConfig | PolicyConfig | EvaluationConfig
KINDS: dict[str, type[Config]] = {
    config.kind: config
    for config in (RolloutsConfig, SftConfig, RewardConfig, PolicyConfig, EvaluationConfig)
}


def settings(kind: str) -> list[Setting]:
    """The settings of a kind of run, the everyday ones first; its input files are not among them."""
    found = [
        Setting(name=each.name, type=type(each.default), default=each.default, **each.metadata)
        for each in dataclasses.fields(_class(kind))
        if "input" not in each.metadata
    ]
    return sorted(found, key=lambda each: each.advanced)


def inputs(kind: str) -> dict[str, str]:
    """The input files of a kind of run and where they lie in its directory."""
    return {
        each.name: str(each.default) for each in dataclasses.fields(_class(kind)) if "input" in each.metadata
    }


def make(kind: str, values: Mapping[str, Any]) -> Config:
    """A config of this kind: the defaults and `values`, text read as its field's type. Raises Refused."""
    known = {each.name: each for each in dataclasses.fields(_class(kind))}
    given = {RENAMED.get(name, name): value for name, value in values.items() if name != "kind"}
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(sorted(each.name for each in settings(kind)))
        raise Refused(unknown[0], f"A {kind} run has no setting “{unknown[0]}”. It has: {names}.")
    if values.get("kind", kind) != kind:
        raise Refused("kind", f"This is a config of a {values['kind']} run, not of a {kind} run.")
    config = KINDS[kind](**{name: _value(known[name], value) for name, value in given.items()})
    config.check()
    return config


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """`["steps=100"]`, as `--set` gives it, as `{"steps": "100"}`."""
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise Refused(name, f"“{name}” is not of the form KEY=VALUE.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def as_dict(config: Config) -> dict[str, Any]:
    """The config as config.json holds it."""
    return {"kind": config.kind, **dataclasses.asdict(config)}


def differences(config: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that are not at their default: `{name: (value, default)}`."""
    pairs = {each.name: (getattr(config, each.name), each.default) for each in settings(config.kind)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def read(run_dir: str | Path) -> Config:
    """The config of a run directory. Raises Refused when there is none, or none that could be run."""
    path = Path(run_dir) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused("config", f"There is no config.json in {run_dir}.") from None
    except (ValueError, OSError) as error:
        raise Refused("config", f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise Refused("kind", f"{path} does not say which kind of run it is.")
    return make(values["kind"], values)


def write(run_dir: str | Path, config: Config) -> None:
    """Write config.json, whole or not at all."""
    path = Path(run_dir) / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(as_dict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def hub_start(text: str) -> tuple[str, str] | None:
    """`("org/name", "revision")` of `hub:org/name@revision`, None for a path. Without a revision: `main`."""
    found = HUB.fullmatch(text)
    return (found["name"], found["revision"] or "main") if found else None


def _class(kind: str) -> type[Config]:
    if kind not in KINDS:
        raise Refused("kind", f"There is no run of kind “{kind}”. There are: {', '.join(KINDS)}.")
    return KINDS[kind]


def _value(known: dataclasses.Field, value: Any) -> Any:
    if "input" in known.metadata:
        return _path(known.name, value)
    former = FORMER if known.name in RENAMED.values() and isinstance(value, str) else {}
    return _read(known, former.get(value, value))


def _path(name: str, value: Any) -> str:
    """An input is named relative to its run directory, so that a copy of the directory runs elsewhere."""
    if not isinstance(value, str):
        raise Refused(name, f"“{name}” must be a path.")
    if name == "policy" and value.startswith("hub:"):
        if not hub_start(value):
            raise Refused(name, f"“{value}” is not of the form hub:organisation/name@revision.")
        return value
    if name != "checker" and (Path(value).is_absolute() or ".." in Path(value).parts):
        raise Refused(name, f"“{name}” must be a path inside the run directory; {value} is not.")
    return value


def _unknown_checker(name: str) -> str:
    known = f"Known are: {', '.join(CHECKERS)}." if CHECKERS else "This version has none."
    return f"There is no checker “{name}”. {known}"
