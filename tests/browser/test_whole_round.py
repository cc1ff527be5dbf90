"""A whole round as an admin walks it in the demo project, with a real worker and simulated labelers in place
of people: it launches its own stages, stops at every gate, and ends with a checkpoint that is shipped."""

import pytest
from playwright.sync_api import Page, expect

from labeler.demo.seed import seed
from labeler.models import AuditEntry, Faceoff, Project, Ranking, Round, Run
from labeler.models.harvests import Harvest

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 240_000  # ms: two cores may be busy with other tests


@pytest.fixture
def demo(admin) -> Project:
    """The demo project with runs so short that they can be waited for."""
    project = seed()
    defaults = project.run_defaults
    defaults["reward"] |= {"epochs": 1}
    defaults["policy"] |= {"steps": 8, "checkpoint_every": 4, "evaluate_every": 4, "beta": 0}
    project.run_defaults = defaults
    project.keep_waiting = 0
    project.save()
    return project


def stage(page: Page, title: str):
    return page.locator(".backbone > li").filter(has=page.get_by_role("heading", name=title, exact=True))


def press(page: Page, title: str, words: str) -> None:
    """A gate's button, as soon as it is there."""
    button = stage(page, title).get_by_role("button", name=words)
    expect(button).to_be_visible(timeout=PATIENCE)
    button.click()


def test_a_whole_round_by_itself_with_people_at_the_gates(page, admin, sign_in, worker, demo):
    sign_in(page, admin)
    page.goto(f"/rounds/{demo.slug}/")
    page.get_by_text("Simulated labelers", exact=True).click()
    page.get_by_role("button", name="Let simulated labelers rank what waits").click()
    expect(page.get_by_text("simulated labelers rank here")).to_be_visible()
    page.get_by_role("button", name="Run the whole round").click()
    expect(page.get_by_text("runs by itself")).to_be_visible()
    worker.wait_until(lambda: Ranking.objects.filter(simulated=True).count() == 150 + 3 * 40, 60)

    press(page, "Ranking", "Enough is ranked")
    press(page, "Reward model", "It will do")
    press(page, "Policy", "Let people compare")
    reward, policy = Run.objects.get(kind="reward"), Run.objects.get(kind="policy")
    assert (reward.created_by, policy.reward_model.run) == (admin, reward)
    assert reward.dataset.simulated == reward.dataset.lines == 270

    expect(stage(page, "Face-off").get_by_text("0 of")).to_be_visible(timeout=PATIENCE)
    faceoff = Faceoff.objects.get()
    ranked = Ranking.objects.filter(quintet__faceoff=faceoff, simulated=True)
    worker.wait_until(lambda: ranked.count() == 3 * faceoff.quintets.count() > 0, 90)
    stage(page, "Face-off").get_by_role("link", name=f"Face-off {faceoff.number}").click()
    page.get_by_role("button", name="Ship").first.click()
    faceoff.refresh_from_db()
    shipped = faceoff.shipped
    assert shipped and Project.objects.get(pk=demo.pk).start == shipped

    page.goto(f"/rounds/{demo.slug}/")
    press(page, "The next round", "Close round 1 and begin the next")
    expect(page.get_by_text("is shipped, by")).to_be_visible()
    expect(stage(page, "Rollouts").get_by_text(f"From {shipped}")).to_be_visible()
    assert Round.objects.current(demo).number == 2

    worker.wait_until(lambda: Harvest.objects.filter(run=policy, finished_at__isnull=False).exists(), 60)
    assert not Ranking.objects.by_people().exists()
    assert AuditEntry.objects.filter(action="stage launched").count() == 3
    page.goto(f"/checkpoints/{shipped.pk}/lineage/")
    expect(page.get_by_role("heading", name=f"Lineage of {shipped.name}")).to_be_visible()
    expect(page.locator(".ancestry > li")).to_have_count(3 if shipped.run else 1)
