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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlhf.policy_config import CHECKERS as CHECKERS
from rlhf.policy_config import JUDGED as JUDGED
from rlhf.policy_config import RULES as RULES
from rlhf.policy_config import STEP_CAP as STEP_CAP
from rlhf.policy_config import PolicyConfig as PolicyConfig
from rlhf.setting import LONGEST_ROLLOUT as LONGEST_ROLLOUT
from rlhf.setting import Common, Sampling, Setting, input_
from rlhf.setting import Refused as Refused
from rlhf.setting import read as _read
from rlhf.setting import setting as _setting

STAGES = ANSWERS, READING = "answers", "reading"  # of supervised finetuning
AGAINST = "inputs/against"  # where the checkpoint lies that a run is compared with, if with any
HUB = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
RENAMED = {"advantage": "algorithm"}  # settings by the names that older runs know them by
FORMER = {"leave-one-out": "rloo", "normalised": "grpo"}  # and what their choices are called now


# The classes below are tables to be read row by row, so the formatter leaves them alone.
# fmt: off
@dataclass(frozen=True, kw_only=True)
class _Training(Common):
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
    tokens_per_row: int = _setting(
        2048, "Tokens per row", "Short examples are packed into one row up to this many tokens.",
        64, 1_048_576, advanced=True, unit="tokens")
    precision: str = _setting(
        "auto", "Precision", "Auto takes bf16 where a try at the start finds it faster, else fp32.",
        choices=("auto", "fp32", "bf16"), advanced=True)
    gradient_checkpointing: bool = _setting(
        False, "Compute twice", "Keep less in memory and compute it again: slower, for long or large models.",
        advanced=True)
    lora_rank: int = _setting(
        0, "LoRA rank", "Train adapters of this rank, at a rate of 1e-4 or more; 0 trains all weights.",
        0, 1024, advanced=True)
    early_stop: int = _setting(
        0, "Patience", "Stop when so many measurements in a row were no better, and propose the best.",
        0, 10000, advanced=True, unit="measurements")
    evaluate_every: int = _setting(
        10, "Measure every", "Steps between two measurements on what was held out.",
        1, 100000, advanced=True, unit="steps")
    checkpoint_every: int = _setting(
        50, "Checkpoint every", "Steps between two checkpoints; a crash costs at most these.",
        1, 100000, advanced=True, unit="steps")


@dataclass(frozen=True, kw_only=True)
class RolloutsConfig(Sampling):
    """Sample rollouts for every prompt, to be ranked."""

    kind: ClassVar[str] = "rollouts"
    policy: str = input_("inputs/policy")
    prompts: str = input_("prompts.jsonl")
    count: int = _setting(
        5, "Rollouts per prompt", "Five make a quintet.", 1, 64)
    batch: int = _setting(
        16, "Prompts at once", "More is faster and needs more memory.",
        1, 1024, advanced=True, unit="prompts")


@dataclass(frozen=True, kw_only=True)
class SftConfig(_Training):
    """Supervised finetuning: learn to write what people wrote, or before that, to read plain documents."""

    kind: ClassVar[str] = "sft"
    policy: str = input_("inputs/policy")
    dataset: str = input_("dataset.jsonl")
    stage: str = _setting(
        "answers", "Stage", "Answers learns what the assistant says; reading, every word of plain documents.",
        choices=STAGES)
    micro_batch: int = _setting(
        64, "Examples at once", "The most that a row is packed with; fewer need less memory.",
        1, 1024, advanced=True, unit="examples")
    sample_prompts: int = _setting(
        5, "Sampled prompts", "Held-out prompts answered at every measurement, to read along.",
        0, 64, advanced=True)
    temperature: float = _setting(
        1.0, "Temperature", "How freely those answers are chosen.", 0.05, 2.0, advanced=True)
    max_new_tokens: int = _setting(
        256, "Longest sample", "Such an answer is cut off if it has not ended by then.",
        1, LONGEST_ROLLOUT, advanced=True, unit="tokens")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(_Training):
    """Learn to score rollouts as the people who ranked them would."""

    kind: ClassVar[str] = "reward"
    policy: str = input_("inputs/policy")
    dataset: str = input_("dataset.jsonl")
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
    sample_quintets: int = _setting(
        256, "Followed rankings", "Held-out rankings whose scores are kept at every measurement.",
        0, 256, advanced=True, unit="rankings")
    learning_curve: bool = _setting(
        False, "Learning curve", "Train again on parts of the rankings, to see whether more would help.",
        advanced=True)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Common):
    """Measure a reward model on rankings that it has not seen."""

    kind: ClassVar[str] = "evaluation"
    reward: str = input_("inputs/reward")
    against: str = input_("")
    dataset: str = input_("dataset.jsonl")
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


def settings(kind: str, judged: str = "") -> list[Setting]:
    """The settings of a kind of run, the everyday ones first; its input files are not among them. With
    `judged`, by whose word a policy's reward is: those that mean anything there, at their defaults there.
    """
    usual = JUDGED.get(judged, {})
    found = [
        Setting(
            name=each.name,
            type=type(each.default),
            default=usual.get(each.name, each.default),
            **each.metadata,
        )
        for each in dataclasses.fields(_class(kind))
        if "input" not in each.metadata and _means_anything(each.metadata["only"], judged)
    ]
    return sorted(found, key=lambda each: each.advanced)


def judged(config: Config) -> str:
    """By whose word the reward of this run is; empty for runs that have none."""
    return config.judged if isinstance(config, PolicyConfig) else ""


def inputs(kind: str) -> dict[str, str]:
    """The input files of a kind of run and where they lie in its directory."""
    return {
        each.name: str(each.default) for each in dataclasses.fields(_class(kind)) if "input" in each.metadata
    }


def make(kind: str, values: Mapping[str, Any]) -> Config:
    """A config of this kind: `values`, text read as its field's type, and else the defaults, of which a
    policy that a checker judges has its own. Raises Refused."""
    known = {each.name: each for each in dataclasses.fields(_class(kind))}
    given = {RENAMED.get(name, name): value for name, value in values.items() if name != "kind"}
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(sorted(each.name for each in settings(kind)))
        raise Refused(unknown[0], f"A {kind} run has no setting “{unknown[0]}”. It has: {names}.")
    if values.get("kind", kind) != kind:
        raise Refused("kind", f"This is a config of a {values['kind']} run, not of a {kind} run.")
    read = {name: _value(known[name], value) for name, value in given.items()}
    made = KINDS[kind](**read)
    if usual := JUDGED.get(judged(made)):
        made = KINDS[kind](**usual | read)
    made.check()
    return made


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
    known = settings(config.kind, judged(config))
    pairs = {each.name: (getattr(config, each.name), each.default) for each in known}
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


def _means_anything(only: tuple[str, ...], judged: str) -> bool:
    return not only or not judged or judged in only


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
