"""How the rollouts of a step are told: tokens, parts of a reward, numbers with a sign."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from django import template

from labeler.models import Quintet
from labeler.steps import Token, Written

register = template.Library()

PARTS = {
    "model": "of it, the model",
    "rule": "of it, the rule",
    "unfinished": "of it, cut off",
    "kl": "of it, KL × β",
}
END = "‹end›"


@register.filter
def nats(value: float) -> str:
    """Two places, a true minus, and nothing that is called −0.00."""
    return f"{round(value, 2) + 0.0:,.2f}".replace("-", "−")


@register.filter
def piece(token: Token) -> str:
    """A token’s text; where it has none, the sign of an end."""
    return token.text or END


@register.filter
def part_name(name: str) -> str:
    return PARTS.get(name, name)


@register.filter
def running(one: Written) -> Iterator[tuple[Token, float]]:
    """Each token with the KL that was paid up to it."""
    return zip(one.tokens, accumulate(each.kl for each in one.tokens), strict=True)


@register.filter
def quintets(group: Iterable[Written]) -> list[Quintet]:
    """Those that some of these were sent in, each once."""
    return list({one.sent.pk: one.sent for one in group if one.sent}.values())
