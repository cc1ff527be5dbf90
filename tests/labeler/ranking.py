"""The form of the ranking page as a labeler fills it in."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from labeler.models import (
    Membership,
    Project,
    User,
)

HTMX = {"HX-Request": "true"}


@pytest.fixture
def second(project) -> User:
    second = User.objects.create_user("sven")
    Membership.objects.create(project=project, user=second)
    return second


def url(project: Project, name: str = "rank") -> str:
    return reverse(name, args=[project.slug])


def ticket_in(response) -> str:
    return re.search(r'name="ticket" value="([^"]+)"', response.content.decode())[1]


def form(client: Client, project: Project, order: str = "abcde") -> dict[str, str]:
    """The form as this labeler fills it in: `order` names the rollouts best to worst, by their letters."""
    ticket = ticket_in(client.get(url(project)))
    return {"ticket": ticket} | {f"rank-{letter}": str(rank) for rank, letter in enumerate(order, start=1)}


def letters_of(response) -> list[str]:
    """The texts in the order in which the page shows them."""
    return re.findall(r'id="text-[A-E]" dir="auto">([^<]*)<', response.content.decode())
