"""Every page, with data in it, as an admin and as a labeler sees it: what axe-core finds in both themes, and
what it does not look for. The states of the ranking page itself are in test_rank_access.py.

A page is whatever answers a GET with HTML: a new address is looked at here as soon as it is in urls.py, and
fails until there is something for it to show."""

import io
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import timezone

from labeler.gap import mix
from labeler.models import (
    Checkpoint,
    Demonstration,
    Evaluation,
    Faceoff,
    Find,
    Import,
    Invitation,
    Membership,
    Place,
    Prompt,
    Quintet,
    Ranking,
    Request,
    Rival,
    Round,
    Run,
    User,
)
from labeler.playground import Sitting
from labeler.urls import urlpatterns
from rlhf import config
from rlhf.run import LineFile
from tests.browser import axe
from tests.labeler import drilled, measured, played

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LONG = "A pelican walks into a bar. " * 20
ANSWERS = ["# Not a heading\n\n- honk", LONG, "Short.", "<b>not bold</b>", "Why? Because of its bill."]


@pytest.fixture
def world(project, admin, labeler, stranger) -> dict[str, object]:
    """What the addresses name: something of everything."""
    project.acceptable = project.ties = True
    project.start = Checkpoint.objects.create(project=project, name="Pelican start", location="hub:a/b@main")
    project.save()
    project.revise_guidelines("Be kind.", admin)
    project.revise_guidelines("## Funny first\n\nThen *short*.\n\n#### And then\n\nkind.", admin)
    Membership.objects.create(project=project, user=stranger, role=Membership.Role.REVIEWER)
    _ranked(project, labeler, stranger)
    run, judge = _runs(project, admin)
    Round.objects.current(project).close(admin)
    checked, *_ = _quintets(project, "Second round", 4)
    for each in (admin, labeler):
        place = Place.objects.next_for(each, project)
        place.quintet.record_ranking(each, place, [1, 2, 3, 4, 5], place.key)
    checked.purpose, checked.known_ranks = "gold", [1, 2, 3, 4, 5]
    checked.save()
    lines = [json.dumps({"prompt": "Joke?", "rollouts": ["a", "b"], "ranks": [1, 2]}), "{"]
    brought = Import.objects.keep(project, "more.jsonl", io.BytesIO("\n".join(lines).encode()), admin)
    brought.errors_file.write_text("line 2: it is not JSON.\n")
    brought.state, brought.errors, brought.first_errors = "refused", 1, [[2, "it is not JSON."]]
    brought.save()
    invitation, token = Invitation.objects.issue(admin, note="Nina", project=project)
    _demonstrated(project, labeler, admin)
    return {
        "checkers": _tried(project),
        "play": _played(project, admin, judge),
        "harvest": _harvested(project, run),
        "faceoff": _faced_off(project, run, labeler),
        "evaluation": _compared(project, judge),
        "run": run,
        "step": run,
        "practice_prompt": Prompt.objects.filter(project=project).first(),
        "practice_sampled": drilled.sampled(Prompt.objects.filter(project=project).first(), judge),
        "practice_stop": judge,
        "practice": run,
        "checkpoint": judge,
        "dataset": project.datasets.first(),
        "import": brought,
        "person": labeler,
        "member": labeler,
        "invitation": invitation,
        "prompt": Prompt.objects.filter(project=project).first(),
        "review": Ranking.objects.filter(labeler=labeler).first().quintet,
        "check": checked,
        "disagreement": judge.run,
        "token": token,
    }


