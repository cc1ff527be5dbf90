"""Filters that draw and say what a dataset's manifest (labeler/datasets/facts.py) has counted."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import template

from labeler.models import Origin

register = template.Library()

WIDE, HIGH = 400, 126  # of the picture, without the words below it
OTHERS = {
    "ties": "with ties", "all_tied": "in which all are equal", "partial": "of fewer than five",
    "surplus": "surplus", "nonsense": "that mark nonsense", "unsafe": "that mark something unsafe",
    "decided": "decided in a review",
}  # fmt: skip


@register.filter
def origin(name: str) -> str:
    """Where a demonstration is from, in words; an origin of somebody else's file as it is called there."""
    return str(Origin(name).label) if name in Origin.values else name


@register.filter
def bars(lengths: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A bar for each range of lengths, from the first to the last that occurs."""
    edges, counts = lengths["edges"], lengths["counts"]
    there = [number for number, many in enumerate(counts) if many]
    if not there:
        return []
    shown, most = range(there[0], there[-1] + 1), max(counts)
    step = WIDE / len(shown)
    return [
        {
            "x": round(place * step, 1),
            "y": round(HIGH - HIGH * counts[number] / most, 1),
            "width": round(step - 2, 1),
            "height": round(HIGH * counts[number] / most, 1),
            "count": counts[number],
            "from": edges[number],
            "words": f"{edges[number]} to {edges[number + 1] - 1}"
            if number + 1 < len(edges)
            else f"{edges[number]} or more",
        }
        for place, number in enumerate(shown)
    ]


@register.filter
def longer(bias: Mapping[str, Any]) -> str:
    return f"{100 * bias['longer_first'] / bias['decided']:.0f} %"


@register.filter
def shares(counts: Sequence[int]) -> list[float]:
    return [each / sum(counts) for each in counts] if sum(counts) else []


@register.filter
def compared(agreement: Mapping[str, Any]) -> str:
    return f"{agreement['agreed'] + agreement['opposed']:,}"


@register.filter
def taught(split: Mapping[str, Any]) -> str:
    return f"{split['prompts'] - split['held_out']:,}"


@register.filter
def others(facts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What else was counted, where there is any of it."""
    found = [(f"Rankings {words}", facts[name]) for name, words in OTHERS.items() if facts[name]]
    if facts.get("harvested"):
        found.append(("Confirmed of a harvest, ranked last", facts["harvested"]))
    purposes = {name: many for name, many in facts["purposes"].items() if name not in ("work", "harvest")}
    found += [(f"Rankings of {name} quintets", many) for name, many in purposes.items()]
    faceoffs = sorted(facts.get("faceoffs", {}).items())  # datasets of before know of none
    return found + [(f"Rankings of face-off {name}", many) for name, many in faceoffs]
