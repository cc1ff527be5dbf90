"""Projects: the list with what waits, the loop and its next step, guidelines' versions, its own admins."""

import pytest
from django.test import Client
from django.utils import timezone

from labeler.loop import A_FEW, standings
from labeler.models import Checkpoint, Project, Request, Round, Run, User
from tests.labeler.projects import EDIT, rank, sample, saved_model, sent, start

__all__ = ["start"]  # fixtures

pytestmark = pytest.mark.django_db


def simulate(project: Project, rankings: int) -> None:
    program = User.objects.without_password("sim-1", simulated=True)
    sample(project, rankings)
    for quintet in project.quintets.order_by("-pk")[:rankings]:
        quintet.record_ranking(program, None, [5, 4, 3, 2, 1])
        quintet.places.all().delete()


def standing(project: Project, user: User):
    return standings([project], user)[0]


# The list


def test_a_labeler_sees_their_projects_with_what_waits(as_labeler, labeler, project):
    Project.objects.create(name="Somebody else's", slug="other")
    sample(project, 3)
    rank(project, labeler, 1)
    page = as_labeler.get("/projects/").content.decode()
    assert "Rank · 2 waiting" in page
    assert "about <b>30 %</b> ranked by people" in page  # in tens, for those who are checked in secret
    assert "1 by you today" in page
    assert "Somebody else" not in page
    assert "/runs/new/" not in page


def test_a_labeler_reads_of_a_project_no_count_that_would_tell_a_hidden_check(as_labeler, labeler, project):
    sample(project, 3)
    rank(project, labeler, 1)
    page = as_labeler.get("/projects/pelican-jokes/").content.decode()
    assert "about <b>30 %</b> ranked by people" in page and "<b>1</b> of 3" not in page
    assert "By you today" in page and "<dt>By you</dt>" not in page


def test_simulated_rankings_are_counted_apart(as_labeler, as_admin, labeler, project):
    simulate(project, 2)
    sample(project, 1)
    rank(project, labeler, 1)
    told = {as_labeler: "about <b>100 %</b> ranked by people", as_admin: "<b>1</b> of 1 ranked by people"}
    for client, words in told.items():
        page = client.get("/projects/")
        assert words in page.content.decode()
        assert "+ 2 simulated" in page.content.decode()
    found = standing(project, labeler)
    assert (found.people, found.simulated, found.labelers) == (1, 2, 1)


def test_who_is_in_no_project_is_told_what_happens_next(as_stranger, project):
    assert "An admin can put you into one" in as_stranger.get("/projects/").content.decode()


def test_an_admin_without_a_project_is_led_to_one(as_admin):
    assert 'class="btn go" href="/projects/new/"' in as_admin.get("/projects/").content.decode()


def test_the_list_asks_no_more_of_the_database_as_it_grows(as_admin, project, django_assert_max_num_queries):
    for number in range(10):
        sample(Project.objects.create(name=f"Project {number}", slug=f"p{number}"), 2)
    with django_assert_max_num_queries(16):
        as_admin.get("/projects/")


# The loop


def said(project: Project, user: User) -> tuple[str, str, str]:
    step = standing(project, user).next
    return step.title, step.action, step.url