def _demonstrated(project, labeler: User, admin: User) -> None:
    """Answers that each of them wrote, one of an edited rollout, one skipped; and a count of what won."""
    for prompt in Prompt.objects.filter(project=project)[:6]:
        for writer in (labeler, admin):
            edited = {"origin": "edited", "source": "Honk, honk."}
            said = {"completion": "Honk, then honk.", "author": writer, "focus_seconds": 40.0, "version": 2}
            made = project.demonstrations.create(prompt=prompt, **said, **edited)
            made.earlier.create(version=1, completion="Honk.")
            said = {"completion": "Why? It has a bill.", "author": writer, "focus_seconds": 90.0}
            project.demonstrations.create(prompt=prompt, **said)
    skipped = Prompt.objects.filter(project=project).last()
    project.sheets.create(prompt=skipped, writer=labeler, skipped="unclear")
    mix(project, admin)
    for rival in Rival.objects.all():
        for who in (labeler, admin):
            rival.quintet.record_ranking(who, None, [1, 2, 3, 4, 5][: rival.quintet.rollouts.count()])
    told = {"good": 3, "known": 1, "beyond": 0, "homeless": 0, "new": 2, "prompts": 2, "examples": ["Honk."]}
    asked = {"run": None, "simulated": False, "most": 4}
    for take in (True, False):
        project.requests.create(
            kind="gather", state="answered", question=asked | {"take": take}, answer=told, created_by=admin
        )


def _tried(project) -> Request:
    """Answers that the worker has held against a reference: one of each verdict."""
    items = [{"prompt": "", "answer": each, "reference": "5"} for each in ("It is 5.", "6", "six")]
    said = [
        {"correct": each, "reason": "Because.", "read": "5", "probability": 0.9}
        for each in (True, False, None)
    ]
    asked = {"question": {"items": items}, "answer": {"verdicts": said}, "state": "answered"}
    return project.requests.create(kind="check", **asked)


def _played(project, admin, judge: Checkpoint) -> Request:
    """Two checkpoints that answered in the playground, judged and sent on."""
    checkpoints = [played.policy(project, "Step 5"), played.policy(project, "Step 9")]
    asked = played.answer(played.asked(project, admin, *checkpoints, reward_model=judge.pk))
    verdicts = [
        [0, {"correct": True, "reason": "It says 4."}],
        [1, {"correct": False, "reason": "It says 5."}],
    ]
    played.tell(asked, {"scores": [[0, 1.0, 0.7]]}, {"verdicts": verdicts}, side=1)
    sitting = Sitting(asked).read()
    sitting.send(["0-0", "1-1"], admin)
    sitting.demonstrate("0-2", admin)
    return asked


def _faced_off(project, run: Run, labeler: User) -> Faceoff:
    """Ranked by a person and by a program; the reward went another way."""
    checkpoints = [project.start, run.checkpoints.get(step=9)]
    faceoff = project.faceoffs.create(
        number=1,
        round=run.round,
        start=project.start,
        composed_at=timezone.now(),
        alarms={str(run.pk): "People prefer the starting model, though the reward went up."},
    )
    for place, checkpoint in enumerate(checkpoints):
        faceoff.contenders.create(checkpoint=checkpoint, place=place)
    program = User.objects.create_user("a program", simulated=True)
    for prompt in Prompt.objects.filter(project=project)[:4]:
        wrote = [checkpoints[slot % 2] for slot in range(5)]
        quintet = Quintet.objects.compose(
            project,
            Round.objects.current(project),
            prompt,
            ANSWERS,
            checkpoints=wrote,
            faceoff=faceoff,
            places=0,
        )
        for who, ranks in ((labeler, [1, 2, 3, 4, 5]), (program, [5, 4, 3, 2, 1])):
            quintet.record_ranking(who, None, ranks)
    return faceoff


def _harvested(project, run: Run) -> Find:
    """What a look through the run has found: one to be looked at, and one confirmed."""
    prompt, now = Prompt.objects.filter(project=project).first(), timezone.now()
    Run.objects.filter(pk=run.pk).update(reward_model=project.checkpoints.filter(kind="reward").first())
    look = project.harvests.create(
        run=run, round=Round.objects.current(project), rollouts=99, picked=9, finished_at=now
    )
    told = {"score": 0.9, "reward": -1.0, "kl": 12.5, "distinct": 0.1, "alike": 7, "step": 8}
    told |= {"reasons": ["far", "repeats"], "others": [LONG], "beside": [{"text": "Honk?", "step": 1}]}
    finds = [
        project.finds.create(harvest=look, prompt=prompt, text=f"the the {n}", digest=str(n) * 64, **told)
        for n in (1, 2)
    ]
    finds[1].confirm(project.created_by)
    return finds[0]


