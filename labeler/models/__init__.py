"""The tables, one module per noun. Behaviour lives here, on models and querysets; views only ask for it."""

from labeler.models.audit import AuditEntry
from labeler.models.checkpoints import Checkpoint
from labeler.models.datasets import Dataset, Demonstration
from labeler.models.imports import Import
from labeler.models.people import Invitation, User, WrongTry
from labeler.models.projects import Guidelines, Membership, Project
from labeler.models.prompts import Prompt
from labeler.models.quintets import Place, Quintet, Rollout, Skip
from labeler.models.rankings import Arm, Purpose, Ranking
from labeler.models.requests import Request
from labeler.models.rounds import Round
from labeler.models.runs import Run, Sample, Step

__all__ = [
    "Arm",
    "AuditEntry",
    "Checkpoint",
    "Dataset",
    "Demonstration",
    "Guidelines",
    "Import",
    "Invitation",
    "Membership",
    "Place",
    "Project",
    "Prompt",
    "Purpose",
    "Quintet",
    "Ranking",
    "Request",
    "Rollout",
    "Round",
    "Run",
    "Sample",
    "Skip",
    "Step",
    "User",
    "WrongTry",
]
