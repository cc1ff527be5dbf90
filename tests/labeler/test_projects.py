"""Projects: the list with what waits, the loop and its next step, making and editing one."""

import json

import pytest
from django.conf import settings
from django.db.models import Count, Q
from django.test import Client
from django.utils import timezone

from labeler.loop import A_FEW, standings
from labeler.models import Checkpoint, Place, Project, Prompt, Quintet, Request, Round, Run, User
from labeler.project_templates import TEMPLATES

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(project) -> Checkpoint:
    project.start = Checkpoint.objects.create(name="Tiny", location="demo/checkpoint")
    project.save()
    return project.start


def sample(project: Project, quintets: int) -> None:
    prompt, _ = Prompt.objects.get_or_create(project=project, content="Write a joke.")
    for _ in range(quintets):
        Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))


def rank(project: Project, labeler: User, quintets: int) -> None:
    for _ in range(quintets):
        place = Place.objects.next_for(labeler, project)
        place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key)


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
    assert said(project, admin) == ("Begin the next round", "Close round 1", rounds)
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


# Making one


SETTINGS = {
    "wider_overlap": 3,
    "wider_share": "0",
    "queue": "imported",
    "random_share": "0.2",
    "session_goal": 20,
    "gold_rate": "0.05",
    "repeat_rate": "0.03",
    "checks": "report",
    "gold_pass": "0.7",
    "repeat_pass": "0.6",
    "practice_pass": "0.7",
    "fooled": "warn",
}


def sent(**values) -> dict:
    fields = {"name": "Limericks", "guidelines": "Funny.", "overlap": 1, "keep_waiting": 20}
    return fields | SETTINGS | {"start_from": "later", "prompts": "one\ntwo"} | values


@pytest.mark.parametrize("key", ["jokes", "poems", "summaries", "blank"])
def test_each_template_makes_a_project_as_it_is(as_admin, key):
    form = as_admin.get("/projects/new/", {"template": key}).context["form"]
    values = {
        name: form[name].value() for name in ("name", "guidelines", "overlap", "keep_waiting", "prompts")
    }
    values["name"] = values["name"] or "My own"
    response = as_admin.post(f"/projects/new/?template={key}", values | {"start_from": "later"})
    project = Project.objects.get()
    assert response["Location"] == f"/projects/{project.slug}/"
    assert project.guidelines == TEMPLATES[key].guidelines
    assert list(project.prompts.values_list("content", flat=True)) == list(TEMPLATES[key].prompts)


def test_a_new_project_has_its_maker_prompts_and_address(as_admin, admin):
    as_admin.post("/projects/new/", sent(name="Écrits & co"))
    project = Project.objects.get()
    assert (project.slug, project.created_by, project.start) == ("ecrits-co", admin, None)
    assert project.prompts.count() == 2


@pytest.mark.parametrize(
    "name, slug",
    [("Pelican jokes", "pelican-jokes-2"), ("new", "new-2"), ("鸟", "project"), ("x" * 120, "x" * 50)],
)
def test_every_name_gets_an_address_of_its_own(as_admin, project, name, slug):
    as_admin.post("/projects/new/", sent(name=name))
    assert Project.objects.exclude(pk=project.pk).get().slug == slug
    assert as_admin.get(f"/projects/{slug}/").status_code == 200


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", ""),
        ("name", "a\0b"),
        ("name", "x" * 121),
        ("guidelines", "a\0b"),
        ("overlap", "0"),
        ("overlap", "-1"),
        ("overlap", "9" * 30),
        ("overlap", "x"),
        ("keep_waiting", "-1"),
        ("keep_waiting", ""),
        ("prompts", '{"prompt": "good"}\n{"prompt": ""}'),
        ("prompts", "a\0b"),
        ("start_from", "elsewhere"),
        ("start_from", ""),
    ],
)
def test_what_cannot_be_is_refused_at_its_field_and_nothing_is_made(as_admin, field, value):
    response = as_admin.post("/projects/new/", sent(**{field: value}))
    assert response.status_code == 422
    assert list(response.context["form"].errors) == [field]
    assert not Project.objects.exists()


# The starting model


def start_of(client, **values) -> Checkpoint | None:
    response = client.post("/projects/new/", sent(**values))
    return Project.objects.get().start if response.status_code == 302 else response


def saved_model(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]} | config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_start_that_is_here_can_be_chosen(as_admin):
    shipped = Checkpoint.objects.create(name="Tiny", location="demo/checkpoint")
    assert start_of(as_admin, start_from="checkpoint", checkpoint=shipped.pk) == shipped