def _compared(project, judge: Checkpoint) -> Run:
    """An evaluation run that set two reward models side by side."""
    other = Checkpoint.objects.create(project=project, kind="reward", name="Other judge", location="z")
    run = project.runs.create(kind="evaluation", state="finished", reward_model=judge, against=other)
    run.directory.mkdir(parents=True, exist_ok=True)
    Evaluation(run=run).file.write_text(json.dumps(measured.comparison()))
    Evaluation.objects.keep(run)
    return run


def _quintets(project, words: str, count: int) -> list[Quintet]:
    made = []
    for number in range(count):
        prompt = Prompt.objects.create(project=project, content=f"{words}, joke {number}.")
        round = Round.objects.current(project)
        made.append(Quintet.objects.compose(project, round, prompt, ANSWERS, places=2))
    return made


def _ranked(project, *labelers: User) -> None:
    quintets = _quintets(project, "First round", 4)
    for turn, labeler in enumerate(labelers):
        for number in range(3):
            place = Place.objects.next_for(labeler, project)
            ranks = [1, 2, 3, 4, 5] if (turn + number) % 2 else [5, 4, 3, 2, 2 - number % 2]
            told = {"ties": True, "opened_at": timezone.now() - timedelta(seconds=9), "nonsense": [1]}
            place.quintet.record_ranking(labeler, place, ranks, place.key, **told)
    assert len(quintets) == 4


def _runs(project, admin) -> tuple[Run, Checkpoint]:
    reward = Run.objects.launch(project, "reward", {}, admin)
    metrics = {"held_out_accuracy": 0.7, "held_out_pairs": 240, "by_labeler": {}}
    metrics["by_labeler"]["lena"] = {"right": 170, "pairs": 240, "error": 0.03}
    _finish(reward, [{"loss": 1.2, "held_out_accuracy": 0.7}] * 3, result={"metrics": metrics})
    ranks = {"ranks": [1, 2, 3, 4, 5], "scores": [0.7, 0.8, 0.3, 0.2, 0.1]}
    reward.samples.create(step=3, index=0, line={"prompt": "Joke?", "rollouts": ANSWERS, **ranks})
    judge = reward.checkpoints.create(
        project=project,
        kind="reward",
        name="Judge",
        step=3,
        location="x",
        suggested=True,
        lineage={"tau": 1.0},
    )
    policy = Run.objects.launch(project, "policy", {"steps": 9}, admin, reward_model=judge)
    steps = [
        {"reward": 0.5, "kl": 0.1 * n, "entropy": 2.0, "distinct_2": 0.9, "finished": 1.0} for n in range(9)
    ]
    crop = {"step": 5, "rules": ["The entropy is at 40% of its start."], "checkpoint": ""}
    _finish(policy, steps, result={"crop": crop})
    policy.refresh_from_db()
    policy.steps.filter(step=1).update(metrics=stepped(policy))
    policy.samples.create(
        step=9, index=0, line={"prompt": "Joke?", "rollout": "Honk.", "score": 0.7, "kl": 1.0}
    )
    after = policy.checkpoints.create(project=project, name="Step 9", step=9, location="y", suggested=True)
    answer = {"before": {"text": "Honk.", "score": 0.2}, "after": {"text": "Honk honk.", "score": 0.8}}
    items = {"items": [{"prompt": "Joke?", **answer}]}
    question = {"after": after.pk, "seed": 0}
    policy.requests.create(project=project, kind="compare", state="answered", question=question, answer=items)
    settings = config.as_dict(config.make("rollouts", {}))
    project.runs.create(
        kind="rollouts", state="failed", reason="No weights.", remedy="Find some.", config=settings
    )
    return policy, judge


