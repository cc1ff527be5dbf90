"""A field of a form for a setting, as rlhf says it: its help, its bounds, its default. The form of a run has
them, and the form of a checker. Left out: whether a value is any good, which rlhf says too."""

from django import forms

from labeler.templatetags.words import plain
from rlhf import config

A_LINE = 100  # characters of a value
LONGEST = 10_000  # of one that takes several lines


def field_of(setting: config.Setting, own: bool = False) -> forms.Field:
    """Text for every type, because a field of numbers forgets what was typed wrongly; or a list. `own`: the
    default is the project's."""
    named = {"label": setting.label, "help_text": setting.help, "required": False}
    found: forms.Field
    if setting.choices:
        found = forms.ChoiceField(choices=[(each, each) for each in setting.choices], **named)
    elif setting.type is bool:
        return forms.BooleanField(**named)
    else:
        mode = {int: "numeric", float: "decimal"}.get(setting.type, "text")
        attributes = {"inputmode": mode, "autocomplete": "off", "spellcheck": "false"}
        if setting.type is str and (len(setting.default) > A_LINE or "\n" in setting.default):
            written = forms.Textarea({"rows": 10, "spellcheck": "false"})
            found = forms.CharField(max_length=LONGEST, strip=False, widget=written, **named)
        else:
            found = forms.CharField(max_length=A_LINE, widget=forms.TextInput(attributes), **named)
    found.bounds = _bounds(setting, own)
    return found


def _bounds(setting: config.Setting, own: bool) -> str:
    """`1 to 500 steps · project's default 90`, the cap told where there is one."""
    said = []
    if setting.minimum is not None:
        said.append(f"{_number(setting.minimum)} to {_number(setting.maximum)}")
    whose = "project's default" if own else "default"
    if setting.default != "" and len(str(setting.default)) <= A_LINE:
        said.append(f"{whose} {plain(setting.default)}")
    return f" {setting.unit} · ".join(said) if setting.unit and len(said) > 1 else " · ".join(said)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else plain(value)
