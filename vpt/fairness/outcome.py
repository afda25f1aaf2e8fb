"""What came of trying points on the trade-off between accuracy and fairness: all of them, the
choice, and its picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vpt.data import Examples
from vpt.fairness.choosing import GAP, Judged, Point, against, choose, judged
from vpt.metrics.groups import TITLES
from vpt.runs.moments import Moments


@dataclass
class Frontier:
    """The bare model, every point that was tried, which was chosen by what rule, and
    post-processing beside them.

    notes: what to know before using it: a model that knows the group only, strengths that broke, a
        choice that gains nothing. judged: whether the choice is worth using. out_of_fold: whether
        "val" is what was learned from, each example being held out once. moments: of what was
        learned from, where they cost nothing. form: which of several this is of; forms: all that
        were compared, each with its choice and whether that is worth using.
    """

    base: Point
    points: list[Point]
    chosen: Point
    rule: str
    criterion: str
    thresholds: Point | None
    notes: list[str]
    judged: Judged
    out_of_fold: bool = False
    moments: Moments | None = field(default=None, repr=False)
    form: str = ""
    forms: list[tuple[str, Point, str]] = field(default_factory=list)

    @classmethod
    def settled(
        cls,
        base: Point,
        points: list[Point],
        val: Examples,
        notes: list[str],
        thresholds: Point | None,
        *,
        criterion: str,
        budget: float,
        bound: float | None,
        positive: str | None,
        seed: int,
        out_of_fold: bool = False,
    ) -> Frontier:
        """With a choice by the rule, what speaks against it, and whether it is worth using.

        val: the examples that choose. notes: what is known by then. the rest: as for `frontier`.
        """
        gap, allowed = GAP[criterion], budget if bound is None else None
        on = "out of fold" if out_of_fold else "on validation"
        chosen, rule = choose(base, points, gap, budget, bound, on)
        notes = notes + against(base, chosen, gap, allowed, bound)
        worth = judged(base, chosen, val, gap, allowed, positive, seed)
        return cls(base, points, chosen, rule, criterion, thresholds, notes, worth, out_of_fold)

    @property
    def gap(self) -> str:
        """The metric by which a point is chosen."""
        return GAP[self.criterion]

    @property
    def shown(self) -> tuple[str, str]:
        """(The part that numbers are reported on, in words): test, or validation where there is no
        test.
        """
        if self.base.test is not None:
            return "test", "test"
        return "val", "held-out" if self.out_of_fold else "validation"

    def picture(self, title: str = "") -> bytes:
        """Accuracy against the gap as a PNG: every strength, the choice, the bare model, and
        thresholds by group beside them.
        """
        from vpt.report import pictures

        part, words = self.shown

        def at(point: Point) -> tuple[pictures.Ratio, pictures.Ratio]:
            return point.interval(self.gap, part), point.interval("accuracy", part)

        marks = {"bare model": at(self.base)}
        if self.thresholds is not None:
            marks["thresholds by group (needs the group)"] = at(self.thresholds)
        points = [(point.called, *at(point)) for point in self.points]
        on = f"{TITLES[self.gap]}, on {self.base.on(part).n} {words} examples"
        return pictures.tradeoff(points, marks, self.points.index(self.chosen), on, title)
