"""People: inviting, putting into projects, keeping out. Admins only."""

import pytest
from django.test import Client

from labeler.models import Invitation, Place, Project, Quintet, Round, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def link(as_admin, project) -> str:
    response = as_admin.post("/people/invite/", {"note": "Nina", "project": project.pk}, follow=True)
    return response.context["link"]


def test_people_and_simulated_labelers_are_listed_apart(as_admin, labeler):
    User.objects.without_password("sim-1", simulated=True)
    response = as_admin.get("/people/")
    assert labeler in response.context["people"]
    assert [each.username for each in response.context["simulated"]] == ["sim-1"]
    assert "simulated" in response.content.decode()


def test_the_list_asks_no_more_of_the_database_as_it_grows(as_admin, project, django_assert_max_num_queries):
    for number in range(20):
        project.people.add(User.objects.create_user(f"labeler-{number}"))
    with django_assert_max_num_queries(8):
        as_admin.get("/people/")


# Inviting


def test_a_link_is_shown_once_and_leads_to_the_host_that_the_admin_uses(as_admin, project):
    as_admin.post("/people/invite/", {"project": project.pk}, headers={"host": "localhost"})
    response = as_admin.get("/people/")
    link = response.context["link"]
    assert link.startswith("http://localhost/account/join/")
    assert link in response.content.decode()
    assert link not in as_admin.get("/people/").content.decode()
    assert Client().get(link.removeprefix("http://localhost")).status_code == 200


def test_reloading_the_page_with_the_link_makes_no_second_invitation(as_admin, project):
    answer = as_admin.post("/people/invite/", {"project": project.pk})
    assert (answer.status_code, answer.url) == (302, "/people/")
    as_admin.get("/people/"), as_admin.get("/people/")
    assert Invitation.objects.count() == 1


def test_an_invitation_remembers_who_what_and_where(link, admin, project):
    invitation = Invitation.objects.get()
    assert (invitation.note, invitation.project, invitation.created_by) == ("Nina", project, admin)
    assert not invitation.as_admin


def test_an_invitation_to_no_project_there_is_is_refused(as_admin, project):
    response = as_admin.post("/people/invite/", {"project": project.pk + 1})
    assert response.status_code == 422
    assert not Invitation.objects.exists()


def test_a_note_of_any_kind_is_shown_as_text(as_admin):
    response = as_admin.post("/people/invite/", {"note": "<script>alert(1)</script>"}, follow=True)
    assert "<script>alert" not in response.content.decode()
    assert as_admin.post("/people/invite/", {"note": "a\0b"}).status_code == 422


def test_a_withdrawn_link_leads_nowhere(as_admin, link):
    pending = Invitation.objects.get()
    assert pending in as_admin.get("/people/").context["pending"]
    assert as_admin.post(f"/people/invitations/{pending.pk}/withdraw/").status_code == 302
    assert Client().get(link.removeprefix("http://testserver")).status_code == 410


def test_an_invitation_that_was_used_cannot_be_withdrawn(as_admin, link):
    pending = Invitation.objects.get()
    pending.accept("nina", "quite a long password")
    assert as_admin.post(f"/people/invitations/{pending.pk}/withdraw/").status_code == 404
    assert as_admin.get("/people/").context["pending"].count() == 0


# Projects


def test_an_admin_puts_people_into_projects_and_takes_them_out(as_admin, labeler, project):
    poems = Project.objects.create(name="Poems", slug="poems")
    page = f"/people/{labeler.pk}/projects/"
    assert as_admin.get(page).status_code == 200
    as_admin.post(page, {"projects": [poems.pk]})
    assert list(labeler.projects.all()) == [poems]
    as_admin.post(page)
    assert not labeler.projects.exists()


def test_who_was_taken_out_no_longer_sees_the_project(as_admin, as_labeler, labeler, project):
    assert as_labeler.get("/projects/pelican-jokes/").status_code == 200
    as_admin.post(f"/people/{labeler.pk}/projects/")
    assert as_labeler.get("/projects/pelican-jokes/").status_code == 404


def test_a_project_that_is_not_there_is_refused(as_admin, labeler, project):
    assert as_admin.post(f"/people/{labeler.pk}/projects/", {"projects": ["999"]}).status_code == 422
    assert list(labeler.projects.all()) == [project]


# Keeping out


def test_a_deactivated_labeler_is_out_and_their_place_is_free(as_admin, as_labeler, labeler, project):
    prompt = project.prompts.create(content="Write a joke.")
    Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))
    Place.objects.next_for(labeler, project)
    as_admin.post(f"/people/{labeler.pk}/active/")
    assert as_labeler.get("/projects/").status_code == 302
    assert not Place.objects.filter(labeler=labeler).exists()


def test_a_deactivated_labeler_can_be_let_in_again(as_admin, labeler):
    for sent, is_active in (({}, False), ({"on": ""}, True)):
        as_admin.post(f"/people/{labeler.pk}/active/", sent)
        labeler.refresh_from_db()
        assert labeler.is_active is is_active


def test_nobody_locks_themselves_out(as_admin, admin):
    assert as_admin.post(f"/people/{admin.pk}/active/").status_code == 404
    admin.refresh_from_db()
    assert admin.is_active


# Who may


@pytest.mark.parametrize(
    "path", ["invite/", "invitations/{invitation}/withdraw/", "{person}/projects/", "{person}/active/"]
)
def test_only_admins_change_anything(path, link, client, as_labeler, as_admin, labeler, project):
    address = "/people/" + path.format(invitation=Invitation.objects.get().pk, person=labeler.pk)
    assert client.post(address).status_code == 302
    assert as_labeler.post(address).status_code == (403 if path == "invite/" else 404)
    if not path.endswith("projects/"):
        assert as_admin.get(address).status_code == 405
    labeler.refresh_from_db()
    assert labeler.is_active
    assert list(labeler.projects.all()) == [project]
    assert Invitation.objects.open().count() == 1
