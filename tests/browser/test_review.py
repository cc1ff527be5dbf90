"""The pages of those who look after the labelling, in a real browser: axe-core on each, the width of a phone,
and a disagreement that is settled without a mouse."""

import pytest
from playwright.sync_api import expect

from labeler import review
from labeler.models import Quintet, User
from tests.browser import axe

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"width": 390, "height": 800}


@pytest.fixture
def quintet(project, compose, admin, labeler) -> Quintet:
    """One that people disagree about, in a project where something of everything was done."""
    project.revise_guidelines("Funny first.", admin)
    project.revise_guidelines("Funny first.\n\nThen kind.", admin)
    mira = User.objects.create_user("mira")
    project.admit(mira, "reviewer", admin)
    first, second, aside, accepted = compose(4)
    ranking = first.record_ranking(labeler, None, [1, 2, 3, 4, 5], nonsense=[4], unsafe=[3])
    first.record_ranking(mira, None, [5, 4, 3, 2, 1])
    accepted.record_ranking(mira, None, [5, 4, 3, 2, 1])
    review.accept(accepted, admin)
    review.make_check(second, admin, "gold", [1, 2, 3, 4, 5], "")
    review.make_check(second, admin, "practice", [1, 2, 3, 4, 5], "The first is a joke.")
    aside.skips.create(labeler=mira, reason="broken", note="half a sentence " * 6 + "x" * 120)
    aside.set_aside(None, "3 people skipped it.")
    ranking.send_back(admin, "D is about a dentist.")
    membership = project.memberships.get(user=labeler)
    membership.pause("Please read the guidelines.", admin)
    membership.exclude("Too fast.", admin)
    membership.take_back(admin)
    return first


ADDRESSES = [
    *(
        "people/",
        "people/of/{slug}/",
        "audit/{slug}/",
        "projects/{slug}/guidelines/",
        "projects/{slug}/edit/",
    ),
    *("review/{slug}/", "review/{slug}/?show=decided", "review/{slug}/checks/", "review/{slug}/{quintet}/"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_no_page_is_wider_than_a_phone(new_page, sign_in, admin, quintet, scheme):
    page = new_page(color_scheme=scheme, viewport=PHONE)
    sign_in(page, admin)
    for address in ADDRESSES:
        page.goto("/" + address.format(slug=quintet.project.slug, quintet=quintet.pk))
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        axe.check(page, "main")
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth"), address


def test_a_disagreement_is_settled_by_the_keyboard_alone(page, sign_in, admin, quintet):
    sign_in(page, admin)
    page.goto(f"/review/{quintet.project.slug}/")
    page.get_by_role("link", name="Joke number 1, please.").press("Enter")
    page.get_by_text("Decide it by your own ranks").press("Enter")
    page.locator("#decide-0").press("2")
    page.locator("#decide-1").press("1")
    page.get_by_role("button", name="Decide", exact=True).press("Enter")
    expect(page.get_by_text("It is decided by your ranks.")).to_be_visible()
    quintet.refresh_from_db()
    assert quintet.decided_ranks is not None
    page.get_by_role("button", name="Take it back").press("Enter")
    expect(page.get_by_text("It is open again.")).to_be_visible()


def test_what_a_reviewer_does_works_without_javascript(plain, quintet):
    page = plain(f"/review/{quintet.project.slug}/{quintet.pk}/")
    page.get_by_role("button", name="Accept it as it is").click()
    page.get_by_text("It is accepted as it is.").wait_for()
    page.get_by_role("button", name="Keep it after all").click()
    page.get_by_text("Send back").first.click()
    page.get_by_label("Because").first.fill("D is about a dentist.")
    page.get_by_role("button", name="Send back to lena").click()
    page.get_by_text("is asked to do it again").wait_for()