def test_reward_models_and_other_projects_checkpoints_cannot_be_chosen(as_admin, project):
    for other in (
        Checkpoint.objects.create(name="R", kind="reward", location="a"),
        Checkpoint.objects.create(name="P", project=project, location="b"),
    ):
        response = as_admin.post("/projects/new/", sent(start_from="checkpoint", checkpoint=other.pk))
        assert "checkpoint" in response.context["form"].errors


def test_a_folder_can_be_chosen(as_admin, tmp_path):
    checkpoint = start_of(as_admin, start_from="folder", folder=str(saved_model(tmp_path / "my model")))
    assert checkpoint.location == str(tmp_path / "my model")
    assert (checkpoint.name, checkpoint.kind) == ("my model", "policy")
    assert checkpoint.project == Project.objects.get()


def test_a_folder_in_the_home_is_kept_relative_to_it(as_admin):
    folder = saved_model(settings.HOME / "models" / "small")
    assert start_of(as_admin, start_from="folder", folder=str(folder)).location == "models/small"


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "/no/such",
        "~/model",
        "models/../../etc",
        "hub:a/b",
        "/etc/passwd",
        "x" * 399,
        "\u202e/x",
        ".",
        "/a\tb",
    ],
)
def test_an_odd_folder_is_refused_in_words(as_admin, folder):
    response = start_of(as_admin, start_from="folder", folder=folder)
    assert list(response.context["form"].errors) == ["folder"]
    assert not Project.objects.exists()


