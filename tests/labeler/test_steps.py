"""Any step of a policy run, opened: every rollout of it with what was made of it, and some of them sent to
the labelers. Read from a real file of rollouts, as a trainer writes it."""

import re
import tracemalloc
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from labeler import steps as rollouts
from labeler.models import AuditEntry, Place, Quintet, Run
from rlhf.run import RunDirectory
from tests.labeler.checked import practised, sums  # noqa: F401 - fixtures
from tests.labeler.runs import follow

pytestmark = pytest.mark.django_db

WORDS = ["Why", " did", " the", " pelican", " honk", "?"]


def line(step: int, group: int, index: int, **more) -> dict:
    """A rollout that pays more KL from token to token the later it is written."""
    kl = [round(0.01 * step * (index + 1) * place, 5) for place in range(len(WORDS) + 1)]
    told = {
        "step": step,
        "group": group,
        "index": index,
        "prompt": f"Joke number {group + 1}, please.",
        "rollout": "".join(WORDS) + f" ({step}, {group}, {index})",
        "tokens": list(range(100, 100 + len(kl))),
        "pieces": [*WORDS, ""],
        "reward": 0.5 + 0.1 * index,
        "parts": {"model": 0.7 + 0.1 * index, "kl": -0.2},
        "score": 0.6 + 0.01 * index,
        "advantage": 0.1 * (index - 1) + group,
        "kl": kl,
        "trained": group == 0,
        "finished": index != 2,
    }
    return told | more


@pytest.fixture
def run(project, home) -> Run:
    """Five steps of two prompts with three rollouts each, as the follower has brought them into rows."""
    for number in (1, 2):
        project.prompts.create(content=f"Joke number {number}, please.")
    run = project.runs.create(kind="policy", state="finished", step=5, total=5)
    run.directory.mkdir(parents=True)
    write(run, range(1, 6))
    follow(run)
    return run


def write(run: Run, steps, **more) -> RunDirectory:
    kept = RunDirectory(run.directory)
    for step in steps:
        kept.rollouts([line(step, group, index, **more) for group in (0, 1) for index in range(3)])
        kept.step(step, reward=0.6, kl=0.1 * step)
    return kept


def opened(client, run: Run, step: int, query: str = "", status: int = 200) -> str:
    answer = client.get(reverse("step", args=[run.pk, step]) + query)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def shown(text: str) -> list[str]:
    """The rollouts in the order in which they stand on the page."""
    return re.findall(r'id="r-(\d+-\d+)"', text)


def send(client, run: Run, step: int, *names: str, **more):
    return client.post(reverse("step_send", args=[run.pk, step]), {"rollout": names, **more}, follow=True)


# Reading


def test_a_step_shows_every_rollout_with_all_that_was_made_of_it(as_admin, run):
    text = opened(as_admin, run, 4)
    assert shown(text) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert "6 rollouts of 2 prompts; 3 were trained on, 4 ended by themselves" in text
    assert text.count("Joke number 1, please.") == 1
    card = text[text.index('id="r-1-2"') :]
    for said in ("not trained on", "cut off", "<dt>Advantage</dt><dd>1.10", "<dt>Reward</dt><dd>0.70"):
        assert said in card
    assert "<dt>of it, the model</dt><dd>0.90" in card and "<dt>of it, KL × β</dt><dd>−0.20" in card
    assert "<dt>KL</dt><dd>2.52" in card and "<dt>KL a token</dt><dd>0.36" in card
    assert '<span class="up2" title="0.60 nats" data-number="105">?</span>' in card


