"""Rankings in and out: importing lines, freezing datasets, exports, agreement; and the pages of it."""

import hashlib
import io
import json
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from labeler import datasets, intake
from labeler.datasets.exports import Export
from labeler.datasets.formats import FORMATS
from labeler.models import Dataset, Demonstration, Place, Project, Quintet, Ranking, Round, User
from rlhf import data

pytestmark = pytest.mark.django_db
ODD = 'Écris 🦤 ‮שלום\n\t"quoted" \\u0041 &lt; \u2028 z̗̈'


def line(**values) -> dict:
    known = {"prompt": "Write a joke.", "rollouts": list("abcde"), "ranks": [2, 1, 3, 5, 4]}
    return known | {"labeler": "lena", "quintet": "q1", "seconds": 12.5, "simulated": False} | values


def file_of(*lines: dict) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in lines))


def bring_in(project: Project, *lines: dict) -> intake.Imported:
    return intake.import_rankings(project, intake.read_rankings(file_of(*lines)))


def exported(project: Project, form: str = "ranked", simulated: bool = False) -> list[dict]:
    return [json.loads(each) for each in written(project, form, simulated).splitlines()]


def written(project: Project, form: str = "ranked", simulated: bool = False, **options) -> bytes:
    query = datasets.Query(simulated=simulated)
    return b"".join(Export(project, FORMATS[form], query=query, **options).stream())


def by_quintet(lines: list[dict]) -> list[dict]:
    return sorted(lines, key=lambda each: each["quintet"])


@pytest.fixture
def ranked(project, labeler) -> Project:
    """Two quintets by a person, one of them with ties, and one by a simulated labeler."""
    bring_in(
        project,
        line(),
        line(quintet="q2", prompt="Write another.", ranks=[1, 1, 2, 2, 3], seconds=None),
        line(quintet="q3", labeler="sim-1", simulated=True, ranks=[5, 4, 3, 2, 1]),
    )
    return project


# Rankings in


def test_lines_become_quintets_that_nobody_is_asked_to_rank_again(ranked, labeler):
    assert ranked.quintets.count() == 3
    assert not Place.objects.exists()
    ranking = Ranking.objects.get(quintet__external_id="q1")
    assert (ranking.ranks, ranking.labeler, ranking.seconds) == ([2, 1, 3, 5, 4], labeler, 12.5)
    assert [each.text for each in ranking.quintet.rollouts.all()] == list("abcde")


def test_every_line_comes_out_as_it_went_in(project):
    lines = [
        line(prompt=ODD, rollouts=[ODD, "", "b", "b", ODD + "x"], source={"b": [1, None], "a": 0.5}),
        line(
            prompt=[{"role": "system", "content": "Brief."}, {"role": "user", "content": ODD}], quintet="q2"
        ),
        line(quintet="q3", rollouts=["a", "b"], ranks=[2, 1], labeler="somebody else"),
        line(quintet="q4", labeler="sim", simulated=True, ranks=[1, 1, 1, 1, 1]),
    ]
    bring_in(project, *lines)
    assert by_quintet(exported(project, simulated=True)) == by_quintet(lines)


def test_any_weak_order_is_taken_and_made_dense(project):
    bring_in(project, line(ranks=[30, 10, 10, -2, 7.5]))
    assert exported(project)[0]["ranks"] == [4, 3, 3, 1, 2]


def test_the_same_file_twice_adds_nothing(ranked):
    again = [*exported(ranked, simulated=True), line()]
    assert bring_in(ranked, *again) == intake.Imported(added=0, known=4)
    assert ranked.quintets.count() == 3


def test_an_export_of_what_was_ranked_here_is_known_again(project, labeler):
    prompt = project.prompts.create(content="Write a joke.")
    quintet = Quintet.objects.compose(project, Round.objects.current(project), prompt, list("abcde"))
    quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    lines = exported(project)
    assert bring_in(project, *lines, lines[0] | {"labeler": "other"}) == intake.Imported(added=1, known=1)
    assert quintet.rankings.count() == 2


