"""A team begins, in a real browser: a project from a template, prompts from a file, a labeler by a link."""

import json

import pytest
from playwright.sync_api import expect

from labeler.models import Project, Quintet, Round, User

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}}


def enter(page, username: str, password: str) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def is_too_wide(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_a_team_begins(new_page, page, admin, tmp_path):
    # The admin signs in, is told about a mistake, and makes a project from a template.
    page.goto("/projects/")
    enter(page, "ada", "not the password")
    page.get_by_text("do not belong together").wait_for()
    enter(page, "ada", "quite a long password")
    page.get_by_role("main").get_by_role("link", name="New project").click()
    page.get_by_role("link", name="Poems").click()
    assert not page.get_by_label("Name on the Hub").is_visible()
    page.get_by_label("A model from the Hugging Face Hub").check()
    page.get_by_label("Name on the Hub").fill("no-organisation")
    page.get_by_label("Labelers for each quintet").fill("2")
    page.get_by_role("button", name="Make the project").click()
    page.get_by_text("A name on the Hub is organisation/name.").wait_for()
    page.get_by_label("Choose later").check()
    page.get_by_role("button", name="Make the project").click()
    page.get_by_role("heading", name="Poems", exact=True).wait_for()
    project = Project.objects.get()
    assert project.overlap == 2

    # Prompts from a file: first one with a mistake in it, then a good one.
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Write a poem about a pelican."}\n{"prompt": ""}\n')
    page.get_by_role("link", name="Prompts", exact=True).click()
    page.get_by_role("link", name="Add prompts").click()
    page.get_by_label("Or a file").set_input_files(file)
    page.get_by_role("button", name="Add").click()
    page.get_by_text("Line 2: “prompt” is empty. Nothing was added.").wait_for()
    file.write_text(json.dumps({"prompt": "Write a poem about a pelican."}))
    page.get_by_label("Or a file").set_input_files(file)
    page.get_by_role("button", name="Add").click()
    page.get_by_text("1 prompt added.").wait_for()
    page.get_by_label("Search the prompts").fill("pelican")
    page.get_by_role("paragraph").filter(has_text="Write a poem about a pelican.").wait_for()
    expect(page.get_by_role("row")).to_have_count(2)  # the head of the table, and the one

    # A link for a labeler, copied.
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="People").click()
    page.get_by_label("Whom it is for").fill("Nina")
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Link to join").input_value()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == link

    # On a phone of her own Nina joins, and sees what there is to rank.
    Quintet.objects.compose(project, Round.objects.current(project), project.prompts.first(), list("abcde"))
    nina = new_page(**PHONE, color_scheme="dark")
    nina.goto(link)
    assert not is_too_wide(nina)
    nina.get_by_label("The name you sign in with").fill("ada")
    nina.get_by_label("Password", exact=True).fill("a pelican in the rain")
    nina.get_by_label("The password again").fill("a pelican in the rain")
    nina.get_by_role("button", name="Join").click()
    nina.get_by_text("That name is taken.").wait_for()
    nina.get_by_label("The name you sign in with").fill("nina")
    nina.get_by_label("Password", exact=True).fill("a pelican in the rain")
    nina.get_by_label("The password again").fill("a pelican in the rain")
    nina.get_by_role("button", name="Join").click()
    nina.get_by_role("link", name="Rank · 1 waiting").wait_for()
    assert nina.get_by_role("link", name="People").count() == 0
    assert not is_too_wide(nina)
    assert User.objects.get(username="nina").projects.get() == project

    # The link is used up, and the admin sees her among the people.
    nina.get_by_label("Your account, nina").click()
    nina.get_by_role("button", name="Sign out").click()
    nina.goto(link)
    nina.get_by_role("heading", name="leads nowhere").wait_for()
    page.goto("/people/")
    page.get_by_role("cell", name="nina", exact=True).wait_for()
    assert page.get_by_text("Not used yet").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(new_page, sign_in, admin, labeler, project, scheme):
    project.prompts.create(content="https://example.org/" + "a-very-long-word" * 12)
    project.guidelines = "- " + "unbreakable" * 20
    project.save()
    page = new_page(**PHONE, color_scheme=scheme)
    sign_in(page, admin)
    for path in ("projects/", "people/", "projects/new/?template=jokes", "account/password/"):
        page.goto("/" + path)
        assert not is_too_wide(page), path
    for path in ("projects/{}/", "projects/{}/edit/", "prompts/{}/", "prompts/{}/add/", "datasets/{}/"):
        page.goto("/" + path.format(project.slug))
        assert not is_too_wide(page), path


def test_what_matters_works_without_javascript(new_page, admin, project):
    page = new_page(java_script_enabled=False)
    page.goto("/prompts/pelican-jokes/add/")
    enter(page, "ada", "quite a long password")
    page.get_by_label("One prompt a line").fill("Write a joke about tea.\nWrite one about rain.")
    page.get_by_role("button", name="Add").click()
    page.get_by_text("2 prompts added.").wait_for()
    page.get_by_label("Search the prompts").fill("tea")
    page.get_by_role("button", name="Search").click()
    assert page.get_by_role("row").count() == 2  # the head of the table, and the one
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("is deleted").wait_for()
    assert project.prompts.get().content == "Write one about rain."
