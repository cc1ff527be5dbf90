"""The probe bank: what is in it, what a run is told of it, what its page says, what it does to a launch."""

import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from labeler.models import Checkpoint, Evaluation, Membership, Probe, Project, Prompt, Ranking, Run, User
from labeler.models.probes import MADE, Alarm, Probing
from labeler.tasks import end
from rlhf import config, data
from rlhf import probes as rlhf_probes

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(project) -> Checkpoint:
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.save()
    Prompt.objects.create(project=project, content="Joke one, please.")
    return project.start


@pytest.fixture
def judge(project) -> Checkpoint:
    return make_judge(project)


def make_judge(project, number: int = 1) -> Checkpoint:
    """A reward model, of a run of its own."""
    run = project.runs.create(
        kind="reward", state="finished", config=config.as_dict(config.make("reward", {}))
    )
    name = f"Taste {number}"
    fields = {"kind": "reward", "name": name, "location": f"runs/{run.pk}/checkpoints/step-000004", "step": 4}
    return run.checkpoints.create(project=project, suggested=True, **fields)


def tried(score: float, kind: str = "nonsense", text: str = "fish fish", prompt: str = "p", **more) -> dict:
    told = {"name": "marked 1", "kind": kind, "prompt": prompt, "text": text, "reward": 0.0, "score": score}
    return told | {"above_median": score > 0.5, "above_at": int(score > 0.5), "prompts": 1, **more}


def measured(judge: Checkpoint, *told: dict) -> Evaluation:
    """What a finished run has left of its measuring, as the worker keeps it. The median real one is .5."""
    rows = sorted(told, key=lambda each: -each["score"])
    above = sum(each["above_median"] for each in told)
    found = {"median_real": 0.5, "worst": rows[0]["name"], "above": above, "probes": rows} if rows else {}
    return Evaluation.objects.create(
        run=judge.run, checkpoint=judge, found={"probes": found} if found else {}
    )


def bank(project) -> set[tuple[str, str]]:
    """What a run would be told: text and kind."""
    return {(each["rollout"], each["kind"]) for each in Probe.objects.lines(project)}


def page(client, project, **query) -> str:
    response = client.get(reverse("probes", args=[project.slug]), query)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def add(client, project, text: str, **more):
    return client.post(reverse("probes", args=[project.slug]), {"text": text, **more})


# What is in the bank


def test_what_people_mark_as_nonsense_is_in_the_bank_once(project, new_ranking, stranger):
    first = new_ranking(nonsense=[1], prompt="Joke?")
    new_ranking(quintet=first.quintet, by=stranger, nonsense=[1, 4])
    new_ranking(texts="abxyz", nonsense=[1], prompt="Another joke?")
    assert [(each["prompt"], each["rollout"], each["kind"]) for each in Probe.objects.lines(project)] == [
        *sorted(
            [("Joke?", "b", "nonsense"), ("Joke?", "e", "nonsense"), ("Another joke?", "b", "nonsense")],
            key=lambda each: Probe.of(project, each[1], each[0]).digest,
        )
    ]


def test_a_mark_that_no_longer_stands_is_in_no_bank(project, new_ranking, stranger, labeler):
    Membership.objects.create(project=project, user=stranger)
    new_ranking(nonsense=[0], texts="pqrst", by=stranger)
    project.memberships.get(user=stranger).exclude("bored", project.created_by)
    new_ranking(nonsense=[0], texts="uvwxy", current=False)
    new_ranking(nonsense=[0], texts="12345", purpose="gold")
    new_ranking(nonsense=[0], texts="67890", by=User.objects.create(username="sim", simulated=True))
    new_ranking(texts="fghij")
    assert bank(project) == set()
    project.memberships.get(user=stranger).take_back(project.created_by)
    assert bank(project) == {("p", "nonsense")}


def test_another_projects_marks_are_its_own(project, new_ranking):
    new_ranking(nonsense=[0])
    assert bank(Project.objects.create(name="Other", slug="other")) == set()


def test_an_admin_adds_one_by_hand_as_it_was_written(as_admin, admin, project):
    assert add(as_admin, project, " two\r\nlines ", note="seen in run 3").status_code == 302
    assert add(as_admin, project, "buy now", prompt="Joke?").status_code == 302
    assert {(line.get("prompt"), line["rollout"]) for line in Probe.objects.lines(project)} == {
        (None, " two\nlines "),
        ("Joke?", "buy now"),
    }
    said = page(as_admin, project)
    assert "added by hand" in said and "seen in run 3" in said and "to “Joke?”" in said
    entry = project.audit.filter(action="probe added").first()
    assert entry.by == admin and "buy now" in entry.words


