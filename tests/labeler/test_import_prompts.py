"""`import_prompts`: prompts, and prompts with rollouts that then wait to be ranked."""

import json

import pytest
from django.core.management import CommandError, call_command

from labeler.models import Place, Project, Prompt, Quintet

pytestmark = pytest.mark.django_db


@pytest.fixture
def bring(tmp_path, capsys):
    def bring(content: str, *options: str, name: str = "file.jsonl") -> str:
        path = tmp_path / name
        path.write_text(content)
        call_command("import_prompts", path, "--project", "new-one", *options)
        return capsys.readouterr().out

    return bring


def test_rollouts_that_come_along_wait_to_be_ranked(bring):
    row = {"prompt": "p", "rollouts": ["a", "b", "c"], "models": ["m", "n", None]}
    assert bring(json.dumps(row)) == "1 quintets added; 0 were there already and left out.\n"
    quintet = Quintet.objects.get()
    assert [each.model for each in quintet.rollouts.all()] == ["m", "n", ""]
    assert Place.objects.filter(quintet=quintet, done=False).count() == Project.objects.get().overlap


def test_plain_text_is_a_prompt_a_line(bring):
    assert bring("one\n\ntwo, with a comma\n", name="a.txt").startswith("2 prompts added")
    assert bring('{"one"\n', "--format", "text").startswith("1 prompts added")
    assert list(Prompt.objects.values_list("content", flat=True)) == ["one", "two, with a comma", '{"one"']


def test_columns_under_other_names_are_understood(bring):
    assert bring("Question;Solution\n2 + 2?;4\n", name="sheet.csv").startswith("1 prompts added")
    assert Prompt.objects.values_list("content", "answer").get() == ("2 + 2?", "4")


def test_a_dry_run_keeps_nothing(bring):
    assert bring('{"prompt": "a"}', "--dry-run").startswith("1 prompts would be added")
    assert not Project.objects.exists()


def test_rankings_are_sent_to_the_other_command(bring):
    row = {"prompt": "p", "rollouts": ["a", "b"], "ranks": [1, 2]}
    with pytest.raises(CommandError, match="It holds rankings, which `import_rankings` takes"):
        bring(json.dumps(row))
