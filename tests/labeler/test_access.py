"""Who may open what: every address there is, tried by everybody there is.

An address that is not in the table fails the first test, so a new one has to be classified."""

import contextlib

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone

from labeler import datasets, review
from labeler.models import Checkpoint, Evaluation, Import, Invitation, Membership, Probe, Project, Skip, User
from tests.labeler import drilled, played
from tests.labeler.fixtures import PASSWORD

pytestmark = pytest.mark.django_db

SIGN_IN = "/account/sign-in/"

# For whom each address is. Everybody further down may open it as well.
OPEN = {"home", "health", "sign_in", "sign_out", "join"}
SIGNED_IN = {"password", "projects"}
MEMBERS = {
    *("project", "guidelines", "rank", "rank_submit", "rank_hold", "rank_draft", "rank_skip", "rank_mine"),
    "rank_practise",
    *("demonstrations", "demonstration_send", "demonstration_draft", "demonstration_hold"),
    *("demonstration_skip", "demonstrations_mine"),
}
REVIEWERS = {
    *("review", "review_quintet", "review_settle", "review_return", "review_another", "review_queue"),
    *("review_check", "checks", "check_remove", "agreement", "audits"),
    *("disagreements", "disagreement_review", "disagreement_another"),
    *("checkpoint_lineage", "checkpoint_lineage_file", "demonstrations_gap"),
}
# What belongs to one labeler, and to nobody else in the project; and what needs a membership.
OWN = {
    *("rank_unskip", "rank_revise", "rank_undo"),
    *("demonstration_unskip", "demonstration_edit", "demonstration_undo", "demonstration_withdraw"),
}
NOT_FOR_STAFF = {"rank_practise"}
ADMINS = {
    *("people", "invite", "invitation_withdraw", "person_projects"),
    *("members", "member_add", "member_role", "member_pause", "member_exclude", "member_remove"),
    *("project_edit", "audit", "prompts", "prompts_add", "prompt_delete"),
    *("runs", "run_new", "run", "run_live", "run_steps", "run_cancel", "run_compare"),
    *("run_queue", "run_try"),
    *("steps", "step", "step_send"),
    *("checkpoints", "checkpoint", "checkpoint_order", "evaluation", "evaluation_file"),
    *("datasets", "dataset_export", "dataset", "dataset_file"),
    *("dataset_freeze", "dataset_preview", "dataset_take", "dataset_against", "dataset_documents"),
    *("dataset_freeze", "dataset_preview", "dataset_take", "dataset_against"),
    *("imports", "import", "import_errors", "import_undo", "import_delete"),
    *("round_go", "round_whole", "round_simulate"),
    *("rounds", "round_close", "round_reopen", "probes", "probe_aside"),
    *("faceoffs", "faceoff_new", "faceoff", "faceoff_stop", "faceoff_again", "faceoff_ship"),
    *("harvests", "harvest_look", "harvest_decide"),
    *("checkers", "checkers_settings", "checkers_references", "checkers_try", "checkers_tried"),
    *("checkers_say", "prompt_answer"),
    *("demonstrations_all", "demonstrations_gather", "demonstrations_mix", "demonstration"),
    *("practice", "practice_step", "practice_difficulty", "practice_aside", "practice_prompt"),
    *("practice_sampled", "practice_stop"),
    *("playground", "play", "play_stop", "play_send", "play_text"),
    *("demonstration_remove", "stages", "stages_ask"),
}
STAFF = {"project_new", "person_active", "run_front"}
# What they name, where it is not the thing of the address's first segment.
GLOBAL = {"people", "invite", "runs", "run_queue", "checkpoints", "project_new", "playground"}

PEOPLE = ["anonymous", "stranger", "labeler", "reviewer", "admin", "staff"]
GROUPS = (OPEN, SIGNED_IN, MEMBERS, REVIEWERS, ADMINS, STAFF)


def addresses() -> list[URLPattern]:
    return [each for each in get_resolver().url_patterns if isinstance(each, URLPattern)]


