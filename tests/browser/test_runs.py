"""The pages of runs in a real browser: curves from real rows, one cursor, news while it runs, and a phone."""

import math
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeler.models import Checkpoint, Run, Sample, Step
from rlhf import config

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(project) -> Run:
    """A policy run, twenty of its thirty steps made and two measured."""
    now = timezone.now()
    run = Run.objects.create(
        project=project,
        kind="policy",
        state="running",
        config=config.as_dict(config.make("policy", {"beta": 0, "steps": 30})),
        step=20,
        total=30,
        started_at=now - timedelta(seconds=20),
        leased_until=now + timedelta(minutes=5),
        log_tail="step 20 of 30",
    )
    make_steps(run, 1, 20)
    for step in (1, 10, 20):
        sample(run, step)
    start = Checkpoint.objects.create(project=project, name="Start", location="checkpoints/start")
    Run.objects.filter(pk=run.pk).update(start=start)
    return run


def make_steps(run: Run, first: int, last: int) -> None:
    for step in range(first, last + 1):
        metrics = {
            "seconds": step,
            "reward": round(0.9 - 0.5 * math.exp(-step / 8), 3),
            "kl": round(step / 10, 3),
            "entropy": 2 - step / 20,
            "distinct_2": 0.9 - step / 50,
            "length": 20 + step / 10,
            "finished": 0.98,
        }
        Step.objects.create(run=run, step=step, metrics=metrics)
    Run.objects.filter(pk=run.pk).update(step=last)


def sample(run: Run, step: int) -> None:
    line = {"prompt": "Write a joke.", "rollout": f"A joke of step {step}.", "score": 0.7, "kl": 1.0}
    Sample.objects.create(run=run, step=step, index=0, line=line | {"finished": True})


@pytest.fixture
def opened(page, sign_in, admin, run):
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    page.wait_for_selector(".plot polyline")
    return page


def value(page, series: str) -> str:
    return page.text_content(f"[data-series={series}]")


def test_the_curves_draw_every_step_on_one_axis(opened):
    drawn = opened.eval_on_selector_all(
        ".chart.large polyline.accent:not(.raw)", "lines => lines[0].getAttribute('points').split(' ').length"
    )
    assert drawn == 20
    ends = opened.eval_on_selector_all(
        ".plot", "plots => plots.map(plot => [...plot.querySelectorAll('text.tick')].at(-1).textContent)"
    )
    assert set(ends) == {"30"} and len(ends) == 5
    assert value(opened, "reward") == "0.86" and value(opened, "kl") == "2.00"


def test_one_cursor_moves_through_all_charts(opened):
    box = opened.locator(".chart.large .plot").bounding_box()
    opened.mouse.move(box["x"] + 50, box["y"] + 150)  # just right of the left axis: the first step
    assert set(opened.locator(".at").all_text_contents()) == {"step 1"}
    assert (value(opened, "kl"), value(opened, "entropy"), value(opened, "finished")) == (
        "0.10",
        "1.95",
        "98 %",
    )
    assert opened.locator(".cursor line").count() == 5
    opened.mouse.move(5, 5)
    assert set(opened.locator(".at").all_text_contents()) == {"step 20"}


def test_the_arrow_keys_move_the_cursor_and_say_its_values(opened):
    plot = opened.locator(".chart.large .plot")
    plot.focus()
    opened.keyboard.press("Home")
    opened.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuetext") == "step 2: reward 0.51, KL (right) 0.20"
    assert set(opened.locator(".at").all_text_contents()) == {"step 2"}
    opened.keyboard.press("Escape")
    assert set(opened.locator(".at").all_text_contents()) == {"step 20"}
    assert "reward from 0.46 at step 1 to 0.86 at step 20" in plot.get_attribute("aria-label")


def test_series_are_chosen_and_the_chart_goes_along_time_or_kl(opened):
    large = opened.locator(".chart.large")
    assert large.locator("polyline.plum").count() == 0
    large.get_by_role("checkbox", name="distinct-2").check()
    large.get_by_role("checkbox", name="reward").uncheck()
    assert (
        large.locator("polyline.plum:not(.raw)").count() == 1
        and large.locator("polyline.accent").count() == 0
    )
    opened.get_by_label("Along").select_option("seconds")
    assert large.locator("text.tick").last.text_content() == "20 s"
    opened.get_by_label("Along").select_option("sqrt_kl")
    assert large.locator("text.tick").last.text_content() == "1.4"
    opened.locator("#scale").select_option("log")
    assert "axis=sqrt_kl" in opened.url and "scale=log" in opened.url
    opened.reload()
    opened.wait_for_selector(".plot polyline")
    assert (
        opened.locator("#axis").input_value() == "sqrt_kl" and opened.locator("#scale").input_value() == "log"
    )


