"""Signing in and out, the password, joining by a link. Who may see which address: test_access.py."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from labeler.models import Invitation, Place, Quintet, Round, User, WrongTry
from labeler.models.people import LOCKED_FOR, TRIES
from tests.labeler.fixtures import PASSWORD

pytestmark = pytest.mark.django_db
SIGN_IN = "/account/sign-in/"


def enter(client, username="lena", password=PASSWORD, **more):
    return client.post(SIGN_IN, {"username": username, "password": password, **more})


def is_signed_in(client) -> bool:
    return "_auth_user_id" in client.session


# Signing in


def test_the_right_password_opens_the_projects(client, labeler):
    response = enter(client)
    assert response.status_code == 302
    assert response["Location"] == "/projects/"
    assert is_signed_in(client)


def test_a_wrong_password_is_refused_in_words_that_tell_nobody_who_exists(client, labeler):
    wrong, nobody = enter(client, password="not it"), enter(client, username="nobody")
    assert wrong.status_code == nobody.status_code == 422
    words = "That name and password do not belong together"
    assert words in wrong.content.decode()
    assert words in nobody.content.decode()
    assert not is_signed_in(client)


def test_whoever_was_deactivated_stays_out_at_once(client, labeler):
    enter(client)
    User.objects.filter(pk=labeler.pk).update(is_active=False)
    assert client.get("/projects/").status_code == 302
    assert enter(Client()).status_code == 422


def test_signing_in_gives_a_new_session(client, labeler):
    client.get(SIGN_IN)
    session = client.session
    session["from before"] = True
    session.save()
    before = session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = before
    enter(client)
    assert client.session.session_key != before


def test_six_wrong_tries_lock_the_name_for_this_address(client, labeler):
    for _ in range(TRIES):
        enter(client, password="not it")
    response = enter(client)
    assert "Try again in 10 minutes" in response.content.decode()
    assert not is_signed_in(client)
    assert enter(Client(REMOTE_ADDR="10.1.2.3")).status_code == 302


def test_a_lock_ends_by_itself(client, labeler):
    for _ in range(TRIES):
        enter(client, password="not it")
    WrongTry.objects.update(last_at=timezone.now() - LOCKED_FOR - timedelta(seconds=1))
    assert enter(client).status_code == 302


def test_the_right_password_forgets_the_wrong_ones(client, labeler):
    for _ in range(TRIES - 1):
        enter(client, password="not it")
    enter(client)
    assert not WrongTry.objects.exists()


def test_changing_capitals_is_no_way_around_the_lock(client, labeler):
    for n in range(TRIES):
        enter(client, username="LENA" if n % 2 else "lena", password="not it")
    assert enter(client).status_code == 422


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x" * 1_000_000, "", "‮evil"])
def test_no_text_breaks_the_form(client, labeler, field, text):
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert enter(client, **{field: text}).status_code == 422


def test_next_leads_on_within_this_host(client, labeler):
    assert enter(client, next="/projects/pelican-jokes/")["Location"] == "/projects/pelican-jokes/"


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "///evil"]
)
def test_next_never_leads_to_another_host(client, labeler, onward):
    assert enter(client, next=onward)["Location"] == "/projects/"
    assert client.get(SIGN_IN, {"next": onward})["Location"] == "/projects/"


def test_an_unknown_host_is_not_served(client):
    response = client.get(SIGN_IN, headers={"host": "evil.example"})
    assert response.status_code == 400
    assert "evil.example" not in response.content.decode()


def test_a_form_from_elsewhere_is_refused_in_words(labeler):
    response = enter(Client(enforce_csrf_checks=True))
    assert response.status_code == 403
    assert "That was not sent" in response.content.decode()


# Signing out


def test_signing_out_gives_back_what_one_held(as_labeler, labeler, project):
    prompt = project.prompts.create(content="Write a joke.")
    Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))
    Place.objects.next_for(labeler, project)
    response = as_labeler.post("/account/sign-out/")
    assert response["Location"] == SIGN_IN
    assert not is_signed_in(as_labeler)
    assert not Place.objects.filter(labeler=labeler).exists()


def test_a_link_cannot_sign_anybody_out(as_labeler):
    assert as_labeler.get("/account/sign-out/").status_code == 405
    assert is_signed_in(as_labeler)


# The password

NEW = "an even longer password"


def change(client, old=PASSWORD, new=NEW, again=NEW):
    return client.post(
        "/account/password/", {"old_password": old, "new_password1": new, "new_password2": again}
    )


def test_the_password_can_be_changed_and_other_devices_are_signed_out(as_labeler, labeler):
    elsewhere = Client()
    elsewhere.force_login(labeler)
    assert change(as_labeler).status_code == 302
    labeler.refresh_from_db()
    assert labeler.check_password(NEW)
    assert as_labeler.get("/projects/").status_code == 200
    assert elsewhere.get("/projects/").status_code == 302


def test_the_old_password_is_asked_for(as_labeler, labeler):
    assert change(as_labeler, old="not it").status_code == 422
    labeler.refresh_from_db()
    assert labeler.check_password(PASSWORD)


@pytest.mark.parametrize("weak", ["short", "password1234", "12345678901"])
def test_a_weak_password_is_refused(as_labeler, weak):
    assert change(as_labeler, new=weak, again=weak).status_code == 422


# Joining


@pytest.fixture
def token(admin, project) -> str:
    return Invitation.objects.issue(admin, project=project)[1]


def joining(client, token, username="nina", password=NEW):
    fields = {"username": username, "password1": password, "password2": password}
    return client.post(f"/account/join/{token}/", fields)


def test_a_link_makes_an_account_in_its_project(client, token, project):
    assert "rank in “Pelican jokes”" in client.get(f"/account/join/{token}/").content.decode()
    response = joining(client, token)
    assert response["Location"] == "/projects/pelican-jokes/"
    assert is_signed_in(client)
    nina = User.objects.get(username="nina")
    assert nina.projects.get() == project
    assert not nina.is_admin
    assert not nina.is_superuser


def test_a_link_for_an_admin_makes_an_admin(client, admin):
    _, token = Invitation.objects.issue(admin, as_admin=True)
    assert joining(client, token)["Location"] == "/projects/"
    assert User.objects.get(username="nina").is_admin


def test_a_link_works_once(client, token):
    joining(client, token)
    second = joining(Client(), token, username="nora")
    assert second.status_code == 410
    assert "works once" in second.content.decode()
    assert not User.objects.filter(username="nora").exists()


@pytest.mark.django_db(transaction=True)
def test_two_who_use_a_link_at_once_get_one_account(transactional_db, token):
    def join_as(name: str) -> int:
        try:
            return joining(Client(), token, username=name).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(join_as, ["nina", "nora", "nils", "nell"]))
    assert sorted(statuses) == [302, 410, 410, 410]
    assert User.objects.filter(username__startswith="n").count() == 1


@pytest.mark.django_db(transaction=True)
def test_wrong_tries_at_once_are_counted_one_by_one(transactional_db, labeler):
    def try_one(_: int) -> str:
        try:
            return enter(Client(), password="not it").content.decode()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(try_one, range(TRIES + 4)))
    assert sum("wrong too often" in page for page in pages) == 4


def test_a_link_ends_after_seven_days(client, token):
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get(f"/account/join/{token}/").status_code == 410
    assert joining(client, token).status_code == 410


def test_looking_at_a_link_does_not_use_it_up(client, token):
    for _ in range(3):
        assert client.get(f"/account/join/{token}/").status_code == 200


def test_whoever_is_signed_in_does_not_use_up_a_link(as_labeler, token):
    assert joining(as_labeler, token).status_code == 409
    assert Invitation.objects.open().exists()


def test_only_the_digest_of_a_token_is_stored(token):
    assert len(token) >= 43  # 32 random bytes
    assert token not in str(list(Invitation.objects.values()))


@pytest.mark.parametrize("name", ["lena", "Lena", "LENA"])
def test_nobody_joins_under_the_name_of_another(client, token, labeler, name):
    response = joining(client, token, username=name)
    assert response.status_code == 422
    assert "That name is taken" in response.content.decode()


@pytest.mark.parametrize("name", ["", "a\0b", "two words", "x" * 151, "<b>"])
def test_an_odd_name_is_refused_in_words(client, token, name):
    assert joining(client, token, username=name).status_code == 422


def test_nobody_becomes_an_admin_by_adding_a_field(client, token):
    fields = {"username": "nina", "password1": NEW, "password2": NEW, "is_staff": "on", "as_admin": "on"}
    client.post(f"/account/join/{token}/", fields)
    assert not User.objects.get(username="nina").is_staff


@pytest.mark.parametrize("token", ["x", "..", "%00", "%F0%9F", "a" * 5000])
def test_a_link_that_was_never_given_leads_nowhere(client, db, token):
    assert client.get(f"/account/join/{token}/").status_code in (404, 410)


# The first admin


def test_the_first_admin_gets_a_random_password(db, capsys, monkeypatch):
    monkeypatch.delenv("QUINTET_ADMIN_PASSWORD", raising=False)
    call_command("create_admin")
    password = capsys.readouterr().out.split("password ")[1].split(" ")[0]
    admin = User.objects.get(username="admin")
    assert admin.check_password(password)
    assert len(password) >= 16
    assert admin.is_admin


def test_the_first_admins_password_can_be_given(db, capsys, monkeypatch):
    monkeypatch.setenv("QUINTET_ADMIN_PASSWORD", "given from outside")
    call_command("create_admin", "root")
    assert User.objects.get(username="root").check_password("given from outside")
    assert "given from outside" not in capsys.readouterr().out


def test_there_is_no_second_first_admin(admin):
    call_command("create_admin")
    assert User.objects.filter(is_staff=True).count() == 1


def test_the_first_admin_cannot_take_a_labelers_name(labeler):
    with pytest.raises(CommandError, match="called lena already"):
        call_command("create_admin", "lena")


# What is refused, and how


def test_admins_tables_are_for_admins_only(client, as_labeler, as_admin):
    assert client.get("/admin/").status_code == 302
    assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith(SIGN_IN)
    assert as_labeler.get("/admin/", follow=True).status_code == 403
    for page in ("/admin/", "/admin/labeler/user/", "/admin/labeler/project/", "/admin/labeler/invitation/"):
        assert as_admin.get(page).status_code == 200


def test_pages_are_neither_kept_nor_framed(as_labeler, project):
    response = as_labeler.get("/projects/pelican-jokes/")
    assert response["Cache-Control"] == "no-store"
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in response["Content-Security-Policy"]


def test_what_is_not_there_is_said_in_words(as_labeler, client, db):
    assert "There is nothing here" in as_labeler.get("/nowhere/").content.decode()
    assert "This is not for you" in as_labeler.get("/people/").content.decode()
    assert client.get("/nowhere/").status_code == 404


# Coming back to an address that has no page


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("/rank/pelican-jokes/submit/", "/rank/pelican-jokes/"),
        ("/rank/pelican-jokes/skip/7/take-back/", "/rank/pelican-jokes/"),
        ("/account/sign-out/", "/"),
    ],
)
def test_a_browser_at_an_address_that_only_takes_forms_is_led_to_the_page_above_it(
    as_labeler, project, address, page
):
    browser = {"Accept": "text/html,application/xhtml+xml"}
    response = as_labeler.get(address, headers=browser, follow=True)
    assert (page, 302) in response.redirect_chain
    assert response.status_code == 200


def test_a_program_at_such_an_address_is_told_which_methods_it_takes(as_labeler, project):
    response = as_labeler.get("/rank/pelican-jokes/submit/")
    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_who_was_signed_out_while_submitting_comes_back_to_the_ranking_page(client, labeler, project):
    bounced = client.post("/rank/pelican-jokes/submit/", {"ticket": "x"})
    assert bounced["Location"] == "/account/sign-in/?next=/rank/pelican-jokes/submit/"
    browser = {"Accept": "text/html"}
    entered = {"username": "lena", "password": PASSWORD, "next": "/rank/pelican-jokes/submit/"}
    response = client.post(SIGN_IN, entered, headers=browser, follow=True)
    assert response.redirect_chain[-1] == ("/rank/pelican-jokes/", 302)
    assert response.status_code == 200
