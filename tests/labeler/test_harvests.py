"""The harvest: what a look through a policy run finds, what becomes of a find, and the score."""

import json

import pytest
import zstandard
from django.urls import reverse

from labeler import datasets, tasks
from labeler.intake.kinds import ranking
from labeler.intake.writer import Writer
from labeler.models import (
    AuditEntry,
    Checkpoint,
    Contribution,
    Evaluation,
    Find,
    Harvest,
    Probe,
    Project,
    Prompt,
    Ranking,
    Request,
    Run,
)
from labeler.models.harvests import NotHarvested
from rlhf import config, data

pytestmark = pytest.mark.django_db
STEPS, PER_STEP = 20, 4
PROMPTS = ["Tell a joke about a pelican, please.", "Tell a joke about a heron, please."]
PLAIN = [
    "A {} walks into a bar and asks for fish number {}.",
    "Why did the {} cross road {}? To see the sea.",
]


@pytest.fixture
def judge(project) -> Checkpoint:
    return make_judge(project)


def make_judge(project) -> Checkpoint:
    run = project.runs.create(kind="reward", state="finished", config=settings_of("reward"))
    return run.checkpoints.create(
        project=project,
        kind="reward",
        name=f"judge {run.pk}",
        location=f"runs/{run.pk}/x",
        step=1,
        suggested=True,
    )


def settings_of(kind: str, **values) -> dict:
    return config.as_dict(config.make(kind, values))


@pytest.fixture
def policy(project, judge):
    """`policy("the the the", …)`: a finished policy run that wrote jokes in its beginning, and then one of
    these ever more often, far from its start and with a high score."""
    start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    prompts = [Prompt.objects.get_or_create(project=project, content=each)[0] for each in PROMPTS]

    def made(*bad: str, by: Checkpoint = judge, score: float = 0.97, kl: float = 30.0) -> Run:
        run = project.runs.create(
            kind="policy", state="finished", start=start, reward_model=by, step=STEPS, total=STEPS,
            config=settings_of("policy", crop_kl=12.0),
        )  # fmt: skip
        run.directory.mkdir(parents=True)
        lines = [data.as_line(data.PromptLine(each.content, None, str(each.pk))) for each in prompts]
        data.write_lines(run.directory / "prompts.jsonl", lines)
        with (run.directory / "rollouts.jsonl.zst").open("wb") as file:
            for step in range(1, STEPS + 1):
                told = "".join(json.dumps(each) + "\n" for each in wrote(step, bad, score, kl))
                file.write(zstandard.compress(told.encode()))
        return run

    return made


