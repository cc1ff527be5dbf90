"""The tables, one module per noun. Behaviour lives here, on models and querysets; views only ask for it."""

from labeler.models.agreement import StaleQuintet, Tallied, Tally
from labeler.models.audit import AuditEntry
from labeler.models.checkpoints import Checkpoint
from labeler.models.contributions import Contribution
from labeler.models.datasets import Dataset
from labeler.models.demonstrations import Demonstration, Earlier, Origin, Rival
from labeler.models.desks import Desk
from labeler.models.evaluations import Evaluation
from labeler.models.faceoffs import Contender, Faceoff
from labeler.models.flags import Flag
from labeler.models.guidelines import Guidelines
from labeler.models.harvests import Find, Harvest
from labeler.models.imports import Import
from labeler.models.people import Invitation, User, WrongTry
from labeler.models.places import Place
from labeler.models.probes import Probe
from labeler.models.projects import Membership, Project
from labeler.models.prompts import Prompt
from labeler.models.quintets import Quintet, Rollout
from labeler.models.rankings import Arm, Purpose, Ranking
from labeler.models.requests import Part, Request
from labeler.models.rounds import Gate, Round
from labeler.models.runs import Run, Sample, Step
from labeler.models.sheets import Sheet
from labeler.models.skips import Skip
from labeler.models.verdicts import Verdict

__all__ = [
    "Arm",
    "AuditEntry",
    "Checkpoint",
    "Contender",
    "Contribution",
    "Dataset",
    "Demonstration",
    "Desk",
    "Earlier",
    "Evaluation",
    "Faceoff",
    "Find",
    "Flag",
    "Gate",
    "Guidelines",
    "Harvest",
    "Import",
    "Invitation",
    "Membership",
    "Origin",
    "Part",
    "Place",
    "Probe",
    "Project",
    "Prompt",
    "Purpose",
    "Quintet",
    "Ranking",
    "Request",
    "Rival",
    "Rollout",
    "Round",
    "Run",
    "Sample",
    "Sheet",
    "Skip",
    "StaleQuintet",
    "Step",
    "Tallied",
    "Tally",
    "User",
    "Verdict",
    "WrongTry",
]
