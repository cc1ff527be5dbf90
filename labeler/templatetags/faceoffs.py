"""What face-offs have to say on pages about something else, and how their numbers are put."""

from typing import Any

from django import template

from labeler.agreement.pictures import strip
from labeler.models import Checkpoint, Faceoff, Project, Run
from labeler.preferences import Row
from labeler.templatetags.words import count, figure

register = template.Library()

STATES = {
    "sampling": ("live", "● sampling"),
    "composing": ("live", "● putting quintets together"),
    "stuck": ("bad", "stuck"),
    "asking": ("live", "● people are asked"),
    "stopped": ("done", "stopped"),
    "done": ("done", "✓ all is ranked"),
}


@register.inclusion_tag("faceoffs/_fallen.html")
def fallen(about: Run | Project, everywhere: bool = False) -> dict[str, Any]:
    """The alarms of a run; of a project those of its newest face-off that was ranked, for as long as nothing
    is shipped by it, or `everywhere` all of them."""
    if isinstance(about, Run):
        found = Faceoff.objects.filter(project=about.project_id).fallen()
        found = [(each, words) for each, words in found if each.alarms.get(str(about.pk)) == words]
        return {"fallen": found, "everywhere": False}
    faceoffs = about.faceoffs.all()
    if not everywhere:
        newest = about.faceoffs.exclude(found={}).order_by("-number").values("pk")[:1]
        faceoffs = faceoffs.filter(pk__in=newest, shipped=None)
    return {"fallen": faceoffs.fallen(), "everywhere": everywhere}


@register.inclusion_tag("faceoffs/_liked.html", takes_context=True)
def liked(context: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """What people said of a checkpoint, as the worker last saw it: in the newest face-off ranked, of those
    that the reader may see (a checkpoint can belong to every project)."""
    mine = Project.objects.run_by(context["user"])
    stood = Faceoff.objects.filter(contenders__checkpoint=checkpoint, found__has_key="people")
    stood = stood.filter(project__in=mine)
    for faceoff in stood.select_related("project").order_by("-pk"):
        for row in faceoff.found["people"]["rows"][1:]:
            if row["checkpoint"] == checkpoint.pk:
                return {"faceoff": faceoff, "row": row, "rankings": faceoff.found["people"]["rankings"]}
    return {}


@register.filter
def state_class(state: str) -> str:
    return STATES[state][0]


@register.filter
def state_words(state: str) -> str:
    return STATES[state][1]


@register.inclusion_tag("agreement/_strip.html")
def row_strip(row: Row) -> dict[str, Any]:
    """The interval of a chance, drawn between 0 and 1 with a half marked."""
    ends = None if row.is_start else (row.low, row.high)
    return strip(row.share, ends, 0, 1) | {"tick": strip(0.5, None, 0, 1)["dot"]}


@register.filter
def interval(row: Row) -> str:
    """`55 to 72 %`."""
    return f"{figure(100 * row.low, 'whole')} to {figure(row.high, 'percent')}"


@register.filter
def arithmetic(power: Any) -> str:
    """How many quintets tell 60:40 apart, and how that is reckoned, in a few sentences."""
    worth, direct = figure(power.worth), figure(power.direct).removesuffix(".00")
    return (
        f"To tell 60:40 apart, so that 80 of 100 such face-offs would see it, takes {power.comparisons()} "
        f"separate comparisons of two. A quintet of these {power.checkpoints} has {power.pairs:.0f} pairs of "
        f"different ones, {direct} between any two; ranked together, they count as {worth} separate "
        f"comparisons of each two. {power.comparisons()} ÷ {worth} is "
        f"{count(power.quintets(), 'ranked quintet')}."
    )