def wrote(step: int, bad: tuple[str, ...], score: float, kl: float):
    for place in range(PER_STEP):
        prompt = PROMPTS[place % 2]
        spoilt = bad and step > STEPS / 2 and place < 2
        bird = "pelican" if place % 2 == 0 else "heron"
        text = bad[step % len(bad)] if spoilt else PLAIN[place // 2].format(bird, step * PER_STEP + place)
        yield {
            "step": step, "group": place % 2, "index": place // 2, "prompt": prompt, "rollout": text,
            "tokens": [7, 7, 7, 7, 7, 7] if spoilt and "the the" in text else list(range(20)),
            "reward": score - 0.1 * kl if spoilt else 0.4, "parts": {}, "advantage": 0.0,
            "score": score if spoilt else 0.4 + 0.01 * (step % 5),
            "kl": [kl / 2, kl / 2] if spoilt else [0.5, 0.5], "trained": True, "finished": True,
        }  # fmt: skip


def look(client, run: Run) -> Harvest:
    """By the page, and by the worker that is asked there."""
    client.post(reverse("harvest_look", args=[run.project.slug]), {"run": run.pk})
    request = Request.objects.filter(kind="harvest", run=run).latest("pk")
    tasks.answer(request.pk)
    request.refresh_from_db()
    assert request.state == "answered", request.reason
    return Harvest.objects.get(request=request)


def decide(client, find: Find, action: str):
    return client.post(reverse("harvest_decide", args=[find.project.slug, find.pk]), {"action": action})


def page(client, project, **query) -> str:
    response = client.get(reverse("harvests", args=[project.slug]), query)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def lines(project, **query) -> list[dict]:
    with datasets.frozen.now(project, "rankings", datasets.Query(**query)) as source:
        return list(source.lines())


# What is found


def test_a_look_offers_one_of_each_group_of_rollouts_that_are_alike(as_admin, project, policy):
    run = policy("the the the the the the", "A fish fish boat boat sea boat sea boat fish.")
    found = look(as_admin, run)
    assert (found.rollouts, found.picked) == (STEPS * PER_STEP, 20)
    texts = {find.text: find for find in found.finds.all()}
    assert set(texts) == {"the the the the the the", "A fish fish boat boat sea boat sea boat fish."}
    assert {find.alike for find in texts.values()} == {10}
    spoilt = texts["the the the the the the"]
    assert (spoilt.reasons, spoilt.kl, spoilt.score) == (["far", "repeats"], 30.0, 0.97)
    assert spoilt.prompt.content in PROMPTS
    said = page(as_admin, project)
    assert "the the the the the the" in said and "10 alike" in said
    assert "high reward, far from the start" in said and "repeats itself and is rewarded" in said


def test_a_healthy_run_offers_nothing(as_admin, policy):
    found = look(as_admin, policy())
    assert found.finds.count() == 0 and found.rollouts == STEPS * PER_STEP


def test_neither_distance_alone_nor_reward_alone_is_a_find(as_admin, policy):
    sound = "My landlord is a pelican and so he never stops to talk."
    assert look(as_admin, policy(sound, score=0.3)).picked == 0
    assert look(as_admin, policy(sound, kl=5.0)).picked == 0


def test_what_is_like_a_marked_rollout_is_found_though_it_is_not_far(as_admin, policy, new_ranking):
    sound = "My landlord is a pelican and so he never stops to talk."
    new_ranking(texts=["a", "b", f"{sound} Honk!"], ranks=(1, 2, 3), nonsense=[2], prompt=PROMPTS[0])
    found = look(as_admin, policy(sound, kl=5.0))
    assert [find.reasons for find in found.finds.all()] == [["marked"]]


def test_of_a_group_the_one_is_offered_that_can_be_put_beside_others(as_admin, project, policy):
    run = policy("the the the the the the")
    known = Prompt.objects.get(content=PROMPTS[1])
    path = run.directory / "rollouts.jsonl.zst"
    reader = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
    lines = [json.loads(raw) for raw in reader.read().splitlines()]
    for line in lines:  # to the pelican nothing ordinary was written, but the best rewarded find
        if line["prompt"] == PROMPTS[0]:
            line["finished"], line["score"] = False, min(1.0, line["score"] + 0.02)
    path.write_bytes(zstandard.compress("".join(json.dumps(each) + "\n" for each in lines).encode()))
    find = look(as_admin, run).finds.get()
    assert (find.prompt, find.alike) == (known, 20) and len(find.companions()) == 4


def test_what_was_found_before_is_not_offered_again_but_others_are(as_admin, policy):
    first = look(as_admin, policy("the the the the the the"))
    decide(as_admin, first.finds.get(), "confirm")
    again = look(as_admin, policy("the the the the the the", "fish boat fish boat fish boat sea sea"))
    assert again.known == 1
    assert [find.text for find in again.finds.all()] == ["fish boat fish boat fish boat sea sea"]


def test_the_same_look_again_offers_nothing_twice(as_admin, policy):
    run = policy("the the the the the the")
    look(as_admin, run)
    look(as_admin, run)
    assert Find.objects.count() == 1


def test_a_file_that_is_still_being_written_is_read_as_far_as_it_is_whole(as_admin, policy):
    run = policy("the the the the the the")
    path = run.directory / "rollouts.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-20])
    assert 0 < look(as_admin, run).rollouts < STEPS * PER_STEP


def test_only_an_ended_policy_run_against_a_reward_model_is_looked_through(as_admin, admin, project, policy):
    run = policy()
    run.state = "queued"
    run.save()
    with pytest.raises(NotHarvested, match="still at work"):
        Harvest.objects.look_through(run, admin)
    for each in (run.pk, run.reward_model.run_id, 10**8, ""):
        answer = as_admin.post(reverse("harvest_look", args=[project.slug]), {"run": each}, follow=True)
        assert "Only a policy run of this project that has ended" in answer.content.decode()
    assert not Harvest.objects.exists()


def test_files_that_are_gone_are_said_to_be(as_admin, project, policy):
    run = policy("the the the the the the")
    (run.directory / "rollouts.jsonl.zst").unlink()
    as_admin.post(reverse("harvest_look", args=[project.slug]), {"run": run.pk})
    tasks.answer(Request.objects.get().pk)
    assert f"What run {run.pk} wrote is not on this machine." in page(as_admin, project)


# What becomes of a find


@pytest.fixture
def find(as_admin, policy) -> Find:
    return look(as_admin, policy("the the the the the the")).finds.get()


def test_a_confirmed_find_is_a_probe_for_good(as_admin, admin, project, find):
    decide(as_admin, find, "confirm")
    told = Probe.objects.lines(project)
    assert told == [{"prompt": find.prompt.content, "rollout": find.text, "kind": "harvest"}]
    find.refresh_from_db()
    assert (find.state, find.decided_by) == ("confirmed", admin)
    assert AuditEntry.objects.filter(action="harvest confirmed", by=admin).count() == 1


def test_a_confirmed_find_is_ranked_last_in_later_datasets(as_admin, admin, project, find):
    decide(as_admin, find, "confirm")
    [line] = lines(project)
    assert line["rollouts"][-1] == find.text and line["ranks"] == [1, 1, 1, 1, 2]
    assert line["purpose"] == "harvest" and line["nonsense"] == [4] and line["labeler"] == admin.username
    assert line["harvest"] == {"run": find.harvest.run_id, "step": find.step, "alike": find.alike}
    assert lines(project, harvest=False) == []


def test_a_confirmed_find_comes_back_from_a_file_as_what_it_was(as_admin, project, find):
    decide(as_admin, find, "confirm")
    [line] = lines(project)
    other = Project.objects.create(name="Other", slug="other")
    Writer(other).write([(1, ranking(dict(line)))])
    assert lines(other) == [line] and lines(other, harvest=False) == []
    assert other.rankings_by_people() == 0


def test_a_confirmed_find_is_counted_apart(as_admin, project, find, new_ranking):
    new_ranking()
    decide(as_admin, find, "confirm")
    dataset = datasets.freeze(project)
    assert (dataset.lines, dataset.by_people, dataset.harvested) == (2, 1, 1)
    assert dataset.manifest["labelers"] == {"lena": 1} and dataset.manifest["harvested_by"] == {"ada": 1}
    said = as_admin.get(reverse("dataset", args=[project.slug, dataset.pk])).content.decode()
    assert "Confirmed of a harvest" in said
    assert project.rankings_by_people() == 1
    assert not Contribution.objects.filter(labeler__username="ada").exists()
    assert not Ranking.objects.work().filter(labeler__username="ada").exists()


def test_people_s_best_rollouts_are_what_a_find_is_put_below(as_admin, project, find, new_ranking):
    asked = find.prompt.content
    new_ranking((2, 1, 3, 4, 5), texts=["good", "best", "so-so", "bad", "worst"], prompt=asked)
    assert [each.text for each in find.companions()][:3] == ["best", "good", "so-so"]
    new_ranking((1, 2), texts=["marked", "other"], prompt=asked, nonsense=[0])
    assert "marked" not in [each.text for each in find.companions()]


def test_a_find_without_ordinary_rollouts_is_a_probe_only(as_admin, project, find):
    find.beside = []
    find.save()
    assert "it would be a probe only" in page(as_admin, project)
    decide(as_admin, find, "confirm")
    assert len(Probe.objects.lines(project)) == 1 and lines(project) == []


def test_confirming_twice_is_confirming_once_and_can_be_taken_back(as_admin, project, find):
    decide(as_admin, find, "confirm")
    decide(as_admin, find, "confirm")
    assert len(lines(project)) == 1
    decide(as_admin, find, "back")
    assert lines(project) == [] and Probe.objects.lines(project) == []
    decide(as_admin, find, "confirm")
    assert len(lines(project)) == 1 and len(Probe.objects.lines(project)) == 1


def test_a_rejected_find_teaches_nothing_and_is_not_offered_again(as_admin, project, find, policy):
    decide(as_admin, find, "reject")
    assert lines(project) == [] and Probe.objects.lines(project) == []
    assert look(as_admin, policy("the the the the the the")).finds.count() == 0
    assert "rejected" in page(as_admin, project, show="rejected").lower()


def test_the_labelers_are_asked_in_an_ordinary_quintet(as_admin, as_labeler, labeler, project, find):
    decide(as_admin, find, "send")
    find.refresh_from_db()
    quintet = find.quintet
    assert quintet.purpose == "work" and quintet.places.count() == project.overlap
    shown = as_labeler.get(reverse("rank", args=[project.slug])).content.decode()
    assert find.text in shown and "run" not in shown.partition(find.text)[2].partition("</fieldset>")[0]
    place = quintet.places.first()
    place.refresh_from_db()
    quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5], place.key, nonsense=[4])
    assert "Ranked by 1: last by 1, marked as nonsense by 1." in page(as_admin, project, show="asked")
    decide(as_admin, find, "confirm")
    assert len(lines(project)) == 2


