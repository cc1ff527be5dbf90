"""The pages of datasets: freezing from a form, looking at lines, laying two side by side, previews."""

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeler import datasets
from labeler.forms import RunForm
from labeler.models import Dataset, Run, User
from rlhf import data

pytestmark = pytest.mark.django_db


@pytest.fixture
def others(db) -> list[User]:
    return [User.objects.create_user(name) for name in ("ann", "bob")]


def lines_of(dataset: Dataset) -> list[dict]:
    return [line for _, line in data.read_lines(settings.HOME / dataset.path)]


def test_a_dataset_is_frozen_from_the_page(as_admin, admin, project, new_ranking):
    new_ranking(round=1)
    second = new_ranking(round=2)
    response = as_admin.post("/datasets/pelican-jokes/freeze/", {"rounds": ["2"], "surplus": "on"})
    frozen = Dataset.objects.get()
    assert response["Location"] == f"/datasets/pelican-jokes/{frozen.pk}/"
    assert [line["quintet"] for line in lines_of(frozen)] == [str(second.quintet_id)]
    assert frozen.created_by == admin
    page = as_admin.get(response["Location"]).content.decode()
    assert "rankings of round 2" in page
    assert "No two people ranked the same quintet" in page


def test_the_count_follows_the_form(as_admin, new_ranking, others):
    new_ranking(round=1)
    new_ranking(round=2, by=others[0])

    def count(query: str) -> str:
        answer = as_admin.get(f"/datasets/pelican-jokes/freeze/?{query}", headers={"HX-Request": "true"})
        assert "<html" not in answer.content.decode()
        return answer.content.decode()

    assert "2 rankings by people: 2 quintets, 2 prompts, 2 labelers." in count("")
    assert "1 ranking by people: 1 quintet" in count("labelers=ann")
    assert "No ranking is what was asked for." in count("labelers=ann&rounds=1")
    assert "One of the values cannot be used" in count("agreement=200")


@pytest.mark.parametrize("query", [{"agreement": "200"}, {"rounds": "99"}, {"since": "tomorrow"}])
def test_a_query_that_cannot_be_is_refused(as_admin, new_ranking, query):
    new_ranking(round=1)
    new_ranking(round=2)
    response = as_admin.post("/datasets/pelican-jokes/freeze/", query)
    assert response.status_code == 422
    assert "errorlist" in response.content.decode()
    assert not Dataset.objects.exists()


def test_nothing_is_not_frozen_and_the_page_says_so(as_admin, new_ranking, others):
    new_ranking(round=1)
    new_ranking(round=2, by=others[0])
    response = as_admin.post("/datasets/pelican-jokes/freeze/", {"rounds": ["1"], "labelers": ["ann"]})
    assert response.status_code == 422
    assert "No ranking is what was asked for." in response.content.decode()


