"""People: inviting, putting into projects, keeping out. Admins only."""

import pytest
from django.test import Client

from labeler.models import Invitation, Place, Project, Quintet, Ranking, Round, StaleQuintet, User

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


def test_deactivating_ends_every_session_for_good(as_admin, as_labeler, labeler):
    as_admin.post(f"/people/{labeler.pk}/active/")
    as_admin.post(f"/people/{labeler.pk}/active/", {"on": ""})
    assert as_labeler.get("/projects/").status_code == 302
    assert as_admin.get("/projects/").status_code == 200


def test_deactivating_is_told_to_each_project_of_theirs(as_admin, admin, labeler, project):
    as_admin.post(f"/people/{labeler.pk}/active/")
    as_admin.post(f"/people/{labeler.pk}/active/", {"on": ""})
    assert [(each.action, each.by) for each in project.audit.all()] == [
        ("let in again", admin),
        ("deactivate", admin),
    ]


# The people of one project

HERE = "/people/of/pelican-jokes/"


@pytest.fixture
def membership(project, labeler):
    return project.memberships.get(user=labeler)


@pytest.fixture
def as_runner(project) -> Client:
    """An admin of this project, and of no other."""
    rita = User.objects.create_user("rita")
    project.memberships.create(user=rita, role="admin")
    client = Client()
    client.force_login(rita)
    return client


def actions(project: Project) -> list[str]:
    return [entry.action for entry in project.audit.order_by("pk")]


def test_a_role_is_given_and_taken_and_what_it_opens_follows(as_runner, as_labeler, membership, project):
    review = "/review/pelican-jokes/"
    assert as_labeler.get(review).status_code == 404
    as_runner.post(f"{HERE}{membership.user_id}/role/", {"role": "reviewer"})
    assert as_labeler.get(review).status_code == 200
    assert as_labeler.get(HERE).status_code == 404
    as_runner.post(f"{HERE}{membership.user_id}/role/", {"role": "admin"})
    assert as_labeler.get(HERE).status_code == 200
    as_runner.post(f"{HERE}{membership.user_id}/role/", {"role": "labeler"})
    assert as_labeler.get(review).status_code == 404
    assert actions(project) == ["role change"] * 3


def test_a_role_that_there_is_not_changes_nothing(as_runner, membership, project):
    as_runner.post(f"{HERE}{membership.user_id}/role/", {"role": "emperor"})
    membership.refresh_from_db()
    assert membership.role == "labeler"
    assert actions(project) == []


def test_a_projects_admin_cannot_shut_themselves_out(as_runner, project):
    me = User.objects.get(username="rita")
    for deed, sent in (("role", {"role": "labeler"}), ("remove", {})):
        assert as_runner.post(f"{HERE}{me.pk}/{deed}/", sent).status_code == 404
    assert as_runner.post(f"/people/{me.pk}/projects/").status_code == 404
    assert as_runner.get(HERE).status_code == 200


def test_a_paused_labeler_is_served_nothing_until_they_may_go_on(
    as_runner, as_labeler, labeler, membership, project, compose
):
    compose()
    place = Place.objects.next_for(labeler, project)
    as_runner.post(f"{HERE}{labeler.pk}/pause/", {"because": "Please read the guidelines."})
    place.refresh_from_db()
    assert place.labeler is None
    assert Place.objects.next_for(labeler, project) is None
    page = as_runner.get(HERE).content.decode()
    assert "Please read the guidelines." in page
    assert "Let them rank again" in page
    as_runner.post(f"{HERE}{labeler.pk}/pause/", {"undo": ""})
    assert Place.objects.next_for(labeler, project) is not None
    assert actions(project) == ["pause", "unpause"]


def test_excluded_rankings_are_kept_but_do_not_count_until_they_are_taken_back(
    as_runner, labeler, membership, project, compose
):
    (quintet,) = compose()
    quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    as_runner.post(f"{HERE}{labeler.pk}/exclude/", {"because": "Always the same order."})
    assert Ranking.objects.count() == 1
    assert not Ranking.objects.counted().exists()
    assert "Always the same order." in as_runner.get(HERE).content.decode()
    as_runner.post(f"{HERE}{labeler.pk}/exclude/", {"undo": ""})
    assert Ranking.objects.counted().count() == 1
    assert actions(project) == ["exclude", "take back"]


