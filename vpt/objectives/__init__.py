"""What training minimises. A new objective is a file here."""

from vpt.objectives.base import Gradients, Objective
from vpt.objectives.classification import Classification

__all__ = ["Classification", "Gradients", "Objective"]