def test_several_labelers_of_one_quintet_stay_together(project):
    bring_in(project, line(labeler="a"), line(labeler="b"), line(labeler="b", quintet="q2"))
    assert project.quintets.count() == 2


def test_a_second_look_by_the_same_labeler_is_kept_beside_the_first(project):
    lines = [line(), line(ranks=[1, 2, 3, 4, 5])]
    bring_in(project, *lines)
    assert exported(project) == lines[::-1]
    assert bring_in(project, *lines).added == 0


def test_new_labelers_get_accounts_that_nobody_can_sign_in_with(project, client):
    bring_in(
        project, line(labeler="new"), line(quintet="q2", labeler="sim", simulated=True), line(labeler=None)
    )
    new, sim, nameless = (User.objects.get(username=name) for name in ("new", "sim", "imported"))
    assert not any(each.is_active or each.has_usable_password() for each in (new, sim, nameless))
    assert (new.simulated, sim.simulated) == (False, True)


@pytest.mark.parametrize(
    "bad, reason",
    [
        ({"ranks": [1, 2]}, "“ranks” must be a list of 5 numbers"),
        ({"ranks": [1, 2, 3, 4, "5"]}, "must hold numbers only"),
        ({"rollouts": list("abcdef"), "ranks": [1, 2, 3, 4, 5, 6]}, "2 to 5 texts"),
        ({"rollouts": ["a", "b\0"], "ranks": [1, 2]}, "a NUL character"),
        ({"rollouts": ["a", "\ud800"], "ranks": [1, 2]}, "half a character"),
        ({"prompt": ""}, "“prompt” is empty"),
        ({"labeler": "x" * 151}, "longer than 150 characters"),
        ({"quintet": "x" * 201}, "longer than 200 characters"),
        ({"seconds": -1}, "not negative"),
        ({"seconds": 10**400}, "longer than anybody lives"),
        ({"simulated": True}, "lena is a person elsewhere, and simulated here"),
        ({"note": "x" * 1_000_000}, "longer than 1,000,000 bytes"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_nothing_comes_in(project, bad, reason):
    with pytest.raises(data.BadLine) as refused:
        bring_in(project, line(), line(**{"quintet": "q2"} | bad))
    assert refused.value.number == 2
    assert reason in refused.value.reason
    assert not Ranking.objects.exists()
    assert not project.prompts.exists()
    assert not User.objects.filter(username="x" * 151).exists()


# Freezing


def test_the_same_rankings_give_the_same_file(ranked, admin):
    first = datasets.freeze(ranked, by=admin)
    again = datasets.freeze(ranked)
    assert again == first
    assert first.created_by == admin
    content = (settings.HOME / first.path).read_bytes()
    assert first.path == f"datasets/{first.sha256}.jsonl"
    assert hashlib.sha256(content).hexdigest() == first.sha256
    assert content == written(ranked)


def test_the_order_of_import_does_not_matter(project):
    lines = [line(labeler=name) for name in ("b", "c", "a")]
    bring_in(project, *lines)
    other = Project.objects.create(name="Other", slug="other")
    bring_in(other, *reversed(lines))
    assert datasets.freeze(project).sha256 == datasets.freeze(other).sha256


def test_simulated_rankings_stay_out_unless_asked_for(ranked):
    people = datasets.freeze(ranked)
    everything = datasets.freeze(ranked, datasets.Query(simulated=True))
    assert (people.lines, people.simulated) == (2, 0)
    assert (everything.lines, everything.simulated, everything.by_people) == (3, 1, 2)


def test_a_frozen_dataset_does_not_change_with_the_project(ranked):
    first = datasets.freeze(ranked)
    before = (settings.HOME / first.path).read_bytes()
    bring_in(ranked, line(quintet="q9"))
    assert datasets.freeze(ranked) != first
    assert (settings.HOME / first.path).read_bytes() == before


def test_nothing_cannot_be_frozen(project):
    before = set((settings.HOME / "datasets").glob("*")) if (settings.HOME / "datasets").exists() else set()
    with pytest.raises(datasets.NothingToFreeze, match="no rankings yet"):
        datasets.freeze(project)
    with pytest.raises(datasets.NothingToFreeze, match="no demonstrations yet"):
        datasets.freeze_demonstrations(project)
    assert set((settings.HOME / "datasets").glob("*")) == before
    assert not Dataset.objects.exists()


def test_demonstrations_are_frozen_too(project, labeler):
    prompt = project.prompts.create(content="Write a joke.")
    Demonstration.objects.create(
        project=project, prompt=prompt, completion=ODD, author=labeler, extra={"a": 1}
    )
    dataset = datasets.freeze_demonstrations(project)
    assert dataset.kind == "demonstrations"
    (read,) = data.demonstrations(settings.HOME / dataset.path)
    assert (read.prompt, read.completion, read.extra) == ("Write a joke.", ODD, {"a": 1})


def test_a_trainer_reads_what_was_frozen(ranked):
    dataset = datasets.freeze(ranked, datasets.Query(simulated=True))
    read = data.rankings(settings.HOME / dataset.path)
    assert [each.ranks for each in read] == [(1, 1, 2, 2, 3), (2, 1, 3, 5, 4), (5, 4, 3, 2, 1)]


# Pairs


def test_pairs_follow_the_ranks_and_a_tie_is_no_pair(project):
    bring_in(project, line(rollouts=["a", "b", "c"], ranks=[2, 1, 2]))
    known = {"prompt": "Write a joke.", "chosen": "b", "margin": 1.0, "simulated": False}
    assert exported(project, "pairs") == [known | {"rejected": "a"}, known | {"rejected": "c"}]


def test_a_text_is_never_chosen_over_itself(project):
    bring_in(project, line(rollouts=["a", "a", "b"], ranks=[1, 2, 3]))
    pairs = exported(project, "pairs")
    assert [(each["chosen"], each["rejected"]) for each in pairs] == [("a", "b"), ("a", "b")]


def test_where_one_prompt_is_a_conversation_all_pairs_are(project):
    chat = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hello"}]
    bring_in(
        project,
        line(rollouts=["a", "b"], ranks=[1, 2]),
        line(quintet="q2", prompt=chat, rollouts=["a", "b"], ranks=[1, 2]),
    )
    plain, talk = exported(project, "pairs")
    assert plain["prompt"] == [{"role": "user", "content": "Write a joke."}]
    assert talk["prompt"] == chat
    assert plain["chosen"] == talk["chosen"] == [{"role": "assistant", "content": "a"}]


def test_a_ranking_of_five_gives_ten_pairs_and_simulated_ones_stay_out(ranked):
    assert len(exported(ranked, "pairs")) == 10 + 8
    assert len(exported(ranked, "pairs", simulated=True)) == 10 + 8 + 10


# The pages


def test_the_page_counts_people_and_simulated_labelers_apart(as_admin, ranked):
    counts = as_admin.get("/datasets/pelican-jokes/").context["counts"]
    assert counts == {"lines": 2, "labelers": 1, "quintets": 2, "prompts": 2, "simulated": 1, "harvested": 0}


@pytest.mark.parametrize("query, lines", [("", 2), ("?simulated=on", 3)])
def test_an_export_is_a_file_to_keep(as_admin, ranked, query, lines):
    response = as_admin.get("/datasets/pelican-jokes/export/ranked/" + query)
    assert response["Content-Disposition"] == 'attachment; filename="pelican-jokes-ranked.jsonl"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert len(b"".join(response.streaming_content).splitlines()) == lines


def test_an_export_takes_a_few_queries_however_long_it_is(project, django_assert_max_num_queries):
    bring_in(project, *(line(quintet=f"q{number}") for number in range(300)))
    with django_assert_max_num_queries(4):
        assert len(exported(project)) == 300


def test_there_is_no_export_of_an_unknown_form(as_admin, ranked):
    assert as_admin.get("/datasets/pelican-jokes/export/secrets/").status_code == 404


def test_a_frozen_dataset_can_be_read_and_downloaded(as_admin, ranked):
    dataset = datasets.freeze(ranked, datasets.Query(simulated=True))
    page = as_admin.get(f"/datasets/pelican-jokes/{dataset.pk}/").content.decode()
    assert dataset.sha256 in page
    assert "Write another." in page
    assert dataset.sha256 in as_admin.get("/datasets/pelican-jokes/").content.decode()
    response = as_admin.get(f"/datasets/pelican-jokes/{dataset.pk}/file/")
    name = f"pelican-jokes-rankings-{dataset.sha256[:8]}.jsonl"
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert hashlib.sha256(b"".join(response.streaming_content)).hexdigest() == dataset.sha256


def test_a_dataset_whose_file_is_gone_is_said_to_be(as_admin, ranked):
    dataset = datasets.freeze(ranked)
    (settings.HOME / dataset.path).unlink()
    assert "Its file is gone" in as_admin.get(f"/datasets/pelican-jokes/{dataset.pk}/").content.decode()
    assert as_admin.get(f"/datasets/pelican-jokes/{dataset.pk}/file/").status_code == 404


def test_a_dataset_is_not_found_under_another_project(as_admin, ranked):
    dataset = datasets.freeze(ranked)
    Project.objects.create(name="Other", slug="other")
    for path in ("", "file/"):
        assert as_admin.get(f"/datasets/other/{dataset.pk}/{path}").status_code == 404


@pytest.mark.parametrize("path", ["", "export/ranked/", "{pk}/", "{pk}/file/"])
def test_labelers_take_no_rankings_home(path, client, as_labeler, as_admin, ranked):
    address = "/datasets/pelican-jokes/" + path.format(pk=datasets.freeze(ranked).pk)
    assert client.get(address).status_code == 302
    assert as_labeler.get(address).status_code == 404
    assert as_admin.post(address).status_code == 405
    kept = as_admin.get(address)
    assert kept.status_code == 200
    kept.close()


# The commands


def test_rankings_are_imported_into_a_project_that_is_made(db, tmp_path, capsys):
    file = tmp_path / "r.jsonl"
    file.write_bytes(file_of(line(), line()).read())
    call_command("import_rankings", file, "--project", "new-one")
    assert capsys.readouterr().out == "1 rankings added; 1 were there already and left out.\n"
    assert Project.objects.get().slug == "new-one"


def test_a_dry_run_says_what_it_would_do_and_keeps_nothing(db, tmp_path, capsys):
    file = tmp_path / "r.jsonl"
    file.write_bytes(file_of(line()).read())
    call_command("import_rankings", file, "--project", "new-one", "--dry-run")
    assert capsys.readouterr().out == "1 rankings would be added; 0 are there already and left out.\n"
    assert not Project.objects.exists()
    assert not User.objects.exists()


def test_an_export_can_be_imported_elsewhere_and_exported_the_same(ranked, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    call_command("export", "pelican-jokes", "--include-simulated", "--output", first)
    call_command("import_rankings", first, "--project", "copy")
    call_command("export", "copy", "--include-simulated", "--output", second)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes().splitlines()) == 3
    assert set(tmp_path.iterdir()) == {first, second}


@pytest.mark.parametrize(
    "command, words",
    [
        (["export", "nowhere"], "There is no project nowhere"),
        (["export", "pelican-jokes", "--format", "odd"], "invalid choice"),
        (["export", "pelican-jokes", "--output", "/no/such/folder/x"], "cannot be written: No such file"),
        (["agreement", "nowhere"], "There is no project nowhere"),
        (["import_rankings", "/no/such/file", "--project", "x"], "cannot be read: No such file"),
    ],
)
def test_commands_refuse_in_words(ranked, command, words):
    with pytest.raises(CommandError, match=words):
        call_command(*command)


@pytest.mark.django_db(transaction=True)
def test_a_refused_command_ends_with_one_line_and_a_status(transactional_db, tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_text('{"prompt": "x"}\n')
    command = [sys.executable, "manage.py", "import_rankings", str(file), "--project", "new-one"]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "line 1: “rollouts” must be a list" in done.stderr