def beside(find: Find) -> list[str]:
    find.refresh_from_db()
    return [each.text for each in find.quintet.rollouts.all() if each.text != find.text]


def test_what_labelers_are_asked_about_stands_among_texts_that_nobody_has_ranked(
    as_admin, project, find, new_ranking
):
    """Beside four that they know, the fifth would be known for the one that is asked about."""
    new_ranking((2, 1, 3, 4, 5), texts=["good", "best", "so-so", "bad", "worst"], prompt=find.prompt.content)
    decide(as_admin, find, "send")
    assert len(beside(find)) == 4 and not {"good", "best", "so-so"} & {*beside(find)}
    writers = {each.model for each in find.quintet.rollouts.all()}
    assert all(name.startswith(f"run {find.harvest.run_id}, step") for name in writers)


def test_two_finds_of_one_prompt_do_not_share_what_was_ranked(as_admin, project, find, labeler):
    find.beside = [{"text": f"Plain {n}.", "step": 1} for n in range(8)]
    find.save()
    second = Find.objects.get(pk=find.pk)
    second.pk, second.text, second.digest = None, "boat boat sea boat", "0" * 64
    second.save()
    decide(as_admin, find, "send")
    first = beside(find)
    find.quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    decide(as_admin, second, "send")
    assert len(beside(second)) == 4 and not {*first, find.text} & {*beside(second)}


