"""A project's form: making one, its starting model, editing it, how it is labelled."""

import pytest
from django.conf import settings
from django.db.models import Count, Q

from labeler.models import Checkpoint, Place, Project
from labeler.project_templates import TEMPLATES
from tests.labeler.projects import EDIT, rank, sample, saved_model, sent, start

__all__ = ["start"]  # fixtures

pytestmark = pytest.mark.django_db


# Making one


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
