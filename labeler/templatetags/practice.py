"""What an update did to a rollout, in words."""

from collections.abc import Sequence
from math import exp

from django import template

register = template.Library()

# Nats: up to so many it is said so.
MOVED = ((0.05, "about as"), (0.7, "slightly"), (2.0, ""), (float("inf"), "much"))


@register.filter
def likelier(log_prob: Sequence[float]) -> str:
    """`slightly more likely`, by the difference of two log-probabilities."""
    moved = log_prob[1] - log_prob[0]
    words = next(words for most, words in MOVED if abs(moved) < most)
    if words == "about as":
        return "about as likely as before"
    return f"{words} {'more' if moved > 0 else 'less'} likely".strip()


@register.filter
def times(log_prob: Sequence[float]) -> str:
    """How many times as likely it is now; nothing where that would be no number to read."""
    moved = log_prob[1] - log_prob[0]
    return f"{exp(moved):,.2f} times as likely" if abs(moved) < 6.9 else ""
