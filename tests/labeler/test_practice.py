"""The practice grid: a step's rollouts as tiles, told apart by what the checker says, read one by one."""

import re

import pytest
from django.urls import reverse

from labeler.practice import size_of
from labeler.templatetags.practice import likelier
from tests.labeler import drilled as drills
from tests.labeler.drilled import drilled  # noqa: F401 - a fixture
from tests.labeler.test_steps import run  # noqa: F401 - a run that nobody checked

pytestmark = pytest.mark.django_db


def opened(client, run, step: int = 2, query: str = "", **more) -> str:  # noqa: F811
    answer = client.get(reverse("practice_step", args=[run.pk, step]) + query, **more)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def sections(text: str) -> list[str]:
    return re.findall(r"<section.*?</section>", text)


def test_every_prompt_stands_with_its_tiles_and_the_share_that_is_correct(as_admin, drilled):  # noqa: F811
    mixed, solved, unsolved = sections(opened(as_admin, drilled))
    assert "6 of 15 correct" in mixed and "40 %" in mixed and "right is <b" in mixed
    assert mixed.count('class="tile right') == 6 and mixed.count('class="tile wrong') == 9
    assert (
        mixed.count(">✓<") == 5
        and mixed.count(">✗<") == 9
        and mixed.count('aria-hidden="true">★</b></a>') == 1
    )
    assert "15 of 15 correct" in solved and "All are correct and earned the same" in solved
    assert "0 of 15 correct" in unsolved and "None is correct and all earned the same" in unsolved


def test_a_tile_says_in_words_what_its_sign_and_its_size_say(as_admin, drilled):  # noqa: F811
    first = sections(opened(as_admin, drilled))[0]
    labels = re.findall(r'aria-label="(\d+: [^"]+)"', first)
    assert labels[0] == "1: correct, picked for training, 3 tokens"
    assert labels[8] == "9: incorrect, 28 tokens"
    sizes = [int(each) for each in re.findall(r'class="tile \w+ s(\d)', first)]
    assert sizes[0] == 1 and sizes[8] == 5


def test_the_longest_is_the_largest_and_nothing_is_too_small_to_hit():
    assert [size_of(each, 100) for each in (0, 1, 20, 21, 60, 100)] == [1, 1, 1, 2, 3, 5]
    assert size_of(0, 0) == 1


def test_the_picked_one_is_explained_with_what_the_update_did_to_it(as_admin, drilled):  # noqa: F811
    first = sections(opened(as_admin, drilled))[0]
    assert "The yellow one was picked for training: it is correct, and of the correct ones" in first
    assert "<b>slightly more likely</b>: log-probability −14.20 → −13.90, 1.35 times as likely" in first


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (0.0, "about as likely as before"),
        (-0.04, "about as likely as before"),
        (0.3, "slightly more likely"),
        (-0.3, "slightly less likely"),
        (1.2, "more likely"),
        (5.0, "much more likely"),
        (-5.0, "much less likely"),
    ],
)
def test_words_go_by_how_far_the_update_moved_it(moved, words):
    assert likelier((-10.0, -10.0 + moved)) == words


def test_a_tile_is_read_with_what_the_checker_read_out_of_it_and_why(as_admin, drilled):  # noqa: F811
    text = opened(as_admin, drilled, query="?one=0-7", headers={"HX-Request": "true"})
    assert "<html" not in text and "✗ incorrect" in text
    assert '<dt>Read out of it</dt><dd dir="auto">107</dd>' in text and "107 is not 8." in text
    assert '<p class="say" dir="auto">The answer is 107.</p>' in text
    assert "<summary>Thinking" in text and "Let me see, 7." in text
    assert f"{reverse('step', args=[drilled.pk, 2])}?one=0-7" in text
    whole = opened(as_admin, drilled, query="?one=0-7")
    assert whole.count('aria-current="true"><b aria-hidden="true">✗') == 1 and "107 is not 8." in whole


def test_from_a_tile_its_verdict_is_one_press_away_on_whichever_page_it_stands(as_admin, drilled):  # noqa: F811
    text = opened(as_admin, drilled, query="?one=2-14", headers={"HX-Request": "true"})
    [address] = re.findall(r'href="([^"]+)">Confirm or overrule', text)
    listed = as_admin.get(address.replace("&amp;", "&").partition("#")[0]).content.decode()
    assert 'id="r-2-14"' in listed and address.endswith("#r-2-14")
    newer = {name: getattr(drilled, name) for name in ("kind", "state", "step", "total", "checker", "config")}
    drilled.project.runs.create(**newer).steps.create(step=1, metrics={})
    text = opened(as_admin, drilled, query="?one=2-14", headers={"HX-Request": "true"})
    assert "Confirm or overrule" not in text, "verdicts are said of the newest run"


