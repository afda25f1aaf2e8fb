"""What training minimises. A new objective is a file here."""

from vpt.objectives.base import Gradients, Objective
from vpt.objectives.classification import Classification
from vpt.objectives.distillation import Distillation
from vpt.objectives.fairness import FairReprogram, GapPenalty, WorstGroup

__all__ = [
    "Classification",
    "Distillation",
    "FairReprogram",
    "GapPenalty",
    "Gradients",
    "Objective",
    "WorstGroup",
]
