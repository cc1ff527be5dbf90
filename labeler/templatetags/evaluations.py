"""What an evaluation's numbers mean, in words, and its shares as rows of a table (docs/evaluation.md)."""

import re
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from django import template

from labeler import evaluation_pictures
from labeler.agreement import pictures
from labeler.models import Run
from labeler.templatetags.words import count, figure

register = template.Library()

Share = Mapping[str, Any]


@register.filter
def between(share: Share) -> str:
    """`66 to 76 %`; nothing where there is no interval."""
    if share.get("low") is None:
        return ""
    low, high = 100 * share["low"], 100 * share["high"]
    places = 0 if round(low) != round(high) or low == high else 1  # narrow ones are said more exactly
    return f"{low:.{places}f} to {high:.{places}f} %"


@register.filter
def apart(told: Share) -> str:
    """An interval of differences or correlations: `−0.12 to 0.31`."""
    if told.get("low") is None:
        return ""
    return f"{told['low']:.2f} to {told['high']:.2f}".replace("-", "−")


@register.inclusion_tag("evaluations/_share.html")
def share_row(label: str, share: Share, about: str = "") -> dict[str, Any]:
    """A row: what, how often right, in what interval, drawn, of how many pairs. The tick is a coin."""
    ends = None if share["low"] is None else (share["low"], share["high"])
    line = pictures.strip(share["value"], ends, 0, 1) | {"tick": pictures.STRIP / 2}
    return {"label": label, "share": share, "about": about, "line": line}


@register.filter
def chance_of(nll: float) -> str:
    """The chance that somebody as surprised as this gives what people chose."""
    return figure(exp(-nll), "percent")


@register.filter
def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


@register.filter
def spaced(claim: str) -> str:
    """A sentence of rlhf's as these pages write numbers: `64 %`."""
    return re.sub(r"(?<=\d) ?%", "\N{NO-BREAK SPACE}%", claim)


@register.filter
def points(share: float) -> str:
    """A difference between shares: `4.8 points`."""
    return f"{100 * abs(share):.1f} points"


@register.filter
def longer(part: Mapping[str, Any]) -> str:
    """A range of differences in length: `better one shorter by 12 to 40`."""
    low, high = part["difference"]
    if low == high:
        return f"{abs(low):,} {'longer' if low > 0 else 'shorter'}" if low else "equally long"
    if high <= 0:
        return f"{-high:,} to {-low:,} shorter"
    if low >= 0:
        return f"{low:,} to {high:,} longer"
    return f"{-low:,} shorter to {high:,} longer"


@register.filter
def with_length(told: Mapping[str, Any]) -> str:
    """What the correlation of reward and length says."""
    value = told["value"]
    if value is None:
        return "Nothing can be said of length: no quintet has rollouts that differ in it."
    if abs(value) < 0.1:
        return "Within a prompt its reward has next to nothing to do with length."
    how = "a little" if abs(value) < 0.3 else "clearly" if abs(value) < 0.6 else "strongly"
    which = "longer" if value > 0 else "shorter"
    people = (told.get("people") or {}).get("value")
    said = f"Within a prompt it leans {how} towards the {which} rollouts"
    if people is None:
        return f"{said}."
    if abs(people) < 0.1:
        return f"{said}; the people who ranked lean neither way."
    return f"{said}; the people who ranked lean towards the {'longer' if people > 0 else 'shorter'} ones."


@register.filter
def simulated_share(found: Mapping[str, Any]) -> str:
    """Who ranked what it was measured on, people and programs apart."""
    many, simulated = found["rankings"], found["simulated"]
    if not many:
        return ""
    every = f"{count(many, 'ranking')} that it was measured on"
    if not simulated:
        return f"All {every} are by people."
    if simulated == many:
        return f"All {every} are simulated: a program made them."
    return f"Of the {every} {simulated:,} are simulated ({figure(simulated / many, 'percent')})."


@register.filter
def seen(found: Mapping[str, Any]) -> str:
    """Whether it had seen what it was measured on, as far as that is known."""
    if found.get("trained_on"):
        return " that it was trained on,"
    kept_apart = "dataset" in found or all(found.get("unseen", {}).get("known", [False]))
    return " that it never saw," if kept_apart else ""


@register.filter
def first_said(found: Mapping[str, Any]) -> Sequence[str]:
    """The claims that fit on another page: of a comparison its own."""
    told = found.get("against") or found
    further = [told["more_labels"]] if "more_labels" in told else told["claims"][1:2]
    return [*told["claims"][:1], *further]


@register.filter
def rows(quintet: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rollouts of a quintet on which two models differ, the people's best first."""
    told = zip(quintet["ranks"], quintet["rollouts"], *quintet["scores"], strict=True)
    return [
        {"rank": rank, "rollout": rollout, "first": first, "second": second}
        for rank, rollout, first, second in sorted(told, key=lambda row: row[0])
    ]


@register.filter
def why_not(run: Run) -> str:
    """Why a run has no evaluation, where it has none."""
    if run.state == Run.State.FAILED:
        return "The run failed before anything was measured; its own page says why."
    if run.state == Run.State.CANCELLED:
        return "The run was stopped before anything was measured."
    return "It finished without leaving an evaluation: runs of older versions did not."


register.filter("reliability_picture", evaluation_pictures.reliability)
register.filter("curve_picture", evaluation_pictures.curve)
