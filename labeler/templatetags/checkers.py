"""How verdicts are told: a sign and a word beside the colour, thinking apart from the answer."""

from collections.abc import Mapping
from typing import Any

from django import template
from django.utils.html import format_html

from labeler.models import Verdict
from labeler.models.verdicts import WORDS
from labeler.steps import Written
from labeler.verdicts import Measure
from rlhf import checkers

register = template.Library()

STATES: dict[Any, tuple[str, str, str]] = {
    True: ("correct", "✓", WORDS[True]),
    False: ("incorrect", "✗", WORDS[False]),
    None: ("unclear", "?", WORDS[None]),
}


def _of(said: Written | Mapping[str, Any]) -> tuple[str, str, str]:
    return STATES[said.correct if isinstance(said, Written) else said["correct"]]


@register.filter
def state(said: Written | Mapping[str, Any]) -> str:
    return _of(said)[0]


@register.filter
def state_word(said: Written | Mapping[str, Any]) -> str:
    return _of(said)[2]


@register.filter
def told(correct: bool | None) -> str:
    """Sign and word at once."""
    name, sign, word = STATES[correct]
    return format_html('<b class="judged {}">{} {}</b>', name, sign, word)


@register.filter
def thinking(text: str) -> tuple[str, str]:
    """What was thought, and what was answered."""
    return checkers.thinking_of(text), checkers.answer_of(text)


@register.filter
def last_part(text: str, most: int) -> str:
    """The end of a text: there an answer comes to something."""
    return text if len(text) <= most else f"… {text[-most:]}"


@register.filter
def word_of(shown: Mapping[str, str], name: str) -> str:
    return shown[name]


@register.filter
def wrongs(measure: Measure) -> list[tuple[str, list[Verdict]]]:
    """The two ways of being wrong, as far as there are cases."""
    both = [
        ("Said correct, and is not", measure.false_positives),
        ("Said incorrect, and is correct", measure.false_negatives),
    ]
    return [(title, found) for title, found in both if found]