def stepped(run: Run) -> dict:
    """The first step's metrics, with the place of two rollouts that the run wrote in it."""
    said = {"reward": 0.5, "score": 0.6, "parts": {"model": 0.7, "kl": -0.2}, "advantage": 0.1}
    said |= {"kl": [0.0, 2.5, -0.7], "tokens": [1, 2, 3], "pieces": ["Honk", "\n honk", ""]}
    said |= {"step": 1, "group": 0, "prompt": "Joke?"}
    said |= {"checked": "It says 5.", "read": "5"}
    lines = [
        said | {"index": index, "rollout": f"Honk {index}.", "trained": True, "finished": index == 0}
        for index in range(2)
    ]
    lines[0] |= {"correct": True, "picked": True, "log_prob": [-3.0, -2.5]}
    lines[1] |= {"correct": False}
    run.directory.mkdir(parents=True, exist_ok=True)
    place = LineFile(run.directory / "rollouts.jsonl.zst").append(lines)
    practised = [[str(run.project.prompts.first().pk), 2, 1]]
    return {"reward": 0.5, "kl": 0.1, "seconds": 1, "rollouts": place, "practised": practised}


def _finish(run: Run, steps: list[dict], **more) -> None:
    now = timezone.now()
    for number, metrics in enumerate(steps, start=1):
        run.steps.create(step=number, metrics=metrics | {"seconds": number})
    ended = {
        "state": "finished",
        "step": len(steps),
        "total": len(steps),
        "started_at": now,
        "finished_at": now,
    }
    Run.objects.filter(pk=run.pk).update(**ended, log_tail="step 1\nstep 2", **more)
    run.refresh_from_db()


def addresses(world: dict[str, object], slug: str, user: User | None) -> Iterator[tuple[str, str]]:
    """Every address of the site with its name; a number is of the row whose noun the name begins with."""
    mine = {"labeler": user} if user else {}
    world = world | {"rank": Ranking.objects.work().filter(**mine).last()}
    written = {"author": user} if user else {}
    world = world | {"demonstration": Demonstration.objects.filter(origin="edited", **written).first()}
    for pattern in urlpatterns:
        if not isinstance(pattern, URLPattern) or not pattern.name:
            continue
        noun = next((each for each in world if str(pattern.name).startswith(each)), "")
        given: dict[str, object] = {"slug": slug, "kind": "policy", "form": "ranked", "number": 1, "index": 0}
        given |= {"pk": getattr(world.get(noun), "pk", None), "token": world["token"], "ranking": 1}
        given |= {"digest": "0" * 64, "stage": "ranking", "name": "0-0"}
        wanted = pattern.pattern.converters
        yield str(pattern.name), reverse(str(pattern.name), kwargs={name: given[name] for name in wanted})


def pages(user: User | None, world: dict[str, object], slug: str) -> list[str]:
    """The addresses that answer this person's GET with a page, or with one of each refusal; none may fail."""
    client, found, refused = Client(), [], set()
    if user:
        client.force_login(user)
    for name, address in addresses(world, slug, user):
        answer = client.get(address)
        answer.close()
        assert answer.status_code < 500, address
        if user and user.is_staff:
            assert answer.status_code != 404, f"{name}: {address} has nothing to show"
        if answer.streaming or b"<html" not in answer.content or answer.status_code in refused:
            continue
        if answer.status_code >= 400:  # one refusal looks like another
            refused.add(answer.status_code)
        found.append(address)
    return found


