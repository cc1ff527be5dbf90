"""Numbers as an address or a form brings them, whatever somebody has written there."""

import pytest

from labeler.numbers import whole


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("007", 7), ("-3", -3), ("999999999", 999_999_999), ("٣", 3)],
)
def test_a_whole_number_is_read(text: str, number: int):
    assert whole(text) == number


@pytest.mark.parametrize("text", [None, "", " 1", "1.0", "1e3", "²", "--1", "one", "1234567890", "9" * 5000])
def test_anything_else_is_none(text: str | None):
    assert whole(text) == 0
    assert whole(text, -1) == -1
