"""Face-offs as an admin meets them: launching, progress, shipping, and what becomes of their rankings."""

import json

import pytest

from labeler import composing, datasets, intake
from labeler.datasets.exports import Export
from labeler.models import Checkpoint, Faceoff, Place, Project, Prompt, Round, Run
from labeler.models.faceoffs import FaceoffRefused
from tests.labeler.faced import asking, launch, policies, ranked, sampled

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoints(project) -> list[Checkpoint]:
    return policies(project)


def text(response) -> str:
    return " ".join(response.content.decode().split())


# Launching


def test_each_checkpoint_writes_in_a_run_of_its_own(project, checkpoints, admin):
    faceoff = launch(project, [checkpoints[3], checkpoints[1]], 8, 5, by=admin)
    contenders = list(faceoff.contenders.select_related("run"))
    assert [each.checkpoint for each in contenders] == [checkpoints[0], checkpoints[1], checkpoints[3]]
    assert [each.run.start for each in contenders] == [each.checkpoint for each in contenders]
    assert {each.run.config["count"] for each in contenders} == {4}, "two of each, and two to spare"
    assert len({each.run.config["seed"] for each in contenders}) == 3
    lines = (contenders[0].run.directory / "prompts.jsonl").read_text().splitlines()
    assert [int(json.loads(each)["id"]) for each in lines] == faceoff.asked and len(lines) == 8
    assert set(faceoff.asked) == set(Prompt.objects.values_list("pk", flat=True))
    assert faceoff.state == "sampling" and project.audit.first().action == "face-off begun"


def test_pressed_twice_it_is_begun_once(project, checkpoints, admin):
    one, other = (launch(project, checkpoints[1:2], by=admin) for _ in range(2))
    assert one == other and Run.objects.filter(kind="rollouts").count() == 2


@pytest.mark.parametrize("quintets", [4, 501])
def test_too_few_and_too_many_quintets_are_refused(project, checkpoints, quintets):
    with pytest.raises(FaceoffRefused, match="5 to 500 quintets"):
        launch(project, checkpoints[1:2], quintets)


def test_what_cannot_be_is_refused_in_words(project, checkpoints):
    start, first, *_ = checkpoints
    with pytest.raises(FaceoffRefused, match="set against the starting model"):
        launch(project, [start])
    judge = Checkpoint.objects.create(project=project, kind="reward", name="Judge", location="j")
    foreign = Checkpoint.objects.create(
        project=Project.objects.create(slug="o"), name="Foreign", location="f"
    )
    for wrong in (judge, foreign):
        with pytest.raises(FaceoffRefused, match="is no policy of this project"):
            launch(project, [first, wrong])
    more = [Checkpoint.objects.create(project=project, name=f"{n}", location=f"{n}") for n in range(2)]
    with pytest.raises(FaceoffRefused, match="4 checkpoints at most"):
        launch(project, [*checkpoints[1:], *more])
    Project.objects.filter(pk=project.pk).update(start=None)
    with pytest.raises(FaceoffRefused, match="no starting model"):
        launch(project, more)
    Prompt.objects.all().delete()
    with pytest.raises(FaceoffRefused, match="no prompts"):
        launch(project, [first], prompts=0)
    assert not Faceoff.objects.exists() and not Run.objects.filter(kind="rollouts").exists()


def test_the_starting_model_is_the_one_that_the_run_started_from(project, checkpoints):
    """Though the project has gone on from there since."""
    project.start = checkpoints[2]
    project.save()
    faceoff = launch(project, checkpoints[1:])
    assert faceoff.start == checkpoints[0] and faceoff.checkpoints == checkpoints


