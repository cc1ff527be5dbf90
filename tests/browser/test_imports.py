"""An import as a person does it: from a file on their disk to what came of it, with and without a script."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from labeler import tasks
from labeler.models import Import, Quintet, Ranking
from tests.browser import axe

pytestmark = pytest.mark.django_db(transaction=True)
SHEET = "question;first answer;second answer;best;note\n" + "Joke {n}?;one;two;1;x\n" * 3
LINES = [
    {"prompt": f"Joke {n}?", "rollouts": ["one", "two"], "ranks": [2, 1], "labeler": "rita"}
    for n in range(30)
]


@pytest.fixture
def at_imports(sign_in, admin, project):
    def go(page: Page) -> Page:
        sign_in(page, admin)
        page.goto("/imports/pelican-jokes/")
        return page

    return go


def upload(page: Page, name: str, content: str) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
    page.get_by_label("A file").set_input_files(file)
    page.get_by_role("button", name="Look at it").click()
    page.wait_for_url("**/imports/pelican-jokes/*/")


def work() -> None:
    """What a worker would do now."""
    tasks.take_in(Import.objects.latest("pk").pk)


def test_from_a_sheet_with_names_of_its_own_to_quintets_that_wait(page, at_imports):
    upload(at_imports(page), "sheet.csv", SHEET)
    page.get_by_label("The file holds").select_option(label="Prompts with rollouts, to be ranked")
    page.get_by_label("first answer").select_option("rollout 1")
    page.get_by_label("second answer").select_option("rollout 2")
    expect(page.get_by_role("heading", name="The first rows")).to_be_visible()
    expect(page.locator(".read").first).to_contain_text("Joke {n}?")
    expect(page.get_by_label("first answer")).to_have_value("rollout 1")
    page.get_by_role("button", name="Import it").click()
    expect(page.get_by_text("Waiting for the worker")).to_be_visible()
    work()
    expect(page.get_by_role("heading", name="It is all in")).to_be_visible()  # nobody has reloaded
    assert Quintet.objects.get().extra == {"best": "1", "note": "x"}
    assert page.evaluate("document.querySelectorAll('[hx-trigger]').length") == 0


def test_the_columns_are_chosen_with_the_keyboard_and_the_focus_stays(page, at_imports):
    upload(at_imports(page), "sheet.csv", SHEET)
    column = page.get_by_label("note")
    column.focus()
    with page.expect_response(re.compile("/imports/")):
        column.select_option("-")
    expect(page.get_by_label("note")).to_have_value("-")
    expect(page.get_by_label("note")).to_be_focused()


def test_every_error_can_be_taken_home(page, at_imports):
    lines = [json.dumps(line | {"ranks": [1]}) for line in LINES]
    upload(at_imports(page), "bad.jsonl", "\n".join(lines))
    page.get_by_role("button", name="Only check every line").click()
    expect(page.get_by_text("Waiting for the worker")).to_be_visible()
    work()
    expect(page.get_by_role("heading", name="Nothing was kept: 30 lines cannot be taken")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="All 30 as a file").click()
    assert len(download.value.path().read_text().splitlines()) == 30


def test_a_file_that_is_too_large_is_refused_before_it_has_travelled(page, at_imports):
    at_imports(page)
    page.evaluate("document.querySelector('form[data-largest]').dataset.largest = '10'")
    page.get_by_label("A file").set_input_files(
        {"name": "a.csv", "mimeType": "", "buffer": b"prompt\n" + b"x\n" * 99}
    )
    expect(page.get_by_text("It is larger than 1 GB")).to_be_visible()
    page.get_by_role("button", name="Look at it").click()
    assert page.url.endswith("/imports/pelican-jokes/")
    assert not Import.objects.exists()


def test_an_import_is_a_matter_of_forms_without_a_script(new_page, at_imports):
    page = at_imports(new_page(java_script_enabled=False))
    upload(page, "sheet.csv", SHEET)
    page.get_by_label("The file holds").select_option(label="Prompts with rollouts, to be ranked")
    page.get_by_role("button", name="Read it anew").click()
    page.get_by_label("first answer").select_option("rollout 1")
    page.get_by_label("second answer").select_option("rollout 2")
    page.get_by_role("button", name="Import it").click()
    work()
    page.get_by_role("link", name="Look again").click()
    expect(page.get_by_role("heading", name="It is all in")).to_be_visible()
    page.get_by_role("button", name="Take it out again").click()
    work()
    page.get_by_role("link", name="Look again").click()
    expect(page.get_by_role("heading", name="It was taken out again")).to_be_visible()
    assert not Quintet.objects.exists()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_of_the_page_is_fit_for_everybody(new_page, at_imports, theme):
    page = at_imports(new_page(color_scheme=theme, viewport={"width": 390, "height": 800}))
    axe.check(page)
    upload(page, "some.jsonl", "\n".join(map(json.dumps, [*LINES, LINES[0] | {"ranks": [1]}])))
    axe.check(page)
    page.get_by_role("button", name="Import it").click()
    expect(page.get_by_text("Waiting for the worker")).to_be_visible()
    axe.check(page)
    work()
    expect(page.get_by_text("1 line cannot be taken")).to_be_visible()
    axe.check(page)
    page.goto("/imports/pelican-jokes/")
    upload(page, "good.jsonl", "\n".join(map(json.dumps, LINES)))
    page.get_by_role("button", name="Import it").click()
    expect(page.get_by_text("Waiting for the worker")).to_be_visible()
    work()
    expect(page.get_by_role("heading", name="It is all in")).to_be_visible()
    axe.check(page)
    assert Ranking.objects.count() == 30
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto("/imports/pelican-jokes/")
    axe.check(page)