def test_excluding_marks_what_they_ranked_for_the_agreement(as_runner, labeler, project, compose):
    (quintet,) = compose()
    quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    for sent in ({"because": "Too fast."}, {"undo": ""}):
        StaleQuintet.objects.all().delete()
        as_runner.post(f"{HERE}{labeler.pk}/exclude/", sent)
        assert set(StaleQuintet.objects.values_list("quintet_id", flat=True)) == {quintet.pk}


def test_rankings_of_an_import_can_be_excluded_too(as_runner, project, compose):
    (quintet,) = compose()
    imported = User.objects.without_password("judge-7")
    quintet.record_ranking(imported, None, [1, 2, 3, 4, 5])
    as_runner.post(f"{HERE}{imported.pk}/exclude/", {"because": "Another scale."})
    assert not Ranking.objects.counted().exists()


@pytest.mark.parametrize("deed", ["pause", "exclude"])
@pytest.mark.parametrize("because", ["", "  ", "\0"])
def test_nothing_is_done_to_anybody_without_a_reason(deed, because, as_runner, membership, project):
    answer = as_runner.post(f"{HERE}{membership.user_id}/{deed}/", {"because": because}, follow=True)
    assert "say why" in answer.content.decode()
    membership.refresh_from_db()
    assert membership.paused_at is membership.excluded_at is None
    assert actions(project) == []


def test_somebody_is_let_in_by_name_and_taken_out_again(as_runner, as_stranger, stranger, project):
    assert as_runner.post(f"{HERE}add/", {"name": "OTTO", "role": "reviewer"}).status_code == 302
    assert as_stranger.get("/review/pelican-jokes/").status_code == 200
    as_runner.post(f"{HERE}{stranger.pk}/remove/")
    assert as_stranger.get("/projects/pelican-jokes/").status_code == 404
    assert actions(project) == ["let in", "taken out"]


def test_nobody_who_cannot_sign_in_is_let_in(as_runner, project):
    User.objects.without_password("judge-7")
    for name in ("judge-7", "nobody"):
        answer = as_runner.post(f"{HERE}add/", {"name": name, "role": "labeler"})
        assert answer.status_code == 422
        assert "needs an invitation" in answer.content.decode()


def test_an_exclusion_is_not_lost_by_taking_somebody_out(as_runner, as_admin, membership, admin):
    membership.exclude("Too fast.", admin)
    answer = as_runner.post(f"{HERE}{membership.user_id}/remove/", follow=True)
    assert "are excluded. Count them again first" in answer.content.decode()
    assert as_admin.post(f"/people/{membership.user_id}/projects/").status_code == 422
    membership.refresh_from_db()
    assert membership.excluded_at


def test_a_projects_admin_sees_and_invites_only_for_their_project(as_runner, stranger, labeler, project):
    poems = Project.objects.create(name="Poems", slug="poems")
    poems.memberships.create(user=stranger)
    page = as_runner.get("/people/")
    assert labeler in page.context["people"]
    assert stranger not in page.context["people"]
    assert "Poems" not in page.content.decode()
    assert as_runner.get(f"/people/{stranger.pk}/projects/").status_code == 404
    for sent in ({"project": poems.pk}, {}, {"as_admin": "on"}):
        assert as_runner.post("/people/invite/", sent).status_code == 422
    as_runner.post("/people/invite/", {"project": project.pk, "role": "reviewer", "as_admin": "on"})
    invitation = Invitation.objects.get()
    assert (invitation.project, invitation.role, invitation.as_admin) == (project, "reviewer", False)
    assert invitation.accept("nina", "quite a long password").may_review(project)


def test_a_projects_admin_moves_people_only_within_their_projects(as_runner, labeler, project):
    poems = Project.objects.create(name="Poems", slug="poems")
    poems.memberships.create(user=labeler, role="reviewer")
    as_runner.post(f"/people/{labeler.pk}/projects/")
    assert [each.project for each in labeler.memberships.all()] == [poems]


def test_the_people_of_a_project_are_asked_for_in_as_many_queries_however_many(
    as_runner, project, compose, django_assert_num_queries
):
    def add(several: int) -> None:
        (quintet,) = compose()
        for _ in range(several):
            person = User.objects.create_user(f"labeler-{User.objects.count()}")
            project.memberships.create(user=person)
            quintet.record_ranking(person, None, [1, 2, 3, 4, 5])

    for several in (2, 20):
        add(several)
        with django_assert_num_queries(7):
            as_runner.get(HERE)


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
