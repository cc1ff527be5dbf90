"""The playground's pages: what may be asked and by whom, what is shown of an answer while it comes and when
it is there. What becomes of it is in test_playground_kept.py, the worker's side in test_playing.py."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeler.models import Membership, Project, Request, Run
from tests.labeler import played

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_bell")]


@pytest.fixture
def start(project):
    return played.policy(project)


@pytest.fixture
def asked(project, admin, start) -> Request:
    return played.asked(project, admin, start)


@pytest.fixture
def answered(asked) -> Request:
    return played.answer(asked)


def opened(client, request: Request, query: str = "", status: int = 200, **headers) -> str:
    answer = client.get(reverse("play", args=[request.pk]) + query, headers=headers)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def ask(client, *, status: int = 302, **sent) -> Request | str:
    said = {"temperature": "1", "top_p": "1", "longest": "40", "count": "5", "seed": "3", "role": "user"}
    answer = client.post(reverse("playground"), said | sent)
    assert answer.status_code == status, answer.content.decode()[:2000]
    return Request.objects.latest("pk") if status == 302 else " ".join(answer.content.decode().split())


# Asking


def test_a_question_is_asked_with_all_that_was_set(as_admin, start, project, admin):
    other = played.policy(project, "Step 9")
    made = ask(as_admin, checkpoint=start.pk, beside=other.pk, content="Joke, please.", top_p="0.9")
    assert (made.kind, made.state, made.project, made.created_by) == ("play", "waiting", project, admin)
    question = made.question
    assert question["checkpoints"] == [start.pk, other.pk] and question["names"] == ["Start", "Step 9"]
    assert question["prompts"] == ["Joke, please."] and question["reward_model"] is None
    names = ("temperature", "top_p", "max_new_tokens", "count", "seed")
    assert [question[name] for name in names] == [1.0, 0.9, 40, 5, 3]


def test_the_same_is_asked_again_with_another_seed(as_admin, start):
    assert ask(as_admin, checkpoint=start.pk, content="Joke?", again="1").question["seed"] == 4


def test_the_turns_of_a_chat_are_a_prompt_and_empty_ones_are_left_out(as_admin, start):
    said = {"role": ["system", "user", "user"], "content": ["Be brief.", "Joke?\r\nA good one.", " "]}
    prompt = ask(as_admin, checkpoint=start.pk, **said).question["prompts"][0]
    assert prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Joke?\nA good one."},
    ]


def test_a_turn_is_added_and_nothing_is_asked(as_admin, start):
    said = ask(as_admin, checkpoint=start.pk, content="Joke?", turns="1", status=200)
    assert said.count("<textarea") == 2 and 'value="assistant" selected' in said
    assert not Request.objects.exists()


def test_a_chat_that_is_too_long_is_refused_in_words_and_none_of_it_is_lost(as_admin, start):
    many = {"role": ["user", "assistant"] * 21, "content": [f"Turn {number}" for number in range(42)]}
    said = ask(as_admin, checkpoint=start.pk, **many | {"role": ["user"] * 42}, status=422)
    assert "A chat is at most 40 turns long, and this one has 42: empty some." in said
    assert said.count("<textarea") == 42 and "Turn 41</textarea>" in said
    assert "Add a turn" not in said and "A chat has at most 40 turns." in said
    shorter = {name: values[:39] for name, values in many.items()}
    assert len(ask(as_admin, checkpoint=start.pk, **shorter).question["prompts"][0]) == 39


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"content": "  "}, "Write a prompt first"),
        ({"content": "a\0b"}, "NUL"),
        ({"content": ["Joke?", "Ha."], "role": ["user", "assistant"]}, "there is nothing to answer"),
        ({"content": "x" * 200_001}, "at most 200,000 characters"),
        ({"content": "Joke?", "temperature": "3"}, "less than or equal to 2"),
        ({"content": "Joke?", "top_p": "0"}, "greater than or equal to 0.01"),
        ({"content": "Joke?", "count": "65"}, "less than or equal to 64"),
        ({"content": "Joke?", "longest": "9000"}, "less than or equal to 8192"),
        ({"content": "Joke?", "seed": "-1"}, "greater than or equal to 0"),
        ({"content": "Joke?", "checkpoint": "999999"}, "not one of the available choices"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(as_admin, start, sent, words):
    assert words in ask(as_admin, **{"checkpoint": start.pk, **sent}, status=422)
    assert not Request.objects.exists()


def test_a_checkpoint_is_not_set_beside_itself(as_admin, start):
    assert "the same checkpoint" in ask(
        as_admin, checkpoint=start.pk, beside=start.pk, content="Joke?", status=422
    )


def test_the_address_fills_the_form(as_admin, start, project):
    query = {"project": project.slug, "checkpoint": start.pk, "temperature": "0.3", "content": "Joke 7?"}
    said = as_admin.get(reverse("playground"), query).content.decode()
    assert "Joke 7?</textarea>" in said and 'value="0.3"' in said
    assert f'value="{start.pk}" selected' in said


def test_prompts_of_the_project_are_offered_until_one_is_typed(as_admin, start, project):
    project.prompts.create(content="What is 2 + 3?")
    project.prompts.create(content=[{"role": "system", "content": "Add."}, {"role": "user", "content": "1"}])
    form = as_admin.get(reverse("playground"), {"project": project.slug})
    [address] = re.findall(r'href="(\?project=[^"]+content=[^"]+)"', form.content.decode())
    typed = as_admin.get(reverse("playground") + address.replace("&amp;", "&"))
    assert typed.context["form"].turns == [{"role": "user", "content": "What is 2 + 3?"}]
    assert "examples" not in typed.context


def test_a_question_hands_its_settings_on_as_an_address(as_admin, answered):
    address = re.search(r'href="([^"]*)">These settings as a link', opened(as_admin, answered))[1]
    said = as_admin.get(address.replace("&amp;", "&")).content.decode()
    assert "Joke?</textarea>" in said and 'value="0.9"' in said and 'value="4"' in said
    long = played.answer(played.asked(answered.project, None, played.policy(None), prompt="x" * 3000))
    assert "These settings as a link" not in opened(as_admin, long)


def test_where_there_is_no_model_the_page_says_what_to_do(as_admin, project):
    said = as_admin.get(reverse("playground"), {"project": project.slug}).content.decode()
    assert "No model to try yet" in said and reverse("project_edit", args=[project.slug]) in said


def test_the_answer_that_a_checked_project_knows_goes_with_the_question(as_admin, start, project):
    Project.objects.filter(pk=project.pk).update(judge="checker")
    project.prompts.create(content=[{"role": "user", "content": "2 + 2?"}], answer="4")
    assert ask(as_admin, checkpoint=start.pk, content="2 + 2?").question["reference"] == "4"
    assert ask(as_admin, checkpoint=start.pk, content="2 + 3?").question["reference"] == ""


# Who may


@pytest.fixture
def elsewhere(stranger) -> Client:
    """Somebody who runs another project."""
    other = Project.objects.create(name="Other", slug="other")
    Membership.objects.create(project=other, user=stranger, role="admin")
    client = Client()
    client.force_login(stranger)
    return client


def test_labelers_play_nowhere_and_admins_with_what_is_theirs(as_labeler, elsewhere, start, answered):
    assert as_labeler.get(reverse("playground")).status_code == 403
    for client in (as_labeler, elsewhere):
        assert client.get(reverse("play", args=[answered.pk])).status_code == 404
        for name in ("play_stop", "play_send"):
            assert client.post(reverse(name, args=[answered.pk])).status_code == 404
    shared = played.policy(None, "Everybody's")
    assert "not one of the available" in ask(elsewhere, checkpoint=start.pk, content="Joke?", status=422)
    assert ask(elsewhere, checkpoint=shared.pk, content="Joke?").project.slug == "other"


def test_an_answer_of_a_checkpoint_that_one_may_not_see_is_not_there(elsewhere, start, stranger):
    theirs = Project.objects.get(slug="other")
    shared = played.policy(None, "Everybody's")
    mixed = played.answer(played.asked(theirs, stranger, shared, start))
    assert "Everybody&#x27;s" in opened(elsewhere, played.answer(played.asked(theirs, stranger, shared)))
    opened(elsewhere, mixed, status=404)


# Waiting


def test_it_says_what_it_waits_for(as_admin, asked, project, start):
    assert "Waiting for the worker." in opened(as_admin, asked)
    Request.objects.filter(pk=asked.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    assert "No worker has come for it yet. Is one running?" in opened(as_admin, asked)
    second = played.asked(project, None, start)
    assert "The worker answers one after the other: 1 question is before yours." in opened(as_admin, second)
    Request.objects.put_off(asked.pk, "waiting for run 12 to finish")
    assert "Waiting for run 12 to finish; your answer comes after that." in opened(as_admin, asked)
    Request.objects.claim(asked.pk).tell("Qwen Instruct is being loaded")
    assert "Qwen Instruct is being loaded." in opened(as_admin, asked)


def test_a_run_that_computes_beside_it_is_named_to_whom_it_concerns(
    as_admin, asked, project, elsewhere, stranger
):
    run = Run.objects.create(
        project=project, kind="policy", state="running", step=3, total=90, leased_until=timezone.now()
    )
    assert f"Policy run {run.pk}</a> computes beside it, step 3 of 90" in opened(as_admin, asked)
    theirs = played.asked(Project.objects.get(slug="other"), stranger, played.policy(None, "Everybody's"))
    said = opened(elsewhere, theirs)
    assert "A run of another project computes beside it: words" in said and f"run {run.pk}" not in said


def test_a_stopped_question_says_so(as_admin, asked):
    assert as_admin.post(reverse("play_stop", args=[asked.pk])).status_code == 302
    assert "It was stopped before it began." in opened(as_admin, asked)
    asked.refresh_from_db()
    assert asked.state == "answered"


def test_a_failure_says_why_and_what_to_do(as_admin, asked):
    Request.objects.claim(asked.pk).fail("There is not enough memory.", "Ask for fewer or shorter rollouts.")
    said = opened(as_admin, asked)
    assert "There is not enough memory." in said and "Ask for fewer or shorter rollouts." in said
    assert 'id="poll"></div>' in said


# Reading along


def poll(client, request: Request, after: int) -> str:
    return opened(client, request, f"?after={after}", **{"HX-Request": "true"})


def test_what_came_since_is_added_and_nothing_else(as_admin, asked):
    claimed = Request.objects.claim(asked.pk)
    played.tell(claimed, {"prompt": {"length": 3, "cut": 0}})
    played.tell(claimed, {"rollouts": [{"number": 0, "more": "Why", "tokens": played.tokens(["Why"])[:1]}]})
    page = opened(as_admin, asked)
    assert 'id="said-0-0" dir="auto">Why</p>' in page and "?after=2" in page
    played.tell(
        claimed, {"rollouts": [{"number": 0, "more": " <b>", "tokens": []}, {"number": 2, "more": "Ha"}]}
    )
    news = poll(as_admin, asked, 2)
    assert '<p id="said-0-0" hx-swap-oob="beforeend"> &lt;b&gt;</p>' in news
    assert '<p id="said-0-2" hx-swap-oob="beforeend">Ha</p>' in news
    assert "?after=3" in news and "Why" not in news and "<html" not in news
    assert "said-" not in poll(as_admin, asked, 3)


def test_when_it_is_all_there_the_whole_is_shown_and_no_more_asked_for(as_admin, asked):
    played.answer(asked)
    news = poll(as_admin, asked, 1)
    assert '<section id="whole"' in news and 'hx-swap-oob="true"' in news and "every 600ms" not in news
    assert news.count('class="panel answer"') == 3


def test_an_answer_that_was_begun_anew_is_shown_anew(as_admin, asked):
    claimed = Request.objects.claim(asked.pk)
    played.tell(claimed, {"prompt": {"length": 3, "cut": 0}}, {"rollouts": [{"number": 0, "more": "Once"}]})
    played.tell(claimed, {"prompt": {"length": 3, "cut": 0}})
    news = poll(as_admin, asked, 2)
    assert '<section id="whole"' in news and "Once" not in news and "?after=3" in news


def test_an_answer_that_goes_on_after_others_came_first_is_read_on(as_admin, asked):
    claimed = Request.objects.claim(asked.pk)
    played.tell(claimed, {"prompt": {"length": 3, "cut": 0}}, {"rollouts": [{"number": 0, "more": "Once"}]})
    played.tell(claimed, {"paused": {"drafts": [{"number": 0}], "sums": {}}})
    claimed.give_back("Start has written 0 of 3 rollouts; others come first, then it goes on")
    said = opened(as_admin, asked)
    assert "Start has written 0 of 3 rollouts; others come first, then it goes on.</p>" in said
    claimed = Request.objects.claim(asked.pk)
    going = {"prompt": {"length": 3, "cut": 0, "drafts": [0]}}
    played.tell(claimed, going, {"rollouts": [{"number": 0, "more": " more"}]})
    assert ">Once more</p>" in poll(as_admin, asked, 3)


# Reading


def test_an_answer_shows_what_there_is_to_be_known(as_admin, answered):
    said = opened(as_admin, answered)
    assert said.count('class="panel answer"') == 3 and "Why did the pelican honk? (1)" in said
    assert "<dt>Tokens</dt><dd>8</dd>" in said and "−8.50" in said
    assert "First word after 0.25 s, then 12 tokens a second." in said
    assert "Temperature 1, top-p 0.9, seed 4" in said


def test_tokens_say_how_sure_the_model_was_and_what_else_there_was(as_admin, answered):
    said = opened(as_admin, answered, "?tokens=0-1")
    spans = re.findall(r'<span class="([^"]*)" title="([^"]*)" data-number="(\d+)">([^<]*)</span>', said)
    mine = spans[-8:]
    assert [each[3] for each in mine] == [
        "Why",
        "·did",
        "·the",
        "·pelican",
        "⏎ ",
        "honk",
        "?",
        "&lt;|end|&gt;",
    ]
    assert [each[0] for each in mine] == [
        "",
        "down2",
        "down3",
        "down3",
        "down3",
        "down3",
        "down3",
        "down2 special",
    ]
    assert mine[1][1] == "probability 50 %, entropy 1.25 nats; instead “·other0” 20 %, “·other1” 10 %"
    assert mine[0][2] == "100" and mine[-1][2] == "2"
    part = opened(as_admin, answered, "?tokens=0-1", **{"HX-Request": "true"})
    assert part.startswith('<div class="face"') and part.count("data-number") == 8
    assert "honk? (1)</p>" in opened(as_admin, answered, "?text=0-1", **{"HX-Request": "true"})
    assert opened(as_admin, answered, "?tokens=all").count("data-says") == 4  # the prompt's among them
    opened(as_admin, answered, "?tokens=9-9", 404, **{"HX-Request": "true"})


def test_the_prompt_is_shown_as_the_model_reads_it(as_admin, answered):
    said = opened(as_admin, answered)
    assert "The prompt as the model reads it, 3 tokens" in said
    assert '<span class="special" title="of the prompt" data-number="7">&lt;|user|&gt;</span>' in said


def test_reasoning_is_folded(as_admin, asked):
    text = "<think>It honks,\nso…</think>Because of its bill."
    said = opened(as_admin, played.answer(asked, [text, "Plain.", "Plain too."]))
    assert "<summary>Thinking, 13 characters</summary>" in said
    assert 'id="said-0-0" dir="auto">Because of its bill.</p>' in said


def test_a_rollout_of_100_000_characters_is_bounded_and_whole_in_a_file(as_admin, asked):
    long = "honk " * 20_000
    played.answer(asked, [long, "Short.", "Ha."])
    said = opened(as_admin, asked)
    assert len(said) < 60_000 and "80,000 characters more are not shown" in said
    file = as_admin.get(reverse("play_text", args=[asked.pk, "0-0"]))
    assert file.content.decode() == long and file["Content-Type"].startswith("text/plain")


def test_many_tokens_are_shown_one_rollout_at_a_time(as_admin, asked):
    played.answer(asked)
    part = asked.parts.get(number=2)
    part.body["rollouts"][0] |= {"tokens": played.tokens(["a"] * 6000), "length": 6001}
    part.body["rollouts"][1] |= {"tokens": played.tokens(["a"] * 6000), "length": 6001}
    part.body["rollouts"][2] |= {"tokens": played.tokens(["a"] * 6000), "length": 6001}
    part.save()
    assert "All token by token" not in opened(as_admin, asked)
    said = opened(as_admin, asked, "?tokens=0-0")
    assert "The first 2,000 of 6,001 tokens." in said


def test_a_prompt_that_was_cut_says_by_how_much(as_admin, asked):
    played.tell(asked, {"prompt": {"length": 300, "cut": 172, "longest": 20}})
    said = opened(as_admin, played.answer(asked))
    assert "its first 172 were left out" not in said  # the newest says
    asked.parts.all().delete()
    played.tell(asked, {"prompt": {"length": 300, "cut": 172, "longest": 20}})
    said = opened(as_admin, asked)
    assert "The prompt has 300 tokens, more than fit: its first 172 were left out." in said
    assert "its answers end after 20" in said


def test_the_reward_model_and_the_checker_speak_each_for_itself(as_admin, asked, project):
    verdict = {"correct": True, "reason": "It says 18, which is right."}
    wrong = {"correct": False, "reason": "It says 17."}
    cannot = {"correct": None, "reason": "The reference cannot be read."}
    played.answer(asked)
    played.tell(asked, {"scores": [[0, 1.5, 0.8], [1, -0.5, 0.3], [2, 0.0, 0.4]]})
    played.tell(asked, {"verdicts": [[0, verdict], [1, wrong], [2, cannot]]})
    said = opened(as_admin, asked)
    assert "✓ correct" in said and "✗ incorrect" in said and "? not checked" in said
    assert "It says 17." in said and "<dt>Reward model, 0–1</dt><dd>0.80</dd>" in said
    assert "Checker: 1 of 2 correct." in said and "0.50 on average." in said
    played.tell(asked, {"trouble": "No scores: The files of “Judge” are not on this machine."})
    assert "No scores: The files of" in opened(as_admin, asked)


def test_two_checkpoints_stand_beside_each_other(as_admin, project, admin, start):
    both = played.answer(played.asked(project, admin, start, played.policy(project, "Step 9")))
    said = opened(as_admin, both)
    assert "Start beside Step 9" in said and said.count('class="panel answer"') == 6
    assert 'id="r-1-2"' in said


def test_answers_that_became_too_many_say_so(as_admin, asked):
    played.answer(asked)
    played.tell(asked, {"sums": {"written": 3, "tokens": 9, "seconds": 1.0, "first": 0.1, "full": True}})
    assert "The answers became too many to keep, and end here." in opened(as_admin, asked)


def test_what_a_checkpoint_that_is_gone_has_said_stays(as_admin, project, admin):
    gone = played.policy(project, "Old one")
    answered = played.answer(played.asked(project, admin, gone))
    gone.delete()
    assert "Old one" in opened(as_admin, answered)


def test_answers_that_were_let_go_leave_the_question(as_admin, answered):
    answered.parts.all().delete()
    said = opened(as_admin, answered)
    assert "Answers are kept for a day, and this one is gone." in said and "Joke?</textarea>" in said


def test_what_one_asked_today_is_listed_and_nobody_elses(as_admin, answered, project, stranger, start):
    played.asked(project, stranger, start, prompt="Somebody else's?")
    said = as_admin.get(reverse("playground")).content.decode()
    assert reverse("play", args=[answered.pk]) in said and "seed 4" in said
    assert "Somebody else" not in said
    Request.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert "Asked today" not in as_admin.get(reverse("playground")).content.decode()


def test_checkpoints_runs_and_projects_lead_here(as_admin, project, start):
    Project.objects.filter(pk=project.pk).update(start=start)
    run = project.runs.create(kind="policy", state="finished", start=start)
    made = played.policy(project, "Step 9", run=run, step=9)
    shared = played.policy(None, "Everybody's")
    here = f"{reverse('playground')}?project={project.slug}"
    leads = {
        reverse("checkpoint", args=[made.pk]): f"{here}&amp;checkpoint={made.pk}",
        reverse("checkpoint", args=[shared.pk]): f"{reverse('playground')}?checkpoint={shared.pk}",
        reverse("run", args=[run.pk]): f"{here}&amp;checkpoint={made.pk}&amp;beside={start.pk}",
        reverse("project", args=[project.slug]): here,
        f"{reverse('checkpoints')}?project={project.slug}": here,
    }
    for page, address in leads.items():
        assert f'href="{address}"' in as_admin.get(page).content.decode(), page
        form = as_admin.get(address.replace("&amp;", "&"))
        assert form.status_code == 200 and b"<textarea" in form.content
