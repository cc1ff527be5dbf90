"""The demo's story on one seed, with real training: against its reward model alone a policy rises and falls,
pulled to its start it holds, and the checkpoint that is suggested keeps most of what was gained. What fooled
the reward model is harvested, the next one is trained, and a policy learns against that.

As the demo has it, but in sixty steps, and in the second round in half of these, at half the prompts and
twice the rate. The benchmarks `overoptimisation` and `harvest` tell of three seeds at full length.
"""

import pytest
from django.urls import reverse

from benchmarks.harvest import score
from benchmarks.overoptimisation import told
from labeler import tasks
from labeler.demo.seed import seed
from labeler.models import Find, Harvest, Project, Request, Run
from tests.labeler.test_evaluations import carry_out

pytestmark = pytest.mark.django_db
FEWER = {"policy": {"steps": 60}}
NO_PULL = {"beta": 0}
QUICKLY = {"steps": 30, "prompts_per_step": 4, "learning_rate": 2e-3, "checkpoint_every": 30}


@pytest.fixture
def demo(admin) -> Project:
    project = seed()
    project.run_defaults = {
        kind: each | FEWER.get(kind, {}) | {"seed": 1} for kind, each in project.run_defaults.items()
    }
    project.save()
    return project


def press(client, name: str, *numbers: int, **sent) -> None:
    assert client.post(reverse(name, args=["pelican-jokes", *numbers]), sent).status_code == 302


def answered(kind: str) -> None:
    request = Request.objects.filter(kind=kind).latest("pk")
    tasks.answer(request.pk)
    request.refresh_from_db()
    assert request.state == "answered", request.reason


def judged(project: Project, admin) -> None:
    carry_out(Run.objects.launch(project, "reward", {}, admin, simulated=True))


def practised(project: Project, admin, **settings) -> Run:
    return carry_out(Run.objects.launch(project, "policy", settings, admin))


def harvested(client, project: Project, run: Run) -> Harvest:
    """Every find of the run confirmed."""
    press(client, "harvest_look", run=run.pk)
    answered("harvest")
    for find in project.finds.filter(state="offered"):
        press(client, "harvest_decide", find.pk, action="confirm")
    return run.harvests.get()


def test_a_policy_fools_its_reward_model_and_what_it_found_is_used_against_the_next(
    as_admin, admin, demo, subtests
):
    judged(demo, admin)
    falling = practised(demo, admin, **NO_PULL)
    fell, held = told(falling.directory), told(practised(demo, admin).directory)
    with subtests.test("without a pull to the start the taste rises and falls while the score ends higher"):
        assert fell["peak"] >= fell["start"] + 0.08
        assert fell["end"] <= fell["peak"] - 0.15
        assert fell["reward"][1] > fell["reward"][0]
    with subtests.test("the suggested checkpoint keeps most of the rise"):
        # The mean over seeds is the benchmark's; where one seed goes differs from processor to processor.
        assert fell["crop"] and fell["kept"] >= 0.7
    with subtests.test("with the demo's own pull it holds, and no crop is suggested"):
        assert held["end"] >= held["peak"] - 0.1 and held["peak"] >= held["start"] + 0.08
        assert held["crop"] is None

    first = harvested(as_admin, demo, falling)
    press(as_admin, "round_close", 1)
    carry_out(Run.objects.launch(demo, "rollouts", {}, admin, prompts=demo.prompts.all()[:3]))
    press(as_admin, "round_simulate")
    answered("simulate")
    judged(demo, admin)
    second = harvested(as_admin, demo, practised(demo, admin, **NO_PULL | QUICKLY))
    rounds = score(as_admin.get(reverse("harvests", args=[demo.slug])).content.decode())
    with subtests.test("a new policy finds other things"):
        counts = [each.finds.count() for each in (first, second)]
        assert [each["confirmed"] for each in rounds] == list(map(str, counts)) and min(counts) >= 3
        texts = [set(each.finds.values_list("text", flat=True)) for each in (first, second)]
        assert not texts[0] & texts[1]
    with subtests.test("what was confirmed falls under the next reward model"):
        before, after = map(float, rounds[0]["mean score then → now"].split(" → "))
        fooling, of = map(int, rounds[0]["still fool the newest"].split(" of "))
        assert after < before - 0.2 and fooling < of == Find.objects.filter(harvest=first).count()