def test_a_folder_without_a_usable_policy_is_refused_with_the_reason(as_admin, tmp_path):
    reward = saved_model(tmp_path / "reward", architectures=["LlamaForSequenceClassification"])
    pickled = saved_model(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    broken = saved_model(tmp_path / "broken")
    (broken / "config.json").write_text("{")
    for folder, words in ((reward, "a reward model"), (pickled, "Pickled"), (broken, "is not JSON")):
        response = start_of(as_admin, start_from="folder", folder=str(folder))
        assert words in response.context["form"].errors["folder"][0]


@pytest.mark.parametrize(
    "hub, revision, location",
    [
        ("some-lab/small-model", "", "hub:some-lab/small-model@main"),
        ("some-lab/small.model_2", "refs/pr/1", "hub:some-lab/small.model_2@refs/pr/1"),
        ("https://huggingface.co/some-lab/small-model", "0f3c", "hub:some-lab/small-model@0f3c"),
    ],
)
def test_a_model_of_the_hub_can_be_chosen(as_admin, hub, revision, location):
    assert start_of(as_admin, start_from="hub", hub=hub, revision=revision).location == location


@pytest.mark.parametrize(
    "field, value",
    [
        ("hub", ""),
        ("hub", "small-model"),
        ("hub", "../../etc/passwd"),
        ("hub", "lab/model/extra"),
        ("hub", "lab/model@main"),
        ("hub", "lab/mo del"),
        ("hub", "https://evil.example/lab/model"),
        ("hub", "läb/model"),
        ("hub", "lab/..model"),
        ("revision", "../main"),
        ("revision", "a b"),
        ("revision", "-x"),
        ("revision", "main\n"),
    ],
)
def test_an_odd_name_of_a_model_is_refused(as_admin, field, value):
    values = {"hub": "lab/model", "revision": "main"} | {field: value}
    response = as_admin.post("/projects/new/", sent(start_from="hub", **values))
    if value == "main\n":  # fields are stripped
        assert response.status_code == 302
    else:
        assert list(response.context["form"].errors) == ["hub"]


# Editing


def test_a_project_can_be_edited_and_keeps_its_address(as_admin, project, start):
    values = sent(name="Better jokes", start_from="checkpoint", checkpoint=start.pk, overlap=3)
    assert as_admin.get("/projects/pelican-jokes/edit/").status_code == 200
    as_admin.post("/projects/pelican-jokes/edit/", values)
    project.refresh_from_db()
    assert (project.name, project.slug, project.overlap, project.start) == (
        "Better jokes",
        "pelican-jokes",
        3,
        start,
    )


def test_the_same_model_is_entered_once(as_admin, project):
    for _ in range(2):
        as_admin.post("/projects/pelican-jokes/edit/", sent(start_from="hub", hub="lab/model"))
    assert Checkpoint.objects.count() == 1


def test_a_refused_edit_changes_nothing_and_loses_nothing(as_admin, project):
    response = as_admin.post("/projects/pelican-jokes/edit/", sent(name="Other", overlap=0))
    assert response.status_code == 422
    page = response.content.decode()
    assert 'value="Other"' in page
    assert "Edit Pelican jokes" in page
    project.refresh_from_db()
    assert project.name == "Pelican jokes"


# Labelling

EDIT = "/projects/pelican-jokes/edit/"


def words_of(project: Project) -> list[tuple[str, str]]:
    return [(entry.action, entry.words) for entry in project.audit.order_by("pk")]


def test_every_setting_of_the_labelling_can_be_changed(as_admin, project):
    values = {
        "overlap": 2,
        "wider_overlap": 4,
        "wider_share": "0.25",
        "queue": "uncertain",
        "random_share": "0.5",
        "ties": "on",
        "acceptable": "on",
        "rendered": "on",
        "session_goal": 0,
        "gold_rate": "0.1",
        "repeat_rate": "0",
        "checks": "pause",
        "gold_pass": "0.8",
        "repeat_pass": "0.5",
        "practice": "on",
        "practice_pass": "1",
        "fooled": "refuse",
        "keep_waiting": 7,
    }
    assert as_admin.post(EDIT, sent(name=project.name, **values)).status_code == 302
    project.refresh_from_db()
    read = {"on": True}
    for name, value in values.items():
        assert getattr(project, name) == read.get(value, type(getattr(project, name))(value)), name
    (settings, _) = words_of(project)
    assert settings[0] == "settings changed"
    assert "overlap: 1, now 2" in settings[1] and "ties: no, now yes" in settings[1]
    assert project.audit.get(action="settings changed").about["changed"]["checks"] == ["report", "pause"]


def test_saving_without_a_change_is_no_change(as_admin, project):
    for _ in range(2):
        as_admin.post(EDIT, sent())
    assert [action for action, _ in words_of(project)] == ["settings changed", "guidelines version"]


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("wider_share", "1.1", "from 0 to 1"),
        ("wider_share", "-0.1", "from 0 to 1"),
        ("random_share", "nan", "from 0 to 1"),
        ("gold_pass", "a tenth", "from 0 to 1"),
        ("practice_pass", "inf", "from 0 to 1"),
        ("overlap", "21", "from 1 to 20"),
        ("wider_overlap", "0", "from 1 to 20"),
        ("session_goal", "501", "from 0 to 500"),
        ("repeat_rate", "0.46", "More than half"),
        ("queue", "backwards", "not one of the available"),
        ("checks", "", "required"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_in_words(as_admin, project, field, value, words):
    answer = as_admin.post(EDIT, sent(name="Other", **{field: value}))
    assert answer.status_code == 422
    assert words in answer.context["form"].errors[field][0]
    project.refresh_from_db()
    assert project.name == "Pelican jokes"


def test_the_wider_overlap_is_no_narrower_than_the_other(as_admin, project):
    answer = as_admin.post(EDIT, sent(overlap=5, wider_overlap=4))
    assert "At least as many" in answer.context["form"].errors["wider_overlap"][0]
    assert as_admin.post(EDIT, sent(overlap=5, wider_overlap=5)).status_code == 302


def test_what_waits_gains_and_loses_open_places_with_the_overlap(as_admin, project, labeler, stranger):
    project.memberships.create(user=stranger)
    sample(project, 3)
    rank(project, labeler, 1)  # all that was asked for: it stays so
    held = Place.objects.next_for(labeler, project)

    def wanted() -> list[int]:
        filled = Q(places__done=False) | Q(places__labeler__isnull=False)
        counts = project.quintets.annotate(many=Count("places", filter=filled))
        return list(counts.order_by("pk").values_list("many", flat=True))

    as_admin.post(EDIT, sent(overlap=3))
    assert wanted() == [1, 3, 3]
    as_admin.post(EDIT, sent(overlap=1))
    assert wanted() == [1, 1, 1]
    assert Place.objects.next_for(labeler, project) == held


def test_another_order_of_the_queue_holds_for_what_waits(as_admin, project, labeler):
    sample(project, 20)
    as_admin.post(EDIT, sent(queue="random"))
    order = list(project.quintets.order_by("priority").values_list("pk", flat=True))
    assert order != sorted(order)
    assert Place.objects.next_for(labeler, project).quintet_id == order[0]


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
