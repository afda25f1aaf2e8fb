"""What objectives have in common that make a model's errors alike between groups.

Which to use: `GapPenalty` first, it is the simplest and says directly what is wanted.
`FairReprogram` where the gap of means is closed but the group can still be read off the scores, or
to repeat the paper. `WorstGroup` where some label × group cell is served badly and the rates need
not be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vpt.errors import TrainingError
from vpt.objectives.base import Objective
from vpt.sites import Config

CRITERIA = {"dp": "demographic parity", "eo": "equalized odds"}


class ByGroup(Objective):
    """Base of objectives with groups, of which at least two are compared, within each label (eo) or
    over all (dp).

    A group that does not occur with a label is left out of that label's comparison, as long as two
    others are there. strengths: those that are tried by default, rising.
    """

    strengths: ClassVar[tuple[float, ...]]
    keeps_best = False  # the epoch of least cross-entropy would be the least fair one
    needs_cells = True  # whether every label needs examples of two groups
    shares: Tensor

    def __init__(self, strength: float, criterion: str) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise TrainingError(
                f"Found criterion={criterion!r}; needed is 'dp' (demographic parity) or 'eo'"
                " (equalized odds)."
            )
        self.criterion = criterion
        self.strength = rate("strength", strength)

    @classmethod
    def of(cls, strength: float, criterion: str) -> ByGroup:
        """This objective, with the rest as it usually is."""
        return cls(strength, criterion)

    def config(self) -> Config:
        """Criterion and strength."""
        return {"criterion": self.criterion, "strength": self.strength}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Count the examples of every stratum × group. Raises `TrainingError` for missing groups
        and empty cells.
        """
        if group is None or group_names is None:
            raise TrainingError(
                "The training examples have no groups; this objective needs the group of every"
                " example (a group column in the CSV, or items of (input, label, group))."
            )
        if min(group) < 0:
            raise TrainingError(
                f"{sum(g < 0 for g in group)} of {len(group)} training examples have no group;"
                " needed is one each."
            )
        present = sorted(set(group))
        if len(present) < 2:
            raise TrainingError(
                f"All training examples are of one group, {group_names[present[0]]!r}; needed are"
                " two."
            )
        strata = len(classes) if self.criterion == "eo" else 1
        counts = torch.zeros(strata, len(group_names))
        for label, g in zip(y, group, strict=True):
            counts[label if self.criterion == "eo" else 0, g] += 1
        if self.needs_cells:
            _refuse_lone_groups(counts, classes, group_names, present)
        self.register_buffer("shares", counts / counts.sum(), persistent=False)
        self.classes = len(classes)
        self.groups = len(group_names)

    def stratum(self, y: Tensor) -> Tensor:
        """Labels `[B]` → within what each example is compared: its label, or one for all."""
        return y if self.criterion == "eo" else torch.zeros_like(y)


def _refuse_lone_groups(
    counts: Tensor, classes: Sequence[str], group_names: Sequence[str], present: Sequence[int]
) -> None:
    """Raise `TrainingError` for labels of one group only. counts: `[strata, groups]`."""
    empty = [
        (classes[label], group_names[g])
        for label in range(len(counts))
        if (counts[label] > 0).sum() == 1
        for g in present
        if not counts[label, g]
    ]
    if empty:
        cells = ", ".join(f"label {label!r} in group {name!r}" for label, name in empty[:5])
        raise TrainingError(
            f"No training examples with {cells}: equalized odds is not defined there. Add some,"
            " merge groups, or use demographic parity (criterion='dp')."
        )


def given(group: Tensor | None) -> Tensor:
    """The groups `[B]` of a batch. Raises `TrainingError` where there are none."""
    if group is None:
        raise TrainingError("This objective needs the group of every example.")
    return group


def rate(name: str, value: float) -> float:
    """A setting as a float. Raises `TrainingError` for what is no finite number of at least 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value >= 0):
        raise TrainingError(f"Found {name}={value!r}; needed is a finite number of at least 0.")
    return float(value)
