"""Writing ideal answers: whose turn it is, what is kept and how often, what one may do with one's own, and
who sees which."""

from datetime import timedelta
from threading import Thread

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from labeler.datasets import freeze_demonstrations, freeze_documents
from labeler.forms import RunForm
from labeler.models import Checkpoint, Demonstration, Membership, Run, Sheet, User
from rlhf.config import Refused
from tests.labeler.checked import sums  # noqa: F401 - a fixture
from tests.labeler.fixtures import PASSWORD

pytestmark = pytest.mark.django_db
HERE = "/demonstrations/pelican-jokes/"


@pytest.fixture
def prompts(project):
    return [project.prompts.create(content=f"Joke number {n}, please.") for n in (1, 2, 3)]


@pytest.fixture
def other(project) -> User:
    user = User.objects.create_user("nina", password=PASSWORD)
    Membership.objects.create(project=project, user=user)
    return user


@pytest.fixture
def as_other(other) -> Client:
    client = Client()
    client.force_login(other)
    return client


def ticket(page) -> str:
    return page.context["ticket"]


def write(client, text: str, **more) -> Demonstration:
    sent = {"ticket": ticket(client.get(HERE)), "completion": text, "focus_seconds": "12.5", **more}
    answer = client.post(f"{HERE}send/", sent)
    assert answer.status_code == 302, answer.content.decode()
    return Demonstration.objects.latest("pk")


def test_what_is_sent_is_kept_with_who_wrote_it_and_how_long_it_took(as_labeler, labeler, project, prompts):
    project.revise_guidelines("Be kind.")
    made = write(as_labeler, "  A pelican walks into a bar.\r\nHonk.  ")
    assert (made.completion, made.author, made.prompt) == (
        "A pelican walks into a bar.\nHonk.",
        labeler,
        prompts[0],
    )
    assert (made.origin, made.focus_seconds, made.guidelines.number) == ("written", 12.5, 1)
    assert as_labeler.get(HERE).context["prompt"] == prompts[1]


def test_two_people_never_write_for_the_same_prompt_at_once(as_labeler, as_other, prompts):
    assert as_labeler.get(HERE).context["prompt"] == prompts[0]
    assert as_other.get(HERE).context["prompt"] == prompts[1]
    assert as_labeler.get(HERE).context["prompt"] == prompts[0]
    assert as_other.get(HERE, {"prompt": prompts[0].pk}).context["prompt"] == prompts[1]


def test_a_lease_that_ran_out_goes_to_others_and_the_answer_is_kept_all_the_same(
    as_labeler, as_other, prompts, labeler
):
    late = ticket(as_labeler.get(HERE))
    Sheet.objects.update(leased_until=timezone.now() - timedelta(minutes=1))
    assert as_other.get(HERE).context["prompt"] == prompts[0]
    assert as_labeler.get(HERE).context["prompt"] == prompts[1], "somebody else is at it by now"
    as_labeler.post(f"{HERE}send/", {"ticket": late, "completion": "Late, but here."})
    assert Demonstration.objects.get().author == labeler


def test_signing_out_gives_the_prompt_to_others_and_keeps_the_draft(as_labeler, as_other, prompts, labeler):
    held = ticket(as_labeler.get(HERE))
    as_labeler.post(f"{HERE}draft/", {"ticket": held, "completion": "So far."})
    as_labeler.post("/account/sign-out/")
    assert as_other.get(HERE).context["prompt"] == prompts[0]
    assert Sheet.objects.get(writer=labeler).draft["completion"] == "So far."


def test_prompts_with_the_fewest_answers_come_first_and_nobody_answers_one_twice(
    as_labeler, as_other, prompts
):
    for _ in prompts:
        write(as_labeler, "Mine.")
    assert as_labeler.get(HERE).context["state"] == "done"
    Demonstration.objects.filter(prompt=prompts[0]).update(withdrawn_at=timezone.now())
    assert as_other.get(HERE).context["prompt"] == prompts[0]
    write(as_other, "Another one.")
    assert as_other.get(HERE).context["prompt"] == prompts[1]


def test_the_same_form_twice_is_kept_once_and_with_another_text_it_is_an_edit(as_labeler, prompts):
    sent = {"ticket": ticket(as_labeler.get(HERE)), "completion": "First."}
    for text in ("First.", "First.", "Second."):
        as_labeler.post(f"{HERE}send/", sent | {"completion": text})
    made = Demonstration.objects.get()
    assert (made.completion, made.version) == ("Second.", 2)
    assert [each.completion for each in made.earlier.all()] == ["First."]