@pytest.fixture
def numbers(project, compose, admin, labeler) -> dict:
    """One of each thing that an address may name, by the noun of the address or by its own name."""
    quintet, skipped = compose(2)
    ranking = quintet.record_ranking(labeler, None, [1, 2, 3, 4, 5])
    gold = review.make_check(quintet, admin, "gold", [1, 2, 3, 4, 5], "")
    file = Import.objects.create(project=project, name="a file", path="nowhere", state="finished")
    file.folder.mkdir(parents=True, exist_ok=True)
    file.errors_file.write_text("Line 1: no prompt.")
    skip = Skip.objects.create(quintet=skipped, labeler=labeler, reason="unclear")
    run = project.runs.create(kind="policy")
    run.steps.create(step=1, metrics={})
    tiny = Checkpoint.objects.create(
        project=project, run=run, name="Tiny", location="demo/checkpoint", step=1
    )
    judge = Checkpoint.objects.create(project=project, kind="reward", name="Judge", location="judge")
    measured = project.runs.create(kind="evaluation")
    measured.directory.mkdir(parents=True, exist_ok=True)
    Evaluation(run=measured).file.write_text("{}")
    faceoff = project.faceoffs.create(number=1, round=quintet.round, start=tiny, stopped_at=timezone.now())
    later = Checkpoint.objects.create(project=project, run=run, name="Later", location="later", step=2)
    for place, checkpoint in enumerate((tiny, later)):
        faceoff.contenders.create(checkpoint=checkpoint, place=place)
    invitation, token = Invitation.objects.issue(admin, project=project)
    followed = project.runs.create(kind="reward")
    line = {"prompt": "Joke?", "rollouts": ["a", "b"], "ranks": [1, 2], "scores": [0.1, 0.9]}
    followed.samples.create(step=1, index=0, line=line)
    look = project.harvests.create(run=run, round=project.rounds.first())
    found = {"digest": "1" * 64, "step": 1, "score": 0.9, "reward": 0.1, "kl": 9, "distinct": 0.1}
    demonstration = project.demonstrations.create(prompt=quintet.prompt, completion="Honk.", author=labeler)
    sheet = project.sheets.create(prompt=skipped.prompt, writer=labeler, skipped="unclear")
    find = project.finds.create(harvest=look, prompt=quintet.prompt, text="the the", **found)
    question = {"items": [{"prompt": "", "answer": "5", "reference": "5"}]}
    tried = project.requests.create(kind="check", question=question)
    sampled = drilled.sampled(quintet.prompt, tiny)
    return {
        "checkers_tried": tried.pk,
        "playground": played.answer(played.asked(project, admin, tiny)).pk,
        "name": "0-0",
        "harvests": find.pk,
        "demonstrations": demonstration.pk,
        "demonstration_unskip": sheet.pk,
        "token": token,
        "disagreements": followed.pk,
        "index": 0,
        "form": "ranked",
        "stage": "ranking",
        "kind": "reward",
        "slug": project.slug,
        "number": 1,
        "runs": run.pk,
        "steps": run.pk,
        "practice": run.pk,
        "practice_prompt": quintet.prompt.pk,
        "practice_sampled": sampled.pk,
        "practice_stop": sampled.pk,
        "checkpoints": tiny.pk,
        "checkpoint_order": judge.pk,
        "evaluations": measured.pk,
        "datasets": datasets.freeze(project).pk,
        "prompts": project.prompts.create(content="One that nobody answered.").pk,
        "people": labeler.pk,
        "review": quintet.pk,
        "imports": file.pk,
        "check_remove": gold.pk,
        "ranking": ranking.pk,
        "rank": ranking.pk,
        "rank_unskip": skip.pk,
        "digest": Probe.of(project, "buy now").add(admin).digest,
        "invitation_withdraw": invitation.pk,
        "sent": {"after": tiny.pk},
    }


def address_of(pattern: URLPattern, numbers: dict) -> str:
    noun = str(pattern.pattern).split("/")[0]
    known = numbers | {"pk": numbers.get(pattern.name) or numbers.get(noun, 1)}
    return reverse(pattern.name, kwargs={name: known[name] for name in pattern.pattern.converters})


