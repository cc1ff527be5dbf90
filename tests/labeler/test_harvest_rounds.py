"""Two rounds of the demo without a pull to the start, and a harvest of each, with real training: what was
confirmed no longer fools the next reward model as it did, a new policy finds something else, and the page has
both counts. The benchmark of the same name tells of three seeds at full length.
"""

import pytest
from django.urls import reverse

from benchmarks.harvest import score
from labeler import tasks
from labeler.demo.seed import seed
from labeler.models import Find, Harvest, Project, Request, Run
from tests.labeler.test_evaluations import carry_out

pytestmark = pytest.mark.django_db
# Half the prompts a step at twice the rate: it falls within half the steps of the demo's.
SHORT = {
    "reward": {"epochs": 2},
    "policy": {"steps": 30, "beta": 0, "prompts_per_step": 4, "learning_rate": 2e-3, "checkpoint_every": 30},
}


@pytest.fixture
def demo(admin) -> Project:
    project = seed()
    project.run_defaults = {kind: each | SHORT.get(kind, {}) for kind, each in project.run_defaults.items()}
    project.save()
    return project


def press(client, name: str, *numbers: int, **sent) -> None:
    assert client.post(reverse(name, args=["pelican-jokes", *numbers]), sent).status_code == 302


def answered(kind: str) -> None:
    request = Request.objects.filter(kind=kind).latest("pk")
    tasks.answer(request.pk)
    request.refresh_from_db()
    assert request.state == "answered", request.reason


def played(client, project: Project, admin) -> Harvest:
    """A round: a reward model, a policy against it, its harvest, and every find confirmed."""
    carry_out(Run.objects.launch(project, "reward", {}, admin, simulated=True))
    run = carry_out(Run.objects.launch(project, "policy", {}, admin))
    press(client, "harvest_look", run=run.pk)
    answered("harvest")
    for find in project.finds.filter(state="offered"):
        press(client, "harvest_decide", find.pk, action="confirm")
    return run.harvests.get()


def test_what_is_confirmed_falls_under_the_next_reward_model_and_a_new_policy_finds_other_things(
    as_admin, admin, demo
):
    first = played(as_admin, demo, admin)
    press(as_admin, "round_close", 1)
    carry_out(Run.objects.launch(demo, "rollouts", {}, admin, prompts=demo.prompts.all()[:3]))
    press(as_admin, "round_simulate")
    answered("simulate")
    second = played(as_admin, demo, admin)
    told = score(as_admin.get(reverse("harvests", args=[demo.slug])).content.decode())
    assert [each["confirmed"] for each in told] == [str(each.finds.count()) for each in (first, second)]
    assert first.finds.count() >= 3 <= second.finds.count()
    texts = [set(each.finds.values_list("text", flat=True)) for each in (first, second)]
    assert not texts[0] & texts[1]
    before, after = map(float, told[0]["mean score then → now"].split(" → "))
    fooling, of = map(int, told[0]["still fool the newest"].split(" of "))
    assert after < before - 0.2 and fooling < of == Find.objects.filter(harvest=first).count()
