"""The tables, one module per noun. Behaviour lives here, on models and querysets; views only ask for it."""

from labeler.models.checkpoints import Checkpoint
from labeler.models.datasets import Dataset, Demonstration
from labeler.models.people import Invitation, User, WrongTry
from labeler.models.projects import Membership, Project
from labeler.models.prompts import Prompt
from labeler.models.quintets import Place, Quintet, Rollout, Round
from labeler.models.rankings import Ranking
from labeler.models.requests import Request
from labeler.models.runs import Run, Sample, Step

__all__ = [
    "Checkpoint",
    "Dataset",
    "Demonstration",
    "Invitation",
    "Membership",
    "Place",
    "Project",
    "Prompt",
    "Quintet",
    "Ranking",
    "Request",
    "Rollout",
    "Round",
    "Run",
    "Sample",
    "Step",
    "User",
    "WrongTry",
]
