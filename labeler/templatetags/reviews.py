"""What the review page reads out of rank vectors. They are in slot order; the page's rollouts need not be."""

from collections.abc import Sequence

from django import template

register = template.Library()


@register.filter
def at(ranks: Sequence[int], slot: int) -> int:
    return ranks[slot]