def test_its_tokens_stand_in_a_table_with_what_they_paid_so_far(as_admin, run):
    text = opened(as_admin, run, 4, "?one=0-1")
    assert shown(text) == ["0-1"]
    rows = re.findall(r"<tr><td.*?</tr>", text)
    cells = [re.sub(r"<[^>]+>", "|", row).strip("|").split("||") for row in rows]
    assert len(cells) == 7
    assert [cells[3][0], cells[3][-2], cells[3][-1]] == ["4", "0.24", "0.48"]
    part = as_admin.get(reverse("step", args=[run.pk, 4]) + "?one=0-1", headers={"HX-Request": "true"})
    assert b"<table>" in part.content and b"<html" not in part.content


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("by=kl", "0-2"),
        ("by=kl&low=1", "0-0"),
        ("by=advantage", "1-2"),
        ("by=finished&low=1", "0-2"),
        ("by=trained&low=1", "1-0"),
        ("by=nothing", "0-0"),
    ],
)
def test_rollouts_are_sorted_by_any_of_it(as_admin, run, query, first):
    assert shown(opened(as_admin, run, 3, f"?{query}"))[0] == first


def test_prompts_stand_together_unless_one_list_is_asked_for(as_admin, run):
    together = shown(opened(as_admin, run, 3, "?by=reward"))
    assert together == ["0-2", "0-1", "0-0", "1-2", "1-1", "1-0"]
    assert shown(opened(as_admin, run, 3, "?by=reward&flat=1")) == ["0-2", "1-2", "0-1", "1-1", "0-0", "1-0"]


def test_a_page_reads_the_bytes_of_its_step_and_no_others(as_admin, run):
    """The rest of the file is overwritten with what is no zstd at all."""
    path = run.directory / rollouts.FILE
    at, length = run.steps.get(step=3).metrics["rollouts"]
    whole = path.read_bytes()
    path.write_bytes(b"\0" * at + whole[at : at + length] + b"\0" * (len(whole) - at - length))
    assert len(shown(opened(as_admin, run, 3))) == 6
    assert "being written anew, or its file is broken" in opened(as_admin, run, 2)


def test_a_run_that_noted_no_places_is_searched(as_admin, run, monkeypatch):
    for step in run.steps.all():
        step.metrics.pop("rollouts")
        step.save()
    monkeypatch.setattr(rollouts, "A_PIECE", 100)  # frames are cut anywhere
    assert "(5, 1, 2)" not in opened(as_admin, run, 4)
    assert "of 2 prompts" in opened(as_admin, run, 5)
    monkeypatch.setattr(rollouts, "SEARCHED", 10)
    assert "not among its first" in opened(as_admin, run, 5)


def test_a_step_that_is_too_large_for_a_page_is_not_read(as_admin, run, monkeypatch):
    monkeypatch.setattr(rollouts, "LARGEST", 10)
    assert "too much for a page" in opened(as_admin, run, 2)


