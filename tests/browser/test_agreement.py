"""The pages of agreement in a real browser: on a desk and a phone, light and dark; what axe-core says."""

import pytest

from labeler.models import Membership, User
from tests.browser import axe
from tests.labeler.test_agreement_pages import PAGES, crew, ranked

SIZES = [({"width": 1280, "height": 800}, "light"), ({"width": 390, "height": 844}, "dark")]


def is_too_wide(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.fixture
def reviewer(project, labeler) -> User:
    project.memberships.filter(user=labeler).update(role=Membership.Role.REVIEWER)
    return labeler


@pytest.mark.parametrize("viewport, scheme", SIZES, ids=["desk", "phone"])
def test_a_reviewer_reads_agreement_and_audits(
    new_page, sign_in, project, compose, reviewer, viewport, scheme
):
    quintets, labelers = compose(24, texts=["x" * length for length in (10, 20, 30, 40, 50)]), crew(project)
    ranked(quintets, labelers[:2])
    ranked(quintets, labelers[2:], ranks=[1, 2, 3, 4, 5], shown=[0, 1, 2, 3, 4], seconds=1.0)
    page = new_page(viewport=viewport, color_scheme=scheme)
    sign_in(page, reviewer)
    page.goto("/projects/pelican-jokes/")
    page.get_by_role("link", name="Agreement", exact=True).first.click()
    page.get_by_text("Two people who rank the same quintet").wait_for()
    assert page.get_by_role("row").filter(has_text=labelers[0].username).count() == 1
    assert not is_too_wide(page)
    axe.check(page)

    page.get_by_role("link", name="Audits").click()
    page.get_by_role("heading", name="Who stands out").wait_for()
    page.get_by_text("Half of their rankings took under 1.0 s").wait_for()
    bars = page.locator("svg.picture").first.locator("rect")
    assert bars.count() == 5
    floors = {round(box["y"] + box["height"]) for box in (bar.bounding_box() for bar in bars.all())}
    assert len(floors) == 1, "all bars stand on one line"
    chance = page.locator("svg.picture").first.locator("line.chance").first.bounding_box()
    frame = page.locator("svg.picture").first.bounding_box()
    assert frame["y"] < chance["y"] < frame["y"] + frame["height"]
    page.get_by_text("The numbers").click()
    assert page.get_by_role("cell", name="20 %").count() >= 5, "chance, place by place"
    assert not is_too_wide(page)
    axe.check(page)


def test_empty_pages_are_sound_too(new_page, sign_in, project, reviewer):
    page = new_page(viewport={"width": 390, "height": 844})
    sign_in(page, reviewer)
    for path in PAGES:
        page.goto(path)
        page.get_by_text("Nobody has ranked anything here yet").wait_for()
        assert not is_too_wide(page)
        axe.check(page)