def test_the_form_picks_a_runs_checkpoints_and_says_what_it_comes_to(project, checkpoints, as_admin):
    Prompt.objects.create(project=project, content="Joke.")
    run = checkpoints[1].run
    page = text(as_admin.get(f"/faceoffs/{project.slug}/new/", {"run": run.pk}))
    assert page.count("checked") == 3
    assert "118 quintets of 4 checkpoints" in page
    assert "takes 191 separate comparisons of two" in page
    assert "has 9 pairs of different ones, 1.50 between any two" in page
    assert "191 ÷ 1.63 is 118 ranked quintets" in page
    asked = {"checkpoints": [checkpoints[1].pk], "quintets": "20"}
    sums = text(as_admin.get(f"/faceoffs/{project.slug}/new/", asked, headers={"HX-Request": "true"}))
    assert "20 quintets of 2 checkpoints" in sums and "<html" not in sums
    assert "a preference of 67 % or more is likely to be seen" in sums


def test_the_time_it_takes_is_what_rankings_here_took(project, checkpoints, as_admin, new_ranking):
    for _ in range(3):
        new_ranking(seconds=30)
    page = text(as_admin.get(f"/faceoffs/{project.slug}/new/", {"run": checkpoints[1].run_id}))
    assert "118 rankings: about 59 min of people’s time" in page


def test_the_form_launches(project, checkpoints, as_admin):
    for number in range(5):
        Prompt.objects.create(project=project, content=f"Joke {number}.")
    sent = {"checkpoints": [each.pk for each in checkpoints[1:]], "quintets": ""}
    response = as_admin.post(f"/faceoffs/{project.slug}/new/", sent, follow=True)
    assert response.redirect_chain[-1][0] == f"/faceoffs/{project.slug}/1/"
    assert len(Faceoff.objects.get().asked) == 118
    assert "The starting model" in text(response) and text(response).count("waiting behind") >= 3


@pytest.mark.parametrize(
    "sent, said",
    [
        ({}, "Choose a checkpoint."),
        ({"checkpoints": ["9999999"]}, "9999999"),
        ({"quintets": "3"}, "greater than or equal to 5"),
        ({"quintets": "many"}, "whole number"),
    ],
)
def test_the_form_refuses_in_words(project, checkpoints, as_admin, sent, said):
    given = {"checkpoints": [checkpoints[1].pk]} | sent if "quintets" in sent else sent
    response = as_admin.post(f"/faceoffs/{project.slug}/new/", given)
    assert response.status_code == 422 and said in text(response)
    assert not Faceoff.objects.exists()


def test_without_prompts_the_form_says_so(project, checkpoints, as_admin):
    response = as_admin.post(f"/faceoffs/{project.slug}/new/", {"checkpoints": [checkpoints[1].pk]})
    assert response.status_code == 422 and "The project has no prompts yet" in text(response)


def test_many_checkpoints_are_picked_from_evenly(project, checkpoints, as_admin):
    from labeler.views.faceoffs import spread

    run = checkpoints[1].run
    for step in range(40, 110, 10):
        Checkpoint.objects.create(project=project, run=run, step=step, name=f"s {step}", location=f"{step}")
    run.checkpoints.filter(step=20).update(suggested=True)
    steps = sorted(each.step for each in spread(run))
    assert len(steps) == 4 and 20 in steps and 100 in steps and len(set(steps)) == 4


# On its way


def test_a_run_that_came_to_nothing_is_said_and_can_be_done_again(project, checkpoints, admin, as_admin):
    faceoff = launch(project, checkpoints[1:2])
    first, second = [each.run for each in faceoff.contenders.select_related("run")]
    Run.objects.filter(pk=first.pk).update(state="finished")
    Run.objects.filter(pk=second.pk).update(state="failed")
    address = f"/faceoffs/{project.slug}/1/"
    assert "Sample again" in text(as_admin.get(address))
    as_admin.post(f"{address}again/")
    runs = [each.run for each in faceoff.contenders.select_related("run")]
    assert runs[0] == first and runs[1].pk > second.pk and Faceoff.objects.get().state == "sampling"
    sampled(faceoff)
    composing.attend()
    assert faceoff.quintets.count() == 6


def test_stopped_while_it_is_sampled_its_runs_are_stopped_too(project, checkpoints, admin, as_admin):
    faceoff = launch(project, checkpoints[1:2])
    as_admin.post(f"/faceoffs/{project.slug}/1/stop/")
    assert set(Run.objects.filter(kind="rollouts").values_list("state", flat=True)) == {"cancelled"}
    composing.attend()
    assert not faceoff.quintets.exists()
    as_admin.post(f"/faceoffs/{project.slug}/1/stop/", {"undo": ""})
    assert Faceoff.objects.get().state == "sampling"


