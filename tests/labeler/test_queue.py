"""The queue under whatever people do, in any order: claims, leases that run out, submits sent twice, skips,
edits, undo, exclusion, quintets set aside. After every step nothing is lost, nobody is above the overlap, and
whoever could be served is served."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from labeler.loop import standings
from labeler.models import (
    Checkpoint,
    Contribution,
    Membership,
    Place,
    Project,
    Prompt,
    Quintet,
    Ranking,
    Round,
    Skip,
    User,
)
from labeler.models.rankings import RankingRefused

LABELERS, QUINTETS, ROLLOUTS = 3, 3, 3
orders, any_of = st.permutations(range(1, ROLLOUTS + 1)), st.integers(0, 59)


def one(several, number: int):
    """One of them, whichever the number says; None of none."""
    found = list(several)
    return found[number % len(found)] if found else None


class Queue(RuleBasedStateMachine):
    """Each labeler has a browser that remembers the forms it was shown, and may send one at any time."""

    @initialize(overlap=st.integers(1, 3))
    def begin(self, overlap: int) -> None:
        name, self.most = uuid.uuid4().hex[:12], overlap
        self.admin = User.objects.create(username=f"admin {name}", is_staff=True)
        self.project = Project.objects.create(
            name=name, slug=name, overlap=overlap, gold_rate=0, repeat_rate=0
        )
        self.people = [User.objects.create(username=f"{name} {number}") for number in range(LABELERS)]
        Membership.objects.bulk_create(Membership(project=self.project, user=who) for who in self.people)
        self.round = Round.objects.current(self.project)
        self.forms: list[tuple[User, str]] = []
        self.sent: dict[uuid.UUID | None, Ranking] = {}  # what was acknowledged
        for number in range(QUINTETS):
            self.add(number)

    def add(self, number: int) -> None:
        prompt = Prompt.objects.create(project=self.project, content=f"prompt {number}")
        texts = [f"rollout {each}" for each in range(ROLLOUTS)]
        Quintet.objects.compose(self.project, self.round, prompt, texts)

    def rankings(self):
        return Ranking.objects.filter(quintet__project=self.project, current=True).order_by("pk")

    def free_places(self, quintet: Quintet):
        return quintet.places.waiting().vacant()

    # What people do.

    @rule(number=any_of)
    def claim(self, number: int) -> None:
        who = self.people[number % LABELERS]
        could = set(Quintet.objects.filter(project=self.project).awaiting(who))
        place = Place.objects.next_for(who, self.project)
        assert bool(place) == bool(could), "whoever can be served is served, and nobody else"
        if place:
            assert place.quintet in could
            assert place.labeler_id == who.pk and not place.done
            assert Place.objects.next_for(who, self.project).pk == place.pk
            self.forms.append((who, place.ticket()))

    @rule(ranks=orders, back=any_of)
    def submit(self, ranks: list[int], back: int) -> None:
        """The form shown last, or one of an older tab; and once more."""
        if not self.forms:
            return
        who, form = self.forms[-1 - back % 4 % len(self.forms)]
        ticket = Place.objects.redeem(form, who, self.project)
        quintet = ticket.place.quintet
        try:
            ranking = quintet.record_ranking(who, ticket.place, ranks, ticket.key)
        except RankingRefused:
            assert quintet.rankings.filter(labeler=who).exists(), "only because something of theirs is kept"
            return
        assert ranking.ranks == ranks
        self.sent[ticket.key] = ranking
        again = Place.objects.redeem(form, who, self.project)
        assert quintet.record_ranking(who, again.place, ranks, again.key) == ranking
        if ranking.current and ranking.surplus and not self.excluded(who):
            assert not self.free_places(quintet).exists()

    def excluded(self, who: User) -> bool:
        return self.project.memberships.filter(user=who, excluded_at__isnull=False).exists()

    @rule(number=any_of, leaves=st.booleans())
    def leave_or_stay(self, number: int, leaves: bool) -> None:
        who = self.people[number % LABELERS]
        if leaves:
            Place.objects.release(who)
            assert not self.project.places.filter(labeler=who, done=False).exists()
        else:
            Place.objects.hold(who, self.project)

    @rule()
    def leases_run_out(self) -> None:
        held = self.project.places.filter(done=False, labeler__isnull=False)
        held.update(leased_until=timezone.now() - timedelta(seconds=1))

    @rule(number=any_of, reason=st.sampled_from(Skip.Reason.values))
    def skip(self, number: int, reason: str) -> None:
        held = self.project.places.filter(done=False, labeler__isnull=False).select_related("labeler")
        if place := one(held, number):
            who = place.labeler
            place.skip(who, reason)
            assert not self.project.places.filter(labeler=who, pk=place.pk).exists()
            assert place.quintet not in Quintet.objects.awaiting(who)

    @rule(number=any_of)
    def take_back_a_skip(self, number: int) -> None:
        if skip := one(Skip.objects.filter(quintet__project=self.project), number):
            place = skip.take_back()
            assert place is None or place.labeler_id == skip.labeler_id
            assert place or not self.free_places(skip.quintet).served_to(skip.labeler).exists()
            assert not Skip.objects.filter(pk=skip.pk).exists()

    @rule(number=any_of, ranks=orders)
    def revise(self, number: int, ranks: list[int]) -> None:
        if ranking := one(self.rankings(), number):
            who = ranking.labeler
            assert ranking.revise(who, ranks).ranks == ranks
            assert ranking.quintet.rankings.filter(labeler=who, current=True).count() == 1

    @rule(number=any_of)
    def take_back(self, number: int) -> None:
        if ranking := one(self.rankings(), number):
            who = ranking.labeler
            place = ranking.take_back(who)
            assert not Ranking.objects.get(pk=ranking.pk).current
            assert bool(place) == (not ranking.surplus and not ranking.quintet.set_aside_at)
            if place:
                assert Place.objects.next_for(who, self.project).pk == place.pk
                self.forms.append((who, place.ticket()))

    # What admins do.

    @rule(number=any_of)
    def exclude_or_count_again(self, number: int) -> None:
        membership = one(self.project.memberships.order_by("pk"), number)
        who = membership.user
        if membership.excluded_at:
            membership.take_back(self.admin)
            for ranking in self.rankings().filter(labeler=who, surplus=True):
                assert not self.free_places(ranking.quintet).exists()
        else:
            membership.exclude("It looks like chance.", self.admin)
            assert not self.project.places.filter(labeler=who).exists()

    @rule(number=any_of)
    def set_aside_or_bring_back(self, number: int) -> None:
        quintet = one(self.project.quintets.order_by("pk"), number)
        if quintet.set_aside_at:
            quintet.bring_back(self.admin)
        else:
            quintet.set_aside(self.admin, "It looks broken.")

    @rule(overlap=st.integers(1, 3), queue=st.sampled_from(Project.Queue.values))
    def settings_change(self, overlap: int, queue: str) -> None:
        self.project.overlap, self.project.queue, self.most = overlap, queue, max(overlap, self.most)
        self.project.save(update_fields=["overlap", "queue"])
        Quintet.objects.reorder(self.project)
        for quintet in self.project.quintets.waiting():
            places = quintet.places.filter(purpose="work")
            taken = places.filter(labeler__isnull=False).count()
            assert places.filter(done=False, labeler=None).count() == max(0, overlap - taken)

    @precondition(lambda self: self.project.quintets.count() < 2 * QUINTETS)
    @rule()
    def more_come(self) -> None:
        self.add(self.project.quintets.count())

    # What may never be true.

    @invariant()
    def nothing_is_broken(self) -> None:
        stored = list(Ranking.objects.filter(quintet__project=self.project))
        places = list(self.project.places.select_related("quintet").filter(purpose="work"))
        self.no_ranking_is_lost({each.key: each for each in stored if each.key})
        self.places_and_rankings_agree(places, [each for each in stored if each.current])
        self.never_above_the_overlap(places)
        self.no_place_is_open_that_nobody_can_take([each for each in places if not each.done])
        self.the_counts_are_right(places, [each for each in stored if each.current])

    def no_ranking_is_lost(self, stored: dict[uuid.UUID | None, Ranking]) -> None:
        for key, was in self.sent.items():
            now = stored[key]
            assert (now.pk, now.labeler_id, now.ranks) == (was.pk, was.labeler_id, was.ranks)

    def places_and_rankings_agree(self, places: list[Place], rankings: list[Ranking]) -> None:
        """A filled place has its labeler's ranking, and a ranking that is not surplus has its place."""
        filled = [(each.quintet_id, each.labeler_id) for each in places if each.done and each.labeler_id]
        counted = [(each.quintet_id, each.labeler_id) for each in rankings if not each.surplus]
        assert sorted(filled) == sorted(counted)

    def never_above_the_overlap(self, places: list[Place]) -> None:
        for quintet in {each.quintet for each in places}:
            here = [each for each in places if each.quintet_id == quintet.pk]
            sitting = [each.labeler_id for each in here if each.labeler_id]
            assert len(sitting) == len(set(sitting))
            wanted = sum(not each.done or each.labeler_id is not None for each in here)
            # Who sat already when fewer became wanted stays.
            assert wanted <= max(self.project.overlap, len(sitting))
            assert len(sitting) <= self.most

    def no_place_is_open_that_nobody_can_take(self, places: list[Place]) -> None:
        newcomer = User(pk=0, username="nobody yet")
        numbers = [each.pk for each in places]
        takeable = set(Place.objects.filter(pk__in=numbers).served_to(newcomer).values_list("pk", flat=True))
        held = {each.pk for each in places if each.labeler_id and each.leased_until >= timezone.now()}
        assert takeable | held == set(numbers)

    def the_counts_are_right(self, places: list[Place], rankings: list[Ranking]) -> None:
        for each in Contribution.objects.filter(round=self.round):
            mine = sum(ranking.labeler_id == each.labeler_id for ranking in rankings)
            assert each.ranked == each.ranked_today == mine
            assert each.filled == sum(place.done and place.labeler_id == each.labeler_id for place in places)
        wanted = sum(not each.done or each.labeler_id is not None for each in places)
        assert Round.objects.get(pk=self.round.pk).wanted == wanted