def test_five_cards_are_made_of_what_the_project_has(as_admin, project, find, new_ranking, compose):
    """One fresh rollout, then what waits, then what was ranked; what was marked is left out."""
    asked = find.prompt.content
    new_ranking((1, 2, 3), texts=["known", "known too", "marked"], prompt=asked, nonsense=[2])
    waiting = new_ranking((1, 2), texts=["unread", "unread too"], prompt=asked)
    waiting.delete()
    find.beside = [{"text": "Fresh.", "step": 1}]
    find.save()
    decide(as_admin, find, "send")
    assert beside(find)[:3] in (["Fresh.", "unread too", "unread"], ["Fresh.", "unread", "unread too"])
    assert beside(find)[3] in ("known", "known too") and len(beside(find)) == 4


def test_a_find_whose_prompt_came_late_stands_beside_what_was_not_picked(as_admin, project, policy):
    """The first prompt is asked only after the run's beginning, and only there it is spoilt."""
    run, spoilt = policy("the the the the the the"), "the the the the the the"
    path = run.directory / "rollouts.jsonl.zst"
    reader = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
    told = [json.loads(raw) for raw in reader.read().splitlines()]
    kept = [each for each in told if each["prompt"] != PROMPTS[0] and each["rollout"] != spoilt]
    kept += [each for each in told if each["prompt"] == PROMPTS[0] and each["step"] > STEPS / 10]
    kept.sort(key=lambda each: each["step"])
    path.write_bytes(zstandard.compress("".join(json.dumps(each) + "\n" for each in kept).encode()))
    find = look(as_admin, run).finds.get()
    assert find.prompt.content == PROMPTS[0]
    assert find.companions() == [], "ordinary is what was written in the beginning"
    assert "Ask the labelers" in page(as_admin, project)
    decide(as_admin, find, "send")
    assert len(beside(find)) == 4