@pytest.mark.parametrize("noted", [True, False])
def test_a_step_that_unpacks_to_too_much_is_not_read_to_its_end(as_admin, run, monkeypatch, noted):
    """Thirty megabytes of one letter are three kilobytes, packed."""
    write(run, [6], rollout="a" * 5_000_000)
    follow(run)
    assert run.steps.get(step=6).metrics["rollouts"][1] < 100_000
    if not noted:
        step = run.steps.get(step=6)
        step.metrics.pop("rollouts")
        step.save()
    monkeypatch.setattr(rollouts, "UNPACKED", 1_000_000)
    tracemalloc.start()
    text = opened(as_admin, run, 6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "over 1 MB: too much for a page" in text and shown(text) == []
    assert peak < 20_000_000 or not noted
    assert "They wait" not in send(as_admin, run, 6, "0-0", "0-1").content.decode()


def test_a_file_that_is_gone_is_said_in_words(as_admin, run):
    (run.directory / rollouts.FILE).unlink()
    assert "not here any more" in opened(as_admin, run, 2)


def test_after_a_run_was_cut_back_its_places_are_right_again(as_admin, run):
    """A resumed trainer writes other steps over the same bytes; rows that do not know yet show none."""
    kept = RunDirectory(run.directory)
    before = run.steps.get(step=2).metrics["rollouts"]
    kept.lines[rollouts.FILE].cut(sum(before))
    kept.lines["steps.jsonl"].cut(
        sum(len(raw) + 1 for raw in kept.lines["steps.jsonl"].path.read_bytes().split(b"\n")[:2])
    )
    write(run, [3, 4], finished=False)
    assert shown(opened(as_admin, run, 5)) == []
    follow(run)
    assert "3 were trained on, 0 ended by themselves" in opened(as_admin, run, 4)


def test_many_rollouts_come_in_pages(as_admin, run, monkeypatch):
    monkeypatch.setattr("labeler.views.steps.MOST_SHOWN", 3)
    assert shown(opened(as_admin, run, 2)) == ["0-0", "0-1", "0-2"]
    assert shown(opened(as_admin, run, 2, "?page=2")) == ["1-0", "1-1", "1-2"]
    assert shown(opened(as_admin, run, 2, "?page=2&flat=1&by=kl")) == ["1-1", "0-0", "1-0"]
    monkeypatch.setattr("labeler.views.steps.MOST_TOKENS", 10)  # long ones: one prompt at a time, whole
    assert shown(opened(as_admin, run, 2, "?page=2")) == ["1-0", "1-1", "1-2"]
    assert shown(opened(as_admin, run, 2, "?page=6&flat=1")) == ["1-2"]


def test_the_step_that_is_asked_for_is_opened_or_the_one_before(as_admin, run):
    address = reverse("steps", args=[run.pk])
    for asked, found in (("", 5), ("?step=3", 3), ("?step=99", 5), ("?step=0", 1), ("?step=x", 5)):
        assert as_admin.get(address + asked).url == reverse("step", args=[run.pk, found])
    empty = run.project.runs.create(kind="policy")
    assert as_admin.get(reverse("steps", args=[empty.pk])).url == reverse("run", args=[empty.pk])
    assert as_admin.get(reverse("step", args=[run.pk, 77])).status_code == 404


def test_only_those_who_run_the_project_read_it(as_labeler, as_stranger, run):
    for client in (as_labeler, as_stranger):
        assert client.get(reverse("step", args=[run.pk, 1])).status_code == 404
        assert (
            client.post(reverse("step_send", args=[run.pk, 1]), {"rollout": ["0-0", "0-1"]}).status_code
            == 404
        )
    assert not Quintet.objects.exists()


# To the labelers


def test_chosen_rollouts_of_a_prompt_become_a_quintet_in_the_queue(as_admin, as_labeler, run, project):
    answer = send(as_admin, run, 4, "1-2", "1-0", by="kl")
    quintet = Quintet.objects.get()
    assert f"They wait for the labelers now, as quintet {quintet.pk}" in answer.content.decode()
    assert answer.redirect_chain[-1][0].endswith("?by=kl#r-1-0")
    assert quintet.prompt == project.prompts.get(content="Joke number 2, please.")
    wrote = [each.text[-9:] for each in quintet.rollouts.all()]
    assert wrote == ["(4, 1, 0)", "(4, 1, 2)", "(4, 1, 1)"], "two cards would tell that they were chosen"
    assert [each.finished for each in quintet.rollouts.all()] == [True, False, True]
    entry = AuditEntry.objects.get(action="send to the labelers")
    assert entry.about["rollouts"] == ["1-0", "1-2"] and entry.about["quintet"] == quintet.pk
    assert "2 rollouts of" in entry.words and "and 1 more beside them" in entry.words
    assert "(4, 1, 0)" in as_labeler.get(reverse("rank", args=[project.slug])).content.decode()


def test_fewer_than_five_are_filled_up_with_what_nobody_has_ranked(as_admin, run, project, new_ranking):
    asked = project.prompts.get(content="Joke number 1, please.")
    new_ranking((1, 2), texts=["known", "known too"], prompt=asked.content)
    new_ranking((1, 2), texts=["unread", "known"], prompt=asked.content).delete()
    send(as_admin, run, 4, "0-0", "0-1")
    wrote = [each.text for each in Quintet.objects.last().rollouts.all()]
    assert len(wrote) == 5 and wrote[2].endswith("(4, 0, 2)") and wrote[3] == "unread"
    assert wrote[4] in ("known", "known too")
    text = opened(as_admin, run, 4)
    assert text.count(f">quintet {Quintet.objects.last().pk}</a>") == 3, "siblings beside them are marked too"


def test_the_same_rollouts_are_sent_once(as_admin, run):
    send(as_admin, run, 4, "0-0", "0-1")
    assert "They were sent before" in send(as_admin, run, 4, "0-1", "0-0").content.decode()
    assert Quintet.objects.count() == AuditEntry.objects.count() == 1
    send(as_admin, run, 3, "0-0", "0-1")
    assert Quintet.objects.count() == 2


@pytest.mark.parametrize(
    ("names", "because"),
    [
        (["0-0"], "Choose 2 to 5 rollouts of one prompt; 1 was chosen"),
        ([], "0 were chosen"),
        (["0-0", "1-0"], "different prompts"),
        (["0-0", "9-9"], "1 was chosen"),
    ],
)
def test_what_is_no_quintet_is_refused_in_words(as_admin, run, names, because):
    assert because in send(as_admin, run, 4, *names).content.decode()
    assert not Quintet.objects.exists()


def test_equal_rollouts_are_not_sent(as_admin, run):
    write(run, [6], rollout="The same.")
    follow(run)
    assert "there is nothing to rank" in send(as_admin, run, 6, "0-0", "0-1").content.decode()


def test_a_prompt_is_found_by_its_number_and_a_chat_by_its_words(as_admin, run, project):
    project.prompts.all().delete()
    assert "not in the project any more" in send(as_admin, run, 4, "0-0", "0-1").content.decode()
    chat = project.prompts.create(content=[{"role": "user", "content": "Joke number 1, please."}])
    send(as_admin, run, 4, "0-0", "0-1")
    assert Quintet.objects.get().prompt == chat
    other = project.prompts.create(content="Asked otherwise.")
    write(run, [6], id=str(other.pk))
    follow(run)
    send(as_admin, run, 6, "0-0", "0-1")
    assert Quintet.objects.last().prompt == other


def test_it_can_be_taken_back_while_nobody_has_ranked(as_admin, run, labeler, project):
    send(as_admin, run, 4, "0-0", "0-1")
    quintet = Quintet.objects.get()
    assert f"Take quintet {quintet.pk} back" in opened(as_admin, run, 4)
    place = Place.objects.next_for(labeler, project)
    assert "at this moment" in send(as_admin, run, 4, quintet=quintet.pk).content.decode()
    Place.objects.filter(pk=place.pk).update(leased_until=timezone.now() - timedelta(minutes=1))
    assert "is taken back" in send(as_admin, run, 4, quintet=quintet.pk).content.decode()
    assert not Quintet.objects.exists() and AuditEntry.objects.filter(action="take back").count() == 1
    assert as_admin.post(reverse("step_send", args=[run.pk, 4]), {"quintet": quintet.pk}).status_code == 404


def test_what_somebody_has_ranked_stays(as_admin, run, labeler):
    send(as_admin, run, 4, "0-0", "0-1")
    quintet = Quintet.objects.get()
    quintet.record_ranking(labeler, None, [1, 2, 3])
    assert "Somebody has ranked it: it stays." in send(as_admin, run, 4, quintet=quintet.pk).content.decode()
    assert Quintet.objects.exists()


def test_a_quintet_of_another_run_is_not_taken_back_from_here(as_admin, run, compose):
    (other,) = compose(1)
    assert as_admin.post(reverse("step_send", args=[run.pk, 4]), {"quintet": other.pk}).status_code == 404


def test_what_no_reward_model_scored_is_not_sorted_by_its_score(as_admin, practised):  # noqa: F811
    said = as_admin.get(reverse("step", args=[practised.pk, 3])).content.decode()
    assert "reward, KL taken off" in said and "score of the reward model" not in said
