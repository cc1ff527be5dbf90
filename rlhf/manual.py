"""The settings of every kind of run as a page of Markdown, of the same sentences as forms and --help.

`python -m rlhf settings --markdown > docs/settings.md` writes that page anew; a test holds it up to date."""

from collections.abc import Sequence

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
    rows = [_row(each) for each in config.settings(kind)]
    table = ["| setting | default | may be | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {TITLES[kind]}: `{kind}`", "", what, "", *table])


def _row(setting: Setting) -> str:
    further = " *further*" if setting.advanced else ""
    cells = [f"`{setting.name}`{further}", f"`{_plain(setting.default)}`", _range(setting)]
    return f"| {' | '.join(cells)} | **{setting.label}.** {setting.help} |".replace("\n", " ")


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
