"""Numbers that come as text, in an address or a form: of a row, a page, a step. Left out: settings, whose
bounds and words are rlhf's."""

DIGITS = 9  # no row, page or step has more


def whole(text: str | None, otherwise: int = 0) -> int:
    """The number that was sent; `otherwise` where it is none, or larger than any that there is."""
    return int(text) if text and text.removeprefix("-").isdecimal() and len(text) <= DIGITS else otherwise
