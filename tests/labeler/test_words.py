"""Numbers in words: what the filters of labeler/templatetags/words.py say."""

from datetime import timedelta

import pytest
from django.utils import timezone

from labeler.templatetags.words import about, ago, count, duration, figure, plain


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (46.4, "46 s"), (59.9, "1 min"), (107, "1 min 47 s"), (3600, "1 h"), (5400, "1 h 30 min")],
)
def test_a_duration_has_two_units_at_the_most(seconds, said):
    assert duration(seconds) == duration(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (2, "a few seconds"),
        (33, "about 35 s"),
        (80, "about 1 min"),
        (3500, "about 58 min"),
        (7300, "about 2 h"),
    ],
)
def test_an_estimate_is_no_more_exact_than_it_is_known(seconds, said):
    assert about(seconds) == said


@pytest.mark.parametrize(
    ("back", "said"),
    [
        (timedelta(seconds=3), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=1), "a day ago"),
        (timedelta(days=4), "4 days ago"),
    ],
)
def test_a_date_is_relative_with_the_exact_one_on_hover(back, said):
    moment = timezone.now() - back
    shown = ago(moment)
    assert f">{said}</time>" in shown and f"{moment:%H:%M:%S}" in shown


def test_a_number_that_nobody_measured_is_a_dash():
    assert figure(None) == figure(True) == duration(None) == about(None) == ago(None) == "–"


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        (0.856, "share", "0.86"),
        (0.98, "percent", "98 %"),
        (0.5, "loss", "0.500"),
        (0.0005, "rate", "5.0e-04"),
        (5760.0, "whole", "5,760"),
        (-0.001, "number", "0.00"),
        (23.74, "number", "23.7"),
        (1234.5, "number", "1,234"),
    ],
)
def test_a_figure_is_shown_in_the_form_of_its_series(value, form, said):
    assert figure(value, form) == said


def test_things_are_counted_in_the_singular_and_the_plural():
    assert count(1, "ranking") == "1 ranking" and count(1200, "ranking") == "1,200 rankings"
    assert count(2, "policy,policies") == "2 policies"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.001, "0.001"),
        (0.0005, "5e-4"),
        (9e-6, "9e-6"),
        (1.25e-9, "1.25e-9"),
        (-2e-5, "-2e-5"),
        (2.0, "2"),
        (0.0, "0"),
        (0.05, "0.05"),
        (90, "90"),
        (True, "yes"),
    ],
)
def test_a_setting_is_shown_as_a_person_would_type_it(value, said):
    assert plain(value) == said
