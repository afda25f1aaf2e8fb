"""A point of the trade-off between accuracy and fairness, and the rule that chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from vpt.metrics.audit import Audit
from vpt.sites import Config
from vpt.training.checkpoints import Row

# by which a point is chosen
GAP = {"eo": "average_odds_difference", "dp": "demographic_parity_difference"}


@dataclass
class Point:
    """What a strength gives, by name, and what was learned. test: None where there are no test
    examples.

    strength: None for the bare model and for accuracy alone. note: why it is not to be used. rows:
        of its training.
    """

    name: str
    strength: float | None
    val: Audit
    test: Audit | None
    learned: dict[str, Tensor] | None = None
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def called(self) -> str:
        """Its name for people."""
        return "accuracy alone" if self.strength is None else f"strength {self.strength:g}"

    def on(self, part: str) -> Audit:
        """Its audit on "val" or "test", where there are such examples."""
        audit: Audit = getattr(self, part)
        return audit

    def value(self, metric: str, part: str = "val") -> float:
        """One of the metrics; NaN where it could not be said."""
        return self.on(part).value(metric)

    def interval(self, metric: str, part: str = "val") -> tuple[float, float, float]:
        """(value, low, high) of one of the metrics; NaN where it could not be said."""
        found = self.on(part).metrics[metric]
        low, high = (float("nan") if end is None else end for end in (found.low, found.high))
        return self.value(metric, part), low, high

    def as_dict(self) -> Config:
        """All of it but what was learned, in plain values."""
        return {
            "name": self.name,
            "strength": self.strength,
            "note": self.note,
            "val": self.val.as_dict(),
            "test": self.test.as_dict() if self.test is not None else None,
            "rows": self.rows,
        }


def choose(
    base: Point, points: Sequence[Point], gap: str, budget: float, bound: float | None
) -> tuple[Point, str]:
    """(The point that a rule picks on validation, the rule in words).

    With a bound: the most accurate of those whose gap is at most that. Otherwise the fairest of
    those that are at most `budget` less accurate than the bare model. Where there is none, the one
    that misses by least.
    """
    usable = [p for p in points if not p.note] or list(points)

    def accuracy(point: Point) -> float:
        return point.value("accuracy")

    def gap_of(point: Point) -> float:
        value = point.value(gap)
        return float("inf") if np.isnan(value) else value

    if bound is not None:
        rule = f"the most accurate with {gap.replace('_', ' ')} of at most {bound:g} on validation"
        within = [p for p in usable if p.value(gap) <= bound]
        if within:
            return max(within, key=accuracy), rule
        return min(usable, key=gap_of), f"the fairest, since none is {rule}"
    rule = f"within {budget:.1%} of the bare model's accuracy on validation"
    within = [p for p in usable if accuracy(p) >= accuracy(base) - budget - 1e-9]
    if within:
        return min(within, key=gap_of), f"the least {gap.replace('_', ' ')} {rule}"
    return max(usable, key=accuracy), f"the most accurate, since none is {rule}"
