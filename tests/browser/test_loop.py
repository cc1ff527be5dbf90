"""The whole loop as a newcomer walks it in the demo project, with a real worker: sign in, rank, train, run,
compare, export."""

import json

import pytest
from playwright.sync_api import Page, expect

from labeler.demo.seed import seed
from labeler.models import Ranking, Request, Run
from tests.labeler.fixtures import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 180_000  # ms: two cores may be busy with other tests


def rank_by_keys(page: Page, keys: str) -> None:
    expect(page.locator(".card").first).to_be_focused()
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")


def rank_by_pointer(page: Page, letters: str) -> None:
    for rank, letter in enumerate(letters[:4], start=1):
        page.locator(f"[name=rank-{letter}][value='{rank}']").click()
    page.get_by_role("button", name="Submit and go on").click()


def wait_for(page: Page, kind: str) -> Run:
    """Stay on the run's page until it says that the run is finished."""
    expect(page.locator("#next")).to_be_visible(timeout=PATIENCE)
    run = Run.objects.filter(kind=kind).get()
    assert run.state == Run.State.FINISHED, run.reason
    return run


def test_the_whole_loop(page, admin, worker):
    project = seed()
    page.goto("/")
    page.get_by_label("Name").fill(admin.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Rank · 40 waiting").click()

    for number, keys in enumerate(["1234", "5432", "2143"], start=1):
        rank_by_keys(page, keys)
        expect(page.locator(".tally")).to_contain_text(f"{number} today")
    for number, letters in enumerate(["bdace", "edcba"], start=4):
        rank_by_pointer(page, letters)
        expect(page.locator(".tally")).to_contain_text(f"{number} today")
    assert Ranking.objects.filter(labeler=admin).count() == 5

    project.change(admin, queue="uncertain")
    page.goto(f"/runs/new/{project.slug}/reward/")
    page.get_by_role("button", name="Train reward model").click()
    reward = wait_for(page, Run.Kind.REWARD)
    assert (reward.dataset.lines, reward.dataset.simulated) == (155, 150)

    worker.wait_until(lambda: Request.objects.filter(kind="order", state="answered").exists(), 120)
    unsure = project.quintets.waiting().exclude(scored_by=None).values_list("uncertainty", flat=True)
    assert len(unsure) == 35 and 0 < min(unsure) < max(unsure) <= 1

    page.locator("#next").click()
    page.get_by_label("Steps", exact=True).fill("12")
    page.get_by_role("button", name="Run RLHF").click()
    policy = wait_for(page, Run.Kind.POLICY)
    assert list(policy.steps.values_list("step", flat=True)) == list(range(1, 13))
    assert policy.reward_model.run == reward

    page.get_by_role("link", name="Compare before and after").click()
    page.get_by_role("button", name="Compare before and after").click()
    expect(page.locator(".verdict")).to_contain_text("On average the score went from", timeout=PATIENCE)
    assert page.locator(".pair .answer").count() >= 10

    page.goto(f"/datasets/{project.slug}/")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).first.click()
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [line["labeler"] for line in lines] == [admin.username] * 5  # simulated ones stay out
    assert all(sorted(line["ranks"]) == [1, 2, 3, 4, 5] for line in lines)
