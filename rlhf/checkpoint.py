"""Checkpoints on disk: opened, checked, given a padding token, and saved whole or not at all.

A checkpoint is a Hugging Face directory that plain transformers opens, with `quintet.json` (where it comes
from), a model card and, in the newest of a run, `trainer/` with what resuming needs. Weights are safetensors:
nothing here unpickles, and nothing runs code that came with a model. What a rollout is worth is the matter of
`rlhf.reward_model`; which checkpoints a run keeps, that of `rlhf.run`.
"""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf import adapters, card, ensemble, products
from rlhf.config import Refused
from rlhf.data import Prompt, prompt_text

LOADING_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError
)  # fmt: skip
PADDING = ("<pad>", "<|pad|>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>")
LINEAGE = "quintet.json"
TRAINER = "trainer"
KINDS = {
    transformers.AutoModelForCausalLM: "policy",
    transformers.AutoModelForSequenceClassification: "reward model",
}

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class Unloadable(Exception):
    """A checkpoint that cannot be used: the reason, what to do about it, and which input of a run it is."""

    def __init__(self, path: str | Path, reason: str, remedy: str):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
        self.field = "reward" if Path(path).name == "reward" else "policy"


@dataclass(frozen=True)
class TrainerState:
    """What resuming needs besides the weights: tensors (optimizer, random generators) and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


# Devices


def choose_device(wanted: str = "auto") -> torch.device:
    """The device a run computes on: a CUDA card, else Apple's, else the processor."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, found in there.items() if found))
    if not there[wanted]:
        raise Refused("device", f"This machine has no {wanted} device; choose auto.")
    return torch.device(wanted)


def describe(device: torch.device) -> str:
    """The device in words, as pages show it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' if threads > 1 else ''})"


# Opening


def load_policy(path: str | Path, device: torch.device | None = None) -> tuple[Any, Any]:
    """The model and tokenizer of a policy, in fp32 and with dropout off. Raises Unloadable."""
    model, tokenizer, missing = _load(Path(path), transformers.AutoModelForCausalLM)
    if missing:
        raise _lacking(path, missing)
    return products.speed_up(model.to(device or "cpu").eval()), tokenizer


def load_reward_model(path: str | Path, device: torch.device | None = None) -> tuple[Any, Any]:
    """The model and tokenizer of a trained reward model. Raises Unloadable."""
    model, tokenizer, missing = _load(Path(path), transformers.AutoModelForSequenceClassification)
    if missing or model.config.num_labels != 1:
        raise Unloadable(
            path,
            f"{_called(path)} is no reward model: it has no head that gives one score.",
            "Choose a checkpoint that a reward run wrote.",
        )
    return products.speed_up(model.to(device or "cpu").eval()), tokenizer


def start_reward_model(path: str | Path, seed: int, device: torch.device | None = None) -> tuple[Any, Any]:
    """A reward model to be trained: as it is, or a language model with a new head drawn from `seed`."""
    model, tokenizer, missing = _load(
        Path(path), transformers.AutoModelForSequenceClassification, num_labels=1
    )
    if set(missing) - {"score.weight"}:
        raise _lacking(path, missing)
    if missing:
        # A head of this spread gives rewards of about unit size, so that no ranking starts out sure.
        width = model.score.weight.shape[1]
        drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) / (width + 1) ** 0.5
        model.score.weight.data.copy_(drawn)
    return products.speed_up(model.to(device or "cpu").eval()), tokenizer


def backbone(model: Any) -> Any:
    """The model without its head: tokens in, hidden states out."""
    return getattr(model, model.base_model_prefix)


def longest(model: Any) -> int | None:
    """How many tokens the model has positions for, None where it sets no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a rollout: chat models often have several."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = listed if isinstance(listed, (list, tuple)) else [listed]
    return frozenset(each for each in (tokenizer.eos_token_id, *several) if each is not None)


