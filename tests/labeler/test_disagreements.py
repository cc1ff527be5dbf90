"""The disagreement table: how it is sorted and scrubbed, which rows it finds again, and what a reviewer asks
for from it."""

import pytest
from django.test import Client
from django.urls import reverse

from labeler.models import AuditEntry, Flag, Place, Quintet, Ranking, Run, Sample, User

pytestmark = pytest.mark.django_db
HTMX = {"headers": {"HX-Request": "true"}}
LIST = "/review/pelican-jokes/"
UP, DOWN = [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]
ALIKE, CLOSE, TURNED = [0.9, 0.7, 0.5, 0.3, 0.1], [0.8, 0.1, 0.7, 0.4, 0.6], [0.1, 0.3, 0.5, 0.7, 0.9]


@pytest.fixture
def run(project) -> Run:
    return project.runs.create(kind="reward", state="finished", result={"metrics": {"held_out": 9}})


@pytest.fixture
def rita(project) -> User:
    rita = User.objects.create_user("rita")
    project.memberships.create(user=rita, role="reviewer")
    return rita


@pytest.fixture
def as_reviewer(rita) -> Client:
    client = Client()
    client.force_login(rita)
    return client


def follow(run: Run, ranking: Ranking, index: int, *scores: list[float], name: str | None = None) -> None:
    """What the trainer keeps of a held-out ranking at the steps 1, 10, 20 …, the texts at the first alone."""
    quintet = ranking.quintet
    texts = {"prompt": quintet.prompt.content, "rollouts": [each.text for each in quintet.rollouts.all()]}
    said = {"ranks": ranking.ranks, "labeler": ranking.labeler.username, "simulated": ranking.simulated}
    said["quintet"] = quintet.external_id or str(quintet.pk) if name is None else name
    for number, row in enumerate(scores):
        line = said | (texts if number == 0 else {}) | {"scores": row}
        Sample.objects.create(run=run, step=10 * number or 1, index=index, line=line)


@pytest.fixture
def rankings(run, compose, labeler) -> list[Ranking]:
    """Three, followed over three measurements."""
    found = [quintet.record_ranking(labeler, None, UP) for quintet in compose(3)]
    for index, scores in enumerate(([TURNED, CLOSE, ALIKE], [ALIKE] * 3, [CLOSE, CLOSE, TURNED])):
        follow(run, found[index], index, *scores)
    return found


def page(client: Client, run: Run, **query):
    answer = client.get(reverse("disagreements", args=[run.pk]), query)
    assert answer.status_code == 200
    return answer


def shown(client: Client, run: Run, **query) -> list[int]:
    return [row.index for row in page(client, run, **query).context["page"]]


def text(answer) -> str:
    return " ".join(answer.content.decode().split())


def post(client: Client, run: Run, what: str, index: int = 0, **sent):
    return client.post(reverse(f"disagreement_{what}", args=[run.pk, index]), sent)


# What it shows


def test_the_worst_disagreement_at_the_step_comes_first(as_reviewer, run, rankings):
    assert shown(as_reviewer, run) == [2, 0, 1]  # the newest step
    assert shown(as_reviewer, run, look="0") == [0, 2, 1]
    rows = page(as_reviewer, run, look="0").context["page"].object_list
    assert [row.apart for row in rows] == pytest.approx([2, 0.8, 0])


def test_in_the_order_of_the_last_step_the_cards_stay(as_reviewer, run, rankings):
    assert {tuple(shown(as_reviewer, run, look=look, order="last")) for look in "012"} == {(2, 0, 1)}


def test_a_score_stands_beside_the_one_of_the_step_before(as_reviewer, run, rankings):
    row = next(row for row in page(as_reviewer, run, look="1").context["page"] if row.index == 0)
    assert [(each.before, each.score, each.moved) for each in row.rollouts] == [
        (0.1, 0.8, 1),
        (0.3, 0.1, -1),
        (0.5, 0.7, 1),
        (0.7, 0.4, -1),
        (0.9, 0.6, -1),
    ]
    assert [(each.ordinal, each.contested) for each in row.rollouts] == [
        ("1st", False),
        ("5th", True),
        ("2nd", True),
        ("4th", False),
        ("3rd", True),
    ]
    first = page(as_reviewer, run, look="0").context["page"][0]
    assert {(each.before, each.moved) for each in first.rollouts} == {(None, 0)}


def test_what_is_not_seen_to_move_gets_no_arrow(as_reviewer, run, compose, labeler):
    ranking = compose()[0].record_ranking(labeler, None, UP)
    follow(run, ranking, 0, [0.801, 0.5, 0.4, 0.3, 0.2], [0.804, 0.51, 0.39, 0.3, 0.2])
    (row,) = page(as_reviewer, run).context["page"]
    assert [each.moved for each in row.rollouts] == [0, 1, -1, 0, 0]


