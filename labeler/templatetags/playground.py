"""How the playground says how sure a model was of a token."""

from django import template

from labeler.playground import Token

register = template.Library()


@register.filter
def sure(token: Token) -> str:
    """`probability 52 %, entropy 1.32 nats; instead “·a” 20 %, “·his” 8.1 %`"""
    if token.chance is None:
        return "beyond what is told token by token"
    words = f"probability {percent(token.chance)}"
    if token.entropy is not None:
        words += f", entropy {token.entropy:.2f} nats"
    others = ", ".join(f"“{each.drawn.strip()}” {percent(each.chance)}" for each in token.others)
    return f"{words}; instead {others}" if others else words


@register.filter
def percent(chance: float) -> str:
    """With two digits that mean something; what is next to nothing is said to be less than a thousandth."""
    share = 100 * chance
    if share < 0.1:
        return "< 0.1 %"
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %"


@register.filter
def seconds(value: float) -> str:
    """`0.04 s`, `3.2 s`, `41 s`"""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
