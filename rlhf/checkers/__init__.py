"""Checkers: whether an answer is correct. `make(name, options)(prompt_text, answer, reference)` tells.

    number     the number that an answer comes to         rlhf/checkers/number.py, numeral.py
    exact      the same text, after tidying up            exact.py
    choice     one letter of several                      choice.py
    regex      a pattern, within a time                   regex.py
    symbolic   the same in mathematics                    symbolic.py; algebra.py in a child process
    judge      what a language model says of it           judge.py: a model and no rule, so a run is capped

Importing this loads neither torch nor sympy: pages may ask it. docs/checkers.md tells what each one reads.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf import setting
from rlhf.checkers.checker import CUT_OFF as CUT_OFF
from rlhf.checkers.checker import CannotCheck as CannotCheck
from rlhf.checkers.checker import Checked as Checked
from rlhf.checkers.checker import Checker as Checker
from rlhf.checkers.checker import Item as Item
from rlhf.checkers.checker import answer_of as answer_of
from rlhf.checkers.checker import line_of as line_of
from rlhf.checkers.checker import thinking_of as thinking_of
from rlhf.checkers.choice import Choice
from rlhf.checkers.exact import Exact
from rlhf.checkers.judge import Judge as Judge
from rlhf.checkers.number import Number
from rlhf.checkers.regex import Regex
from rlhf.checkers.symbolic import Symbolic
from rlhf.setting import Refused, Setting

KINDS: dict[str, type[Checker]] = {
    each.name: each for each in (Number, Exact, Choice, Regex, Symbolic, Judge)
}
FILE = "checker.json"  # in a run directory: the name, and the options that are not at their default
JUDGE = "inputs/judge"  # and where the checkpoint of a judge lies there


def options(name: str) -> list[Setting]:
    """The options of a checker, the everyday ones first. Raises Refused where there is no such checker."""
    found = [
        Setting(name=each.name, type=type(each.default), default=each.default, **each.metadata)
        for each in _options(_kind(name)).values()
    ]
    return sorted(found, key=lambda each: each.advanced)


def make(name: str, options: Mapping[str, Any], checkpoint: str | Path = "", device: str = "auto") -> Checker:
    """A checker with these options, text read as their type; a judge has a checkpoint, opened when it is
    first asked. Raises Refused, in words."""
    kind = _kind(name)
    known = _options(kind)
    for unknown in options:
        if unknown not in known:
            has = f"It has: {', '.join(known)}." if known else "It has none."
            raise Refused(unknown, f"The {name} checker has no option “{unknown}”. {has}")
    given = {each: setting.read(known[each], value) for each, value in options.items()}
    if not kind.by_rule:
        given |= {"checkpoint": str(checkpoint), "device": device}
    made = kind(**given)
    made.check()
    return made


def as_dict(checker: Checker) -> dict[str, Any]:
    """The name and all options, as a row or a file may hold them; `make` reads them again."""
    return {"name": checker.name} | {each: getattr(checker, each) for each in _options(type(checker))}


def read(run_dir: str | Path, name: str, device: str = "auto") -> Checker:
    """The checker of a run directory, with the options of its checker.json, if it has one. Raises Refused."""
    path = Path(run_dir) / FILE
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        given = {}
    except (ValueError, OSError) as error:
        raise Refused("checker", f"{path} cannot be read: {error}.") from None
    if not isinstance(given, dict) or given.get("name", name) != name:
        raise Refused("checker", f"{path} does not hold the options of the {name} checker.")
    own = {key: value for key, value in given.items() if key != "name"}
    return make(name, own, Path(run_dir) / JUDGE, device)


def _options(kind: type[Checker]) -> dict[str, dataclasses.Field]:
    return {each.name: each for each in dataclasses.fields(kind) if "input" not in each.metadata}


def _kind(name: str) -> type[Checker]:
    if name not in KINDS:
        raise Refused("checker", f"There is no checker “{name}”. There are: {', '.join(KINDS)}.")
    return KINDS[name]
