"""Audit: what was done, by whom, about whom; filtered, paged, and never anybody else's."""

import pytest

from labeler.models import Project

pytestmark = pytest.mark.django_db
PAGE = "/audit/pelican-jokes/"


def words(client, **query) -> list[str]:
    return [entry.words for entry in client.get(PAGE, query).context["page"]]


@pytest.fixture
def entries(project, admin, labeler):
    project.audit.write(admin, project, "pause", "Lena is paused.", labeler=labeler.pk)
    project.audit.write(None, project, "set aside", "Quintet 7 is set aside.")
    project.audit.write(labeler, project, "decide", "Quintet 8 is decided.")


def test_the_newest_is_first_and_what_nobody_did_says_so(as_admin, entries):
    assert words(as_admin) == ["Quintet 8 is decided.", "Quintet 7 is set aside.", "Lena is paused."]
    assert "by itself" in as_admin.get(PAGE).content.decode()


def test_it_is_filtered_by_what_was_done(as_admin, entries):
    assert words(as_admin, action="pause") == ["Lena is paused."]
    assert words(as_admin, action="nonsense") == []
    assert list(as_admin.get(PAGE).context["actions"]) == ["decide", "pause", "set aside"]


def test_it_is_filtered_by_who_did_it_or_had_it_done_to_them(as_admin, entries):
    assert words(as_admin, person="lena") == ["Quintet 8 is decided.", "Lena is paused."]
    assert words(as_admin, person="ada") == ["Lena is paused."]
    assert words(as_admin, person="nobody") == []
    assert words(as_admin, person="lena", action="pause") == ["Lena is paused."]


def test_other_projects_entries_are_not_here(as_admin, admin, project):
    other = Project.objects.create(name="Other", slug="other")
    other.audit.write(admin, other, "pause", "Somebody there is paused.")
    assert words(as_admin) == []


def test_what_was_written_is_shown_as_text(as_admin, admin, project):
    project.audit.write(admin, project, "pause", "<script>alert(1)</script>")
    assert "<script>alert" not in as_admin.get(PAGE).content.decode()


def test_it_asks_no_more_of_the_database_as_it_grows(as_admin, admin, project, django_assert_num_queries):
    def queries(entries: int) -> int:
        for number in range(entries):
            project.audit.write(admin, project, "pause", f"Number {number}", quintet=number + 1)
        with django_assert_num_queries(7):
            as_admin.get(PAGE)

    queries(2)
    queries(60)
    assert as_admin.get(PAGE).context["page"].paginator.num_pages == 2
