"""Prompts by difficulty: what a run found out about each, what is never and always solved, and what is set
aside by hand and taken back."""

import re

import pytest
from django.urls import reverse

from labeler import checking, difficulty
from labeler.models import AuditEntry, Run
from tests.labeler import drilled as drills
from tests.labeler.drilled import drilled  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db


def opened(client, run, query: str = "", **more) -> str:
    answer = client.get(reverse("practice_difficulty", args=[run.project.slug]) + query, **more)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def listed(text: str) -> list[str]:
    return [each.split(" ")[0] for each in re.findall(r"/practice/of/[^\"]+/\d+/\">([^<]+)</a>", text)]


def said(client, of, **given):
    return client.post(reverse("practice_aside", args=[of.project.slug]), given, follow=True)


def test_pass_at_1_and_at_k_are_of_all_steps_together(drilled):  # noqa: F811
    drills.write(drilled, (3,), correct=(9, 15, 0))
    mixed, solved, unsolved = difficulty.of(drilled, 15)
    assert (mixed.written, mixed.correct, mixed.steps) == (45, 21, 3)
    assert mixed.pass_1 == pytest.approx(21 / 45)
    assert 0.999 < mixed.pass_k < 1 and solved.pass_k == 1 and unsolved.pass_k == 0
    assert (mixed.first.value, mixed.last.value) == (pytest.approx(0.4), pytest.approx(0.6))
    assert [each.kind for each in (mixed, solved, unsolved)] == ["mixed", "always", "never"]
    assert difficulty.of(drilled, 46)[0].pass_k is None


@pytest.mark.parametrize(
    ("query", "first"),
    [("", "Emily"), ("?order=mixed", "Emily"), ("?order=hardest", "What"), ("?kind=always", "What")],
)
def test_the_hardest_the_easiest_or_the_mixed_come_first(as_admin, drilled, query, first):  # noqa: F811
    assert listed(opened(as_admin, drilled, query))[0] == first


def test_it_names_what_is_never_and_what_is_always_solved(as_admin, drilled):  # noqa: F811
    text = opened(as_admin, drilled)
    assert "✗ never solved" in text and "✓ always solved" in text
    assert "Set the never solved aside" in text and "12 of 30" in text and "40 %" in text
    hardest = opened(as_admin, drilled, "?order=hardest")
    assert hardest.index("9 * 9") < hardest.index("Emily") < hardest.index("17 + 25")
    assert len(listed(opened(as_admin, drilled, "?words=emily+apples"))) == 1
    part = opened(as_admin, drilled, "?kind=never", headers={"HX-Request": "true"})
    assert "<html" not in part and "9 * 9" in part and "Emily" not in part


def test_a_prompt_is_set_aside_and_taken_back_by_hand(as_admin, drilled):  # noqa: F811
    project, prompt = drilled.project, drilled.project.prompts.last()
    text = said(as_admin, drilled, prompt=prompt.pk).content.decode()
    assert "1 prompt set aside" in text and "9 * 9" not in text
    assert prompt not in project.prompts.practised(project.checker_digest)
    found = checking.references(project)
    assert (found.aside, found.practised) == (1, 2)
    assert found.left_out == "1 set aside by hand is left out of practice"
    aside = opened(as_admin, drilled, "?kind=aside")
    assert "9 * 9" in aside and "Take it back" in aside
    said(as_admin, drilled, back=prompt.pk)
    assert prompt in project.prompts.practised(project.checker_digest)
    written = AuditEntry.objects.filter(action="practice changed").order_by("pk")
    assert [each.words for each in written] == [
        "1 prompt set aside, one by one.",
        "1 prompt brought back to practice.",
    ]


def test_all_that_is_never_solved_is_set_aside_at_once_and_all_comes_back(as_admin, drilled):  # noqa: F811
    said(as_admin, drilled, all="never", run=drilled.pk)
    said(as_admin, drilled, all="always", run=drilled.pk)
    assert drilled.project.prompts.filter(set_aside_at=None).count() == 1
    said(as_admin, drilled, back="all")
    assert drilled.project.prompts.filter(set_aside_at=None).count() == 3


def test_the_next_run_is_not_asked_what_is_set_aside(drilled):  # noqa: F811
    asked = list(drilled.project.prompts.all())
    drilled.project.prompts.filter(pk=asked[0].pk).put_aside(drilled.project, None, "by a test")
    kept = Run.objects.all()._practised(drilled.project, list(drilled.project.prompts.all()))
    assert kept == asked[1:]


def test_before_anything_was_practised_it_says_how_to_begin(as_admin, project):
    text = as_admin.get(reverse("practice_difficulty", args=[project.slug])).content.decode()
    assert "Nothing has been practised here yet" in text


def test_curves_and_csv_leave_out_what_is_no_curve(as_admin, drilled):  # noqa: F811
    told = as_admin.get(reverse("run_steps", args=[drilled.pk])).json()
    assert "practised" not in told["steps"][0] and "accuracy" in told["steps"][0]
    assert b"practised" not in as_admin.get(reverse("run_steps", args=[drilled.pk]) + "?form=csv").content