def test_another_run_is_drawn_over_it_and_stands_in_the_csv(opened, run, project):
    other = Run.objects.create(
        project=project, kind="policy", state="finished", config=run.config | {"beta": 0.1}, step=10, total=10
    )
    make_steps(other, 1, 10)
    opened.reload()
    opened.get_by_text("Draw other runs over it").click()
    box = opened.get_by_label(f"Policy run {other.pk}")
    assert "β, pull to the start 0.1" in opened.locator(".overlay label").first.text_content()
    box.check()
    opened.wait_for_selector(".chart.large polyline.over1")
    drawn = "lines => lines[0].getAttribute('points').split(' ').length"
    assert opened.eval_on_selector_all(".chart.large polyline.accent.over1", drawn) == 10
    assert opened.locator(".chart:not(.large) polyline.over1").count() == 4
    opened.locator(".chart.large .plot").focus()
    opened.keyboard.press("Home")
    assert f"Policy run {other.pk} at step 1: reward 0.46" in opened.locator(".beside").first.text_content()
    with opened.expect_download() as waited:
        opened.get_by_role("link", name="Steps as CSV").click()
    lines = waited.value.path().read_text().splitlines()
    assert lines[0].startswith("run,step,seconds,") and len(lines) == 31
    opened.reload()
    opened.wait_for_selector(".chart.large polyline.over1")


def test_what_people_said_is_drawn_with_its_intervals(opened, run, project):
    start = project.checkpoints.get()
    at_ten = run.checkpoints.create(project=project, name="10", step=10, location="x")
    round = project.rounds.create(number=1)
    rows = [
        {"checkpoint": each.pk, "name": "", "share": share, "low": share - 0.1, "high": share + 0.1}
        for each, share in ((start, 0.5), (at_ten, 0.7))
    ]
    found = {"people": {"rankings": 9, "verdict": "", "rows": rows}}
    faceoff = project.faceoffs.create(number=1, round=round, start=start, found=found)
    for place, each in enumerate((start, at_ten)):
        faceoff.contenders.create(checkpoint=each, place=place)
    assert opened.locator("[data-pick=people]").is_hidden()
    opened.reload()
    opened.wait_for_selector(".whisker", state="attached")
    assert opened.locator(".whisker").count() == 2
    assert value(opened, "people") == "0.70"


def test_of_thousands_of_steps_no_spike_is_thinned_away(page, sign_in, admin, run):
    run.steps.all().delete()
    told = ({"seconds": step, "reward": 0.9 if step == 3333 else 0.2, "kl": 1.0} for step in range(1, 6001))
    Step.objects.bulk_create(Step(run=run, step=n, metrics=each) for n, each in enumerate(told, start=1))
    Run.objects.filter(pk=run.pk).update(step=6000, total=6000, state="finished")
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    page.wait_for_selector(".plot polyline", state="attached")
    page.locator("#smoothing").fill("0")
    points = page.locator(".chart.large polyline.accent").first.get_attribute("points").split(" ")
    heights = {float(each.split(",")[1]) for each in points}
    assert len(points) < 3500 and len(heights) == 2


def test_smoothing_can_be_turned_off(opened):
    assert opened.locator(".line.raw").count() > 0
    opened.locator("#smoothing").fill("0")
    assert opened.locator(".line.raw").count() == 0


def test_the_numbers_are_there_as_a_table(opened):
    opened.locator(".chart.large summary").click()
    opened.locator(".chart.large tbody tr").last.wait_for()
    assert opened.locator(".chart.large tbody tr").count() == 20
    assert opened.locator(".chart.large tbody tr").last.text_content() == "200.862.00"