def test_a_run_of_a_faceoff_leads_to_it(project, checkpoints, as_admin):
    faceoff = launch(project, checkpoints[1:2])
    run = faceoff.contenders.first().run
    Run.objects.filter(pk=run.pk).update(state="finished")
    assert f"/faceoffs/{project.slug}/1/" in text(as_admin.get(f"/runs/{run.pk}/"))
    page = text(as_admin.get(f"/runs/{checkpoints[1].run_id}/"))
    assert f"/faceoffs/{project.slug}/new/?run={checkpoints[1].run_id}" in page


def test_the_queue_is_topped_up_though_a_faceoff_failed(project, checkpoints):
    faceoff = launch(project, checkpoints[1:2])
    Run.objects.filter(contenders__faceoff=faceoff).update(state="failed", finished_at="2040-01-01T00:00Z")
    assert Run.objects.top_up(project) is not None


# Blind


def test_labelers_cannot_tell_it_from_other_work(project, checkpoints, labeler, as_labeler):
    asking(project, checkpoints[1:])
    page = text(as_labeler.get(f"/rank/{project.slug}/"))
    assert "Joke" in page
    hidden = ["face-off", "faceoff", "checkpoint", f"policy {checkpoints[1].run_id}, step"]
    said = page.lower()
    for rollout in Place.objects.get(labeler=labeler).quintet.rollouts.all():
        said = said.replace(rollout.text.lower(), "")  # which name their writer only in this test
    assert not [word for word in hidden if word in said]
    assert as_labeler.get(f"/faceoffs/{project.slug}/").status_code == 404
    assert as_labeler.get(f"/faceoffs/{project.slug}/1/").status_code == 404


def test_it_is_ranked_like_any_other(project, checkpoints, labeler):
    faceoff = asking(project, checkpoints[1:])
    for _ in range(6):
        place = Place.objects.next_for(labeler, project)
        place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key)
    assert Place.objects.next_for(labeler, project) is None
    assert faceoff.state == "done" and faceoff.progress() == {
        "filled": 6,
        "open": 0,
        "wanted": 6,
        "quintets": 6,
    }


# The page


def test_the_page_says_what_people_like_in_words_a_picture_and_a_table(
    project, checkpoints, labeler, as_admin
):
    faceoff = asking(project, checkpoints[1:], 30)
    address = f"/faceoffs/{project.slug}/1/"
    assert "Nobody has ranked any of it yet" in text(as_admin.get(address))
    ranked(faceoff, labeler, [0, 1, 3, 1], noise=0.5)
    page = text(as_admin.get(address))
    assert f"People like step 20 of run {checkpoints[1].run_id} best, surely." in page
    assert page.count('class="whisker"') >= 3 and "proxy run-0" in page
    assert "0.95" in page and f"Ship step 20 of run {checkpoints[1].run_id}" in page
    assert "by-simulated" not in page
    fragment = text(as_admin.get(address, headers={"HX-Request": "true"}))
    assert fragment.startswith('<div id="live"') and "<html" not in fragment
    listed = text(as_admin.get(f"/faceoffs/{project.slug}/"))
    assert "Face-off 1" in listed


def test_simulated_labelers_stand_apart_and_say_so(project, checkpoints, as_admin, django_user_model):
    program = django_user_model.objects.create_user("a program", simulated=True)
    faceoff = asking(project, checkpoints[1:], 20)
    ranked(faceoff, program, [0, 1, 3, 1], noise=0.5)
    page = text(as_admin.get(f"/faceoffs/{project.slug}/1/"))
    assert "What simulated labelers say, counted apart" in page
    assert "Simulated labelers like step 20" in page and "Ship what simulated labelers like best" in page
    assert "People like" not in page


