"""What becomes of an answer of the playground: a quintet for the labelers, a demonstration, and neither any
more."""

import re

import pytest
from django.db import transaction
from django.urls import reverse

from labeler.models import AuditEntry, Demonstration, Place, Quintet, Request
from labeler.playground import Sitting
from tests.labeler import played
from tests.labeler.checked import sums  # noqa: F401 - a fixture
from tests.labeler.scripted import meanwhile

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(project):
    return played.policy(project)


@pytest.fixture
def asked(project, admin, start) -> Request:
    return played.asked(project, admin, start)


@pytest.fixture
def answered(asked) -> Request:
    return played.answer(asked)


def opened(client, request: Request) -> str:
    return client.get(reverse("play", args=[request.pk])).content.decode()


def send(client, request: Request, **sent) -> str:
    answer = client.post(reverse("play_send", args=[request.pk]), sent, follow=True)
    return " ".join(re.findall(r'class="message[^>]*>([^<]*)', answer.content.decode())).strip()


def test_five_are_sent_to_the_labelers_with_their_prompt_and_taken_back(as_admin, answered, project, start):
    said = send(as_admin, answered, rollout=["0-0", "0-2"])
    quintet = Quintet.objects.get()
    assert said == f"They wait for the labelers now, as quintet {quintet.pk}."
    assert quintet.prompt.content == "Joke?" and quintet.run is None
    assert [each.text[-3:] for each in quintet.rollouts.all()] == ["(0)", "(2)"]
    assert {each.checkpoint for each in quintet.rollouts.all()} == {start}
    assert Place.objects.filter(quintet=quintet).count() == project.overlap
    assert "They were sent before" in send(as_admin, answered, rollout=["0-2", "0-0"])
    assert f"quintet {quintet.pk}</a>" in opened(as_admin, answered)
    assert "is taken back" in send(as_admin, answered, quintet=quintet.pk)
    assert not Quintet.objects.exists()
    actions = AuditEntry.objects.values_list("action", flat=True)
    assert sorted(actions) == ["send to the labelers", "take back"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0-0"], "Choose 2 to 5 rollouts of one prompt; 1 was chosen."),
        (["0-1", "0-2"], "All of these say the same"),
        (["0-0", "0-3"], "One of these says nothing"),
        (["7-7", "9-9"], "0 were chosen"),
    ],
)
def test_what_cannot_be_ranked_is_not_sent(as_admin, project, admin, start, names, words):
    said = played.answer(played.asked(project, admin, start, count=4), ["One.", "Same.", "Same.", " "])
    assert words in send(as_admin, said, rollout=names)
    assert not Quintet.objects.exists() and not project.prompts.exists()


def test_a_quintet_from_elsewhere_is_not_taken_back_here(as_admin, answered, compose):
    [other] = compose(1)
    answer = as_admin.post(reverse("play_send", args=[answered.pk]), {"quintet": other.pk})
    assert answer.status_code == 404 and Quintet.objects.filter(pk=other.pk).exists()


def test_one_is_saved_as_a_demonstration_once_and_withdrawn(as_admin, answered, project, admin):
    known = project.prompts.create(content="Joke?")
    assert "It is kept as demonstration" in send(as_admin, answered, demonstrate="0-1")
    send(as_admin, answered, demonstrate="0-1")
    made = Demonstration.objects.get()
    assert (made.prompt, made.author, made.origin) == (known, admin, "picked")
    assert made.completion == "Why did the pelican\nhonk? (1)"
    assert made.came_from == {"request": answered.pk, "rollout": "0-1"}
    assert f"demonstration {made.pk}" in opened(as_admin, answered)
    listed = as_admin.get(reverse("demonstrations_all", args=[project.slug])).content.decode()
    assert "rollout from the playground" in listed and "rollout that passed" not in listed
    assert "is withdrawn" in send(as_admin, answered, withdraw=made.pk)
    assert not Demonstration.objects.counted().exists()
    assert "Save as demonstration" in opened(as_admin, answered)


def test_one_that_was_saved_is_made_what_it_should_have_been(as_admin, as_labeler, answered, project):
    send(as_admin, answered, demonstrate="0-0")
    made = Demonstration.objects.get()
    was = made.completion
    address = reverse("demonstration_edit", args=[project.slug, made.pk])
    assert address in opened(as_admin, answered)
    as_admin.post(address, {"completion": was})
    assert Demonstration.objects.get().origin == "picked", "nothing was changed of it"
    assert as_labeler.post(address, {"completion": "Mine."}).status_code == 404
    as_admin.post(address, {"completion": "A better one."})
    made.refresh_from_db()
    assert (made.origin, made.source, made.completion) == ("edited", was, "A better one.")


def test_what_the_checker_finds_wrong_is_kept_and_said_to_be(as_admin, admin, sums, start):  # noqa: F811
    asked = played.answer(
        played.asked(sums, admin, start, prompt="What is 2 + 3?", count=2), ["It is 6.", "5"]
    )
    assert "though wrong: 6, read from the last number, is not 5." in send(as_admin, asked, demonstrate="0-0")
    assert send(as_admin, asked, demonstrate="0-1").endswith(f"{Demonstration.objects.latest('pk').pk}.")


@pytest.mark.django_db(transaction=True)
def test_two_presses_at_once_make_one_demonstration_and_one_prompt(admin, answered, project):
    with transaction.atomic():
        first = Sitting(answered).read().demonstrate("0-1", admin)
        second: list[Demonstration] = []
        thread = meanwhile(lambda: second.append(Sitting(answered).read().demonstrate("0-1", admin)))
        thread.join(0.5)
    thread.join()
    assert second == [first] and Demonstration.objects.count() == project.prompts.count() == 1


def test_nothing_is_no_demonstration(as_admin, asked):
    played.answer(asked, [" ", "a", "b"])
    assert "Write an answer first" in send(as_admin, asked, demonstrate="0-0")
    assert not Demonstration.objects.exists()