def test_a_live_page_brings_new_steps_and_samples_and_stops_when_the_run_ends(opened, run):
    polls = []
    opened.on("request", lambda request: polls.append(request.url) if "/live/" in request.url else None)
    make_steps(run, 21, 25)
    sample(run, 25)
    opened.locator(".at", has_text="step 25").first.wait_for()
    assert "step 25 of 30" in opened.text_content("#sentence")
    opened.wait_for_selector("text=A joke of step 25.")

    make_steps(run, 26, 30)
    crop = {"step": 12, "rules": ["The entropy is at 40% of its start."], "checkpoint": ""}
    ended = {"state": "finished", "finished_at": timezone.now(), "result": {"crop": crop}}
    Run.objects.filter(pk=run.pk).update(**ended)
    opened.wait_for_selector("text=✓ finished")
    opened.wait_for_selector("line.crop", state="attached")
    said = opened.text_content(".chart.large .plot").replace("\N{NO-BREAK SPACE}", " ")
    assert "Crop here, at step 12. The entropy is at 40 %" in said
    seen = len(polls)
    opened.wait_for_timeout(2600)
    assert len(polls) == seen, "a finished run's page asks for nothing"


def test_the_slider_goes_back_through_the_samples(opened):
    slider = opened.locator("#look")
    opened.wait_for_selector("text=A joke of step 20.")
    slider.focus()
    opened.keyboard.press("ArrowLeft")
    expect(opened.locator(".steps b")).to_have_text("Step 10")
    assert slider.get_attribute("aria-valuetext") == "step 10"
    assert opened.evaluate("document.activeElement.id") == "look"


def test_stopping_is_one_press(opened, run):
    opened.click("text=Stop after this step")
    opened.wait_for_selector("text=stopping after this step")
    run.refresh_from_db()
    assert run.cancel_requested


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(new_page, sign_in, admin, run, project, scheme):
    page = new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    sign_in(page, admin)
    pages = [
        f"{reverse('runs')}?project={project.slug}",
        reverse("run", args=[run.pk]),
        reverse("run_new", args=[project.slug, "rollouts"]),
        reverse("run_compare", args=[run.pk]),
        reverse("checkpoints"),
        reverse("checkpoint", args=[run.start_id or Checkpoint.objects.get().pk]),
    ]
    for address in pages:
        page.goto(address)
        wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room, address


def test_the_sums_of_the_launch_form_follow_the_hand(page, sign_in, admin, project, run):
    project.prompts.create(content="Write a joke.")
    Checkpoint.objects.create(project=project, kind="reward", name="Judge", location="checkpoints/judge")
    sign_in(page, admin)
    page.goto(reverse("run_new", args=[project.slug, "policy"]))
    page.fill("[name=steps]", "10")
    page.wait_for_selector("text=10 steps × 1 prompt × 8 rollouts = 80 rollouts scored")
    assert "1 setting differs from the defaults" in page.text_content("#sums")
    page.fill("[name=steps]", "many")
    page.wait_for_selector("text=One of the values cannot be used")
    assert page.input_value("[name=steps]") == "many"


def test_a_run_that_fails_before_its_first_step_leaves_no_empty_frames(page, sign_in, admin, project):
    lease = timezone.now() + timedelta(minutes=5)
    settings = config.as_dict(config.make("policy", {}))
    run = Run.objects.create(
        project=project, kind="policy", state="running", config=settings, leased_until=lease
    )
    sign_in(page, admin)
    page.goto(reverse("run", args=[run.pk]))
    page.wait_for_selector(".nothing")
    Run.objects.filter(pk=run.pk).update(state="failed", reason="There is no tokenizer.")
    page.wait_for_selector("text=Why it failed")
    page.wait_for_selector("#charts", state="detached")


def test_an_open_select_is_left_alone_while_the_answer_is_awaited(page, sign_in, admin, run):
    made = [
        run.checkpoints.create(project=run.project, name=f"Step {n}", step=n, location="x") for n in (10, 20)
    ]
    question = {"after": made[0].pk, "seed": 0}
    asked = run.requests.create(project=run.project, kind="compare", question=question)
    sign_in(page, admin)
    page.goto(reverse("run_compare", args=[run.pk]))
    page.evaluate("window.first = document.querySelector('#after')")
    page.locator("#after").focus()
    asked.phase = "the starting model answers"
    asked.save()
    page.wait_for_selector("text=The starting model answers")
    assert page.evaluate("window.first.isConnected && document.activeElement === window.first")
    assert page.get_by_role("button", name="Ask again").is_disabled()
    answer = {"text": "Honk.", "finished": True}
    asked.answer = {"items": [{"prompt": "Joke?", "before": answer, "after": answer}]}
    asked.state = "answered"
    asked.save()
    page.wait_for_selector("text=Honk.")
    assert page.get_by_role("button", name="Ask again with another seed").is_enabled()
    assert page.evaluate("window.first.isConnected")