def test_what_people_said_of_a_checkpoint_stands_on_its_page(project, checkpoints, labeler, as_admin, admin):
    faceoff = asking(project, checkpoints[1:], 30)
    ranked(faceoff, labeler, [0, 1, 3, 1], noise=0.5)
    said = "People rank it above the starting model"
    assert said not in text(as_admin.get(f"/checkpoints/{checkpoints[2].pk}/"))
    composing.attend()
    page = text(as_admin.get(f"/checkpoints/{checkpoints[2].pk}/"))
    assert said in page and "30 rankings" in page and f"/faceoffs/{project.slug}/1/" in page
    assert said not in text(as_admin.get(f"/checkpoints/{checkpoints[0].pk}/"))
    faceoff.ship(checkpoints[2], admin)
    assert said in text(as_admin.get(f"/projects/{project.slug}/"))


# Shipping


def test_shipping_makes_it_the_start_of_the_next_round_and_can_be_taken_back(
    project, checkpoints, labeler, as_admin, admin
):
    faceoff = asking(project, checkpoints[1:], 20)
    ranked(faceoff, labeler, [0, 1, 3, 1], noise=0.5)
    address = f"/faceoffs/{project.slug}/1/ship/"
    page = text(as_admin.post(address, {"checkpoint": checkpoints[2].pk}, follow=True))
    project.refresh_from_db()
    assert project.start == checkpoints[2] and "Shipped: the next round starts from" in page
    entry = project.audit.first()
    assert (entry.action, entry.by, entry.about["was"]) == ("ship", admin, checkpoints[0].pk)
    run = Run.objects.launch(project, "rollouts", {}, admin)
    assert run.start == checkpoints[2]
    as_admin.post(address, {"undo": ""})
    project.refresh_from_db()
    assert project.start == checkpoints[0] and Faceoff.objects.get().shipped is None
    assert project.audit.first().action == "take back"


def test_what_is_not_in_it_is_not_shipped(project, checkpoints, as_admin):
    asking(project, checkpoints[1:2])
    for wrong in (checkpoints[3].pk, "", "x", checkpoints[0].pk):
        as_admin.post(f"/faceoffs/{project.slug}/1/ship/", {"checkpoint": wrong})
    project.refresh_from_db()
    assert project.start == checkpoints[0] and Faceoff.objects.get().shipped is None


def test_it_is_not_taken_back_over_somebody_elses_choice(project, checkpoints, admin):
    faceoff = asking(project, checkpoints[1:])
    faceoff.ship(checkpoints[2], admin)
    Project.objects.update(start=checkpoints[3])
    with pytest.raises(FaceoffRefused, match="another model by now"):
        faceoff.unship(admin)


# What becomes of its rankings


def frozen(project) -> list[dict]:
    with datasets.frozen.opened(datasets.freeze(project)) as source:
        return list(source.lines())


def test_its_rankings_join_the_next_dataset_marked(project, checkpoints, labeler, new_ranking):
    new_ranking()
    ranked(asking(project, checkpoints[1:]), labeler, [0, 1, 2, 3])
    lines = frozen(project)
    assert sorted(line.get("faceoff", 0) for line in lines) == [0, 1, 1, 1, 1, 1, 1]
    marked = next(line for line in lines if "faceoff" in line)
    assert set(marked["models"]) == {each.name for each in checkpoints}
    dataset = project.datasets.get()
    assert dataset.manifest["faceoffs"] == {"1": 6}
    with datasets.frozen.opened(dataset) as source:
        written = datasets.exports.card.written(Export(project, dataset=dataset), source, {})
    assert "| in face-off 1 | 6 |" in written


def test_the_mark_survives_the_way_into_another_project(project, checkpoints, labeler, tmp_path):
    ranked(asking(project, checkpoints[1:]), labeler, [0, 1, 2, 3])
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"".join(Export(project).stream()))
    other = Project.objects.create(name="Other", slug="other")
    with file.open("rb") as source:
        intake.import_rankings(other, intake.read_rankings(source), Round.objects.current(other))
    assert [line["faceoff"] for line in frozen(other)] == [1] * 6