def test_a_project_is_led_round_the_loop(project, admin, labeler):
    """What the next step says, from nothing to the next round."""
    assert said(project, admin)[1:] == ("Choose a starting model", "/projects/pelican-jokes/edit/")
    project.start = Checkpoint.objects.create(name="Tiny", location="demo/checkpoint")
    project.save()
    assert said(project, admin)[1:] == ("Add prompts", "/prompts/pelican-jokes/add/")
    project.prompts.create(content="Write a joke.")
    assert said(project, admin)[1:] == ("Sample rollouts", "/runs/new/pelican-jokes/rollouts/")
    sample(project, 7)
    assert said(project, admin) == ("Rank a few", "Rank · 7 waiting", "/rank/pelican-jokes/")
    rank(project, labeler, A_FEW)
    reward = "/runs/new/pelican-jokes/reward/"
    assert said(project, admin) == ("Train reward model", "Train reward model", reward)
    run = project.runs.create(kind="reward", state="finished")
    run.checkpoints.create(project=project, kind="reward", name="Reward model 1", step=9)
    assert said(project, admin) == ("Run RLHF", "Run RLHF", "/runs/new/pelican-jokes/policy/")
    lease = timezone.now()
    policy = project.runs.create(kind="policy", state="running", leased_until=lease, step=27, total=90)
    assert said(project, admin) == ("Run RLHF", f"Watch run {policy.pk}", f"/runs/{policy.pk}/")
    assert standing(project, admin).next.said == f"Run {policy.pk} is at step 27 of 90"
    project.runs.filter(pk=policy.pk).update(state="finished")
    compare = f"/runs/{policy.pk}/compare/"
    assert said(project, admin) == ("Compare", "Compare before and after", compare)
    asked = {"project": project, "run": policy, "kind": "compare", "question": {}}
    Request.objects.create(**asked, state=Request.State.ANSWERED)
    best = policy.checkpoints.create(project=project, name="Step 20", step=20, suggested=True)
    rounds = "/rounds/pelican-jokes/"
    begin = f"/faceoffs/pelican-jokes/new/?run={policy.pk}"
    assert said(project, admin) == ("Let people decide", "Begin a face-off", begin)
    here = {"round": Round.objects.current(project), "start": best}
    faceoff = project.faceoffs.create(number=1, **here)
    assert said(project, admin)[1:] == ("Open face-off 1", "/faceoffs/pelican-jokes/1/")
    faceoff.shipped = best
    faceoff.save()
    assert said(project, admin) == ("Begin the next round", "Close round 1", rounds)
    assert standing(project, admin).next.said.startswith("Step 20 is shipped. Close this round:")
    Run.objects.filter(project=project).update(round=Round.objects.current(project))
    Round.objects.current(project).close(admin)
    again = f"/runs/new/pelican-jokes/rollouts/?start={best.pk}"
    assert said(project, admin) == ("Rank a few", "Sample the new policy", again)
    assert [step.state for step in standing(project, admin).steps] == ["missing"] * 4
    sample(project, A_FEW)
    rank(project, labeler, A_FEW)
    assert said(project, admin) == ("Train reward model", "Train reward model", reward)


def test_every_step_says_what_it_lacks(as_admin, project):
    page = as_admin.get("/projects/pelican-jokes/").content.decode()
    for words in (
        "a starting model to write",
        "needs rankings",
        "needs a reward model",
        "a finished RLHF run",
    ):
        assert words in page


def test_simulated_rankings_are_enough_to_train_on_but_people_are_asked_first(project, start, admin):
    simulate(project, 3)
    sample(project, 1)
    steps = standing(project, admin).steps
    assert [step.state for step in steps] == ["next", "open", "missing", "missing"]
    assert "0 by people, 3 simulated" in steps[1].said


# A project's page


def test_a_labeler_reads_the_guidelines_and_nothing_of_the_runs(as_labeler, project, start):
    project.guidelines = "## First\n\n**Funny** beats all. <script>alert(1)</script> [x](javascript:alert(1))"
    project.save()
    Run.objects.create(project=project, kind="reward")
    page = as_labeler.get("/projects/pelican-jokes/").content.decode()
    assert "<strong>Funny</strong>" in page
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    assert "/runs/" not in page
    assert "Tiny" not in page


def test_an_admin_sees_runs_people_and_the_start(as_admin, project, start, labeler):
    simulate(project, 1)
    run = Run.objects.create(project=project, kind="reward", state="failed", reason="No weights.")
    response = as_admin.get("/projects/pelican-jokes/")
    assert list(response.context["runs"]) == [run]
    assert response.context["people"] == [labeler]
    assert [each.username for each in response.context["programs"]] == ["sim-1"]
    assert "Tiny" in response.content.decode()


def test_a_member_of_two_projects_is_counted_once(as_admin, project, labeler):
    other = Project.objects.create(name="Other", slug="other")
    other.people.add(labeler)
    sample(project, 2)
    rank(project, labeler, 2)
    (person,) = as_admin.get("/projects/pelican-jokes/").context["people"]
    assert person.ranking_count == 2


