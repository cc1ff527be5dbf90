"""For those who cannot see the page, or see it otherwise: axe-core on it in its states and both themes, what
a screen reader hears, motion, and targets that a finger finds."""

import pytest
from playwright.sync_api import expect

from tests.browser import axe


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_ranking_page(new_page, sign_in, labeler, project, compose, scheme):
    project.revise_guidelines("Funniest **first**.")
    compose(2)
    page = new_page(color_scheme=scheme)
    sign_in(page, labeler)
    page.goto(f"/rank/{project.slug}/")
    axe.check(page)


def test_axe_finds_what_is_wrong(page, sign_in, labeler, project, compose):
    compose(1)
    sign_in(page, labeler)
    page.goto(f"/rank/{project.slug}/")
    page.locator(".go").evaluate("button => { button.disabled = false; button.textContent = '' }")
    expect(page.locator(".go")).to_have_text("")
    assert [fault.split(" ")[0] for fault in axe.faults(page)] == ["button-name"]
