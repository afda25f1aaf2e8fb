"""A point of the trade-off between accuracy and fairness, the rule that chooses one, and whether it
is worth using.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from vpt.data import Examples
from vpt.metrics.audit import Audit, Interval
from vpt.metrics.changes import changes, soft_changes
from vpt.sites import Config
from vpt.training.checkpoints import Row

# by which a point is chosen
GAP = {"eo": "average_odds_difference", "dp": "demographic_parity_difference"}


@dataclass
class Point:
    """What a strength gives, by name, and what was learned. test: None where there are no test
    examples.

    strength: None for the bare model and for accuracy alone. note: why it is not to be used. rows:
        of its training. scores: of the classes, on each part `[n,C]`.
    """

    name: str
    strength: float | None
    val: Audit
    test: Audit | None
    learned: dict[str, Tensor] | None = None
    note: str = ""
    rows: list[Row] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)

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
    base: Point,
    points: Sequence[Point],
    gap: str,
    budget: float,
    bound: float | None,
    on: str = "on validation",
) -> tuple[Point, str]:
    """(The point that a rule picks on validation, the rule in words).

    With a bound: the most accurate of those whose gap is at most that. Otherwise the fairest of
    those that are at most `budget` less accurate than the bare model. Where there is none, the one
    that misses by least.

    base: the bare model.
    points: that were tried.
    gap: the metric by which is chosen.
    budget: accuracy that may be lost.
    bound: the gap that is allowed; None goes by the budget.
    on: what chooses, in words.
    """
    usable = [p for p in points if not p.note] or list(points)

    def accuracy(point: Point) -> float:
        return point.value("accuracy")

    def gap_of(point: Point) -> float:
        value = point.value(gap)
        return float("inf") if np.isnan(value) else value

    if bound is not None:
        rule = f"the most accurate with {gap.replace('_', ' ')} of at most {bound:g} {on}"
        within = [p for p in usable if p.value(gap) <= bound]
        if within:
            return max(within, key=accuracy), rule
        return min(usable, key=gap_of), f"the fairest, since none has so small a gap: {rule}"
    rule = f"within {budget:.1%} of the bare model's accuracy {on}"
    within = [p for p in usable if accuracy(p) >= accuracy(base) - budget - 1e-9]
    if within:
        return min(within, key=gap_of), f"the least {gap.replace('_', ' ')} {rule}"
    return max(usable, key=accuracy), f"the most accurate, since none is {rule}"


def against(
    base: Point, chosen: Point, gap: str, budget: float | None, bound: float | None
) -> list[str]:
    """What speaks against the chosen prompt.

    base, chosen: with their audits.
    gap: the metric by which was chosen.
    budget: accuracy that may be lost; None where it was chosen by a bound.
    bound: the gap that is allowed; None where it was chosen by a budget.
    """
    notes = []
    if bound is not None and chosen.value(gap) > bound:
        notes.append(f"no prompt is within the bound: {chosen.value(gap):.3f} > {bound:g}")
    accuracies = [point.value("accuracy") for point in (base, chosen)]
    if budget is not None and accuracies[1] < accuracies[0] - budget - 1e-9:
        notes.append(
            f"no prompt is within {budget:.1%} of the bare model's accuracy on validation "
            f"({accuracies[0]:.1%} → {accuracies[1]:.1%})"
        )
    if chosen.note or not chosen.value(gap) < base.value(gap):
        why = (
            chosen.note
            or "it is no fairer on validation than the bare model"
            f" ({base.value(gap):.3f} → {chosen.value(gap):.3f})"
        )
        notes.append(
            f"do not use the chosen prompt: {why}. Keep the model as it is, or try more examples,"
            " more epochs or another width"
        )
    return notes


@dataclass(frozen=True)
class Judged:
    """Whether a chosen prompt is worth using: "use", "keep the model" or "cannot tell", and why.

    changes: every number of `vpt.metrics.groups.TITLES` with the prompt less without it, on what
        chose it, in pairs. soft: the same of mean probabilities in place of decisions.
    """

    recommendation: str
    why: str
    changes: dict[str, Interval]
    soft: dict[str, Interval]


def judged(
    base: Point,
    chosen: Point,
    val: Examples,
    gap: str,
    budget: float | None,
    positive: str | None,
    seed: int = 0,
) -> Judged:
    """Whether the chosen point is measurably fairer than the bare model, for what it costs: its
    gap must be smaller, and measurably so in mean probabilities, of which a few hundred examples
    say more than of the decisions of a few in a rare cell.

    base, chosen: with their scores on "val".
    val: the examples that chose.
    gap: the metric by which was chosen.
    budget: accuracy that may be lost; None where it was chosen by a bound.
    positive: of two classes, the one whose rates count.
    seed: of the redrawing.
    """
    both = [point.scores["val"].double() for point in (base, chosen)]
    groups, names = val.grouped or [], val.group_names or []
    before, after = (scores.argmax(1).tolist() for scores in both)
    hard = changes(
        val.targets, before, after, groups, val.classes, names, positive=positive, seed=seed
    )
    number = val.classes.index(positive) if positive is not None else None
    old, new = (scores.softmax(1).numpy() for scores in both)
    soft = soft_changes(val.targets, old, new, groups, positive=number, seed=seed)
    fairer, surer, right = hard[gap], soft[gap], hard["accuracy"]
    by = (
        f"{gap.replace('_', ' ')} {_signed(fairer)}, in mean probabilities {_signed(surer)},"
        f" accuracy {_signed(right, 100)} points, on {len(val)} examples"
    )
    if fairer.value is None or right.value is None:
        why = f"the {gap.replace('_', ' ')} is not defined on these {len(val)} examples"
        return Judged("cannot tell", why, hard, soft)
    if fairer.value >= 0 or chosen.note:
        return Judged("keep the model", f"it is no fairer: {by}", hard, soft)
    if budget is not None and right.value < -budget - 1e-9:
        why = f"it costs more than the {100 * budget:g} points of accuracy that may be lost: {by}"
        return Judged("keep the model", why, hard, soft)
    if surer.high is not None and surer.high < 0:
        return Judged("use", f"measurably fairer: {by}", hard, soft)
    why = f"it may be chance: {by}"
    if surer.value is None or surer.value >= 0 or surer.high is None:
        return Judged("cannot tell", f"{why}; the two do not agree", hard, soft)
    more = ((surer.high - surer.value) / surer.value) ** 2
    needed = f"about {_round(len(val) * more)}" if more < 100 else "a hundred times as many"
    why += f"; to tell, {needed} labelled examples are needed"
    return Judged("cannot tell", why, hard, soft)


def _signed(change: Interval, times: float = 1.0) -> str:
    digits = 1 if times > 1 else 3
    ends = (change.value, change.low, change.high)
    value, low, high = ("?" if v is None else f"{times * v:+.{digits}f}" for v in ends)
    return f"{value} ({low} to {high})"


def _round(count: float) -> str:
    """Two digits of a large number, upwards."""
    step = 10 ** max(0, int(np.log10(max(count, 1))) - 1)
    return f"{int(np.ceil(count / step) * step):,}"