@pytest.mark.parametrize(
    "text, words",
    [("", "Write an answer first"), (" \n\0 ", "Write an answer first"), ("x" * 100_001, "at most 100,000")],
)
def test_an_answer_that_cannot_be_kept_is_refused_in_words_and_stays_in_the_field(
    as_labeler, prompts, text, words
):
    sent = {"ticket": ticket(as_labeler.get(HERE)), "completion": text}
    answer = as_labeler.post(f"{HERE}send/", sent)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert answer.context["completion"] == text
    assert not Demonstration.objects.exists()


@pytest.mark.parametrize("odd", ["", "x", "1:2:3"])
def test_a_form_that_was_not_shown_to_them_is_refused(as_labeler, as_other, prompts, odd):
    strange = odd or ticket(as_other.get(HERE))
    answer = as_labeler.post(f"{HERE}send/", {"ticket": strange, "completion": "Mine."})
    assert answer.status_code == 422
    assert "not one that you were shown" in answer.content.decode()


def test_a_draft_comes_back_and_goes_with_the_answer(as_labeler, prompts):
    held = ticket(as_labeler.get(HERE))
    said = {"ticket": held, "completion": "A pelican", "focus_seconds": "30", "at": "1"}
    assert as_labeler.post(f"{HERE}draft/", said).status_code == 204
    page = as_labeler.get(HERE)
    assert (page.context["completion"], page.context["focus_seconds"]) == ("A pelican", "30")
    write(as_labeler, "A pelican, whole.")
    assert Sheet.objects.get(prompt=prompts[0]).draft is None


def test_an_answer_that_the_checker_finds_wrong_is_kept_and_said_to_be(as_labeler, sums):  # noqa: F811
    said = {"ticket": ticket(as_labeler.get(HERE)), "completion": "It is 6."}
    page = as_labeler.post(f"{HERE}send/", said, headers={"HX-Request": "true"}).content.decode()
    assert "Kept, though the checker finds it wrong: 6, read from the last number, is not 5." in page
    made = Demonstration.objects.get()
    right = as_labeler.post(f"{HERE}mine/{made.pk}/", {"completion": "It is 5."}, follow=True)
    assert "Changed." in right.content.decode() and "finds it wrong" not in right.content.decode()
    wrong = as_labeler.post(f"{HERE}mine/{made.pk}/", {"completion": "7"}, follow=True)
    assert "The checker finds it wrong: 7, read from the last number" in wrong.content.decode()


def test_a_rollout_that_one_may_come_to_rank_is_no_beginning_yet(as_labeler, labeler, compose, project):
    """Whoever has mended it would not rank it like any other."""
    (quintet,) = compose(1)
    rollout = quintet.rollouts.first()
    page = as_labeler.get(HERE)
    assert not page.context["rollouts"] and "5 rollouts of this prompt wait to be" in page.content.decode()
    forged = {"ticket": ticket(page), "start": rollout.pk, "completion": "Mine."}
    assert as_labeler.post(f"{HERE}send/", forged).context["completion"] == "Mine."
    project.places.close()
    assert as_labeler.get(HERE).context["rollouts"], "nobody is to rank it any more"
    project.places.reopen()
    assert not as_labeler.get(HERE).context["rollouts"]
    quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    assert rollout in as_labeler.get(HERE).context["rollouts"], "one has ranked it"


def test_a_rollout_is_edited_into_an_answer_and_what_changed_is_shown(as_labeler, as_admin, compose, project):
    (quintet,) = compose(1)
    project.places.close()
    rollout = quintet.rollouts.get(slot=2)
    page = as_labeler.get(HERE)
    assert rollout in page.context["rollouts"]
    start = {"ticket": ticket(page), "start": rollout.pk, "completion": ""}
    assert as_labeler.post(f"{HERE}send/", start).context["completion"] == "the third joke"
    kept = as_labeler.post(f"{HERE}send/", start | {"completion": "What I had."}).context["completion"]
    assert kept == "What I had.\n\nthe third joke"
    made = write(as_labeler, "the best joke of all", **{"from": rollout.pk})
    assert (made.origin, made.source, made.came_from["quintet"]) == ("edited", "the third joke", quintet.pk)
    shown = as_admin.get(f"{HERE}{made.pk}/").content.decode()
    assert "<del>third </del>" in shown
    assert "<ins>best </ins>" in shown and "<ins>of all</ins>" in shown


def test_a_rollout_of_another_prompt_is_no_beginning(as_labeler, compose):
    _, strange = compose(2)
    made = write(as_labeler, "All mine.", **{"from": strange.rollouts.first().pk})
    assert (made.origin, made.source) == ("written", "")