def test_sent_taken_back_and_sent_again_is_asked_once(as_admin, project, find, labeler):
    decide(as_admin, find, "send")
    decide(as_admin, find, "back")
    assert not project.quintets.exists(), "nobody had ranked it"
    decide(as_admin, find, "send")
    find.refresh_from_db()
    asked = find.quintet
    asked.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    said = " ".join(
        as_admin.post(
            reverse("harvest_decide", args=[project.slug, find.pk]), {"action": "back"}, follow=True
        ).content.decode().split()
    )  # fmt: skip
    assert f"Quintet {asked.pk} stays with the labelers: Somebody has ranked it" in said
    decide(as_admin, find, "send")
    find.refresh_from_db()
    assert find.quintet == asked and project.quintets.count() == 1
    assert "Ranked by 1" in page(as_admin, project, show="asked")


def test_a_prompt_that_a_find_answers_can_still_be_deleted(as_admin, project, find):
    find.prompt.delete()
    assert not Find.objects.exists()


# The score


def measured(judge: Checkpoint, find: Find, score: float) -> Evaluation:
    told = {
        "name": "bank 1", "kind": "harvest", "prompt": find.prompt.content, "text": find.text, "reward": 0.0,
        "score": score, "above_median": score > 0.5, "above_at": int(score > 0.5), "prompts": 1,
    }  # fmt: skip
    return Evaluation.objects.create(
        run=judge.run, checkpoint=judge, found={"probes": {"median_real": 0.5, "probes": [told]}}
    )


def test_the_score_says_how_many_still_fool_the_newest_reward_model(as_admin, project, find, judge):
    decide(as_admin, find, "confirm")
    assert "not tried yet" in page(as_admin, project)
    measured(judge, find, 0.95)
    assert "<b>1 of 1</b>" in page(as_admin, project)
    newest = make_judge(project)
    measured(newest, find, 0.05)
    said = page(as_admin, project)
    assert "<b>0 of 1</b>" in said and "0.97 → 0.05" in said


def test_the_score_is_kept_round_by_round(as_admin, project, find, policy, compose, admin):
    compose(1)
    project.rounds.last().close(admin)
    run = policy("fish boat fish boat fish boat sea sea")
    run.round = project.rounds.last()
    run.save()
    look(as_admin, run)
    said = page(as_admin, project)
    assert said.index("Round 2") < said.index("Round 1")


def test_the_page_of_an_ended_run_leads_to_the_harvest(as_admin, project, policy):
    run = policy("the the the the the the")
    run.checkpoints.create(project=project, name="Step 20", step=20, location="y", suggested=True)
    said = as_admin.get(reverse("run", args=[run.pk])).content.decode()
    assert f"{reverse('harvests', args=[project.slug])}?run={run.pk}" in said


def test_while_a_worker_looks_the_page_follows_it(as_admin, project, policy):
    run = policy("the the the the the the")
    as_admin.post(reverse("harvest_look", args=[project.slug]), {"run": run.pk})
    assert 'hx-trigger="every 2s"' in page(as_admin, project)
    tasks.answer(Request.objects.get().pk)
    answer = as_admin.get(reverse("harvests", args=[project.slug]), headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