@pytest.fixture
def clients(project, labeler, stranger, admin) -> list[Client]:
    """One of each of PEOPLE. The stranger runs another project, which must open no door here."""
    other = Project.objects.create(name="Other", slug="other")
    Membership.objects.create(project=other, user=stranger, role="admin")
    users = {"stranger": stranger, "labeler": labeler, "staff": admin}
    for role in ("reviewer", "admin"):
        users[role] = User.objects.create_user(f"the {role}", password=PASSWORD)
        Membership.objects.create(project=project, user=users[role], role=role)
    found = [Client() for _ in PEOPLE]
    for client, person in zip(found[1:], PEOPLE[1:], strict=True):
        client.force_login(users[person])
    return found


def read(answer) -> bytes:
    return b"".join(answer) if answer.streaming else answer.content


def test_every_address_is_classified():
    names = [name for group in (*GROUPS, OWN) for name in group]
    assert sorted(names) == sorted(pattern.name for pattern in addresses())


@contextlib.contextmanager
def asked(client, method, address, sent=None):
    """The answer, and afterwards all is as it was: rows, and who is signed in."""
    before, cookies = transaction.savepoint(), client.cookies.copy()
    try:
        yield getattr(client, method)(address, sent)
    finally:
        transaction.savepoint_rollback(before)
        client.cookies = cookies


@pytest.mark.parametrize("method", ["get", "post"])
def test_every_address_asks_who_is_there(method, numbers, clients, subtests):
    """Anonymous people are sent to sign in; who may not see a thing is told that it is not there, and who may
    not open a page that names nothing that it is not for them."""
    for pattern in addresses():
        with subtests.test(pattern.name):
            for number, (person, client) in enumerate(zip(PEOPLE, clients, strict=True)):
                sent = numbers["sent"] if method == "post" else None
                with asked(client, method, address_of(pattern, numbers), sent) as answer:
                    expect(pattern, number, person, answer)


def expect(pattern, number: int, person: str, answer) -> None:
    groups, said = enumerate((*GROUPS, OWN)), read(answer)
    first = next(number for number, names in groups if pattern.name in names)
    sent_away = answer.headers.get("Location", "").startswith(SIGN_IN) and pattern.name != "sign_out"
    allowed = person == "labeler" if pattern.name in OWN else number >= first
    if allowed and not (person == "staff" and pattern.name in NOT_FOR_STAFF):
        assert answer.status_code not in (403, 404) and not sent_away, person
    elif answer.status_code == 405:
        pass  # asked in a way in which nobody is answered
    elif person == "anonymous":
        assert sent_away, person
    elif person == "stranger" and pattern.name in GLOBAL & ADMINS:
        assert b"elican" not in said
    else:
        assert answer.status_code == (403 if pattern.name in GLOBAL else 404), person


@pytest.mark.parametrize("odd", ["a\0b", "-1", "--5", "9" * 30, "﷽", "", "%", "\n"])
def test_no_address_breaks_on_odd_parameters(odd, numbers, as_admin, subtests):
    """A NUL in a parameter, a page that is no number: refused or passed over, never a fault of ours."""
    names = ("project", "page", "words", "template", "next", "preset", "from", "look", "start", "after")
    names += ("action", "person", "against", "to", "show")
    for pattern in addresses():
        with subtests.test(pattern.name):
            parameters = dict.fromkeys(names, odd)
            with asked(as_admin, "get", address_of(pattern, numbers), parameters) as answer:
                read(answer)
                assert answer.status_code < 500


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "utf-16"])
def test_a_request_in_another_charset_is_refused(as_admin, client, project, charset):
    """It could spell a NUL, or half a character, in ways that nobody looks for."""
    kind = f"application/x-www-form-urlencoded; charset={charset}"
    odd = "%2BAAA-%5Cu0000"
    for who, address in (
        (as_admin, f"/audit/{project.slug}/?action={odd}"),
        (client, "/account/sign-in/?next=a"),
    ):
        assert who.get(address, CONTENT_TYPE=kind).status_code == 400
    sent = f"username={odd}&password=x"
    assert client.generic("POST", "/account/sign-in/", sent, content_type=kind).status_code == 400
    utf8 = kind.replace(charset, "UTF-8")
    assert client.generic("POST", "/account/sign-in/", sent, content_type=utf8).status_code == 422