def test_a_skip_is_shown_to_others_alone_until_it_is_taken_back(as_labeler, as_other, prompts):
    held = ticket(as_labeler.get(HERE))
    as_labeler.post(f"{HERE}draft/", {"ticket": held, "completion": "So far."})
    assert as_labeler.post(f"{HERE}skip/", {"ticket": held, "reason": "odd"}).status_code == 422
    as_labeler.post(f"{HERE}skip/", {"ticket": held, "reason": "cannot"})
    assert as_labeler.get(HERE).context["prompt"] == prompts[1]
    assert as_other.get(HERE).context["prompt"] == prompts[0]
    Sheet.objects.filter(writer__username="nina").delete()
    skipped = Sheet.objects.exclude(skipped="").get()
    as_labeler.post(f"{HERE}skip/{skipped.pk}/take-back/")
    page = as_labeler.get(HERE)
    assert (page.context["prompt"], page.context["completion"]) == (prompts[0], "So far.")


def test_what_was_sent_last_can_be_taken_back_as_it_was(as_labeler, prompts, project):
    made = write(as_labeler, "Too soon.")
    as_labeler.post(f"{HERE}mine/{made.pk}/undo/")
    page = as_labeler.get(HERE)
    assert (page.context["prompt"], page.context["completion"]) == (prompts[0], "Too soon.")
    assert not project.demonstrations.all().counted()
    write(as_labeler, "In good time.")
    assert [each.completion for each in project.demonstrations.all().counted()] == ["In good time."]


def test_one_s_own_answer_is_changed_and_what_stood_there_is_kept(as_labeler, as_admin, prompts):
    made = write(as_labeler, "Before.")
    as_labeler.post(f"{HERE}mine/{made.pk}/", {"completion": "After.", "focus_seconds": "7.5"})
    made.refresh_from_db()
    assert (made.completion, made.version, made.focus_seconds) == ("After.", 2, 20.0)
    assert "Before." in as_admin.get(f"{HERE}{made.pk}/").content.decode()


def test_what_is_withdrawn_is_in_no_later_dataset_and_can_be_put_back(as_labeler, as_admin, prompts, project):
    first, second = write(as_labeler, "One."), write(as_labeler, "Two.")
    as_labeler.post(f"{HERE}mine/{first.pk}/withdraw/")
    as_admin.post(f"{HERE}{second.pk}/remove/")
    assert not project.demonstrations.all().counted()
    as_admin.post(f"{HERE}{second.pk}/remove/", {"back": "1"})
    assert freeze_demonstrations(project).lines == 1
    assert "Withdrawn" in as_admin.get(f"{HERE}{first.pk}/").content.decode()


def test_what_an_admin_has_withdrawn_its_writer_does_not_put_back(as_labeler, as_admin, prompts, project):
    made = write(as_labeler, "Not like this.")
    as_admin.post(f"{HERE}{made.pk}/remove/")
    for address in (f"{HERE}mine/{made.pk}/withdraw/", f"{HERE}mine/{made.pk}/undo/"):
        assert as_labeler.post(address, {"back": "1"}).status_code == 404
    said = as_labeler.get(f"{HERE}mine/").content.decode()
    assert "An admin has withdrawn it." in said and "Put back" not in said
    assert not project.demonstrations.all().counted()
    as_admin.post(f"{HERE}{made.pk}/remove/", {"back": "1"})
    as_labeler.post(f"{HERE}mine/{made.pk}/withdraw/")
    assert "Put back" in as_labeler.get(f"{HERE}mine/").content.decode()


def test_the_same_form_sent_again_after_it_was_taken_back_counts(as_labeler, prompts, project):
    sent = {"ticket": ticket(as_labeler.get(HERE)), "completion": "Too soon."}
    as_labeler.post(f"{HERE}send/", sent)
    made = Demonstration.objects.get()
    as_labeler.post(f"{HERE}mine/{made.pk}/undo/")
    as_labeler.post(f"{HERE}send/", sent | {"completion": "On second thoughts."})
    assert [each.completion for each in project.demonstrations.all().counted()] == ["On second thoughts."]
    assert as_labeler.get(HERE).context["prompt"] == prompts[1]
    as_labeler.post(f"{HERE}mine/{made.pk}/withdraw/")
    as_labeler.post(f"{HERE}send/", sent)
    assert not project.demonstrations.all().counted(), "what is withdrawn on purpose stays so"


