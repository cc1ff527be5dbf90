"""The page of an evaluation in a real browser: it comes when the run has ended, and fits a phone."""

import json

import pytest
from django.urls import reverse

from labeler.models import Checkpoint, Evaluation, Run
from rlhf import config
from tests.labeler import measured

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(project) -> Run:
    """A comparison that waits for the worker."""
    first, second = (
        Checkpoint.objects.create(project=project, kind="reward", name=name, location=name)
        for name in ("Reward model 1", "Reward model 2")
    )
    settings = config.as_dict(config.make("evaluation", {}))
    return project.runs.create(kind="evaluation", reward_model=first, against=second, config=settings)


def end(run: Run) -> None:
    run.directory.mkdir(parents=True, exist_ok=True)
    Evaluation(run=run).file.write_text(json.dumps(measured.comparison()))
    Evaluation.objects.keep(run)
    Run.objects.filter(pk=run.pk).update(state="finished")


def test_the_page_waits_for_what_is_measured_and_then_shows_it(page, sign_in, admin, run):
    sign_in(page, admin)
    page.goto(reverse("evaluation", args=[run.pk]))
    assert page.get_by_role("heading", name="Not measured yet").is_visible()
    end(run)
    page.wait_for_selector("#measured .headline")
    assert "that can be told from chance" in page.text_content("#measured")
    assert page.get_attribute("#measured", "hx-get") is None  # it asks no more
    page.get_by_text("All about the second by itself").click()
    points = page.locator("details[open] svg.picture circle.model")
    assert points.count() > 8 and points.first.is_visible()
    with page.expect_download() as loading:
        page.get_by_text("Download evaluation.json").click()
    assert json.loads(loading.value.path().read_text())["against"]["claims"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_fits_a_phone(new_page, sign_in, admin, run, scheme):
    end(run)
    page = new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    sign_in(page, admin)
    for address in (reverse("evaluation", args=[run.pk]), reverse("run", args=[run.pk])):
        page.goto(address)
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), address