def test_the_same_is_not_added_twice(as_admin, project, new_ranking):
    add(as_admin, project, "buy now")
    again = add(as_admin, project, "buy now")
    assert again.status_code == 422 and "in the bank already, added by hand" in again.content.decode()
    assert add(as_admin, project, "buy now", prompt="Only here?").status_code == 302, (
        "to one prompt is another"
    )
    new_ranking(nonsense=[0], texts="pqrst", prompt="Joke?")
    marked = add(as_admin, project, "p", prompt="Joke?")
    assert marked.status_code == 422 and "in the bank already, marked as nonsense" in marked.content.decode()


@pytest.mark.parametrize(
    ("text", "words"), [("", "required"), ("x" * 20_001, "20000"), ("a\0b", "Null characters")]
)
def test_what_cannot_be_a_probe_is_refused_in_words(as_admin, project, text, words):
    answer = add(as_admin, project, text)
    assert answer.status_code == 422 and words in answer.content.decode() and not Probe.objects.exists()


def test_a_probe_is_put_aside_and_used_again(as_admin, project):
    add(as_admin, project, "buy now")
    url = reverse("probe_aside", args=[project.slug, Probe.objects.get().digest])
    as_admin.post(url)
    as_admin.post(url)
    assert bank(project) == set() and "1 probe put aside" in page(as_admin, project)
    assert "put aside. Below it can be used again" in add(as_admin, project, "buy now").content.decode()
    as_admin.post(url, {"undo": ""})
    assert (
        bank(project) == {("buy now", "by hand")}
        and "put aside" not in page(as_admin, project).split("Put aside")[0]
    )
    assert list(project.audit.values_list("action", flat=True)[:2]) == ["probe used again", "probe put aside"]


def test_what_was_marked_by_mistake_can_be_put_aside_too(as_admin, project, new_ranking):
    ranking = new_ranking(nonsense=[0], texts="pqrst", prompt="Joke?")
    url = reverse("probe_aside", args=[project.slug, Probe.of(project, "p", "Joke?").digest])
    as_admin.post(url)
    assert bank(project) == set() and ranking.nonsense == [0]
    as_admin.post(url, {"undo": ""})
    assert bank(project) == {("p", "nonsense")}
    Ranking.objects.update(nonsense=[])
    assert bank(project) == set(), "the mark alone keeps it there"


def test_what_is_in_no_bank_cannot_be_put_aside(as_admin, project):
    for key in ("0" * 64, "empty", Probe.of(project, "buy now").digest):
        assert as_admin.post(reverse("probe_aside", args=[project.slug, key])).status_code == 404
    assert not Probe.objects.exists()


# What a run is told


def test_a_reward_run_is_given_the_bank_as_rlhf_reads_it(project, start, new_ranking, admin, settings):
    chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes?"}]
    chat.append({"role": "user", "content": "A joke."})
    prompt = Prompt.objects.create(project=project, content=chat)
    quintet = new_ranking(texts="pqrst", nonsense=[2]).quintet
    project.quintets.filter(pk=quintet.pk).update(prompt=prompt)
    Probe.of(project, "buy now").add(admin)
    Probe.of(project, "gone").add(admin).put_aside(admin)
    run = Run.objects.launch(project, "reward", {}, admin)
    lines = data.probe_lines(run.directory / rlhf_probes.FILE)
    assert {(str(each.prompt), each.rollout, each.kind) for each in lines} == {
        (str(chat), "r", "nonsense"),
        ("None", "buy now", "by hand"),
    }
    rankings = data.rankings(settings.HOME / run.dataset.path)
    assert {each.name for each in rlhf_probes.bank(rankings, run.directory / "probes.jsonl")} == {
        *MADE,
        "marked 1",
        "marked 2",
    }


def test_an_evaluation_run_is_given_it_as_well_and_others_are_not(
    project, start, judge, new_ranking, admin, home
):
    new_ranking(nonsense=[0])
    evaluation = Run.objects.launch(project, "evaluation", {}, admin)
    policy = Run.objects.launch(project, "policy", {}, admin)
    assert (evaluation.directory / "probes.jsonl").exists() and not (
        policy.directory / "probes.jsonl"
    ).exists()


def test_an_empty_bank_leaves_no_file(project, start, new_ranking, admin):
    new_ranking()
    assert not (Run.objects.launch(project, "reward", {}, admin).directory / "probes.jsonl").exists()


def test_the_kinds_that_are_explained_are_those_that_rlhf_makes():
    rankings = [data.Ranking("Joke?", ("a b", "c"), (1, 2))]
    assert [each.kind for each in rlhf_probes.bank(rankings)] == list(MADE)


# What the page says


def test_an_empty_bank_says_what_will_be_tried_and_what_comes_first(as_admin, project):
    said = page(as_admin, project)
    assert "no reward model yet" in said and reverse("run_new", args=[project.slug, "reward"]) in said
    assert all(f"“{about}" in said or about in said for about in MADE.values())


