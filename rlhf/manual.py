"""The settings of every kind of run as a page of Markdown, of the same sentences as forms and --help.

`python -m rlhf settings --markdown > docs/settings.md` writes that page anew; a test holds it up to date."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf import config
from rlhf.config import Setting

TITLES = {
    "rollouts": "Rollouts",
    "sft": "Supervised finetuning",
    "reward": "Reward model",
    "policy": "Policy (RLHF)",
    "evaluation": "Evaluation",
}
HEAD = """# Settings

What a run may be told. The launch form shows these settings with the same words; on the command line each is
`--set NAME=VALUE`, of `bin/manage launch KIND --project SLUG` and of `python -m rlhf new KIND RUN_DIR` alike.
A project may have defaults of its own, which the form names. What is marked *further* the form folds away.

This page is written by `python -m rlhf settings --markdown`."""


def markdown(kinds: Sequence[str]) -> str:
    """The page, with a table for each kind of run."""
    return "\n\n".join([HEAD, *map(_chapter, kinds)])


def _chapter(kind: str) -> str:
    what = (config.KINDS[kind].__doc__ or "").strip()
    usual = config.JUDGED if kind == "policy" else {}
    rows = [_row(each, usual) for each in config.settings(kind)]
    table = ["| setting | default | may be | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {TITLES[kind]}: `{kind}`", "", what, "", *table])


def _row(setting: Setting, usual: Mapping[str, Mapping[str, Any]]) -> str:
    further = " *further*" if setting.advanced else ""
    cells = [f"`{setting.name}`{further}", _default(setting, usual), _range(setting)]
    return f"| {' | '.join(cells)} | **{setting.label}.** {setting.help} |".replace("\n", " ")


def _default(setting: Setting, usual: Mapping[str, Mapping[str, Any]]) -> str:
    """With what it is instead where rules judge, or a checker and a model together."""
    said, by_rule = f"`{_plain(setting.default)}`", usual.get("rules", {})
    if setting.name not in by_rule:
        return said
    whose = "with a checker" if setting.name in usual["mixed"] else "by rule"
    return f"{said}, {whose} `{_plain(by_rule[setting.name])}`"


def _range(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{each}`" for each in setting.choices)
    if setting.type is bool:
        return "`true`, `false`"
    if setting.minimum is None:
        return "text"
    unit = f" {setting.unit}" if setting.unit else ""
    return f"{_plain(setting.minimum)} to {_plain(setting.maximum)}{unit}"


def _plain(value: object) -> str:
    """`1e-06` as `1e-6`, `10000` as `10,000`, true as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("e-0", "e-")
