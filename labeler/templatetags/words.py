"""Filters that say a number as a reader would: how long, how long ago, how much. They know no table."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def duration(value: float | timedelta | None) -> str:
    """`107` as `1 min 47 s`. Two units at the most: nobody reads the seconds of an hour."""
    if value is None:
        return "–"
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {seconds % 60} s" if seconds % 60 else f"{minutes} min"
    return f"{seconds} s"


@register.filter
def about(value: float | None) -> str:
    """An estimate, said no more exactly than it is known."""
    if value is None:
        return "–"
    if value < 8:
        return "a few seconds"
    if value < 50:
        return f"about {round(value / 5) * 5} s"
    if value < 3570:
        return f"about {round(value / 60)} min"
    return f"about {duration(round(value / 300) * 300)}"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """A relative date with the exact one on hover."""
    if moment is None:
        return "–"
    local = timezone.localtime(moment)
    exact = f"{local.day} {local:%B %Y, %H:%M:%S %Z}"
    return format_html('<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, _relative(local))


def _relative(local: datetime) -> str:
    seconds = (timezone.now() - local).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 22 * 3600:
        return f"{round(seconds / 3600)} h ago"
    if seconds < 6.5 * 86400:
        days = max(1, round(seconds / 86400))
        return "a day ago" if days == 1 else f"{days} days ago"
    return f"{local.day} {local:%B %Y}"


@register.filter
def figure(value: Any, form: str = "number") -> str:
    """A measured number in the form of its series (labeler/charts.py); a dash where there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–"
    if form == "share":
        return f"{value:.2f}".replace("-", "−")
    if form == "percent":
        return f"{100 * value:.0f} %"
    if form == "loss":
        return f"{value:.3f}"
    if form == "rate":
        return f"{value:.1e}"
    if form == "whole":
        return f"{value:,.0f}"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{round(value, places) + 0.0:,.{places}f}"  # + 0.0, for nothing is -0.00


@register.filter
def count(number: int, words: str) -> str:
    """`{{ 1|count:"ranking" }}` is `1 ranking`, 2 are `2 rankings`; `"child,children"` for unruly ones."""
    one, _, many = words.partition(",")
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@register.filter
def plain(value: Any) -> str:
    """A setting as a person would type it: no trailing zeros, and a small one as `9e-6`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        digits, _, power = f"{value:.9e}".partition("e")
        return f"{_bare(digits)}e{int(power)}"
    return _bare(f"{value:.10f}")


def _bare(digits: str) -> str:
    return digits.rstrip("0").rstrip(".")