def test_a_reward_model_that_was_not_measured_is_not_said_to_hold(as_admin, project, judge):
    said = page(as_admin, project)
    assert "nobody knows what fools it" in said and "none of" not in said
    assert f"{reverse('run_new', args=[project.slug, 'evaluation'])}?reward_model={judge.pk}" in said


def test_the_worst_comes_first_with_its_score_beside_the_median(as_admin, project, judge, new_ranking):
    new_ranking(nonsense=[0], texts=["fish fish", *"bcde"], prompt="p")
    measured(judge, tried(0.3), tried(0.9, "keyword salad", "sea bill", anywhere=True, prompts=5, above_at=4))
    said = page(as_admin, project)
    assert "is fooled by <b>1 of 2 probes</b>. The median real rollout scores 0.50." in said
    assert said.index("sea bill") < said.index("fish fish") < said.index("not tried")
    assert "above the median at 4 of 5 prompts" in said


def test_what_came_after_the_measuring_is_said_not_to_have_been_tried(as_admin, project, judge):
    measured(judge, tried(0.1, "empty", ""))
    add(as_admin, project, "buy now")
    assert "1 probe came later and was not tried." in page(as_admin, project)


def test_the_history_goes_over_every_reward_model(as_admin, project):
    first, second = make_judge(project, 1), make_judge(project, 2)
    measured(first, tried(0.9), tried(0.8, "the the the", "the the", anywhere=True))
    measured(second, tried(0.6), tried(0.2, "the the the", "the the", anywhere=True))
    said = page(as_admin, project)
    assert "Taste 2</a> is still fooled by <b>1 of 2 probes</b>" in said
    assert "fooled by 1 of 2, worst by “fish fish”" in said
    assert "fooled by 2 of 2, worst by “fish fish”" in said
    assert "from model to model 0.90 → 0.60" in said and "0.80 → 0.20" in said
    third = make_judge(project, 3)
    assert "Taste 3</a>, has not been measured on probes" in page(as_admin, project)
    measured(third, tried(0.2))
    assert "Taste 3</a> is fooled by <b>none of 1 probe</b>" in page(as_admin, project)


def test_a_later_measurement_of_a_model_stands_for_the_earlier_one(project, judge):
    measured(judge, tried(0.9))
    again = project.runs.create(kind="evaluation", state="finished", reward_model=judge)
    found = measured(judge.__class__(pk=judge.pk, run=again), tried(0.2)).found
    assert found and not Alarm.of(judge, project).probing.holes
    assert [each.run for each in Probing.history(project)] == [again.pk]


def test_only_an_admin_of_the_project_sees_the_bank(as_labeler, as_stranger, client, project):
    url = reverse("probes", args=[project.slug])
    assert as_labeler.get(url).status_code == as_stranger.get(url).status_code == 404
    assert client.get(url).status_code == 302


def test_what_a_probe_says_is_escaped(as_admin, project, judge):
    measured(judge, tried(0.9, text="<script>alert(1)</script>"))
    add(as_admin, project, "<img src=x>")
    said = page(as_admin, project)
    assert "<script>alert" not in said and "<img" not in said


# What it does to a policy run


def launched(client, project, **values):
    shown = client.get(reverse("run_new", args=[project.slug, "policy"])).context["form"]
    known = {each.name: each.value() for each in shown}
    filled = {
        name: value for name, value in known.items() if value is not None and value is not False
    } | values
    return client.post(reverse("run_new", args=[project.slug, "policy"]), filled)


def form_page(client, project, **query) -> str:
    answer = client.get(reverse("run_new", args=[project.slug, "policy"]), query)
    return " ".join(answer.content.decode().split())


HOLES = "1 of 2 probes scores above the median real rollout (0.50) under Taste 1: “fish fish” 0.90."


def test_a_hole_is_named_before_and_after_the_launch_and_costs_no_click(
    as_admin, project, start, judge, capsys
):
    measured(judge, tried(0.9), tried(0.1, "empty", ""))
    assert HOLES in form_page(as_admin, project)
    answer = launched(as_admin, project)
    run = project.runs.get(kind="policy")
    assert answer.status_code == 302 and HOLES in " ".join(as_admin.get(answer.url).content.decode().split())
    call_command("launch", "policy", project=project.slug, again=True)
    said = capsys.readouterr()
    assert HOLES in said.err and project.runs.filter(kind="policy").count() == 2 and run.state == "queued"


