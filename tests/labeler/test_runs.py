"""The pages of runs, on rows made here: what they say, what they refuse, when they stop asking for news."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from labeler import charts
from labeler.models import (
    Checkpoint,
    Request,
    Round,
    Run,
    Sample,
    Step,
)
from tests.labeler.runs import HTMX, checkpoint, make, page, read, samples

# Who may see them


def test_a_labeler_is_refused_every_page_of_runs(as_labeler, project, reward_run):
    assert as_labeler.get(reverse("runs")).status_code == 403
    pages = [reverse("run_new", args=[project.slug, "reward"])]
    pages += [reverse(name, args=[reward_run.pk]) for name in ("run", "run_live", "run_steps", "run_compare")]
    assert {as_labeler.get(page).status_code for page in pages} == {404}
    assert as_labeler.post(reverse("run_cancel", args=[reward_run.pk])).status_code == 404


def test_a_visitor_is_sent_to_the_sign_in(client, reward_run):
    response = client.get(reverse("run", args=[reward_run.pk]))
    assert response.status_code == 302 and response.url.startswith(reverse("sign_in"))


def test_a_run_that_is_not_there_is_not_found(as_admin, project):
    assert as_admin.get(reverse("run", args=[999])).status_code == 404
    assert as_admin.get(reverse("run_new", args=[project.slug, "dance"])).status_code == 404


# The list


def test_an_empty_list_says_what_to_do_next(as_admin, project):
    said = page(as_admin, "runs", query_params={"project": project.slug})
    assert "No run yet" in said and reverse("run_new", args=[project.slug, "reward"]) in said


def test_the_list_polls_only_while_a_run_is_live(as_admin, project):
    run = make(project, "policy", "running")
    assert "every 2s" in page(as_admin, "runs")
    Run.objects.filter(pk=run.pk).update(state="finished", finished_at=timezone.now())
    assert "every 2s" not in page(as_admin, "runs")


def test_a_row_of_the_list_says_how_far_the_run_is(as_admin, project):
    make(project, "policy", "running")
    make(project, "reward", "queued")
    said = page(as_admin, "runs", **HTMX)
    assert "step 6 of 12 · 46 s gone, about 10 s left" in said
    assert "waiting behind 1 run" in said
    assert "<html" not in said


def test_a_row_of_the_list_says_what_came_of_a_finished_run(as_admin, reward_run):
    assert "orders 76 % of 210 held-out pairs as the labelers did" in page(as_admin, "runs")


def test_a_run_whose_worker_is_gone_does_not_pass_for_running(as_admin, project):
    run = make(project, "policy", "running")
    Run.objects.filter(pk=run.pk).update(leased_until=timezone.now() - timedelta(seconds=30))
    said = page(as_admin, "run", run.pk)
    assert "not heard of" in said and "● running" not in said


# One run


def test_a_live_run_polls_and_a_finished_one_does_not(as_admin, project):
    run = make(project, "policy", "running")
    assert "every 2s" in page(as_admin, "run", run.pk)
    assert "every 2s" in page(as_admin, "run_live", run.pk, **HTMX)
    Run.objects.filter(pk=run.pk).update(state="finished", finished_at=timezone.now())
    assert "every 2s" not in page(as_admin, "run_live", run.pk, **HTMX)
    assert "every 2s" not in page(as_admin, "run", run.pk)


def test_a_rollouts_run_shows_what_it_wrote(as_admin, project, rankings):
    run = make(project, "rollouts", "finished")
    quintet = project.quintets.last()
    quintet.run, quintet.group = run, 0
    quintet.save()
    said = page(as_admin, "run", run.pk)
    assert "Joke 4." in said and reverse("rank", args=[project.slug]) in said


def test_a_run_that_failed_while_starting_has_no_numbers(as_admin, project):
    run = make(project, "reward", "failed", step=0, total=0, result={"metrics": {}})
    said = page(as_admin, "run", run.pk)
    assert "failed while it was starting, after 46 s" in said and '<dl class="strip">' not in said


def test_a_run_that_is_starting_says_its_phase(as_admin, project):
    run = make(project, "policy", "running", step=0, phase="loading")
    assert "loading · 46 s gone" in page(as_admin, "run", run.pk)


def test_a_failed_run_says_why_and_what_to_do(as_admin, project):
    log = "\n".join(f"line {number}" for number in range(40))
    why = {"reason": "The loss is not a number.", "remedy": "Lower the learning rate.", "log_tail": log}
    said = page(as_admin, "run", make(project, "policy", "failed", **why).pk)
    assert "The loss is not a number." in said and "Lower the learning rate." in said
    assert "line 39" in said and "Try again" in said


def test_what_a_run_says_is_escaped(as_admin, project):
    run = make(project, "policy", "failed", reason="<script>alert(1)</script>", log_tail="<img src=x>")
    Sample.objects.create(
        run=run,
        step=1,
        index=0,
        line={"prompt": "<b>p", "rollout": "<script>alert(2)</script>", "score": None, "finished": True},
    )
    said = page(as_admin, "run", run.pk)
    assert "<script>alert" not in said and "<img" not in said and "<b>p" not in said


def test_a_run_that_ended_early_says_why_and_after_how_many_steps(as_admin, project, start):
    because = "the KL to the start is 12.31 nats a rollout, above the limit of 12"
    run = make(project, "policy", "finished", start=start, result={"stopped": because}, step=7)
    page = as_admin.get(reverse("run", args=[run.pk])).content.decode()
    assert f"<b>It ended before its last step</b>, because {because}." in page and "7 steps in" in page
    other = make(project, "policy", "finished", start=start, result={"stopped": None})
    assert "before its last step" not in as_admin.get(reverse("run", args=[other.pk])).content.decode()


def test_a_run_of_several_updates_or_of_a_kl_to_aim_at_draws_them(project, start):
    plain = make(project, "policy", "finished", start=start)
    both = make(
        project, "policy", "finished", {"updates_per_batch": 2, "kl_target": 8, "steps": 90}, start=start
    )
    drawn = [
        {line["key"] for chart in charts.charts(run) for line in chart["series"]} for run in (plain, both)
    ]
    assert drawn[1] - drawn[0] == {"clip_fraction", "sampler_kl", "beta"}


def test_a_finished_run_says_what_to_do_next(as_admin, project, reward_run, start):
    chosen = (
        f"{reverse('run_new', args=[project.slug, 'policy'])}?reward_model={reward_run.checkpoints.get().pk}"
    )
    assert chosen in page(as_admin, "run", reward_run.pk)
    policy = make(project, "policy", "finished", start=start)
    best = checkpoint(policy, 10, suggested=True)
    checkpoint(policy, 12)
    said = page(as_admin, "run", policy.pk)
    assert reverse("run_compare", args=[policy.pk]) in said
    assert f"{reverse('run_new', args=[project.slug, 'rollouts'])}?start={best.pk}" in said


def test_once_it_was_compared_people_decide_and_their_face_off_is_found_again(as_admin, project, start):
    run = make(project, "policy", "finished", start=start)
    best = checkpoint(run, 12, suggested=True)

    def offered() -> list[str]:
        return [each["words"] for each in as_admin.get(reverse("run", args=[run.pk])).context["next"]]

    assert offered()[:2] == ["Compare before and after", "Let people decide"]
    run.requests.create(project=project, kind="compare", question={}, state="answered")
    assert offered()[:2] == ["Let people decide", "Compare before and after"]
    found = project.faceoffs.create(number=1, round=Round.objects.current(project), start=start)
    found.contenders.create(checkpoint=best, place=1)
    assert offered()[0] == "See face-off 1"


def test_a_row_of_the_list_says_in_what_a_run_is_not_as_the_project_does_it(as_admin, project, start):
    make(project, "policy", "finished", {"steps": 90}, start=start)
    make(project, "policy", "finished", {"steps": 90, "beta": 0}, start=start)
    other = Checkpoint.objects.create(project=project, name="Another", location="checkpoints/another")
    make(project, "policy", "queued", {"steps": 90}, start=other)
    said = page(as_admin, "runs")
    assert said.count("<p>β, pull to the start 0</p>") == 1 and said.count("<p>from Another</p>") == 1


def test_a_suggested_crop_is_said_with_its_rules(as_admin, project):
    crop = {
        "step": 7,
        "rules": ["The entropy is at 40% of its start.", "The KL is 3 nats."],
        "checkpoint": "",
    }
    run = make(project, "policy", "finished", result={"crop": crop})
    said = page(as_admin, "run", run.pk)
    assert (
        "A crop is suggested at step 7." in said
        and "The entropy is at 40 % of its start. The KL is 3 nats." in said
    )


def test_a_crop_is_said_as_soon_as_its_signs_agree(as_admin, project):
    run = make(project, "policy", "running")
    run.steps.filter(step=4).update(metrics={"seconds": 8.0, "reward": 0.5, "crop": ["kl", "entropy"]})
    said = page(as_admin, "run", run.pk)
    assert "A crop is suggested at step 4." in said
    assert "The KL to the start and the entropy went past their limits." in said


def test_the_csv_of_overlaid_runs_says_whose_each_line_is(as_admin, as_stranger, project):
    run, other = make(project, "policy", "finished"), make(project, "policy", "running")
    of_another_kind = make(project, "reward", "finished")
    Step.objects.filter(run=run, step=1).update(metrics={"seconds": 2.0, "reward": 0.5, "rollouts": [0, 99]})
    query = {"form": "csv", "with": f"{other.pk},{of_another_kind.pk},{run.pk},999,x"}
    answer = as_admin.get(reverse("run_steps", args=[run.pk]), query_params=query)
    lines = answer.content.decode().splitlines()
    assert lines[0] == "run,step,seconds,kl,reward"
    assert lines[1] == f"{run.pk},1,2.0,,0.5" and len(lines) == 1 + 12 + 6
    assert {line.split(",")[0] for line in lines[1:]} == {str(run.pk), str(other.pk)}
    told = as_admin.get(reverse("run_steps", args=[run.pk])).json()["steps"][0]
    assert "rollouts" not in told
    alone = as_admin.get(reverse("run_steps", args=[run.pk]), query_params={"form": "csv"})
    assert alone.content.decode().splitlines()[0] == "step,seconds,kl,reward"


def test_a_csv_holds_no_more_runs_than_the_page_draws(as_admin, project):
    run, *others = [make(project, "policy", "finished") for _ in range(8)]
    query = {"form": "csv", "with": ",".join(str(each.pk) for each in others)}
    lines = as_admin.get(reverse("run_steps", args=[run.pk]), query).content.decode().splitlines()
    drawn = as_admin.get(reverse("run", args=[run.pk])).context["chart_spec"]["most"]
    assert len({line.split(",")[0] for line in lines[1:]}) == 1 + drawn == 5


def test_runs_to_draw_over_it_are_of_its_project_and_kind_and_say_how_they_differ(as_admin, project):
    run = make(project, "policy", "finished")
    other = make(project, "policy", "finished", {"beta": 0.0, "seed": 7})
    make(project, "reward", "finished")
    make(project, "policy", "queued")
    (offered,) = as_admin.get(reverse("run", args=[run.pk])).context["chart_spec"]["others"]
    assert offered["name"] == f"Policy run {other.pk}"
    assert "β, pull to the start 0" in offered["differs"] and "7" in offered["differs"]


def test_what_people_say_of_its_checkpoints_goes_with_the_steps(as_admin, project, start):
    run = make(project, "policy", "finished", start=start)
    five, ten = checkpoint(run, 5), checkpoint(run, 10)
    round = Round.objects.current(project)

    def faceoff(number: int, by: str, *shares) -> None:
        rows = [{"checkpoint": each.pk, "share": share, "low": 0.1, "high": 0.9} for each, share in shares]
        made = project.faceoffs.create(number=number, round=round, start=start, found={by: {"rows": rows}})
        for place, (each, _) in enumerate(shares):
            made.contenders.create(checkpoint=each, place=place)

    def told() -> dict:
        return as_admin.get(reverse("run_steps", args=[run.pk])).json()["marks"]["people"]

    faceoff(1, "simulated", (start, 0.5), (ten, 0.9))
    assert told()["by"] == "simulated" and [each["step"] for each in told()["points"]] == [0, 10]
    faceoff(2, "people", (start, 0.5), (five, 0.6))
    faceoff(3, "people", (start, 0.5), (five, 0.7))
    said = told()
    assert said["by"] == "people" and [each["people"] for each in said["points"]] == [0.5, 0.7]
    assert said["points"][1] == {"step": 5, "people": 0.7, "low": 0.1, "high": 0.9}


def test_the_config_that_ran_shows_what_differs_first(as_admin, project):
    project.run_defaults = {"policy": {"temperature": 0.5}}
    project.save()
    run = make(project, "policy", "finished", {"beta": 0, "steps": 12, "temperature": 0.5})
    shown = as_admin.get(reverse("run", args=[run.pk])).context["settings"]
    assert [row["setting"].name for row in shown if row["differs"]] == ["steps", "beta"]
    assert [row["differs"] for row in shown] == sorted((row["differs"] for row in shown), reverse=True)


def test_the_lineage_counts_people_and_programs_apart(as_admin, reward_run):
    said = page(as_admin, "run", reward_run.pk)
    assert "3 rankings by people, 150 simulated" in said and "3f9c" * 16 in said


def test_the_samples_of_any_measured_step_can_be_read(as_admin, project):
    run = make(project, "policy", "finished")
    samples(run, 1, 10, 12)
    assert "A joke of step <ins>12.</ins>" in page(as_admin, "run", run.pk)
    said = page(as_admin, "run", run.pk, query_params={"look": "1"}, **HTMX)
    assert "A joke of step <ins>10.</ins>" in said and "<html" not in said
    assert "A joke of step <ins>12.</ins>" in page(as_admin, "run", run.pk, query_params={"look": "nonsense"})


def test_a_sample_is_held_against_the_measurement_before_or_the_start(as_admin, project):
    run = make(project, "policy", "finished")
    for step, text, score in ((0, "the end", 0.1), (6, "why the end", 0.4), (12, "why the end", 0.4)):
        line = {"prompt": "Joke?", "rollout": text, "score": score, "kl": step / 6, "finished": True}
        Sample.objects.create(run=run, step=step, index=0, line=line)
    before = page(as_admin, "run", run.pk)
    assert "the same as at step 6" in before and "<ins>why" not in before
    start = page(as_admin, "run", run.pk, query_params={"against": "start"})
    assert "<ins>why </ins>the end" in start and "<ins>marked</ins> is what was not there at step 0" in start
    assert '<span class="quiet">0.10 →</span> <b>0.40</b> <span class="up">' in start
    assert '<b>2.00</b> <span class="quiet">KL' in start
    assert f'href="{reverse("steps", args=[run.pk])}?step=12">All rollouts of step 12</a>' in start
    first = page(as_admin, "run", run.pk, query_params={"look": 0})
    assert "<ins>" not in first and "step 6 →" in first


def test_the_measured_steps_are_links_too(as_admin, project):
    run = make(project, "policy", "finished")
    samples(run, 1, 10, 12)
    said = page(as_admin, "run", run.pk, query_params={"look": 1, "against": "start"})
    assert (
        'href="?look=0&amp;against=start#samples"' in said
        and 'href="?look=2&amp;against=start#samples"' in said
    )


def test_a_poll_brings_samples_only_when_there_are_new_ones(as_admin, project):
    run = make(project, "policy", "running")
    samples(run, 1)
    assert "A joke" not in page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 1}, **HTMX)
    samples(run, 5)
    said = page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 1}, **HTMX)
    assert "A joke of step <ins>5.</ins>" in said, "who looked at the newest moves along"
    samples(run, 6)
    said = page(as_admin, "run_live", run.pk, query_params={"look": 0, "had": 2}, **HTMX)
    assert "A joke of step 1." in said and 'max="2"' in said, "who looked back stays there"


def test_quintets_on_which_the_reward_model_and_people_disagree_come_first(as_admin, reward_run):
    def line(prompt: str, scores: list[float]) -> dict:
        return {"prompt": prompt, "rollouts": ["one", "two", "three"], "ranks": [1, 2, 2], "scores": scores}

    for index, scores in enumerate(([0.9, 0.5, 0.4], [0.2, 0.5, 0.4])):
        Sample.objects.create(run=reward_run, step=12, index=index, line=line(f"Prompt {index}", scores))
    shown = as_admin.get(reverse("run", args=[reward_run.pk])).context["samples"]
    assert [(each.prompt, each.turned, each.pairs) for each in shown] == [
        ("Prompt 1", 2, 2),
        ("Prompt 0", 0, 2),
    ]
    said = page(as_admin, "run", reward_run.pk)
    assert "2 of 2 pairs the other way round" in said and "ordered just so" in said


# The steps, for the charts


def test_the_steps_come_after_the_one_that_is_known(as_admin, project):
    run = make(project, "policy", "running")
    checkpoint(run, 5, suggested=True)
    url = reverse("run_steps", args=[run.pk])
    everything = as_admin.get(url).json()
    assert [each["step"] for each in everything["steps"]] == [1, 2, 3, 4, 5, 6]
    assert everything["steps"][0] == {"step": 1, "seconds": 2.0, "reward": 0.5, "kl": 1.5}
    marks = {"crop": None, "checkpoints": [{"step": 5, "suggested": True}]}
    assert everything["marks"] == marks | {"people": {"by": "simulated", "points": []}}
    assert [each["step"] for each in as_admin.get(url, {"after": "4"}).json()["steps"]] == [5, 6]
    assert len(as_admin.get(url, {"after": "x"}).json()["steps"]) == 6


def test_the_steps_can_be_had_as_csv(as_admin, project):
    run = make(project, "policy", "finished")
    response = as_admin.get(reverse("run_steps", args=[run.pk]), {"form": "csv"})
    lines = response.content.decode().splitlines()
    assert lines[:2] == ["step,seconds,kl,reward", "1,2.0,1.5,0.5"] and len(lines) == 13
    assert "attachment" in response["Content-Disposition"]


# Stopping


def test_a_run_is_asked_to_stop(as_admin, project):
    run = make(project, "policy", "running")
    assert as_admin.get(reverse("run_cancel", args=[run.pk])).status_code == 405
    said = read(as_admin.post(reverse("run_cancel", args=[run.pk]), **HTMX))
    run.refresh_from_db()
    assert run.cancel_requested and "stopping after this step" in said


def test_a_run_that_has_not_begun_is_taken_off_the_queue(as_admin, project):
    run = make(project, "policy", "queued")
    as_admin.post(reverse("run_cancel", args=[run.pk]))
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert "Taken off the queue by ada" in page(as_admin, "run", run.pk)


# Before and after


@pytest.fixture
def compared(project, start, reward_model) -> Run:
    run = make(project, "policy", "finished", start=start, reward_model=reward_model)
    checkpoint(run, 6, suggested=True)
    checkpoint(run, 12)
    return run


def answered(run: Run) -> None:
    side = {"text": "Why?", "score": 0.4, "finished": True}
    item = {"prompt": "Write a joke.", "before": side, "after": side | {"text": "Because.", "score": 0.7}}
    Request.objects.filter(run=run).update(state="answered", answer={"items": [item]})


def test_the_suggested_checkpoint_is_compared_unless_another_is_chosen(as_admin, admin, compared):
    said = page(as_admin, "run_compare", compared.pk)
    assert said.index("step 6 · suggested") < said.index("step 12") and "Not asked yet" in said
    suggested = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": suggested.pk, "seed": 0})
    asked = Request.objects.get()
    assert (asked.kind, asked.run, asked.created_by) == ("compare", compared, admin)
    assert asked.question["after"] == suggested.pk


def test_a_comparison_polls_until_it_is_answered(as_admin, compared):
    after = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": after.pk, "seed": 0})
    Request.objects.update(state="working", phase="opening the checkpoint")
    said = page(as_admin, "run_compare", compared.pk, **HTMX)
    assert "every 1s" in said and "Opening the checkpoint" in said
    answered(compared)
    said = page(as_admin, "run_compare", compared.pk, **HTMX)
    assert "every 1s" not in said and "Because." in said
    assert "from <b>0.40</b> to <b>0.70</b>; 1 of 1 answer" in said
    assert "reward model's opinion" in said and "Ask again with another seed" in said
    begin = f"{reverse('faceoff_new', args=[compared.project.slug])}?run={compared.pk}"
    assert f'href="{begin}">Let people decide</a>' in said


def test_a_comparison_that_failed_says_why(as_admin, compared):
    after = compared.checkpoints.get(step=6)
    as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": after.pk, "seed": 0})
    Request.objects.update(state="failed", reason="The folder is gone.", remedy="Run it again.")
    said = page(as_admin, "run_compare", compared.pk)
    assert "The folder is gone." in said and "Run it again." in said and "every 1s" not in said


def test_only_a_checkpoint_of_the_run_can_be_compared(as_admin, compared, start):
    asked = as_admin.post(reverse("run_compare", args=[compared.pk]), {"after": start.pk, "seed": 0})
    assert asked.status_code == 404 and not Request.objects.exists()