def test_the_rollouts_stand_in_the_order_of_whoever_ranked(as_reviewer, run, compose, labeler):
    (quintet,) = compose()
    follow(run, quintet.record_ranking(labeler, None, [3, 1, 2, 2, 4], ties=True), 0, ALIKE)
    (row,) = page(as_reviewer, run).context["page"]
    texts = [each.text for each in quintet.rollouts.all()]
    assert [(each.rank, texts.index(each.text)) for each in row.rollouts] == [
        (1, 1), (2, 2), (2, 3), (3, 0), (4, 4),
    ]  # fmt: skip
    # Third of all is as good as second for who shares the second rank.
    assert [each.contested for each in row.rollouts] == [True, False, True, True, False]


def test_the_newest_step_is_shown_and_any_other_by_its_number_or_its_step(as_reviewer, run, rankings):
    for query, step in (({}, 20), ({"look": "0"}, 1), ({"step": "10"}, 10), ({"step": "15"}, 10)):
        answer = page(as_reviewer, run, **query)
        assert answer.context["step"] == step, query
    assert page(as_reviewer, run, look="nonsense").context["step"] == 20
    said = text(page(as_reviewer, run, look="1"))
    assert "← step 1<" in said and "step 20 →" in said and 'aria-valuetext="step 10"' in said


def test_the_slider_is_answered_with_the_table_alone(as_reviewer, run, rankings):
    answer = as_reviewer.get(reverse("disagreements", args=[run.pk]), {"look": "1"}, **HTMX)
    assert "<html" not in text(answer) and 'id="said"' in text(answer) and "Step 10" in text(answer)


def test_simulated_rankings_are_marked_and_so_is_what_was_ranked_otherwise_since(
    as_reviewer, run, compose, labeler
):
    program = User.objects.create(username="sim-1", simulated=True)
    one, other = compose(2)
    follow(run, one.record_ranking(program, None, UP), 0, ALIKE)
    ranking = other.record_ranking(labeler, None, UP)
    follow(run, ranking, 1, ALIKE)
    assert "ranked otherwise since" not in text(page(as_reviewer, run))
    ranking.revise(labeler, DOWN)
    rows = {row.index: row for row in page(as_reviewer, run).context["page"]}
    assert (rows[0].simulated, rows[0].changed, rows[1].changed) == (True, False, True)
    assert "simulated</span>" in text(page(as_reviewer, run)) and "ranked otherwise since" in text(
        page(as_reviewer, run)
    )


def test_a_run_that_measured_nothing_says_so(as_reviewer, run):
    assert "This run measured nothing" in text(page(as_reviewer, run))
    Run.objects.filter(pk=run.pk).update(state="queued")
    assert "Nothing is measured yet" in text(page(as_reviewer, run))


def test_only_reviewers_of_the_project_see_it_and_only_of_reward_runs(
    as_labeler, as_stranger, as_reviewer, project, run, rankings
):
    address = reverse("disagreements", args=[run.pk])
    assert {client.get(address).status_code for client in (as_labeler, as_stranger)} == {404}
    policy = project.runs.create(kind="policy")
    assert as_reviewer.get(reverse("disagreements", args=[policy.pk])).status_code == 404
    assert post(as_labeler, run, "review").status_code == 404 and not Flag.objects.exists()
    assert post(as_reviewer, run, "review", index=77).status_code == 404


def test_the_page_asks_no_more_of_the_database_as_it_grows(
    as_reviewer, run, compose, labeler, django_assert_max_num_queries
):
    for several in (2, 28):
        begin = run.samples.filter(step=1).count()
        for index, quintet in enumerate(compose(several), start=begin):
            follow(run, quintet.record_ranking(labeler, None, UP), index, TURNED, CLOSE)
        with django_assert_max_num_queries(15):
            answer = page(as_reviewer, run)
    assert len(answer.context["page"]) == 25
    assert len(shown(as_reviewer, run, page="2")) == 5
    assert "of 9 held out" not in text(answer)


def test_the_run_and_its_reward_model_lead_here(as_admin, project, run, rankings):
    judge = run.checkpoints.create(project=project, kind="reward", name="Judge", step=10, location="x")
    address = reverse("disagreements", args=[run.pk])
    assert f"{address}?look=2" in text(as_admin.get(reverse("run", args=[run.pk])))
    assert f"{address}?step=10" in text(as_admin.get(reverse("checkpoint", args=[judge.pk])))
    said = text(as_admin.get(address, {"step": "10"}))
    assert reverse("checkpoint", args=[judge.pk]) in said and reverse("run", args=[run.pk]) in said


