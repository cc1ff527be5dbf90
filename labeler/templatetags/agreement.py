"""Tags for the pages of agreement: a number with its interval in words, a strip or a picture of it."""

from collections.abc import Mapping
from typing import Any

from django import template

from labeler.agreement import pictures
from labeler.templatetags.words import figure

register = template.Library()

# From where to where a measure can go, and how it is said.
SHARES = {"agreement", "ceiling", "self_agreement", "gold", "longer", "unchanged"}


def _form(name: str) -> str:
    return "percent" if name in SHARES else "share"


@register.simple_tag
def value(told: Mapping[str, Any], name: str) -> str:
    return figure(told[name], _form(name))


@register.simple_tag
def interval(told: Mapping[str, Any], name: str) -> str:
    """`69 to 75 %`; nothing where there are too few quintets for one."""
    ends = told.get(f"{name}_interval")
    if not ends:
        return ""
    if _form(name) == "percent":
        low, high = 100 * ends[0], 100 * ends[1]
        places = 0 if round(low) != round(high) or low == high else 1  # narrow ones are said more exactly
        return f"{low:.{places}f} to {high:.{places}f} %"
    places = 2 if round(ends[0], 2) != round(ends[1], 2) or ends[0] == ends[1] else 3
    return f"{ends[0]:.{places}f} to {ends[1]:.{places}f}".replace("-", "−")


@register.inclusion_tag("agreement/_strip.html")
def strip(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    low = -1 if name in ("tau", "alpha", "kappa") else 0
    return pictures.strip(told[name], told.get(f"{name}_interval"), low, 1)


register.filter("position_bars", pictures.positions)
register.filter("time_bars", pictures.histogram)