def test_one_is_sent_to_the_labelers_beside_others_of_its_prompt(as_admin, drilled):  # noqa: F811
    text = opened(as_admin, drilled, query="?one=0-7", headers={"HX-Request": "true"})
    names = re.findall(r'name="rollout" value="([^"]+)"', text)
    assert names == ["0-7", "0-0"] and "Send it to the labelers" in text
    as_admin.post(reverse("step_send", args=[drilled.pk, 2]), {"rollout": names})
    quintet = drilled.quintets.get()
    assert quintet.extra["rollouts"] == ["0-0", "0-7"] and quintet.rollouts.count() == 5


def test_what_was_pulled_down_after_all_is_explained(as_admin, drilled):  # noqa: F811
    drills.write(drilled, (3,), picked=True, log_prob=[-2.7, -2.8])
    text = opened(as_admin, drilled, 3, "?one=0-0", headers={"HX-Request": "true"})
    assert "slightly less likely" in text and "pulled it down by more" in text


def test_prompts_are_shown_by_how_they_went(as_admin, drilled):  # noqa: F811
    text = opened(as_admin, drilled, query="?show=unsolved")
    [only] = sections(text)
    assert "9 * 9" in only and "Mixed · 1" in text and "None right · 1" in text
    assert "?show=unsolved&amp;one=2-0#reading" in only


def test_thousands_of_tiles_are_parted_by_prompt_and_stay_light(as_admin, drilled, monkeypatch):  # noqa: F811
    monkeypatch.setattr("labeler.practice.MOST_TILES", 30)
    text = opened(as_admin, drilled)
    assert len(sections(text)) == 2 and "page 1 of 2" in text
    [last] = sections(opened(as_admin, drilled, query="?page=2"))
    assert "9 * 9" in last and "?page=2&amp;one=2-0" in last
    tiles = re.findall(r'<a class="tile.*?</a>', last)
    assert max(map(len, tiles)) < 250


def test_every_step_leads_to_the_next_and_the_run_and_the_step_lead_here(as_admin, drilled):  # noqa: F811
    grid = reverse("practice_step", args=[drilled.pk, 2])
    assert as_admin.get(reverse("practice", args=[drilled.pk])).url == grid
    assert as_admin.get(reverse("practice", args=[drilled.pk]) + "?step=1").url.endswith("/1/")
    assert as_admin.get(reverse("practice", args=[drilled.pk]) + "?step=999").url == grid
    assert f'rel="prev" href="{reverse("practice_step", args=[drilled.pk, 1])}"' in opened(as_admin, drilled)
    for page in (reverse("step", args=[drilled.pk, 2]), reverse("run", args=[drilled.pk])):
        assert "/practice/" in as_admin.get(page).content.decode()


def test_where_nobody_checked_or_the_file_is_gone_it_says_so(as_admin, drilled, run):  # noqa: F811
    assert "No checker has judged these rollouts" in opened(as_admin, run, 2)
    (drilled.directory / "rollouts.jsonl.zst").unlink()
    assert "not here any more" in opened(as_admin, drilled)


def test_prompts_that_were_learnt_from_come_first_and_the_others_say_why_not(as_admin, drilled):  # noqa: F811
    drills.write(drilled, (3,), correct=(15, 4, 11), trained=False, picked=False, log_prob=None)
    texts = sections(opened(as_admin, drilled, 3))
    assert "other prompts were nearer to half and half" in texts[1] and "is correct and" not in texts[1]
    drills.write(drilled, (4,), correct=(15, 4, 11))
    assert ["17 + 25" in each for each in sections(opened(as_admin, drilled, 4))] == [True, False, False]


def test_a_rollout_of_a_hundred_thousand_characters_is_cut_on_the_page(as_admin, drilled):  # noqa: F811
    drills.write(drilled, (3,), rollout="a" * 100_000)
    assert len(opened(as_admin, drilled, 3, "?one=0-0", headers={"HX-Request": "true"})) < 30_000
