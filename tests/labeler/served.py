"""What comes next for a labeler, ranked: for tests of the queue, of hidden checks and of practice."""

import pytest

from labeler.models import (
    Membership,
    Place,
    Project,
    Quintet,
    Ranking,
    User,
)

RANKS = [1, 2, 3, 4, 5]


@pytest.fixture
def project(project) -> Project:
    project.gold_rate = project.repeat_rate = 0
    project.save()
    return project


@pytest.fixture
def membership(project, labeler) -> Membership:
    return Membership.objects.get(project=project, user=labeler)


@pytest.fixture
def others(project) -> list[User]:
    found = [User.objects.create_user(name) for name in ("sven", "tara", "ugo")]
    Membership.objects.bulk_create(Membership(project=project, user=each) for each in found)
    return found


def rank(labeler: User, project: Project, ranks=RANKS) -> Ranking | None:
    """What comes next for them, ranked."""
    place = Place.objects.next_for(labeler, project)
    return place and place.quintet.record_ranking(labeler, place, ranks, place.key, ties=True)


def served(labeler: User, project: Project) -> list[Quintet]:
    found = []
    while ranking := rank(labeler, project):
        found.append(ranking.quintet)
    return found