def test_a_labeler_sees_their_own_answers_alone(as_labeler, as_other, prompts):
    made = write(as_labeler, "For nobody else's eyes.")
    assert b"eyes" in as_labeler.get(f"{HERE}mine/").content
    assert b"eyes" not in as_other.get(f"{HERE}mine/").content
    for address in (f"mine/{made.pk}/", f"{made.pk}/", "all/"):
        assert as_other.get(HERE + address).status_code == 404
    assert as_other.post(f"{HERE}mine/{made.pk}/withdraw/").status_code == 404


def test_admins_search_all_by_words_author_origin_and_length(as_labeler, as_admin, prompts, project):
    write(as_labeler, "A pelican honks.")
    write(as_labeler, "word " * 300)
    project.demonstrations.create(prompt=prompts[2], completion="From a file.", origin="imported")

    def found(**asked) -> list[str]:
        return [each.completion[:10].strip() for each in as_admin.get(f"{HERE}all/", asked).context["page"]]

    assert found() == ["From a fil", "word word", "A pelican"]
    assert found(words="pelican honks") == ["A pelican"]
    assert found(words="number 2") == ["word word"], "a word of the prompt"
    assert found(author="lena", length="long") == ["word word"]
    assert found(origin="imported") == ["From a fil"]
    assert found(order="longest")[0] == "word word"
    assert found(words="nothing like it") == []


def test_who_is_paused_writes_nothing_and_reads_why(as_labeler, labeler, admin, prompts, project):
    project.memberships.get(user=labeler).pause("Take a rest.", admin)
    page = as_labeler.get(HERE)
    assert page.context["state"] == "paused"
    assert "Take a rest." in page.content.decode()


def test_without_prompts_an_admin_is_told_what_to_do(as_admin, as_labeler, project):
    assert "Add prompts" in as_admin.get(HERE).content.decode()
    assert "Add prompts" not in as_labeler.get(HERE).content.decode()


def test_a_finetuning_run_says_how_many_of_each_origin_it_learns_from(as_admin, prompts, project):
    for origin, many in (("written", 3), ("imported", 2), ("won", 1)):
        for number in range(many):
            project.demonstrations.create(
                prompt=prompts[number], completion=f"{origin} {number}", origin=origin
            )
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.save()
    page = as_admin.get("/runs/new/pelican-jokes/sft/").content.decode()
    assert "6 demonstrations: 3 written, 2 imported, 1 won" in page
    new = "/runs/new/pelican-jokes/sft/"
    sent = {field.html_name: field.value() for field in RunForm(project, "sft")}
    for origins, many in ((["written", "won"], 4), ([], 0), (["written", "won", "imported"], 6)):
        shown = as_admin.get(new, sent | {"origins": origins}, headers={"HX-Request": "true"})
        assert f"{many} demonstrations, " in shown.content.decode()
    run = Run.objects.launch(project, "sft", {}, None, origins=["written", "won"])
    assert (run.dataset.lines, run.dataset.origins) == (4, {"written": 3, "won": 1})
    page = as_admin.get("/runs/new/pelican-jokes/sft/").content.decode()
    assert "3 written, 1 won" in page
    shown = as_admin.get(f"/datasets/pelican-jokes/{run.dataset.pk}/").content.decode()
    assert "A rollout that won its quintet" in shown


def test_what_reads_is_given_documents_and_what_answers_demonstrations(prompts, project):
    project.start = Checkpoint.objects.create(project=project, name="Start", location="hub:a/b@main")
    project.save()
    reading = {"stage": "reading"}
    with pytest.raises(Refused, match="nothing to read"):
        Run.objects.launch(project, "sft", reading, None)
    documents = freeze_documents(project, [{"text": "Once upon a time."}, {"text": "There was a pelican."}])
    project.demonstrations.create(prompt=prompts[0], completion="Honk.")
    assert Run.objects.launch(project, "sft", reading, None).dataset == documents
    with pytest.raises(Refused, match="holds documents"):
        Run.objects.launch(project, "sft", {}, None, dataset=documents)
    with pytest.raises(Refused, match="reads documents"):
        Run.objects.launch(project, "sft", reading, None, dataset=freeze_demonstrations(project))


@pytest.mark.django_db(transaction=True)
def test_many_who_ask_at_the_same_moment_are_given_prompts_of_their_own(project):
    for number in range(8):
        project.prompts.create(content=f"Prompt {number}")
    writers = [User.objects.create_user(f"writer {number}") for number in range(8)]
    given: list[int] = []

    def ask(writer: User) -> None:
        sheet = Sheet.objects.next_for(writer, project)
        given.append(sheet.prompt_id if sheet else 0)
        connection.close()

    threads = [Thread(target=ask, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 8 and 0 not in given