def lineage(path: str | Path) -> dict[str, Any]:
    """Where a checkpoint comes from, as its quintet.json tells; empty for one that was not made here."""
    try:
        found = json.loads((Path(path) / LINEAGE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unloadable(
            path, f"{_called(path)}/{LINEAGE} cannot be read: {error}.", "Mend that file."
        ) from None
    return found if isinstance(found, dict) else {}


def is_policy(path: str | Path) -> bool:
    """Whether a checkpoint writes rollouts, by what its config says it is."""
    named = _json(Path(path) / "config.json").get("architectures") or []
    return not any("SequenceClassification" in str(name) for name in named)


def fingerprint(path: str | Path) -> str:
    """A sha256 over the weights of a checkpoint: two starts are the same when these are."""
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        digest.update(file.name.encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _load(path: Path, auto: Any, **options: Any) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and the names of the weights that the files did not have."""
    _inspect(path)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safe)
        model, report = _open(path, auto, safe | options)
    except LOADING_ERRORS as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if reason.startswith("Unrecognized configuration class"):
            kind = _json(path / "config.json")["model_type"]
            raise Unloadable(
                path,
                f"{_called(path)} is of the architecture {kind}, of which transformers has no {KINDS[auto]}.",
                "Choose a model of another one, such as Llama, Qwen or Gemma.",
            ) from error
        raise Unloadable(
            path,
            f"{_called(path)} cannot be opened as a {KINDS[auto]}: {reason}",
            "Choose a folder that plain transformers opens, with safetensors weights.",
        ) from error
    if tokenizer.eos_token_id is None:
        raise Unloadable(
            path,
            f"The tokenizer of {_called(path)} has no end-of-text token, so no rollout could end.",
            "Set eos_token in its tokenizer_config.json.",
        )
    if report["mismatched_keys"]:
        raise _lacking(path, [str(each[0]) for each in report["mismatched_keys"]])
    if lost := [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]:
        raise Unloadable(
            path,
            f"The weights of {_called(path)} are not all numbers: {', '.join(lost[:3])}.",
            "Take an earlier checkpoint, or download it again.",
        )
    give_padding(model, tokenizer)
    return model, tokenizer, sorted(report["missing_keys"])


def _open(path: Path, auto: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Open with PyTorch's fused attention where the model has it; which one is never left to the files."""
    known = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    for attention in ("sdpa", "eager"):
        try:
            return auto.from_pretrained(path, attn_implementation=attention, **known, **options)
        except ValueError as error:
            if attention == "eager" or "scaled_dot_product_attention" not in str(error):
                raise
    raise AssertionError("unreachable: the loop returns or raises")


def _inspect(path: Path) -> None:
    """Refuse by its files what must not be opened at all."""
    if not (path / "config.json").is_file():
        raise Unloadable(
            path,
            f"{_called(path)} is not a checkpoint: it has no config.json.",
            "Choose a Hugging Face folder.",
        )
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).is_file() and "auto_map" in _json(path / name):
            raise Unloadable(
                path,
                f"{_called(path)} brings code of its own (auto_map in {name}), which Quintet never runs.",
                "Choose a model whose architecture is part of transformers.",
            )
    if any(path.glob("*.safetensors")):
        return
    if any(each for pattern in ("*.bin", "*.pt", "*.pth") for each in path.glob(pattern)):
        raise Unloadable(
            path,
            f"{_called(path)} holds pickled weights, which can run any code when they are opened.",
            "Convert it to safetensors with a tool you trust.",
        )
    raise Unloadable(path, f"{_called(path)} holds no weights.", "Choose a folder with safetensors weights.")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unloadable(
            path.parent, f"{_called(path)} cannot be read: {error}.", "Mend that file."
        ) from None
    if not isinstance(found, dict):
        raise Unloadable(path.parent, f"{_called(path)} holds no JSON object.", "Mend that file.")
    return found


def _lacking(path: str | Path, missing: Sequence[str]) -> Unloadable:
    shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return Unloadable(
        path,
        f"The weights of {_called(path)} do not fit its config: {shown} missing or of another shape.",
        "Choose a complete checkpoint of a causal language model.",
    )


def _called(path: str | Path) -> str:
    """A checkpoint's name without the folders of the machine it lies on."""
    return "/".join(Path(path).parts[-2:])


# Tokens


def give_padding(model: Any, tokenizer: Any) -> None:
    """Make padding a token of its own: transformers pools at the last token that is not padding.

    With pad = eos that would be the last word instead of the end of the rollout.
    """
    ends = end_ids(model, tokenizer)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        vocabulary = tokenizer.get_vocab()
        known = (name for name in PADDING if name in vocabulary and vocabulary[name] not in ends)
        tokenizer.add_special_tokens({"pad_token": next(known, PADDING[1])})
    table = model.get_input_embeddings().weight
    if tokenizer.pad_token_id >= table.shape[0]:
        rows = table.shape[0]
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            for table in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
                if table is not None:
                    table.data[rows:] = table.data[:rows].mean(0)
    for config in (model.config, model.config.get_text_config(), getattr(model, "generation_config", None)):
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id


def encode_prompt(tokenizer: Any, prompt: Prompt, thinks: bool = True) -> list[int]:
    """The tokens before a rollout: through the model's chat template where it has one. With `thinks` off, one
    that thinks before it answers is told not to. The name of a special token in what somebody says stays mere
    text: it ends no turn, and begins none."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        told = {"add_generation_prompt": True}
        told |= {} if thinks else {"enable_thinking": False}  # other templates let that pass
        text = tokenizer.apply_chat_template(messages, tokenize=False, **told)
        thought = ""
        if not thinks and text.rstrip().endswith("<think>"):  # as every answer of it begins
            text, thought = text.rstrip(), "\n\n</think>\n\n"
        if any(_special(tokenizer).search(each["content"]) for each in messages):
            told |= {"return_dict": False, "sanitize_control_tokens": True}
            ids = tokenizer.apply_chat_template(messages, **told)
            return [*ids, *tokenizer(thought, add_special_tokens=False)["input_ids"]] if thought else ids
        return tokenizer(text + thought, add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompt_text(prompt), split_special_tokens=True)["input_ids"]
    # Some tokenizers close every text; a prompt is to be continued.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


@lru_cache(maxsize=4)
def _special(tokenizer: Any) -> re.Pattern[str]:
    """The names of its special tokens, of which some tokenizers have thousands."""
    added = {each.content for each in tokenizer.added_tokens_decoder.values() if each.special}
    names = sorted(added.union(tokenizer.all_special_tokens))
    return re.compile("|".join(map(re.escape, names)) or "(?!)")


def encode_rollout(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a finished rollout, its end included; the name of a special token stays mere text."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def encode_document(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a plain text, with whatever the tokenizer puts around one, and its end."""
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def decode_rollout(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a rollout as people read it."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def pieces(tokenizer: Any, ids: Iterable[int]) -> dict[int, str]:
    """The text of each of these tokens as it stands within a rollout; nothing for the end of one."""
    known = sorted(set(ids))
    texts = tokenizer.batch_decode(
        [[each] for each in known], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    # Alone, a token that begins a word is decoded as the beginning of a text: its space is lost.
    begins = [str(each).startswith("\u2581") for each in tokenizer.convert_ids_to_tokens(known)]
    spaced = [
        " " + text if begun and not text.startswith(" ") else text
        for text, begun in zip(texts, begins, strict=True)
    ]
    return dict(zip(known, spaced, strict=True))


# Saving


def save(
    path: str | Path,
    model: Any,
    tokenizer: Any,
    lineage: dict[str, Any],
    metrics: dict[str, Any],
    trainer: TrainerState | None = None,
) -> None:
    """Write a checkpoint whole or not at all: into a folder beside it, to the disk, then renamed.

    `metrics` are the measured numbers that its model card shows.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part, state_dict=ensemble.with_mean_head(model, adapters.merged(model)))
    ensemble.save(model, part)
    tokenizer.save_pretrained(part)
    write_json(part / LINEAGE, lineage | {"versions": versions()})
    (part / "README.md").write_text(card.write(lineage, metrics), encoding="utf-8")
    if trainer is not None:
        (part / TRAINER).mkdir()
        save_file(trainer.tensors | adapters.state(model), part / TRAINER / "state.safetensors")
        write_json(part / TRAINER / "state.json", trainer.values)
    for each in [*part.rglob("*"), part]:
        sync(each)
    if path.exists():
        shutil.rmtree(path)
    os.rename(part, path)
    sync(path.parent)


def read_trainer(path: str | Path) -> TrainerState:
    """What `save` was given as `trainer`."""
    folder = Path(path) / TRAINER
    values = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return TrainerState(load_file(folder / "state.safetensors"), values)


def versions() -> dict[str, str]:
    """What computed: the same versions give the same weights."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def sync(path: Path) -> None:
    """Return when a file or folder is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file that people may want to read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
