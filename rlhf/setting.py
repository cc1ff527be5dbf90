"""A setting of a run: how a form shows it, what it may be, and how a value that it may not have is refused.

A setting is a field of one of the dataclasses in `rlhf.config`; which there are is told there, but for those
that all kinds of run have in common. Knows neither torch nor the web.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
LONGEST_ROLLOUT = 8192  # tokens, wherever one is sampled
TRUE, FALSE = {"true", "on", "yes", "1"}, {"false", "off", "no", "0", ""}


class Refused(ValueError):
    """A value that no run may have: which field, and why, in words."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field, self.message = field, message


@dataclass(frozen=True)
class Setting:
    """One field of a config as a form or a help text shows it."""

    name: str
    label: str
    help: str
    type: type
    default: Any
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    advanced: bool
    unit: str
    only: tuple[str, ...] = ()


def setting(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
    unit: str = "",
    only: tuple[str, ...] = (),
) -> Any:
    """`only`: by whose word a policy's reward has to be for the setting to mean anything; empty is any."""
    known = {"label": label, "help": help, "minimum": minimum, "maximum": maximum, "only": only}
    return field(default=default, metadata=known | {"choices": choices, "advanced": advanced, "unit": unit})


def input_(default: str) -> Any:
    """A file or folder of the run directory: part of the config, but no setting that a form would show."""
    return field(default=default, metadata={"input": True})


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Common:
    kind: ClassVar[str]

    seed: int = setting(
        0, "Seed", "The same seed, data and settings give the same weights on the same machine.",
        0, 2**31 - 1, advanced=True)
    device: str = setting(
        "auto", "Device", "Where to compute; auto takes a CUDA card, else Apple's, else the processor.",
        choices=("auto", "cuda", "mps", "cpu"), advanced=True)

    def check(self) -> None:
        """Raise Refused for what no single field's bounds can tell."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Common):
    temperature: float = setting(
        1.0, "Temperature", "How freely the policy chooses its words; 1 is as it learnt them, less is tamer.",
        0.05, 2.0)
    max_new_tokens: int = setting(
        256, "Longest rollout", "A rollout that has not ended by then is cut off.",
        1, LONGEST_ROLLOUT, unit="tokens")
# fmt: on


def read(known: dataclasses.Field, value: Any) -> Any:
    """A value of this setting, text read as its type and held against its bounds. Raises Refused."""
    wanted = type(known.default)
    found = _coerced(wanted, value)
    if found is None:
        raise Refused(known.name, f"{known.metadata['label']} must be {WORDS[wanted]}; “{value}” is not.")
    label, choices, low, high = (known.metadata[each] for each in ("label", "choices", "minimum", "maximum"))
    if choices and found not in choices:
        raise Refused(known.name, f"{label} is one of {', '.join(choices)}; “{found}” is not.")
    if low is not None and not low <= found <= high:
        least = f"{low:,}".replace("e-0", "e-")
        raise Refused(known.name, f"{label} must be between {least} and {high:,}; {value} is not.")
    return found


def _coerced(wanted: type, value: Any) -> Any:
    """`value` as `wanted`, or None where it is nothing of that type."""
    if wanted is bool:
        text = str(value).strip().lower()
        return True if text in TRUE else False if text in FALSE else None
    if wanted is str:
        return value.strip() if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (wanted is int and number != int(number)):
        return None
    return wanted(number)