def test_the_scores_of_one_quintet_alone_can_be_asked_for(as_reviewer, run, rankings):
    answer = page(as_reviewer, run, step="10", quintet=str(rankings[1].quintet_id))
    assert [row.index for row in answer.context["page"]] == [1]
    said = text(answer)
    assert "3 rankings that it has not learnt from" in said and "Show all 3" in said
    for odd in ("99999", "x", "9" * 30):
        assert len(shown(as_reviewer, run, quintet=odd)) == 3


# The rows behind it


def test_quintets_with_names_of_their_own_are_found_again(as_reviewer, project, run, compose, labeler):
    one, other = compose(2, external_id="the same name")
    follow(run, one.record_ranking(labeler, None, UP), 0, ALIKE)
    follow(run, other.record_ranking(labeler, None, UP), 1, ALIKE)
    found = {row.index: row.quintet for row in page(as_reviewer, run).context["page"]}
    assert found == {0: one, 1: other}


def test_runs_from_before_names_were_kept_are_found_by_their_texts(as_reviewer, run, compose, labeler):
    ranking = compose()[0].record_ranking(labeler, None, UP)
    follow(run, ranking, 0, ALIKE, name="")
    (row,) = page(as_reviewer, run).context["page"]
    assert (row.quintet, row.ranking) == (ranking.quintet, ranking)


def test_of_work_and_its_repeat_the_one_is_meant_that_says_the_same(as_reviewer, run, compose, labeler):
    work = compose()[0].record_ranking(labeler, None, UP)
    again = Ranking.objects.create(quintet=work.quintet, labeler=labeler, ranks=DOWN, purpose="repeat")
    for index, ranking in enumerate((work, again)):
        follow(run, ranking, index, ALIKE)
    assert {row.index: row.ranking for row in page(as_reviewer, run).context["page"]} == {0: work, 1: again}


def test_a_quintet_of_another_project_is_never_found(as_reviewer, run, compose, labeler, stranger):
    from labeler.models import Project, Prompt, Round

    ranking = compose()[0].record_ranking(labeler, None, UP)
    follow(run, ranking, 0, ALIKE)
    other = Project.objects.create(name="Other", slug="other")
    Quintet.objects.filter(pk=ranking.quintet_id).update(
        project=other,
        round=Round.objects.current(other),
        prompt=Prompt.objects.create(project=other, content="Joke number 1, please."),
    )
    (row,) = page(as_reviewer, run).context["page"]
    assert row.quintet is None
    assert "not here any more" in text(page(as_reviewer, run))
    post(as_reviewer, run, "another")
    post(as_reviewer, run, "review")
    assert not Place.objects.asked_for().exists() and not Flag.objects.exists()


# Marking one for review


def test_a_marked_ranking_stands_on_the_review_list_with_its_reason(as_reviewer, project, run, rankings):
    answer = post(as_reviewer, run, "review", index=2, look="1", page="1", order="last")
    assert answer.url == f"{reverse('disagreements', args=[run.pk])}?look=1&order=last&page=1#held-2"
    assert "stands on the review list now" in text(as_reviewer.get(answer.url))
    flag = Flag.objects.get()
    assert (flag.ranking, flag.run, flag.step, flag.by.username) == (rankings[2], run, 10, "rita")
    listed = as_reviewer.get(LIST)
    assert listed.context["marked"] == [rankings[2].quintet]
    assert "The reward model disagrees</b> with lena: marked by rita" in text(listed)
    scores = f"{reverse('disagreements', args=[run.pk])}?step=10&amp;quintet={rankings[2].quintet_id}"
    assert scores in text(listed)
    assert as_reviewer.get(LIST, {"show": "model"}).context["rows"] == [rankings[2].quintet]
    assert as_reviewer.get(LIST, {"show": "decided"}).context["rows"] == []
    assert "The reward model disagrees" in text(as_reviewer.get(f"{LIST}{rankings[2].quintet_id}/"))
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.about["ranking"], entry.about["run"]) == (
        "mark for review",
        rankings[2].pk,
        run.pk,
    )


def test_marked_twice_is_marked_once_and_can_be_taken_back(as_reviewer, project, run, rankings):
    for _ in range(2):
        post(as_reviewer, run, "review")
    assert Flag.objects.count() == 1
    for _ in range(2):
        post(as_reviewer, run, "review", undo="")
    assert not Flag.objects.exists()
    assert as_reviewer.get(LIST).context["marked"] == []
    assert [entry.action for entry in project.audit.order_by("pk")] == ["mark for review", "take back"]