def test_who_watched_a_reward_model_end_is_warned_by_the_last_news_of_it(as_admin, project, judge):
    told = measured(judge, tried(0.9), tried(0.1, "empty", ""))
    told.found |= {"claims": ["It is right."], "rankings": 5, "simulated": 0}
    told.save()
    news = reverse("run_live", args=[judge.run_id])
    lease = timezone.now() + timedelta(minutes=1)
    project.runs.filter(pk=judge.run_id).update(state="running", leased_until=lease)
    assert 'id="alarm"' not in as_admin.get(news).content.decode()
    project.runs.filter(pk=judge.run_id).update(state="finished", leased_until=None)
    said = as_admin.get(news).content.decode()
    assert '<div id="alarm" hx-swap-oob="true">' in said and HOLES in " ".join(said.split())


def test_where_the_project_says_so_the_launch_is_refused(as_admin, admin, project, start, judge):
    measured(judge, tried(0.9), tried(0.1, "empty", ""))
    project.change(admin, fooled="refuse")
    assert "A policy run against it is refused." in form_page(as_admin, project)
    answer = launched(as_admin, project)
    said = " ".join(answer.content.decode().split())
    assert (
        answer.status_code == 422
        and f"{HOLES} A policy would find that. This project refuses such a run" in said
    )
    with pytest.raises(CommandError, match="This project refuses such a run"):
        call_command("launch", "policy", project=project.slug)
    assert not project.runs.filter(kind="policy").exists()


def test_a_project_that_refuses_launches_where_nothing_fools_the_model_or_nobody_knows(
    as_admin, admin, project, start, judge
):
    project.change(admin, fooled="refuse")
    assert "Whether probes fool Taste 1 is unknown: it has not been measured on any." in form_page(
        as_admin, project
    )
    assert launched(as_admin, project).status_code == 302
    measured(judge, tried(0.4), tried(0.1, "empty", ""))
    said = form_page(as_admin, project)
    assert "None of 2 probes scores above the median real rollout (0.50) under Taste 1." in said
    assert launched(as_admin, project, seed="5").status_code == 302


def test_a_probe_that_was_put_aside_warns_of_nothing(as_admin, admin, project, start, judge):
    project.change(admin, fooled="refuse")
    measured(judge, tried(0.9), tried(0.1, "empty", ""))
    as_admin.post(reverse("probe_aside", args=[project.slug, Probe.of(project, "fish fish", "p").digest]))
    assert "None of 1 probe scores above" in form_page(as_admin, project)
    assert launched(as_admin, project).status_code == 302


def test_the_warning_is_of_the_reward_model_that_is_chosen(as_admin, project, start, judge):
    other = make_judge(project, 2)
    measured(judge, tried(0.9), tried(0.1, "empty", ""))
    measured(other, tried(0.2))
    assert HOLES in form_page(as_admin, project, reward_model=judge.pk)
    assert HOLES not in form_page(as_admin, project, reward_model=other.pk)


def test_an_evaluation_without_probes_says_nothing_of_them(project, judge):
    measured(judge)
    assert Alarm.of(judge, project).state == "unknown"


def test_many_holes_are_counted_and_the_worst_named(project, judge):
    measured(judge, *(tried(0.6 + number / 100, text=f"fish {number}") for number in range(5)))
    said = Alarm.of(judge, project).words
    assert (
        "5 of 5 probes score above" in said
        and "“fish 4” 0.64, “fish 3” 0.63, “fish 2” 0.62 and 2 more." in said
    )


def test_what_a_finished_run_leaves_of_its_probes_is_known_to_the_next_launch(project, start, home):
    """From the file in the run directory to the warning, by way of the worker's last word about the run."""
    run = project.runs.create(kind="reward", state="running", attempt=1, leased_until="2100-01-01T00:00Z")
    location = f"runs/{run.pk}/checkpoints/step-000004"
    judge = run.checkpoints.create(project=project, kind="reward", name="Taste", step=4, location=location)
    run.keep_inputs({})
    probes = {"median_real": 0.5, "worst": "marked 1", "above": 1, "probes": [tried(0.9, text="fi\0sh")]}
    told = {"accuracy": {}, "checkpoint": "checkpoints/step-000004", "probes": probes}
    (run.directory / "evaluation.json").write_text(json.dumps(told))
    end(run, "finished")
    assert "“fi\ufffdsh” 0.90" in Alarm.of(judge, project).words


def test_who_adds_or_puts_aside_at_the_same_moment_finds_the_others_row(admin, project):
    one, other = (Probe.of(project, "buy now", kind=Probe.Kind.BY_HAND) for _ in range(2))
    assert one.add(admin).pk == other.add(admin).pk
    one, other = (Probe.of(project, "p", "Joke?", kind=Probe.Kind.NONSENSE) for _ in range(2))
    one.put_aside(admin)
    other.put_aside(admin)
    assert Probe.objects.filter(text="p").count() == 1
