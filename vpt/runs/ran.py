"""How a run went: what its report is made of, besides the answers."""

from __future__ import annotations

from dataclasses import dataclass

from vpt.data import Data
from vpt.runs.choosing import Chosen
from vpt.runs.cost import Clock
from vpt.sites import Config
from vpt.training.loop import History
from vpt.training.recipe import Recipe


@dataclass(frozen=True)
class Ran:
    """How a run went.

    data: from which it learned.
    train_n: how many examples it learned from.
    strength: C of the linear probe.
    slope: by which its scores were multiplied, so that they are calibrated; None where they were
        not, or where each part of an average has its own.
    history: of the training; empty where there was none.
    recipe: by which it was trained.
    clock: since it began.
    command: the command line that began it, if one did.
    chosen: with prompt "auto", what was chosen and among what.
    queries: what each is worth.
    suspects: labels that look wrong.
    told: by what the same can be learned again.
    """

    data: Data
    train_n: int
    strength: float
    slope: float | None
    history: History
    recipe: Recipe
    clock: Clock
    command: str | None
    chosen: Chosen | None = None
    queries: Config | None = None
    suspects: Config | None = None
    told: Config | None = None
