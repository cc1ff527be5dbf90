"""People decide: a face-off from its launch to the shipped checkpoint, with a real worker and model."""

import shutil

import pytest
from playwright.sync_api import expect

from labeler.demo.recipe import RUN_DEFAULTS
from labeler.demo.seed import _checkpoint
from labeler.models import Checkpoint, Faceoff, Prompt, Round
from tests.labeler.faced import asking, policies, ranked

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 180_000  # ms: two cores may be busy with other tests


@pytest.fixture
def of_the_demo(project, settings) -> list[Checkpoint]:
    """The demo's start, and a step of a run that in truth is the same model under another name."""
    project.run_defaults, project.keep_waiting = RUN_DEFAULTS, 0
    project.start = _checkpoint(project)
    project.save()
    run = project.runs.create(
        kind="policy", state="finished", start=project.start, round=Round.objects.current(project)
    )
    for step in range(1, 21):
        run.steps.create(step=step, metrics={"reward": 0.5 + step / 50})
    location = "checkpoints/pelican-jokes-after"
    shutil.copytree(project.start.folder, settings.HOME / location, dirs_exist_ok=True)
    after = Checkpoint.objects.create(
        project=project, run=run, step=20, name=f"policy {run.pk}, step 20", location=location
    )
    for number in range(5):
        Prompt.objects.create(project=project, content=f"Write a joke about pelicans, number {number}.")
    return [project.start, after]


def test_from_launch_to_shipping(page, new_page, sign_in, admin, labeler, project, of_the_demo, worker):
    start, after = of_the_demo
    sign_in(page, admin)
    page.goto(f"/runs/{after.run_id}/")
    page.get_by_role("link", name="Let people decide").click()
    expect(page.locator("#sums")).to_contain_text("59 quintets of 2 checkpoints")
    page.wait_for_load_state()
    page.get_by_label("Quintets").fill("5")
    expect(page.locator("#sums")).to_contain_text("5 quintets of 2 checkpoints")
    page.get_by_role("button", name="Ask people").click()
    expect(page.locator("h1")).to_have_text("Face-off 1")
    expect(page.locator("#live .way")).to_contain_text("0 of 5 places at 5 quintets filled", timeout=PATIENCE)

    # Somebody ranks, who likes what the run came to: whose a card is, only the database can tell.
    desk = new_page()
    sign_in(desk, labeler)
    desk.goto(f"/rank/{project.slug}/")
    wrote = {
        each.text.strip(): each.checkpoint
        for quintet in Faceoff.objects.get().quintets.all()
        for each in quintet.rollouts.all()
    }
    for number in range(1, 6):
        expect(desk.locator(".card").first).to_be_focused()
        texts = [each.strip() for each in desk.locator(".card .say").all_inner_texts()]
        assert "step 20" not in desk.content()
        order = sorted(range(len(texts)), key=lambda card: wrote.get(texts[card]) != after)
        for card in range(len(texts) - 1):  # the last place fills itself
            desk.keyboard.press(str(order.index(card) + 1))
        desk.keyboard.press("Enter")
        if number < 5:
            expect(desk.locator(".tally")).to_contain_text(f"{number} today")
        else:
            expect(desk.get_by_role("heading", name="You have ranked everything")).to_be_visible()
        page.goto(f"/faceoffs/{project.slug}/1/")
        expect(page.locator("#live .way")).to_contain_text(f"{number} of 5 places")

    expect(page.locator(".headline")).to_contain_text(f"step 20 of run {after.run_id}")
    expect(page.locator("svg.faceoff .whisker")).to_have_count(1)
    page.get_by_role("button", name=f"Ship step 20 of run {after.run_id}").last.click()
    expect(page.locator(".messages")).to_contain_text("Shipped: the next round starts from")
    project.refresh_from_db()
    assert project.start == after
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator(".messages")).to_contain_text("Taken back")
    project.refresh_from_db()
    assert project.start == start


@pytest.mark.parametrize("width", [390, 1280])
def test_the_picture_and_its_table_fit(new_page, sign_in, admin, labeler, project, width):
    checkpoints = policies(project)
    faceoff = asking(project, checkpoints[1:], 30)
    ranked(faceoff, labeler, [0, 1, 2, -1], noise=1)
    page = new_page(viewport={"width": width, "height": 844})
    sign_in(page, admin)
    page.goto(f"/faceoffs/{project.slug}/1/")
    expect(page.locator("svg.faceoff .whisker")).to_have_count(3)
    expect(page.locator("svg.faceoff .best")).to_have_count(1)
    assert page.locator("table.cells tbody tr").count() == 4
    expect(page.locator(".message.warning")).to_contain_text("Preference falls while the reward rises.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