@pytest.mark.django_db
def test_the_queue_keeps_its_promises_whatever_people_do():
    calm = settings(
        max_examples=12,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # orders follow from row numbers, which are others when it is tried again
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Queue, settings=calm)
    assert not connection.needs_rollback


def test_what_waits_is_counted_as_far_as_it_matters_and_said_so(project, labeler, compose, monkeypatch):
    compose(6)
    assert Quintet.objects.awaiting_counts(labeler, [project.pk]) == {project.pk: (6, True)}
    assert standings([project], labeler)[0].how_many_wait == "6"
    monkeypatch.setattr("labeler.models.queue.MANY", 4)
    assert standings([project], labeler)[0].how_many_wait == "4 or more"


def test_a_reward_model_knows_how_many_rankings_came_after_it(project, admin, labeler, compose):
    compose(3)
    places = [Place.objects.next_for(labeler, project)]
    places[0].quintet.record_ranking(labeler, places[0], [1, 2, 3, 4, 5])
    Checkpoint.objects.create(project=project, kind="reward", name="reward model", location="nowhere")
    for _ in range(2):
        place = Place.objects.next_for(labeler, project)
        last = place.quintet.record_ranking(labeler, place, [1, 2, 3, 4, 5])
    assert standings([project], admin)[0].since == 2
    last.take_back(labeler)
    assert standings([project], admin)[0].since == 1