@pytest.mark.parametrize("who", ["admin", "labeler", "nobody"])
def test_axe_finds_nothing_wrong_with_any_page(new_page, sign_in, admin, labeler, world, project, who):
    user = {"admin": admin, "labeler": labeler}.get(who)
    page = new_page(color_scheme="light")
    if user:
        sign_in(page, user)
    seen, wrong = pages(user, world, project.slug), []
    assert len(seen) >= {"admin": 25, "labeler": 5, "nobody": 2}[who]
    for address in seen:
        page.goto(address)
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        wrong += [f"{address}\n  {fault}" for fault in axe.faults(page)]
        page.emulate_media(color_scheme="dark")
        wrong += [f"{address}, dark\n  {fault}" for fault in axe.faults(page, only=["color-contrast"])]
        page.emulate_media(color_scheme="light")
        for width in (1280, 900):
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append(f"{address} is wider than {width} pixels")
    assert not wrong, "\n".join(wrong)


PRESSED = "button, select, summary, a.btn, nav a, input:not([type=hidden]), label.tick"
LOOK = """PRESSED => ({
  title: document.title,
  headings: document.querySelectorAll("h1").length,
  lang: document.documentElement.lang,
  wide: document.documentElement.scrollWidth > innerWidth,
  small: [...document.querySelectorAll(PRESSED)]
    .filter(each => each.checkVisibility({ visibilityProperty: true }) && !each.closest(".visually-hidden"))
    .filter(each => !(each.matches("[type=checkbox], [type=radio]") && each.closest("label")))
    .map(each => [each, each.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.height < 43.5 || box.width < 43.5))
    .map(([each, box]) => `${each.outerHTML.slice(0, 90)} ${box.width} × ${box.height}`),
})"""


@pytest.mark.parametrize("who", ["admin", "labeler"])
def test_every_page_has_its_title_one_heading_and_room_for_a_thumb(
    new_page, sign_in, admin, labeler, world, project, who
):
    """On a phone: nothing wider than it, and nothing to press that is smaller than 44 pixels."""
    user = admin if who == "admin" else labeler
    page = new_page(**PHONE)
    sign_in(page, user)
    titles: dict[str, str] = {}
    wrong = []
    for address in pages(user, world, project.slug):
        page.goto(address)
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        found = page.evaluate(LOOK, PRESSED)
        same_page = address.endswith("/freeze/")  # the datasets, with a query in the form
        if found["title"] in titles and not same_page:
            wrong.append(f"{address} is called “{found['title']}”, like {titles[found['title']]}")
        titles[found["title"]] = address
        wrong += [f"{address}: {found['headings']} headings of the first order"] * (found["headings"] != 1)
        wrong += [f"{address} is wider than a phone"] * found["wide"]
        wrong += [f"{address}: small {each}" for each in found["small"]]
    assert not wrong, "\n".join(wrong)


def test_the_keyboard_shows_where_it_is_and_skips_to_the_page(page, sign_in, admin, world, project):
    sign_in(page, admin)
    shown = """() => {
      const one = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(one);
      const visible = outlineStyle !== "none" && parseFloat(outlineWidth) > 1;
      return [one.outerHTML.slice(0, 80), visible || one === document.body];
    }"""
    for address in ("/projects/", f"/projects/{project.slug}/", f"/rounds/{project.slug}/", "/people/"):
        page.goto(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip-link"
        assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
        for _ in range(14):
            page.keyboard.press("Tab")
            where, visible = page.evaluate(shown)
            assert visible, f"{address}: {where}"
    page.goto("/projects/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_nothing_moves_for_those_who_asked_for_less_motion(new_page, sign_in, admin, world, project):
    lease = timezone.now() + timedelta(minutes=5)
    run = world["run"]
    Run.objects.filter(pk=run.pk).update(state="running", leased_until=lease)
    for motion, moving in (("no-preference", True), ("reduce", False)):
        page = new_page(reduced_motion=motion)
        sign_in(page, admin)
        page.goto(reverse("run", args=[run.pk]))
        assert bool(page.evaluate("document.getAnimations().length")) == moving