def test_a_page_shows_lines_some_at_a_time(as_admin, project, new_ranking):
    for _ in range(13):
        new_ranking()
    frozen = datasets.freeze(project)
    address, everything = f"/datasets/pelican-jokes/{frozen.pk}/", lines_of(frozen)
    pages = [as_admin.get(address, {"page": number}).context["look"] for number in (1, 2, 3)]
    assert [each["line"] for page in pages for each in page] == everything
    part = as_admin.get(address, {"page": 3}, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert everything[12]["prompt"] in part
    whole = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert "<html" in as_admin.get(address, {"page": 3}, headers=whole).content.decode()


def test_a_page_says_which_runs_learnt_from_it_and_lays_it_against_another(as_admin, project, new_ranking):
    new_ranking()
    one = datasets.freeze(project)
    new_ranking()
    two = datasets.freeze(project)
    run = Run.objects.create(project=project, kind="reward", dataset=one)
    page = as_admin.get(f"/datasets/pelican-jokes/{one.pk}/").content.decode()
    assert f"/runs/{run.pk}/" in page
    assert f'<option value="{two.pk}">' in page
    answer = as_admin.get(f"/datasets/pelican-jokes/{one.pk}/against/", {"other": two.pk})
    assert (answer.context["difference"].same, answer.context["difference"].only_other) == (1, 1)
    assert as_admin.get(f"/datasets/pelican-jokes/{one.pk}/against/", {"other": 999_999}).status_code == 404


@pytest.mark.parametrize("form", ["ranked", "consensus", "pairs", "kto", "sft"])
@pytest.mark.parametrize("file", ["jsonl", "parquet", "csv"])
def test_every_download_has_a_preview_of_its_first_rows(as_admin, project, new_ranking, form, file):
    for _ in range(5):
        new_ranking()
    frozen = datasets.freeze(project)
    query = {"format": form, "file": file, "dataset": frozen.pk}
    page = as_admin.get("/datasets/pelican-jokes/preview/", query)
    assert 0 < len(page.context["rows"]) <= 3
    answer = as_admin.get("/datasets/pelican-jokes/export/", query)
    name = f"pelican-jokes-{frozen.pk}-{form}.{file}"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
    assert len(b"".join(answer.streaming_content)) > 100


@pytest.mark.parametrize(
    "query", ["format=odd", "format=pairs&file=xls", "dataset=99999", "dataset=x", "dataset=²"]
)
@pytest.mark.parametrize("view", ["preview", "export"])
def test_an_address_that_somebody_made_up_is_not_found(as_admin, new_ranking, view, query):
    new_ranking()
    assert as_admin.get(f"/datasets/pelican-jokes/{view}/?{query}").status_code == 404


def test_the_pages_take_as_few_queries_for_many_as_for_few(as_admin, project, new_ranking):
    def queries() -> list[int]:
        found = []
        for path in ("", f"{frozen.pk}/", f"{frozen.pk}/against/?other={other.pk}"):
            with CaptureQueriesContext(connection) as captured:
                as_admin.get(f"/datasets/pelican-jokes/{path}")
            found.append(len(captured))
        return found

    new_ranking()
    frozen = datasets.freeze(project)
    new_ranking()
    other = datasets.freeze(project)
    before = queries()
    for number in range(15):
        new_ranking(round=number + 2, by=User.objects.create_user(f"labeler {number}"))
        frozen = datasets.freeze(project)
        Run.objects.create(project=project, kind="reward", dataset=frozen)
    assert queries() == before


def test_where_only_simulated_labelers_ranked_the_preview_is_of_their_rankings(as_admin, new_ranking):
    new_ranking(by=User.objects.without_password("sim", simulated=True))
    page = as_admin.get("/datasets/pelican-jokes/")
    assert len(page.context["rows"]) == 1
    assert page.context["sums"].startswith("0 rankings by people and 1 simulated:")
    assert page.context["form"]["simulated"].value() is True, "or freezing would be refused"
    as_admin.post("/datasets/pelican-jokes/freeze/", {"simulated": "on", "surplus": "on", "harvest": "on"})
    assert Dataset.objects.get().simulated == 1


def test_a_run_may_learn_from_any_frozen_dataset(project, new_ranking):
    frozen = []
    for _ in range(25):
        new_ranking()
        frozen.append(datasets.freeze(project))
    choices = dict(RunForm(project, "reward").fields["dataset"].choices)
    assert set(choices) == {"now", *(str(each.pk) for each in frozen)}
    assert choices["now"] == "All rankings now"


@pytest.mark.parametrize("file", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("card", [{}, {"card": "on"}])
def test_a_download_of_nothing_is_no_empty_file_but_a_page_that_says_so(as_admin, new_ranking, file, card):
    new_ranking(round=1)
    response = as_admin.get(
        "/datasets/pelican-jokes/export/sft/", {"file": file, **card}, headers={"Accept": "text/html"}
    )
    page = as_admin.get(response["Location"])
    assert page.status_code == 200
    assert "There is nothing to download. Nobody has written a demonstration yet" in page.content.decode()
    assert '<input type="radio" name="format" value="sft"' in page.content.decode()