def test_a_review_settles_the_mark_until_it_is_set_anew(as_reviewer, run, rankings):
    quintet = rankings[0].quintet
    post(as_reviewer, run, "review")
    as_reviewer.post(f"{LIST}{quintet.pk}/settle/", {"accept": ""})
    assert as_reviewer.get(LIST).context["marked"] == []
    assert not page(as_reviewer, run, look="0").context["page"][0].flag
    post(as_reviewer, run, "review")
    assert as_reviewer.get(LIST).context["marked"] == [quintet]
    assert "Accept it as it is" in text(as_reviewer.get(f"{LIST}{quintet.pk}/"))
    as_reviewer.post(f"{LIST}{quintet.pk}/settle/", {"accept": ""})
    assert as_reviewer.get(LIST).context["marked"] == []


def test_what_is_marked_is_not_listed_twice_and_comes_next(as_reviewer, rita, run, rankings):
    from labeler.agreement.folding import fold_all

    for ranking in rankings[:2]:
        ranking.quintet.record_ranking(rita, None, DOWN)
    post(as_reviewer, run, "review", index=0)
    fold_all([run.project], wait=True)
    listed = as_reviewer.get(LIST)
    assert (listed.context["marked"], listed.context["rows"]) == (
        [rankings[0].quintet],
        [rankings[1].quintet],
    )
    assert as_reviewer.get(f"{LIST}{rankings[1].quintet_id}/").context["next"] == rankings[0].quintet_id
    assert as_reviewer.get(f"{LIST}{rankings[0].quintet_id}/").context["next"] == rankings[1].quintet_id


def test_with_htmx_the_buttons_alone_come_back_with_a_word(as_reviewer, run, rankings):
    address = reverse("disagreement_review", args=[run.pk, 0])
    said = text(as_reviewer.post(address, {"look": "0"}, **HTMX))
    assert "<html" not in said and "stands on the review list now" in said and "Take the mark back" in said
    assert 'name="look" value="0"' in said
    said = text(as_reviewer.post(address, {"undo": ""}, **HTMX))
    assert "Mark for review" in said
    assert "message" not in text(page(as_reviewer, run)), "what was said once is not said again"


def test_a_ranking_that_was_taken_back_cannot_be_marked(as_reviewer, run, rankings, labeler):
    Ranking.objects.filter(pk=rankings[0].pk).update(current=False)
    assert "was taken back since" in text(page(as_reviewer, run))
    answer = as_reviewer.get(post(as_reviewer, run, "review").url)
    assert "not here any more" in text(answer) and not Flag.objects.exists()


# Asking another labeler


def test_another_labeler_is_asked_once_and_asked_no_more(as_reviewer, project, run, rankings, rita):
    for _ in range(2):
        post(as_reviewer, run, "another")
    (place,) = Place.objects.asked_for()
    assert place.quintet == rankings[0].quintet
    for _ in range(2):
        post(as_reviewer, run, "another", undo="")
    assert not Place.objects.asked_for().exists()
    assert [entry.action for entry in project.audit.order_by("pk")] == ["ask another", "ask no more"]


def test_taking_it_back_leaves_the_places_that_the_project_wants(as_reviewer, project, run, compose, labeler):
    project.overlap = 2
    project.save()
    ranking = compose()[0].record_ranking(labeler, None, UP)
    follow(run, ranking, 0, TURNED)
    post(as_reviewer, run, "another")
    assert ranking.quintet.places.waiting().count() == 3
    post(as_reviewer, run, "another", undo="")
    assert ranking.quintet.places.waiting().count() == 2


def test_who_ranked_it_is_not_asked_but_somebody_else(as_reviewer, project, run, compose, labeler, rita):
    (quintet,) = compose()
    place = Place.objects.next_for(labeler, project)
    follow(run, quintet.record_ranking(labeler, place, UP, place.key), 0, TURNED)
    assert Place.objects.next_for(rita, project) is None
    post(as_reviewer, run, "another")
    assert Place.objects.next_for(labeler, project) is None
    assert Place.objects.next_for(rita, project).quintet == quintet
    said = text(as_reviewer.get(post(as_reviewer, run, "another", undo="").url))
    assert "Somebody is ranking it at this moment" in said


def test_for_what_is_out_of_the_queue_nobody_is_asked(as_reviewer, run, rankings):
    rankings[0].quintet.set_aside(None, "Broken.")
    rows = {row.index: row for row in page(as_reviewer, run).context["page"]}
    assert (rows[0].in_use, rows[1].in_use) == (False, True)
    assert "nobody more can be asked" in text(page(as_reviewer, run))
    said = text(as_reviewer.get(post(as_reviewer, run, "another").url))
    assert "nobody would be served it" in said and not Place.objects.asked_for().exists()
