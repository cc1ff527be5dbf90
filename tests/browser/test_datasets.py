"""Freezing and taking out, in a real browser: a count that follows the query, a preview that follows the
form."""

import json

import pytest
from playwright.sync_api import expect

from labeler import datasets
from labeler.models import Dataset, Quintet, Ranking, Round, User
from tests.browser import axe

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 800}}
DARK = {"color_scheme": "dark"}


@pytest.fixture
def ranked(project, labeler):
    """Two rounds; two people who agree on most, and simulated rankings."""
    people = [labeler, User.objects.create_user("ann"), User.objects.without_password("sim", simulated=True)]
    for number in range(10):
        round, _ = Round.objects.get_or_create(project=project, number=1 + number % 2)
        prompt = project.prompts.create(content=f"Joke {number}, please.")
        texts = [f"A pelican, {number}, {'and a fish ' * slot}" for slot in range(5)]
        quintet = Quintet.objects.compose(project, round, prompt, texts, places=0)
        for person, ranks in zip(people, ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [5, 4, 3, 2, 1]), strict=True):
            Ranking.objects.create(
                quintet=quintet,
                labeler=person,
                ranks=ranks,
                simulated=person.simulated,
                shown=[0, 1, 2, 3, 4],
            )
    return project


def is_too_wide(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_what_is_chosen_while_the_count_of_something_else_is_on_its_way_is_counted(
    page, sign_in, admin, ranked, hold
):
    sign_in(page, admin)
    page.goto("/datasets/pelican-jokes/")
    let_go = hold("**/freeze/**")
    with page.expect_request("**/freeze/**"):
        page.get_by_label("Round 2").check()
    page.get_by_role("group", name="Labelers").get_by_label("ann").check()
    let_go()
    expect(page.locator("#count")).to_contain_text("5 rankings by people")


def test_a_dataset_is_frozen_looked_at_and_taken_out(page, sign_in, admin, ranked):
    sign_in(page, admin)
    page.goto("/datasets/pelican-jokes/")
    count = page.locator("#count")
    expect(count).to_contain_text("20 rankings by people: 10 quintets, 10 prompts, 2 labelers.")
    page.get_by_label("Round 2").check()
    expect(count).to_contain_text("10 rankings by people: 5 quintets")
    page.get_by_role("group", name="Labelers").get_by_label("ann").check()
    expect(count).to_contain_text("5 rankings by people")
    page.get_by_label("Least agreement").fill("95")
    expect(count).to_contain_text("No ranking is what was asked for.")
    page.get_by_label("Least agreement").fill("90")
    expect(count).to_contain_text("5 rankings by people")
    page.get_by_role("button", name="Freeze").click()
    page.get_by_role("heading", name="Dataset", exact=False).first.wait_for()
    frozen = Dataset.objects.get()
    assert (frozen.lines, frozen.query) == (5, {"rounds": [2], "labelers": ["ann"], "agreement": 0.9})

    # The preview follows the form, and the form stays where it was.
    expect(page.get_by_role("columnheader", name="rollouts", exact=True)).to_be_visible()
    page.get_by_label("pairs").check()
    expect(page.get_by_role("columnheader", name="chosen")).to_be_visible()
    expect(page.get_by_label("pairs")).to_be_focused()
    page.get_by_label("As messages of a chat").check()
    expect(page.get_by_role("cell", name='[{"role": "assistant"').first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    lines = [json.loads(line) for line in download.value.path().read_bytes().splitlines()]
    assert len(lines) == 50
    assert lines[0]["chosen"][0]["role"] == "assistant"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download with its card").click()
    assert download.value.suggested_filename == f"pelican-jokes-{frozen.pk}-pairs.zip"


def test_lines_are_turned_page_by_page_and_two_datasets_compared(page, sign_in, admin, ranked):
    one = datasets.freeze(ranked)
    two = datasets.freeze(ranked, datasets.Query(rounds=(1,), simulated=True))
    sign_in(page, admin)
    page.goto(f"/datasets/pelican-jokes/{one.pk}/")
    first = page.locator("#lines article").first.inner_text()
    page.get_by_role("link", name="Further").click()
    page.wait_for_url("**/?page=2")
    expect(page.locator("#lines article").first).not_to_have_text(first)
    expect(page.get_by_role("heading", name="Agreement")).to_be_visible()  # only the lines were turned
    page.go_back()
    page.get_by_text("page 1 of 4").wait_for()
    page.get_by_label("The other dataset").select_option(str(two.pk))
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name=f"Only in dataset {one.pk}").wait_for()
    page.get_by_role("heading", name=f"Only in dataset {two.pk}").wait_for()
    expect(page.get_by_text("simulated", exact=True).first).to_be_visible()


def test_it_works_without_javascript(new_page, sign_in, admin, ranked):
    page = new_page(java_script_enabled=False)
    sign_in(page, admin)
    page.goto("/datasets/pelican-jokes/")
    page.get_by_label("Round 2").check()
    page.get_by_role("button", name="Count").click()
    expect(page.locator("#count")).to_contain_text("10 rankings by people")
    expect(page.get_by_label("Round 2")).to_be_checked()
    page.get_by_label("kto").check()
    page.get_by_role("button", name="Show the first rows").click()
    expect(page.get_by_role("columnheader", name="label")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Freeze").click()
    page.get_by_text("No run has used it.").wait_for()


@pytest.mark.parametrize("options", [{}, PHONE, DARK], ids=["light", "phone", "dark"])
def test_everybody_can_read_it(new_page, sign_in, admin, ranked, options):
    one, two = datasets.freeze(ranked), datasets.freeze(ranked, datasets.Query(simulated=True))
    page = new_page(**options)
    sign_in(page, admin)
    for path in ("", f"{one.pk}/", f"{two.pk}/against/?other={one.pk}", "preview/?format=consensus"):
        page.goto(f"/datasets/pelican-jokes/{path}")
        axe.check(page)
        assert not is_too_wide(page), path