def test_a_foreign_project_is_not_there(as_stranger, project):
    assert as_stranger.get("/projects/pelican-jokes/").status_code == 404


# The guidelines' versions


def test_a_change_of_the_guidelines_makes_a_version_that_rankings_name(as_admin, admin, project, labeler):
    sample(project, 2)
    as_admin.post(EDIT, sent(guidelines="Funny first."))
    rank(project, labeler, 1)
    as_admin.post(EDIT, sent(guidelines="Funny first.\r\nThen short ones."))
    rank(Project.objects.get(), labeler, 1)
    versions = list(project.guideline_versions.values_list("number", "text", "created_by"))
    assert versions == [(1, "Funny first.", admin.pk), (2, "Funny first.\nThen short ones.", admin.pk)]
    assert list(labeler.rankings.order_by("pk").values_list("guidelines__number", flat=True)) == [1, 2]
    project.refresh_from_db()
    assert project.guidelines == "Funny first.\nThen short ones."


def test_a_new_project_begins_with_its_first_version(as_admin):
    as_admin.post("/projects/new/", sent(guidelines="Funny first."))
    assert [each.text for each in Project.objects.get().guideline_versions.all()] == ["Funny first."]


def test_what_a_version_changed_is_shown_line_by_line(as_labeler, admin, project):
    for text in ("Funny first.\nThen short.", "Funny first.\nThen kind.", "Kind first."):
        project.revise_guidelines(text, admin)
    page = "/projects/pelican-jokes/guidelines/"
    assert as_labeler.get(page).context["lines"] == [
        ("gone", "Funny first."),
        ("gone", "Then kind."),
        ("new", "Kind first."),
    ]
    assert as_labeler.get(page, {"to": 2}).context["lines"] == [
        ("same", "Funny first."),
        ("gone", "Then short."),
        ("new", "Then kind."),
    ]
    lines = as_labeler.get(page, {"to": 3, "against": 1}).context["lines"]
    assert lines[1] == ("gone", "Then short.")
    assert as_labeler.get(page, {"to": 1}).context["lines"] is None
    assert as_labeler.get(page, {"to": "x", "against": "99"}).status_code == 200


def test_a_project_without_guidelines_says_so(as_labeler, project):
    assert "Nobody has written" in as_labeler.get("/projects/pelican-jokes/guidelines/").content.decode()


# A project's own admins


@pytest.fixture
def as_runner(project):
    rita = User.objects.create_user("rita")
    project.memberships.create(user=rita, role="admin")
    client = Client()
    client.force_login(rita)
    return client


def test_a_projects_admin_edits_it_and_sees_the_loop(as_runner, project, start):
    assert as_runner.get("/projects/").context["standings"][0].project == project
    assert "The loop" in as_runner.get("/projects/pelican-jokes/").content.decode()
    assert as_runner.post(EDIT, sent(start_from="checkpoint", checkpoint=start.pk)).status_code == 302
    assert "/projects/new/" not in as_runner.get("/projects/").content.decode()


def test_a_folder_of_the_server_is_chosen_by_those_who_run_it(as_runner, as_admin, project, tmp_path):
    folder = str(saved_model(tmp_path / "model"))
    answer = as_runner.post(EDIT, sent(start_from="folder", folder=folder))
    assert "start_from" in answer.context["form"].errors
    assert as_admin.post(EDIT, sent(start_from="folder", folder=folder)).status_code == 302


@pytest.mark.parametrize("path", ["new/", "pelican-jokes/edit/"])
def test_only_admins_make_and_edit_projects(path, client, as_labeler, project):
    address = "/projects/" + path
    assert client.post(address, sent()).status_code == 302
    for method in (as_labeler.get, as_labeler.post):
        assert method(address, sent()).status_code == (403 if path == "new/" else 404)
    assert Project.objects.get().name == "Pelican jokes"


@pytest.mark.parametrize("path", ["", "pelican-jokes/"])
def test_pages_that_only_show_reject_post(path, as_admin, project):
    assert as_admin.post("/projects/" + path).status_code == 405
