"""What can be done about a gap: whether the model holds the real feature at all, and the best that
corrections of it come to, with the group at prediction and without.

All of it is cross-fitted on the audited examples themselves, from one pass over them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vpt.data import Examples
from vpt.fairness.auditing import ABOVE_CHANCE
from vpt.fairness.choosing import GAP, Judged, choose, judged
from vpt.fairness.mending import STRENGTHS, Mending
from vpt.fairness.thresholds import cross_fitted_thresholds
from vpt.fairness.tradeoff import point_at
from vpt.metrics.audit import Interval
from vpt.metrics.changes import changes
from vpt.runs.probe import FALLBACK, Folds, in_span, one_thread
from vpt.sites import Config

BUDGET = 0.01  # of accuracy
MOST = 2000  # examples that it is said of; more would only take longer
SHORTCUT = "the model knows only the shortcut"
MENDABLE = "mendable"
WITH_GROUP = "only with the group at prediction"
UNKNOWN = "cannot tell"
NOTHING = "nothing to mend"


@dataclass(frozen=True)
class Remedies:
    """What can be done about a gap, on n examples.

    verdict: one of `MENDABLE`, `WITH_GROUP`, `SHORTCUT`, `NOTHING`, `UNKNOWN`; why: in numbers.
        knows_label: accuracy of a probe of the label on the model's features, out of fold, with
        every label × group cell weighed alike; knows_group: the same of the group. chance: of
        them. correction, thresholds: change of gap and accuracy by a correction of the model's own
        scores, and by thresholds that are told the group; None where there are none.
    """

    verdict: str
    why: str
    n: int
    knows_label: float
    knows_group: float
    chance: tuple[float, float]
    correction: dict[str, Interval] | None
    thresholds: dict[str, Interval] | None

    @property
    def recommendation(self) -> str:
        """Whether to use a correction: "use", "keep the model" or "cannot tell"."""
        known = {MENDABLE: "use", UNKNOWN: "cannot tell"}
        return known.get(self.verdict, "keep the model")

    def as_dict(self) -> Config:
        """In plain values."""
        return asdict(self)


def at_most(examples: Examples, seed: int = 0) -> Examples:
    """The examples, or `MOST` of them, drawn at random."""
    if len(examples) <= MOST:
        return examples
    order = np.random.default_rng(seed).permutation(len(examples))[:MOST]
    return examples.subset(sorted(order.tolist()))


def remedies(
    mending: Mending, criterion: str = "eo", positive: str | None = None, seed: int = 0
) -> Remedies:
    """What can be done about the gap of a classifier.

    mending: what corrections of it say of examples, by this criterion.
    criterion: "eo" or "dp".
    positive: of two classes, the one whose rates count.
    seed: of the intervals.
    """
    examples, bare, gap = mending.examples, mending.bare, GAP[criterion]
    parts = {"val": examples}
    base = point_at("bare model", None, {"val": bare}, parts, positive)
    points = [
        point_at(repr(s), s, {"val": mending.held_out(s)}, parts, positive) for s in STRENGTHS
    ]
    chosen, _ = choose(base, points, gap, BUDGET, None)
    worth = judged(base, chosen, examples, gap, BUDGET, positive, seed)
    said = cross_fitted_thresholds(bare, examples, mending.folds, criterion, positive)
    by_group = None
    if said is not None:
        by_group = changes(
            examples.targets,
            bare.argmax(1).tolist(),
            said.tolist(),
            examples.grouped or [],
            examples.classes,
            examples.group_names or [],
            positive=positive,
            seed=seed,
        )
    y, group = np.array(examples.targets), np.array(examples.grouped)
    x = mending.heads[0].x
    knows_label, knows_group = (_knows(x, of, y, group, mending.folds) for of in (y, group))
    chance = (1 / len(np.unique(y)), 1 / len(np.unique(group)))
    verdict, why = _verdict(knows_label, chance[0], base.value(gap), worth, by_group, gap)
    shown = (gap, "accuracy")
    return Remedies(
        verdict,
        why,
        len(examples),
        knows_label,
        knows_group,
        chance,
        {name: worth.changes[name] for name in shown},
        {name: by_group[name] for name in shown} if by_group is not None else None,
    )


def _verdict(
    knows: float,
    chance: float,
    gap: float,
    worth: Judged,
    by_group: dict[str, Interval] | None,
    name: str,
) -> tuple[str, str]:
    """(the verdict, why)."""
    if np.isnan(gap):
        return UNKNOWN, f"the {name.replace('_', ' ')} is not defined on these examples"
    if knows < chance + ABOVE_CHANCE:
        return SHORTCUT, (
            f"a probe of the label on its features is right on {knows:.1%} once label and group are"
            f" balanced, near chance ({chance:.1%}): more data or another model is needed"
        )
    if worth.recommendation == "use":
        return MENDABLE, f"a correction of its own scores is {worth.why}"
    found = by_group[name] if by_group is not None else None
    if found is not None and found.high is not None and found.high < 0:
        return WITH_GROUP, (
            f"thresholds by group change the gap by {found.value:+.3f} ({found.low:+.3f} to"
            f" {found.high:+.3f}); without it, {worth.why}"
        )
    if gap < 0.05:
        return NOTHING, f"the gap is {gap:.3f}"
    return UNKNOWN, worth.why


def _knows(x: np.ndarray, of: np.ndarray, y: np.ndarray, group: np.ndarray, folds: Folds) -> float:
    """How often a probe of `of` on features `[n,F]` is right out of fold, the mean over cells."""
    cell = np.unique(y * (group.max() + 1) + group, return_inverse=True)[1]
    weights = 1 / np.bincount(cell)[cell]
    right = np.zeros(len(of), bool)
    for kept, held in folds:
        if len(np.unique(of[kept])) < 2:
            continue
        scaler = StandardScaler().fit(x[kept])
        z, basis = in_span(scaler.transform(x[kept]))
        fresh = scaler.transform(x[held])
        probe = LogisticRegression(C=FALLBACK, max_iter=2000)
        with one_thread(z):
            probe.fit(z, of[kept], sample_weight=weights[kept] / weights[kept].mean())
        right[held] = probe.predict(fresh if basis is None else fresh @ basis) == of[held]
    # within what is told first, or a missing cell would make a constant answer look knowing
    return float(
        np.mean(
            [
                np.mean([right[cell == c].mean() for c in np.unique(cell[of == kind])])
                for kind in np.unique(of)
            ]
        )
    )
